use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A node that gives this answer once, and what it was asked.
async fn node(status: &str, body: &str) -> (Network, JoinHandle<String>) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    let asked = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut question = vec![0; 4_096];
        let length = socket.read(&mut question).await.unwrap();
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(question[..length].to_vec()).unwrap()
    });
    (Network::at(port), asked)
}

const ALONE: &str = r#"{"cluster":null,"node":null,"formed":false,"waiting":["b is away"],
    "leader":null,"term":0,"epoch":0,"members":[],"segments":[]}"#;

#[tokio::test]
async fn a_node_tells_of_its_cluster() {
    let (nodes, asked) = node("200 OK", ALONE).await;
    let cluster = nodes.cluster(HERE).await.unwrap();
    assert_eq!(cluster.waiting, ["b is away"]);
    assert!(asked.await.unwrap().starts_with("GET /v1/cluster HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_node_tells_how_full_it_is_in_few_bytes() {
    let queue = r#"{"used_bytes":1,"capacity_bytes":4,"used_percent":12.5}"#;
    let (nodes, asked) = node("200 OK", queue).await;
    assert_eq!(nodes.queue(HERE).await.unwrap().used_percent, 12.5);
    assert!(asked.await.unwrap().starts_with("GET /v1/queue HTTP/1.1\r\n"));
    let (nodes, _) = node("200 OK", &format!("{queue}{}", " ".repeat(QUEUE_BYTES_MAX))).await;
    assert!(nodes.queue(HERE).await.is_err());
}

#[tokio::test]
async fn a_change_is_asked_for_with_the_token() {
    let (nodes, asked) = node("202 Accepted", "{}").await;
    nodes.change(HERE, Change::Drain(3), "secret").await.unwrap();
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST /v1/cluster/members/3/drain HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer secret\r\n"), "{asked}");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_clusters_words() {
    let (nodes, _) = node("409 Conflict", r#"{"error":"too few would be left"}"#).await;
    let refused = nodes.change(HERE, Change::Forget(3), "secret").await;
    assert!(matches!(&refused, Err(NodeError::Refused(why)) if why == "too few would be left"));
    let (nodes, _) = node("404 Not Found", r#"{"error":"no node 9"}"#).await;
    let unknown = nodes.change(HERE, Change::Forget(9), "secret").await;
    assert!(matches!(&unknown, Err(NodeError::Unknown(why)) if why == "no node 9"));
}

#[tokio::test]
async fn any_other_answer_is_none() {
    for (status, body, told) in [
        ("401 Unauthorized", r#"{"error":"another token"}"#, "401 Unauthorized: another token"),
        ("503 Service Unavailable", "", "503 Service Unavailable: it does not say why"),
    ] {
        let (nodes, _) = node(status, body).await;
        let error = nodes.change(HERE, Change::Drain(3), "secret").await.unwrap_err();
        let path = "ask 127.0.0.1 for /v1/cluster/members/3/drain";
        assert_eq!(error.to_string(), format!("{path}: {told}"));
    }
    let (nodes, _) = node("200 OK", "[]").await;
    assert!(nodes.cluster(HERE).await.is_err());
    let (nodes, _) = node("500 Internal Server Error", ALONE).await;
    assert!(nodes.cluster(HERE).await.is_err());
}

#[tokio::test]
async fn a_token_that_is_no_header_is_not_sent() {
    let error = Network::default().change(HERE, Change::Drain(3), "a\nb").await.unwrap_err();
    assert!(matches!(error, NodeError::Unanswered { .. }), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_no_answer() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let nodes = Network::at(port);
    let error = nodes.cluster(HERE).await.unwrap_err();
    assert!(error.to_string().starts_with("ask 127.0.0.1 for /v1/cluster: "), "{error}");
}
