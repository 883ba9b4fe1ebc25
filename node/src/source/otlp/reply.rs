//! The answer to a request that was taken: `ExportLogsServiceResponse`.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};

use crate::intake::Exported;

#[derive(Clone, PartialEq, prost::Message)]
struct ExportLogsServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<ExportLogsPartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportLogsPartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_log_records: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// The specification wants `partial_success` absent if all went well.
fn partial_success(exported: Exported) -> Option<ExportLogsPartialSuccess> {
    let partial = exported.rejected > 0 || exported.message.is_some();
    partial.then(|| ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(exported.rejected).unwrap_or(i64::MAX),
        error_message: exported.message.unwrap_or_default(),
    })
}

/// The response in protobuf.
pub(super) fn to_protobuf(exported: Exported) -> Bytes {
    ExportLogsServiceResponse { partial_success: partial_success(exported) }.encode_to_vec().into()
}

/// The response in OTLP's JSON, where 64-bit integers are strings.
pub(super) fn to_json(exported: Exported) -> Value {
    match partial_success(exported) {
        None => json!({}),
        Some(partial) => json!({"partialSuccess": {
            "rejectedLogRecords": partial.rejected_log_records.to_string(),
            "errorMessage": partial.error_message,
        }}),
    }
}
