//! The node as a process: how it begins and ends, and what it leaves on stdout.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "support/process.rs"]
mod process; // the real binary

use std::path::Path;

use http::{Answer, Connection, Form, Record};
use jiff::Timestamp;
use process::{Ended, Process, eventually};
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
