//! JSON is refused, or becomes protobuf that is no longer than it and that the
//! scanner reads without rejecting a record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use sheaf_node::event::fingerprint::FingerprintKey;
use sheaf_node::intake::scan::{Plan, Scanner};
use sheaf_node::source::otlp::json::to_protobuf;

fuzz_target!(|json: &[u8]| {
    let Ok(transcoded) = to_protobuf(json) else { return };
    let request = &transcoded.request[..];
    assert!(request.len() <= json.len());

    let plan = Plan { attributes: vec![b"foo"[..].into()], body: true, record: true };
    let mut records = 0;
    let scan = Scanner::new(FingerprintKey([0; 16]))
        .scan(&plan, request, &mut |_| records += 1)
        .expect("the transcoder writes sound protobuf");
    assert_eq!(scan.rejected.total(), 0, "{:?}", scan.rejected.message());

    // prost nests less deep than OTLP's values may.
    if let Ok(decoded) = ExportLogsServiceRequest::decode(request) {
        let logs = decoded.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
        assert_eq!(records, logs.map(|logs| logs.log_records.len()).sum::<usize>());
    }
});
