//! What was sent and what was printed, held against each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use serde_json::value::RawValue;
use sheaf_proto::statistics::{Ledger, WindowCounts, WindowSpan};

/// The API keeps at least as many windows of a second, if there were so many.
const WINDOWS_KEPT: usize = 3000;

/// A request, and what its sender knows of it.
pub(crate) struct Request {
    /// What it is called each time that it is sent.
    pub(crate) id: String,
    /// The numbers of its records; no two records have the same.
    pub(crate) records: Range<u64>,
    /// When its sender first began to send it.
    pub(crate) sent: Timestamp,
    /// When its sender last got an answer or gave up.
    pub(crate) over: Timestamp,
    /// Whether an answer was that it is durable.
    pub(crate) acknowledged: bool,
}

/// What contradicts the promises.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A record was acknowledged, and no window counts it.
    Lost(u64),
    /// The node did not start on what it had left, and told why.
    Refused(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Lost(number) => {
                write!(f, "record {number} was acknowledged and is in no window")
            }
            Fault::Refused(told) => write!(f, "the node does not start: {told}"),
            Fault::Other(what) => f.write_str(what),
        }
    }
}

/// Remembers what went in and what came out.
#[derive(Default)]
pub(crate) struct Oracle {
    requests: Vec<Request>,
    lines: Vec<String>,
    /// What came after the last line's end when a node died while it printed.
    torn: Vec<String>,
}

/// What the windows say together.
#[derive(Default)]
struct Printed<'a> {
    /// By its start, as it was printed.
    windows: BTreeMap<Timestamp, &'a str>,
    /// The window that counts a record.
    by_number: HashMap<u64, WindowSpan>,
    records: u64,
}

impl Oracle {
    pub(crate) fn sent(&mut self, requests: Vec<Request>) {
        self.requests.extend(requests);
    }

    /// Takes all that one life printed.
    pub(crate) fn printed(&mut self, stdout: &str) {
        for line in stdout.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => self.lines.push(line.to_owned()),
                None => self.torn.push(line.to_owned()),
            }
        }
    }

    /// How many records the lines count that were printed so far, with those of a life that
    /// goes on.
    pub(crate) fn records_with(&self, stdout: &str) -> u64 {
        let whole = stdout.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let lines = self.lines.iter().map(String::as_str).chain(whole);
        let windows = lines.filter_map(|line| serde_json::from_str(line).ok());
        let records = windows.map(|window: WindowCounts| (window.window.start, window.records));
        records.collect::<BTreeMap<_, _>>().values().sum()
    }

    /// How many records were acknowledged.
    fn acknowledged(&self) -> u64 {
        let acknowledged = self.requests.iter().filter(|request| request.acknowledged);
        acknowledged.map(|request| request.records.end - request.records.start).sum()
    }

    /// What contradicts the promises when everything is flushed. `kept` are the windows
    /// that the node still shows.
    pub(crate) fn faults(&self, ledger: &Ledger, kept: &[Box<RawValue>]) -> Vec<Fault> {
        let mut faults = Vec::new();
        let printed = self.read(&mut faults);
        for torn in &self.torn {
            if !printed.windows.values().any(|line| line.starts_with(torn)) {
                faults.push(Fault::Other(format!("half a line was never finished: {torn:.120}")));
            }
        }
        let mut known = HashSet::new();
        for request in &self.requests {
            judge(request, &printed, &mut faults);
            known.extend(request.records.clone());
        }
        for number in printed.by_number.keys().filter(|number| !known.contains(number)) {
            faults.push(Fault::Other(format!("record {number} was counted and never sent")));
        }
        // Newest first, and none older than an hour.
        let kept_of_printed = printed.windows.values().rev().take(kept.len());
        let same = kept.iter().map(|window| window.get()).eq(kept_of_printed.copied());
        if !same || kept.len() < printed.windows.len().min(WINDOWS_KEPT) {
            faults.push(Fault::Other("the API's windows are not those printed".to_owned()));
        }
        self.balance(ledger, &printed, &mut faults);
        faults
    }

    fn read(&self, faults: &mut Vec<Fault>) -> Printed<'_> {
        let mut printed = Printed::default();
        for line in &self.lines {
            let window: WindowCounts = match serde_json::from_str(line) {
                Ok(window) => window,
                Err(error) => {
                    faults.push(Fault::Other(format!("not a window ({error}): {line:.120}")));
                    continue;
                }
            };
            match printed.windows.insert(window.window.start, line) {
                None => printed.count(window, faults),
                Some(earlier) if earlier == line => {}
                Some(_) => faults.push(Fault::Other(format!(
                    "the window at {} was printed with two contents",
                    window.window.start
                ))),
            }
        }
        printed
    }

    fn balance(&self, ledger: &Ledger, printed: &Printed<'_>, faults: &mut Vec<Fault>) {
        let [account] = ledger.aggregations.as_slice() else {
            return faults.push(Fault::Other(format!("not one account: {ledger:?}")));
        };
        let adds_up = ledger.balanced
            && account.pending == 0
            && account.duplicate == 0
            && ledger.rejected.is_empty()
            && ledger.received == ledger.accepted
            && ledger.accepted == account.accepted + account.deduplicated
            && [account.accepted, account.flushed].iter().all(|found| *found == printed.records);
        if !adds_up || ledger.accepted < self.acknowledged() {
            faults.push(Fault::Other(format!(
                "{} records were acknowledged and {} printed, but the ledger says {ledger:?}",
                self.acknowledged(),
                printed.records
            )));
        }
    }
}

impl Printed<'_> {
    fn count(&mut self, window: WindowCounts, faults: &mut Vec<Fault>) {
        let WindowCounts { window: span, records, distinct, counts, .. } = window;
        self.records += records;
        // Every record is unlike all others, so one that was folded twice shows here.
        let once = records == distinct && records == counts.len() as u64;
        if !once || !window.complete || window.revision != 1 || window.unknown != 0 {
            let (start, listed) = (span.start, counts.len());
            faults.push(Fault::Other(format!(
                "the window at {start} has {records} records, {distinct} distinct, {listed} listed"
            )));
        }
        for count in counts {
            let Some(number) = count.value.as_str().and_then(|id| id.parse().ok()) else {
                faults.push(Fault::Other(format!("{} was counted and never sent", count.value)));
                continue;
            };
            if count.count != 1 {
                faults.push(Fault::Other(format!("record {number} counts {} times", count.count)));
            }
            if let Some(other) = self.by_number.insert(number, span) {
                let (one, two) = (other.start, span.start);
                faults.push(Fault::Other(format!(
                    "record {number} is in the windows at {one} and {two}"
                )));
            }
        }
    }
}

fn judge(request: &Request, printed: &Printed<'_>, faults: &mut Vec<Fault>) {
    let numbers = request.records.clone();
    let windows: Vec<_> = numbers.clone().map(|number| printed.by_number.get(&number)).collect();
    for (number, window) in numbers.zip(&windows) {
        match window {
            None if request.acknowledged => faults.push(Fault::Lost(number)),
            Some(window) if window.end <= request.sent || window.start > request.over => {
                faults.push(Fault::Other(format!(
                    "record {number} was sent at {} and over at {}, but is in the window at {}",
                    request.sent, request.over, window.start
                )));
            }
            _ => {}
        }
    }
    if windows.windows(2).any(|pair| pair[0] != pair[1]) {
        faults.push(Fault::Other(format!("the request of {:?} was torn apart", request.records)));
    }
}
