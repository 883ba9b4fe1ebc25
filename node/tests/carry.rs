//! A window that is too long for its journal: what was counted of it outlives the
//! journal that it came from.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "support/process.rs"]
mod process; // the real binary

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{Connection, Form, Record};
use process::{Process, eventually};
use sheaf_proto::cluster::Cluster;
use sheaf_proto::statistics::{Ledger, WindowCounts};

const WINDOW_SECONDS: u64 = 15;
/// Makes an entry of over a kilobyte: the journal keeps each value once per request.
const VALUE_BYTES: usize = 1000;

fn start(folder: &Path) -> Process {
    let window = format!("{WINDOW_SECONDS}s");
    let flags = ["--attribute", "foo", "--window", &window, "--journal-limit", "1MiB"];
    let mut node = Process::start(folder, &[&flags[..], &["--stats-limit", "9999"]].concat(), &[]);
    eventually("a ready node", || get(&mut node, "/readyz").filter(|body| body == "ok\n"));
    node
}

fn get(node: &mut Process, path: &str) -> Option<String> {
    let answer = Connection::open(node.admin()?).and_then(|mut connection| connection.get(path));
    answer.ok().map(|answer| answer.body)
}

/// Sends records of which each has a value of its own, 100 to a request.
fn send(node: &mut Process, numbers: std::ops::Range<usize>) {
    let mut connection = Connection::open(node.otlp_http().unwrap()).unwrap();
    for start in numbers.clone().step_by(100) {
        let records = (start..numbers.end.min(start + 100)).map(|number| Record {
            body: format!("record {number}"),
            attribute: Some(("foo", format!("{number:0>VALUE_BYTES$}"))),
        });
        let answer = connection.export(Form::Protobuf, &records.collect::<Vec<_>>()).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// How many entries of the journal's first segment nobody needs any more.
fn trimmed(node: &mut Process) -> u64 {
    let cluster: Cluster = serde_json::from_str(&get(node, "/v1/cluster").unwrap()).unwrap();
    cluster.segments[0].trimmed
}

/// What the node's log says behind `name`.
fn logged(node: &Process, name: &str) -> String {
    // It may answer before its log is read.
    let rest = eventually("a line of the log", || {
        node.log().split_once(name).map(|(_, rest)| rest.to_owned())
    });
    rest.chars().take_while(|c| !c.is_whitespace()).collect()
}

#[test]
fn a_window_that_outgrows_its_journal_is_carried_over_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(folder.path());
    eventually("the beginning of a window", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (now.as_secs() % WINDOW_SECONDS < 3).then_some(())
    });
    send(&mut node, 0..2000);
    eventually("a carry", || node.log().contains("open windows carried").then_some(()));
    let trimmed = trimmed(&mut node);
    assert!(trimmed > 0, "{}", node.log());
    send(&mut node, 1900..2100);
    node.kill();

    let mut node = start(folder.path());
    // What was trimmed of the first 20 entries is not there any more, but for the last of it.
    let entries: u64 = logged(&node, "entries=").parse().unwrap();
    assert!((2..=22 + 1 - trimmed).contains(&entries), "{}", node.log());
    send(&mut node, 2050..2200);
    eventually("a line", || node.printed().ends_with('\n').then_some(()));
    let ledger = get(&mut node, "/v1/ledger").unwrap();
    let ledger: Ledger = serde_json::from_str(&ledger).unwrap();
    assert!(ledger.balanced && ledger.aggregations[0].pending == 0, "{ledger:?}");
    let ended = node.terminate();
    let windows: Vec<WindowCounts> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(windows.len(), 1, "one window, flushed once");
    let window = &windows[0];
    assert_eq!((window.records, window.distinct), (2350, 2200));
    assert!(window.counts.iter().all(|count| count.count == 1));
    assert!(!window.upper_bound && window.complete);
    let left = std::fs::read_dir(folder.path().join("scratch")).unwrap().count();
    assert_eq!(left, 0, "what was carried is removed once it is flushed");
}
