//! An answer that says what is wrong.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;

use super::AdminError;

/// After how many seconds it may be otherwise.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// An answer that says what is wrong: `{"error": ".."}`.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn query(rejection: &QueryRejection) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, reason: rejection.body_text() }
    }

    pub(super) fn path(rejection: &PathRejection) -> Self {
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
        let mut answer = (self.status, Json(json!({ "error": self.reason }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        answer
    }
}
