use futures::future::BoxFuture;

use super::*;
use crate::aggregation::distinct_logs::MemoryLimit;
use crate::aggregation::distinct_logs::count_table::{Table, merge};
use crate::checkpoint::carries::{Carries, Carry};
use crate::checkpoint::facts::windows::WindowFact;
use crate::event::entry::EntryWriter;
use crate::event::time::{Clock, UnixNanos, Window};
use crate::flush::FlushSettings;
use crate::flush::example::node::everybody_waits;
use crate::flush::example::{
    Appended, Cluster, Lost, alone, at, entry, packed, register, slots, window,
};
use crate::flush::folding::Commands;
use crate::flush::group::{Group, alike};
use crate::flush::results::ResultsError;
use crate::flush::sharing::{NotKept, Others};
use crate::journal::Replay;
use crate::store::{Disk, Store};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };

fn is_claim(command: &Command) -> bool {
    matches!(command, Command::Claim { .. })
}

fn is_complete(command: &Command) -> bool {
    matches!(command, Command::Complete { .. })
}

/// Node 1 of a cluster, with its disk.
struct Node {
    cluster: Arc<Cluster>,
    store: Arc<Store>,
    scratch: tempfile::TempDir,
    appended: Appended,
    segment: u64,
}

impl Node {
    /// The first window has records 1 and 2 in slot 7, and record 1 in slot 200; all of it is
    /// below the cut at its end. The slots above 250 are another node's.
    fn new() -> Node {
        let cluster = Cluster::of(2);
        cluster.place("251-255", 2);
        Node::in_cluster(cluster)
    }

    fn in_cluster(cluster: Arc<Cluster>) -> Node {
        let segment = cluster.open(1);
        let mut appended = Appended::default();
        for body in [1, 2, 1] {
            appended.push(segment, at(5), entry(0, &[(7, body), (200, 1)]));
        }
        cluster.cut(10, &appended.counts());
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let scratch = tempfile::tempdir().unwrap();
        Node { cluster, store, scratch, appended, segment }
    }

    /// The number of the cut at the end of the first window.
    fn end(&self) -> u64 {
        let facts = self.cluster.now();
        facts.cuts().find(|cut| cut.time == FIRST.end).unwrap().number
    }

    fn results(&self) -> Results {
        Results::new(Arc::clone(&self.store))
    }

    fn carried(&self) -> CarriedWindows {
        let carries = Carries::new(Arc::clone(&self.store));
        CarriedWindows { carries, scratch: self.scratch.path().to_owned() }
    }

    fn files(&self) -> Files {
        Files::new(self.scratch.path().join("files"), Arc::clone(&self.store))
    }

    fn settings(&self) -> FlushSettings {
        let (memory, scratch) = (1 << 20, self.scratch.path().to_owned());
        FlushSettings { memory, window_memory: MemoryLimit(memory), scratch, journal_bytes_max: 0 }
    }

    /// Groups of this node's slots that have folded everything.
    fn fold(&self) -> Vec<Group> {
        let facts = self.cluster.now();
        let kept = self.carried().all().unwrap();
        let alike = alike(&facts, &facts.primary_of(NodeId(1)), &kept);
        let folded = alike.into_iter().map(|slots| {
            let own = |carry: &&Carry| slots.iter().any(|slot| carry.slots.contains(slot));
            let own = kept.iter().filter(own).cloned().collect();
            let mut group =
                Group::resume(slots, BTreeMap::new(), own, &facts, &self.settings(), &self.files())
                    .unwrap();
            for (segment, _) in self.appended.counts() {
                let batch = self.appended.batch(segment, 0, usize::MAX, &slots);
                assert!(group.fold(segment, &batch, &self.settings()).unwrap());
            }
            assert!(group.decide(&self.appended.decided(&facts), &self.settings()).unwrap());
            group
        });
        folded.collect()
    }

    /// What the newest cut has closed.
    fn due(&self, groups: &mut [Group]) -> Vec<Flush> {
        let facts = self.cluster.now();
        let closings = groups.iter_mut().flat_map(|group| group.close(&facts).unwrap().now);
        let flush = |closing: Closing| {
            self.carried().record(&closing.carries).unwrap();
            Flush::Window { group: 0, closing: Box::new(closing) }
        };
        closings.map(flush).collect()
    }

    /// What is carried of all that is open.
    fn carry(&self, groups: &mut [Group], cut: u64) -> Vec<Flush> {
        let carries = groups.iter_mut().map(|group| {
            let carries = group.carry(&self.settings()).unwrap().unwrap_or_default();
            self.carried().record(&carries).unwrap();
            let (slots, windows) = (group.slots(), carries.len());
            Flush::Carry { group: 0, slots, aggregations: group.aggregations(), cut, windows }
        });
        carries.collect()
    }

    fn delivery(&self) -> (Delivery, Commands) {
        let (store, replay) = (Arc::clone(&self.store), Replay::default());
        let copies = Copies::open(Arc::clone(&store)).unwrap();
        let (journal, _) = Journal::new(store, &replay, Clock::new(|| at(5)), Box::new(|_| ()));
        let (folding, commands) = Folding::new();
        let delivery = Delivery {
            node: NodeId(1),
            consensus: Arc::clone(&self.cluster) as _,
            results: self.results(),
            carried: self.carried(),
            files: self.files(),
            sharing: alone(NodeId(1), &self.cluster, self.carried()),
            journal,
            copies,
            folding,
            values_max: 9,
            observer: Box::new(|_| ()),
        };
        (delivery, commands)
    }

    /// Hands this out, and says which windows were, and which slots were given up.
    async fn hand_out(&self, flushes: Vec<Flush>) -> Result<Vec<(Window, String)>, FlushError> {
        let (delivery, mut commands) = self.delivery();
        let (sender, receiver) = mpsc::unbounded_channel();
        flushes.into_iter().for_each(|flush| sender.send(flush).ok().unwrap());
        drop(sender);
        delivery.run(receiver).await?;
        let closed = commands.closed().into_iter();
        Ok(closed.map(|(window, given_up)| (window, given_up.to_string())).collect())
    }

    /// Folds everything and hands out what is due.
    async fn flush(&self) -> Result<Vec<(Window, String)>, FlushError> {
        let due = self.due(&mut self.fold());
        self.hand_out(due).await
    }

    fn fact(&self, window: Window) -> WindowFact {
        self.cluster.now().aggregations()[&0].windows[&window.start].clone()
    }

    /// The slots that were flushed for the first window, with records and distinct ones.
    fn flushed(&self) -> (String, u64, u64) {
        let WindowFact { waiting, records, distinct, .. } = self.fact(FIRST);
        let flushed = slots("0-255").iter().filter(|&slot| !waiting.contains(slot));
        (flushed.collect::<SlotSet>().to_string(), records, distinct)
    }

    /// The slots of which there are results of the first window, what they add up to, and
    /// the sum of their digests.
    fn kept(&self) -> (String, u64, u128) {
        let (results, mut of) = (self.results(), SlotSet::default());
        let found = results.find(0, FIRST.end).unwrap().into_iter().map(|found| {
            of = of.union(&found.slots);
            let slots = found.slots;
            let chunks = results.chunks(0, FIRST.end, found).map(|c| Ok::<_, ResultsError>(c?));
            Table { slots, chunks }
        });
        let merged = merge(found, 0, 9).unwrap();
        let digest = merged.slots.iter().fold(0_u128, |sum, s| sum.wrapping_add(s.digest));
        (of.to_string(), merged.counts.distinct, digest)
    }
}

fn done(given_up: &str) -> Vec<(Window, String)> {
    vec![(FIRST, given_up.to_owned())]
}

fn whole() -> (String, u64, u64) {
    ("0-250".to_owned(), 6, 3)
}

#[tokio::test]
async fn a_window_is_claimed_kept_and_completed() {
    let node = Node::new();
    assert_eq!(node.flush().await.unwrap(), done(""));
    assert_eq!(node.flushed(), whole());
    assert_eq!(node.kept(), ("0-250".to_owned(), 3, node.fact(FIRST).digest.0));
    let proposed = node.cluster.proposed();
    assert!(matches!(&proposed[..], [Command::Claim { .. }, Command::Complete { .. }]));
    let progress = node.cluster.now().aggregations()[&0].progress(7);
    assert_eq!((progress.carried, progress.number()), (node.end(), 1));
}

#[tokio::test]
async fn a_window_that_was_counted_whole_is_kept_as_its_summary() {
    let node = Node::in_cluster(Cluster::of(1));
    node.flush().await.unwrap();
    let [found] = <[_; 1]>::try_from(node.results().find(0, FIRST.end).unwrap()).unwrap();
    let summary = found.summary.unwrap();
    assert_eq!((found.slots, summary.records, summary.distinct), (slots("0-255"), 6, 3));
}

#[tokio::test]
async fn a_node_that_ends_anywhere_does_the_same_the_next_time() {
    let undisturbed = Node::new();
    undisturbed.flush().await.unwrap();
    for command in [1, 2] {
        for lost in [Lost::Command, Lost::Answer] {
            let node = Node::new();
            node.cluster.end_at(command, lost);
            let error = node.flush().await.unwrap_err();
            assert!(error.is_retryable(), "{error}");
            node.cluster.go_on();
            node.flush().await.unwrap();
            assert_eq!(node.cluster.now(), undisturbed.cluster.now(), "{command} {lost:?}");
            assert_eq!(node.kept(), undisturbed.kept(), "{command} {lost:?}");
        }
    }
}

#[tokio::test]
async fn results_are_on_disk_before_the_cluster_is_told() {
    let node = Node::new();
    node.cluster.end_at(1, Lost::Answer);
    node.flush().await.unwrap_err();
    assert_eq!(node.kept(), (String::new(), 0, 0), "nobody sees them before they are claimed");
    let node = Node::new();
    node.cluster.end_at(2, Lost::Command);
    node.flush().await.unwrap_err();
    assert_eq!(node.kept().0, "0-250");
}

#[tokio::test]
async fn an_open_claim_is_resumed_at_its_cut() {
    let node = Node::new();
    let mut groups = node.fold();
    let due = node.due(&mut groups);
    // In an earlier life this node claimed slots without records, at a later cut.
    let later = node.cluster.cut(11, &[(node.segment, 3)]);
    node.cluster.claim(1, "0-5", FIRST, later);
    node.hand_out(due).await.unwrap();
    assert_eq!(node.flushed(), whole());
    let cut = |slot| node.cluster.now().aggregations()[&0].progress(slot).flushed.unwrap().cut;
    assert_eq!((cut(0), cut(7)), (later, node.end()));
}

#[tokio::test]
async fn a_claim_that_came_first_is_resumed() {
    let node = Node::new();
    let mut groups = node.fold();
    let due = node.due(&mut groups);
    let later = node.cluster.cut(11, &[(node.segment, 3)]);
    node.cluster.before(is_claim, claim(&node, "0-5", FIRST, later));
    node.hand_out(due).await.unwrap();
    assert_eq!(node.flushed(), whole());
    let cut = |slot| node.cluster.now().aggregations()[&0].progress(slot).flushed.unwrap().cut;
    assert_eq!((cut(0), cut(7)), (later, node.end()));
}

/// What the node would claim of slots that have nothing.
fn claim(node: &Node, of: &str, window: Window, cut: u64) -> Command {
    let found = Found { aggregation: 0, window, totals: BTreeMap::new(), at: None };
    let slots = found.claims(&node.cluster.now(), &slots(of));
    Command::Claim { node: NodeId(1), aggregation: 0, window, cut, slots }
}

/// What the node says of the first claims of slots.
fn complete(node: &Node, of: &str) -> Command {
    let facts = node.cluster.now();
    let number = |slot| (slot, SlotNumber { epoch: epoch(&facts, slot), number: 1 });
    let slots = slots(of).iter().map(number).collect();
    Command::Complete { node: NodeId(1), aggregation: 0, slots, keeps: false }
}

#[tokio::test]
async fn a_claim_takes_the_number_that_is_next_by_then() {
    let node = Node::new();
    let mut groups = node.fold();
    let due = node.due(&mut groups);
    let second = node.cluster.cut(21, &[(node.segment, 3)]);
    node.cluster.before(is_claim, claim(&node, "0-5", window(10, 20), second));
    node.cluster.before(is_claim, complete(&node, "0-5"));
    node.hand_out(due).await.unwrap();
    assert_eq!(node.flushed(), whole());
    let number = |slot| node.cluster.now().aggregations()[&0].progress(slot).number();
    assert_eq!((number(0), number(7)), (2, 1));
}

#[tokio::test]
async fn slots_that_were_flushed_by_then_are_done() {
    let node = Node::new();
    node.cluster.before(is_claim, claim(&node, "0-5", FIRST, node.end()));
    node.cluster.before(is_claim, complete(&node, "0-5"));
    assert_eq!(node.flush().await.unwrap(), done(""));
    assert_eq!((node.flushed(), node.kept().0), (whole(), "6-250".to_owned()));
}

#[tokio::test]
async fn a_slot_that_left_and_came_back_is_claimed_and_completed_in_its_new_epoch() {
    for is_now in [is_claim, is_complete] {
        let node = Node::new();
        node.cluster.before(is_now, node.cluster.place_command("7", 2));
        let Command::Place { mut changes } = node.cluster.place_command("7", 1) else { panic!() };
        changes.values_mut().for_each(|change| change.epoch += 1);
        node.cluster.before(is_now, Command::Place { changes });
        assert_eq!(node.flush().await.unwrap(), done(""));
        assert_eq!(node.flushed(), whole());
    }
}

#[tokio::test]
async fn slots_that_left_are_given_up_and_nothing_is_kept_of_them() {
    for is_now in [is_claim, is_complete] {
        let node = Node::new();
        node.cluster.before(is_now, node.cluster.place_command("7", 2));
        assert_eq!(node.flush().await.unwrap(), done("7"));
        assert_eq!(node.flushed(), ("0-6,8-250".to_owned(), 3, 1));
        assert_eq!(node.kept().0, "0-6,8-250");
    }
}

#[tokio::test]
async fn what_a_group_hands_on_of_slots_that_it_gave_up_is_left_out_when_they_are_back() {
    let mut node = Node::new();
    node.appended.push(node.segment, at(11), entry(0, &[(7, 5), (8, 5)]));
    let carried = node.cluster.cut(12, &node.appended.counts());
    let mut groups = node.fold();
    let mut flushes = node.due(&mut groups);
    flushes.extend(node.carry(&mut groups, carried));
    let end = node.cluster.cut(20, &node.appended.counts());
    flushes.extend(node.due(&mut groups));
    let begin = node.cluster.now().aggregations()[&0].carried(7);
    node.cluster.place("7", 2);
    node.cluster.before(is_complete, node.cluster.place_command("7", 1));
    let second = window(10, 20);
    let handed_out = [done("7"), vec![(second, String::new())]].concat();
    assert_eq!(node.hand_out(flushes).await.unwrap(), handed_out);
    let carried = |slot| node.cluster.now().aggregations()[&0].carried(slot);
    assert_eq!((carried(7), carried(8)), (begin, end));
    assert_eq!((node.flushed().0.as_str(), node.fact(second).records), ("0-6,8-250", 1));
    node.flush().await.unwrap();
    assert_eq!((node.flushed(), node.fact(second).records), (whole(), 2));
}

#[tokio::test]
async fn nothing_is_kept_when_all_slots_have_left() {
    let node = Node::new();
    node.cluster.before(is_claim, node.cluster.place_command("0-250", 2));
    assert_eq!(node.flush().await.unwrap(), done("0-250"));
    assert_eq!(node.results().find(0, FIRST.end).unwrap(), []);
}

#[tokio::test]
async fn a_window_that_was_counted_for_all_slots_is_counted_again_for_those_that_stay() {
    let node = Node::in_cluster(Cluster::of(2));
    node.cluster.before(is_claim, node.cluster.place_command("200-255", 2));
    let error = node.flush().await.unwrap_err();
    assert!(matches!(error, FlushError::NotWhole(FIRST)) && error.is_retryable(), "{error}");
    assert_eq!(node.results().find(0, FIRST.end).unwrap(), []);
    node.flush().await.unwrap();
    assert_eq!(node.flushed(), ("0-199".to_owned(), 3, 2));
    assert_eq!(node.kept(), ("0-199".to_owned(), 2, node.fact(FIRST).digest.0));
}

#[tokio::test]
async fn another_result_than_the_claimed_one_halts_the_node() {
    let node = Node::new();
    node.cluster.before(is_claim, claim(&node, "7", FIRST, node.end()));
    let error = node.flush().await.unwrap_err();
    assert!(matches!(error, FlushError::Diverged { slot: 7, .. }), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(node.kept().0, "");
}

#[tokio::test]
async fn a_slot_that_another_has_claimed_on_meanwhile_is_given_up_and_taken_up_there() {
    let mut node = Node::new();
    let mut groups = node.fold();
    let due = node.due(&mut groups);
    node.appended.push(node.segment, at(11), entry(0, &[(8, 5)]));
    let end = node.cluster.cut(20, &node.appended.counts());
    let second = window(10, 20);
    node.cluster.place("7", 2);
    node.cluster.claim(2, "7", second, end);
    node.cluster.place("7", 1);
    assert_eq!(node.hand_out(due).await.unwrap(), done("7"));
    assert_eq!(node.flushed().0, "0-6,8-250");
    let closed = node.flush().await.unwrap();
    assert_eq!(closed.first(), Some(&(second, String::new())), "what is claimed comes first");
    assert_eq!((node.flushed(), node.fact(second).records), (whole(), 1));
}

#[tokio::test]
async fn a_cut_that_the_slots_have_passed_is_not_claimed_at() {
    let node = Node::new();
    let mut groups = node.fold();
    let due = node.due(&mut groups);
    let later = node.cluster.cut(11, &[(node.segment, 3)]);
    let epochs = [(0, epoch(&node.cluster.now(), 0))].into();
    let (id, aggregation) = (NodeId(1), 0);
    let carry = Command::Carry { node: id, aggregation, slots: epochs, cut: later, keeps: false };
    node.cluster.before(is_claim, carry);
    node.hand_out(due).await.unwrap();
    assert_eq!(node.flushed(), whole());
    let cut = |slot| node.cluster.now().aggregations()[&0].progress(slot).flushed.unwrap().cut;
    assert_eq!((cut(0), cut(7)), (later, node.end()));
}

#[tokio::test]
async fn what_is_carried_is_on_disk_before_the_cluster_is_told_and_goes_with_its_window() {
    let mut node = Node::new();
    let missing = node.cluster.open(2);
    node.cluster.apply(Command::BeginSeal { segment: missing, ceiling: at(12) });
    node.appended.push(node.segment, at(11), entry(0, &[(7, 5)]));
    node.appended.push(node.segment, at(25), entry(0, &[(7, 6)]));
    node.flush().await.unwrap();
    let told = |node: &Node, second| node.cluster.cut(second, &[(node.segment, 4)]);
    told(&node, 20);
    let end = told(&node, 30);
    node.cluster.end_at(4, Lost::Command);
    node.flush().await.unwrap_err();
    let kept = node.carried().all().unwrap();
    assert_eq!((kept.len(), kept[0].window), (1, window(10, 20)));
    node.cluster.go_on();
    node.flush().await.unwrap();
    let progress = node.cluster.now().aggregations()[&0].progress(7);
    assert_eq!((progress.carried, progress.through), (end, at(30)));
    let files = || std::fs::read_dir(node.scratch.path()).unwrap().count();
    assert_eq!(files(), 1);

    let counts = [(node.segment, 4), (missing, 0)];
    node.cluster.cut(31, &counts);
    node.flush().await.unwrap();
    assert!(node.carried().all().unwrap().is_empty());
    assert_eq!(files(), 0);
    let fact = node.fact(window(10, 20));
    assert_eq!((fact.records, fact.distinct), (1, 1));
}

#[tokio::test]
async fn a_carry_is_on_disk_and_told_for_every_aggregation() {
    let mut node = Node::new();
    node.cluster.apply(register(&[("by-foo", 10), ("by-day", 86_400)]));
    node.cluster.aware(node.segment);
    node.cluster.cut(11, &[(node.segment, 3)]);
    let both: &[(u32, &[(u8, u64)])] = &[(0, &[(7, 1)]), (1, &[(8, 1)])];
    node.appended.push(node.segment, at(12), packed(EntryWriter::new(None), both));
    let cut = node.cluster.cut(13, &[(node.segment, 4)]);
    node.flush().await.unwrap();
    let flushes = node.carry(&mut node.fold(), cut);
    node.cluster.end_at(3, Lost::Command);
    node.hand_out(flushes).await.unwrap_err();
    assert_eq!(node.carried().all().unwrap().len(), 2);
    node.cluster.go_on();
    node.hand_out(node.carry(&mut node.fold(), cut)).await.unwrap();
    let facts = node.cluster.now();
    let carried = |number: u32| facts.aggregations()[&number].carried(7);
    assert_eq!((carried(0), carried(1), node.carried().all().unwrap().len()), (cut, cut, 2));
    assert_eq!(node.fold().len(), 1);
}

#[tokio::test]
async fn a_slot_is_kept_by_what_is_carried_of_an_open_window_and_not_by_what_is_left_of_another() {
    // The last one is older than what was flushed, and waits for more.
    let cases = [(FIRST, false), (window(20, 30), true), (window(5, 10), true)];
    for (carried, keeps) in cases {
        let mut node = Node::new();
        node.flush().await.unwrap();
        node.appended.push(node.segment, at(15), entry(0, &[(7, 3)]));
        node.cluster.cut(20, &[(node.segment, 4)]);
        let due = node.due(&mut node.fold());
        let state = OpenWindow::new(MemoryLimit(1 << 20), node.scratch.path(), None).carry();
        let state = serde_json::json!({ "state": state.unwrap(), "recent": [] });
        let (slots, next) = (slots("7"), BTreeMap::new());
        let carry = Carry { aggregation: 0, window: carried, slots, next, state };
        node.carried().carries.record(&[carry]).unwrap();
        node.hand_out(due).await.unwrap();
        let progress = node.cluster.now().aggregations()[&0].progress(7);
        assert_eq!((progress.through, progress.keeps), (at(20), keeps));
    }
}

/// Nothing of a window, in some slots.
fn nothing(node: &Node, group: u64, of: &str, window: Window) -> Flush {
    let aggregation = crate::flush::aggregations(&node.cluster.now()).unwrap().remove(0);
    let due = Due { window, cut: node.end(), slots: slots(of) };
    let closing = Closing { aggregation, due, state: None, carries: Vec::new() };
    Flush::Window { group, closing: Box::new(closing) }
}

#[test]
fn what_waits_for_no_busy_slot_is_next_and_passes_nothing_of_its_own_slots() {
    let node = Node::new();
    let waiting = [(1, "0-9"), (2, "10-19"), (3, "5-14"), (4, "20-29"), (5, "10")];
    let waiting = waiting.map(|(group, of)| nothing(&node, group, of, FIRST));
    let mut waiting = VecDeque::from(waiting);
    let mut next = |busy: &str| next(&mut waiting, &slots(busy)).map(|flush| flush.group());
    assert_eq!(next("0-255"), None);
    assert_eq!(next("3"), Some(2));
    assert_eq!(next("3,10-19"), Some(4), "the third waits for the first, and the fifth for it");
    assert_eq!(next("3,10-29"), None);
    assert_eq!([next(""), next(""), next(""), next("")], [Some(1), Some(3), Some(5), None]);
}

/// An owner that keeps nothing of slot 0 until it is let.
struct Slow {
    gate: Arc<tokio::sync::Semaphore>,
}

impl Others for Slow {
    fn keep_results(
        &self,
        _: NodeId,
        _: (u32, Window),
        of: SlotSet,
    ) -> BoxFuture<'_, Result<(), NotKept>> {
        Box::pin(async move {
            if of.contains(0) {
                drop(self.gate.acquire().await.unwrap());
            }
            Ok(())
        })
    }

    fn keep_carry<'a>(&'a self, _: NodeId, _: &'a Carry) -> BoxFuture<'a, Result<(), NotKept>> {
        panic!("nothing is carried");
    }

    fn keep_files<'a>(
        &'a self,
        _: NodeId,
        _: &'a KeptFiles,
        _: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        panic!("there are no files");
    }
}

#[tokio::test(start_paused = true)]
async fn slots_that_wait_for_an_owner_hold_up_their_own_windows_and_no_others() {
    let node = Node::in_cluster(Cluster::of(2));
    node.cluster.own("0-255", &[1, 2]);
    node.cluster.cut(20, &[(node.segment, 3)]);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let others = Arc::new(Slow { gate: Arc::clone(&gate) });
    let (delivery, _commands) = node.delivery();
    let sharing = Sharing::new(NodeId(1), Arc::clone(&node.cluster) as _, others, node.carried());
    let (sender, receiver) = mpsc::unbounded_channel();
    let delivering = tokio::spawn(Delivery { sharing, ..delivery }.run(receiver));
    let second = window(10, 20);
    for (group, of, window) in
        [(0, "0-9", FIRST), (0, "0-9", second), (1, "10-19", FIRST), (1, "10-19", second)]
    {
        sender.send(nothing(&node, group, of, window)).ok().unwrap();
    }
    drop(sender);
    everybody_waits().await;
    let number = |slot| node.cluster.now().aggregations()[&0].progress(slot).number();
    let claimed = |slot| node.cluster.now().aggregations()[&0].progress(slot).claimed;
    assert_eq!((number(0), number(10)), (0, 2));
    assert_eq!(claimed(0).map(|claim| claim.window), Some(FIRST));
    gate.add_permits(1);
    delivering.await.unwrap().unwrap();
    assert_eq!((number(0), number(10)), (2, 2));
}
