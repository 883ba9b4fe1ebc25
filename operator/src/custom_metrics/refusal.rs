//! What is not answered, as the cluster's clients expect to be told: by a `Status`.

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// Why something is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody says who asks whom that is believed of.
    Unauthenticated,
    /// Whoever asks may not.
    Forbidden(String),
    /// There is no such thing.
    Unknown(String),
    /// It cannot be changed, or be asked for in this way.
    Method,
    /// The question makes no sense.
    Malformed(String),
    /// Not now.
    Unavailable(String),
}

impl Refusal {
    /// How it is told.
    pub(super) fn status(self) -> (StatusCode, Status) {
        let (code, reason, message) = match self {
            Refusal::Unauthenticated => {
                let message = "ask the cluster's API server, which says who you are";
                (StatusCode::UNAUTHORIZED, "Unauthorized", message.to_owned())
            }
            Refusal::Forbidden(message) => (StatusCode::FORBIDDEN, "Forbidden", message),
            Refusal::Unknown(message) => (StatusCode::NOT_FOUND, "NotFound", message),
            Refusal::Method => {
                let message = "this API is only read".to_owned();
                (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            }
            Refusal::Malformed(message) => (StatusCode::BAD_REQUEST, "BadRequest", message),
            Refusal::Unavailable(message) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
            }
        };
        let status = Status {
            status: Some("Failure".to_owned()),
            message: Some(message),
            reason: Some(reason.to_owned()),
            code: Some(code.as_u16().into()),
            ..Status::default()
        };
        (code, status)
    }
}
