//! Two nodes count while their slots go to and fro, they end at any time and what was told
//! of a segment comes late. In the end every window is what one fold of everything gives.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Builder;

use super::*;
use crate::aggregation::distinct_logs::count_table::{Table, merge};
use crate::aggregation::distinct_logs::{Counts, MemoryLimit, OpenWindow};
use crate::event::entry::{Entry, Section};
use crate::flush::example::node::{Life, Node, Source, everybody_waits};
use crate::flush::example::{Lost, entry};
use crate::flush::results::{Results, ResultsError};

/// The numbers that a step is made of; which of them are used depends on the first.
type Step = [u8; 4];

/// Slots with records: some of each node.
const BUSY: [u8; 6] = [0, 1, 60, 128, 129, 200];

fn is_claim(command: &Command) -> bool {
    matches!(command, Command::Claim { .. })
}

fn is_complete(command: &Command) -> bool {
    matches!(command, Command::Complete { .. })
}

struct Run {
    cluster: Arc<Cluster>,
    source: Arc<Source>,
    nodes: [Node; 2],
    lives: [Option<Life>; 2],
    segments: [u64; 2],
    now: u64,
    stamped: u64,
}

impl Run {
    fn new() -> Run {
        let (cluster, source) = (two_nodes(), Arc::new(Source::default()));
        let segments = [cluster.open(1), cluster.open(2)];
        // One carries at every cut, the other never does.
        let nodes = [(1, 0), (2, u64::MAX)];
        let nodes = nodes.map(|(id, limit)| Node::new(id, &cluster, &source, limit));
        let lives = [Some(nodes[0].start()), Some(nodes[1].start())];
        Run { cluster, source, nodes, lives, segments, now: 1, stamped: 0 }
    }

    async fn step(&mut self, [kind, a, b, c]: Step) {
        match kind % 16 {
            0..=4 => self.append(a, b, c),
            5..=7 => self.cut(1 + u64::from(a % 4), b.is_multiple_of(4).then_some(c)),
            8 => self.cut(10, None),
            9 => self.lives[usize::from(a % 2)] = None,
            10 => {
                let lost = if b.is_multiple_of(2) { Lost::Command } else { Lost::Answer };
                self.cluster.end_at(self.cluster.proposed().len() + 1 + usize::from(a % 3), lost);
            }
            11 | 12 => drop(self.place(a, b).map(|place| self.cluster.apply(place))),
            13 => {
                let is_now = if c.is_multiple_of(2) { is_claim } else { is_complete };
                self.place(a, b).into_iter().for_each(|place| self.cluster.before(is_now, place));
            }
            _ => self.settle().await,
        }
        if c.is_multiple_of(3) {
            self.settle().await;
        }
    }

    fn append(&mut self, a: u8, b: u8, c: u8) {
        let segment = self.segments[usize::from(a % 2)];
        let slot = |n: u8| BUSY[usize::from(n) % BUSY.len()];
        let records = [(slot(b), u64::from(c % 4)), (slot(b / 6), u64::from(c / 4 % 4))];
        let entry = entry(0, &records[..1 + usize::from(a / 2 % 2)]);
        self.stamped += 1;
        let stamp = UnixNanos(at(self.now).0 + self.stamped);
        self.source.appended.send_modify(|appended| appended.push(segment, stamp, entry));
    }

    /// The next cut, to which one node does not tell anything.
    fn cut(&mut self, seconds: u64, silent: Option<u8>) {
        self.now += seconds;
        let appended = self.source.appended.borrow().counts();
        let count = |segment| appended.iter().find(|(id, _)| *id == segment).map_or(0, |e| e.1);
        let silent = silent.map(|node| self.segments[usize::from(node % 2)]);
        let told = self.segments.into_iter().filter(|&segment| Some(segment) != silent);
        let told: Vec<_> = told.map(|segment| (segment, count(segment))).collect();
        self.cluster.cut(self.now, &told);
    }

    /// Some slots go to one of the nodes, if they can.
    fn place(&self, a: u8, b: u8) -> Option<Command> {
        let (facts, owners) = (self.cluster.now(), [NodeId(1 + u64::from(a % 2))]);
        let some = (0..=Slot::MAX).filter(|slot| slot % 3 == b % 3 || BUSY.contains(slot));
        let movable = some.filter(|&slot| super::super::can_move(&facts, slot));
        let changes = movable.map(|slot| (slot, at_once(&facts, slot, &owners)));
        let changes: BTreeMap<_, _> = changes.take(1 + usize::from(b)).collect();
        (!changes.is_empty()).then_some(Command::Place { changes })
    }

    /// Lets the nodes do what they can, and begins new lives of those that have ended.
    async fn settle(&mut self) {
        loop {
            everybody_waits().await;
            let mut failed = false;
            for (node, life) in self.nodes.iter().zip(&mut self.lives) {
                if let Some(running) = life
                    && let Some(error) = running.failed().await
                {
                    assert!(error.is_retryable(), "{error}");
                    failed = true;
                    *life = None;
                }
                if life.is_none() {
                    failed = true;
                    *life = Some(node.start());
                }
            }
            if !failed {
                return;
            }
            self.cluster.go_on();
        }
    }

    /// Every window is flushed, as one fold of everything gives it.
    fn check(&self) {
        let scratch = tempfile::tempdir().unwrap();
        let mut windows: BTreeMap<Window, OpenWindow> = BTreeMap::new();
        let appended = self.source.appended.borrow().clone();
        for (stamp, entry) in appended.all() {
            let begin = || OpenWindow::new(MemoryLimit(1 << 20), scratch.path(), None);
            let window = windows.entry(Window::of(*stamp, 10)).or_insert_with(begin);
            for section in Entry::parse(entry).unwrap().sections() {
                let (_, Section::DistinctLogs(section)) = section.unwrap() else { panic!() };
                window.fold(&section).unwrap();
            }
        }
        let facts = self.cluster.now();
        assert_eq!(facts.aggregations()[&0].windows.len(), windows.len());
        for (window, folded) in windows {
            let fact = &facts.aggregations()[&0].windows[&window.start];
            let closed = folded.close(9).unwrap();
            assert_eq!(fact.waiting, SlotSet::default(), "{window}");
            let counted = (fact.records, fact.distinct, fact.digest.0);
            let Counts { records, distinct, .. } = closed.counts;
            assert_eq!(counted, (records, distinct, closed.digest()), "{window}");
            assert_eq!(self.kept(window), (256, closed.digest()), "{window}");
        }
        assert!(facts.balance(0).unwrap().holds());
    }

    /// Of how many slots there are results, and the sum of their digests.
    fn kept(&self, window: Window) -> (usize, u128) {
        let (mut left, mut tables) = (SlotSet::all(256), Vec::new());
        for node in &self.nodes {
            let results = Results::new(Arc::clone(&node.store));
            for found in results.find(0, window.end).unwrap() {
                let slots: SlotSet = found.slots.iter().filter(|&s| left.contains(s)).collect();
                slots.iter().for_each(|slot| left.remove(slot));
                if let Some(summary) = &found.summary {
                    assert_eq!(found.slots.len(), 256, "{summary:?}");
                    return (256, self.fact_digest(window));
                }
                let chunks = results.chunks(0, window.end, found);
                let chunks = chunks.map(|chunk| Ok::<_, ResultsError>(chunk?));
                tables.push(Table { slots, chunks });
            }
        }
        let merged = merge(tables, 0, 9).unwrap();
        let digest = merged.slots.iter().fold(0_u128, |sum, slot| sum.wrapping_add(slot.digest));
        (merged.slots.len(), digest)
    }

    fn fact_digest(&self, window: Window) -> u128 {
        self.cluster.now().aggregations()[&0].windows[&window.start].digest.0
    }
}

fn run(steps: &[Step]) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new();
        for &step in steps {
            run.step(step).await;
        }
        for _ in 0..3 {
            run.cluster.go_on();
            run.cut(10, None);
            run.settle().await;
        }
        run.check();
    });
}

#[test]
fn whatever_happens_windows_are_what_one_fold_gives() {
    let config = Config {
        cases: 150,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let steps = prop::collection::vec(any::<Step>(), 1..60);
    let tested = TestRunner::new_with_rng(config, seed).run(&steps, |steps| {
        run(&steps);
        Ok(())
    });
    tested.unwrap();
}
