//! The engine with a clock of the test's own.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use sheaf_node::app::engine::{Engine, Start};
use sheaf_node::app::metrics::Metrics;
use sheaf_node::app::settings::{Command, Settings};
use sheaf_node::checkpoint::ledger::Balance;
use sheaf_node::event::time::{Clock, SECOND, UnixNanos};
use sheaf_node::intake::Intake;
use sheaf_node::intake::admission::Admission;

fn settings(folder: &Path) -> Settings {
    let folder = folder.to_str().unwrap();
    let arguments = ["sheaf-node", "--data-dir", folder, "--attribute", "foo"];
    let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    match Settings::load(arguments.map(Into::into), [], none).unwrap() {
        Command::Run(settings) => *settings,
        Command::Print(text) => panic!("{text}"),
    }
}

/// A life of an engine in which it is always the same second.
async fn start(folder: &Path, second: u64) -> (Engine, Intake) {
    let intake = Intake::new(Admission::new(1 << 20));
    let starting = Start {
        settings: settings(folder),
        metrics: Arc::new(Metrics::new()),
        intake: intake.clone(),
        clock: Clock::new(move || UnixNanos(second * SECOND)),
    };
    let started = tokio::task::spawn_blocking(|| Engine::start(starting)).await.unwrap();
    let mut engine = started.unwrap();
    engine.open(&intake);
    (engine, intake)
}

async fn send(intake: &Intake, records: usize) {
    let log_records = vec![LogRecord::default(); records];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let request = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let permit = intake.admission().admit(request.len()).await.unwrap();
    intake.export(Bytes::from(request), permit).await.unwrap();
}

async fn balance(engine: &Engine) -> Balance {
    engine.reader().folding.balances().await.unwrap().accounts[0].1
}

/// Waits until so many records are in windows that were printed.
async fn flushed(engine: &Engine, records: u64) {
    let flushed = async {
        while balance(engine).await.flushed < records {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), flushed).await.unwrap();
}

async fn stop(engine: Engine) {
    let stopped = tokio::task::spawn_blocking(move || engine.stop(&Default::default())).await;
    stopped.unwrap().unwrap();
}

#[tokio::test]
async fn a_clock_that_was_set_back_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, intake) = start(folder.path(), 1005).await;
    send(&intake, 3).await;
    engine.cut(UnixNanos(1010 * SECOND));
    flushed(&engine, 3).await;
    stop(engine).await;

    let (engine, intake) = start(folder.path(), 905).await;
    send(&intake, 2).await;
    let after = balance(&engine).await;
    assert_eq!((after.accepted, after.flushed, after.pending), (5, 3, 2));
    engine.cut(UnixNanos(1020 * SECOND));
    flushed(&engine, 5).await;
    assert!(balance(&engine).await.holds());
    stop(engine).await;
}
