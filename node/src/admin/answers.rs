use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use sheaf_proto::names::{
    CLUSTER_PATH, CURRENT_WINDOWS_PATH, LEDGER_PATH, MEMBERS_PATH, WINDOWS_PATH, member_path,
};

use super::{AdminError, Node, Scope, process};

/// An hour of one-second windows.
pub(super) const WINDOWS_DEFAULT: usize = 3_600;
pub(super) const WINDOWS_MAX: usize = 36_000;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every path of the admin port.
pub fn router(node: Arc<dyn Node>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route(WINDOWS_PATH, get(closed_windows))
        .route(CURRENT_WINDOWS_PATH, get(current_windows))
        .route(LEDGER_PATH, get(ledger))
        .route(CLUSTER_PATH, get(cluster))
        .route(&member_path("{id}", "drain"), post(drain))
        .route(&member_path("{id}", "forget"), post(forget))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(node)
}

/// That this is answered is the answer.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(node): State<Arc<dyn Node>>) -> Response {
    match node.readiness() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

async fn metrics(State(node): State<Arc<dyn Node>>) -> Response {
    let mut text = String::new();
    node.metrics(&mut text);
    process::metrics(&mut text);
    text.push_str("# EOF\n");
    ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsQuery {
    #[serde(default)]
    scope: Scope,
    limit: Option<usize>,
}

async fn closed_windows(
    State(node): State<Arc<dyn Node>>,
    query: Result<Query<WindowsQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(WindowsQuery { scope, limit }) =
        query.map_err(|rejection| Refusal::query(&rejection))?;
    let limit = limit.unwrap_or(WINDOWS_DEFAULT).min(WINDOWS_MAX);
    Ok(Json(node.closed_windows(scope, limit).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeQuery {
    #[serde(default)]
    scope: Scope,
}

async fn current_windows(
    State(node): State<Arc<dyn Node>>,
    query: Result<Query<ScopeQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(ScopeQuery { scope }) = query.map_err(|rejection| Refusal::query(&rejection))?;
    Ok(Json(node.current_windows(scope).await?).into_response())
}

async fn ledger(
    State(node): State<Arc<dyn Node>>,
    query: Result<Query<ScopeQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(ScopeQuery { scope }) = query.map_err(|rejection| Refusal::query(&rejection))?;
    Ok(Json(node.ledger(scope).await?).into_response())
}

async fn cluster(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.cluster()).into_response()
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

async fn unknown_path() -> Refusal {
    Refusal {
        status: StatusCode::NOT_FOUND,
        reason: format!(
            "no such path; there are /livez, /readyz, /metrics, \
             {WINDOWS_PATH}, {CURRENT_WINDOWS_PATH}, {LEDGER_PATH}, {CLUSTER_PATH}, \
             {} and {}",
            member_path("ID", "drain"),
            member_path("ID", "forget")
        ),
    }
}

async fn wrong_method() -> Refusal {
    let reason = format!("only GET and HEAD, and below {MEMBERS_PATH} only POST");
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, reason }
}

/// An answer that says what is wrong: `{"error": ".."}`.
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn query(rejection: &QueryRejection) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, reason: rejection.body_text() }
    }

    fn path(rejection: &PathRejection) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, reason: rejection.body_text() }
    }
}

impl From<AdminError> for Refusal {
    fn from(error: AdminError) -> Self {
        let status = match error {
            AdminError::Unknown(_) => StatusCode::NOT_FOUND,
            AdminError::Refused(_) => StatusCode::CONFLICT,
            AdminError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            AdminError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal { status, reason: error.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.reason }))).into_response()
    }
}

#[cfg(test)]
mod tests;
