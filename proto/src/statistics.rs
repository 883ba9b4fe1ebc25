//! Windows, counts and the ledger, as JSON carries them: on a node's stdout, in
//! its API, and in what `sheaf` prints.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One window of one aggregation: what was counted in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowCounts {
    /// The aggregation's name.
    pub aggregation: String,
    /// The aggregation's type, as in the settings: `DistinctLogs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The attribute that the counts are grouped by.
    pub attribute: String,
    /// The time that the window covers.
    pub window: WindowSpan,
    /// Whether nothing of the window is missing; such a line never changes.
    pub complete: bool,
    /// What an incomplete window waits for; another line follows when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// Set when something of an incomplete window is lost: no other line follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    /// What is lost of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// How often the window was printed with other content, from 1.
    pub revision: u32,
    /// The records that were accepted in the window.
    pub records: u64,
    /// The records that were counted: the distinct ones.
    pub distinct: u64,
    /// Set while `distinct` and the counts are upper bounds: an open window of
    /// which a part was spilled to disk is only deduplicated when it closes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upper_bound: bool,
    /// Of `distinct`, those without the attribute.
    pub unknown: u64,
    /// The counts, highest first, then by value; at most as many as a setting says.
    pub counts: Vec<ValueCount>,
    /// What `counts` leaves out.
    pub other: Other,
    /// In the part of a closed window that one node has: the slots that it is the part of, as
    /// ranges, `0-84,90`. Such a part is never complete, and is not printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<String>,
}

/// What is missing of a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitsFor {
    /// The slots that were not flushed, as ranges: `0-84,90`.
    pub slots: String,
    /// The ids of the nodes that have to flush them.
    pub nodes: Vec<u64>,
    /// The segments of which nobody can tell what the window has.
    pub segments: Vec<u64>,
}

/// What was lost with a node that was forgotten, some of it perhaps in other windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The node's id, if it is known which one had this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The segments that nobody else had.
    pub segments: Vec<u64>,
    /// The slots whose results nobody else had, as ranges: `0-84,90`.
    pub slots: String,
    /// Records that these segments are known to have had and no slot had flushed.
    pub records: u64,
    /// When all of this was stamped: at this time or later ..
    pub from: Timestamp,
    /// .. and before this one.
    pub until: Timestamp,
}

/// A half-open interval, aligned to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSpan {
    /// The first instant that belongs to the window.
    pub start: Timestamp,
    /// The first instant that does not.
    pub end: Timestamp,
}

/// How many distinct records had one value of the attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueCount {
    /// The value, in JSON's type for it; bytes as base64, infinities and NaN by name.
    pub value: serde_json::Value,
    /// Set where JSON cannot tell the type: `bytes`, or `double` for an infinity or NaN.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The number of distinct records.
    pub count: u64,
}

/// The values that did not fit in the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// How many values.
    pub values: u64,
    /// How many distinct records they have together.
    pub count: u64,
}

/// What came in against what went out, of all nodes that are reached or of one, and for each
/// aggregation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Records in requests that could be read: accepted and rejected together.
    pub received: u64,
    /// Records that were made durable and acknowledged, as often as they were. What nodes
    /// accepted that are gone or not reached counts as far as the newest cut, and an aggregation
    /// that was there, tell of it.
    pub accepted: u64,
    /// Records that were refused for good, by reason, by the nodes that are reached.
    pub rejected: BTreeMap<String, u64>,
    /// One account per aggregation; each sees every accepted record.
    pub aggregations: Vec<Account>,
    /// Whether every sum below and above adds up; of one node, whether none is too large, as
    /// others have the rest of what is pending.
    pub balanced: bool,
}

/// One aggregation's side of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The aggregation's name.
    pub aggregation: String,
    /// Records that were accepted since the aggregation began, each once however often it was
    /// sent: flushed, pending and lost together.
    pub accepted: u64,
    /// Records in windows that were printed: distinct and duplicate together.
    pub flushed: u64,
    /// Of the flushed records, those that were counted.
    pub distinct: u64,
    /// Of the flushed records, those that had been counted before.
    pub duplicate: u64,
    /// Records in windows that are still open; of one node, in its part of them.
    pub pending: u64,
    /// Accepted records that were lost with nodes that were forgotten.
    #[serde(default)]
    pub lost: u64,
    /// Records in requests that had been accepted before under the same id; they come on top
    /// of those above.
    #[serde(default)]
    pub deduplicated: u64,
}
