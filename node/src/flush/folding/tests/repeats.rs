use super::*;
use crate::event::entry::RequestId;
use crate::flush::requests;

const SECOND: Window = Window { start: FIRST.end, end: UnixNanos(20_000_000_000) };

impl Setting {
    /// Appends a request of these records.
    fn send(&self, segment: u64, second: u64, sequence: u64, records: &[(u8, u64)]) {
        let request = RequestId { session: [7; 16], sequence };
        let entry = packed(EntryWriter::new(Some(request)), &[(0, records)]);
        self.source.appended.send_modify(|appended| appended.push(segment, at(second), entry));
    }

    /// Records in a window that was flushed; 0 if nothing was.
    fn records(&self, window: Window) -> u64 {
        let facts = self.cluster.now();
        let fact = facts.aggregations()[&0].windows.get(&window.start);
        fact.map_or(0, |fact| fact.records)
    }

    /// Cuts at the ends of the first two windows, with so much of each segment before the
    /// end of the first.
    async fn cut_both(&self, first: &[(u64, u64)]) {
        self.cluster.cut(10, first);
        everybody_waits().await;
        self.cut(20);
        everybody_waits().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_again_in_the_next_window_counts_in_the_first() {
    let it = Setting::new();
    let (one, other) = (it.cluster.open(1), it.cluster.open(2));
    let mut life = it.node.start();
    // In whatever order they arrive.
    it.send(other, 12, 1, &[(7, 1), (200, 2)]);
    it.send(other, 13, 2, &[(7, 3)]);
    everybody_waits().await;
    it.send(one, 5, 1, &[(7, 1), (200, 2)]);
    it.send(one, 5, 1, &[(7, 1), (200, 2)]);
    everybody_waits().await;
    it.cut_both(&[(one, 2), (other, 0)]).await;
    assert_eq!((it.records(FIRST), it.records(SECOND)), (2, 1));
    let pending = life.folding.pending().await.unwrap();
    assert_eq!((&pending.records[&0], &pending.repeated[&0]), (&0, &4));
    let ledger = it.cluster.now().aggregations()[&0].ledger;
    assert_eq!((ledger.accepted.entries, ledger.flushed), (4, 3));
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_is_folded_when_a_cut_has_decided_on_it_and_what_follows_it_then_too() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let life = it.node.start();
    it.append(segment, 4, &[(7, 9)]);
    it.send(segment, 5, 1, &[(7, 1)]);
    it.append(segment, 5, &[(7, 2)]);
    everybody_waits().await;
    let open = async || -> u64 {
        let open = life.folding.current(9).await;
        open.iter().map(|open| open.counts.records).sum()
    };
    assert_eq!(open().await, 1);
    it.cut(6);
    everybody_waits().await;
    assert_eq!(open().await, 3);
    assert_eq!(it.source.folded(segment), Some(3), "nothing is held for it");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_again_after_a_restart_does_not_count() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let life = it.node.start();
    it.send(segment, 5, 1, &[(7, 1)]);
    it.cut(10);
    everybody_waits().await;
    drop(life);
    assert_eq!(
        requests::recorded(&it.node.store).unwrap().cut,
        it.cluster.now().latest_cut().number
    );
    it.send(segment, 15, 1, &[(7, 1)]);
    it.send(segment, 15, 2, &[(7, 2)]);
    let mut life = it.node.start();
    it.cut(20);
    everybody_waits().await;
    assert_eq!((it.records(FIRST), it.records(SECOND)), (1, 1));
    assert_eq!(life.folding.pending().await.unwrap().repeated[&0], 1);
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_repeated_is_left_out_when_a_node_folds_again() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let life = it.node.start();
    it.send(segment, 5, 1, &[(7, 1)]);
    it.cut(10);
    everybody_waits().await;
    it.send(segment, 15, 1, &[(7, 1)]);
    it.send(segment, 16, 2, &[(7, 1)]);
    it.cut(17);
    everybody_waits().await;
    let decided = life.folding.decided();
    drop(life);
    requests::record(&it.node.store, &decided).unwrap();
    let mut life = it.node.start();
    it.cut(20);
    everybody_waits().await;
    assert_eq!(it.records(SECOND), 1);
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn carried_windows_count_a_request_once() {
    let mut it = Setting::new();
    it.node = Node::new(1, &it.cluster, &it.source, 0);
    let (one, other) = (it.cluster.open(1), it.cluster.open(2));
    let life = it.node.start();
    it.send(one, 5, 1, &[(7, 1)]);
    it.append(one, 5, &[(7, 2)]);
    everybody_waits().await;
    it.cut(6);
    everybody_waits().await;
    // The first are carried by now; these are not folded yet.
    it.send(one, 7, 2, &[(7, 3)]);
    it.append(one, 7, &[(7, 4)]);
    everybody_waits().await;
    assert_eq!(it.node.carried().all().unwrap().len(), 1);
    drop(life);
    it.send(other, 8, 2, &[(7, 3)]);
    it.send(other, 8, 1, &[(7, 1)]);
    let mut life = it.node.start();
    it.cut(10);
    everybody_waits().await;
    assert_eq!(it.records(FIRST), 4);
    assert!(life.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slot_moves_without_the_ids() {
    let it = Setting::new();
    let second = Node::new(2, &it.cluster, &it.source, u64::MAX);
    let segment = it.cluster.open(1);
    let (first, mut other) = (it.node.start(), second.start());
    it.send(segment, 5, 1, &[(7, 1), (200, 2)]);
    it.cut(10);
    everybody_waits().await;
    assert_eq!(it.records(FIRST), 2);
    it.cluster.place("100-255", 2);
    it.send(segment, 15, 1, &[(7, 1), (200, 2)]);
    it.send(segment, 15, 2, &[(200, 3)]);
    it.cut(20);
    everybody_waits().await;
    assert_eq!(it.records(SECOND), 1);
    assert!(other.failed().await.is_none());
    first.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_late_is_told_by_another_which_requests_there_were() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let first = it.node.start();
    it.send(segment, 5, 1, &[(7, 1)]);
    it.cut(10);
    everybody_waits().await;
    let decided = Vec::from([(*first.folding.decided()).clone()]);
    *it.source.told.lock().unwrap() = decided;
    drop(first);
    let second = Node::new(2, &it.cluster, &it.source, u64::MAX);
    let mut late = second.start();
    it.cluster.place("0-255", 2);
    it.send(segment, 15, 1, &[(7, 1)]);
    it.send(segment, 15, 2, &[(7, 2)]);
    it.cut(20);
    everybody_waits().await;
    assert_eq!(it.records(SECOND), 1);
    assert_eq!(late.folding.pending().await.unwrap().repeated[&0], 1);
    assert!(late.failed().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn where_nobody_knows_the_requests_they_count_again_and_nobody_waits_for_ever() {
    let it = Setting::new();
    let segment = it.cluster.open(1);
    let first = it.node.start();
    it.send(segment, 5, 1, &[(7, 1)]);
    it.cut(10);
    everybody_waits().await;
    drop(first);
    let second = Node::new(2, &it.cluster, &it.source, u64::MAX);
    let mut late = second.start();
    it.cluster.place("0-255", 2);
    it.send(segment, 15, 1, &[(7, 1)]);
    it.cut(20);
    everybody_waits().await;
    assert_eq!(it.records(SECOND), 1);
    assert!(late.failed().await.is_none());
}
