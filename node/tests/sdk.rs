//! Real clients, in Python: what the OpenTelemetry SDK sends is counted exactly, who asks over
//! gRPC is told what HTTP says, and chunks of files are answered as older senders know it.
//!
//! Needs `python3` with its module `venv`, and a package index for pip. Without them
//! the tests fail, unless the variable `SKIP_PYTHON_SDK` is set.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sheaf_proto::cluster::Cluster;
use sheaf_proto::names::{CLUSTER_PATH, LEDGER_PATH, WINDOWS_PATH};
use sheaf_proto::statistics::{Ledger, WindowCounts};

/// Skips these tests, if it is set to anything.
const SKIP: &str = "SKIP_PYTHON_SDK";
const REQUIREMENTS: &str = include_str!("sdk/requirements.txt");
const SEND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/send.py");
const STATISTICS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/statistics.py");
const CHUNKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/chunks.py");
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn what_the_sdk_sends_over_grpc_is_counted_exactly() {
    counts_what_is_sent_over("grpc");
}

#[test]
fn what_the_sdk_sends_over_http_is_counted_exactly() {
    counts_what_is_sent_over("http");
}

#[test]
fn who_asks_over_grpc_is_told_what_http_says() {
    let Some(python) = python() else { return };
    let node = Node::start();
    // At least two windows, so that they have an order.
    for (protocol, records) in [("grpc", 1_322), ("http", 2_644)] {
        run(&python, &[SEND, protocol, &format!("http://{}", node.address(protocol))]);
        node.counted(records);
    }
    let windows: Vec<WindowCounts> = node.json(WINDOWS_PATH);
    let admin = node.addresses["admin"].as_str();
    let told = run(&python, &[STATISTICS, admin, &windows.len().to_string()]);
    let told: Told = serde_json::from_str(&told).expect("all that there is");

    assert_eq!(told.windows, windows);
    let oldest_first: Vec<_> = windows.into_iter().rev().collect();
    assert_eq!(told.followed, oldest_first);
    assert_eq!(told.ledger, node.json(LEDGER_PATH));
    assert!(told.ledger.balanced && told.ledger.accepted == 2_644, "{:?}", told.ledger);
    // What it has to do goes on meanwhile.
    let still = |cluster: Cluster| Cluster { segments: Vec::new(), ..cluster };
    assert_eq!(still(told.cluster), still(node.json(CLUSTER_PATH)));
}

#[test]
fn chunks_of_files_are_answered_over_http_and_grpc() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = folder.path().join("sheaf.yaml");
    let files = "aggregations: [{name: files, type: LogFiles, logFiles: {}}]";
    fs::write(&settings, files).expect("a file in it");
    let node = Node::start_with(&["--config", settings.to_str().expect("its name is a text")]);
    let told = run(&python, &[CHUNKS, &node.addresses["chunks"]]);
    let told: Value = serde_json::from_str(&told).expect("all answers");
    let expected = json!({
        "data": vec![json!([200, "Throttle: 0"]); 50],
        "refused": 400,
        "stream": [5000, "OK"],
        "zero": [1, "OK"],
        "count": [200, "Count=5050"],
        "set": [200, "Log server throttle = 2"],
        "read": [200, "Log server throttle = 2"],
        "alive": [200, "Log Server Is Alive"],
    });
    assert_eq!(told, expected);
}

/// What the service says, in the shape of the HTTP API.
#[derive(Deserialize)]
struct Told {
    windows: Vec<WindowCounts>,
    followed: Vec<WindowCounts>,
    ledger: Ledger,
    cluster: Cluster,
}

/// Runs a script, and returns what it prints.
fn run(python: &Path, arguments: &[&str]) -> String {
    let ran = Command::new(python).args(arguments).env_clear().output().expect("python runs");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(ran.stdout).expect("a text")
}

fn counts_what_is_sent_over(protocol: &str) {
    let Some(python) = python() else { return };
    let node = Node::start();
    run(&python, &[SEND, protocol, &format!("http://{}", node.address(protocol))]);

    let counted = node.counted(1_322);
    assert_eq!(counted.distinct, 1_116);
    assert_eq!(counted.unknown, 1);
    let expected = [
        (r#""acme""#, 101), // 100 bodies, and one against its resource's value
        (r#""bodies""#, 6),
        (r#""resource""#, 1_000),
        (r#""scope""#, 1),
        ("7", 1),
        (r#""7""#, 1),
        ("true", 1),
        ("2.5", 1),
        (r#"["a",1]"#, 1),
        (r#"{"a":null,"b":2}"#, 1),
        (r#""AP8=" bytes"#, 1),
    ];
    let expected = expected.map(|(value, count)| (value.to_owned(), count));
    assert_eq!(counted.values, BTreeMap::from(expected));
}

/// The sum of all windows. A request is never divided between two, and no body is in
/// two requests, so it does not matter where a window ends.
#[derive(Default)]
struct Counted {
    records: u64,
    distinct: u64,
    unknown: u64,
    values: BTreeMap<String, u64>,
}

impl Counted {
    fn add(&mut self, window: WindowCounts) {
        assert!(window.complete);
        assert_eq!(window.other.values, 0);
        self.records += window.records;
        self.distinct += window.distinct;
        self.unknown += window.unknown;
        for value in window.counts {
            let kind = value.kind.map(|kind| format!(" {kind}")).unwrap_or_default();
            *self.values.entry(format!("{}{kind}", value.value)).or_default() += value.count;
        }
    }
}

/// The interpreter of a virtual environment with the SDK; made once, in the target folder.
/// `None` if nobody wants these tests.
fn python() -> Option<PathBuf> {
    if std::env::var_os(SKIP).is_some() {
        say(&format!("skipped, because {SKIP} is set"));
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).expect("the target folder can be written");
    // Tests in other processes want the same one.
    let lock =
        File::create(folder.join("python-sdk.lock")).expect("the target folder can be written");
    lock.lock().expect("the lock is free after a while");

    let venv = folder.join("python-sdk");
    let python = venv.join("bin/python");
    let installed = venv.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) {
        return Some(python);
    }
    install(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    let requirements = venv.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).expect("the target folder can be written");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    install(Command::new(&python).args(pip).arg(&requirements));
    fs::rename(&requirements, &installed).expect("the target folder can be written");
    Some(python)
}

fn install(command: &mut Command) {
    let missing = format!(
        "this test needs python3, its module venv (on Debian: apt-get install python3-venv) and \
         a package index for pip; to do without the test, set {SKIP}=1"
    );
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "{missing}\n{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("{missing}\n{command:?}: {error}"),
    }
}

/// A running node; killed when it is dropped.
struct Node {
    process: Child,
    /// By what it listens for: `OTLP/gRPC`, `OTLP/HTTP`, `chunks`, `admin`.
    addresses: BTreeMap<String, String>,
    _folder: tempfile::TempDir,
}

impl Node {
    /// A ready one, with windows of a second, on ports of its own.
    fn start() -> Node {
        Node::start_with(&["--attribute", "tenant", "--window", "1s"])
    }

    fn start_with(settings: &[&str]) -> Node {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf-node"));
        command.args(settings).args(["--log-format", "json"]);
        command.arg("--data-dir").arg(folder.path()).env_clear();
        for port in ["otlp-grpc", "otlp-http", "chunk-http", "admin", "control", "peer"] {
            command.arg(format!("--{port}-listen=127.0.0.1:0"));
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the node starts");
        let addresses = listening(BufReader::new(process.stderr.take().expect("stderr is piped")));
        let node = Node { process, addresses, _folder: folder };
        node.wait("ready", || node.get("/readyz").is_some().then_some(()));
        node
    }

    fn address(&self, protocol: &str) -> &str {
        let name = if protocol == "grpc" { "OTLP/gRPC" } else { "OTLP/HTTP" };
        &self.addresses[name]
    }

    /// What all closed windows hold, once that is `records` records.
    fn counted(&self, records: u64) -> Counted {
        self.wait("done with all records", || {
            let answer = self.get(WINDOWS_PATH)?;
            let windows: Vec<WindowCounts> = serde_json::from_str(&answer).expect("windows");
            let mut counted = Counted::default();
            windows.into_iter().for_each(|window| counted.add(window));
            assert!(counted.records <= records, "{} records", counted.records);
            (counted.records == records).then_some(counted)
        })
    }

    /// The admin port's answer.
    fn json<T: DeserializeOwned>(&self, path: &str) -> T {
        serde_json::from_str(&self.get(path).expect("an answer")).expect("its shape")
    }

    /// The admin port's answer, if it is a good one.
    fn get(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(&self.addresses["admin"]).ok()?;
        write!(connection, "GET {path} HTTP/1.0\r\nHost: node\r\n\r\n").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.to_owned())
    }

    fn wait<T>(&self, what: &str, mut is: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = is() {
                return found;
            }
            assert!(Instant::now() < end, "the node is not {what} in {DEADLINE:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The addresses in the node's own log, which is read on so that it never blocks.
fn listening(log: impl BufRead + Send + 'static) -> BTreeMap<String, String> {
    let (found, addresses) = mpsc::channel();
    thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).expect("the log is JSON");
            let name = event["message"].as_str().and_then(|m| m.strip_prefix("listening for "));
            if let (Some(name), Some(address)) = (name, event["address"].as_str()) {
                // Once all four are known, nobody takes any more.
                let _ = found.send((name.to_owned(), address.to_owned()));
            } else if event["level"] != "INFO" {
                say(&line);
            }
        }
    });
    let next = || addresses.recv_timeout(DEADLINE).expect("the node listens on four ports");
    (0..4).map(|_| next()).collect()
}

fn say(line: &str) {
    // A test without a stderr has nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
