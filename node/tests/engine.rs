//! The engine with a clock of the test's own.
#![allow(clippy::unwrap_used)]

#[path = "support/life.rs"]
mod life; // a member of a cluster of one, and its engine

use std::sync::atomic::Ordering;

use bytes::Bytes;
use life::{Life, QUEUE_BYTES, until};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use sheaf_node::checkpoint::printed;
use sheaf_node::checkpoint::rejected::RejectedRecord;
use sheaf_node::event::time::UnixNanos;
use sheaf_node::intake::IntakeError;
use sheaf_node::intake::admission::Why;

/// A request of records that say nothing.
fn request(records: usize) -> Bytes {
    let log_records = vec![LogRecord::default(); records];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    Bytes::from(ExportLogsServiceRequest { resource_logs }.encode_to_vec())
}

/// A request of one record, whose value is no text.
fn not_utf8() -> Bytes {
    let value = Some(AnyValue { value: Some(Value::StringValue("bar".to_owned())) });
    let attribute = KeyValue { key: "foo".to_owned(), value, ..KeyValue::default() };
    let record = LogRecord { attributes: vec![attribute], ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let mut request = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let bar = request.windows(3).position(|bytes| bytes == b"bar").unwrap();
    request[bar] = 0xff;
    Bytes::from(request)
}

#[tokio::test]
async fn nothing_is_taken_before_the_cut_from_which_on_it_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::start(folder.path(), 1005).await;
    assert!(!life.open());
    assert!(life.send(request(3)).await.is_err());
    life.cut(1006).await;
    assert!(life.open());
    life.send(request(2)).await.unwrap();
    life.cut(1010).await;
    life.flushed(2).await;
    assert_eq!(life.balance().ledger.accepted.records, 2);
    life.end().await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(folder.path(), 1005).await;
    life.send(request(3)).await.unwrap();
    life.cut(1010).await;
    life.flushed(3).await;
    life.end().await;

    let life = Life::begin(folder.path(), 905).await;
    life.send(request(2)).await.unwrap();
    life.cut(1012).await;
    let after = life.balance();
    assert_eq!((after.ledger.accepted.records, after.ledger.flushed), (5, 3));
    life.pending(2).await;
    life.cut(1020).await;
    life.flushed(5).await;
    assert!(life.balance().holds());
    life.end().await;
}

#[tokio::test]
async fn the_ledger_balances_after_each_of_two_windows_that_one_cut_closes() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(folder.path(), 1005).await;
    life.send(request(3)).await.unwrap();
    life.clock.store(1012, Ordering::SeqCst);
    life.send(request(2)).await.unwrap();
    life.cut(1020).await;
    let store = life.reader().store;
    until(async || printed::newest(&store, UnixNanos(0), 9).unwrap().len() == 2).await;
    drop(store);
    let mut metrics = String::new();
    life.metrics.write(&mut metrics);
    assert!(metrics.contains("sheaf_window_distinct_records_count 2"), "{metrics}");
    assert!(metrics.contains("sheaf_ledger_imbalances_total 0"), "{metrics}");
    life.end().await;
}

#[tokio::test]
async fn what_was_rejected_is_recorded_meanwhile_and_goes_on_in_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(folder.path(), 1005).await;
    life.send(not_utf8()).await.unwrap();
    let rejected = life.intake.received().rejected();
    assert_eq!(rejected.values().sum::<u64>(), 1, "{rejected:?}");
    life.record_rejected();
    let record = RejectedRecord::new(life.reader().store);
    until(async || record.read().unwrap() == rejected).await;
    drop(record);
    life.end().await;
    let life = Life::begin(folder.path(), 1005).await;
    assert_eq!(life.intake.received().rejected(), rejected);
    life.end().await;
}

/// Records that say nothing take two bytes each in a request, and a fingerprint in an entry.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_larger_than_its_request_is_charged_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(folder.path(), 1005).await;
    let admission = life.intake.admission();
    let grows = request(10_000);
    let rest = admission.admit(QUEUE_BYTES - 2 * grows.len()).await.unwrap();
    let refused = life.send(grows.clone()).await.unwrap_err();
    assert!(matches!(refused, IntakeError::Busy(ref busy) if busy.why == Why::Full), "{refused:?}");
    assert_eq!(life.reader().lending.journal.events().records, 0);
    drop(rest);
    life.send(grows).await.unwrap();
    assert_eq!(life.reader().lending.journal.events().records, 10_000);
    // What is folded is released.
    until(async || admission.used() == 0).await;
    life.end().await;
}
