use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use sheaf_proto::names::FILES_PATH;
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use super::Node;
use super::refusal::Refusal;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const FILES_DEFAULT: usize = 1_000;
const FILES_MAX: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesQuery {
    id: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(node): State<Arc<dyn Node>>,
    query: Result<Query<FilesQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(FilesQuery { id, limit }) = query.map_err(|rejection| Refusal::query(&rejection))?;
    let limit = limit.unwrap_or(FILES_DEFAULT).min(FILES_MAX);
    Ok(Json(node.files(id, limit).await?).into_response())
}

/// The content of a file, or the range of it that the request asks for (RFC 9110, section 14).
pub(super) async fn read(
    State(node): State<Arc<dyn Node>>,
    name: Result<Path<(String, u64)>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path((id, session)) = name.map_err(|rejection| Refusal::path(&rejection))?;
    let path = node.file(id, session).await?;
    match ServeFile::new(path).oneshot(request).await {
        Ok(answer) if answer.status() == StatusCode::NOT_FOUND => {
            let reason = format!("the file is gone; {FILES_PATH} lists those that there are");
            Err(Refusal { status: StatusCode::NOT_FOUND, reason })
        }
        Ok(mut answer) => {
            // Whatever its name looks like, nothing is assumed of what is in it.
            answer.headers_mut().insert(header::CONTENT_TYPE, OCTETS);
            Ok(answer.map(Body::new))
        }
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};
    use sheaf_proto::files::RebuiltFile;

    use super::*;
    use crate::admin::answers::router;
    use crate::admin::example::Fake;

    struct Setting {
        folder: tempfile::TempDir,
    }

    impl Setting {
        fn new() -> Setting {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("host%2Fa.log.7"), "0123456789").unwrap();
            Setting { folder }
        }

        async fn ask(&self, method: Method, path: &str, range: Option<&str>) -> (Response, String) {
            let file = |id: &str, session| RebuiltFile {
                id: id.to_owned(),
                session,
                bytes: 10,
                checkpointed_bytes: 4,
                waits_for: None,
                waiting: 0,
                contradicting: 0,
            };
            let files = vec![file("host/a.log", 7), file("host/b.log", 1)];
            let node = Fake { files, folder: self.folder.path().to_owned(), ..Fake::default() };
            let request = Request::builder().method(method).uri(path);
            let request =
                range.into_iter().fold(request, |head, range| head.header("range", range));
            let answer = router(Arc::new(node)).oneshot(request.body(Body::empty()).unwrap()).await;
            let (head, body) = answer.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (Response::from_parts(head, Body::empty()), String::from_utf8(body.to_vec()).unwrap())
        }
    }

    #[tokio::test]
    async fn files_are_listed_all_or_those_of_an_id() {
        let it = Setting::new();
        for (path, ids) in [
            ("/v1/files", json!(["host/a.log", "host/b.log"])),
            ("/v1/files?limit=1", json!(["host/a.log"])),
            ("/v1/files?id=host%2Fb.log", json!(["host/b.log"])),
        ] {
            let (answer, body) = it.ask(Method::GET, path, None).await;
            let files: Vec<Value> = serde_json::from_str(&body).unwrap();
            let found: Value = files.iter().map(|file| file["id"].clone()).collect();
            assert_eq!((answer.status(), found), (StatusCode::OK, ids), "{path}");
        }
        let (answer, body) = it.ask(Method::GET, "/v1/files?name=a", None).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
    }

    #[tokio::test]
    async fn a_file_is_read_whole_or_in_part() {
        let it = Setting::new();
        let path = "/v1/files/host%2Fa.log/7";
        let (answer, body) = it.ask(Method::GET, path, None).await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, "0123456789"));
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/octet-stream");
        assert_eq!(answer.headers()[header::ACCEPT_RANGES], "bytes");
        let (answer, body) = it.ask(Method::GET, path, Some("bytes=3-5")).await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::PARTIAL_CONTENT, "345"));
        assert_eq!(answer.headers()[header::CONTENT_RANGE], "bytes 3-5/10");
        let (answer, body) = it.ask(Method::GET, path, Some("bytes=8-")).await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::PARTIAL_CONTENT, "89"));
        let (answer, _) = it.ask(Method::GET, path, Some("bytes=10-")).await;
        assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        let (answer, body) = it.ask(Method::HEAD, path, None).await;
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], "10");
        assert_eq!(body, "");
    }

    #[tokio::test]
    async fn a_file_that_there_is_not_is_told_from_a_name_that_is_none() {
        let it = Setting::new();
        for (path, status) in [
            ("/v1/files/host%2Fa.log/8", StatusCode::NOT_FOUND),
            ("/v1/files/host%2Fa.log/x", StatusCode::BAD_REQUEST),
            ("/v1/files/host%2Fa.log", StatusCode::NOT_FOUND),
        ] {
            let (answer, body) = it.ask(Method::GET, path, None).await;
            assert_eq!(answer.status(), status, "{path}: {body}");
            assert!(body.contains("error"), "{body}");
        }
    }
}
