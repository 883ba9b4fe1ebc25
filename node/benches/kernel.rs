//! The counting kernel on one core: a request's bytes to a packed section to a folded
//! window, against a plain decode with sets in a hash map, and against copying the
//! bytes, in one run.
//!
//! Requests of 1,000 records of about 350 bytes with ten attributes (five of the
//! record, four of its resource, one of its scope); 30% of the records are distinct.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use sheaf_node::aggregation::distinct_logs::{MemoryLimit, OpenWindow, Packer, Sizes};
use sheaf_node::event::entry::{Entry, EntryWriter, Section};
use sheaf_node::event::fingerprint::FingerprintKey;
use sheaf_node::intake::scan::{Plan, Scanner};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY: FingerprintKey = FingerprintKey([7; 16]);
const ATTRIBUTE: &str = "http.route";
const REQUESTS: u64 = 160;
const RECORDS: u64 = 1000;
const POOL: u64 = 2000; // bodies that the records which are not distinct share
/// Much more than any cache has.
const RING_BYTES: usize = 512 << 20;
const LIMIT: MemoryLimit = MemoryLimit(256 << 20);

/// A sequence of numbers without a pattern (SplitMix64), the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn string(key: &str, value: &str) -> KeyValue {
    let value = any(Value::StringValue(value.to_owned()));
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn record(numbers: &mut Numbers) -> LogRecord {
    let distinct = numbers.next() % 100 < 30;
    let id = if distinct { numbers.next() } else { numbers.next() % POOL };
    let body = format!(
        "payment {id:016x} taken by worker {:02} of region north-{}: the gateway answered {} \
         after {} attempts, settled",
        id % 64,
        id % 3,
        200 + id % 300,
        id % 5
    );
    let status = any(Value::IntValue((200 + id % 300) as i64));
    let route = format!("/api/v1/resource{}/{{id}}/items", id % 40);
    LogRecord {
        time_unix_nano: 1_790_000_000_000_000_000 + numbers.next() % 1_000_000_000,
        observed_time_unix_nano: 1_790_000_001_000_000_000,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: any(Value::StringValue(body)),
        attributes: vec![
            string("log.file.name", "app.log"),
            string("http.request.method", "POST"),
            string(ATTRIBUTE, &route),
            KeyValue {
                key: "http.response.status_code".to_owned(),
                value: status,
                ..Default::default()
            },
            string("thread.name", &format!("worker-{}", id % 64)),
        ],
        trace_id: id.to_be_bytes().repeat(2),
        span_id: id.to_be_bytes().to_vec(),
        ..Default::default()
    }
}

fn request(number: u64, numbers: &mut Numbers) -> Vec<u8> {
    let scope_logs = |numbers: &mut Numbers| ScopeLogs {
        scope: Some(InstrumentationScope {
            name: "com.example.shop".to_owned(),
            version: "1.4.2".to_owned(),
            attributes: vec![string("team", "payments")],
            ..Default::default()
        }),
        log_records: (0..RECORDS / 8).map(|_| record(numbers)).collect(),
        ..Default::default()
    };
    let mut resource_logs = |pod: u64| ResourceLogs {
        resource: Some(Resource {
            attributes: vec![
                string("service.name", "checkout"),
                string("k8s.namespace.name", "shop"),
                string("k8s.pod.name", &format!("checkout-{number}-{pod}")),
                string("host.name", &format!("node-{pod}")),
            ],
            ..Default::default()
        }),
        scope_logs: (0..2).map(|_| scope_logs(numbers)).collect(),
        ..Default::default()
    };
    let resource_logs = (0..4).map(&mut resource_logs).collect();
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn requests() -> Vec<Vec<u8>> {
    let mut numbers = Numbers(1);
    (0..REQUESTS).map(|number| request(number, &mut numbers)).collect()
}

/// What a request goes through, with the scratch that is kept between requests.
struct Kernel {
    plan: Plan,
    scanner: Scanner,
    packer: Packer,
}

impl Kernel {
    fn new() -> Self {
        let attributes = vec![ATTRIBUTE.as_bytes().into()];
        let plan = Plan { attributes, body: true, record: false };
        Kernel { plan, scanner: Scanner::new(KEY), packer: Packer::new(KEY) }
    }

    fn pack(&mut self, request: &[u8]) -> Vec<u8> {
        let Kernel { plan, scanner, packer } = self;
        packer.clear();
        let scan = scanner.scan(plan, request, &mut |scanned| {
            packer.add(&scanned.values[0], Some(scanned.body));
        });
        let mut entry = EntryWriter::new(None);
        packer.finish(&mut entry, 1);
        entry.finish(scan.expect("a request that was just encoded").accepted as u32)
    }
}

impl Kernel {
    fn count(&mut self, requests: &[Vec<u8>], folder: &Path, like: &Sizes) -> OpenWindow {
        let mut window = OpenWindow::new(LIMIT, folder, Some(like));
        for request in requests {
            let entry = self.pack(request);
            fold(&mut window, &entry);
        }
        window
    }
}

fn fold(window: &mut OpenWindow, entry: &[u8]) {
    let entry = Entry::parse(entry).expect("an entry that was just packed");
    for section in entry.sections() {
        let (_, section) = section.expect("a section just packed");
        let Section::DistinctLogs(section) = section else { panic!("a chunk") };
        window.fold(&section).expect("a fold in memory");
    }
}

/// What a program without Sheaf's care for speed would do.
fn decode_and_count(
    counts: &mut HashMap<String, HashSet<u128>>,
    hashers: &[RandomState; 2],
    request: &[u8],
) {
    let request = ExportLogsServiceRequest::decode(request).expect("just encoded");
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    for record in scopes.flat_map(|scope| scope.log_records) {
        let Some(Value::StringValue(body)) = record.body.and_then(|body| body.value) else {
            continue;
        };
        let [low, high] = hashers.each_ref().map(|hasher| u128::from(hasher.hash_one(&body)));
        let attribute = record.attributes.into_iter().find(|attribute| attribute.key == ATTRIBUTE);
        let value = attribute.and_then(|attribute| attribute.value?.value);
        if let Some(Value::StringValue(value)) = value {
            counts.entry(value).or_default().insert(high << 64 | low);
        }
    }
}

/// What the window before held: in a node there nearly always is one.
fn sizes(requests: &[Vec<u8>], folder: &Path) -> Sizes {
    let mut kernel = Kernel::new();
    let mut window = OpenWindow::new(LIMIT, folder, None);
    requests.iter().for_each(|request| fold(&mut window, &kernel.pack(request)));
    window.close(0).expect("a window in memory").sizes
}

fn kernel(criterion: &mut Criterion) {
    let folder = std::env::temp_dir();
    let requests = requests();
    let like = sizes(&requests, &folder);
    let bytes: usize = requests.iter().map(Vec::len).sum();

    let mut group = criterion.benchmark_group("records");
    group.throughput(Throughput::Elements(REQUESTS * RECORDS)).sample_size(20);
    group.bench_function("request to folded", |bencher| {
        let mut kernel = Kernel::new();
        bencher.iter(|| kernel.count(&requests, &folder, &like));
    });
    group.bench_function("decode and hash map", |bencher| {
        let hashers = [RandomState::new(), RandomState::new()];
        bencher.iter(|| {
            let mut counts = HashMap::new();
            for request in &requests {
                decode_and_count(&mut counts, &hashers, request);
            }
            counts
        });
    });
    group.bench_function("request to packed", |bencher| {
        let mut kernel = Kernel::new();
        bencher.iter(|| {
            for request in &requests {
                black_box(kernel.pack(request));
            }
        });
    });
    group.bench_function("packed to folded", |bencher| {
        let mut kernel = Kernel::new();
        let entries: Vec<_> = requests.iter().map(|request| kernel.pack(request)).collect();
        let fold_all = |entries: &[Vec<u8>]| {
            let mut window = OpenWindow::new(LIMIT, &folder, Some(&like));
            let start = Instant::now();
            entries.iter().for_each(|entry| fold(&mut window, entry));
            start.elapsed()
        };
        bencher.iter_custom(|times| (0..times).map(|_| fold_all(&entries)).sum::<Duration>());
    });
    group.finish();

    let mut group = criterion.benchmark_group("bytes");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
    group.bench_function("request to folded", |bencher| {
        let mut kernel = Kernel::new();
        bencher.iter(|| kernel.count(&requests, &folder, &like));
    });
    group.bench_function("memcpy", |bencher| {
        // Whoever receives requests finds no room for them in the cache.
        let mut ring = vec![1; RING_BYTES];
        let mut at = 0;
        bencher.iter(|| {
            for request in &requests {
                if at + request.len() > ring.len() {
                    at = 0;
                }
                ring[at..at + request.len()].copy_from_slice(black_box(request));
                at += request.len();
            }
            black_box(&ring);
        });
    });
    group.finish();
}

criterion_group!(benches, kernel);
criterion_main!(benches);
