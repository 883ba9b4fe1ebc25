//! How full a node's queue is, as JSON carries it: the answer to `GET /v1/queue`, by which a
//! cluster is scaled.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// A node's queue for requests that are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// What the requests take that are on their way now.
    pub used_bytes: u64,
    /// What it holds at most.
    pub capacity_bytes: u64,
    /// The mean use over the last 60 whole seconds, from 0 to 100. A second in which a request
    /// was refused for lack of room counts as full, and one before the node's start as empty.
    pub used_percent: f64,
    /// How many bytes of requests it works off in a second at most, if somebody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_bytes_per_second: Option<NonZeroU64>,
}
