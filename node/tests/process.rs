//! The node as a process: how it begins and ends, and what it leaves on stdout.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "support/process.rs"]
mod process; // the real binary

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use http::{Answer, Connection, Form, Record};
use jiff::Timestamp;
use process::{Ended, Process, eventually};
use sheaf_proto::cluster::Cluster;
use sheaf_proto::names::{THROTTLE_PATH, member_path};
use sheaf_proto::queue::Queue;
use sheaf_proto::statistics::{Ledger, ValueCount, WindowCounts};

/// Starts a node that counts by `foo`, and waits until it is ready.
fn start(folder: &Path, arguments: &[&str]) -> Process {
    let arguments = [&["--attribute", "foo"], arguments].concat();
    let mut node = Process::start(folder, &arguments, &[]);
    eventually("a ready node", || get(&mut node, "/readyz").filter(|answer| answer.status == 200));
    node
}

fn get(node: &mut Process, path: &str) -> Option<Answer> {
    node.must_be_alive();
    Connection::open(node.admin()?).and_then(|mut connection| connection.get(path)).ok()
}

/// Sends one request of records with these values of `foo`; it has to be acknowledged.
fn send(node: &mut Process, form: Form, values: &[Option<&str>]) {
    let record = |(number, value): (usize, &Option<&str>)| Record {
        body: format!("record {number}"),
        attribute: value.map(|value| ("foo", value.to_owned())),
    };
    let records: Vec<_> = values.iter().enumerate().map(record).collect();
    let mut connection = Connection::open(node.otlp_http().unwrap()).unwrap();
    let answer = connection.export(form, &records).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until the lines of as many records were printed, and all records are in windows
/// that were flushed.
fn wait_until_printed(node: &mut Process, records: u64) {
    eventually("the lines of all records", || {
        node.must_be_alive();
        let printed = node.printed();
        let whole = printed.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let printed: u64 = whole.filter_map(records_of).sum();
        (printed == records).then_some(())
    });
    let ledger: Ledger = serde_json::from_str(&get(node, "/v1/ledger").unwrap().body).unwrap();
    let flushed: u64 = ledger.aggregations.iter().map(|account| account.flushed).sum();
    assert_eq!(flushed, records, "{ledger:?}");
}

/// The records of which a line tells, in either format.
fn records_of(line: &str) -> Option<u64> {
    let window = serde_json::from_str(line).map(|window: WindowCounts| window.records);
    let text = || line.strip_suffix(" records\n")?.rsplit(' ').next()?.parse().ok();
    window.ok().or_else(text)
}

/// The windows on stdout, which has nothing else.
fn windows(stdout: &str) -> Vec<WindowCounts> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(value: &str, count: u64) -> ValueCount {
    ValueCount { value: value.into(), kind: None, count }
}

/// A node that does not start says why in one line, and nothing on stdout.
fn assert_one_line(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    assert_eq!(ended.stdout, "");
}

#[test]
fn the_example_of_five_records_is_printed_as_people_read_it() {
    for form in [Form::Protobuf, Form::Json] {
        let folder = tempfile::tempdir().unwrap();
        let mut node = start(folder.path(), &["--window", "1s", "--stats-format", "text"]);
        send(&mut node, form, &[Some("bar"), Some("qux"), Some("baz"), Some("baz"), None]);
        wait_until_printed(&mut node, 5);
        let Ended { status, stdout, .. } = node.terminate();
        assert!(status.success(), "{status}");
        let (head, counts) = stdout.split_once('\n').unwrap();
        assert!(head.ends_with("  by-foo: 5 distinct of 5 records"), "{head}");
        assert_eq!(counts, "\"baz\" - 2\n\"bar\" - 1\n\"qux\" - 1\nunknown - 1\n");
    }
}

#[test]
fn stdout_has_windows_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(folder.path(), &["--window", "1s", "--log-level", "trace"]);
    send(&mut node, Form::Protobuf, &[Some("bar"), Some("bar"), None]);
    wait_until_printed(&mut node, 3);
    let Ended { status, stdout, stderr } = node.terminate();
    assert!(status.success(), "{status}");
    assert!(stdout.ends_with('\n'), "{stdout}");
    let [window] = windows(&stdout).try_into().unwrap();
    assert_eq!((window.records, window.unknown), (3, 1));
    assert_eq!(window.counts, [count("bar", 2)]);
    assert!(stderr.contains("window printed"), "{stderr}");
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), &["--window", "1s"]);
    let second = Process::start(folder.path(), &[], &[]).end();
    assert_one_line(&second, 1, &["ERROR", "is in use by another node"]);
    send(&mut first, Form::Json, &[None]);
    assert!(first.terminate().status.success());
}

#[test]
fn what_cannot_be_understood_ends_the_start_with_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], variables: &[(&str, String)], named: &str| {
        let ended = Process::start(folder.path(), arguments, variables).end();
        assert_one_line(&ended, 2, &["sheaf-node: ", named]);
    };
    refused(&["--wndow", "1s"], &[], "--wndow");
    refused(&["--window", "never"], &[], "--window");
    refused(&["--queue-size", "1MiB"], &[], "queue");
    refused(&[], &[("SHEAF_WNDOW", "1s".to_owned())], "SHEAF_WNDOW");
}

#[test]
fn what_was_acknowledged_before_a_sigterm_is_printed_by_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    // So long a window ends in neither life.
    let arguments = ["--window", "24h"];
    let mut node = start(folder.path(), &arguments);
    send(&mut node, Form::Protobuf, &[Some("bar"), Some("baz")]);
    let Ended { status, stdout, stderr } = node.terminate();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("asked to stop by SIGTERM"), "{stderr}");
    assert!(stderr.contains("the node has drained"), "{stderr}");
    assert_eq!(stdout, "", "a window was printed before its end");

    let mut node = start(folder.path(), &arguments);
    send(&mut node, Form::Json, &[Some("bar")]);
    // What was acknowledged is folded a little later.
    let window = eventually("three records in the open window", || {
        let open = get(&mut node, "/v1/windows/current")?;
        let [window]: [WindowCounts; 1] = serde_json::from_str(&open.body).unwrap();
        (window.records == 3).then_some(window)
    });
    assert_eq!((window.distinct, window.complete), (2, false));
    assert_eq!(window.counts, [count("bar", 1), count("baz", 1)]);
    assert_eq!(node.terminate().status.code(), Some(0));
}

#[test]
fn a_window_that_ended_while_the_node_was_down_is_printed_at_the_start() {
    const WINDOW: i64 = 2;
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(folder.path(), &["--window", "2s"]);
    // So that the node is dead long before the window's end.
    eventually("a new window", || {
        (Timestamp::now().as_millisecond() % (WINDOW * 1000) < 200).then_some(())
    });
    send(&mut node, Form::Json, &[Some("bar")]);
    let killed = node.kill();
    let died = Timestamp::now();
    assert_eq!(killed.stdout, "");
    let end = (died.as_second() / WINDOW + 1) * WINDOW;
    eventually("the window's end", || (Timestamp::now().as_second() >= end).then_some(()));

    let mut node = start(folder.path(), &["--window", "2s"]);
    wait_until_printed(&mut node, 1);
    let ended = node.terminate();
    assert!(ended.status.success(), "{}", ended.stderr);
    let [window] = windows(&ended.stdout).try_into().unwrap();
    assert_eq!(window.window.end.as_second(), end);
    assert!(window.complete);
    assert_eq!(window.counts, [count("bar", 1)]);
}

/// Asks it to drain itself, through one of its ports.
fn drain_itself(port: SocketAddr, token: Option<&str>) -> Answer {
    let mut connection = Connection::open(port).unwrap();
    let path = member_path(1, "drain");
    match token {
        Some(token) => connection.post_as(token, &path).unwrap(),
        None => connection.post(&path).unwrap(),
    }
}

#[test]
fn what_changes_the_cluster_is_taken_on_a_port_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(folder.path(), &[]);
    let refused = drain_itself(node.admin().unwrap(), None);
    assert!(refused.status == 404 && refused.body.contains("--control-listen"), "{refused:?}");
    let refused = drain_itself(node.control().unwrap(), None);
    assert!(refused.status == 409 && refused.body.contains("without node 1"), "{refused:?}");
}

#[test]
fn the_token_is_read_again_when_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "0123456789abcdef\n").unwrap();
    let token = ["--control-token-file", file.to_str().unwrap()];
    let mut node = start(&folder.path().join("data"), &token);
    let control = node.control().unwrap();
    let status = |token: Option<&str>| drain_itself(control, token).status;
    assert_eq!(status(None), 401);
    assert_eq!(status(Some("0123456789abcdef")), 409);
    fs::write(&file, "fedcba9876543210").unwrap();
    assert_eq!(status(Some("0123456789abcdef")), 401);
    assert_eq!(status(Some("fedcba9876543210")), 409);
    drop(node);
    fs::write(&file, "short").unwrap();
    let ended = Process::start(&folder.path().join("data"), &token, &[]).end();
    assert_one_line(&ended, 1, &["ERROR", "control token file", "write one token"]);
}

#[test]
fn a_throttled_node_has_a_backlog_until_it_is_let_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(folder.path(), &[]);
    let control = node.control().unwrap();
    let ask = |method, query: &str| {
        let mut connection = Connection::open(control).unwrap();
        let answer = connection.request(method, &format!("{THROTTLE_PATH}{query}")).unwrap();
        serde_json::from_str::<Queue>(&answer.body).unwrap()
    };
    let limit = ask("POST", "?bytes_per_second=1").throttle_bytes_per_second;
    assert_eq!(limit.map(u64::from), Some(1));
    send(&mut node, Form::Protobuf, &[Some("first")]);
    let port = node.otlp_http().unwrap();
    let waiting = std::thread::spawn(move || {
        let record = Record { body: "second".to_owned(), attribute: None };
        Connection::open(port).unwrap().export(Form::Protobuf, &[record]).unwrap().status
    });
    eventually("a request in the queue", || {
        let queue = get(&mut node, "/v1/queue")?;
        let queue: Queue = serde_json::from_str(&queue.body).unwrap();
        (queue.used_bytes > 0).then_some(())
    });
    assert!(!waiting.is_finished());
    assert_eq!(ask("DELETE", "").throttle_bytes_per_second, None);
    assert_eq!(waiting.join().unwrap(), 200);
}

#[test]
fn a_node_takes_chunks_if_it_rebuilds_files() {
    let send = |node: &mut Process, seq: u8| {
        let head = b"\x0a\x08log1.log\x11\x07\0\0\0\0\0\0\0\x18";
        let chunk = [&head[..], &[seq], b"\x22\x02a\n"].concat();
        let mut connection = Connection::open(node.chunks().unwrap()).unwrap();
        let (taken, count) = (connection.post_bytes("/data", &chunk), connection.get("/count"));
        let taken = taken.unwrap();
        (taken.status, taken.body, count.unwrap().body)
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("sheaf.yaml"), folder.path().join("data"));
    fs::write(&file, "aggregations: [{name: files, type: LogFiles, logFiles: {}}]").unwrap();
    let mut node = Process::start(&data, &["--config", file.to_str().unwrap()], &[]);
    eventually("a ready node", || get(&mut node, "/readyz").filter(|answer| answer.status == 200));
    for (seq, count) in [(3, "Count=1"), (4, "Count=2")] {
        assert_eq!(send(&mut node, seq), (200, "Throttle: 0".to_owned(), count.to_owned()));
    }
    let mut told = |what: &str, line: &str| {
        let is_told = |answer: &Answer| answer.body.lines().any(|told| told == line);
        eventually(what, || get(&mut node, "/metrics").filter(is_told));
    };
    told("all chunks", "sheaf_chunks_total 2");
    told("a file that waits", "sheaf_files_waiting{aggregation=\"files\"} 1");
    told("what waits", "sheaf_chunks_waiting{aggregation=\"files\"} 2");
    told("its size", "sheaf_chunks_waiting_bytes{aggregation=\"files\"} 4");
    assert!(node.terminate().status.success());

    let mut node = start(&folder.path().join("other"), &[]);
    let (status, throttle, count) = send(&mut node, 1);
    assert_eq!((status, count.as_str()), (503, "Count=0"));
    assert!(throttle.starts_with("Throttle: ") && throttle != "Throttle: 0", "{throttle}");
}

#[test]
fn a_changed_settings_file_counts_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sheaf.yaml");
    let settings = |attribute: &str, level: &str| {
        // Kubernetes replaces a file in this way too.
        let (new, window) = (folder.path().join("new"), "window: 1s");
        fs::write(&new, format!("attribute: {attribute}\n{window}\nlogLevel: {level}\n")).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    settings("bar", "warn,sheaf_node::app=info,sheaf_node::app::watching=warn");
    let zone = folder.path().join("zone");
    let data = folder.path().join("data");
    let arguments = ["--config", file.to_str().unwrap(), "--zone-file", zone.to_str().unwrap()];
    let mut node = Process::start(&data, &arguments, &[]);
    eventually("a ready node", || get(&mut node, "/readyz").filter(|answer| answer.status == 200));
    settings("foo", "info");
    fs::write(&zone, "eu-1a").unwrap();
    eventually("records that are counted by the other attribute", || {
        send(&mut node, Form::Json, &[Some("bar")]);
        node.printed().contains(r#"{"aggregation":"by-foo""#).then_some(())
    });
    assert!(node.log().contains("the log has other events"), "{}", node.log());
    eventually("the zone among the facts", || {
        let cluster: Cluster = serde_json::from_str(&get(&mut node, "/v1/cluster")?.body).unwrap();
        (cluster.members[0].zone.as_deref() == Some("eu-1a")).then_some(())
    });
}

#[test]
fn a_node_tells_how_full_it_is_and_what_its_cluster_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(folder.path(), &["--window", "1s"]);
    let queue: Queue = serde_json::from_str(&get(&mut node, "/v1/queue").unwrap().body).unwrap();
    assert_eq!((queue.used_bytes, queue.capacity_bytes), (0, 192 << 20));
    assert!((0.0..1.0).contains(&queue.used_percent), "{queue:?}");
    let metrics = get(&mut node, "/metrics").unwrap().body;
    assert!(metrics.contains("# UNIT sheaf_queue_used_percent percent\n"), "{metrics}");
    assert!(metrics.contains("\nsheaf_queue_used_percent 0"), "{metrics}");
    let cluster = eventually("a cluster that has counted everything", || {
        let cluster: Cluster = serde_json::from_str(&get(&mut node, "/v1/cluster")?.body).unwrap();
        (cluster.unfolded == Some(0) && cluster.missing.is_empty()).then_some(cluster)
    });
    assert_eq!(cluster.slots, Some(256));
    assert_eq!(cluster.members[0].reachable, Some(true));
}
