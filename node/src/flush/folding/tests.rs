mod repeats; // requests that come twice

use super::*;
use crate::checkpoint::facts::command::Command as Proposed;
use crate::event::entry::EntryWriter;
use crate::flush::example::node::{Node, Source, everybody_waits};
use crate::flush::example::{Cluster, at, entry, packed, register, slots, window};

const FIRST: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };

/// Node 1, and what it folds.
struct Setting {
    cluster: Arc<Cluster>,
    source: Arc<Source>,
    node: Node,
}

impl Setting {
    fn new() -> Setting {
        let (cluster, source) = (Cluster::of(2), Arc::new(Source::default()));
        let node = Node::new(1, &cluster, &source, u64::MAX);
        Setting { cluster, source, node }
    }

    fn append(&self, segment: u64, second: u64, records: &[(u8, u64)]) {
        let entry = entry(0, records);
        self.source.appended.send_modify(|appended| appended.push(segment, at(second), entry));
    }

    /// Cuts where everything that was appended is below.
    fn cut(&self, second: u64) -> u64 {
        let counts = self.source.appended.borrow().counts();
        self.cluster.cut(second, &counts)
    }
}

fn closings(to_flush: &mut mpsc::UnboundedReceiver<Flush>) -> Vec<(u64, Window, String, u64)> {
    let flushes = std::iter::from_fn(|| to_flush.try_recv().ok());
    let closings = flushes.filter_map(|flush| match flush {
        Flush::Window { group, closing } => {
            let records = closing.state.map_or(0, |state| state.records().total());
            Some((group, closing.due.window, closing.due.slots.to_string(), records))
        }
        Flush::Files { .. } | Flush::Carry { .. } => None,
    });
    closings.collect()
}

fn all(group: u64, window: Window, records: u64) -> (u64, Window, String, u64) {
    (group, window, "0-255".to_owned(), records)
}

#[tokio::test(start_paused = true)]
async fn segments_are_followed_from_where_the_slots_go_on_until_they_are_gone() {
    let it = Setting::new();
    let old = it.cluster.open(2);
    it.append(old, 5, &[(7, 1)]);
    let end = it.cut(10);
    it.cluster.flush(1, "0-255", FIRST, end);
    let (life, _to_flush) = it.node.fold();
    everybody_waits().await;
    let new = it.cluster.open(1);
    everybody_waits().await;
    let all = "0-255".to_owned();
    assert_eq!(it.source.followed(), [(old, 1, all.clone()), (new, 0, all)]);
    assert_eq!((it.source.readers(old), it.source.readers(new)), (1, 1));
    it.cluster.seal(old, 1, 9);
    everybody_waits().await;
    assert_eq!((it.source.readers(old), it.source.readers(new)), (0, 1));
    life.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_window_is_handed_on_once_all_that_the_cut_counts_is_folded() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let (life, mut to_flush) = it.node.fold();
    it.append(segment, 5, &[(7, 1)]);
    it.cluster.cut(10, &[(segment, 3)]);
    everybody_waits().await;
    assert_eq!(closings(&mut to_flush), []);
    assert_eq!(life.folding.pending().await, None);
    it.append(segment, 5, &[(7, 2), (9, 1)]);
    everybody_waits().await;
    assert_eq!(closings(&mut to_flush), []);
    it.append(segment, 5, &[(200, 1)]);
    everybody_waits().await;
    assert_eq!(closings(&mut to_flush), [all(0, FIRST, 4)]);
    assert_eq!(it.source.folded(segment), Some(3));
    life.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn slots_count_as_folded_up_to_the_newest_cut_of_which_everything_came() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let (life, _to_flush) = it.node.fold();
    it.append(segment, 5, &[(7, 1)]);
    everybody_waits().await;
    it.cut(10);
    everybody_waits().await;
    assert_eq!([10, 11].map(|second| life.folding.folded(at(second))), [256, 0]);
    it.cluster.cut(20, &[(segment, 2)]);
    everybody_waits().await;
    assert_eq!([10, 11].map(|second| life.folding.folded(at(second))), [256, 0]);
    it.cluster.place("100-255", 2);
    everybody_waits().await;
    assert_eq!(life.folding.folded(at(10)), 100);
    it.append(segment, 15, &[(7, 2)]);
    everybody_waits().await;
    it.cut(21);
    everybody_waits().await;
    assert_eq!([21, 22].map(|second| life.folding.folded(at(second))), [100, 0]);
    life.end().await.unwrap();
}

#[tokio::test]
async fn memory_is_divided_among_the_aggregations_that_count() {
    let it = Setting::new();
    let (_folding, commands) = Folding::new();
    let (mut folder, _to_flush) = it.node.folder(&commands);
    let mut share = |names: &[&str]| {
        let windows: Vec<_> = names.iter().map(|&name| (name, 10)).collect();
        it.cluster.apply(register(&windows));
        folder.follow_facts().unwrap();
        folder.parts.settings.window_memory.0
    };
    assert_eq!(share(&["by-foo"]), 1 << 20);
    assert_eq!(share(&["by-foo", "by-bar", "a", "b"]), 1 << 18);
    assert_eq!(share(&["by-bar"]), 1 << 20, "what has ended needs none");
}

#[tokio::test(start_paused = true)]
async fn slots_that_are_lost_are_given_up_and_those_that_are_gained_begin() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let (life, mut to_flush) = it.node.fold();
    it.append(segment, 5, &[(7, 1), (200, 1)]);
    it.cut(8);
    everybody_waits().await;
    it.cluster.place("100-255", 2);
    everybody_waits().await;
    it.cluster.place("200-255", 1);
    everybody_waits().await;
    let of = |from, slots: &str| (segment, from, slots.to_owned());
    assert_eq!(it.source.followed(), [of(0, "0-255"), of(0, "200-255")]);
    it.cut(10);
    everybody_waits().await;
    let (kept, gained) = ("0-99".to_owned(), "200-255".to_owned());
    let expected = [(0, FIRST, kept, 2), (1, FIRST, gained, 1)];
    assert_eq!(closings(&mut to_flush), expected, "what was folded of the others stays");
    it.cluster.place("0-255", 2);
    everybody_waits().await;
    assert_eq!((it.source.readers(segment), it.source.folded(segment)), (0, Some(u64::MAX)));
    life.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn slots_that_were_flushed_at_the_same_cut_are_folded_as_one_from_then_on() {
    let it = Setting::new();
    it.cluster.place("100-255", 2);
    let segment = it.cluster.open(1);
    let mut life = it.node.start();
    it.append(segment, 5, &[(7, 1), (200, 1)]);
    it.cut(8);
    everybody_waits().await;
    it.cluster.place("100-255", 1);
    everybody_waits().await;
    let of = |from, slots: &str| (segment, from, slots.to_owned());
    let apart = [of(0, "0-99"), of(0, "100-255")];
    assert_eq!(it.source.followed(), apart);
    it.cut(10);
    everybody_waits().await;
    assert_eq!(it.source.followed(), apart, "their windows were open at that cut");

    it.append(segment, 12, &[(7, 2), (200, 2)]);
    it.cut(13);
    everybody_waits().await;
    assert_eq!(it.source.followed().last(), Some(&of(1, "0-255")));
    it.cut(20);
    everybody_waits().await;
    let facts = it.cluster.now();
    let windows = facts.aggregations()[&0].windows.values();
    let counted: Vec<_> = windows.map(|window| (window.records, window.waiting.len())).collect();
    assert_eq!(counted, [(2, 0), (2, 0)]);
    let is_claim = |proposed: &Proposed| matches!(proposed, Proposed::Claim { .. });
    let claims = it.cluster.proposed().into_iter().filter(is_claim);
    assert_eq!(claims.count(), 3, "the second window is claimed once");
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_left_out_once_what_had_it_was_handed_out() {
    let it = Setting::new();
    let (own, lost) = (it.cluster.open(1), it.cluster.open(2));
    let (life, mut to_flush) = it.node.fold();
    it.append(own, 5, &[(7, 1)]);
    it.append(lost, 5, &[(7, 2)]);
    it.cut(10);
    everybody_waits().await;
    assert_eq!(closings(&mut to_flush), [all(0, FIRST, 2)]);
    it.cluster.seal(lost, 1, 10);
    it.cluster.apply(Proposed::Forget { node: NodeId(2) });
    let followed = it.source.followed().len();
    it.cut(11);
    everybody_waits().await;
    assert_eq!(it.source.followed().len(), followed, "the window is on its way out");
    assert_eq!((closings(&mut to_flush), life.folding.pending().await), (vec![], None));
    life.folding.closed(0, 0, FIRST, slots(""));
    everybody_waits().await;
    assert!(it.source.followed().len() > followed);
    life.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn slots_that_were_given_up_while_a_window_was_handed_out_begin_again() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let (life, mut to_flush) = it.node.fold();
    it.append(segment, 5, &[(7, 1), (200, 1)]);
    it.cut(10);
    everybody_waits().await;
    assert_eq!(closings(&mut to_flush), [all(0, FIRST, 2)]);
    life.folding.closed(0, 0, FIRST, slots("200-255"));
    everybody_waits().await;
    assert_eq!(closings(&mut to_flush), [(1, FIRST, "200-255".to_owned(), 1)]);
    life.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_an_unknown_aggregation_waits_for_the_facts() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let (life, mut to_flush) = it.node.fold();
    let both: &[(u32, &[(u8, u64)])] = &[(0, &[(7, 1)]), (1, &[(7, 1)])];
    let entry = packed(EntryWriter::new(None), both);
    it.source.appended.send_modify(|appended| appended.push(segment, at(5), entry));
    (2..9).for_each(|body| it.append(segment, 6, &[(7, body)]));
    everybody_waits().await;
    assert_eq!(it.source.folded(segment), None);
    it.cluster.apply(register(&[("by-foo", 10), ("by-bar", 10)]));
    it.cluster.aware(segment);
    it.cluster.cut(3, &[]);
    everybody_waits().await;
    assert_eq!(it.source.folded(segment), Some(8));
    it.cut(10);
    everybody_waits().await;
    assert_eq!(closings(&mut to_flush), [all(0, FIRST, 8), all(0, FIRST, 1)]);
    life.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_is_what_is_below_the_cut_and_not_flushed() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let mut life = it.node.start();
    it.append(segment, 5, &[(7, 1), (8, 1)]);
    let below = it.cut(6);
    it.append(segment, 7, &[(7, 1)]);
    everybody_waits().await;
    let pending = |cut, records| {
        Some(Pending { cut, records: [(0, records)].into(), repeated: BTreeMap::new() })
    };
    assert_eq!(life.folding.pending().await, pending(below, 2));
    let [current] = <[_; 1]>::try_from(life.folding.current(9).await).ok().unwrap();
    assert_eq!((current.window, current.counts.records), (FIRST, 3));
    let end = it.cut(10);
    everybody_waits().await;
    assert_eq!(life.folding.pending().await, pending(end, 0));
    assert_eq!(life.folding.current(9).await.len(), 0);
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_has_ended_answers_nothing_more() {
    let (folding, commands) = Folding::new();
    drop(commands);
    assert_eq!((folding.pending().await, folding.current(9).await.len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn open_windows_are_carried_when_the_journal_grows_too_large() {
    let mut it = Setting::new();
    it.node = Node::new(1, &it.cluster, &it.source, 0);
    let segment = it.cluster.open(1);
    let mut life = it.node.start();
    it.append(segment, 5, &[(7, 1)]);
    everybody_waits().await;
    let cut = it.cut(6);
    everybody_waits().await;
    assert_eq!(it.cluster.now().aggregations()[&0].carried(7), cut);
    assert_eq!(it.node.carried().all().unwrap().len(), 1);
    assert!(life.failed().await.is_none());
    drop(life);

    std::fs::write(it.node.scratch.path().join("left"), "behind").unwrap();
    let mut life = it.node.start();
    it.append(segment, 7, &[(7, 1)]);
    everybody_waits().await;
    assert_eq!(std::fs::read_dir(it.node.scratch.path()).unwrap().count(), 1);
    assert_eq!(it.source.followed().last().unwrap().1, 1);
    it.cut(10);
    everybody_waits().await;
    let fact = it.cluster.now().aggregations()[&0].windows[&FIRST.start].clone();
    assert_eq!((fact.records, fact.distinct, fact.waiting), (2, 1, slots("")));
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_window_of_which_only_others_have_something_is_handed_out() {
    let it = Setting::new();
    it.cluster.place("0-9", 2);
    let mut life = it.node.start();
    let end = it.cluster.cut(10, &[]);
    it.cluster.flush(2, "0-9", FIRST, end);
    everybody_waits().await;
    let fact = it.cluster.now().aggregations()[&0].windows[&FIRST.start].clone();
    assert_eq!(fact.waiting, slots(""));
    let number = it.cluster.cut(20, &[]);
    it.cluster.flush(2, "0-9", window(10, 20), number);
    everybody_waits().await;
    let facts = it.cluster.now();
    assert_eq!(facts.aggregations()[&0].windows[&at(10)].waiting, slots(""));
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_window_that_others_tell_of_late_is_handed_out_too() {
    let it = Setting::new();
    it.cluster.place("0-9", 2);
    let segment = it.cluster.open(1);
    it.append(segment, 15, &[(200, 1)]);
    let mut life = it.node.start();
    let end = it.cluster.cut(10, &[(segment, 0)]);
    it.cut(20);
    everybody_waits().await;
    it.cluster.flush(2, "0-9", FIRST, end);
    everybody_waits().await;
    let fact = it.cluster.now().aggregations()[&0].windows[&FIRST.start].clone();
    assert_eq!(fact.waiting, slots(""));
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_read_ends_the_thread() {
    let it = Setting::new();
    it.cluster.open(1);
    let (mut life, _to_flush) = it.node.fold();
    everybody_waits().await;
    it.source.break_off();
    everybody_waits().await;
    assert!(matches!(life.failed().await, Some(FlushError::Journal(_))));
}

#[tokio::test(start_paused = true)]
async fn segments_are_let_go_where_a_node_has_no_slots() {
    let it = Setting::new();
    it.cluster.place("0-255", 2);
    let (life, _to_flush) = it.node.fold();
    let segment = it.cluster.open(1);
    everybody_waits().await;
    assert_eq!((it.source.followed().len(), it.source.folded(segment)), (0, Some(u64::MAX)));
    life.end().await.unwrap();
}
