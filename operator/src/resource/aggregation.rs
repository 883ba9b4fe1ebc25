//! What is counted and rebuilt: a list of aggregations, in the shape that a node's settings file
//! has too.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long files may be kept at most: ten years.
pub const RETENTION_SECONDS_MAX: i32 = 10 * 365 * 86_400;
/// The fewest bytes with which a part of a file is full.
pub const PART_BYTES_MIN: i64 = 1 << 10;
/// The most bytes that a part of a file may have.
pub const PART_BYTES_MAX: i64 = 1 << 40;

/// One thing that is counted or rebuilt: a name, a type, and the member that belongs to the type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.type == 'DistinctLogs' ? has(self.distinctLogs) : !has(self.distinctLogs)"
).message("type DistinctLogs needs the member distinctLogs, and no other type may have it"))]
#[x_kube(validation = Rule::new(
    "self.type == 'LogFiles' ? has(self.logFiles) : !has(self.logFiles)"
).message("type LogFiles needs the member logFiles, if only {}, and no other type may have it"))]
pub struct Aggregation {
    /// What it is called where counts are printed and files are listed, and where its state is
    /// kept: another name is another aggregation, which begins anew.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// What kind of aggregation it is; the member of that name says the rest.
    #[serde(rename = "type")]
    pub type_: AggregationType,

    /// Counts distinct log records for every value of an attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct_logs: Option<DistinctLogs>,

    /// Rebuilds files from the chunks that agents cut them into, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_files: Option<LogFiles>,
}

/// The kinds of aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AggregationType {
    /// Counts distinct log records for every value of an attribute.
    DistinctLogs,
    /// Rebuilds files from the chunks that agents cut them into, byte for byte.
    LogFiles,
}

/// The settings of a distinct count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DistinctLogs {
    /// The key of the attribute whose values are counted apart, such as service.name. It is
    /// looked up in the record, then in its scope, then in its resource.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(
        r"!self.matches('[\\p{Cc}\\x{FEFF}\\x{FFFE}\\x{FFFF}]')"
    ).message("use an attribute without control characters"))]
    pub attribute: String,

    /// What makes two records the same, so that they are counted once.
    #[serde(default)]
    pub unique: Unique,

    /// The time that one count covers, aligned to the clock: 1 second to a day.
    #[serde(default = "default_window_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub window_seconds: i32,
}

fn default_window_seconds() -> i32 {
    10
}

/// The settings of rebuilding files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.compression) || self.compression == 'None' || has(self.partBytes)"
).message(
    "compression needs partBytes, since only parts that are full are compressed: set partBytes, \
     or leave compression out"
))]
pub struct LogFiles {
    /// How long the journals are needed for what came, at most: a checkpoint then has it, on all
    /// owners of its slot. 1 second to an hour.
    #[serde(default = "default_checkpoint_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub checkpoint_seconds: i32,

    /// How long what was written stays: full parts go when their last byte was written longer
    /// ago, and a whole file when nothing was added to it for so long. 1 second to ten years. If
    /// left out, files are kept for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = RETENTION_SECONDS_MAX))]
    pub retention_seconds: Option<i32>,

    /// With how many bytes a part of a file is full, so that the file goes on in another: 1024
    /// (1 KiB) to 1099511627776 (1 TiB). Readers see one file all the same. If left out, each
    /// file is one part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = PART_BYTES_MIN, max = PART_BYTES_MAX))]
    pub part_bytes: Option<i64>,

    /// How parts that are full are compressed, which needs partBytes. If left out, they are not.
    #[serde(default, skip_serializing_if = "Compression::is_none")]
    pub compression: Compression,
}

fn default_checkpoint_seconds() -> i32 {
    10
}

/// How full parts of files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Compression {
    /// They stay as they are.
    #[default]
    None,
    /// In the seekable format of Zstandard, which `zstd -d` reads.
    Zstd,
}

impl Compression {
    fn is_none(&self) -> bool {
        *self == Compression::None
    }
}

/// What makes two log records the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unique {
    /// Their bodies are equal.
    #[default]
    Body,
    /// All their fields are equal but the observed time and the dropped counts.
    Record,
    /// Nothing does: every record is counted.
    None,
}
