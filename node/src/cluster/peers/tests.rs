use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{pending, ready};
use futures::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::checkpoint::facts::SegmentId;
use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{Decision, Rpc, Transport};
use crate::cluster::example::{self, CLUSTER, born, identity};
use crate::cluster::formation::{Hello, State};
use crate::event::fingerprint::FingerprintKey;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use node::{Node, Script};

mod asked; // what members ask of journals and results
mod copies; // copies of a segment
mod node; // a node whose answers are fixed
mod streams; // streams that are slow, break, or end

/// Who is asked.
const ASKED: NodeId = NodeId(1);
/// Nothing here takes this long.
const DEADLINE: Duration = Duration::from_secs(60);
/// What is never answered is waited for as long as this.
const SHORT: Duration = Duration::from_millis(50);

/// Node 2 of the cluster, over TCP.
fn member() -> Member {
    Member::new(Peers::over_tcp(), &identity(2))
}

fn refusal<T: fmt::Debug>(answer: Result<T, PeerError>) -> String {
    match answer {
        Err(PeerError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// Makes sure that nobody was reached, and returns why.
fn trouble<T: fmt::Debug>(answer: Result<T, PeerError>) -> String {
    match answer {
        Err(PeerError::Unreachable(reason) | PeerError::Gone(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_hello_says_who_a_node_is_and_whom_it_sees_or_what_it_belongs_to() {
    let waiting = State::Waiting { sees: BTreeSet::from([born(1), born(2)]) };
    let Identity { cluster, node, founders, .. } = identity(1);
    for state in [waiting, State::Member { cluster, node, founders }] {
        let hello = Hello { birth: born(1), state };
        let node = Node::start(Script { hello: Ok(hello.clone()), ..Script::member() });
        assert_eq!(Peers::over_tcp().hello(&node.address, DEADLINE).await, Ok(hello));
    }
}

#[tokio::test]
async fn a_node_that_joins_gets_all_that_it_has_to_keep() {
    let join = Ok(Reply::Done(identity(3)));
    let node = Node::start(Script { join, ..Script::member() });
    let answer = Peers::over_tcp().join(&node.address, CLUSTER, &born(3), DEADLINE).await;
    assert_eq!(answer, Ok(Reply::Done(identity(3))));
    assert_eq!(node.heard(), ["join node-3:9465"]);
}

#[tokio::test]
async fn a_node_that_does_not_lead_names_the_leader() {
    for leader in [Some(example::member(2)), None] {
        let join = Ok(Reply::NotLeader { leader: leader.clone() });
        let propose = Ok(Reply::NotLeader { leader: leader.clone() });
        let node = Node::start(Script { join, propose, ..Script::member() });
        let joined = Peers::over_tcp().join(&node.address, CLUSTER, &born(3), DEADLINE).await;
        assert_eq!(joined, Ok(Reply::NotLeader { leader: leader.clone() }));
        let proposed =
            member().other(ASKED, &node.address).propose(&example::join(3), DEADLINE).await;
        assert_eq!(proposed, Ok(Reply::NotLeader { leader }));
    }
}

#[tokio::test]
async fn a_command_reaches_the_leader_and_what_was_decided_comes_back() {
    let refused = Refused::NoNode { node: NodeId(9) };
    for outcome in [Ok(Applied::Node(NodeId(3))), Err(refused)] {
        let decision = Decision { index: 5, outcome };
        let propose = Ok(Reply::Done(decision.clone()));
        let node = Node::start(Script { propose, ..Script::member() });
        let answer =
            member().other(ASKED, &node.address).propose(&example::join(3), DEADLINE).await;
        assert_eq!(answer, Ok(Reply::Done(decision)));
        assert_eq!(node.heard(), [format!("propose {:?}", example::join(3))]);
    }
}

#[tokio::test]
async fn each_of_rafts_calls_arrives_as_what_it_is() {
    let node = Node::start(Script::member());
    let member = member();
    let calls = [Rpc::AppendEntries, Rpc::Vote, Rpc::PreVote, Rpc::Snapshot, Rpc::TransferLeader];
    for rpc in calls {
        let body = Bytes::from_static(b"body");
        let answer = member.call(NodeId(1), &node.address, rpc, body, DEADLINE).await;
        assert_eq!(answer.unwrap(), "BODY");
    }
    assert_eq!(node.heard(), calls.map(|rpc| format!("{rpc:?} body")));
}

#[tokio::test]
async fn a_message_may_have_many_megabytes_but_not_too_many() {
    let node = Node::start(Script::member());
    let member = member();
    let send = async |bytes: usize| {
        let body = vec![b'a'; bytes].into();
        member.other(ASKED, &node.address).raft(Rpc::Snapshot, body, DEADLINE).await
    };
    let room = MESSAGE_BYTES_MAX - 100;
    assert_eq!(send(room).await.map(|body| body.len()), Ok(room));
    assert!(refusal(send(MESSAGE_BYTES_MAX).await).contains("too large"));
    assert_eq!(node.heard().len(), 1);
}

/// Makes every call that only members may make, and returns why each was refused.
async fn refusals(member: &Member, address: &str) -> Vec<String> {
    let slots = SlotSet::default();
    vec![
        refusal(member.other(ASKED, address).raft(Rpc::Vote, Bytes::new(), DEADLINE).await),
        refusal(member.other(ASKED, address).propose(&example::join(3), DEADLINE).await),
        refusal(member.other(ASKED, address).stamped(UnixNanos(0), UnixNanos(0), DEADLINE).await),
        refusal(member.other(ASKED, address).follow(1, 0, slots, DEADLINE).await.map(drop)),
        refusal(member.other(ASKED, address).tables(1, UnixNanos(0), DEADLINE).await),
        refusal(
            member
                .other(ASKED, address)
                .results((1, UnixNanos(0), 1), slots, DEADLINE)
                .await
                .map(drop),
        ),
        refusal(member.other(ASKED, address).live(1, DEADLINE).await),
    ]
}

/// A node whose volume was emptied comes back to its address as another node, which does not
/// know what the first has promised.
#[tokio::test]
async fn whoever_took_a_nodes_address_does_not_answer_for_it() {
    let node = Node::start(Script::member());
    let (member, third, address) = (member(), NodeId(3), &node.address);
    let asked = member.other(third, address).tables(2, UnixNanos(0), DEADLINE).await;
    assert_eq!(refusal(asked), "this is node 1, and node 3 was asked");
    let asked = member.call(third, address, Rpc::Vote, Bytes::new(), DEADLINE).await;
    assert!(asked.unwrap_err().to_string().contains("node 3 was asked"));
    assert_eq!(node.heard().len(), 0);
}

#[tokio::test]
async fn a_member_of_another_cluster_is_refused() {
    let node = Node::start(Script::member());
    let other = Uuid::from_u128(2);
    let stranger = Identity { cluster: other, ..identity(2) };
    let member = Member::new(Peers::over_tcp(), &stranger);
    let expected =
        format!("this is node 1 of cluster {CLUSTER}, and node 2 of cluster {other} calls");
    assert_eq!(refusals(&member, &node.address).await, vec![expected; 7]);
    assert!(node.heard().is_empty());
}

#[tokio::test]
async fn a_member_with_another_fingerprint_key_is_refused() {
    let node = Node::start(Script::member());
    let stranger = Identity { fingerprint_key: FingerprintKey([8; 16]), ..identity(2) };
    let member = Member::new(Peers::over_tcp(), &stranger);
    let expected = format!(
        "node 1 and node 2 have different fingerprint keys, although both belong to cluster \
         {CLUSTER}"
    );
    assert_eq!(refusals(&member, &node.address).await, vec![expected; 7]);
    assert!(node.heard().is_empty());
}

#[tokio::test]
async fn nobody_joins_another_cluster_than_the_one_it_saw() {
    let node = Node::start(Script::member());
    let seen = Uuid::from_u128(2);
    let answer = Peers::over_tcp().join(&node.address, seen, &born(3), DEADLINE).await;
    let expected = format!("this node belongs to cluster {CLUSTER}, and not to {seen}");
    assert_eq!(refusal(answer), expected);
    assert!(node.heard().is_empty());
}

#[tokio::test]
async fn a_node_that_waits_answers_nothing_but_hello() {
    let expected = "it belongs to no cluster";
    let identity = Err(Declined::NotNow(expected.to_owned()));
    let node = Node::start(Script { identity, ..Script::member() });
    let (peers, member) = (Peers::over_tcp(), member());
    let raft = member.other(ASKED, &node.address).raft(Rpc::Vote, Bytes::new(), DEADLINE).await;
    assert_eq!(trouble(raft), expected);
    let join = peers.join(&node.address, CLUSTER, &born(3), DEADLINE).await;
    assert_eq!(trouble(join), expected);
    peers.hello(&node.address, DEADLINE).await.unwrap();
    assert!(node.heard().is_empty());
}

#[tokio::test]
async fn what_a_node_declines_arrives_with_its_reason() {
    let reason = || "node 3 was drained".to_owned();
    let join = Err(Declined::Never(reason()));
    let node = Node::start(Script { join, ..Script::member() });
    let answer = Peers::over_tcp().join(&node.address, CLUSTER, &born(3), DEADLINE).await;
    assert_eq!(refusal(answer), reason());
    let hello = Err(Declined::NotNow(reason()));
    let node = Node::start(Script { hello, ..Script::member() });
    assert_eq!(trouble(Peers::over_tcp().hello(&node.address, DEADLINE).await), reason());
}

#[tokio::test]
async fn where_nobody_listens_there_is_nobody_and_the_system_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let answer = Peers::over_tcp().hello(&address, DEADLINE).await;
    let is_gone = |reason: &str| reason.starts_with("Connection refused");
    assert!(matches!(&answer, Err(PeerError::Gone(reason)) if is_gone(reason)), "{answer:?}");
}

#[tokio::test]
async fn what_is_no_address_is_unreachable() {
    trouble(Peers::over_tcp().hello("no address", DEADLINE).await);
}

#[tokio::test]
async fn a_call_that_nobody_answers_ends_in_time() {
    let node = Node::start(Script { silent: true, ..Script::member() });
    let member = member();
    let calling = member.other(ASKED, &node.address).raft(Rpc::Vote, Bytes::new(), SHORT);
    let answer = timeout(DEADLINE, calling).await.expect("it ended");
    assert_eq!(answer, Err(PeerError::Timeout(SHORT)));
}

#[tokio::test]
async fn a_peer_that_restarts_on_the_same_port_is_reached_again() {
    let peers = Peers::over_tcp();
    let mut node = Node::start(Script::member());
    let address = node.address.clone();
    peers.hello(&address, DEADLINE).await.unwrap();
    for killed in [false, true] {
        if killed {
            node.kill().await
        } else {
            node.stop().await
        }
        trouble(peers.hello(&address, DEADLINE).await);
        node = Node::start_at(&address, Script::member());
        peers.hello(&address, DEADLINE).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_stops_finishes_what_is_under_way() {
    let gate = Arc::new(Notify::new());
    let mut node = Node::start(Script { gate: Some(gate.clone()), ..Script::member() });
    let member = member();
    let address = node.address.clone();
    let calling = tokio::spawn(async move {
        member.other(ASKED, &address).raft(Rpc::Vote, Bytes::from_static(b"a"), DEADLINE).await
    });
    node.has_heard(1).await;
    node.shutdown.cancel();
    while Peers::over_tcp().hello(&node.address, DEADLINE).await.is_ok() {}
    gate.notify_one();
    assert_eq!(calling.await.unwrap(), Ok(Bytes::from_static(b"A")));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_does_not_wait_for_ever() {
    let mut node = Node::start(Script { silent: true, ..Script::member() });
    let member = member();
    let address = node.address.clone();
    let calling = tokio::spawn(async move {
        member.other(ASKED, &address).raft(Rpc::Vote, Bytes::new(), DEADLINE).await
    });
    node.has_heard(1).await;
    node.stop().await;
    trouble(calling.await.unwrap());
}

/// The way to others over one stream, and its other end.
fn single_stream() -> (Peers, DuplexStream) {
    let (here, there) = duplex(1 << 16);
    let here = Arc::new(Mutex::new(Some(here)));
    let peers = Peers::new(move |_address| {
        let stream = here.lock().unwrap().take();
        ready(stream.ok_or_else(|| io::Error::other("there is one stream")))
    });
    (peers, there)
}

#[tokio::test(start_paused = true)]
async fn calls_go_over_any_kind_of_stream() {
    let (peers, there) = single_stream();
    let answers = Arc::new(Script::member());
    let serving = tokio::spawn(serve(stream::iter([Ok(there)]), answers, CancellationToken::new()));
    let hello = peers.hello("node-1:9465", DEADLINE).await.unwrap();
    assert_eq!(Ok(hello), Script::member().hello);
    drop(peers);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_open_is_given_up() {
    let peers = Peers::new(|_address| pending::<io::Result<DuplexStream>>());
    let reason = trouble(peers.hello("node-1:9465", DEADLINE).await);
    assert!(reason.contains("deadline"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_gone_silent_is_given_up_by_whoever_called_it() {
    let (peers, mut there) = single_stream();
    let begin = Instant::now();
    let answer = peers.hello("node-1:9465", SHORT).await;
    assert_eq!(answer, Err(PeerError::Timeout(SHORT)));
    timeout(DEADLINE, there.read_to_end(&mut Vec::new())).await.expect("its end").unwrap();
    assert!(begin.elapsed() <= PING_INTERVAL + PING_TIMEOUT + SHORT, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_gone_silent_is_given_up_by_whoever_it_called() {
    const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let (mut here, there) = duplex(1 << 16);
    let answers = Arc::new(Script::member());
    let serving = tokio::spawn(serve(stream::iter([Ok(there)]), answers, CancellationToken::new()));
    let begin = Instant::now();
    here.write_all(&[OPENING, EMPTY_SETTINGS].concat()).await.unwrap();
    timeout(DEADLINE, here.read_to_end(&mut Vec::new())).await.expect("its end").unwrap();
    assert!(begin.elapsed() <= PING_INTERVAL + PING_TIMEOUT + SHORT, "{:?}", begin.elapsed());
    serving.await.unwrap();
}
