//! What members ask of journals and results.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};

use super::*;

fn slots(of: &str) -> SlotSet {
    of.parse().unwrap()
}

#[tokio::test]
async fn a_node_tells_how_much_it_has_stamped_before_a_time() {
    let one = Stamped { entries: 3, records: 40, last: UnixNanos(1_999_999_999) };
    let told = BTreeMap::from([(1, one), (u64::MAX, Stamped { entries: 0, ..one })]);
    let node = Node::start(Script { stamped: Ok(told.clone()), ..Script::member() });
    let time = UnixNanos(2_000_000_000);
    assert_eq!(member().stamped(&node.address, time, DEADLINE).await, Ok(told));
    assert_eq!(node.heard(), ["stamped 1970-01-01T00:00:02Z"]);
}

#[tokio::test]
async fn nobody_asks_for_a_time_between_two_seconds() {
    let node = Node::start(Script::member());
    let answer = member().stamped(&node.address, UnixNanos(1), DEADLINE).await;
    assert_eq!(refusal(answer), "the message's field time is missing or malformed");
    assert!(node.heard().is_empty());
}

#[tokio::test]
async fn a_segment_is_followed_from_an_index_on_to_its_end() {
    let follow = |from| {
        let part =
            Part { index: from + 1, stamp: UnixNanos(8), entry: Bytes::from_static(b"part") };
        let batches = [
            Ok(Batch { next: from + 2, parts: vec![part] }),
            Ok(Batch { next: from + 5, parts: Vec::new() }),
        ];
        Ok(stream::iter(batches).boxed())
    };
    let node = Node::start(Script { follow: Arc::new(follow), ..Script::member() });
    let batches = member().follow(&node.address, 4, 7, slots("0-3,255"), DEADLINE).await.unwrap();
    let batches: Vec<_> = batches.try_collect().await.unwrap();
    let part = Part { index: 8, stamp: UnixNanos(8), entry: Bytes::from_static(b"part") };
    let expected = [Batch { next: 9, parts: vec![part] }, Batch { next: 12, parts: Vec::new() }];
    assert_eq!(batches, expected);
    assert_eq!(node.heard(), ["follow 4 from 7 for 0-3,255"]);
}

#[tokio::test]
async fn a_table_arrives_whole() {
    const TABLE: &[u8] = &[7; 3 * CHUNK_BYTES_MAX + 1];
    let results = || {
        let (one, other) = TABLE.split_at(CHUNK_BYTES_MAX + 1);
        Ok(stream::iter([one, other].map(|bytes| Ok(Bytes::from_static(bytes)))).boxed())
    };
    let node = Node::start(Script { results: Arc::new(results), ..Script::member() });
    let start = UnixNanos(10_000_000_000);
    let chunks = member().results(&node.address, 2, start, slots("9"), DEADLINE).await.unwrap();
    let chunks: Vec<_> = chunks.try_collect().await.unwrap();
    assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
    assert_eq!(chunks.concat(), TABLE);
    assert_eq!(node.heard(), ["results 2 at 1970-01-01T00:00:10Z for 9"]);
}

#[tokio::test]
async fn open_windows_are_told() {
    let windows = Bytes::from_static(b"[{}]");
    let node = Node::start(Script { open: Ok(windows.clone()), ..Script::member() });
    assert_eq!(member().open(&node.address, 100, DEADLINE).await, Ok(windows));
    assert_eq!(node.heard(), ["open 100"]);
}

#[tokio::test]
async fn what_a_node_does_not_have_is_declined_before_a_stream_begins() {
    const NOT_NOW: &str = "the node is starting";
    const NEVER: &str = "segment 4 is not here";
    let node = Node::start(Script {
        stamped: Err(Declined::NotNow(NOT_NOW.to_owned())),
        follow: Arc::new(|_| Err(Declined::Never(NEVER.to_owned()))),
        results: Arc::new(|| Err(Declined::NotNow(NOT_NOW.to_owned()))),
        open: Err(Declined::Never(NEVER.to_owned())),
        ..Script::member()
    });
    let (member, address) = (member(), &node.address);
    let (start, slots) = (UnixNanos(0), slots("9"));
    assert_eq!(trouble(member.stamped(address, start, DEADLINE).await), NOT_NOW);
    let follow = member.follow(address, 4, 0, slots, DEADLINE).await;
    assert_eq!(refusal(follow.map(drop)), NEVER);
    let results = member.results(address, 1, start, slots, DEADLINE).await;
    assert_eq!(trouble(results.map(drop)), NOT_NOW);
    assert_eq!(refusal(member.open(address, 1, DEADLINE).await), NEVER);
}
