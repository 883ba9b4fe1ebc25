//! What a node says to a request, and what OTLP wants done about it.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;

use crate::status;

/// What to do next with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Forget it. Some of its records may have been refused for good.
    Acknowledged {
        /// The records that were refused.
        rejected: u64,
        /// Why, or a warning.
        message: String,
    },
    /// Send it again: after a time, if the node told one.
    Later {
        /// What the node told.
        after: Option<Duration>,
        /// What it gave as the reason.
        reason: String,
    },
    /// Do not send it again.
    Refused {
        /// What the node gave as the reason.
        reason: String,
    },
}

/// The request or its answer got lost: nobody knows whether it was taken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Lost(pub(crate) String);

// gRPC's status codes, as far as OTLP tells them apart.
const OK: u16 = 0;
const CANCELLED: u16 = 1;
const DEADLINE_EXCEEDED: u16 = 4;
const RESOURCE_EXHAUSTED: u16 = 8;
const ABORTED: u16 = 10;
const OUT_OF_RANGE: u16 = 11;
const UNAVAILABLE: u16 = 14;
const DATA_LOSS: u16 = 15;

/// Reads a gRPC answer: its trailers (or headers, if there is nothing else) and,
/// without its prefix, its message.
///
/// # Errors
/// `Lost` if there is no status in it.
pub(crate) fn from_grpc(trailers: &HeaderMap, message: &[u8]) -> Result<Answer, Lost> {
    let status::Status { code, reason, retry_after: after } =
        status::read(trailers).ok_or_else(|| Lost("the answer has no grpc-status".into()))?;
    if code == OK {
        return Ok(acknowledged(message));
    }
    Ok(match code {
        CANCELLED | DEADLINE_EXCEEDED | ABORTED | OUT_OF_RANGE | UNAVAILABLE | DATA_LOSS => {
            Answer::Later { after, reason }
        }
        RESOURCE_EXHAUSTED if after.is_some() => Answer::Later { after, reason },
        _ => Answer::Refused { reason },
    })
}

/// Reads an answer to OTLP over HTTP.
pub(crate) fn from_http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    if status.is_success() {
        return acknowledged(body);
    }
    let reason = match tonic_types::Status::decode(body) {
        Ok(told) if !told.message.is_empty() => format!("{status}: {}", told.message),
        _ => status.to_string(),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let seconds =
                headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Answer::Later { after: seconds.map(Duration::from_secs), reason }
        }
        _ => Answer::Refused { reason },
    }
}

/// An answer that cannot be read is a success all the same: the status says so.
fn acknowledged(message: &[u8]) -> Answer {
    let partial = ExportLogsServiceResponse::decode(message)
        .ok()
        .and_then(|response| response.partial_success)
        .unwrap_or_default();
    let rejected = u64::try_from(partial.rejected_log_records).unwrap_or(0);
    Answer::Acknowledged { rejected, message: partial.error_message }
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::Engine;
    use http::HeaderValue;

    use super::*;
    use crate::status::BASE64;

    const TYPE_URL: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";

    /// The wire form of google.rpc.Status with a RetryInfo of so many milliseconds, below
    /// 1,000; base64.
    pub(crate) fn retry_info(milliseconds: u64) -> String {
        let mut duration = vec![0x10];
        prost::encoding::encode_varint(milliseconds * 1_000_000, &mut duration);
        let info = [&[0x0a, duration.len() as u8], &duration[..]].concat();
        let any =
            [&[0x0a, TYPE_URL.len() as u8], TYPE_URL, &[0x12, info.len() as u8], &info].concat();
        let status = [&[0x08, 14, 0x1a, any.len() as u8], &any[..]].concat();
        BASE64.encode(status)
    }

    fn grpc(code: u16, details: Option<String>) -> Answer {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        trailers.insert("grpc-message", HeaderValue::from_static("50%25 full"));
        if let Some(details) = details {
            trailers.insert("grpc-status-details-bin", details.parse().unwrap());
        }
        from_grpc(&trailers, &[]).unwrap()
    }

    fn later(after: Option<u64>, reason: &str) -> Answer {
        Answer::Later { after: after.map(Duration::from_millis), reason: reason.into() }
    }

    #[test]
    fn unavailable_is_sent_again_after_the_time_that_was_told() {
        let reason = "UNAVAILABLE: 50% full";
        assert_eq!(grpc(UNAVAILABLE, Some(retry_info(700))), later(Some(700), reason));
        let unpadded = retry_info(700).trim_end_matches('=').to_owned();
        assert_eq!(grpc(UNAVAILABLE, Some(unpadded)), later(Some(700), reason));
        assert_eq!(grpc(UNAVAILABLE, None), later(None, reason));
        assert_eq!(grpc(UNAVAILABLE, Some("?".into())), later(None, reason));
    }

    #[test]
    fn resource_exhausted_is_sent_again_only_if_a_time_was_told() {
        let reason = "RESOURCE_EXHAUSTED: 50% full";
        assert_eq!(grpc(RESOURCE_EXHAUSTED, Some(retry_info(1))), later(Some(1), reason));
        assert_eq!(grpc(RESOURCE_EXHAUSTED, None), Answer::Refused { reason: reason.into() });
    }

    #[test]
    fn grpc_codes_are_retried_as_otlp_lists_them() {
        let retried = (1..=16).filter(|&code| matches!(grpc(code, None), Answer::Later { .. }));
        assert_eq!(retried.collect::<Vec<_>>(), [1, 4, 10, 11, 14, 15]);
    }

    #[test]
    fn an_answer_without_a_status_is_lost() {
        assert!(from_grpc(&HeaderMap::new(), &[]).is_err());
    }

    #[test]
    fn http_statuses_are_retried_as_otlp_lists_them() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        for status in 300..600 {
            let status = StatusCode::from_u16(status).unwrap();
            let again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
            match from_http(status, &headers, &[]) {
                Answer::Later { after, .. } => {
                    assert!(again, "{status}");
                    assert_eq!(after, Some(Duration::from_secs(7)));
                }
                Answer::Refused { .. } => assert!(!again, "{status}"),
                Answer::Acknowledged { .. } => panic!("{status}"),
            }
        }
    }

    #[test]
    fn the_reason_is_what_the_node_wrote() {
        let status = [&[0x08, 3, 0x12, 8][..], b"no proto"].concat();
        let reason = "400 Bad Request: no proto".into();
        let answer = from_http(StatusCode::BAD_REQUEST, &HeaderMap::new(), &status);
        assert_eq!(answer, Answer::Refused { reason });
    }

    #[test]
    fn a_partial_success_tells_what_was_refused() {
        let partial = [&[0x0a, 6, 0x08, 5, 0x12, 2][..], b"no"].concat();
        let answer = Answer::Acknowledged { rejected: 5, message: "no".into() };
        assert_eq!(from_http(StatusCode::OK, &HeaderMap::new(), &partial), answer);
        let answer = Answer::Acknowledged { rejected: 0, message: String::new() };
        assert_eq!(from_http(StatusCode::OK, &HeaderMap::new(), &[]), answer);
    }
}
