//! Probes and metrics.
//!
//! An operator is alive whatever the API server says. It is ready when it has seen all that it
//! looks after, or that another one acts; what becomes of the API server after that changes nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::metrics::Metrics;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is told.
#[derive(Clone)]
pub struct Told {
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
    /// Whether it is ready.
    pub ready: watch::Receiver<bool>,
}

/// Answers on `listener` until `stop`.
pub async fn serve(listener: TcpListener, told: Told, stop: CancellationToken) {
    let served =
        axum::serve(listener, router(told)).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        error!(%error, "probes and metrics are not answered any more");
    }
}

fn router(told: Told) -> Router {
    Router::new()
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(told)
}

/// That this is answered is the answer.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(told): State<Told>) -> (StatusCode, &'static str) {
    if *told.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not everything was seen yet\n")
    }
}

async fn metrics(State(told): State<Told>) -> Response {
    match told.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn get(path: &str, ready: bool) -> (StatusCode, String) {
        let told = Told { metrics: Arc::default(), ready: watch::channel(ready).1 };
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(told).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn an_operator_is_alive_before_it_is_ready() {
        assert_eq!(get("/livez", false).await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(get("/readyz", false).await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get("/readyz", true).await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_told() {
        let (status, text) = get("/metrics", true).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("sheaf_operator_leader 0") && text.ends_with("# EOF\n"), "{text}");
    }
}
