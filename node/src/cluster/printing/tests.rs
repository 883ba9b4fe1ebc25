use std::sync::Mutex;

use tokio::task::JoinHandle;

use super::*;
use crate::checkpoint::facts::Settings;
use crate::checkpoint::facts::cuts::Span;
use crate::checkpoint::raft;
use crate::cluster::example::mesh::Mesh;
use crate::cluster::example::{CLUSTER, Nowhere, keeping, member};
use crate::event::node::NodeId;
use crate::event::time::{SECOND, UnixNanos};
use crate::flush::example::node::{Life, Node, Source, everybody_waits};
use crate::flush::example::{Cluster, Lost, at, entry, slots, window};
use crate::flush::results::Results;
use crate::journal::Extent;
use crate::journal::copies::Copies;
use crate::sink::Promise;
use crate::store::{Disk, Table, keys};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10 * SECOND) };

/// What was printed, and whether that was agreed on before.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(DeliveryKey, WindowCounts, bool)>>>);

struct Recorder {
    lines: Lines,
    cluster: Arc<Cluster>,
}

impl Sink for Recorder {
    fn promise(&self) -> Promise {
        Promise::Repeatable
    }

    fn deliver(&mut self, key: &DeliveryKey, counts: &WindowCounts) -> Result<(), SinkError> {
        let facts = self.cluster.now();
        let fact = facts.aggregations()[&0].windows.get(&key.start);
        let is_agreed = fact.is_some_and(|fact| fact.printed.is_some());
        self.lines.0.lock().unwrap().push((key.clone(), counts.clone(), is_agreed));
        Ok(())
    }
}

/// Node 1, which leads alone and has flushed the first two windows.
struct Setting {
    cluster: Arc<Cluster>,
    source: Arc<Source>,
    node: Node,
    life: Life,
    lines: Lines,
    raft: Raft,
}

impl Setting {
    async fn new() -> Setting {
        let (cluster, source) = (Cluster::of(1), Arc::new(Source::default()));
        let segment = cluster.open(1);
        source.appended.send_modify(|appended| {
            appended.push(segment, at(5), entry(0, &[(7, 1)]));
            appended.push(segment, at(15), entry(0, &[(7, 1), (9, 1)]));
        });
        cluster.cut(10, &[(segment, 1)]);
        cluster.cut(20, &[(segment, 2)]);
        let node = Node::new(1, &cluster, &source, u64::MAX);
        let life = node.start();
        everybody_waits().await;
        let initial_facts = Facts::new(Settings { slots: 256 });
        let settings = raft::Settings { id: NodeId(1), seed: 1, initial_facts };
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let raft = Raft::start(settings, store, Arc::new(Nowhere)).await.unwrap();
        Setting { cluster, source, node, life, lines: Lines::default(), raft }
    }

    /// Prints, as a node that has printed what is in `store`.
    fn print(&self, store: &Arc<Store>) -> JoinHandle<Result<(), PrintError>> {
        let results = Results::new(Arc::clone(&self.node.store));
        let (members, facts) = (Arc::new(Mesh::default()).member(), self.cluster.facts());
        let lending = Lending {
            journal: self.node.journal(),
            copies: Copies::open(Arc::clone(&self.node.store)).unwrap(),
            facts: self.cluster.facts(),
            results: results.clone(),
            keeping: keeping(&self.node, &self.cluster),
            folding: self.life.folding.clone(),
            rejected: Arc::new(Default::default),
        };
        let printer = Printer {
            cluster: CLUSTER,
            raft: self.raft.clone(),
            consensus: Arc::clone(&self.cluster) as _,
            gathering: Gathering { node: NodeId(1), results, members, facts },
            lending,
            sink: Box::new(Recorder {
                lines: self.lines.clone(),
                cluster: Arc::clone(&self.cluster),
            }),
            store: Arc::clone(store),
            values_max: 9,
            observer: Box::new(|holds| assert!(holds, "the ledger balances")),
        };
        tokio::spawn(printer.run())
    }

    async fn lead(&self) {
        self.raft.initialize(vec![member(1)]).await.unwrap();
        self.raft.until(Status::leads).await.unwrap();
        while self.raft.read_index().await.is_err() {
            everybody_waits().await;
        }
        // Whoever prints may have asked too early.
        sleep(2 * AGAIN_AFTER).await;
    }

    /// The windows of the lines since the last time, with what is in them.
    fn printed(&self) -> Vec<(UnixNanos, u32, u64)> {
        let lines = std::mem::take(&mut *self.lines.0.lock().unwrap());
        let lines = lines.into_iter().map(|(key, counts, is_agreed)| {
            assert!(is_agreed && counts.complete, "{key:?}");
            assert_eq!((key.cluster, key.revision), (CLUSTER, counts.revision));
            (key.start, counts.revision, counts.distinct)
        });
        lines.collect()
    }

    /// Has the node say that this is what all slots have of a window.
    fn keep(&self, window: Window, summary: WindowCounts) {
        let results = Results::new(Arc::clone(&self.node.store));
        let writing = results.begin(0, window);
        results.finish(writing, slots("0-255"), Some(summary)).unwrap();
    }

    /// What would be agreed on of the first window.
    fn agree(&self, revision: u32, digest: u128) -> Command {
        let (digest, outcome) = (Digest(digest), Outcome::Complete);
        let printed = Printed { revision, digest, outcome };
        Command::Print { aggregation: 0, window: FIRST, printed }
    }
}

fn empty() -> Arc<Store> {
    Arc::new(Store::in_memory(&Disk::default()).unwrap())
}

fn is_print(command: &Command) -> bool {
    matches!(command, Command::Print { .. })
}

#[tokio::test(start_paused = true)]
async fn the_leader_prints_complete_windows_in_the_order_of_their_ends_and_notes_them() {
    let (it, store) = (Setting::new().await, empty());
    let _printing = it.print(&store);
    everybody_waits().await;
    assert_eq!(it.printed(), [], "nobody leads");
    it.lead().await;
    assert_eq!(it.printed(), [(at(0), 1, 1), (at(10), 1, 2)]);
    let line = printed::find(&store, 0, FIRST).unwrap().unwrap();
    let line: WindowCounts = serde_json::from_slice(&line).unwrap();
    assert_eq!((line.complete, line.revision, line.distinct), (true, 1, 1));
    it.cluster.cut(21, &[(1, 2)]);
    everybody_waits().await;
    assert_eq!(it.printed(), [], "once is enough");
}

#[tokio::test(start_paused = true)]
async fn windows_without_records_are_not_printed() {
    let (it, store) = (Setting::new().await, empty());
    let _printing = it.print(&store);
    it.lead().await;
    it.printed();
    let end = it.cluster.cut(30, &[(1, 2)]);
    it.keep(window(20, 30), WindowCounts { records: 0, distinct: 0, ..counts() });
    it.cluster.flush(1, "0-255", window(20, 30), end);
    everybody_waits().await;
    assert_eq!(it.printed(), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_printed_that_was_not_agreed_on() {
    for (lost, again) in [(Lost::Command, vec![(at(0), 1, 1)]), (Lost::Answer, vec![(at(0), 1, 1)])]
    {
        let (it, store) = (Setting::new().await, empty());
        it.cluster.end_at(it.cluster.proposed().len() + 1, lost);
        let printing = it.print(&store);
        it.lead().await;
        let error = printing.await.unwrap().unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(it.printed(), []);
        it.cluster.go_on();
        let _printing = it.print(&store);
        everybody_waits().await;
        assert_eq!(it.printed()[..1], again, "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_repeats_the_last_line_and_no_other() {
    let (it, store) = (Setting::new().await, empty());
    let printing = it.print(&store);
    it.lead().await;
    let first = std::mem::take(&mut *it.lines.0.lock().unwrap());
    printing.abort();
    let _another = it.print(&empty());
    everybody_waits().await;
    let again = std::mem::take(&mut *it.lines.0.lock().unwrap());
    assert_eq!(again[..], first[1..], "another node, which has printed nothing");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_knows_that_it_printed_the_last_line_does_not_repeat_it() {
    let (it, store) = (Setting::new().await, empty());
    let printing = it.print(&store);
    it.lead().await;
    it.printed();
    printing.abort();
    let _again = it.print(&store);
    everybody_waits().await;
    assert_eq!(it.printed(), []);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_reproduced_is_not_printed() {
    let (it, store) = (Setting::new().await, empty());
    it.cluster.apply(it.agree(1, 77));
    let _printing = it.print(&store);
    it.lead().await;
    assert_eq!(it.printed(), [(at(10), 1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_faster_prints_alone() {
    let (it, store) = (Setting::new().await, empty());
    it.cluster.before(is_print, it.agree(1, 77));
    let _printing = it.print(&store);
    it.lead().await;
    assert_eq!(it.printed(), [(at(10), 1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_said_that_something_is_missing_is_followed_by_another() {
    let (it, store) = (Setting::new().await, empty());
    it.source.appended.send_modify(|all| all.push(1, at(25), entry(0, &[(7, 1)])));
    it.cluster.cut(30, &[]);
    let (digest, outcome) = (Digest(5), Outcome::Waiting);
    let printed = Printed { revision: 1, digest, outcome };
    let third = window(20, 30);
    it.cluster.apply(Command::Print { aggregation: 0, window: third, printed });
    it.cluster.cut(31, &[(1, 3)]);
    everybody_waits().await;
    let _printing = it.print(&store);
    it.lead().await;
    assert_eq!(it.printed(), [(at(0), 1, 1), (at(10), 1, 2), (at(20), 2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_misses_something_for_too_long_is_printed_with_what_it_waits_for() {
    let (it, store) = (Setting::new().await, empty());
    let _printing = it.print(&store);
    it.lead().await;
    it.printed();
    it.source.appended.send_modify(|all| all.push(1, at(25), entry(0, &[(7, 1)])));
    it.cluster.cut(44, &[]);
    everybody_waits().await;
    assert_eq!(it.printed(), []);
    it.cluster.cut(45, &[]);
    everybody_waits().await;
    let [line] = <[_; 1]>::try_from(std::mem::take(&mut *it.lines.0.lock().unwrap())).unwrap();
    let (key, counts, is_agreed) = line;
    assert_eq!((key.start, key.revision, counts.distinct, is_agreed), (at(20), 1, 1, true));
    let (slots, nodes, segments) = ("0-255".to_owned(), vec![1], vec![1]);
    assert_eq!(counts.waits_for, Some(WaitsFor { slots, nodes, segments }));
    it.cluster.cut(46, &[(1, 3)]);
    everybody_waits().await;
    assert_eq!(it.printed(), [(at(20), 2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_window_whose_results_are_not_reached_is_printed_when_they_are() {
    let (it, store) = (Setting::new().await, empty());
    let results = Results::new(Arc::clone(&it.node.store));
    let [own] = <[_; 1]>::try_from(results.find(0, FIRST.end).unwrap()).unwrap();
    let summary = own.summary.unwrap();
    it.keep(FIRST, WindowCounts { records: 7, ..summary.clone() });
    let _printing = it.print(&store);
    it.lead().await;
    sleep(2 * AGAIN_AFTER).await;
    assert_eq!(it.printed(), [(at(10), 1, 2)]);
    it.keep(FIRST, summary);
    it.cluster.cut(21, &[(1, 2)]);
    sleep(2 * AGAIN_AFTER).await;
    assert_eq!(it.printed(), [(at(0), 1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_window_whose_results_are_with_nobody_is_printed_as_lost() {
    let (it, store) = (Setting::new().await, empty());
    let mut batch = it.node.store.batch();
    let (from, to) = keys::results(FIRST.end, 0);
    batch.delete_range(Table::Results, &from, &to).unwrap();
    it.node.store.commit(batch).unwrap();
    let _printing = it.print(&store);
    it.lead().await;
    let lines = std::mem::take(&mut *it.lines.0.lock().unwrap());
    let [(next, ..), (key, counts, is_agreed)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((next.start, key.start, key.revision, *is_agreed), (at(10), at(0), 1, true));
    assert_eq!((counts.complete, counts.settled, counts.distinct), (false, true, 0));
    let lost: Vec<_> = counts.lost.iter().map(|lost| (lost.node, lost.slots.as_str())).collect();
    assert_eq!(lost, [(None, "0-255")]);
    it.cluster.cut(21, &[(1, 2)]);
    everybody_waits().await;
    assert_eq!(it.printed(), [], "it is settled");
}

fn counts() -> WindowCounts {
    let json = r#"{"aggregation":"by-foo","type":"DistinctLogs","attribute":"foo",
        "window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:10Z"},
        "complete":false,"revision":0,"records":5,"distinct":5,"unknown":1,"counts":[],
        "other":{"values":0,"count":0}}"#;
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_line_of_a_window_that_lost_something_says_what_and_that_it_is_the_last() {
    let loss = Loss {
        node: Some(NodeId(3)),
        segments: [7].into(),
        slots: "0-9".parse().unwrap(),
        extent: Extent { entries: 1, records: 4, chunks: 0 },
        stamps: Span { from: UnixNanos(SECOND), until: UnixNanos(5 * SECOND) },
    };
    let facts = Facts::new(Settings { slots: 256 });
    let mut line = counts();
    tell(&mut line, &facts, &Completeness::Lost(vec![loss]), 2);
    let told = serde_json::to_string(&line).unwrap();
    let expected = concat!(
        r#""complete":false,"settled":true,"lost":[{"node":3,"segments":[7],"slots":"0-9","#,
        r#""records":4,"from":"1970-01-01T00:00:01Z","until":"1970-01-01T00:00:05Z"}],"#,
        r#""revision":2,"records":5"#
    );
    assert!(told.contains(expected), "{told}");
    tell(&mut line, &facts, &Completeness::Complete, 1);
    assert_eq!(line, WindowCounts { complete: true, revision: 1, ..counts() });
}
