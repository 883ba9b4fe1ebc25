//! A node as its users have it: the real binary, in a process of its own.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::print_stderr, reason = "who looks into a test that failed needs it")]

use std::io::Read;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon it is looked again; later and later, since who looks takes time from who is awaited.
const LOOK_AGAIN: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(50);

/// Looks again and again until there is something to see.
///
/// Panics, and says what it waited for, when that takes too long.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// As [`eventually`], for what takes longer.
pub(crate) fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        let waited = began.elapsed();
        assert!(waited < patience, "waited {patience:?} for {what}");
        std::thread::sleep((waited / 16).clamp(*LOOK_AGAIN.start(), *LOOK_AGAIN.end()));
    }
}

/// A running node; it is killed when this is dropped, and a test that fails shows what it said.
pub(crate) struct Process {
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

/// A node that has ended, and all that it said.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts a node on `folder` with free ports, and with the environment of the test
    /// but for what would change a node.
    pub(crate) fn start(
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf-node"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SHEAF_") || text == "FAILPOINTS" || text == "LD_PRELOAD" {
                command.env_remove(&name);
            }
        }
        command.arg("--data-dir").arg(folder);
        if !arguments.contains(&"--disk-reserve") {
            command.args(["--disk-reserve", "0"]);
        }
        for port in ["otlp-grpc", "otlp-http", "chunk-http", "admin", "control", "peer"] {
            command.arg(format!("--{port}-listen=127.0.0.1:0"));
        }
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Collected::from(child.stdout.take().unwrap());
        let stderr = Collected::from(child.stderr.take().unwrap());
        Process { child, stdout, stderr }
    }

    /// Where it takes OTLP over HTTP, or `None` if it died before it told.
    pub(crate) fn otlp_http(&mut self) -> Option<SocketAddr> {
        self.address("OTLP/HTTP")
    }

    /// Where it takes chunks of files, or `None` if it died before it told.
    pub(crate) fn chunks(&mut self) -> Option<SocketAddr> {
        self.address("chunks")
    }

    /// Where it answers questions, or `None` if it died before it told.
    pub(crate) fn admin(&mut self) -> Option<SocketAddr> {
        self.address("admin")
    }

    /// Where it is asked to change the cluster, or `None` if it died before it told.
    pub(crate) fn control(&mut self) -> Option<SocketAddr> {
        self.address("control")
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.stdout.so_far()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.so_far()
    }

    /// Panics, and says what the node said, if it has ended.
    pub(crate) fn must_be_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the node has ended, {status}: {}", self.stderr.all());
        }
    }

    fn address(&mut self, port: &str) -> Option<SocketAddr> {
        let told = format!("listening for {port} address=");
        eventually(&format!("the address of the port for {port}"), || {
            let over = self.is_over();
            let log = self.stderr.so_far();
            let rest = log.split_once(&told).and_then(|(_, rest)| rest.split_once('\n'));
            match rest {
                Some((address, _)) => Some(Some(address.trim().parse().unwrap())),
                None => over.then_some(None),
            }
        })
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it by SIGKILL, unless it is dead already.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.end()
    }

    /// Asks it to stop by SIGTERM, and waits until it has.
    pub(crate) fn terminate(self) -> Ended {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.end()
    }

    /// Stops it where it is by SIGSTOP: it does nothing until it goes on.
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on by SIGCONT.
    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn end(mut self) -> Ended {
        let status = eventually("the end of the node", || self.child.try_wait().unwrap());
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        Ended { status, stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, and a test that failed has already said why.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the node {} said:\n{}", self.child.id(), self.stderr.all());
        }
    }
}

/// What comes out of a pipe.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Collected {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&bytes);
        let read = move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        };
        Collected { bytes, reader: Some(std::thread::spawn(read)) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}
