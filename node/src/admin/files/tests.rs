use axum::http::request::Builder;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sheaf_proto::files::RebuiltFile;
use sheaf_proto::names::FILE_WAITS_FOR_HEADER;
use tower::ServiceExt as _;

use super::*;
use crate::admin::answers::router;
use crate::admin::example::{Fake, file};

const PATH: &str = "/v1/files/host%2Fa.log/7";

/// What a node answers that has two files, of which the first can be read.
async fn answer(request: Builder) -> (Response, String) {
    answer_without(0, request).await
}

/// What it answers when so many bytes of the first were removed.
async fn answer_without(removed_bytes: u64, request: Builder) -> (Response, String) {
    let first = RebuiltFile { removed_bytes, ..file("host/a.log", 7) };
    answer_of(vec![first, file("host/b.log", 1)], request).await
}

async fn answer_of(files: Vec<RebuiltFile>, request: Builder) -> (Response, String) {
    let node = Fake { files, content: "0123456789", ..Fake::default() };
    let request = request.body(Body::empty()).unwrap();
    let (head, body) = router(Arc::new(node)).oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, Body::empty()), String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(path: &str) -> (Response, String) {
    answer(Request::get(path)).await
}

#[tokio::test]
async fn files_are_listed_all_or_those_that_are_named() {
    for (query, ids) in [
        ("", json!(["host/a.log", "host/b.log"])),
        ("?limit=1", json!(["host/a.log"])),
        ("?id=host%2Fb.log", json!(["host/b.log"])),
        ("?prefix=host%2Fb", json!(["host/b.log"])),
        ("?continue=7%2Fhost%2Fa.log", json!(["host/b.log"])),
        ("?scope=node", json!([])),
    ] {
        let (answer, body) = ask(&format!("/v1/files{query}")).await;
        let list: Value = serde_json::from_str(&body).unwrap();
        let found: Value =
            list["files"].as_array().unwrap().iter().map(|file| file["id"].clone()).collect();
        assert_eq!((answer.status(), found), (StatusCode::OK, ids), "{query}");
    }
    for query in ["?name=a", "?id=a&prefix=a", "?continue=a", "?continue=-1%2Fa", "?scope=all"] {
        let (answer, body) = ask(&format!("/v1/files{query}")).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}: {body}");
    }
}

#[tokio::test]
async fn a_file_is_read_whole_or_in_part() {
    let (answer, body) = ask(PATH).await;
    assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, "0123456789"));
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/octet-stream");
    assert_eq!(answer.headers()[header::ACCEPT_RANGES], "bytes");
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], "10");
    assert_eq!(answer.headers()[FILE_WAITS_FOR_HEADER], "2");
    let tag = answer.headers()[header::ETAG].to_str().unwrap().to_owned();
    let in_part = |range| self::answer(Request::get(PATH).header(header::RANGE, range));
    let (answer, body) = in_part("bytes=3-5").await;
    assert_eq!((answer.status(), body.as_str()), (StatusCode::PARTIAL_CONTENT, "345"));
    assert_eq!(answer.headers()[header::CONTENT_RANGE], "bytes 3-5/10");
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], "3");
    assert_eq!(answer.headers()[header::ETAG], tag);
    let (answer, body) = in_part("bytes=10-").await;
    assert_eq!((answer.status(), body.as_str()), (StatusCode::RANGE_NOT_SATISFIABLE, ""));
    assert_eq!(answer.headers()[header::CONTENT_RANGE], "bytes */10");
    let (answer, body) = self::answer(Request::head(PATH)).await;
    assert_eq!(answer.headers()[header::CONTENT_LENGTH], "10");
    assert_eq!(body, "");
    let same = Request::get(PATH).header(header::IF_NONE_MATCH, tag);
    let (answer, body) = self::answer(same).await;
    assert_eq!((answer.status(), body.as_str()), (StatusCode::NOT_MODIFIED, ""));
}

#[tokio::test]
async fn what_is_left_of_a_file_is_where_it_was() {
    for (range, part, content_range) in [
        ("bytes=4-", "456789", "bytes 4-9/10"),
        ("bytes=5-6", "56", "bytes 5-6/10"),
        ("bytes=-6", "456789", "bytes 4-9/10"),
    ] {
        let request = Request::get(PATH).header(header::RANGE, range);
        let (answer, body) = answer_without(4, request).await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::PARTIAL_CONTENT, part));
        assert_eq!(answer.headers()[header::CONTENT_RANGE], content_range, "{range}");
    }
}

#[tokio::test]
async fn whoever_wants_what_was_removed_is_told_what_is_left() {
    let (answer, body) = answer_without(4, Request::get(PATH)).await;
    let reason: Value = serde_json::from_str(&body).unwrap();
    let reason = reason["error"].as_str().unwrap();
    assert_eq!(answer.status(), StatusCode::GONE);
    assert!(reason.starts_with("the first 4 bytes"), "{reason}");
    assert!(reason.ends_with("Range: bytes=4-"), "{reason}");
    let (answer, body) = answer_without(4, Request::head(PATH)).await;
    assert_eq!((answer.status(), body.as_str()), (StatusCode::GONE, ""));
    let in_part = |range| Request::get(PATH).header(header::RANGE, range);
    for range in ["bytes=0-", "bytes=3-3", "bytes=3-5", "bytes=-7", "bytes=-99"] {
        let (answer, body) = answer_without(4, in_part(range)).await;
        assert_eq!(answer.status(), StatusCode::GONE, "{range}: {body}");
    }
    let other = in_part("bytes=4-").header(header::IF_RANGE, "\"9-aa\"");
    assert_eq!(answer_without(4, other).await.0.status(), StatusCode::GONE, "all is wanted");
    let (answer, body) = answer_without(10, Request::get(PATH)).await;
    assert_eq!(answer.status(), StatusCode::GONE);
    assert!(body.contains("all 10 bytes"), "{body}");
}

#[tokio::test]
async fn conditions_and_ends_are_judged_before_what_was_removed() {
    let tag = "\"10-ab\"";
    for (name, value, status) in [
        (header::IF_NONE_MATCH, tag, StatusCode::NOT_MODIFIED),
        (header::IF_MATCH, "\"9-aa\"", StatusCode::PRECONDITION_FAILED),
        (header::IF_MATCH, tag, StatusCode::GONE),
        (header::RANGE, "bytes=10-", StatusCode::RANGE_NOT_SATISFIABLE),
    ] {
        for removed in [4, 10] {
            let request = Request::get(PATH).header(&name, value);
            let (answer, _) = answer_without(removed, request).await;
            assert_eq!(answer.status(), status, "{name}: {value}, without {removed}");
        }
    }
}

#[tokio::test]
async fn nothing_is_gone_of_an_empty_file() {
    for removed_bytes in [0, 4] {
        let empty = RebuiltFile { bytes: 0, removed_bytes, ..file("host/a.log", 7) };
        let (answer, body) = answer_of(vec![empty], Request::get(PATH)).await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, ""), "{removed_bytes}");
    }
}

#[tokio::test]
async fn a_file_that_there_is_not_is_told_from_a_name_that_is_none() {
    for (path, status) in [
        ("/v1/files/host%2Fa.log/8", StatusCode::NOT_FOUND),
        ("/v1/files/host%2Fa.log/x", StatusCode::BAD_REQUEST),
        ("/v1/files/host%2Fa.log/7?limit=1", StatusCode::BAD_REQUEST),
        ("/v1/files/host%2Fa.log", StatusCode::NOT_FOUND),
        ("/v1/files/host%2Fa.log/7?scope=node", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let (answer, body) = ask(path).await;
        assert_eq!(answer.status(), status, "{path}: {body}");
        assert!(body.contains("error"), "{body}");
        let retries = answer.headers().contains_key(header::RETRY_AFTER);
        assert_eq!(retries, status == StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
}
