//! What members ask of journals and results.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use sheaf_proto::statistics::{Other, WindowCounts, WindowSpan};

use super::*;
use crate::checkpoint::carries::Carry;
use crate::event::time::Window;
use crate::flush::files::Named;
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;
use crate::journal::Extent;

fn slots(of: &str) -> SlotSet {
    of.parse().unwrap()
}

#[tokio::test]
async fn a_node_tells_how_much_it_has_stamped_before_a_time() {
    let before = Extent { entries: 3, records: 40, chunks: 2 };
    let one = Stamped { before, last: UnixNanos(1_999_999_999) };
    let told = BTreeMap::from([(1, one), (u64::MAX, Stamped::default())]);
    let node = Node::start(Script { stamped: Ok(told.clone()), ..Script::member() });
    let time = UnixNanos(2_000_000_000);
    assert_eq!(
        member().other(ASKED, &node.address).stamped(time, UnixNanos(3), DEADLINE).await,
        Ok(told)
    );
    assert_eq!(node.heard(), ["stamped 1970-01-01T00:00:02Z lease 1970-01-01T00:00:00.000000003Z"]);
}

#[tokio::test]
async fn a_node_tells_members_of_its_cluster_what_time_it_is() {
    let node = Node::start(Script::member());
    assert_eq!(member().other(ASKED, &node.address).clock(DEADLINE).await, Ok(UnixNanos(5)));
    assert_eq!(node.heard(), ["clock"]);
}

#[tokio::test]
async fn nobody_asks_for_a_time_between_two_seconds() {
    let node = Node::start(Script::member());
    let answer =
        member().other(ASKED, &node.address).stamped(UnixNanos(1), UnixNanos(2), DEADLINE).await;
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
    let batches = member()
        .other(ASKED, &node.address)
        .follow(4, 7, slots("0-3,255"), DEADLINE)
        .await
        .unwrap();
    let batches: Vec<_> = batches.try_collect().await.unwrap();
    let part = Part { index: 8, stamp: UnixNanos(8), entry: Bytes::from_static(b"part") };
    let expected = [Batch { next: 9, parts: vec![part] }, Batch { next: 12, parts: Vec::new() }];
    assert_eq!(batches, expected);
    assert_eq!(node.heard(), ["follow 4 from 7 for 0-3,255"]);
}

#[tokio::test]
async fn tables_are_listed_and_arrive_chunk_by_chunk() {
    const END: UnixNanos = UnixNanos(10_000_000_000);
    let chunks = [Bytes::from_static(b"one"), Bytes::from(vec![7; CHUNK_BYTES_MAX])];
    let sent = chunks.clone();
    let results = move || Ok(stream::iter(sent.clone().map(Ok)).boxed());
    let summary = WindowCounts {
        aggregation: "by-foo".to_owned(),
        kind: "DistinctLogs".to_owned(),
        attribute: "foo".to_owned(),
        window: WindowSpan { start: END.timestamp(), end: END.timestamp() },
        complete: false,
        waits_for: None,
        settled: false,
        lost: Vec::new(),
        revision: 0,
        records: 5,
        distinct: 2,
        upper_bound: false,
        unknown: 2,
        counts: Vec::new(),
        other: Other::default(),
        slots: None,
    };
    let (records, none) = (BTreeMap::from([(9, 5)]), BTreeMap::new());
    let listed = vec![
        Listed { table: u64::MAX, slots: slots("9"), summary: None, records },
        Listed { table: 1, slots: slots("0-8"), summary: Some(summary), records: none },
    ];
    let tables = Ok(listed.clone());
    let node = Node::start(Script { tables, results: Arc::new(results), ..Script::member() });
    let member = member();
    assert_eq!(member.other(ASKED, &node.address).tables(2, END, DEADLINE).await, Ok(listed));
    let asked = member
        .other(ASKED, &node.address)
        .results((2, END, 7), slots("9"), DEADLINE)
        .await
        .unwrap();
    assert_eq!(asked.try_collect::<Vec<_>>().await.unwrap(), chunks);
    let heard = [
        "tables 2 until 1970-01-01T00:00:10Z",
        "results 2 until 1970-01-01T00:00:10Z, table 7, for 9",
    ];
    assert_eq!(node.heard(), heard);
}

/// What is to be kept of an open window.
fn carry() -> Carry {
    let window = Window { start: UnixNanos(0), end: UnixNanos(10) };
    let next = BTreeMap::from([(1, 5)]);
    Carry { aggregation: 2, window, slots: slots("9"), next, state: serde_json::Value::Null }
}

#[tokio::test]
async fn what_is_to_be_kept_arrives_in_full_or_not_at_all() {
    let chunks = || [Bytes::from_static(b"one"), Bytes::from(vec![7; CHUNK_BYTES_MAX])].map(Ok);
    let node = Node::start(Script::member());
    let (member, kept) = (member(), Kept::Carry(carry()));
    let sent = stream::iter(chunks()).boxed();
    assert_eq!(member.other(ASKED, &node.address).keep(&kept, sent, DEADLINE).await, Ok(()));
    let bytes = CHUNK_BYTES_MAX + 3;
    let heard = [format!("keep {kept:?} of node 2, {bytes} bytes")];
    assert_eq!(node.heard(), heard);
    let broken = Err(Declined::NotNow("the disk is broken".to_owned()));
    let sent = stream::iter(chunks().into_iter().chain([broken])).boxed();
    let answer = member.other(ASKED, &node.address).keep(&kept, sent, DEADLINE).await;
    assert_eq!(trouble(answer), "the chunks are cut off");
    assert_eq!(node.heard(), heard);
}

#[tokio::test]
async fn whoever_takes_nothing_more_is_not_waited_for() {
    let node = Node::start(Script::member());
    let sent = stream::pending().boxed();
    let answer =
        member().other(ASKED, &node.address).keep(&Kept::Carry(carry()), sent, SHORT).await;
    assert_eq!(answer, Err(PeerError::Timeout(SHORT)));
}

#[tokio::test]
async fn what_is_carried_arrives_part_by_part() {
    let carried = [CarriedPart::Carry(carry()), CarriedPart::Chunk(Bytes::from_static(b"file"))];
    let node = Node::start(Script { carried: carried.clone(), ..Script::member() });
    let parts = member().other(ASKED, &node.address).carried(slots("9"), DEADLINE).await.unwrap();
    assert_eq!(parts.try_collect::<Vec<_>>().await.unwrap(), carried);
    assert_eq!(node.heard(), ["carried 9"]);
}

#[tokio::test]
async fn files_are_listed_and_read_piece_by_piece() {
    let told = Told { slots: slots("0-8"), led: slots("8"), files: Vec::new() };
    let pieces = [Bytes::from_static(b"one"), Bytes::from(vec![7; CHUNK_BYTES_MAX])];
    let sent = pieces.clone();
    let results = move || Ok(stream::iter(sent.clone().map(Ok)).boxed());
    let list = Ok(told.clone());
    let node = Node::start(Script { list, results: Arc::new(results), ..Script::member() });
    let (member, after) = (member(), Some(("a".to_owned(), 7)));
    let named = Named::Prefix("a".to_owned());
    let wanted = Wanted { aggregation: 1, slots: slots("0-9"), named, after, limit: 5 };
    assert_eq!(member.other(ASKED, &node.address).list(&wanted, DEADLINE).await, Ok(told));
    let id = "b".to_owned().try_into().unwrap();
    let piece = FilePiece { aggregation: 1, id, session: 7, part: 3..9 };
    let read = member.other(ASKED, &node.address).read(&piece, DEADLINE).await.unwrap();
    assert_eq!(read.try_collect::<Vec<_>>().await.unwrap(), pieces);
    assert_eq!(node.heard(), [r#"list 0-9 after Some(("a", 7))"#, "read 3..9 of b 7"]);
}

#[tokio::test]
async fn a_node_tells_of_which_files_it_wants_only_what_closes_their_gaps() {
    let gaps: Gaps = [(u128::MAX, 7, 5_i64.try_into().unwrap())].into_iter().collect();
    let node = Node::start(Script { gaps: Ok(gaps.clone()), ..Script::member() });
    assert_eq!(member().other(ASKED, &node.address).gaps(DEADLINE).await, Ok(gaps));
    assert_eq!(node.heard(), ["gaps"]);
}

#[tokio::test]
async fn a_node_tells_what_room_it_has_for_files() {
    let room = Room { taken: 1 << 40, left: u64::MAX };
    let node = Node::start(Script { room: Ok(room), ..Script::member() });
    assert_eq!(member().other(ASKED, &node.address).room(DEADLINE).await, Ok(room));
    assert_eq!(node.heard(), ["room"]);
}

#[tokio::test]
async fn what_a_node_has_at_the_moment_is_told() {
    let live = Bytes::from_static(b"{}");
    let node = Node::start(Script { live: Ok(live.clone()), ..Script::member() });
    assert_eq!(member().other(ASKED, &node.address).live(100, DEADLINE).await, Ok(live));
    assert_eq!(node.heard(), ["live 100"]);
}

#[tokio::test]
async fn a_node_tells_what_it_has_decided_on_repeated_requests() {
    let node = Node::start(Script::member());
    let decided = Decided::at_cut(5);
    assert_eq!(member().other(ASKED, &node.address).decided(DEADLINE).await, Ok(decided));
    assert_eq!(node.heard(), ["decided"]);
}

#[tokio::test]
async fn what_a_node_does_not_have_is_declined_before_a_stream_begins() {
    const NOT_NOW: &str = "the node is starting";
    const NEVER: &str = "segment 4 is not here";
    let node = Node::start(Script {
        stamped: Err(Declined::NotNow(NOT_NOW.to_owned())),
        follow: Arc::new(|_| Err(Declined::Never(NEVER.to_owned()))),
        results: Arc::new(|| Err(Declined::NotNow(NOT_NOW.to_owned()))),
        tables: Err(Declined::NotNow(NOT_NOW.to_owned())),
        gaps: Err(Declined::NotNow(NOT_NOW.to_owned())),
        room: Err(Declined::NotNow(NOT_NOW.to_owned())),
        live: Err(Declined::Never(NEVER.to_owned())),
        ..Script::member()
    });
    let (member, address) = (member(), &node.address);
    let (start, slots) = (UnixNanos(0), slots("9"));
    assert_eq!(
        trouble(member.other(ASKED, address).stamped(start, start, DEADLINE).await),
        NOT_NOW
    );
    let follow = member.other(ASKED, address).follow(4, 0, slots, DEADLINE).await;
    assert_eq!(refusal(follow.map(drop)), NEVER);
    assert_eq!(trouble(member.other(ASKED, address).tables(1, start, DEADLINE).await), NOT_NOW);
    let results = member.other(ASKED, address).results((1, start, 1), slots, DEADLINE).await;
    assert_eq!(trouble(results.map(drop)), NOT_NOW);
    assert_eq!(trouble(member.other(ASKED, address).gaps(DEADLINE).await), NOT_NOW);
    assert_eq!(trouble(member.other(ASKED, address).room(DEADLINE).await), NOT_NOW);
    assert_eq!(refusal(member.other(ASKED, address).live(1, DEADLINE).await), NEVER);
}
