//! Holds the scanner to a plain decode: the same requests, written in the usual way,
//! written oddly, and damaged, have to be read alike.
#![allow(clippy::unwrap_used)]

mod differential {
    pub(crate) mod generate; // requests, as structs
    pub(crate) mod odd; // requests, encoded as no exporter would
    pub(crate) mod reference; // look-up, canonical bytes, fingerprints: the plain way
}

use differential::{generate, odd, reference};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use prost::Message;
use reference::{KEY, Visit};
use sheaf_node::event::fingerprint::FingerprintKey;
use sheaf_node::intake::scan::{Plan, Scan, Scanner};
use sheaf_node::intake::wire::Undecodable;

/// What a scan visits.
fn scan(plan: &Plan, request: &[u8]) -> Result<(Scan, Vec<Visit>), Undecodable> {
    let mut visits = Vec::new();
    let scan = Scanner::new(FingerprintKey(KEY)).scan(plan, request, &mut |scanned| {
        let canonical = |value: &sheaf_node::event::value::AttributeValue<'_>| {
            let mut out = Vec::new();
            value.write_canonical(&mut out);
            out
        };
        visits.push(Visit {
            values: scanned.values.iter().map(canonical).collect(),
            body: scanned.body,
            record: scanned.record,
        });
    })?;
    Ok((scan, visits))
}

/// Whatever `prost` decodes, the scanner has to read alike; what the scanner calls
/// undecodable, `prost` must not decode. Whether it did.
fn hold_to_decode(plan: &Plan, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(decoded) = ExportLogsServiceRequest::decode(bytes) else {
        // Nothing is promised but to return.
        drop(scan(plan, bytes));
        return Ok(false);
    };
    let (scan, visits) =
        scan(plan, bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(scan.rejected.total(), 0, "{:?}", scan.rejected.message());
    prop_assert_eq!(scan.accepted, visits.len() as u64);
    prop_assert_eq!(visits, reference::visits(plan, &decoded));
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_in_the_usual_encoding_is_read_as_decoded(
        plan in generate::plan(),
        request in generate::request(),
    ) {
        prop_assert!(hold_to_decode(&plan, &request.encode_to_vec())?);
    }

    #[test]
    fn an_odd_encoding_is_read_like_the_usual_one(
        plan in generate::plan(),
        request in generate::request(),
        seed in any::<u64>(),
    ) {
        let bytes = odd::encode(&request, seed);
        prop_assert!(hold_to_decode(&plan, &bytes)?, "the odd encoding itself is wrong");
        // And it is an encoding of the same request, not just of some.
        prop_assert_eq!(scan(&plan, &bytes), scan(&plan, &request.encode_to_vec()));
    }

    #[test]
    fn damaged_requests_are_read_as_decoded_or_refused(
        plan in generate::plan(),
        request in generate::request(),
        seed in any::<u64>(),
        is_odd in any::<bool>(),
    ) {
        let whole = if is_odd { odd::encode(&request, seed) } else { request.encode_to_vec() };
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..32 {
            hold_to_decode(&plan, &damage(&whole, &mut rng))?;
        }
    }

    #[test]
    fn any_bytes_are_read_as_decoded_or_refused(
        plan in generate::plan(),
        bytes in prop::collection::vec(prop::sample::select(LIKELY_BYTES), 0..24),
    ) {
        hold_to_decode(&plan, &bytes)?;
    }
}

/// Bytes that mean something in many places: tags, small lengths, ends of groups.
const LIKELY_BYTES: &[u8] = &[
    0, 1, 2, 3, 4, 8, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x10, 0x12, 0x1a, 0x2a, 0x32, 0x3a, 0x40, 0x80,
    0xff, b'f', b'o',
];

/// One to three small changes of `bytes`.
fn damage(bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.usize(1..=3) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.usize(..bytes.len());
        let end = (at + rng.usize(1..8)).min(bytes.len());
        match rng.u8(..6) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes[at] = LIKELY_BYTES[rng.usize(..LIKELY_BYTES.len())],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.insert(at, LIKELY_BYTES[rng.usize(..LIKELY_BYTES.len())]),
            _ => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

#[test]
fn damage_often_leaves_a_request_that_decodes() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut decoded = 0;
    for _ in 0..200 {
        let request =
            generate::request().new_tree(&mut runner).expect("a request").current().encode_to_vec();
        decoded +=
            usize::from(ExportLogsServiceRequest::decode(&*damage(&request, &mut rng)).is_ok());
    }
    assert!((20..180).contains(&decoded), "{decoded} of 200");
}
