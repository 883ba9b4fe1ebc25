//! Rebuilt files, as JSON carries them: the answer to `GET /v1/files`, which `sheaf get` shows.

use serde::{Deserialize, Serialize};

/// A file that a cluster rebuilds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuiltFile {
    /// What its sender calls it.
    pub id: String,
    /// Which file of that name.
    pub session: u64,
    /// How many bytes can be read.
    pub bytes: u64,
    /// How many of these a checkpoint has: what comes behind is in the journals too.
    pub checkpointed_bytes: u64,
    /// The chunk that it waits for, if others came that follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<u64>,
    /// How many chunks wait behind that one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u64,
    /// How many chunks came for a place that has another one, with other bytes. They are not in
    /// the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub contradicting: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
