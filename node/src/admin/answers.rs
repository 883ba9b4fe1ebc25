use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get};
use serde::Deserialize;
use sheaf_proto::names::{
    CLUSTER_PATH, CONTROL_PORT, CURRENT_WINDOWS_PATH, FILES_PATH, LEDGER_PATH, MEMBERS_PATH,
    QUEUE_PATH, WINDOWS_PATH,
};

use super::refusal::Refusal;
use super::{Node, Scope, files, process};

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
        .route(QUEUE_PATH, get(queue))
        .route(FILES_PATH, get(files::list))
        .route(&format!("{FILES_PATH}/{{id}}/{{session}}"), get(files::read))
        .route(&format!("{MEMBERS_PATH}/{{*member}}"), any(elsewhere))
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

async fn queue(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.queue()).into_response()
}

pub(super) async fn cluster(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.cluster()).into_response()
}

/// Who asks here to change something is told where that is done.
async fn elsewhere() -> Refusal {
    let reason = format!(
        "members leave through the control port (--control-listen), {CONTROL_PORT} if nothing \
         else was said"
    );
    Refusal { status: StatusCode::NOT_FOUND, reason }
}

async fn unknown_path() -> Refusal {
    Refusal {
        status: StatusCode::NOT_FOUND,
        reason: format!(
            "no such path; there are /livez, /readyz, /metrics, \
             {WINDOWS_PATH}, {CURRENT_WINDOWS_PATH}, {LEDGER_PATH}, {CLUSTER_PATH}, \
             {QUEUE_PATH} and {FILES_PATH}"
        ),
    }
}

async fn wrong_method() -> Refusal {
    let reason = "only GET and HEAD".to_owned();
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, reason }
}

#[cfg(test)]
mod tests;
