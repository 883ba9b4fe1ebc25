//! What a node answers, whoever asks.

use bytes::Bytes;

use super::super::Rpc;
use super::cluster::{Cluster, ONE};

/// Node 2 asks for a vote in term 5.
fn asked_of(to: u64) -> Bytes {
    let vote = r#"{"leader_id":{"term":5,"voted_for":2},"committed":false}"#;
    format!(r#"{{"to":{to},"request":{{"vote":{vote},"last_log_id":null}}}}"#).into()
}

#[tokio::test(start_paused = true)]
async fn a_pre_vote_changes_nothing_and_a_vote_does() {
    let node = Cluster::default().start(ONE).await.unwrap();
    let answer = node.answer(Rpc::PreVote, asked_of(1)).await;
    assert!(String::from_utf8_lossy(&answer).contains(r#""vote_granted":true"#), "{answer:?}");
    assert!(!node.is_initialized().await.unwrap());
    let answer = node.answer(Rpc::Vote, asked_of(1)).await;
    assert!(String::from_utf8_lossy(&answer).contains(r#""vote_granted":true"#), "{answer:?}");
    assert!(node.is_initialized().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_call_for_the_node_that_was_here_before_changes_nothing() {
    let node = Cluster::default().start(ONE).await.unwrap();
    let answer = node.answer(Rpc::Vote, asked_of(3)).await;
    assert_eq!(answer, r#"{"Err":"this is node 1, and the call is for 3"}"#);
    assert!(!node.is_initialized().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_read_is_refused() {
    let node = Cluster::default().start(ONE).await.unwrap();
    for rpc in [Rpc::AppendEntries, Rpc::Vote, Rpc::PreVote, Rpc::Snapshot, Rpc::TransferLeader] {
        let answer = node.answer(rpc, Bytes::from_static(b"what?")).await;
        assert!(answer.starts_with(br#"{"Err":"unreadable request"#), "{answer:?}");
    }
}
