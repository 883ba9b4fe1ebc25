//! Whatever prost decodes, the scanner reads, and reads as it reads prost's own
//! encoding of it. Whatever prost does not decode, the scanner survives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use sheaf_node::event::fingerprint::FingerprintKey;
use sheaf_node::intake::scan::{Plan, Scan, Scanned, Scanner};
use sheaf_node::intake::wire::Undecodable;

// The first byte chooses the plan, the rest is the request.
fuzz_target!(|input: &[u8]| {
    let Some((&choice, request)) = input.split_first() else { return };
    let plan = plan(choice);
    let mut scanner = Scanner::new(FingerprintKey(*b"0123456789abcdef"));

    let scanned = scan(&mut scanner, &plan, request);
    let Ok(decoded) = ExportLogsServiceRequest::decode(request) else { return };
    let (scan_of_request, records) = scanned.expect("prost decodes it");
    assert_eq!(scan_of_request.accepted, records.len() as u64);

    let usual = decoded.encode_to_vec();
    let (scan_of_usual, usual_records) =
        scan(&mut scanner, &plan, &usual).expect("prost has encoded it");
    assert_eq!(scan_of_request, scan_of_usual);
    assert_eq!(records, usual_records);
});

fn plan(choice: u8) -> Plan {
    let mut attributes: Vec<Box<[u8]>> = Vec::new();
    for (bit, name) in [(1, "foo"), (2, ""), (4, "service.name"), (8, "foo")] {
        if choice & bit != 0 {
            attributes.push(name.as_bytes().into());
        }
    }
    Plan { attributes, body: choice & 16 != 0, record: choice & 32 != 0 }
}

/// A record as a scan tells it, kept.
#[derive(Debug, PartialEq)]
struct Record {
    values: Vec<Vec<u8>>,
    body: u128,
    record: u128,
}

impl Record {
    fn of(scanned: &Scanned<'_>) -> Record {
        let canonical = |value: &sheaf_node::event::value::AttributeValue<'_>| {
            let mut bytes = Vec::new();
            value.write_canonical(&mut bytes);
            bytes
        };
        Record {
            values: scanned.values.iter().map(canonical).collect(),
            body: scanned.body,
            record: scanned.record,
        }
    }
}

fn scan(
    scanner: &mut Scanner,
    plan: &Plan,
    request: &[u8],
) -> Result<(Scan, Vec<Record>), Undecodable> {
    let mut records = Vec::new();
    let scan = scanner.scan(plan, request, &mut |scanned| records.push(Record::of(scanned)))?;
    Ok((scan, records))
}
