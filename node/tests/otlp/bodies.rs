use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;

/// One record with a body of so many bytes, in protobuf.
pub(crate) fn logs(bytes: usize) -> Bytes {
    let body = AnyValue { value: Some(Value::StringValue("x".repeat(bytes))) };
    let record = LogRecord { body: Some(body), ..Default::default() };
    let scope = ScopeLogs { log_records: vec![record], ..Default::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec().into()
}

/// [`logs`] in JSON.
pub(crate) fn json_logs(bytes: usize) -> Bytes {
    let body = "x".repeat(bytes);
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{body}"}}}}]}}]}}]}}"#)
        .into()
}

/// A field that claims to be longer than what follows.
pub(crate) const UNDECODABLE: &[u8] = &[0x0a, 0x7f, 0x01];

/// One gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Bytes {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut compressed = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor.gzip_compress(bytes, &mut compressed).unwrap();
    compressed.truncate(length);
    compressed.into()
}

/// A gRPC message behind its prefix.
pub(crate) fn message(flag: u8, bytes: &[u8]) -> Bytes {
    let mut message = vec![flag];
    message.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    message.extend_from_slice(bytes);
    message.into()
}
