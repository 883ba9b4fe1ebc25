//! The engine with a clock of the test's own.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use sheaf_node::app::engine::{Engine, Start};
use sheaf_node::app::metrics::Metrics;
use sheaf_node::app::settings::{Command, Settings};
use sheaf_node::checkpoint::identity::Identity;
use sheaf_node::checkpoint::ledger::Balance;
use sheaf_node::event::fingerprint::FingerprintKey;
use sheaf_node::event::node::NodeId;
use sheaf_node::event::time::{Clock, SECOND, UnixNanos};
use sheaf_node::intake::admission::{Admission, Why};
use sheaf_node::intake::{Intake, IntakeError};
use uuid::Uuid;

fn settings(folder: &Path) -> Settings {
    let folder = folder.to_str().unwrap();
    let arguments = ["sheaf-node", "--data-dir", folder, "--attribute", "foo"];
    let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    match Settings::load(arguments.map(Into::into), [], none).unwrap() {
        Command::Run(settings) => *settings,
        Command::Print(text) => panic!("{text}"),
    }
}

const QUEUE_BYTES: usize = 1 << 20;

/// A life of an engine in which it is always the same second, until `clock` is set.
struct Life {
    engine: Engine,
    intake: Intake,
    metrics: Arc<Metrics>,
    clock: Arc<AtomicU64>,
}

async fn start(folder: &Path, second: u64) -> Life {
    let intake = Intake::new(Admission::new(QUEUE_BYTES));
    let metrics = Arc::new(Metrics::new());
    let clock = Arc::new(AtomicU64::new(second));
    let now = Arc::clone(&clock);
    let store = Engine::open_store(&settings(folder)).unwrap();
    let identity = Identity {
        cluster: Uuid::from_u128(1),
        node: NodeId(1),
        fingerprint_key: FingerprintKey([7; 16]),
        founders: BTreeSet::new(),
    };
    let starting = Start {
        settings: settings(folder),
        store,
        identity,
        metrics: Arc::clone(&metrics),
        intake: intake.clone(),
        clock: Clock::new(move || UnixNanos(now.load(Ordering::SeqCst) * SECOND)),
    };
    let started = tokio::task::spawn_blocking(|| Engine::start(starting)).await.unwrap();
    let mut engine = started.unwrap();
    engine.open(&intake);
    Life { engine, intake, metrics, clock }
}

/// A request of records that say nothing.
fn request(records: usize) -> Bytes {
    let log_records = vec![LogRecord::default(); records];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    Bytes::from(ExportLogsServiceRequest { resource_logs }.encode_to_vec())
}

async fn send(intake: &Intake, request: Bytes) -> Result<(), IntakeError> {
    let permit = intake.admission().admit(request.len()).await.unwrap();
    intake.export(request, permit).await.map(drop)
}

async fn balance(engine: &Engine) -> Balance {
    engine.reader().folding.balances().await.unwrap().accounts[0].1
}

async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}

/// Waits until so many records are in windows that were printed.
async fn flushed(engine: &Engine, records: u64) {
    until(async || balance(engine).await.flushed >= records).await;
}

async fn stop(Life { engine, intake, .. }: Life) {
    let stopped = tokio::task::spawn_blocking(move || engine.stop(&intake)).await;
    stopped.unwrap().unwrap();
}

#[tokio::test]
async fn a_clock_that_was_set_back_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let life = start(folder.path(), 1005).await;
    send(&life.intake, request(3)).await.unwrap();
    life.engine.cut(UnixNanos(1010 * SECOND));
    flushed(&life.engine, 3).await;
    stop(life).await;

    let life = start(folder.path(), 905).await;
    send(&life.intake, request(2)).await.unwrap();
    let after = balance(&life.engine).await;
    assert_eq!((after.accepted, after.flushed, after.pending), (5, 3, 2));
    life.engine.cut(UnixNanos(1020 * SECOND));
    flushed(&life.engine, 5).await;
    assert!(balance(&life.engine).await.holds());
    stop(life).await;
}

#[tokio::test]
async fn the_ledger_balances_after_each_of_two_windows_that_one_cut_closes() {
    let folder = tempfile::tempdir().unwrap();
    let life = start(folder.path(), 1005).await;
    send(&life.intake, request(3)).await.unwrap();
    life.clock.store(1015, Ordering::SeqCst);
    send(&life.intake, request(2)).await.unwrap();
    life.engine.cut(UnixNanos(1020 * SECOND));
    let metrics = || {
        let mut metrics = String::new();
        life.metrics.write(&mut metrics);
        metrics
    };
    until(async || metrics().contains("sheaf_window_distinct_records_count 2")).await;
    assert!(metrics().contains("sheaf_ledger_imbalances_total 0"), "{}", metrics());
    stop(life).await;
}

#[tokio::test]
async fn what_was_rejected_is_recorded_meanwhile_and_goes_on_in_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let life = start(folder.path(), 1005).await;
    let value = Some(AnyValue { value: Some(Value::StringValue("bar".to_owned())) });
    let foo = KeyValue { key: "foo".to_owned(), value, ..KeyValue::default() };
    let not_utf8 = LogRecord { attributes: vec![foo], ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![not_utf8], ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let mut request = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let bar = request.windows(3).position(|bytes| bytes == b"bar").unwrap();
    request[bar] = 0xff;
    send(&life.intake, Bytes::from(request)).await.unwrap();
    let rejected = life.intake.received().rejected();
    assert_eq!(rejected.values().sum::<u64>(), 1, "{rejected:?}");
    life.engine.record_rejected(&life.intake);
    let checkpoints = life.engine.reader().checkpoints;
    until(async || checkpoints.rejected().unwrap() == rejected).await;
    drop(checkpoints);
    stop(life).await;
    let life = start(folder.path(), 1005).await;
    assert_eq!(life.intake.received().rejected(), rejected);
    stop(life).await;
}

/// Records that say nothing take two bytes each in a request, and a fingerprint in an entry.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_larger_than_its_request_is_charged_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let life = start(folder.path(), 1005).await;
    let admission = life.intake.admission();
    let grows = request(10_000);
    let rest = admission.admit(QUEUE_BYTES - 2 * grows.len()).await.unwrap();
    let refused = send(&life.intake, grows.clone()).await.unwrap_err();
    assert!(matches!(refused, IntakeError::Busy(busy) if busy.why == Why::Full), "{refused:?}");
    assert_eq!(balance(&life.engine).await.accepted, 0);
    drop(rest);
    send(&life.intake, grows).await.unwrap();
    assert_eq!(balance(&life.engine).await.accepted, 10_000);
    assert_eq!(admission.used(), 0);
    stop(life).await;
}
