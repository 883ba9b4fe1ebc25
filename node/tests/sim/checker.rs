//! What has to hold of all that happened, whatever was done to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use sheaf_node::event::time::UnixNanos;
use sheaf_proto::statistics::{Account, Ledger, ValueCount, WindowCounts, WindowSpan};

use super::history::{Event, Happened, Record};

/// What contradicts a promise, in words. The first word says which check found it.
pub(crate) type Contradiction = String;

/// A request, and what its sender knows of it.
struct Request<'a> {
    node: usize,
    records: &'a [Record],
    sent: UnixNanos,
    acknowledged: Option<UnixNanos>,
}

/// All that happened, by what it is.
#[derive(Default)]
struct Known<'a> {
    requests: BTreeMap<u64, Request<'a>>,
    /// The last line of each window, by the aggregation's name and the window's start.
    windows: BTreeMap<(&'a str, Timestamp), &'a WindowCounts>,
    records: BTreeMap<u64, &'a Record>,
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

    /// Whether a window that overlaps a time lost something. Both ends are part of the time.
    fn loses(&self, from: i128, until: i128) -> bool {
        self.windows.values().filter(|counts| self.is_lost(counts)).any(|counts| {
            let WindowSpan { start, end } = counts.window;
            start.as_nanosecond() <= until && from < end.as_nanosecond()
        })
    }
}

/// What contradicts the promises when clocks were never further than `clock_bound` from
/// the true time, and everything has had the time to be handed out.
pub(crate) fn contradictions(history: &[Happened], clock_bound: Duration) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let mut known = read(history, &mut found);
    place(&mut known, &mut found);
    for (number, request) in &known.requests {
        judge(*number, request, &known, clock_bound, &mut found);
    }
    recount(&known, &mut found);
    balance(&known, &mut found);
    found
}

fn read<'a>(history: &'a [Happened], found: &mut Vec<Contradiction>) -> Known<'a> {
    let mut known = Known::default();
    let mut delivered = BTreeMap::new();
    for Happened { at, event } in history {
        match event {
            Event::Sent { request, node, records } => {
                let sent = Request { node: *node, records, sent: *at, acknowledged: None };
                known.requests.insert(*request, sent);
                known.records.extend(records.iter().map(|record| (record.id, record)));
            }
            Event::Acknowledged { request } => match known.requests.get_mut(request) {
                Some(request) => request.acknowledged = Some(*at),
                None => found.push(format!("unsent: request {request} was acknowledged")),
            },
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
            Event::Failed { node, error } => found.push(format!("halted: node {node}: {error}")),
            Event::Left { had_all, .. } => {
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
    let latest = request.acknowledged.map(|at| i128::from(at.0) + bound);
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
        if request.acknowledged.is_some() && !may_be_lost {
            let node = request.node;
            found.push(format!("lost: request {number}, which node {node} acknowledged"));
        }
        return;
    };
    let is_early = span.end.as_nanosecond() <= earliest;
    if is_early || latest.is_some_and(|latest| span.start.as_nanosecond() > latest) {
        let (sent, over) = (request.sent, request.acknowledged);
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
        if !same {
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
        account.pending == 0 && (all || known.has_destroyed && account.lost > 0)
    };
    // What a node accepted that is gone is only in the accounts.
    let settled = (ledger.accepted == records || known.has_left)
        && ledger.aggregations.iter().all(is_settled);
    if !ledger.balanced || !settled || ledger.aggregations.len() != 2 {
        found.push(format!("ledger: {records} records were printed, but it says {ledger:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheaf_proto::statistics::Other;

    const BOUND: Duration = Duration::from_millis(800);

    fn at(seconds: u64, event: Event) -> Happened {
        Happened { at: UnixNanos(seconds * 1_000_000_000), event }
    }

    /// A request of two records that differ only in their ids.
    fn sent(request: u64) -> Event {
        let record = |id| Record { id, group: Some("a".to_owned()), body: "b".to_owned() };
        Event::Sent {
            request,
            node: 0,
            records: vec![record(2 * request), record(2 * request + 1)],
        }
    }

    fn acknowledged(request: u64) -> Event {
        Event::Acknowledged { request }
    }

    fn printed(
        name: &str,
        (start, end): (i64, i64),
        records: u64,
        counts: &[(&str, u64)],
    ) -> Event {
        let count =
            |&(value, count): &(&str, u64)| ValueCount { value: value.into(), kind: None, count };
        let second = |second| Timestamp::from_second(second).unwrap();
        let counts = WindowCounts {
            aggregation: name.to_owned(),
            kind: "DistinctLogs".to_owned(),
            attribute: "id".to_owned(),
            window: WindowSpan { start: second(start), end: second(end) },
            complete: true,
            waits_for: None,
            settled: false,
            lost: Vec::new(),
            revision: 1,
            records,
            distinct: counts.iter().map(|(_, count)| count).sum(),
            upper_bound: false,
            unknown: 0,
            counts: counts.iter().map(count).collect(),
            other: Other::default(),
        };
        let aggregation = u32::from(name == "by-group");
        Event::Delivered { node: 0, aggregation, revision: 1, counts: Box::new(counts) }
    }

    fn ledger(records: u64, pending: u64) -> Event {
        let account = |name: &str| Account {
            aggregation: name.to_owned(),
            accepted: records,
            flushed: records - pending,
            distinct: 0,
            duplicate: records - pending,
            lost: 0,
            pending,
        };
        Event::Balanced {
            ledger: Ledger {
                received: records,
                accepted: records,
                rejected: BTreeMap::new(),
                aggregations: vec![account("by-group"), account("by-id")],
                balanced: true,
            },
        }
    }

    /// What happens when nothing is wrong.
    fn honest() -> Vec<Happened> {
        vec![
            at(10, sent(0)),
            at(10, acknowledged(0)),
            at(12, printed("by-id", (10, 11), 2, &[("0", 1), ("1", 1)])),
            at(16, printed("by-group", (10, 15), 2, &[("a", 1)])),
            at(17, ledger(2, 0)),
        ]
    }

    /// The checks that find something, each once.
    fn checks(history: &[Happened]) -> Vec<String> {
        let found = contradictions(history, BOUND);
        let checks = found.iter().filter_map(|found| Some(found.split_once(':')?.0.to_owned()));
        BTreeSet::from_iter(checks).into_iter().collect()
    }

    fn checks_with(place: usize, event: Event) -> Vec<String> {
        let mut history = honest();
        history[place].event = event;
        checks(&history)
    }

    #[test]
    fn an_honest_history_has_no_contradictions() {
        assert_eq!(contradictions(&honest(), BOUND), Vec::<String>::new());
    }

    #[test]
    fn a_line_may_be_printed_again_and_a_request_without_an_answer_may_be_lost() {
        let mut history = honest();
        history.push(at(18, honest()[2].event.clone()));
        history.push(at(18, sent(1)));
        assert_eq!(checks(&history), Vec::<String>::new());
    }

    #[test]
    fn a_record_that_was_acknowledged_and_is_in_no_window_is_lost() {
        let mut history = honest();
        history.extend([at(18, sent(1)), at(18, acknowledged(1))]);
        assert_eq!(checks(&history), ["lost"]);
        assert_eq!(checks_with(3, Event::Done { fault: String::new() }), ["lost"]);
    }

    #[test]
    fn a_record_that_is_counted_twice_is_found() {
        let mut history = honest();
        history.push(at(18, printed("by-id", (11, 12), 1, &[("1", 1)])));
        assert!(checks(&history).contains(&"repeated".to_owned()));
        let twice = printed("by-id", (10, 11), 3, &[("0", 1), ("1", 2)]);
        assert_eq!(checks_with(2, twice), ["repeated"]);
        let again = printed("by-id", (10, 11), 3, &[("0", 1), ("1", 1)]);
        assert_eq!(checks_with(2, again), ["repeated"]);
    }

    #[test]
    fn a_request_of_which_a_part_is_missing_is_torn() {
        let half = printed("by-id", (10, 11), 1, &[("0", 1)]);
        assert!(checks_with(2, half).contains(&"torn".to_owned()));
    }

    #[test]
    fn what_nobody_sent_is_found() {
        let other = printed("by-id", (10, 11), 3, &[("0", 1), ("1", 1), ("9", 1)]);
        assert!(checks_with(2, other).contains(&"unsent".to_owned()));
        assert_eq!(checks_with(1, acknowledged(7)), ["unsent"]);
    }

    #[test]
    fn a_window_beside_the_time_of_sending_is_found() {
        for window in [(9, 10), (11, 12)] {
            let beside = printed("by-id", window, 2, &[("0", 1), ("1", 1)]);
            let mut history = honest();
            history[2].event = beside;
            history[3].event = printed("by-group", (5, 15), 2, &[("a", 1)]);
            let found = contradictions(&history, Duration::ZERO);
            assert!(found.iter().any(|found| found.starts_with("stamp: ")), "{found:?}");
        }
    }

    #[test]
    fn a_sum_that_is_not_that_of_the_records_is_found() {
        assert_eq!(checks_with(3, printed("by-group", (10, 15), 2, &[("a", 2)])), ["sum"]);
        assert_eq!(checks_with(3, printed("by-group", (10, 15), 3, &[("a", 1)])), ["sum"]);
        assert_eq!(checks_with(3, printed("by-group", (10, 15), 2, &[("b", 1)])), ["sum"]);
    }

    #[test]
    fn a_line_that_changes_is_found() {
        let mut history = honest();
        history.push(at(18, printed("by-group", (10, 15), 2, &[("a", 2)])));
        let checks = checks(&history);
        assert!(["changed", "key"].iter().all(|check| checks.contains(&(*check).to_owned())));
    }

    #[test]
    fn a_ledger_that_does_not_balance_and_a_node_that_halts_are_found() {
        assert_eq!(checks_with(4, ledger(2, 1)), ["ledger"]);
        assert_eq!(checks_with(4, ledger(3, 0)), ["ledger"]);
        assert_eq!(checks_with(4, Event::Done { fault: String::new() }), ["ledger"]);
        let mut history = honest();
        history.push(at(18, Event::Failed { node: 1, error: "diverged".to_owned() }));
        assert_eq!(checks(&history), ["halted"]);
    }
}
