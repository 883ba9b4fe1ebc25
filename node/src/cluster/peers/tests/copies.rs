//! Copies of a segment, as its writer sends them.

use futures::StreamExt as _;

use super::*;
use crate::event::time::UnixNanos;
use crate::journal::Extent;

fn frames(lengths: &[usize], first: u8) -> (u64, Vec<Bytes>) {
    let frame = |(number, length): (u8, &usize)| Bytes::from(vec![number; *length]);
    (first.into(), (first..).zip(lengths).map(frame).collect())
}

#[tokio::test]
async fn entries_of_any_size_arrive_whole_and_in_order() {
    let node = Node::start(Script::member());
    let lengths = [3, CHUNK_BYTES_MAX - 3, CHUNK_BYTES_MAX, 3 * CHUNK_BYTES_MAX + 1, 1];
    let large = MESSAGE_BYTES_MAX + 1;
    let groups = stream::iter([frames(&lengths, 0), frames(&[large], 5), frames(&[7], 6)]);
    let copied = member().other(ASKED, &node.address).copy(9, groups, DEADLINE).await.unwrap();
    let told: Vec<u64> = copied.map(Result::unwrap).collect().await;
    assert_eq!((told.last(), told.is_sorted()), (Some(&7), true));
    let lengths = lengths.into_iter().chain([large, 7]).enumerate();
    let copies = lengths.map(|(index, length)| format!("copy 9 {index}: {length} true"));
    let expected: Vec<_> = ["begin a copy of 9".to_owned()].into_iter().chain(copies).collect();
    assert_eq!(node.heard(), expected);
}

#[tokio::test]
async fn a_node_that_takes_no_copy_says_so_at_once() {
    let copies = Err(Declined::Never("it was fenced".to_owned()));
    let node = Node::start(Script { copies, ..Script::member() });
    let error = member()
        .other(ASKED, &node.address)
        .copy(9, stream::pending(), DEADLINE)
        .await
        .err()
        .unwrap();
    assert_eq!(refusal(Err::<(), _>(error)), "it was fenced");
}

#[tokio::test]
async fn a_fenced_copy_says_how_far_it_got() {
    let before = Extent { entries: 3, records: 30, chunks: 2 };
    let stamped = Stamped { before, last: UnixNanos(7) };
    for fenced in [None, Some(stamped)] {
        let node = Node::start(Script { fenced: Ok(fenced), ..Script::member() });
        assert_eq!(member().other(ASKED, &node.address).fence(9, DEADLINE).await, Ok(fenced));
        assert_eq!(node.heard(), ["fence 9"]);
    }
}
