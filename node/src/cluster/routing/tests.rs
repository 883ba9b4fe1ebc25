use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt as _;
use futures::future::BoxFuture;

use super::*;
use crate::checkpoint::facts::command::Command;
use crate::cluster::example::mesh::{Lender, Mesh};
use crate::cluster::peers::{
    Asked, Batches, CarriedParts, Chunks, Declined, FileParts, FilePiece, Holdings, Kept, Listed,
    Room, Told, Wanted,
};
use crate::event::entry::Section;
use crate::event::entry::distinct::Content;
use crate::event::fingerprint::slot_of;
use crate::event::time::{Clock, UnixNanos};
use crate::flush::example::{Appended, Cluster, at, entry, framed, slots};
use crate::flush::feed::Consensus as _;
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;
use crate::journal::copies::Copies;
use crate::journal::{Events, Opening, Replay, Stamped};
use crate::store::{Disk, Store};

/// A node that gives out two entries at a time, and breaks off after so many batches.
struct Holder {
    appended: watch::Receiver<Appended>,
    /// How many batches it gives out in all streams before one breaks off, and so on.
    breaks_after: AtomicUsize,
    /// The entries of a segment that is sealed.
    end: Option<u64>,
    asked: Mutex<Vec<u64>>,
}

impl Holder {
    fn new(
        appended: &watch::Sender<Appended>,
        breaks_after: usize,
        end: Option<u64>,
    ) -> Arc<Holder> {
        let (appended, breaks_after) = (appended.subscribe(), AtomicUsize::new(breaks_after));
        Arc::new(Holder { appended, breaks_after, end, asked: Mutex::default() })
    }
}

/// It has nothing else.
fn nothing<T>() -> Result<T, Declined> {
    Err(Declined::NotNow("there is nothing".to_owned()))
}

impl Holdings for Arc<Holder> {
    fn stamped(
        &self,
        _: UnixNanos,
        _: UnixNanos,
    ) -> BoxFuture<'_, Result<BTreeMap<SegmentId, Stamped>, Declined>> {
        Box::pin(async { nothing() })
    }

    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined> {
        self.asked.lock().unwrap().push(from);
        let holder = Arc::clone(self);
        let batches = stream::unfold(Some(from), move |next| {
            let holder = Arc::clone(&holder);
            async move {
                let next = next?;
                if holder.end.is_some_and(|end| end <= next) {
                    return None;
                }
                let broken = || Err(Declined::NotNow("the node is stopping".to_owned()));
                if holder.breaks_after.load(Ordering::Relaxed) == 0 {
                    holder.breaks_after.store(usize::MAX, Ordering::Relaxed);
                    return Some((broken(), None));
                }
                holder.breaks_after.fetch_sub(1, Ordering::Relaxed);
                let mut appended = holder.appended.clone();
                let has_more = |all: &Appended| all.batch(segment, next, 2, &slots).next > next;
                drop(appended.wait_for(has_more).await.ok()?);
                let batch = appended.borrow().batch(segment, next, 2, &slots);
                let next = batch.next;
                Some((Ok(batch), Some(next)))
            }
        });
        Ok(batches.boxed())
    }

    fn begin_copy(&self, _: SegmentId) -> Result<(), Declined> {
        nothing()
    }

    fn copy(&self, _: SegmentId, _: u64, _: Vec<Bytes>) -> BoxFuture<'_, Result<u64, Declined>> {
        Box::pin(async { nothing() })
    }

    fn fence(&self, _: SegmentId) -> BoxFuture<'_, Result<Option<Stamped>, Declined>> {
        Box::pin(async { nothing() })
    }

    fn tables(&self, _: u32, _: UnixNanos) -> Result<Vec<Listed>, Declined> {
        nothing()
    }

    fn results(&self, _: u32, _: UnixNanos, _: u64, _: SlotSet) -> Result<Chunks, Declined> {
        nothing()
    }

    fn keep(&self, _: NodeId, _: Kept, _: Chunks) -> BoxFuture<'_, Result<(), Declined>> {
        Box::pin(async { nothing() })
    }

    fn carried(&self, _: SlotSet) -> Result<CarriedParts, Declined> {
        nothing()
    }

    fn files(&self, _: Asked) -> Result<FileParts, Declined> {
        nothing()
    }

    fn list(&self, _: Wanted) -> BoxFuture<'_, Result<Told, Declined>> {
        Box::pin(async { nothing() })
    }

    fn read(&self, _: FilePiece) -> Result<Chunks, Declined> {
        nothing()
    }

    fn decided(&self) -> Arc<Decided> {
        Arc::default()
    }

    fn gaps(&self) -> Arc<Gaps> {
        Arc::default()
    }

    fn room(&self) -> BoxFuture<'_, Result<Room, Declined>> {
        Box::pin(async { Ok(Room::default()) })
    }

    fn live(&self, _: u32) -> BoxFuture<'_, Result<Bytes, Declined>> {
        Box::pin(async { nothing() })
    }
}

/// Node 1, which reaches the others.
struct Setting {
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    appended: watch::Sender<Appended>,
    routing: Routing,
}

impl Setting {
    async fn new() -> Setting {
        let (cluster, mesh) = (Cluster::of(3), Arc::new(Mesh::default()));
        let own = cluster.open(1);
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let (replay, clock) = (Replay::default(), Clock::new(|| at(5)));
        let copies = Copies::open(Arc::clone(&store)).unwrap();
        let (journal, writer) = Journal::new(store, &replay, clock, Box::new(|_| ()));
        tokio::spawn(writer.run_as_task());
        let (floor, lease, mirrors) = (at(1), at(11), Vec::new());
        journal.open(Opening { segment: own, floor, lease, mirrors }).await.unwrap();
        let (members, facts) = (mesh.member(), cluster.facts());
        let routing = Routing { node: NodeId(1), journal, copies, members, facts };
        Setting { cluster, mesh, appended: watch::Sender::default(), routing }
    }

    fn append(&self, segment: SegmentId, records: &[(u8, u64)]) {
        self.appended.send_modify(|all| all.push(segment, at(5), entry(0, records)));
    }

    fn lend(&self, number: u8, holder: &Arc<Holder>) -> Lender {
        self.mesh.lend(number, Arc::new(Arc::clone(holder)))
    }

    fn follow(&self, segment: SegmentId, index: u64, of: &str) -> Followed {
        self.routing.follow(Position { segment, index }, slots(of))
    }
}

/// The entries with the slots of their records.
fn said(batches: &[Batch]) -> Vec<(u64, Vec<u8>)> {
    let parts = batches.iter().flat_map(|batch| &batch.parts);
    let slots = parts.map(|part| {
        let section = Entry::parse(&part.entry).unwrap().sections().next().unwrap().unwrap();
        let (_, Section::DistinctLogs(section)) = section else { panic!("a chunk") };
        let Content::Keys(keys) = section.content() else { panic!("no keys") };
        (part.index, (0..keys.len()).map(|at| slot_of(keys.key(at))).collect())
    });
    slots.collect()
}

/// Reads until all before `next` came, and returns every batch.
async fn read_to(followed: &mut Followed, next: u64) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    while batches.last().is_none_or(|batch| batch.next < next) {
        batches.push(followed.next().await.unwrap().unwrap());
    }
    batches
}

#[tokio::test]
async fn of_its_own_entries_a_node_gets_what_belongs_to_the_slots() {
    let it = Setting::new().await;
    let (journal, own) = (&it.routing.journal, it.routing.journal.segment());
    for records in [&[(7, 1), (200, 1)][..], &[(201, 2)], &[(7, 3)]] {
        journal.append(framed(0, records), Events::of_records(1), Box::new(())).await.unwrap();
    }
    let batches = read_to(&mut it.follow(own, 0, "0-99"), 3).await;
    assert_eq!(said(&batches), [(0, vec![7]), (2, vec![7])]);
    assert!(batches.iter().flat_map(|batch| &batch.parts).all(|part| part.stamp == at(5)));
    let batches = read_to(&mut it.follow(own, 1, "0-255"), 3).await;
    assert_eq!(said(&batches), [(1, vec![201]), (2, vec![7])]);
}

#[tokio::test]
async fn only_entries_of_the_open_segment_are_released_when_they_are_folded() {
    let it = Setting::new().await;
    let held = Arc::new(());
    let own = it.routing.journal.segment();
    let (frame, event) = (framed(0, &[(7, 1)]), Events::of_records(1));
    let append = it.routing.journal.append(frame, event, Box::new(Arc::clone(&held)));
    append.await.unwrap();
    it.routing.folded(own + 1, u64::MAX);
    assert_eq!(Arc::strong_count(&held), 2);
    it.routing.folded(own, 1);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn entries_of_others_come_as_they_are_appended_until_the_segment_ends() {
    let it = Setting::new().await;
    let segment = it.cluster.open(2);
    let holder = Holder::new(&it.appended, usize::MAX, Some(5));
    let _lender = it.lend(2, &holder);
    let mut followed = it.follow(segment, 1, "0-99");
    for body in 0..3 {
        it.append(segment, &[(7, body), (200, body)]);
    }
    let first = read_to(&mut followed, 3).await;
    assert_eq!(said(&first), [(1, vec![7]), (2, vec![7])]);
    it.append(segment, &[(200, 9)]);
    it.append(segment, &[(8, 9)]);
    it.cluster.seal(segment, 5, 9);
    let rest: Vec<_> = followed.try_collect().await.unwrap();
    assert_eq!(said(&rest), [(4, vec![8])]);
    assert_eq!(*holder.asked.lock().unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_resumed_without_a_gap_or_a_repetition() {
    for breaks_after in 0..3 {
        let it = Setting::new().await;
        let segment = it.cluster.open(2);
        (0..6).for_each(|body| it.append(segment, &[(7, body)]));
        it.cluster.seal(segment, 6, 9);
        let holder = Holder::new(&it.appended, breaks_after, Some(6));
        let _lender = it.lend(2, &holder);
        let batches: Vec<_> = it.follow(segment, 0, "0-99").try_collect().await.unwrap();
        let indices: Vec<_> = said(&batches).iter().map(|part| part.0).collect();
        assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
        assert_eq!(*holder.asked.lock().unwrap(), [0, 2 * breaks_after as u64]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_before_the_segment_does_is_asked_for_again_after_a_rest() {
    let it = Setting::new().await;
    let segment = it.cluster.open(2);
    it.append(segment, &[(7, 1)]);
    // Its journal is closed: there is no more, though the segment is not sealed.
    let holder = Holder::new(&it.appended, usize::MAX, Some(1));
    let _lender = it.lend(2, &holder);
    let mut followed = it.follow(segment, 0, "0-99");
    read_to(&mut followed, 1).await;
    let waits = tokio::time::timeout(10 * AGAIN_AFTER, followed.next());
    assert!(waits.await.is_err(), "there is nothing more");
    let asked = holder.asked.lock().unwrap().len();
    assert!((3..=11).contains(&asked), "asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn whoever_else_has_a_segment_is_asked_when_one_does_not_answer() {
    let it = Setting::new().await;
    let segment = it.cluster.open(2);
    it.append(segment, &[(7, 1)]);
    it.cluster.seal(segment, 1, 9);
    it.cluster.apply(Command::Hold { segment, node: NodeId(3) });
    let holder = Holder::new(&it.appended, usize::MAX, Some(1));
    let _lender = it.lend(3, &holder);
    let batches: Vec<_> = it.follow(segment, 0, "0-99").try_collect().await.unwrap();
    assert_eq!(said(&batches), [(0, vec![7])]);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_nobody_needs_any_more_ends() {
    let it = Setting::new().await;
    let segment = it.cluster.open(2);
    let own = it.routing.journal.segment();
    let followed = it.follow(segment, 0, "0-99");
    it.cluster.seal(segment, 0, 5);
    it.cluster.cut(10, &[(own, 0)]);
    assert!(!it.cluster.now().segments().contains_key(&segment));
    assert_eq!(followed.try_collect::<Vec<_>>().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_is_lost_is_passed_to_its_end() {
    let it = Setting::new().await;
    let segment = it.cluster.open(2);
    it.cluster.cut(5, &[(segment, 4)]);
    it.cluster.apply(Command::BeginSeal { segment, ceiling: at(6) });
    it.cluster.cut(7, &[]);
    let followed = it.follow(segment, 2, "0-99");
    it.cluster.apply(Command::Forget { node: NodeId(2) });
    let batches: Vec<_> = followed.try_collect().await.unwrap();
    assert_eq!(batches, [Batch { next: 4, parts: Vec::new() }]);
}
