use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sheaf_proto::cluster::Cluster;
use tower::ServiceExt;

use super::*;
use crate::admin::example::Fake;

struct Answer {
    status: StatusCode,
    content_type: String,
    allow: Option<String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.content_type, "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn ask(node: Fake, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let answer = router(Arc::new(node)).oneshot(request).await.unwrap();
    let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, content_type) =
        (answer.status(), header(header::CONTENT_TYPE).unwrap_or_default());
    let allow = header(header::ALLOW);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Answer { status, content_type, allow, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn get_from(node: Fake, path: &str) -> Answer {
    ask(node, Method::GET, path).await
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why_and_is_alive() {
    let starting = || Fake { not_ready: Some("replaying the journal"), ..Fake::default() };
    let ready = get_from(starting(), "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.body.contains("replaying the journal"));
    assert_eq!(get_from(starting(), "/livez").await.status, StatusCode::OK);
    assert_eq!(get_from(Fake::default(), "/readyz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_metrics_are_one_openmetrics_text_that_ends_once() {
    let answer = get_from(Fake::default(), "/metrics").await;
    assert_eq!(answer.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.body.starts_with("# TYPE sheaf_test gauge\nsheaf_test 1\n"), "{}", answer.body);
    assert!(answer.body.contains("\nprocess_resident_memory_bytes "), "{}", answer.body);
    assert!(answer.body.ends_with("\n# EOF\n"), "{}", answer.body);
    assert_eq!(answer.body.matches("# EOF").count(), 1);
}

#[tokio::test]
async fn closed_windows_are_the_very_objects_that_were_printed() {
    let node = || Fake {
        lines: vec![r#"{"b": 1.0, "a":1}"#.into(), "{\"c\":2}".into()],
        ..Fake::default()
    };
    assert_eq!(get_from(node(), "/v1/windows").await.body, r#"[{"c":2},{"b": 1.0, "a":1}]"#);
    assert_eq!(get_from(node(), "/v1/windows?limit=1").await.body, r#"[{"c":2}]"#);
    assert_eq!(get_from(node(), "/v1/windows?limit=0").await.body, "[]");
    assert_eq!(get_from(node(), "/v1/windows?limit=99999999999").await.status, StatusCode::OK);
}

#[tokio::test]
async fn closed_windows_are_the_clusters_or_the_nodes_part_of_them() {
    let node = || Fake {
        lines: vec!["{\"whole\":1}".into()],
        parts: vec!["{\"part\":1}".into(), "{\"part\":2}".into()],
        ..Fake::default()
    };
    let whole = r#"[{"whole":1}]"#;
    for (query, windows) in [
        ("", whole),
        ("?scope=cluster", whole),
        ("?scope=node", r#"[{"part":2},{"part":1}]"#),
        ("?scope=node&limit=1", r#"[{"part":2}]"#),
    ] {
        assert_eq!(get_from(node(), &format!("/v1/windows{query}")).await.body, windows, "{query}");
    }
}

#[tokio::test]
async fn an_unknown_scope_is_refused_alike_by_all_that_have_one() {
    let ask = async |path| {
        let answer = get_from(Fake::default(), &format!("{path}?scope=nobody")).await;
        (answer.status, answer.json())
    };
    let refused = ask(LEDGER_PATH).await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST);
    assert!(refused.1["error"].as_str().unwrap().contains("`nobody`"), "{}", refused.1);
    for path in [WINDOWS_PATH, CURRENT_WINDOWS_PATH] {
        assert_eq!(ask(path).await, refused, "{path}");
    }
}

#[tokio::test]
async fn a_bad_question_is_answered_with_what_is_wrong_in_it() {
    for (path, word) in [("/v1/windows?limit=many", "limit"), ("/v1/windows?limt=1", "limt")] {
        let answer = get_from(Fake::default(), path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.json()["error"].as_str().unwrap().contains(word), "{}", answer.body);
    }
}

#[tokio::test]
async fn the_ledger_is_answered_in_its_json_shape() {
    let answer = get_from(Fake::default(), "/v1/ledger").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.json(),
        json!({"received": 3, "accepted": 2, "rejected": {"unreadable": 1}, "aggregations": [], "balanced": true})
    );
}

#[tokio::test]
async fn a_node_without_an_answer_is_unavailable_or_broken() {
    let answer = get_from(Fake::default(), "/v1/windows/current").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json(), json!({"error": "still starting"}));
    let answer = get_from(Fake { broken: true, ..Fake::default() }, "/v1/ledger").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json(), json!({"error": "it does not balance"}));
}

#[tokio::test]
async fn an_unknown_path_names_those_that_there_are() {
    for path in ["/", "/v1", "/v1/windows/", "/v1/windows/current/x", "/metrics/x"] {
        let answer = get_from(Fake::default(), path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("/v1/ledger"));
    }
}

#[tokio::test]
async fn only_reading_is_allowed() {
    for path in
        ["/livez", "/readyz", "/metrics", "/v1/windows", "/v1/windows/current", "/v1/ledger"]
    {
        let answer = ask(Fake::default(), Method::POST, path).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.allow.as_deref(), Some("GET,HEAD"), "{path}");
        assert!(answer.json()["error"].is_string());
    }
    let head = ask(Fake::default(), Method::HEAD, "/livez").await;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn a_node_without_a_cluster_says_what_it_waits_for() {
    let answer = get_from(Fake::default(), "/v1/cluster").await;
    let cluster: Cluster = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((cluster.formed, cluster.waiting.len()), (false, 1));
}

#[tokio::test]
async fn the_queue_is_answered_in_its_json_shape() {
    let answer = get_from(Fake::default(), "/v1/queue").await;
    let queue = json!({"used_bytes": 1, "capacity_bytes": 4, "used_percent": 37.5});
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, queue));
}

#[tokio::test]
async fn nobody_is_let_go_here_but_told_where() {
    for act in ["drain", "forget"] {
        let path = format!("/v1/cluster/members/1/{act}");
        let refused = ask(Fake::default(), Method::POST, &path).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND);
        let reason = refused.json()["error"].to_string();
        assert!(reason.contains("--control-listen"), "{reason}");
    }
}
