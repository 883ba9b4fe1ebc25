use super::*;
use sheaf_proto::statistics::{Lost, Other};

const BOUND: Duration = Duration::from_millis(800);

fn at(seconds: u64, event: Event) -> Happened {
    Happened { at: UnixNanos(seconds * 1_000_000_000), event }
}

/// A request of two records that differ only in their ids.
fn sent(request: u64) -> Event {
    let record = |id| Record { id, group: Some("a".to_owned()), body: "b".to_owned() };
    Event::Sent { request, node: 0, records: vec![record(2 * request), record(2 * request + 1)] }
}

fn acknowledged(request: u64) -> Event {
    Event::Acknowledged { request }
}

fn printed(name: &str, (start, end): (i64, i64), records: u64, counts: &[(&str, u64)]) -> Event {
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
        slots: None,
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
        deduplicated: 0,
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
    let found = contradictions(history, BOUND, 1);
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
    assert_eq!(contradictions(&honest(), BOUND, 1), Vec::<String>::new());
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
        let found = contradictions(&history, Duration::ZERO, 1);
        assert!(found.iter().any(|found| found.starts_with("stamp: ")), "{found:?}");
    }
}

#[test]
fn what_is_sent_once_more_may_count_when_it_is_and_no_later() {
    let stamps = |window, again: &[Happened]| {
        let mut history = honest();
        history[2].event = printed("by-id", window, 2, &[("0", 1), ("1", 1)]);
        history.extend_from_slice(again);
        let found = contradictions(&history, Duration::ZERO, 1);
        found.iter().filter(|found| found.starts_with("stamp: ")).count()
    };
    let [begun, over] = [at(10, Event::Repeated { request: 0 }), at(11, acknowledged(0))];
    assert_eq!(stamps((11, 12), &[]), 1);
    assert_eq!(stamps((11, 12), std::slice::from_ref(&begun)), 0);
    assert_eq!(stamps((11, 12), &[begun.clone(), over.clone()]), 0);
    assert_eq!(stamps((12, 13), &[begun, over]), 1);
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

/// What is printed once a window has lost what it had of a record.
fn lost(name: &str, (start, end): (i64, i64), records: u64, counts: &[(&str, u64)]) -> Event {
    let Event::Delivered { node, aggregation, revision, mut counts } =
        printed(name, (start, end), records, counts)
    else {
        unreachable!()
    };
    let second = |second| Timestamp::from_second(second).unwrap();
    let (from, until) = (second(start), second(end));
    let (segments, slots) = (vec![1], String::new());
    counts.lost = vec![Lost { node: Some(2), segments, slots, records: 1, from, until }];
    (counts.complete, counts.settled) = (false, true);
    Event::Delivered { node, aggregation, revision, counts }
}

#[test]
fn a_window_loses_something_only_with_a_machine_that_is_gone_with_all_it_had() {
    let mut history = honest();
    history[2].event = lost("by-id", (10, 11), 1, &[("0", 1)]);
    let found = ["ledger", "lost", "repeated", "torn"];
    assert!(found.iter().any(|check| checks(&history).contains(&(*check).to_owned())));
    history.push(at(9, Event::Left { node: 2, had_all: false }));
    assert!(found.iter().any(|check| checks(&history).contains(&(*check).to_owned())));
    history.push(at(9, Event::Left { node: 2, had_all: true }));
    assert_eq!(checks(&history), Vec::<String>::new());
}

#[test]
fn one_line_may_go_with_a_machine_that_had_some_of_its_results() {
    let then = |had_all, lines: i64| {
        let mut history = honest();
        history[2].event = printed("by-id", (9, 10), 0, &[]);
        history.push(at(18, printed("by-id", (10 + lines, 11 + lines), 0, &[])));
        history.push(at(19, Event::Left { node: 2, had_all }));
        checks(&history)
    };
    assert_eq!(then(true, 1), Vec::<String>::new());
    assert!(then(true, 2).contains(&"lost".to_owned()));
    assert!(then(false, 1).contains(&"lost".to_owned()));
}

#[test]
fn where_a_request_is_lost_its_repetition_counts() {
    let mut history = honest();
    history.push(at(9, Event::Left { node: 2, had_all: true }));
    history[2].event = lost("by-id", (10, 11), 2, &[("0", 1), ("1", 1)]);
    history[3].event = lost("by-group", (10, 15), 0, &[]);
    history.push(at(21, printed("by-group", (15, 20), 2, &[("a", 1)])));
    assert_eq!(checks(&history), ["sum"], "it was not sent again");
    history.push(at(17, Event::Repeated { request: 0 }));
    assert_eq!(checks(&history), Vec::<String>::new());
    history.push(at(26, printed("by-group", (20, 25), 3, &[("a", 1)])));
    assert_eq!(checks(&history), ["sum"], "there are not so many");
}

#[test]
fn what_is_beside_the_lost_windows_must_not_be_lost() {
    let mut history = honest();
    history.push(at(9, Event::Left { node: 2, had_all: true }));
    history.push(at(12, lost("by-id", (12, 13), 0, &[])));
    history.extend([at(18, sent(1)), at(18, acknowledged(1))]);
    assert_eq!(checks(&history), ["lost"]);
}

#[test]
fn what_a_drained_node_accepted_is_only_in_the_accounts() {
    let mut history = honest();
    let Event::Balanced { ledger } = &mut history[4].event else { unreachable!() };
    ledger.accepted = 1;
    assert_eq!(checks(&history), ["ledger"]);
    history.push(at(9, Event::Left { node: 2, had_all: false }));
    assert_eq!(checks(&history), Vec::<String>::new());
}

fn file() -> File {
    File { id: "host/a.log".to_owned(), session: 1 }
}

/// What a node has of the file.
fn has(node: usize, bytes: u64, checkpointed: u64) -> Event {
    let checkpointed = Some(checkpointed);
    Event::Read { node, file: file(), bytes, checkpointed, is_prefix: true }
}

/// What happens to a file of two chunks, and what the ledger says of them.
fn written(distinct: u64) -> Vec<Happened> {
    let mut history = honest();
    for seq in [1, 2] {
        history.push(at(10, Event::Cut { file: file(), seq, bytes: 5 }));
        history.push(at(10, Event::Collected { file: file(), seq }));
    }
    let Event::Balanced { mut ledger } = ledger(2, 0) else { unreachable!() };
    let files =
        Account { aggregation: "files".to_owned(), distinct, ..ledger.aggregations[0].clone() };
    ledger.aggregations.push(files);
    history.push(at(18, Event::Balanced { ledger }));
    history
}

fn found_of_files(then: &[Event], copies: usize) -> Vec<String> {
    let mut history = written(2);
    history.extend(then.iter().map(|event| at(19, event.clone())));
    let found = contradictions(&history, BOUND, copies);
    found.iter().filter_map(|found| Some(found.split_once(':')?.0.to_owned())).collect()
}

#[test]
fn a_file_has_to_be_whole_on_as_many_nodes_as_there_are_copies() {
    let nothing = Vec::<String>::new();
    assert_eq!(found_of_files(&[has(0, 10, 10)], 1), nothing);
    assert_eq!(found_of_files(&[has(0, 10, 10), has(1, 10, 5)], 2), ["missing"]);
    assert_eq!(found_of_files(&[has(0, 10, 10), has(1, 10, 5), has(1, 10, 10)], 2), nothing);
    assert_eq!(found_of_files(&[], 1), ["missing"]);
    let left = |had_all| [has(0, 10, 10), Event::Left { node: 0, had_all }];
    assert_eq!(found_of_files(&left(false), 1), ["missing"]);
    assert_eq!(found_of_files(&left(true), 1), nothing);
}

#[test]
fn bytes_that_are_not_the_files_are_found_whenever_somebody_reads_them() {
    let (file, checkpointed, is_prefix) = (file(), None, false);
    let wrong = Event::Read { node: 0, file, bytes: 3, checkpointed, is_prefix };
    assert_eq!(found_of_files(&[wrong, has(0, 10, 10)], 1), ["bytes"]);
    assert_eq!(found_of_files(&[has(0, 4, 5), has(0, 10, 10)], 1), ["bytes"]);
}

#[test]
fn a_chunk_that_nobody_acknowledges_and_one_that_the_ledger_does_not_know_are_found() {
    let cut = Event::Cut { file: file(), seq: 3, bytes: 0 };
    assert_eq!(found_of_files(&[cut, has(0, 10, 10)], 1), ["ledger", "stuck"]);
    let mut history = written(1);
    history.push(at(19, has(0, 10, 10)));
    assert_eq!(checks(&history), ["ledger"]);
}
