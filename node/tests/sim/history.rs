//! What happened in a simulation, in its order: all that the checker knows of it.

use std::fmt;
use std::sync::{Arc, Mutex};

use sheaf_node::event::fingerprint::digest;
use sheaf_node::event::time::UnixNanos;
use sheaf_proto::statistics::{Ledger, WindowCounts};

/// A record, as its sender made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// No two records have the same.
    pub(crate) id: u64,
    /// What the second aggregation groups by; not all records have it.
    pub(crate) group: Option<String>,
    /// About half of the bodies are unlike all others.
    pub(crate) body: String,
}

/// A file, as its agent names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct File {
    pub(crate) id: String,
    pub(crate) session: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A sender began to send a request.
    Sent { request: u64, node: usize, records: Vec<Record> },
    /// A sender began to send what was acknowledged once more.
    Repeated { request: u64 },
    /// It was told that the request is durable.
    Acknowledged { request: u64 },
    /// A file grew by a chunk, which an agent began to send.
    Cut { file: File, seq: i64, bytes: u64 },
    /// An agent was told that the chunk is durable.
    Collected { file: File, seq: i64 },
    /// What a node told of a file: of its own, with how much of it a checkpoint has, or whoever
    /// has it.
    Read { node: usize, file: File, bytes: u64, checkpointed: Option<u64>, is_prefix: bool },
    /// A node's sink got a window.
    Delivered { node: usize, aggregation: u32, revision: u32, counts: Box<WindowCounts> },
    /// A node ended with an error that no fault of its surroundings explains.
    Failed { node: usize, error: String },
    /// A machine is gone for ever, after its node handed over what it had, or with all of it.
    Left { node: usize, had_all: bool },
    /// What the cluster's ledger said, after all faults were over.
    Balanced { ledger: Ledger },
    /// What was done to the cluster; the checker does not look at it.
    Done { fault: String },
}

/// An event and its true time.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) at: UnixNanos,
    pub(crate) event: Event,
}

/// Takes events from everywhere in a simulation; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Vec<Happened>>>);

impl History {
    pub(crate) fn add(&self, at: UnixNanos, event: Event) {
        self.0.lock().unwrap().push(Happened { at, event });
    }

    /// All events so far.
    pub(crate) fn all(&self) -> Vec<Happened> {
        self.0.lock().unwrap().clone()
    }
}

/// Differs as soon as anything else happened, or at another time.
pub(crate) fn trace(history: &[Happened]) -> u128 {
    let lines: String = history.iter().map(|happened| format!("{happened:?}\n")).collect();
    digest(lines.as_bytes())
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let File { id, session } = self;
        write!(f, "{id}.{session}")
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.at)?;
        match &self.event {
            Event::Sent { request, node, records } => {
                let ids: Vec<_> = records.iter().map(|record| record.id).collect();
                write!(f, "request {request} to node {node}: records {ids:?}")
            }
            Event::Repeated { request } => write!(f, "request {request} once more"),
            Event::Acknowledged { request } => write!(f, "request {request} acknowledged"),
            Event::Cut { file, seq, bytes } => write!(f, "{file} grew: chunk {seq}, {bytes} bytes"),
            Event::Collected { file, seq } => write!(f, "{file}: chunk {seq} acknowledged"),
            Event::Read { node, file, bytes, checkpointed, is_prefix } => {
                let how = if *is_prefix { "" } else { ", and others than it should have" };
                let whose = checkpointed.map_or_else(
                    || "tells".to_owned(),
                    |checkpointed| format!("has, {checkpointed} of them for good,"),
                );
                write!(f, "node {node} {whose} {bytes} bytes of {file}{how}")
            }
            Event::Delivered { node, revision, counts, .. } => {
                let (name, start) = (&counts.aggregation, counts.window.start);
                let records = counts.records;
                write!(f, "node {node} printed {name} {start}, revision {revision}: {records}")?;
                if let Some(waits_for) = &counts.waits_for {
                    write!(f, ", waits for {waits_for:?}")?;
                }
                if !counts.lost.is_empty() {
                    write!(f, ", lost {:?}", counts.lost)?;
                }
                Ok(())
            }
            Event::Failed { node, error } => write!(f, "node {node} failed: {error}"),
            Event::Left { node, had_all: true } => write!(f, "node {node} is destroyed"),
            Event::Left { node, had_all: false } => write!(f, "node {node} has left"),
            Event::Balanced { ledger } => write!(f, "ledger: {ledger:?}"),
            Event::Done { fault } => f.write_str(fault),
        }
    }
}
