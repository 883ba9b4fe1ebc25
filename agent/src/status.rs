//! The status that ends a gRPC answer.

use std::time::Duration;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderMap;
use prost::Message;
use tonic_types::RpcStatusExt;

const CODE_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// gRPC wants readers to take base64 with padding and without.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a gRPC answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u16,
    /// The code's name and what the node said.
    pub(crate) reason: String,
    /// How long the node asks to be left alone (RetryInfo).
    pub(crate) retry_after: Option<Duration>,
}

/// The status in trailers, or in headers, if there is nothing else.
pub(crate) fn read(trailers: &HeaderMap) -> Option<Status> {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    let code: u16 = text("grpc-status")?.parse().ok()?;
    let name = CODE_NAMES.get(usize::from(code)).unwrap_or(&"an unknown code");
    let reason = match text("grpc-message") {
        Some(message) if !message.is_empty() => format!("{name}: {}", percent_decoded(message)),
        _ => (*name).to_owned(),
    };
    let retry_after = text("grpc-status-details-bin")
        .and_then(|details| BASE64.decode(details).ok())
        .and_then(|details| tonic_types::Status::decode(&details[..]).ok())
        .and_then(|status| status.get_details_retry_info())
        .and_then(|info| info.retry_delay);
    Some(Status { code, reason, retry_after })
}

/// gRPC escapes a status message as URLs do.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
