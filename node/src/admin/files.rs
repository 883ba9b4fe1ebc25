//! Rebuilt files: lists, and what is in one (RFC 9110).

mod conditions; // what of a file a request asks for

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use sheaf_proto::names::{FILE_WAITS_FOR_HEADER, FILES_MAX};

use super::connections::Followers;
use super::refusal::Refusal;
use super::{AdminError, Content, Listing, Node, Scope};
use conditions::{Wanted, wanted};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
const FILES_DEFAULT: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesQuery {
    #[serde(default)]
    scope: Scope,
    id: Option<String>,
    prefix: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileQuery {
    #[serde(default)]
    scope: Scope,
}

impl TryFrom<FilesQuery> for Listing {
    type Error = Refusal;

    fn try_from(query: FilesQuery) -> Result<Listing, Refusal> {
        let FilesQuery { scope, id, prefix, limit, next } = query;
        if id.is_some() && prefix.is_some() {
            return Err(bad("there is an id or a prefix, and not both"));
        }
        let after = next.map(|next| after(&next).ok_or_else(|| bad("no list goes on like this")));
        let limit = limit.unwrap_or(FILES_DEFAULT).clamp(1, FILES_MAX);
        Ok(Listing {
            scope,
            id,
            prefix: prefix.unwrap_or_default(),
            after: after.transpose()?,
            limit,
        })
    }
}

/// The file that a list ended with, as `continue` names it: the session, a slash, the id.
fn after(next: &str) -> Option<(String, u64)> {
    let (session, id) = next.split_once('/')?;
    Some((id.to_owned(), session.parse().ok()?))
}

fn bad(reason: &str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, reason: reason.to_owned() }
}

pub(super) async fn list(
    State(node): State<Arc<dyn Node>>,
    query: Result<Query<FilesQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|rejection| Refusal::query(&rejection))?;
    Ok(Json(node.files(query.try_into()?).await?).into_response())
}

/// The content of a file, or the part of it that the request asks for.
pub(super) async fn read(
    State(node): State<Arc<dyn Node>>,
    name: Result<Path<(String, u64)>, PathRejection>,
    query: Result<Query<FileQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path((id, session)) = name.map_err(|rejection| Refusal::path(&rejection))?;
    let Query(FileQuery { scope }) = query.map_err(|rejection| Refusal::query(&rejection))?;
    let content = node.file(scope, id, session).await?;
    let mut answer = (StatusCode::OK, head(&content)?).into_response();
    let part = match wanted(request.headers(), &content.tag, content.bytes) {
        Wanted::Whole => 0..content.bytes,
        Wanted::Part(part) => {
            let range = format!("bytes {}-{}/{}", part.start, part.end - 1, content.bytes);
            restrict(&mut answer, StatusCode::PARTIAL_CONTENT, &range)?;
            part
        }
        Wanted::Beyond => {
            let range = format!("bytes */{}", content.bytes);
            restrict(&mut answer, StatusCode::RANGE_NOT_SATISFIABLE, &range)?;
            return Ok(answer);
        }
        Wanted::Nothing(status) => {
            *answer.status_mut() = status;
            return Ok(answer);
        }
    };
    // Some of it in the place of all would be taken for all.
    if part.start < content.removed.min(content.bytes) {
        return Err(gone(&content));
    }
    answer.headers_mut().insert(header::CONTENT_LENGTH, (part.end - part.start).into());
    if request.method() == Method::HEAD || part.is_empty() {
        return Ok(answer);
    }
    let mut pieces = (content.read)(part).await?;
    if let Some(connection) = request.extensions().get::<Followers>() {
        pieces = connection.follow(pieces, || {
            io::Error::other("the connection is old, or the node stops: ask for the rest")
        });
    }
    *answer.body_mut() = Body::from_stream(pieces);
    Ok(answer)
}

/// Says what cannot be read any more, and what can.
fn gone(content: &Content) -> Refusal {
    let Content { bytes, removed, .. } = content;
    let reason = if removed < bytes {
        format!(
            "the first {removed} bytes of it were removed because of their age: ask for the rest \
             with Range: bytes={removed}-"
        )
    } else {
        format!("all {bytes} bytes of it were removed because of their age: nothing is left")
    };
    Refusal { status: StatusCode::GONE, reason }
}

/// Says which bytes of the file this is about.
fn restrict(answer: &mut Response, status: StatusCode, range: &str) -> Result<(), Refusal> {
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_RANGE, value(range)?);
    Ok(())
}

/// What is said of the whole file.
fn head(content: &Content) -> Result<HeaderMap, Refusal> {
    let mut head = HeaderMap::new();
    // Whatever its name looks like, nothing is assumed of what is in it.
    head.insert(header::CONTENT_TYPE, OCTETS);
    head.insert(header::ACCEPT_RANGES, BYTES);
    head.insert(header::ETAG, value(&content.tag)?);
    if let Some(node) = content.waits_for {
        head.insert(FILE_WAITS_FOR_HEADER, HeaderValue::from(node));
    }
    Ok(head)
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    let value = HeaderValue::from_str(text);
    value.map_err(|error| AdminError::Internal(error.to_string()).into())
}

#[cfg(test)]
mod tests;
