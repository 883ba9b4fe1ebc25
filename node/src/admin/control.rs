//! The control port: what changes a cluster, for those whom a [`Guard`] lets in.

use std::num::NonZeroU64;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use sheaf_proto::names::{CLUSTER_PATH, MEMBERS_PATH, THROTTLE_PATH, member_path};

use super::Node;
use super::answers::cluster;
use super::guard::Guard;
use super::refusal::Refusal;

/// Every path of the control port.
pub(super) fn router(node: Arc<dyn Node>, guard: Guard) -> Router {
    Router::new()
        .route(CLUSTER_PATH, get(cluster))
        .route(&member_path("{id}", "drain"), post(drain))
        .route(&member_path("{id}", "forget"), post(forget))
        .route(THROTTLE_PATH, post(throttle).delete(lift_throttle))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(guard, admit))
        .with_state(node)
}

async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.admit(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(denied) => denied,
    }
}

async fn drain(
    State(node): State<Arc<dyn Node>>,
    member: Result<Path<u64>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(member) = member.map_err(|rejection| Refusal::path(&rejection))?;
    Ok((StatusCode::ACCEPTED, Json(node.drain(member).await?)).into_response())
}

async fn forget(
    State(node): State<Arc<dyn Node>>,
    member: Result<Path<u64>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(member) = member.map_err(|rejection| Refusal::path(&rejection))?;
    Ok((StatusCode::ACCEPTED, Json(node.forget(member).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThrottleQuery {
    bytes_per_second: NonZeroU64,
}

async fn throttle(
    State(node): State<Arc<dyn Node>>,
    query: Result<Query<ThrottleQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(ThrottleQuery { bytes_per_second }) =
        query.map_err(|rejection| Refusal::query(&rejection))?;
    node.throttle(Some(bytes_per_second));
    Ok(Json(node.queue()).into_response())
}

async fn lift_throttle(State(node): State<Arc<dyn Node>>) -> Response {
    node.throttle(None);
    Json(node.queue()).into_response()
}

async fn unknown_path() -> Refusal {
    let (drain, forget) = (member_path("ID", "drain"), member_path("ID", "forget"));
    let reason = format!(
        "no such path on this port; there are {CLUSTER_PATH}, {drain}, {forget}, {THROTTLE_PATH}"
    );
    Refusal { status: StatusCode::NOT_FOUND, reason }
}

async fn wrong_method() -> Refusal {
    let reason = format!(
        "{CLUSTER_PATH} takes only GET and HEAD, what is below {MEMBERS_PATH} only POST, \
         {THROTTLE_PATH} only POST and DELETE"
    );
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, reason }
}

#[cfg(test)]
mod tests;
