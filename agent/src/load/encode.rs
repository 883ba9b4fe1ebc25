//! OTLP requests, encoded once with gaps of fixed width. Filling the gaps in makes
//! another request out of the same bytes, for a few nanoseconds per record.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message;

use super::corpus::Corpus;

/// What precedes a message in gRPC: a flag for compression and a length.
pub(crate) const GRPC_PREFIX_BYTES: usize = 5;
/// More values would not fit in the digits of `write_digits`.
pub(crate) const VALUES_MAX: u32 = 100_000_000;

const RESOURCES: usize = 4;
const SCOPES_PER_RESOURCE: usize = 2;

const ID_BYTES: usize = 16;
const VALUE_PREFIX: &str = "/api/v1/resource";
const VALUE_SUFFIX: &str = "/items";
/// Tag and length of the `AnyValue`, tag and length of its string: all below
/// 128 and so one byte each.
const VALUE_HEADER_BYTES: usize = 4;

// Gaps while encoding: control characters, which no option can bring in.
const ID_GAP: u8 = 0x01;
const VALUE_GAP: u8 = 0x02;

/// What a template is made for.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    /// The attribute that carries the value: ASCII, not empty.
    pub(crate) attribute: String,
    /// How many values there are; decides the digits.
    pub(crate) values: u32,
    /// Whether the gRPC prefix precedes the message.
    pub(crate) grpc_prefix: bool,
    /// The time of the first record, in nanoseconds since 1970.
    pub(crate) time: u64,
}

impl Form {
    fn digits(&self) -> usize {
        (self.values.max(2) - 1).ilog10() as usize + 1
    }

    /// The text of a value.
    pub(crate) fn value_text(&self, value: u32) -> String {
        format!("{VALUE_PREFIX}{value:0width$}{VALUE_SUFFIX}", width = self.digits())
    }
}

/// An encoded request with gaps, of which the corpus fills in two per record:
/// the id in the body, and the digits of the attribute's value.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Bytes,
    gaps: Rc<Gaps>,
}

#[derive(Debug)]
struct Gaps {
    records: Vec<Gap>,
    digits: usize,
    /// The last letter of the attribute's name, and the one that makes another
    /// name of it: what a record without the attribute has instead.
    name_ends: [u8; 2],
}

#[derive(Debug)]
struct Gap {
    id: u32,
    digits: u32,
}

impl Template {
    /// A request of `records` records of about 350 bytes each, in four resources
    /// of two scopes. Ten attributes, the chosen one among them, are spread over
    /// record, scope and resource.
    pub(crate) fn new(form: &Form, records: usize, random: &mut fastrand::Rng) -> Self {
        let request = request(form, records, random);
        let mut bytes = Vec::with_capacity(GRPC_PREFIX_BYTES + request.encoded_len());
        if form.grpc_prefix {
            bytes.extend_from_slice(&grpc_prefix(false, request.encoded_len()));
        }
        bytes.extend_from_slice(&request.encode_to_vec());
        let gaps = Rc::new(Gaps::find(form, &bytes));
        assert_eq!(gaps.records.len(), records, "each record has its gaps");
        Template { bytes: bytes.into(), gaps }
    }

    /// Makes it the request that begins with the corpus' record `first`. Copies
    /// the bytes only if somebody still holds what `bytes` returned.
    pub(crate) fn fill(self, corpus: &Corpus, first: u64) -> Self {
        let mut bytes =
            self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        for (record, gap) in (first..).zip(&self.gaps.records) {
            let body = corpus.body(record);
            write_hex(corpus.id(body), &mut bytes[gap.id as usize..][..ID_BYTES]);
            let digits = gap.digits as usize;
            let value = corpus.value(body);
            write_digits(value.unwrap_or(0), &mut bytes[digits..][..self.gaps.digits]);
            bytes[digits - VALUE_PREFIX.len() - VALUE_HEADER_BYTES - 1] =
                self.gaps.name_ends[usize::from(value.is_none())];
        }
        Template { bytes: bytes.freeze(), gaps: self.gaps }
    }

    /// The request as it stands.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Gaps {
    fn find(form: &Form, bytes: &[u8]) -> Self {
        let digits = form.digits();
        let mut records = Vec::new();
        let mut from = 0;
        while let Some(id) = find(bytes, from, &[ID_GAP; ID_BYTES])
            && let Some(value) = find(bytes, id, &vec![VALUE_GAP; digits])
        {
            records.push(Gap { id: id as u32, digits: value as u32 });
            from = value;
        }
        let last = form.attribute.as_bytes().last().copied().unwrap_or_default();
        Gaps { records, digits, name_ends: [last, if last == b'_' { b'-' } else { b'_' }] }
    }
}

fn find(bytes: &[u8], from: usize, gap: &[u8]) -> Option<usize> {
    bytes[from..].windows(gap.len()).position(|window| window == gap).map(|at| from + at)
}

/// The five bytes before a message.
pub(crate) fn grpc_prefix(compressed: bool, length: usize) -> [u8; GRPC_PREFIX_BYTES] {
    let mut prefix = [u8::from(compressed); GRPC_PREFIX_BYTES];
    prefix[1..].copy_from_slice(&(length as u32).to_be_bytes());
    prefix
}

fn write_hex(number: u64, gap: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in gap.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn write_digits(mut number: u32, gap: &mut [u8]) {
    for digit in gap.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn request(form: &Form, records: usize, random: &mut fastrand::Rng) -> ExportLogsServiceRequest {
    let scopes = RESOURCES * SCOPES_PER_RESOURCE;
    let resource_logs = (0..RESOURCES)
        .map(|resource| {
            let scope_logs = (0..SCOPES_PER_RESOURCE)
                .filter_map(|scope| {
                    let part = resource * SCOPES_PER_RESOURCE + scope;
                    let share = records / scopes + usize::from(part < records % scopes);
                    (share > 0).then(|| scope_logs(form, scope, share, random))
                })
                .collect::<Vec<_>>();
            let attributes = vec![
                text("service.name", format!("checkout-{}", random.u32(..12))),
                text("k8s.namespace.name", "prod"),
                text("k8s.pod.name", format!("checkout-6f7d9c5b8-{:05}", random.u32(..300))),
                text("host.name", format!("ip-10-0-{}-{resource}", random.u8(..250))),
            ];
            let resource = Resource { attributes: others(form, attributes), ..Default::default() };
            ResourceLogs { resource: Some(resource), scope_logs, ..Default::default() }
        })
        .filter(|resource| !resource.scope_logs.is_empty())
        .collect();
    ExportLogsServiceRequest { resource_logs }
}

fn scope_logs(form: &Form, scope: usize, records: usize, random: &mut fastrand::Rng) -> ScopeLogs {
    let log_records = (0..records as u64).map(|index| log_record(form, index, random)).collect();
    let scope = InstrumentationScope {
        name: format!("com.example.shop.module{scope}"),
        version: "1.4.2".into(),
        attributes: others(form, vec![text("team", "payments")]),
        ..Default::default()
    };
    ScopeLogs { scope: Some(scope), log_records, ..Default::default() }
}

fn log_record(form: &Form, index: u64, random: &mut fastrand::Rng) -> LogRecord {
    let time_unix_nano = form.time + index * 1_000;
    let id = char::from(ID_GAP).to_string().repeat(ID_BYTES);
    let digits = char::from(VALUE_GAP).to_string().repeat(form.digits());
    let mut attributes = others(
        form,
        vec![
            text("log.file.name", "app.log"),
            text("http.request.method", "POST"),
            integer("http.response.status_code", random.i64(200..500)),
            text("thread.name", format!("worker-{}", random.u8(..64))),
        ],
    );
    attributes.push(text(&form.attribute, format!("{VALUE_PREFIX}{digits}{VALUE_SUFFIX}")));
    let mut trace_id = vec![0; 16];
    let mut span_id = vec![0; 8];
    random.fill(&mut trace_id);
    random.fill(&mut span_id);
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano: time_unix_nano + 777,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(string(format!(
            "order {id} processed by worker 17 in region eu-west-1: \
             payment gateway returned status code 200 after 2 retries, total=ok"
        ))),
        attributes,
        trace_id,
        span_id,
        ..Default::default()
    }
}

/// Without the chosen attribute, which would otherwise be there twice.
fn others(form: &Form, mut attributes: Vec<KeyValue>) -> Vec<KeyValue> {
    attributes.retain(|attribute| attribute.key != form.attribute);
    attributes
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(string(value)), ..Default::default() }
}

fn integer(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn string(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::corpus::Bodies;

    fn form(values: u32) -> Form {
        Form {
            attribute: "http.route".into(),
            values,
            grpc_prefix: false,
            time: 1_760_000_000_000_000_000,
        }
    }

    fn template(form: &Form, records: usize) -> Template {
        Template::new(form, records, &mut fastrand::Rng::with_seed(1))
    }

    fn corpus() -> Corpus {
        Corpus { bodies: Bodies::Share(300_000), values: 40, unknown_percent: 20, seed: 0 }
    }

    fn records(bytes: &[u8]) -> Vec<LogRecord> {
        let request = ExportLogsServiceRequest::decode(bytes).unwrap();
        request
            .resource_logs
            .into_iter()
            .flat_map(|resource| resource.scope_logs)
            .flat_map(|scope| scope.log_records)
            .collect()
    }

    #[test]
    fn a_filled_template_says_what_the_corpus_says() {
        let (form, corpus) = (form(40), corpus());
        let filled = template(&form, 1_000).fill(&corpus, 5_000);
        for (number, record) in (5_000..).zip(records(filled.bytes())) {
            let body = corpus.body(number);
            let Some(Value::StringValue(said)) = record.body.unwrap().value else {
                panic!("no text")
            };
            assert!(
                said.starts_with(&format!("order {:016x} processed", corpus.id(body))),
                "{said}"
            );
            let found = record.attributes.iter().find(|attribute| attribute.key == "http.route");
            let wanted = corpus.value(body).map(|value| string(form.value_text(value)));
            assert_eq!(found.and_then(|attribute| attribute.value.clone()), wanted);
        }
    }

    #[test]
    fn filling_again_leaves_nothing_of_the_first_time() {
        let (form, corpus) = (form(40), corpus());
        let once = template(&form, 100).fill(&corpus, 700);
        let again = template(&form, 100).fill(&corpus, 0).fill(&corpus, 700);
        assert_eq!(once.bytes(), again.bytes());
    }

    #[test]
    fn bytes_that_are_still_held_do_not_change() {
        let corpus = corpus();
        let template = template(&form(40), 100).fill(&corpus, 0);
        let (held, copy) = (template.bytes().clone(), template.bytes().to_vec());
        let refilled = template.fill(&corpus, 500);
        assert_eq!(held, copy);
        assert_ne!(held, refilled.bytes());
    }

    #[test]
    fn records_look_like_real_ones() {
        let template = template(&form(40), 1_000);
        let size = template.bytes().len() / 1_000;
        assert!((330..380).contains(&size), "{size} bytes per record");
        let request = ExportLogsServiceRequest::decode(&template.bytes()[..]).unwrap();
        let scopes: Vec<usize> = request.resource_logs.iter().map(|r| r.scope_logs.len()).collect();
        assert_eq!(scopes, [2, 2, 2, 2]);
    }

    #[test]
    fn small_requests_have_as_many_records_as_asked() {
        for count in [1, 3, 8, 13] {
            assert_eq!(records(template(&form(7), count).bytes()).len(), count);
        }
    }

    #[test]
    fn the_chosen_attribute_is_nowhere_else() {
        for name in ["service.name", "team", "log.file.name"] {
            let form = Form { attribute: name.into(), ..form(40) };
            let corpus = Corpus { unknown_percent: 100, ..corpus() };
            let filled = template(&form, 16).fill(&corpus, 0);
            let text = String::from_utf8_lossy(filled.bytes());
            assert!(!text.contains(name), "{name}");
        }
    }

    #[test]
    fn values_have_as_many_digits_as_the_greatest_needs() {
        assert_eq!(form(1).value_text(0), "/api/v1/resource0/items");
        assert_eq!(form(10).value_text(9), "/api/v1/resource9/items");
        assert_eq!(form(11).value_text(9), "/api/v1/resource09/items");
        assert_eq!(form(VALUES_MAX).value_text(7), "/api/v1/resource00000007/items");
    }

    #[test]
    fn the_grpc_prefix_tells_the_length() {
        let form = Form { grpc_prefix: true, ..form(40) };
        let template = template(&form, 10);
        let (prefix, message) = template.bytes().split_at(GRPC_PREFIX_BYTES);
        assert_eq!(prefix, grpc_prefix(false, message.len()));
        assert_eq!(records(message).len(), 10);
    }
}
