//! Requests that only the simulation could have sent, and what became of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use sheaf_node::event::entry::RequestId;
use sheaf_node::intake::{self, Intake};
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

/// All senders are one client.
const SESSION: [u8; 16] = [7; 16];
/// One in so many requests that were acknowledged is sent again all the same.
const AGAIN: u8 = 8;

/// Numbers for requests and records, and what is to be sent again; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Numbers {
    requests: Arc<AtomicU64>,
    records: Arc<AtomicU64>,
    again: Arc<Mutex<VecDeque<Again>>>,
}

/// A request that may have been taken or not, or was acknowledged already.
struct Again {
    request: u64,
    body: Bytes,
    acknowledged: bool,
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

    /// Sends a new request, or to this node what somebody has sent before.
    async fn send(&mut self) {
        let again = match self.rng.bool() {
            true => self.numbers.again.lock().unwrap().pop_front(),
            false => None,
        };
        let mut again = again.unwrap_or_else(|| self.next_request());
        let request = again.request;
        if again.acknowledged {
            self.history.add(true_time(), Event::Repeated { request });
        }
        // Whoever is dropped meanwhile has sent it for the last time.
        let is_taken = self.export(&again).await;
        if is_taken {
            self.history.add(true_time(), Event::Acknowledged { request });
        }
        if !is_taken || self.rng.u8(..AGAIN) == 0 {
            again.acknowledged |= is_taken;
            self.numbers.again.lock().unwrap().push_back(again);
        }
    }

    async fn export(&self, Again { request, body, .. }: &Again) -> bool {
        let Ok(permit) = self.intake.admission().admit(body.len()).await else { return false };
        let id = RequestId { session: SESSION, sequence: request + 1 };
        let request = intake::Request { body: body.clone(), id: Some(id) };
        self.intake.export(request, permit).await.is_ok()
    }

    fn next_request(&mut self) -> Again {
        let records: Vec<_> = (0..self.rng.u64(1..=RECORDS_MAX)).map(|_| self.record()).collect();
        let body = encode(&records);
        let request = self.numbers.requests.fetch_add(1, Ordering::Relaxed);
        self.history.add(true_time(), Event::Sent { request, node: self.node, records });
        Again { request, body, acknowledged: false }
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
