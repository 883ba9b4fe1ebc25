//! What went wrong with a request, and how each protocol says so.
//!
//! Senders retry on some codes and drop the data on others, so each code below is a
//! promise: only [`Refusal::Busy`], [`Refusal::Old`] and [`Refusal::TooSlow`] over
//! gRPC, and only [`Refusal::Busy`] over HTTP, make a sender come back.

use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::intake::IntakeError;
use crate::intake::admission::Busy;

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It can never be taken: it is not what it says it is.
    #[error("{0}")]
    Undecodable(String),
    /// It can never be taken: as it comes, or decompressed, it is over the limit.
    #[error("the request is larger than {max} bytes")]
    TooLarge { max: usize },
    /// It can never be taken: it has more records than one request may have.
    #[error("{0}")]
    TooManyRecords(String),
    /// It may be taken later.
    #[error("{0}")]
    Busy(#[from] Busy),
    /// What is left of it may be taken at once, over another connection.
    #[error("the connection is old: send what was not answered over another one")]
    Old,
    /// Its body paused for too long, or took too long altogether.
    #[error("the request did not arrive in time")]
    TooSlow,
    /// The sender went away in the middle of the body.
    #[error("the connection broke before the request was complete: {0}")]
    Broken(String),
    /// It names a media type that is not taken here.
    #[error("{0}")]
    UnsupportedType(&'static str),
    /// It names a compression that is not taken here.
    #[error("unsupported compression {found:?}: use {}", taken.join(" or "))]
    UnsupportedCompression { found: String, taken: &'static [&'static str] },
    /// It asks for another method of a known path or service.
    #[error("{0}")]
    UnknownMethod(&'static str),
    /// It asks for a path that is not served.
    #[error("not found: {0}")]
    UnknownPath(String),
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Undecodable(reason) => Refusal::Undecodable(reason.to_string()),
            IntakeError::TooManyRecords => Refusal::TooManyRecords(error.to_string()),
            IntakeError::Busy(busy) => Refusal::Busy(busy),
        }
    }
}

impl Refusal {
    fn code(&self) -> Code {
        match self {
            Refusal::Undecodable(_) | Refusal::UnsupportedType(_) => Code::InvalidArgument,
            Refusal::TooLarge { .. } | Refusal::TooManyRecords(_) => Code::ResourceExhausted,
            Refusal::Busy(_) | Refusal::Old => Code::Unavailable,
            Refusal::TooSlow => Code::DeadlineExceeded,
            Refusal::Broken(_) => Code::Cancelled,
            Refusal::UnsupportedCompression { .. } | Refusal::UnknownMethod(_) => {
                Code::Unimplemented
            }
            Refusal::UnknownPath(_) => Code::NotFound,
        }
    }

    pub(super) fn http_status(&self) -> StatusCode {
        match self {
            Refusal::Undecodable(_) | Refusal::Broken(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLarge { .. } | Refusal::TooManyRecords(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Busy(_) | Refusal::Old => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::UnsupportedType(_) | Refusal::UnsupportedCompression { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Refusal::UnknownMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::UnknownPath(_) => StatusCode::NOT_FOUND,
        }
    }

    /// The gRPC status, with its details as a binary `google.rpc.Status`.
    pub(super) fn to_status(&self) -> tonic::Status {
        let mut details = ErrorDetails::new();
        match self {
            Refusal::Undecodable(reason) => {
                details.add_bad_request_violation("request", reason.as_str());
            }
            Refusal::Busy(busy) => {
                details.set_retry_info(Some(busy.retry_after));
            }
            Refusal::Old => {
                details.set_retry_info(Some(Duration::ZERO));
            }
            _ => {}
        }
        tonic::Status::with_error_details(self.code(), self.to_string(), details)
    }

    /// The same `google.rpc.Status`, in protobuf's JSON form.
    pub(super) fn to_json(&self) -> Value {
        let details = match self {
            Refusal::Undecodable(reason) => vec![json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "request", "description": reason}],
            })],
            Refusal::Busy(busy) => vec![json!({
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{:.9}s", busy.retry_after.as_secs_f64()),
            })],
            _ => vec![],
        };
        json!({"code": self.code() as i32, "message": self.to_string(), "details": details})
    }

    /// The header that goes with the HTTP status, if one does.
    pub(super) fn http_header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Refusal::Busy(busy) => Some((RETRY_AFTER, HeaderValue::from(whole_seconds(busy)))),
            Refusal::UnknownMethod(_) => Some((ALLOW, HeaderValue::from_static("POST"))),
            Refusal::UnsupportedCompression { taken, .. } => {
                Some((ACCEPT_ENCODING, HeaderValue::from_str(&taken.join(", ")).ok()?))
            }
            _ => None,
        }
    }
}

/// Rounds up or down at random, in proportion, so that the jitter survives; never to 0.
pub(super) fn whole_seconds(busy: &Busy) -> u64 {
    let jittered = busy.retry_after.as_secs_f64() + fastrand::f64();
    (jittered as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_too_many_records_must_not_be_sent_again_as_it_is() {
        let refusal = Refusal::from(IntakeError::TooManyRecords);
        assert_eq!(refusal.http_status(), StatusCode::PAYLOAD_TOO_LARGE);
        let status = refusal.to_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().is_none());
        assert!(status.message().contains("4194304 records"), "{}", status.message());
    }
}
