use std::collections::BTreeSet;
use std::sync::Mutex;

use futures::FutureExt as _;

use super::*;
use crate::checkpoint::carries::Carries;
use crate::event::time::UnixNanos;
use crate::flush::example::Lost;
use crate::flush::example::node::{Node, Source, everybody_waits};
use crate::flush::example::{Cluster, at, copy_files, entry, slots, window};
use crate::flush::files::tests as rebuilding;
use crate::flush::results::{Results, SlotResults};
use crate::store::{Disk, Store};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };

/// Slots get these owners, who have copied everything, and these are wanted instead.
fn place(cluster: &Cluster, of: &str, owners: &[u64], wanted: &[u64]) {
    let facts = cluster.now();
    let nodes = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
    let change = |slot| {
        let (epoch, copied) = (facts.slots()[&slot].epoch, facts.latest_cut().number);
        (slot, Change { epoch, owners: nodes(owners), copied, wanted: nodes(wanted) })
    };
    cluster.apply(Command::Place { changes: slots(of).iter().map(change).collect() });
}

fn owners(cluster: &Cluster, slot: Slot) -> Vec<u64> {
    cluster.now().slots()[&slot].owners.iter().map(|node| node.0).collect()
}

/// Others who write down what they are sent.
#[derive(Default)]
struct Notes {
    kept: Mutex<Vec<String>>,
    silent: Mutex<BTreeSet<u64>>,
}

impl Notes {
    fn note(&self, node: NodeId, what: String) -> Result<(), NotKept> {
        if self.silent.lock().unwrap().contains(&node.0) {
            return Err(NotKept("nobody is there".to_owned()));
        }
        self.kept.lock().unwrap().push(format!("{node}: {what}"));
        Ok(())
    }

    /// What was sent since the last time.
    fn sent(&self) -> Vec<String> {
        let mut sent = std::mem::take(&mut *self.kept.lock().unwrap());
        sent.sort();
        sent
    }

    fn silence(&self, node: u64) {
        self.silent.lock().unwrap().insert(node);
    }
}

impl Others for Notes {
    fn keep_results(
        &self,
        node: NodeId,
        (_, window): (u32, Window),
        slots: SlotSet,
    ) -> BoxFuture<'_, Result<(), NotKept>> {
        let noted = self.note(node, format!("results of {slots} until {}", window.end.0 / at(1).0));
        async move { noted }.boxed()
    }

    fn keep_carry<'a>(
        &'a self,
        node: NodeId,
        carry: &'a Carry,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        let Carry { window, slots, .. } = carry;
        let noted = self.note(node, format!("carry of {slots} until {}", window.end.0 / at(1).0));
        async move { noted }.boxed()
    }

    fn keep_files<'a>(
        &'a self,
        node: NodeId,
        files: &'a KeptFiles,
        slots: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        let KeptFiles { checkpoints, files, .. } = files.of(&slots);
        let noted = self.note(node, format!("{} files, {checkpoints:?}", files.len()));
        async move { noted }.boxed()
    }
}

struct Setting {
    cluster: Arc<Cluster>,
    notes: Arc<Notes>,
    carried: CarriedWindows,
    sharing: Sharing,
}

/// Node 1 leads all slots, of which nodes 2 and 3 own some.
fn setting() -> Setting {
    let cluster = Cluster::of(4);
    place(&cluster, "0-9", &[1, 2], &[]);
    place(&cluster, "10-19", &[1, 3], &[]);
    let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
    let carried = CarriedWindows { carries: Carries::new(store), scratch: "nowhere".into() };
    let notes = Arc::<Notes>::default();
    let sharing = sharing(&cluster, &notes, &carried);
    Setting { cluster, notes, carried, sharing }
}

fn sharing(cluster: &Arc<Cluster>, notes: &Arc<Notes>, carried: &CarriedWindows) -> Sharing {
    let others = Arc::clone(notes) as _;
    Sharing::new(NodeId(1), Arc::clone(cluster) as _, others, carried.clone())
}

fn carry(of: &str, end: u64) -> Carry {
    let (window, next) = (window(end - 10, end), BTreeMap::from([(1, 5)]));
    Carry { aggregation: 0, window, slots: slots(of), next, state: serde_json::Value::Null }
}

#[tokio::test(start_paused = true)]
async fn each_other_owner_gets_its_own_slots_and_nobody_else_anything() {
    let Setting { notes, sharing, .. } = setting();
    sharing.share(0, Shared::Results(FIRST), &slots("5-30")).await.unwrap();
    assert_eq!(notes.sent(), ["2: results of 5-9 until 10", "3: results of 10-19 until 10"]);
    sharing.share(0, Shared::Results(FIRST), &slots("20-255")).await.unwrap();
    assert!(notes.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_about_to_be_an_owner_gets_what_the_owners_get() {
    let Setting { cluster, notes, sharing, .. } = setting();
    place(&cluster, "0", &[1, 2], &[4, 1]);
    sharing.share(0, Shared::Results(FIRST), &slots("0")).await.unwrap();
    assert_eq!(notes.sent(), ["2: results of 0 until 10", "4: results of 0 until 10"]);
    place(&cluster, "0", &[2, 1], &[]);
    sharing.share(0, Shared::Results(FIRST), &slots("0")).await.unwrap();
    assert!(notes.sent().is_empty(), "another node leads it");
}

#[tokio::test(start_paused = true)]
async fn owners_are_told_which_files_have_changed_and_whoever_fills_is_not() {
    let Setting { cluster, notes, sharing, .. } = setting();
    place(&cluster, "0", &[1, 2], &[4, 1]);
    let key = |slot: u8| FileKey { aggregation: 1, hash: u128::from(slot) << 120, session: 7 };
    let (files, checkpoints) = (vec![key(0), key(0), key(10), key(99)], [(0, 3), (10, 4), (99, 5)]);
    let kept = KeptFiles { aggregation: 1, checkpoints: checkpoints.into(), files };
    sharing.share(1, Shared::Files(&kept), &slots("0-255")).await.unwrap();
    assert_eq!(notes.sent(), ["2: 2 files, {0: 3}", "3: 1 files, {10: 4}"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_in_an_epoch_whose_owners_do_not_have_it() {
    let Setting { cluster, notes, sharing, .. } = setting();
    notes.silence(2);
    let all = slots("0-19");
    let mut shared = Box::pin(sharing.share(0, Shared::Results(FIRST), &all));
    assert!(futures::poll!(&mut shared).is_pending());
    place(&cluster, "0-9", &[1, 4], &[]);
    let facts = shared.await.unwrap();
    assert_eq!(facts.slots()[&0].epoch, cluster.now().slots()[&0].epoch);
    assert_eq!(notes.sent(), ["3: results of 10-19 until 10", "4: results of 0-9 until 10"]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_takes_nothing_is_an_owner_no_longer_after_a_while() {
    let Setting { cluster, notes, sharing, .. } = setting();
    notes.silence(2);
    let began = Instant::now();
    sharing.share(0, Shared::Results(FIRST), &slots("0-19")).await.unwrap();
    assert!((PATIENCE..PATIENCE + Duration::from_secs(1)).contains(&began.elapsed()));
    assert_eq!((owners(&cluster, 0), owners(&cluster, 10)), (vec![1], vec![1, 3]));
    assert_eq!(notes.sent(), ["3: results of 10-19 until 10"]);

    place(&cluster, "0-9", &[1], &[1, 2]);
    let began = Instant::now();
    sharing.share(0, Shared::Results(FIRST), &slots("0-9")).await.unwrap();
    assert!(began.elapsed() < PATIENCE, "nobody counts on it yet");
    assert!(cluster.now().filled_by(NodeId(2)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_to_be_an_owner_again_has_as_long_as_before() {
    let Setting { cluster, notes, sharing, .. } = setting();
    // An owner that takes nothing either, so that the sending goes on meanwhile.
    [2, 4].into_iter().for_each(|node| notes.silence(node));
    let of = slots("0-9");
    let shared = sharing.share(0, Shared::Results(FIRST), &of);
    let placed = async {
        let mut facts = cluster.facts();
        for _ in 0..2 {
            place(&cluster, "0-9", &[1, 2], &[1, 2, 4]);
            let began = Instant::now();
            let is_given_up = |facts: &Arc<Facts>| facts.filled_by(NodeId(4)).is_empty();
            facts.wait_for(is_given_up).await.unwrap();
            assert!(began.elapsed() > PATIENCE_WHILE_FILLING, "{:?}", began.elapsed());
        }
    };
    let (shared, ()) = futures::join!(shared, placed);
    shared.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_carried_is_sent_once_in_a_life_and_to_whoever_comes_later() {
    let Setting { cluster, notes, carried, sharing } = setting();
    carried.carries.record(&[carry("0-255", 20), carry("0-255", 10)]).unwrap();
    let (first, all) = (Shared::Results(FIRST), slots("0-255"));
    sharing.share(0, first, &all).await.unwrap();
    let tables = ["2: results of 0-9 until 10", "3: results of 10-19 until 10"];
    let carries = ["2: carry of 0-9 until 20", "3: carry of 10-19 until 20"];
    assert_eq!(notes.sent(), [carries[0], tables[0], carries[1], tables[1]]);
    sharing.share(0, Shared::Nothing, &all).await.unwrap();
    let first = ["2: carry of 0-9 until 10", "3: carry of 10-19 until 10"];
    assert_eq!(notes.sent(), first, "it is not the window that is completed");
    place(&cluster, "20", &[1, 4], &[]);
    sharing.share(1, Shared::Nothing, &all).await.unwrap();
    assert!(notes.sent().is_empty(), "another aggregation's");
    sharing.share(0, Shared::Nothing, &all).await.unwrap();
    assert_eq!(notes.sent(), ["4: carry of 20 until 10", "4: carry of 20 until 20"]);
    let again = carry("0-9", 20);
    carried.carries.record(&[Carry { next: BTreeMap::from([(1, 6)]), ..again }]).unwrap();
    sharing.share(0, Shared::Nothing, &all).await.unwrap();
    assert_eq!(notes.sent(), ["2: carry of 0-9 until 20"]);
    let sharing = self::sharing(&cluster, &notes, &carried);
    sharing.share(0, Shared::Nothing, &all).await.unwrap();
    assert_eq!(notes.sent().len(), 6);
}

/// Others who keep what they are sent, as nodes do.
struct Mesh {
    cluster: Arc<Cluster>,
    from: Node,
    to: Node,
    /// The slots that were complete when a table came.
    early: Mutex<BTreeSet<Slot>>,
}

impl Others for Mesh {
    fn keep_results(
        &self,
        _: NodeId,
        (aggregation, window): (u32, Window),
        slots: SlotSet,
    ) -> BoxFuture<'_, Result<(), NotKept>> {
        let facts = self.cluster.now();
        let fact = facts.aggregations()[&aggregation].windows.get(&window.start);
        let early = fact.map_or(SlotSet::default(), |fact| slots.difference(&fact.waiting));
        self.early.lock().unwrap().extend(early.iter());
        let [from, to] = [&self.from, &self.to].map(|node| Results::new(Arc::clone(&node.store)));
        let has_some = |found: &SlotResults| !found.slots.intersection(&slots).is_empty();
        for found in from.find(aggregation, window.end).unwrap().into_iter().filter(has_some) {
            let (summary, mut writing) = (found.summary.clone(), to.begin(aggregation, window));
            let of = found.slots.intersection(&slots);
            let chunks = from.chunks(aggregation, window.end, found);
            chunks.for_each(|chunk| writing.push(chunk.unwrap()).unwrap());
            to.finish(writing, of, summary).unwrap();
        }
        async { Ok(()) }.boxed()
    }

    fn keep_carry<'a>(&'a self, _: NodeId, carry: &'a Carry) -> BoxFuture<'a, Result<(), NotKept>> {
        let to = self.to.carried();
        let mut file = to.receive().unwrap();
        let chunks = self.from.carried().send(carry).unwrap();
        chunks.for_each(|chunk| file.write(&chunk.unwrap()).unwrap());
        to.keep(carry.clone(), file, |_, _| false).unwrap();
        async { Ok(()) }.boxed()
    }

    fn keep_files<'a>(
        &'a self,
        _: NodeId,
        files: &'a KeptFiles,
        slots: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        let KeptFiles { aggregation, checkpoints, files } = files.of(&slots);
        let facts = self.cluster.now();
        let last = |slot| facts.aggregations()[&aggregation].progress(slot).number();
        let early = checkpoints.iter().filter(|&(&slot, &number)| last(slot) >= number);
        self.early.lock().unwrap().extend(early.map(|(&slot, _)| slot));
        let [from, to] = [&self.from, &self.to].map(Node::files);
        copy_files(&from, &to, to.ask_some(aggregation, checkpoints, files).unwrap()).unwrap();
        async { Ok(()) }.boxed()
    }
}

impl Mesh {
    fn between(cluster: &Arc<Cluster>, from: &Node, to: &Node) -> Arc<Mesh> {
        let (cluster, from, to) = (Arc::clone(cluster), from.clone(), to.clone());
        Arc::new(Mesh { cluster, from, to, early: Mutex::default() })
    }
}

#[tokio::test(start_paused = true)]
async fn another_owner_goes_on_with_the_files_of_a_dead_primary() {
    let it = rebuilding::Setting::new();
    place(&it.cluster, "0-255", &[1, 2], &[]);
    let second = Node::new(2, &it.cluster, &it.source, u64::MAX);
    let mesh = Mesh::between(&it.cluster, &it.node, &second);
    let mut life = it.node.start_among(Arc::clone(&mesh) as _);
    it.append(3, ("a", 1), "one ");
    it.append(3, ("a", 3), "three ");
    it.cut(4).await;
    assert_eq!(it.kept("a"), Some((4, 1)));
    assert_eq!(*mesh.early.lock().unwrap(), BTreeSet::new(), "complete before it was kept");
    it.append(5, ("a", 2), "two ");
    it.append(5, ("b", 1), "x");
    it.cut(6).await;
    assert!(life.failed().await.is_none());
    drop(life);
    let on = rebuilding::Setting { node: second, ..it };
    let read = (on.read("a"), on.read("b"));
    assert_eq!(read, ("one two three ".to_owned(), "x".to_owned()), "it never folded them");
    place(&on.cluster, "0-255", &[2], &[]);
    on.append(7, ("a", 4), "four");
    on.append(7, ("a", 2), "two ");
    let mut life = on.node.start();
    on.cut(8).await;
    assert!(life.failed().await.is_none());
    assert_eq!((on.read("a"), on.kept("a")), ("one two three four".to_owned(), Some((18, 0))));
    assert_eq!(on.flushed(), (6, 5));
}

#[tokio::test(start_paused = true)]
async fn another_owner_resumes_what_a_dead_primary_has_claimed_of_files() {
    // The claim, and the completion, of which nobody hears.
    for (count, lost) in [(1, Lost::Answer), (2, Lost::Command), (2, Lost::Answer)] {
        let it = rebuilding::Setting::new();
        place(&it.cluster, "0-255", &[1, 2], &[]);
        let second = Node::new(2, &it.cluster, &it.source, u64::MAX);
        it.cluster.end_at(count, lost);
        let life = it.node.start_among(Mesh::between(&it.cluster, &it.node, &second));
        it.append(3, ("a", 2), "two");
        it.append(3, ("a", 1), "one ");
        it.append(3, ("b", 2), "behind a gap");
        it.cut(4).await;
        drop(life);
        it.cluster.go_on();
        place(&it.cluster, "0-255", &[2], &[]);
        let on = rebuilding::Setting { node: second, ..it };
        let mut life = on.node.start();
        on.append(5, ("b", 1), "x ");
        on.cut(5).await;
        on.cut(6).await;
        assert!(life.failed().await.is_none(), "{count} {lost:?}");
        let read = (on.read("a"), on.read("b"));
        assert_eq!(read, ("one two".to_owned(), "x behind a gap".to_owned()), "{count} {lost:?}");
        assert_eq!((on.flushed(), on.kept("b")), ((4, 4), Some((14, 0))), "{count} {lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_owner_folds_on_from_what_a_dead_primary_carried_and_has_its_results() {
    let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
    place(&cluster, "0-255", &[1, 2], &[]);
    // All that is open is carried at every cut.
    let node = |id| Node::new(id, &cluster, &source, if id == 1 { 0 } else { u64::MAX });
    let (first, second) = (node(1), node(2));
    let mesh = Mesh::between(&cluster, &first, &second);
    let segment = cluster.open(1);
    let append = |second, records: &[(u8, u64)]| {
        source.appended.send_modify(|it| it.push(segment, at(second), entry(0, records)));
    };
    let mut life = first.start_among(Arc::clone(&mesh) as _);
    append(5, &[(7, 1), (200, 1)]);
    everybody_waits().await;
    cluster.cut(10, &[(segment, 1)]);
    everybody_waits().await;
    let facts = cluster.now();
    assert!(facts.aggregations()[&0].windows[&FIRST.start].waiting.is_empty());
    assert_eq!(*mesh.early.lock().unwrap(), BTreeSet::new(), "complete before it was kept");
    let kept = Results::new(Arc::clone(&second.store)).find(0, FIRST.end).unwrap();
    assert_eq!(kept[0].slots, slots("0-255"));

    append(12, &[(7, 2), (7, 3)]);
    everybody_waits().await;
    let carried = cluster.cut(13, &[(segment, 2)]);
    everybody_waits().await;
    assert_eq!(cluster.now().aggregations()[&0].carried(7), carried);
    assert!(life.failed().await.is_none());
    drop(life);
    // Of the journal there is nothing left that was carried.
    place(&cluster, "0-255", &[2], &[]);
    append(15, &[(7, 3), (7, 4)]);
    let mut life = second.start();
    everybody_waits().await;
    cluster.cut(20, &[(segment, 3)]);
    everybody_waits().await;
    assert!(life.failed().await.is_none());
    assert_eq!(source.followed().last().unwrap().1, 2, "what was carried is not folded again");
    let facts = cluster.now();
    let fact = &facts.aggregations()[&0].windows[&at(10)];
    assert!(fact.waiting.is_empty());
    assert_eq!((fact.records, fact.distinct), (4, 3));
    assert!(second.carried().all().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(&second.carried().scratch).unwrap().count(), 0);
}
