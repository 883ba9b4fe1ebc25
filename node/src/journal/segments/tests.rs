use super::*;
use crate::journal::example::{Life, at, replayed};
use crate::store::Disk;

/// Segments 1 and 2 of a node, with two entries each, and segment 4, which is open.
async fn third_life(disk: &Disk) -> Life {
    for (segment, second) in [(1, 3), (2, 5)] {
        let life = Life::begin(disk, segment, second).await;
        life.append(2, 10).await;
        life.end().await;
    }
    Life::begin(disk, 4, 7).await
}

/// What is left of the journal: its segments with their first entries, and the records of
/// all entries that there ever were.
fn left(disk: &Disk) -> (Vec<u64>, u64, u64) {
    let replay = replayed(disk);
    (replay.segments.keys().copied().collect(), replay.entries, replay.events.records)
}

fn before(entries: u64) -> Extent {
    Extent::new(entries, Events::of_records(entries))
}

#[tokio::test]
async fn every_segment_of_the_node_says_what_is_stamped_before_a_time() {
    let disk = Disk::default();
    let life = third_life(&disk).await;
    life.append(3, 10).await;
    let stamped = life.stamped(5).await;
    let of = |before, last| Stamped { before, last };
    let expected =
        [(1, of(before(2), at(3))), (2, of(before(0), at(5))), (4, of(before(0), at(7)))];
    assert_eq!(stamped, expected.into());
    let stamped = life.stamped(8).await;
    assert_eq!(stamped.values().map(|s| s.before.entries).collect::<Vec<_>>(), [2, 2, 3]);
    life.end().await;
}

#[tokio::test]
async fn what_is_not_needed_is_given_back_up_to_the_first_that_is() {
    let disk = Disk::default();
    let life = third_life(&disk).await;
    life.append(3, 10).await;
    life.trim(&[(1, 0), (2, 0), (4, 0)], at(1)).unwrap();
    assert_eq!(replayed_entries(&life), 7, "all are needed");
    life.trim(&[(2, 1), (4, 3)], at(1)).unwrap();
    life.end().await;
    assert_eq!(left(&disk), (vec![2, 4], 4, 7));
}

fn replayed_entries(life: &Life) -> u64 {
    let replay = replay::replay(&life.store, |_| Ok::<_, JournalError>(()));
    replay.unwrap().entries
}

#[tokio::test]
async fn the_last_entry_of_the_open_segment_stays() {
    let disk = Disk::default();
    let life = third_life(&disk).await;
    life.append(3, 10).await;
    life.trim(&[(4, 3)], at(8)).unwrap();
    life.end().await;
    assert_eq!(left(&disk), (vec![4], 1, 7));
    let life = Life::begin(&disk, 5, 9).await;
    life.trim(&[], at(9)).unwrap();
    life.append(1, 10).await;
    life.end().await;
    assert_eq!(left(&disk), (vec![5], 1, 8));
}

#[tokio::test]
async fn what_was_given_back_does_not_come_back() {
    let disk = Disk::default();
    let life = third_life(&disk).await;
    life.append(3, 10).await;
    life.trim(&[(4, 2)], at(1)).unwrap();
    life.trim(&[(4, 1)], at(1)).unwrap();
    life.trim(&[(4, 0)], at(1)).unwrap();
    life.end().await;
    assert_eq!(left(&disk), (vec![4], 1, 7));
}

#[tokio::test]
async fn a_segment_that_was_given_back_is_not_read() {
    let disk = Disk::default();
    let life = third_life(&disk).await;
    let read = |segment| {
        let from = Position { segment, index: 0 };
        life.journal.follow_sealed(from, 2).is_some()
    };
    assert_eq!([1, 2, 3].map(read), [true, true, false]);
    life.trim(&[(2, 0), (4, 0)], at(1)).unwrap();
    assert_eq!([1, 2, 3].map(read), [false, true, false]);
    life.end().await;
}
