use std::fs;

use axum::body::Body;
use axum::http::{Method, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::admin::example::{Fake, member_one};

const TOKEN: &str = "0123456789abcdef";

struct Answer {
    status: StatusCode,
    allow: Option<String>,
    challenge: Option<String>,
    json: Value,
}

impl Answer {
    fn reason(&self) -> &str {
        self.json["error"].as_str().unwrap()
    }
}

async fn ask(guard: Guard, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(Body::empty()).unwrap();
    let answer = router(Arc::new(Fake::default()), guard).oneshot(request).await.unwrap();
    let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (allow, challenge) = (header(header::ALLOW), header(header::WWW_AUTHENTICATE));
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Answer { status, allow, challenge, json: serde_json::from_slice(&body).unwrap() }
}

const DRAIN: &str = "/v1/cluster/members/1/drain";

#[tokio::test]
async fn a_member_is_let_go_or_it_is_said_why_not() {
    for act in ["drain", "forget"] {
        let path = |member: &str| format!("/v1/cluster/members/{member}/{act}");
        let let_go = async |member| ask(Guard::Machine, Method::POST, &path(member), &[]).await;
        let accepted = let_go("1").await;
        assert_eq!((accepted.status, accepted.json), (StatusCode::ACCEPTED, member_one()));
        for (member, status, reason) in [
            ("2", StatusCode::CONFLICT, "too few would be left"),
            ("3", StatusCode::NOT_FOUND, "nobody has this id"),
        ] {
            let refused = let_go(member).await;
            assert_eq!((refused.status, refused.json), (status, json!({ "error": reason })));
        }
        assert_eq!(let_go("one").await.status, StatusCode::BAD_REQUEST);
        let read = ask(Guard::Machine, Method::GET, &path("1"), &[]).await;
        let post_only = (StatusCode::METHOD_NOT_ALLOWED, Some("POST"));
        assert_eq!((read.status, read.allow.as_deref()), post_only);
    }
}

#[tokio::test]
async fn how_far_it_is_can_be_asked_on_the_same_port() {
    let answer = ask(Guard::Machine, Method::GET, CLUSTER_PATH, &[]).await;
    assert_eq!((answer.status, &answer.json["formed"]), (StatusCode::OK, &json!(false)));
}

#[tokio::test]
async fn a_node_is_throttled_and_let_go_on() {
    let ask = async |method, query| {
        let path = format!("{THROTTLE_PATH}{query}");
        let answer = ask(Guard::Machine, method, &path, &[]).await;
        (answer.status, answer.json)
    };
    let (status, queue) = ask(Method::POST, "?bytes_per_second=1000").await;
    assert_eq!((status, &queue["throttle_bytes_per_second"]), (StatusCode::OK, &json!(1000)));
    let (status, queue) = ask(Method::DELETE, "").await;
    assert_eq!((status, queue.get("throttle_bytes_per_second")), (StatusCode::OK, None));
    for query in ["", "?bytes_per_second=0", "?bytes_per_second=-1", "?bytes=1"] {
        assert_eq!(ask(Method::POST, query).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(ask(Method::GET, "").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn an_unknown_path_names_those_that_there_are() {
    let answer = ask(Guard::Machine, Method::GET, "/metrics", &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.reason().contains("/v1/cluster/members/ID/drain"), "{}", answer.reason());
}

#[tokio::test]
async fn whoever_sends_the_token_is_listened_to_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let with = async |method, path, headers: &[(&str, &str)]| {
        ask(Guard::new(Some(&file)), method, path, headers).await
    };
    let authorization = format!("Bearer {TOKEN}");
    let token = [("authorization", authorization.as_str())];
    assert_eq!(with(Method::POST, DRAIN, &token).await.status, StatusCode::ACCEPTED);
    assert_eq!(with(Method::GET, CLUSTER_PATH, &token).await.status, StatusCode::OK);
    for (method, path) in [(Method::POST, DRAIN), (Method::GET, CLUSTER_PATH), (Method::GET, "/x")]
    {
        let denied = with(method.clone(), path, &[]).await;
        assert_eq!(denied.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(denied.challenge.as_deref(), Some("Bearer"));
        assert!(denied.reason().contains("Authorization: Bearer TOKEN"), "{}", denied.reason());
        let wrong = [("authorization", "Bearer 0123456789abcdeF")];
        let denied = with(method, path, &wrong).await;
        assert_eq!(denied.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(denied.challenge.as_deref(), Some("Bearer error=\"invalid_token\""));
        assert!(!denied.reason().contains(TOKEN), "{}", denied.reason());
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_is_worth_nothing_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let drain = async |token: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        ask(Guard::new(Some(&file)), Method::POST, DRAIN, &headers).await.status
    };
    let newer = "fedcba9876543210";
    fs::write(&file, TOKEN).unwrap();
    assert_eq!(drain(TOKEN).await, StatusCode::ACCEPTED);
    fs::write(&file, newer).unwrap();
    assert_eq!(drain(TOKEN).await, StatusCode::UNAUTHORIZED);
    assert_eq!(drain(newer).await, StatusCode::ACCEPTED);
    fs::write(&file, "").unwrap();
    assert_eq!(drain("").await, StatusCode::SERVICE_UNAVAILABLE);
    fs::remove_file(&file).unwrap();
    assert_eq!(drain(newer).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_port_without_a_token_does_not_listen_to_web_pages() {
    let page = [("origin", "http://example.com")];
    let denied = ask(Guard::Machine, Method::POST, DRAIN, &page).await;
    assert_eq!((denied.status, denied.challenge), (StatusCode::FORBIDDEN, None));
}
