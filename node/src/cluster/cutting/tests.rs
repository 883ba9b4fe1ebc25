use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::ready;
use tokio::time::Instant;

use super::*;
use crate::cluster::clocks::Offset;
use crate::flush::example::{Cluster, Lost, at, extent, register};

/// The term in which this node leads.
const TERM: Term = 3;

/// Members that say what they have stamped, and how long they were given.
#[derive(Default)]
struct Members {
    /// By node and segment, the seconds in which it has stamped an entry each.
    stamps: Mutex<BTreeMap<(u64, SegmentId), Vec<u64>>>,
    silent: Mutex<BTreeSet<u64>>,
    /// Of these, nobody listens where they are reached.
    gone: Mutex<BTreeSet<u64>>,
    /// By node and segment, what a copy has that takes no more.
    copies: Mutex<BTreeMap<(u64, SegmentId), Stamped>>,
    asked: Mutex<Vec<(u64, UnixNanos, Duration)>>,
    /// Until which second each was last allowed to stamp.
    leases: Mutex<BTreeMap<u64, u64>>,
    /// What happens while they are asked.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Members {
    fn stamp(&self, node: u64, segment: SegmentId, seconds: &[u64]) {
        self.stamps.lock().unwrap().insert((node, segment), seconds.to_vec());
    }

    fn silence(&self, node: u64, is_silent: bool) {
        let mut silent = self.silent.lock().unwrap();
        if is_silent {
            silent.insert(node)
        } else {
            silent.remove(&node)
        };
    }

    /// Who was asked since the last time, for which second.
    fn asked(&self) -> Vec<(u64, u64)> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.into_iter().map(|(node, time, _)| (node, time.0 / SECOND)).collect()
    }
}

impl AskStamped for Members {
    fn stamped<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        time: UnixNanos,
        lease: UnixNanos,
        within: Duration,
    ) -> BoxFuture<'a, Result<BTreeMap<SegmentId, Stamped>, Unanswered>> {
        self.leases.lock().unwrap().insert(node.0, lease.0 / SECOND);
        assert_eq!(address, format!("node-{node}:9465"));
        self.asked.lock().unwrap().push((node.0, time, within));
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        if self.silent.lock().unwrap().contains(&node.0) {
            let is_gone = self.gone.lock().unwrap().contains(&node.0);
            return ready(Err(Unanswered { reason: "it is silent".to_owned(), is_gone })).boxed();
        }
        let stamps = self.stamps.lock().unwrap();
        let own = stamps.iter().filter(|((of, _), _)| *of == node.0);
        let told = own.map(|((_, segment), seconds)| {
            let before = seconds.iter().filter(|&&second| at(second) < time).count() as u64;
            let last = seconds.last().map_or(UnixNanos(0), |&second| at(second));
            (*segment, Stamped { before: extent(before), last })
        });
        ready(Ok(told.collect())).boxed()
    }
}

impl AskCopies for Members {
    fn fence<'a>(
        &'a self,
        node: NodeId,
        _: &'a str,
        segment: SegmentId,
    ) -> BoxFuture<'a, Option<Stamped>> {
        ready(self.copies.lock().unwrap().get(&(node.0, segment)).copied()).boxed()
    }
}

/// A node that leads in a term, if any; and perhaps not any more.
struct Leader {
    cluster: Arc<Cluster>,
    term: Mutex<Option<Term>>,
}

impl Consensus for Leader {
    fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.cluster.facts()
    }

    fn propose(&self, _: Command) -> BoxFuture<'_, Result<Applied, Disagreement>> {
        panic!("another leader may have led since");
    }
}

impl Lead for Leader {
    fn confirm(&self) -> BoxFuture<'_, Result<Option<Term>, Disagreement>> {
        ready(Ok(*self.term.lock().unwrap())).boxed()
    }

    fn propose_in(
        &self,
        term: Term,
        command: Command,
    ) -> BoxFuture<'_, Result<Option<Applied>, Disagreement>> {
        let leads = *self.term.lock().unwrap() == Some(term);
        async move {
            if !leads {
                return Ok(None);
            }
            self.cluster.propose(command).await.map(Some)
        }
        .boxed()
    }
}

struct Setting {
    cluster: Arc<Cluster>,
    leader: Arc<Leader>,
    members: Arc<Members>,
    cutter: Cutter,
    clocks: Clocks,
    told: watch::Receiver<Silent>,
}

impl Setting {
    fn of(nodes: u64) -> Setting {
        let (cluster, members) = (Cluster::of(nodes), Arc::new(Members::default()));
        let (telling, told) = watch::channel(<_>::default());
        let leader = Leader { cluster: Arc::clone(&cluster), term: Mutex::new(Some(TERM)) };
        let (leader, copies) = (Arc::new(leader), Arc::clone(&members) as _);
        let clocks = Clocks::new(Duration::from_secs(1));
        let (lead, asked) = (Arc::clone(&leader) as _, Arc::clone(&members) as _);
        let cutter = Cutter::new(lead, asked, copies, telling, clocks.clone());
        Setting { cluster, leader, members, cutter, clocks, told }
    }

    async fn cut(&mut self, second: u64) {
        self.cutter.cut(UnixNanos(at(second).0 + 7)).await.unwrap();
    }

    fn leads_in(&self, term: Option<Term>) {
        *self.leader.term.lock().unwrap() = term;
    }

    /// Whether a segment is being sealed, and before when all of it is stamped then.
    fn sealing(&self, segment: SegmentId) -> Option<u64> {
        let facts = self.cluster.now();
        let segment = &facts.segments()[&segment];
        (segment.state != SegmentState::Open).then_some(segment.ceiling.0 / SECOND)
    }

    /// The seconds of all cuts but the first, and what each counts of a segment.
    fn cuts(&self, segment: SegmentId) -> Vec<(u64, u64)> {
        let facts = self.cluster.now();
        let cuts = facts.cuts().filter(|cut| cut.number > 1);
        cuts.map(|cut| (cut.time.0 / SECOND, cut.count(segment).entries)).collect()
    }

    fn missing(&self) -> Vec<SegmentId> {
        self.cluster.now().latest_cut().missing.keys().copied().collect()
    }
}

#[tokio::test]
async fn a_member_whose_clock_is_off_gets_no_longer_lease() {
    let mut it = Setting::of(3);
    let leases = |it: &Setting| it.members.leases.lock().unwrap().clone();
    it.cut(5).await;
    assert_eq!(leases(&it), [(1, 15), (2, 15), (3, 15)].into());
    let offset = |told| Offset::measured(at(10), at(told), at(10));
    it.clocks.note(TERM, [(NodeId(2), offset(10)), (NodeId(3), offset(14))].into());
    it.cut(6).await;
    assert_eq!(leases(&it), [(1, 16), (2, 16), (3, 15)].into());
    it.clocks.note(TERM, [(NodeId(2), offset(10)), (NodeId(3), offset(10))].into());
    it.cut(7).await;
    assert_eq!(leases(&it), [(1, 17), (2, 17), (3, 17)].into());
}

#[tokio::test]
async fn a_cut_is_made_once_at_each_whole_second() {
    let mut it = Setting::of(2);
    let (one, other) = (it.cluster.open(1), it.cluster.open(2));
    it.members.stamp(1, one, &[3, 4, 5]);
    it.members.stamp(2, other, &[4]);
    it.cut(5).await;
    it.cut(5).await;
    it.cut(4).await;
    assert_eq!((it.cuts(one), it.cuts(other)), (vec![(5, 2)], vec![(5, 1)]));
    assert_eq!(it.members.asked(), [(1, 5), (2, 5)]);
    assert!(it.missing().is_empty());
}

#[tokio::test]
async fn after_a_gap_each_window_that_something_may_be_in_has_a_cut_at_its_end() {
    let mut it = Setting::of(1);
    let segment = it.cluster.open(1);
    it.members.stamp(1, segment, &[5, 17, 31, 47]);
    it.cut(47).await;
    assert_eq!(it.cuts(segment), [(10, 1), (20, 2), (30, 2), (40, 3), (47, 3)]);
    it.cut(92).await;
    let ends: Vec<_> = it.cuts(segment)[5..].iter().map(|cut| cut.0).collect();
    assert_eq!(ends, [50, 92], "no later window has anything");
}

#[tokio::test]
async fn a_window_whose_end_is_the_time_itself_has_one_cut() {
    let mut it = Setting::of(1);
    let segment = it.cluster.open(1);
    it.members.stamp(1, segment, &[5, 17]);
    it.cut(20).await;
    assert_eq!(it.cuts(segment), [(10, 1), (20, 2)]);
}

#[tokio::test]
async fn no_window_of_a_time_without_entries_has_a_cut() {
    let mut it = Setting::of(1);
    let segment = it.cluster.open(1);
    it.members.stamp(1, segment, &[15]);
    it.cut(20).await;
    it.cut(50).await;
    assert_eq!(it.cuts(segment)[1..], [(20, 1), (50, 1)]);
}

#[tokio::test]
async fn what_a_sealed_segment_has_counts_for_the_windows_too() {
    let mut it = Setting::of(1);
    let sealed = it.cluster.open(1);
    it.cluster.seal(sealed, 3, 18);
    it.cut(47).await;
    assert_eq!(it.cuts(sealed), [(10, 0), (20, 3), (47, 3)]);
    assert!(it.missing().is_empty());
}

#[tokio::test]
async fn a_sealed_segment_is_told_of_by_whoever_has_it_until_all_of_it_is_below_the_cut() {
    let mut it = Setting::of(2);
    let sealed = it.cluster.open(1);
    it.cluster.seal(sealed, 3, 8);
    it.cluster.apply(Command::Hold { segment: sealed, node: NodeId(2) });
    it.members.silence(1, true);
    it.members.stamp(2, sealed, &[3, 5, 7]);
    it.cut(6).await;
    it.cut(8).await;
    assert_eq!(it.cuts(sealed), [(6, 2), (8, 3)]);
    assert_eq!(it.members.asked(), [(1, 6), (2, 6), (1, 8), (2, 8)], "whether they are there");
}

#[tokio::test]
async fn whoever_is_silent_is_waited_for_once() {
    let mut it = Setting::of(2);
    let (one, other) = (it.cluster.open(1), it.cluster.open(2));
    it.members.stamp(1, one, &[3]);
    it.members.stamp(2, other, &[3]);
    it.members.silence(2, true);
    it.cut(5).await;
    it.cut(6).await;
    it.members.silence(2, false);
    it.cut(7).await;
    assert_eq!(it.missing(), [0; 0]);
    it.cut(8).await;
    let asked = it.members.asked.lock().unwrap();
    let waits: Vec<_> = asked.iter().filter(|(node, ..)| *node == 2).map(|ask| ask.2).collect();
    let short = ANSWER_WAIT / 10;
    assert_eq!(waits, [ANSWER_WAIT, short, short, ANSWER_WAIT]);
    assert!(asked.iter().all(|(node, _, wait)| *node == 2 || *wait == ANSWER_WAIT));
    assert_eq!(it.cuts(other), [(5, 0), (6, 0), (7, 1), (8, 1)]);
}

#[tokio::test]
async fn the_segment_of_a_silent_member_ends_where_its_shortest_copy_ends() {
    let mut it = Setting::of(4);
    let (writer, copies) = (NodeId(2), [2, 3, 4].map(NodeId).to_vec());
    it.cluster.apply(Command::OpenSegment { writer, copies });
    it.members.stamp(2, 1, &[3, 4]);
    it.cut(5).await;
    it.members.silence(2, true);
    let reached = |entries| Stamped { before: extent(entries), last: at(5) };
    it.members.copies.lock().unwrap().extend([((3, 1), reached(5)), ((4, 1), reached(4))]);
    for second in 6..=10 {
        it.cut(second).await;
    }
    let facts = it.cluster.now();
    let sealed = &facts.segments()[&1];
    assert_eq!(sealed.end(), Some(extent(4)));
    assert_eq!(sealed.nodes().collect::<Vec<_>>(), [NodeId(3), NodeId(4)]);
    assert_eq!(it.told.borrow().1, [NodeId(2)].into(), "it is silent, though it writes nothing");
}

#[tokio::test]
async fn the_segment_of_a_member_that_is_silent_for_too_long_is_sealed_behind_its_lease() {
    let mut it = Setting::of(2);
    let (one, other) = (it.cluster.open(1), it.cluster.open(2));
    it.cut(5).await;
    it.members.silence(2, true);
    it.cut(9).await;
    assert_eq!((it.sealing(other), &it.told.borrow().1), (None, &BTreeSet::new()));
    it.cut(10).await;
    assert_eq!((it.sealing(one), it.sealing(other)), (None, Some(20)));
    assert_eq!(*it.told.borrow(), (TERM, [NodeId(2)].into()));
    it.members.silence(2, false);
    it.cut(11).await;
    assert_eq!((it.sealing(other), &it.told.borrow().1), (Some(20), &BTreeSet::new()));
}

#[tokio::test(start_paused = true)]
async fn the_segment_of_a_member_that_is_gone_is_sealed_sooner_and_behind_the_same_lease() {
    let mut it = Setting::of(2);
    let segment = it.cluster.open(2);
    it.cut(5).await;
    it.members.silence(2, true);
    it.members.gone.lock().unwrap().insert(2);
    let began = Instant::now();
    it.cut(6).await;
    assert_eq!(began.elapsed(), ABSENCE, "it was asked twice");
    assert_eq!(it.sealing(segment), Some(16), "it was offered that much");
    assert_eq!(*it.told.borrow(), (TERM, [NodeId(2)].into()));
    it.cut(7).await;
    assert_eq!(began.elapsed(), ABSENCE, "nobody waits for it any more");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_begins_asks_who_is_there_though_there_is_nothing_to_cut() {
    let mut it = Setting::of(2);
    let segment = it.cluster.open(2);
    it.cut(5).await;
    it.members.asked();
    it.cut(5).await;
    assert_eq!(it.members.asked(), []);
    it.members.silence(2, true);
    it.members.gone.lock().unwrap().insert(2);
    it.leads_in(Some(TERM + 1));
    let (began, cuts) = (Instant::now(), it.cuts(segment));
    it.cut(5).await;
    assert_eq!(began.elapsed(), ABSENCE, "it was asked twice");
    assert_eq!((it.sealing(segment), it.cuts(segment)), (Some(16), cuts));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_back_when_it_is_asked_again_is_not_silent() {
    let mut it = Setting::of(2);
    let segment = it.cluster.open(2);
    it.cut(5).await;
    it.members.silence(2, true);
    it.members.gone.lock().unwrap().insert(2);
    let members = Arc::clone(&it.members);
    tokio::spawn(async move {
        sleep(ABSENCE / 2).await;
        members.silence(2, false);
    });
    it.cut(6).await;
    it.cut(7).await;
    assert_eq!((it.sealing(segment), &it.told.borrow().1), (None, &BTreeSet::new()));
}

#[tokio::test]
async fn a_leader_gives_everybody_time_to_answer_from_when_it_began_to_lead() {
    let mut it = Setting::of(2);
    let segment = it.cluster.open(2);
    it.members.silence(2, true);
    it.cut(5).await;
    it.leads_in(Some(TERM + 1));
    it.cutter.cut(at(30)).await.unwrap();
    it.cutter.cut(at(34)).await.unwrap();
    assert_eq!(it.sealing(segment), None);
    it.cutter.cut(at(35)).await.unwrap();
    assert_eq!(it.sealing(segment), Some(45));
}

#[tokio::test]
async fn what_is_told_of_the_segments_of_others_does_not_count() {
    let mut it = Setting::of(2);
    let (one, other) = (it.cluster.open(1), it.cluster.open(2));
    it.members.stamp(1, one, &[3]);
    it.members.stamp(2, one, &[2, 3, 4]);
    it.members.stamp(2, other, &[3]);
    it.members.stamp(2, 9, &[3]);
    it.cut(5).await;
    assert_eq!((it.cuts(one), it.cuts(other)), (vec![(5, 1)], vec![(5, 1)]));
}

#[tokio::test]
async fn of_a_segment_that_is_sealed_meanwhile_more_is_known_the_next_time() {
    let mut it = Setting::of(1);
    let segment = it.cluster.open(1);
    it.members.stamp(1, segment, &[3, 4]);
    let cluster = Arc::clone(&it.cluster);
    let seals = move || cluster.seal(segment, 1, 4);
    *it.members.meanwhile.lock().unwrap() = Some(Box::new(seals));
    it.cut(5).await;
    assert_eq!(it.cuts(segment), [(5, 1)], "the end that was agreed on");
}

#[tokio::test]
async fn a_segment_that_is_opened_meanwhile_is_missing_until_the_next_cut() {
    let mut it = Setting::of(2);
    let one = it.cluster.open(1);
    it.members.stamp(1, one, &[3]);
    it.members.stamp(2, one + 1, &[]);
    let cluster = Arc::clone(&it.cluster);
    let opens = move || _ = cluster.open(2);
    *it.members.meanwhile.lock().unwrap() = Some(Box::new(opens));
    it.cut(5).await;
    assert_eq!(it.missing(), [one + 1]);
    it.cut(6).await;
    assert_eq!(it.missing(), [0; 0]);
}

#[tokio::test]
async fn a_leader_that_was_faster_is_no_failure() {
    let mut it = Setting::of(1);
    let segment = it.cluster.open(1);
    it.members.stamp(1, segment, &[3]);
    let cluster = Arc::clone(&it.cluster);
    let cuts = move || _ = cluster.cut(6, &[(segment, 1)]);
    *it.members.meanwhile.lock().unwrap() = Some(Box::new(cuts));
    it.cut(5).await;
    assert_eq!(it.cuts(segment), [(6, 1)]);
}

#[tokio::test]
async fn a_node_that_cannot_tell_whether_it_leads_allows_nothing() {
    let mut it = Setting::of(2);
    let segment = it.cluster.open(2);
    it.leads_in(None);
    it.cut(5).await;
    assert_eq!((it.members.asked(), it.cuts(segment)), (vec![], vec![]));
    assert!(it.members.leases.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_leader_has_found_out_does_not_count_once_another_led() {
    let mut it = Setting::of(2);
    let segment = it.cluster.open(2);
    it.cut(5).await;
    it.members.silence(2, true);
    let leader = Arc::clone(&it.leader);
    let elects = move || *leader.term.lock().unwrap() = Some(TERM + 1);
    *it.members.meanwhile.lock().unwrap() = Some(Box::new(elects));
    it.cut(10).await;
    assert_eq!((it.sealing(segment), it.cuts(segment)), (None, vec![(5, 0)]));
    // The leader in between may have heard of the silent one at any time.
    it.cut(11).await;
    assert_eq!((it.sealing(segment), it.cuts(segment)), (None, vec![(5, 0), (10, 0), (11, 0)]));
}

#[tokio::test]
async fn a_node_that_takes_no_part_any_more_makes_no_cut() {
    let mut it = Setting::of(1);
    it.cluster.end_at(1, Lost::Command);
    let stopped = it.cutter.cut(at(5)).await;
    assert!(matches!(stopped, Err(Disagreement::Stopped(_))), "{stopped:?}");
}

#[tokio::test]
async fn windows_of_all_lengths_have_cuts_at_their_ends() {
    let mut it = Setting::of(1);
    it.cluster.apply(register(&[("by-foo", 10), ("by-bar", 15)]));
    let segment = it.cluster.open(1);
    it.members.stamp(1, segment, &[31]);
    it.cut(50).await;
    let times: Vec<_> = it.cuts(segment).iter().map(|cut| cut.0).collect();
    assert_eq!(times, [10, 15, 20, 30, 40, 45, 50]);
}

#[test]
fn a_very_long_gap_has_only_so_many_cuts() {
    let ends = ends(&BTreeSet::from([1]), at(1), at(1_000_000), at(1_000_000));
    assert_eq!((ends.len(), ends.first(), ends.last()), (CUTS_MAX, Some(&at(2)), Some(&at(4097))));
}
