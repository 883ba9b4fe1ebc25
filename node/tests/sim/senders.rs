//! Requests that only the simulation could have sent, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use sheaf_node::intake::Intake;
use tokio::time::sleep;

use super::history::{Event, History, Record};
use super::machine::true_time;

/// The attribute that no two records share.
pub(crate) const ID: &str = "id";
/// The attribute that many records share.
pub(crate) const GROUP: &str = "group";

const GROUPS: u8 = 3;
const COMMON_BODIES: u8 = 4;
const RECORDS_MAX: u64 = 6;

/// Numbers for requests and records; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Numbers {
    requests: Arc<AtomicU64>,
    records: Arc<AtomicU64>,
}

/// Somebody who sends to one node, one request at a time.
pub(crate) struct Sender {
    pub(crate) node: usize,
    pub(crate) intake: Intake,
    pub(crate) history: History,
    pub(crate) numbers: Numbers,
    pub(crate) rng: fastrand::Rng,
}

impl Sender {
    /// Sends until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            sleep(Duration::from_millis(self.rng.u64(5..400))).await;
            self.send().await;
        }
    }

    /// A request that was refused is not repeated: the next one is as good.
    async fn send(&mut self) {
        let records: Vec<_> = (0..self.rng.u64(1..=RECORDS_MAX)).map(|_| self.record()).collect();
        let body = encode(&records);
        let request = self.numbers.requests.fetch_add(1, Ordering::Relaxed);
        self.history.add(true_time(), Event::Sent { request, node: self.node, records });
        let Ok(permit) = self.intake.admission().admit(body.len()).await else { return };
        if self.intake.export(body, permit).await.is_ok() {
            self.history.add(true_time(), Event::Acknowledged { request });
        }
    }

    fn record(&mut self) -> Record {
        let id = self.numbers.records.fetch_add(1, Ordering::Relaxed);
        let group = self.rng.u8(..=GROUPS);
        let group = (group < GROUPS).then(|| format!("group-{group}"));
        let body = match self.rng.bool() {
            true => format!("only {id}"),
            false => format!("common {}", self.rng.u8(..COMMON_BODIES)),
        };
        Record { id, group, body }
    }
}

fn encode(records: &[Record]) -> Bytes {
    let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: text(value),
        ..KeyValue::default()
    };
    let record = |record: &Record| {
        let mut attributes = vec![attribute(ID, &record.id.to_string())];
        attributes.extend(record.group.as_deref().map(|group| attribute(GROUP, group)));
        LogRecord { body: text(&record.body), attributes, ..LogRecord::default() }
    };
    let log_records = records.iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    Bytes::from(ExportLogsServiceRequest { resource_logs }.encode_to_vec())
}
