//! Probes and metrics.
//!
//! They say how the process is, not how the API server is: an operator that waits for it, or for
//! the lease, is as it should be.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::metrics::Metrics;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers on `listener` until `stop`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    let served =
        axum::serve(listener, router(metrics)).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        error!(%error, "probes and metrics are not answered any more");
    }
}

fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(well))
        .route("/readyz", get(well))
        .route("/metrics", get(told))
        .with_state(metrics)
}

/// That this is answered is the answer.
async fn well() -> &'static str {
    "ok\n"
}

async fn told(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
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

    async fn get(path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(Arc::default()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_standby_is_alive_and_ready() {
        assert_eq!(get("/livez").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(get("/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_told() {
        let (status, text) = get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("sheaf_operator_leader 0") && text.ends_with("# EOF\n"), "{text}");
    }
}
