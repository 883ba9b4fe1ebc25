//! What has to hold of all that happened, whatever was done to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use sheaf_node::event::time::UnixNanos;
use sheaf_proto::statistics::{Account, Ledger, ValueCount, WindowCounts, WindowSpan};

use super::history::{Event, File, Happened, Record};

mod files; // what has to hold of files

/// What contradicts a promise, in words. The first word says which check found it.
pub(crate) type Contradiction = String;

/// A request, and what its sender knows of it.
struct Request<'a> {
    node: usize,
    records: &'a [Record],
    sent: UnixNanos,
    is_acknowledged: bool,
    /// When its last sending was acknowledged, if it was. Any of them may be the one that
    /// counts, also one that came after it was acknowledged (docs/adr/0014-request-ids.md).
    over: Option<UnixNanos>,
}

/// A file that agents have sent.
#[derive(Default)]
struct Written {
    chunks: u64,
    bytes: u64,
    /// Chunks that nobody has acknowledged.
    unanswered: BTreeSet<i64>,
    /// How much of it each node was seen to have for good.
    checkpointed: BTreeMap<usize, u64>,
}

/// All that happened, by what it is.
#[derive(Default)]
struct Known<'a> {
    requests: BTreeMap<u64, Request<'a>>,
    /// The last line of each window, by the aggregation's name and the window's start.
    windows: BTreeMap<(&'a str, Timestamp), &'a WindowCounts>,
    records: BTreeMap<u64, &'a Record>,
    files: BTreeMap<&'a File, Written>,
    /// The window of `by-id` that counts a record.
    placed: BTreeMap<u64, WindowSpan>,
    ledger: Option<&'a Ledger>,
    /// Whether a machine went.
    has_left: bool,
    /// Whether one went with all that it had: only then may windows have lost something.
    has_destroyed: bool,
}

impl Known<'_> {
    /// Whether a line says that something was lost, and may.
    fn is_lost(&self, counts: &WindowCounts) -> bool {
        self.has_destroyed && counts.settled && !counts.lost.is_empty()
    }

    /// Whether a window that overlaps a time lost something, or was never printed. Both ends are
    /// part of the time.
    fn loses(&self, from: i128, until: i128) -> bool {
        let lost = self.windows.values().filter(|counts| self.is_lost(counts));
        let lost = lost.map(|counts| counts.window);
        let unprinted = ["by-id", "by-group"].into_iter().filter_map(|name| self.unprinted(name));
        lost.chain(unprinted).any(|WindowSpan { start, end }| {
            start.as_nanosecond() <= until && from < end.as_nanosecond()
        })
    }

    /// The line that is missing between others: it was agreed on, and not printed when a machine
    /// went with some of its results. There is one at most.
    fn unprinted(&self, name: &str) -> Option<WindowSpan> {
        let own = self.windows.values().filter(|counts| counts.aggregation == name);
        let spans: Vec<_> = own.map(|counts| counts.window).collect();
        let gaps = spans.windows(2).filter(|pair| pair[0].end < pair[1].start);
        let gaps: Vec<_> =
            gaps.map(|pair| WindowSpan { start: pair[0].end, end: pair[1].start }).collect();
        let [gap] = gaps[..] else { return None };
        let window = spans.first()?;
        let is_one = gap.end.duration_since(gap.start) == window.end.duration_since(window.start);
        (is_one && self.has_destroyed).then_some(gap)
    }

    /// How many records one aggregation may count in this window and the other in another one,
    /// which has lost something: where a request is lost, its repetition counts.
    fn repeated_around(&self, window: WindowSpan) -> u64 {
        let (start, end) = (window.start.as_nanosecond(), window.end.as_nanosecond());
        let repeated = self.requests.values().filter(|request| {
            let sent = i128::from(request.sent.0);
            let over = request.over.map_or(i128::MAX, |over| i128::from(over.0));
            sent < end && over >= start && self.loses(sent, over)
        });
        repeated.map(|request| request.records.len() as u64).sum()
    }
}

/// What contradicts the promises when clocks were never further than `clock_bound` from
/// the true time, each acknowledged byte was on so many nodes as there are `copies`, and everything
/// has had the time to be handed out.
pub(crate) fn contradictions(
    history: &[Happened],
    clock_bound: Duration,
    copies: usize,
) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let mut known = read(history, &mut found);
    place(&mut known, &mut found);
    for (number, request) in &known.requests {
        judge(*number, request, &known, clock_bound, &mut found);
    }
    recount(&known, &mut found);
    balance(&known, &mut found);
    files::judge(&known, copies, &mut found);
    found
}

fn read<'a>(history: &'a [Happened], found: &mut Vec<Contradiction>) -> Known<'a> {
    let mut known = Known::default();
    let mut delivered = BTreeMap::new();
    for Happened { at, event } in history {
        match event {
            Event::Sent { request, node, records } => {
                let (node, sent, is_acknowledged, over) = (*node, *at, false, None);
                let sent = Request { node, records, sent, is_acknowledged, over };
                known.requests.insert(*request, sent);
                known.records.extend(records.iter().map(|record| (record.id, record)));
            }
            Event::Acknowledged { request } => match known.requests.get_mut(request) {
                Some(request) => (request.is_acknowledged, request.over) = (true, Some(*at)),
                None => found.push(format!("unsent: request {request} was acknowledged")),
            },
            Event::Repeated { request } => {
                known.requests.entry(*request).and_modify(|request| request.over = None);
            }
            Event::Delivered { node, aggregation, revision, counts } => {
                let start = counts.window.start;
                let key = (*aggregation, start, *revision);
                match delivered.insert(key, &**counts) {
                    Some(earlier) if earlier != &**counts => found.push(format!(
                        "key: {} {start}, revision {revision}, came from node {node} with \
                         another content",
                        counts.aggregation
                    )),
                    _ => {}
                }
                let window = (counts.aggregation.as_str(), start);
                match known.windows.insert(window, counts) {
                    Some(earlier) if earlier.complete && earlier != &**counts => found.push(
                        format!("changed: {} {start} was complete before", counts.aggregation),
                    ),
                    _ => {}
                }
            }
            Event::Cut { file, seq, bytes } => {
                let written = known.files.entry(file).or_default();
                written.chunks += 1;
                written.bytes += bytes;
                written.unanswered.insert(*seq);
            }
            Event::Collected { file, seq } => {
                known.files.entry(file).or_default().unanswered.remove(seq);
            }
            Event::Read { node, file, bytes, checkpointed, is_prefix } => {
                if !is_prefix {
                    found.push(format!("bytes: node {node} has others in {file}"));
                }
                if checkpointed.is_some_and(|checkpointed| checkpointed > *bytes) {
                    found.push(format!("bytes: node {node} lacks some of {file}"));
                }
                let written = known.files.entry(file).or_default();
                written.checkpointed.extend(checkpointed.map(|checkpointed| (*node, checkpointed)));
            }
            Event::Failed { node, error } => found.push(format!("halted: node {node}: {error}")),
            Event::Left { node, had_all } => {
                for file in known.files.values_mut() {
                    file.checkpointed.remove(node);
                }
                known.has_left = true;
                known.has_destroyed |= had_all;
            }
            Event::Balanced { ledger } => known.ledger = Some(ledger),
            Event::Done { .. } => {}
        }
    }
    known
}

/// Finds the window of each record, which is unlike all others.
fn place(known: &mut Known<'_>, found: &mut Vec<Contradiction>) {
    let windows = known.windows.iter().filter(|((name, _), _)| *name == "by-id");
    for ((_, start), counts) in windows {
        let WindowCounts { window, records, distinct, unknown, .. } = counts;
        let listed = counts.counts.len() as u64;
        let once = records == distinct && *records == listed && *unknown == 0;
        if !(once && counts.complete || known.is_lost(counts)) {
            found.push(format!(
                "repeated: by-id {start} has {records} records, {distinct} distinct, {listed} \
                 listed"
            ));
        }
        for ValueCount { value, count, .. } in &counts.counts {
            let id = value.as_str().and_then(|id| id.parse().ok());
            let Some(id) = id.filter(|id| known.records.contains_key(id)) else {
                found.push(format!("unsent: {value} was counted"));
                continue;
            };
            if *count != 1 {
                found.push(format!("repeated: record {id} counts {count} times"));
            }
            if let Some(other) = known.placed.insert(id, *window) {
                let (one, two) = (other.start, window.start);
                found.push(format!("repeated: record {id} is in the windows at {one} and {two}"));
            }
        }
    }
}

/// Whether a request is in one window, and in the right one.
fn judge(
    number: u64,
    request: &Request<'_>,
    known: &Known<'_>,
    clock_bound: Duration,
    found: &mut Vec<Contradiction>,
) {
    let bound = clock_bound.as_nanos() as i128;
    let earliest = i128::from(request.sent.0) - bound;
    let latest = request.over.map(|at| i128::from(at.0) + bound);
    let may_be_lost = known.loses(earliest, latest.unwrap_or(i128::MAX));
    let ids = request.records.iter().map(|record| record.id);
    let windows: BTreeSet<_> = ids.map(|id| known.placed.get(&id).map(|span| span.start)).collect();
    let [window] = windows.iter().copied().collect::<Vec<_>>()[..] else {
        if !may_be_lost {
            found.push(format!("torn: request {number} is in {windows:?}"));
        }
        return;
    };
    let first = request.records.first().and_then(|record| known.placed.get(&record.id));
    let (Some(_), Some(span)) = (window, first) else {
        if request.is_acknowledged && !may_be_lost {
            let node = request.node;
            found.push(format!("lost: request {number}, which node {node} acknowledged"));
        }
        return;
    };
    let is_early = span.end.as_nanosecond() <= earliest;
    if is_early || latest.is_some_and(|latest| span.start.as_nanosecond() > latest) {
        let Request { sent, over, .. } = request;
        found.push(format!(
            "stamp: request {number}, sent {sent}, acknowledged {over:?}, is in the window at {}",
            span.start
        ));
    }
}

/// Counts the windows of `by-group` again, from what `by-id` says of each record.
fn recount(known: &Known<'_>, found: &mut Vec<Contradiction>) {
    let windows = known.windows.iter().filter(|((name, _), _)| *name == "by-group");
    let mut records: BTreeMap<Timestamp, Vec<&Record>> = BTreeMap::new();
    let spans: Vec<_> = windows.map(|(_, counts)| *counts).collect();
    for (id, span) in &known.placed {
        let window = spans
            .iter()
            .find(|counts| counts.window.start <= span.start && span.start < counts.window.end);
        match window {
            Some(window) => records.entry(window.window.start).or_default().push(known.records[id]),
            None if known.loses(span.start.as_nanosecond(), span.start.as_nanosecond()) => {}
            None => found.push(format!("lost: record {id} is in no window of by-group")),
        }
    }
    for counts in spans {
        let WindowSpan { start, end } = counts.window;
        // What one aggregation has lost, the other may have flushed before.
        if known.loses(start.as_nanosecond(), end.as_nanosecond() - 1) {
            continue;
        }
        let own = records.remove(&start).unwrap_or_default();
        let expected = expected(&own);
        let unknown = expected.get(&None).map_or(0, BTreeSet::len) as u64;
        let distinct: usize = expected.values().map(BTreeSet::len).sum();
        let mut listed: Vec<_> = expected
            .iter()
            .filter_map(|(group, bodies)| Some((bodies.len() as u64, group.as_deref()?)))
            .collect();
        listed.sort_by_key(|&(count, group)| (std::cmp::Reverse(count), group));
        let printed: Vec<_> = counts
            .counts
            .iter()
            .map(|counted| (counted.count, counted.value.as_str().unwrap_or_default()))
            .collect();
        let same = (own.len() as u64, distinct as u64, unknown, &listed)
            == (counts.records, counts.distinct, counts.unknown, &printed);
        let others = counts.records.abs_diff(own.len() as u64);
        let others = others.max(counts.distinct.abs_diff(distinct as u64));
        let around = known.repeated_around(counts.window);
        let is_repeated = around > 0 && others <= around;
        if !same && !is_repeated {
            found.push(format!(
                "sum: by-group {start} should have {} records and {listed:?}, but has {} and \
                 {printed:?}",
                own.len(),
                counts.records
            ));
        }
    }
}

/// The distinct bodies by group.
fn expected<'a>(records: &[&'a Record]) -> BTreeMap<Option<String>, BTreeSet<&'a str>> {
    let mut bodies: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for record in records {
        bodies.entry(record.group.clone()).or_default().insert(record.body.as_str());
    }
    bodies
}

/// Holds the newest ledger against what was printed.
fn balance(known: &Known<'_>, found: &mut Vec<Contradiction>) {
    let Some(ledger) = known.ledger else {
        return found.push("ledger: nobody could tell it".to_owned());
    };
    let records = known.placed.len() as u64;
    let is_settled = |account: &Account| {
        let all = account.flushed == records && account.accepted == records;
        // What a node accepted that is gone is only in the accounts.
        let is_each = ledger.accepted == account.accepted + account.deduplicated;
        account.pending == 0 && (all && (is_each || known.has_left) || known.has_destroyed)
    };
    let chunks: u64 = known.files.values().map(|file| file.chunks).sum();
    // Chunks wait for ever behind one that is lost with a node.
    let is_rebuilt = |account: &Account| {
        (account.pending, account.distinct) == (0, chunks) || known.has_destroyed
    };
    let (files, counts) =
        ledger.aggregations.iter().partition::<Vec<_>, _>(|account| account.aggregation == "files");
    let are_all = files.iter().copied().all(is_rebuilt) && counts.iter().copied().all(is_settled);
    // Of what was lost with a node the cluster has counted a part (docs/simulation.md).
    let adds_up = (ledger.balanced || known.has_destroyed) && are_all;
    if !adds_up || counts.len() != 2 || files.len() > 1 {
        let came = format!("{records} records were printed, and {chunks} chunks came");
        found.push(format!("ledger: {came}, but it says {ledger:?}"));
    }
}

#[cfg(test)]
mod tests;
