//! Rebuilt files, as JSON carries them: the answer to `GET /v1/files`, which `sheaf get` shows.

use serde::{Deserialize, Serialize};

/// Files that a cluster rebuilds, in the order of their ids and sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuiltFiles {
    /// Whether the primary of every slot has told which files it has. If not, some may be missing,
    /// or be longer.
    pub complete: bool,
    /// Who has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<FilesWaitFor>,
    /// The files.
    pub files: Vec<RebuiltFile>,
    /// What to ask for next, as `?continue=`: there are more.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What is missing of a list of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesWaitFor {
    /// The slots whose primaries have not told, as ranges: `0-84,90`. What is listed of them is
    /// what a checkpoint has.
    pub slots: String,
    /// Of these, the slots of which nobody has told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub missing: String,
    /// The ids of these primaries.
    pub nodes: Vec<u64>,
}

/// A file that a cluster rebuilds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuiltFile {
    /// What its sender calls it.
    pub id: String,
    /// Which file of that name.
    pub session: u64,
    /// How long it is, as far as it can be read.
    pub bytes: u64,
    /// How many of these a checkpoint has: what comes behind is in the journals too, on as many
    /// disks.
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
    /// How many bytes at its beginning were removed because of their age. They cannot be read any
    /// more; what follows is where it was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
