//! What was sent to all nodes and what they printed, held against each other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sheaf_proto::statistics::{Other, WindowCounts, WindowSpan};

use super::load::Request;

/// The lines that all nodes printed, each once.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    /// By the window's start, and how often it was printed with other content.
    whole: BTreeMap<(Timestamp, u32), Printed>,
    /// What came after the last line's end when a node died while it printed.
    torn: Vec<String>,
}

/// A line, and who printed it.
#[derive(Clone)]
struct Printed {
    line: String,
    /// Once for each time.
    by: Vec<usize>,
}

impl Lines {
    /// Takes what a node printed in one life. What a line says never changes.
    pub(crate) fn add(&mut self, node: usize, stdout: &str) {
        for line in stdout.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else {
                self.torn.push(line.to_owned());
                continue;
            };
            let WindowCounts { window, revision, .. } = read(line);
            let (start, none) = (window.start, || Printed { line: line.to_owned(), by: vec![] });
            let printed = self.whole.entry((start, revision)).or_insert_with(none);
            assert_eq!(printed.line, line, "the window at {start} was printed with two contents");
            printed.by.push(node);
        }
    }

    /// The last line of each window, newest first.
    pub(crate) fn newest_first(&self) -> Vec<&str> {
        let last: BTreeMap<_, _> =
            self.whole.iter().map(|((start, _), line)| (start, line)).collect();
        last.into_values().rev().map(|printed| printed.line.as_str()).collect()
    }

    /// What the windows have in the end, oldest first. Each was complete then and not before.
    fn settled(&self) -> Vec<WindowCounts> {
        let settled: Vec<_> = self.newest_first().into_iter().rev().map(read).collect();
        let complete = self.whole.values().filter(|printed| read(&printed.line).complete);
        assert_eq!(complete.count(), settled.len(), "a complete window was printed again");
        settled
    }

    /// Whether the last line of each window is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.newest_first().into_iter().all(|line| read(line).complete)
    }

    /// The nodes that printed something.
    pub(crate) fn printers(&self) -> BTreeSet<usize> {
        self.whole.values().flat_map(|printed| printed.by.iter().copied()).collect()
    }

    /// The windows that were printed more than once.
    pub(crate) fn repeated(&self) -> usize {
        self.whole.values().filter(|printed| printed.by.len() > 1).count()
    }

    /// Records in all windows.
    pub(crate) fn records(&self) -> u64 {
        self.newest_first().into_iter().map(|line| read(line).records).sum()
    }

    /// Panics unless the windows count all that was acknowledged, once, in its time, and of
    /// what was not acknowledged each request as a whole or not at all.
    pub(crate) fn check(&self, requests: &[Request]) {
        for torn in &self.torn {
            let is_finished = self.whole.values().any(|printed| printed.line.starts_with(torn));
            assert!(is_finished, "half a line was never finished: {torn:.120}");
        }
        let windows = self.settled();
        let mut numbers: BTreeMap<u64, Twins<'_>> = BTreeMap::new();
        for request in requests {
            numbers.entry(request.number).or_default().requests.push(request);
        }
        for window in &windows {
            check_sums(window);
            for count in &window.counts {
                let number = count.value.as_str().and_then(|value| value.parse().ok());
                let known = number.and_then(|number: u64| numbers.get_mut(&number));
                let twins = known.unwrap_or_else(|| panic!("{count:?} was never sent"));
                assert_eq!(count.count, twins.requests[0].distinct, "{count:?} in {window:?}");
                twins.windows.push(window.window);
            }
        }
        numbers.values().for_each(Twins::check);
        windows.iter().for_each(|window| check_records(window, &numbers));
    }
}

/// Requests of one number, and the windows that count them.
#[derive(Default)]
struct Twins<'a> {
    requests: Vec<&'a Request>,
    windows: Vec<WindowSpan>,
}

impl Twins<'_> {
    fn acknowledged(&self) -> usize {
        self.requests.iter().filter(|request| request.acknowledged).count()
    }

    fn check(&self) {
        let number = self.requests[0].number;
        let may_be_in = |request: &Request, window: &WindowSpan| {
            request.sent < window.end && window.start <= request.over
        };
        for request in self.requests.iter().filter(|request| request.acknowledged) {
            let is_counted = self.windows.iter().any(|window| may_be_in(request, window));
            let (sent, over) = (request.sent, request.over);
            assert!(
                is_counted,
                "request {number}, sent at {sent} and acknowledged at {over}, is in {:?}",
                self.windows
            );
        }
        for window in &self.windows {
            let is_of_one = self.requests.iter().any(|request| may_be_in(request, window));
            assert!(is_of_one, "request {number} is in {window:?}, when it was not on its way");
        }
        assert!(self.windows.len() <= self.requests.len(), "request {number} counts twice");
    }

    /// How many of the requests may be in each of the windows, at least and at most.
    fn in_each(&self) -> (u64, u64) {
        if self.windows.len() > 1 {
            return (1, 1);
        }
        (self.acknowledged().max(1) as u64, self.requests.len() as u64)
    }
}

fn check_sums(window: &WindowCounts) {
    let counted: u64 = window.counts.iter().map(|count| count.count).sum();
    let is_whole = window.complete && !window.upper_bound;
    let adds_up = window.unknown == 0 && window.distinct == counted;
    assert!(is_whole && adds_up && window.other == Other::default(), "{window:?}");
}

fn check_records(window: &WindowCounts, numbers: &BTreeMap<u64, Twins<'_>>) {
    let (mut least, mut most) = (0, 0);
    for count in &window.counts {
        let number: u64 = count.value.as_str().unwrap().parse().unwrap();
        let twins = &numbers[&number];
        let (fewest, all) = twins.in_each();
        least += fewest * twins.requests[0].records;
        most += all * twins.requests[0].records;
    }
    let (records, start) = (window.records, window.window.start);
    assert!((least..=most).contains(&records), "{records} at {start}, not {least}..={most}");
}

fn read(line: &str) -> WindowCounts {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("not a window ({error}): {line:.120}"))
}

/// A request that was acknowledged five seconds after it was sent.
fn request(number: u64, sent: &str) -> Request {
    let sent: Timestamp = format!("2026-11-21T03:{sent}Z").parse().unwrap();
    let over = sent + jiff::SignedDuration::from_secs(5);
    Request { number, records: 3, distinct: 2, sent, over, acknowledged: true }
}

/// The line of a window of ten seconds, with requests of three records and two distinct ones.
fn line(start: &str, requests: &[u64]) -> String {
    let start: Timestamp = format!("2026-11-21T03:{start}Z").parse().unwrap();
    let end = start + jiff::SignedDuration::from_secs(10);
    let counts: Vec<_> = requests
        .iter()
        .map(|number| serde_json::json!({"value": number.to_string(), "count": 2}))
        .collect();
    let (records, distinct) = (3 * requests.len(), 2 * requests.len());
    let line = serde_json::json!({
        "aggregation": "by-request", "type": "DistinctLogs", "attribute": "request",
        "window": {"start": start, "end": end}, "complete": true, "revision": 1,
        "records": records, "distinct": distinct, "unknown": 0, "counts": counts,
        "other": {"values": 0, "count": 0},
    });
    format!("{line}\n")
}

/// Two requests, the first of which was sent at two nodes, in two windows.
fn honest() -> (Vec<Request>, Vec<String>) {
    let requests = vec![request(1, "00:01"), request(1, "00:08"), request(2, "00:12")];
    (requests, vec![line("00:00", &[1]), line("00:10", &[1, 2])])
}

/// What is wrong with what was printed, if anything is.
fn complaint(requests: &[Request], lines: &[String]) -> Option<String> {
    let checking = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut all = Lines::default();
        all.add(0, &lines.concat());
        all.check(requests);
    }));
    checking.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn the_tally_finds_nothing_wrong_with_what_is_right() {
    let (mut requests, lines) = honest();
    assert_eq!(complaint(&requests, &lines), None);
    // The answer was lost, and the request was taken or not.
    requests[1].acknowledged = false;
    assert_eq!(complaint(&requests, &lines), None);
    assert_eq!(complaint(&requests, &[line("00:00", &[1]), line("00:10", &[2])]), None);
    let waiting = line("00:00", &[]).replace("\"complete\":true", "\"complete\":false");
    let again = line("00:00", &[1]).replace("\"revision\":1", "\"revision\":2");
    assert_eq!(complaint(&requests, &[waiting, again, line("00:10", &[2])]), None);
}

#[test]
fn the_tally_finds_each_thing_that_may_be_wrong() {
    let expect = |what: &str, change: &dyn Fn(&mut Vec<Request>, &mut Vec<String>)| {
        let (mut requests, mut lines) = honest();
        change(&mut requests, &mut lines);
        let complaint = complaint(&requests, &lines);
        assert!(complaint.as_ref().is_some_and(|c| c.contains(what)), "{what}: {complaint:?}");
    };
    expect("is in []", &|_, lines| lines[1] = line("00:10", &[1]));
    expect("and acknowledged at", &|_, lines| {
        lines.swap_remove(0);
    });
    expect("counts twice", &|requests, _| {
        requests.remove(0);
        requests[0].sent -= jiff::SignedDuration::from_secs(5);
    });
    expect("when it was not on its way", &|_, lines| lines.push(line("00:20", &[1])));
    expect("was never sent", &|_, lines| lines[0] = line("00:00", &[1, 7]));
    expect("left == right", &|requests, _| requests[2].distinct = 1);
    expect("not 6..=6", &|_, lines| lines[1] = lines[1].replace("\"records\":6", "\"records\":9"));
    expect("two contents", &|_, lines| lines.push(line("00:00", &[2])));
    expect("half a line", &|_, lines| lines.push("{\"aggregation\":\"by-foo".to_owned()));
    expect("distinct", &|_, lines| {
        lines[1] = lines[1].replace("\"distinct\":4", "\"distinct\":5");
    });
    expect("printed again", &|_, lines| {
        let again = line("00:00", &[1]).replace("\"revision\":1", "\"revision\":2");
        lines.push(again);
    });
}
