//! What was sent to all nodes and what they printed, held against each other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sheaf_proto::statistics::{Other, WindowCounts, WindowSpan};

use super::load::Request;

/// The lines that all nodes printed, each once.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    /// By the window's start.
    whole: BTreeMap<Timestamp, Printed>,
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
    /// Takes what a node printed in one life. What a window's line says never changes.
    pub(crate) fn add(&mut self, node: usize, stdout: &str) {
        for line in stdout.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else {
                self.torn.push(line.to_owned());
                continue;
            };
            let start = read(line).window.start;
            let none = || Printed { line: line.to_owned(), by: Vec::new() };
            let printed = self.whole.entry(start).or_insert_with(none);
            assert_eq!(printed.line, line, "the window at {start} was printed with two contents");
            printed.by.push(node);
        }
    }

    /// The lines, newest first.
    pub(crate) fn newest_first(&self) -> Vec<&str> {
        self.whole.values().rev().map(|printed| printed.line.as_str()).collect()
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
        self.whole.values().map(|printed| read(&printed.line).records).sum()
    }

    /// Panics unless the windows count all that was acknowledged, once, in its time, and of
    /// what was not acknowledged each request as a whole or not at all.
    pub(crate) fn check(&self, requests: &[Request]) {
        for torn in &self.torn {
            let is_finished = self.whole.values().any(|printed| printed.line.starts_with(torn));
            assert!(is_finished, "half a line was never finished: {torn:.120}");
        }
        let windows: Vec<_> = self.whole.values().map(|printed| read(&printed.line)).collect();
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
    let is_whole = window.complete && window.revision == 1 && !window.upper_bound;
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
