use tokio::task::yield_now;

use super::*;
use crate::journal::example::Life;
use crate::store::{Disk, Table, keys};

fn follow(life: &Life, segment: u64, index: u64) -> Follower {
    life.journal.follow(Position { segment, index }).unwrap()
}

fn follow_sealed(life: &Life, index: u64, end: u64) -> Option<Follower> {
    life.journal.follow_sealed(Position { segment: 1, index }, end)
}

/// The numbers of the next entries.
async fn next(follower: &mut Follower, bytes: usize) -> Vec<u64> {
    follower.next(bytes).await.unwrap().iter().map(|entry| entry.index).collect()
}

#[tokio::test]
async fn entries_come_as_they_become_durable_and_end_with_the_journal() {
    let disk = Disk::default();
    let life = Life::begin(&disk, 1, 3).await;
    let mut follower = follow(&life, 1, 0);
    let mut waiting = tokio::spawn(async move {
        let read = next(&mut follower, 1 << 20).await;
        (follower, read)
    });
    yield_now().await;
    assert!(!waiting.is_finished());
    life.append(2, 10).await;
    let (mut follower, read) = (&mut waiting).await.unwrap();
    assert_eq!((read, follower.position().index), (vec![0, 1], 2));
    life.append(1, 10).await;
    life.end().await;
    assert_eq!(next(&mut follower, 1 << 20).await, [2]);
    assert_eq!(next(&mut follower, 1 << 20).await, [0; 0]);
    assert_eq!(follower.position(), Position { segment: 1, index: 3 });
}

#[tokio::test]
async fn a_sealed_segment_is_read_to_its_end() {
    let disk = Disk::default();
    let life = Life::begin(&disk, 1, 3).await;
    life.append(5, 100).await;
    life.end().await;
    let life = Life::begin(&disk, 2, 4).await;
    life.append(1, 100).await;
    let mut follower = follow_sealed(&life, 1, 5).unwrap();
    let read = follower.next(250).await.unwrap();
    assert_eq!(read.iter().map(|entry| entry.index).collect::<Vec<_>>(), [1]);
    assert_eq!((read[0].stamp, read[0].entry.len()), (crate::journal::example::at(3), 100));
    assert_eq!(next(&mut follower, 310).await, [2, 3]);
    assert_eq!(next(&mut follower, 1 << 20).await, [4]);
    assert_eq!(next(&mut follower, 1 << 20).await, [0; 0]);
    let mut behind = follow_sealed(&life, 9, 5).unwrap();
    assert_eq!(next(&mut behind, 1 << 20).await, [0; 0], "there is nothing there");
    assert!(follow_sealed(&life, 0, 6).is_none(), "not all of it is here");
    life.end().await;
}

#[tokio::test]
async fn whoever_is_behind_reads_from_the_database() {
    let disk = Disk::default();
    let life = Life::begin(&disk, 1, 3).await;
    life.append(3, 5 << 20).await;
    life.journal.folded(1, 3);
    let mut follower = follow(&life, 1, 0);
    for index in 0..3 {
        assert_eq!(next(&mut follower, 1).await, [index]);
    }
    life.append(1, 10).await;
    assert_eq!(next(&mut follower, 1).await, [3]);
    life.end().await;
}

#[tokio::test]
async fn an_entry_that_is_gone_is_an_error() {
    let disk = Disk::default();
    let life = Life::begin(&disk, 1, 3).await;
    life.append(3, 10).await;
    life.end().await;
    let life = Life::begin(&disk, 2, 4).await;
    let mut follower = follow_sealed(&life, 0, 3).unwrap();
    let mut batch = life.store.batch();
    batch.delete(Table::Journal, &keys::entry(1, 1)).unwrap();
    life.store.commit(batch).unwrap();
    let error = follower.next(1 << 20).await.unwrap_err();
    assert!(matches!(error, JournalError::Gap { segment: 1, index: 1, .. }), "{error}");
    life.end().await;
}
