//! What an aggregation is asked to do: one shape for the settings file, the
//! store and the Kubernetes resource.
//!
//! ```yaml
//! {name: by-foo, type: DistinctLogs, distinctLogs: {attribute: foo, unique: Body, windowSeconds: 10}}
//! {name: files, type: LogFiles, logFiles: {checkpointSeconds: 10, retentionSeconds: 604800,
//!                                          partBytes: 67108864, compression: Zstd}}
//! ```

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

const NAME_BYTES_MAX: usize = 63; // a DNS label, so that it can be part of a Kubernetes name
const WINDOW_SECONDS_MAX: u64 = 86_400;
const CHECKPOINT_SECONDS_MAX: u64 = 3_600;
const RETENTION_SECONDS_MAX: u64 = 10 * 365 * 86_400;
const PART_BYTES_MIN: u64 = 1 << 10;
const PART_BYTES_MAX: u64 = 1 << 40;

/// A named instance of one of the folds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Definition {
    /// What people and the store call it; unique in a node.
    pub name: AggregationName,
    /// Which fold, and its own settings.
    pub kind: Kind,
}

impl Definition {
    /// Refuses a list in which two aggregations have the same name, or two rebuild files: a
    /// chunk does not say which of them it is for.
    pub fn check_list(list: &[Definition]) -> Result<(), InvalidDefinition> {
        let mut seen = HashSet::new();
        if let Some(twice) = list.iter().find(|definition| !seen.insert(&definition.name)) {
            return Err(InvalidDefinition::NameTwice(twice.name.clone()));
        }
        let mut files = list.iter().filter(|definition| definition.kind.takes_chunks());
        match (files.next(), files.next()) {
            (Some(one), Some(other)) => {
                Err(InvalidDefinition::FilesTwice(one.name.clone(), other.name.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// A lower-case DNS label: it starts with a letter and has at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregationName(String);

impl AggregationName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the aggregation that a bare attribute stands for: `by-`, then
    /// the attribute in lower case with `-` for all but letters and digits.
    pub fn by_attribute(attribute: &str) -> Self {
        let dashed = attribute.chars().map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '-',
        });
        let name: String = "by-".chars().chain(dashed).take(NAME_BYTES_MAX).collect();
        AggregationName(name.trim_end_matches('-').to_owned())
    }
}

impl TryFrom<String> for AggregationName {
    type Error = InvalidDefinition;

    fn try_from(name: String) -> Result<Self, InvalidDefinition> {
        let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let fits = name.len() <= NAME_BYTES_MAX
            && name.bytes().all(allowed)
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && !name.ends_with('-');
        if fits { Ok(AggregationName(name)) } else { Err(InvalidDefinition::Name(name)) }
    }
}

impl fmt::Display for AggregationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which fold an aggregation is, with that fold's own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Counts distinct log records for every value of an attribute.
    DistinctLogs(DistinctLogs),
    /// Rebuilds files from chunks.
    LogFiles(LogFiles),
}

impl Kind {
    /// The word under `type`, in settings and in statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::DistinctLogs(_) => "DistinctLogs",
            Kind::LogFiles(_) => "LogFiles",
        }
    }

    /// The key of the attribute whose values are counted apart, if some are counted.
    pub fn attribute(&self) -> Option<&str> {
        match self {
            Kind::DistinctLogs(distinct) => Some(&distinct.attribute),
            Kind::LogFiles(_) => None,
        }
    }

    /// The length of the windows in which it counts, if it does, in seconds.
    pub fn window_seconds(&self) -> Option<u32> {
        match self {
            Kind::DistinctLogs(distinct) => Some(distinct.window.seconds()),
            Kind::LogFiles(_) => None,
        }
    }

    /// The time between two checkpoints of files, if it rebuilds some, in seconds.
    pub fn checkpoint_seconds(&self) -> Option<u32> {
        match self {
            Kind::DistinctLogs(_) => None,
            Kind::LogFiles(files) => Some(files.checkpoint.seconds()),
        }
    }

    /// With how many bytes a part of a file is full, if files are rebuilt in parts.
    pub fn part(&self) -> Option<PartLength> {
        match self {
            Kind::DistinctLogs(_) => None,
            Kind::LogFiles(files) => files.part,
        }
    }

    /// Whether it is made of chunks of files, and not of log records.
    pub fn takes_chunks(&self) -> bool {
        match self {
            Kind::DistinctLogs(_) => false,
            Kind::LogFiles(_) => true,
        }
    }
}

/// The settings of a distinct count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinctLogs {
    /// The key of the attribute whose values are counted apart; never empty.
    pub attribute: String,
    /// What makes two records the same.
    pub unique: Unique,
    /// The time that one count covers.
    pub window: WindowLength,
}

/// The settings of rebuilding files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// How long a file may have something that no checkpoint has.
    pub checkpoint: CheckpointInterval,
    /// How long what was written stays; for ever if nothing is said.
    pub retention: Option<Retention>,
    /// With how many bytes a part of a file is full; a file is one part if nothing is said.
    pub part: Option<PartLength>,
    /// How parts that are full are compressed; not at all without a length of parts.
    pub compression: Compression,
}

/// The time between two checkpoints, in whole seconds: from one to an hour's worth of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointInterval(u32);

impl CheckpointInterval {
    /// The time in seconds; never zero.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl Default for CheckpointInterval {
    fn default() -> Self {
        CheckpointInterval(10)
    }
}

impl TryFrom<u64> for CheckpointInterval {
    type Error = InvalidDefinition;

    fn try_from(seconds: u64) -> Result<Self, InvalidDefinition> {
        match u32::try_from(seconds) {
            Ok(interval @ 1..) if seconds <= CHECKPOINT_SECONDS_MAX => {
                Ok(CheckpointInterval(interval))
            }
            _ => Err(InvalidDefinition::Checkpoint(seconds)),
        }
    }
}

/// How long what was written to files stays, in whole seconds: from one to ten years' worth of
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Retention(u32);

impl Retention {
    /// The time in seconds; never zero.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for Retention {
    type Error = InvalidDefinition;

    fn try_from(seconds: u64) -> Result<Self, InvalidDefinition> {
        match u32::try_from(seconds) {
            Ok(retention @ 1..) if seconds <= RETENTION_SECONDS_MAX => Ok(Retention(retention)),
            _ => Err(InvalidDefinition::Retention(seconds)),
        }
    }
}

/// With how many bytes a part of a file is full, so that the file goes on in another: from a KiB
/// to a TiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartLength(u64);

impl PartLength {
    /// The length in bytes; never zero.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for PartLength {
    type Error = InvalidDefinition;

    fn try_from(bytes: u64) -> Result<Self, InvalidDefinition> {
        match bytes {
            PART_BYTES_MIN..=PART_BYTES_MAX => Ok(PartLength(bytes)),
            _ => Err(InvalidDefinition::Part(bytes)),
        }
    }
}

/// How parts of files that are full are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// They stay as they are.
    #[default]
    None,
    /// In the seekable format of Zstandard.
    Zstd,
}

impl Compression {
    fn is_none(&self) -> bool {
        *self == Compression::None
    }
}

/// What makes two log records the same, so that they are counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unique {
    /// Their bodies are equal.
    #[default]
    Body,
    /// All their fields are equal but the observed time and the dropped counts.
    Record,
    /// Nothing does: every record is counted.
    None,
}

/// The length of a window, in whole seconds: from one to a day's worth of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowLength(u32);

impl WindowLength {
    /// The length in seconds; never zero.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl Default for WindowLength {
    fn default() -> Self {
        WindowLength(10)
    }
}

impl TryFrom<u64> for WindowLength {
    type Error = InvalidDefinition;

    fn try_from(seconds: u64) -> Result<Self, InvalidDefinition> {
        match u32::try_from(seconds) {
            Ok(length @ 1..) if seconds <= WINDOW_SECONDS_MAX => Ok(WindowLength(length)),
            _ => Err(InvalidDefinition::Window(seconds)),
        }
    }
}

/// Why a definition cannot be used, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDefinition {
    /// The name is not a DNS label.
    #[error(
        "aggregation name \"{0}\": use at most 63 lower-case letters, digits and \"-\", \
         with a letter first and no \"-\" last"
    )]
    Name(String),
    /// Two aggregations have the same name.
    #[error("two aggregations are named \"{0}\": give each a name of its own")]
    NameTwice(AggregationName),
    /// Two aggregations rebuild files.
    #[error(
        "the aggregations \"{0}\" and \"{1}\" are both of the type LogFiles: a chunk does not \
         say which of them it is for, so leave one out"
    )]
    FilesTwice(AggregationName, AggregationName),
    /// The member that belongs to the type is not there, or another one is.
    #[error("aggregation \"{name}\": type {kind} needs the member \"{member}\" and no other")]
    OtherMember {
        /// The aggregation.
        name: AggregationName,
        /// Its type.
        kind: &'static str,
        /// The member that carries the settings of that type.
        member: &'static str,
    },
    /// There is no attribute to group by.
    #[error(
        "the attribute to count by is empty: name the key of an attribute, for example service.name"
    )]
    EmptyAttribute,
    /// The time between checkpoints is too short or too long.
    #[error("checkpoints every {0} seconds: use from 1 to 3600 whole seconds")]
    Checkpoint(u64),
    /// The time that files are kept is too short or too long.
    #[error(
        "files that are kept for {0} seconds: use from 1 to 315360000 whole seconds, or leave \
         retentionSeconds out to keep them for ever"
    )]
    Retention(u64),
    /// The parts of files are too short or too long.
    #[error(
        "parts of {0} bytes: use from 1024 (1 KiB) to 1099511627776 (1 TiB), or leave \
         partBytes out to have each file in one"
    )]
    Part(u64),
    /// No part is ever full that could be compressed.
    #[error(
        "compression without partBytes: only parts that are full are compressed, so set \
         partBytes, or leave compression out"
    )]
    CompressionOfNothing,
    /// The window is too short or too long.
    #[error("a window of {0} seconds: use from 1 to 86400 whole seconds")]
    Window(u64),
}

/// A definition as it is written down: the right fields, but not yet checked.
///
/// A reader that knows line numbers reads this and then converts, because an
/// error of the conversion knows no line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Written {
    name: String,
    #[serde(rename = "type")]
    kind: WrittenKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    distinct_logs: Option<WrittenDistinctLogs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_files: Option<WrittenLogFiles>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum WrittenKind {
    DistinctLogs,
    LogFiles,
}

impl WrittenKind {
    /// The word under `type`, and the member that carries its settings.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            WrittenKind::DistinctLogs => ("DistinctLogs", "distinctLogs"),
            WrittenKind::LogFiles => ("LogFiles", "logFiles"),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenDistinctLogs {
    attribute: String,
    #[serde(default)]
    unique: Unique,
    #[serde(default = "default_window_seconds")]
    window_seconds: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenLogFiles {
    #[serde(default = "default_checkpoint_seconds")]
    checkpoint_seconds: u64,
    // What is not said is not written, as in the definitions that a cluster's log has from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Compression::is_none")]
    compression: Compression,
}

fn default_checkpoint_seconds() -> u64 {
    CheckpointInterval::default().seconds().into()
}

fn default_window_seconds() -> u64 {
    WindowLength::default().seconds().into()
}

impl TryFrom<Written> for Definition {
    type Error = InvalidDefinition;

    fn try_from(written: Written) -> Result<Self, InvalidDefinition> {
        let name = AggregationName::try_from(written.name)?;
        let kind = match (written.kind, written.distinct_logs, written.log_files) {
            (WrittenKind::DistinctLogs, Some(member), None) => {
                Kind::DistinctLogs(member.try_into()?)
            }
            (WrittenKind::LogFiles, None, Some(member)) => Kind::LogFiles(member.try_into()?),
            (written, ..) => {
                let (kind, member) = written.names();
                return Err(InvalidDefinition::OtherMember { name, kind, member });
            }
        };
        Ok(Definition { name, kind })
    }
}

impl TryFrom<WrittenLogFiles> for LogFiles {
    type Error = InvalidDefinition;

    fn try_from(written: WrittenLogFiles) -> Result<Self, InvalidDefinition> {
        if written.part_bytes.is_none() && !written.compression.is_none() {
            return Err(InvalidDefinition::CompressionOfNothing);
        }
        Ok(LogFiles {
            checkpoint: CheckpointInterval::try_from(written.checkpoint_seconds)?,
            retention: written.retention_seconds.map(Retention::try_from).transpose()?,
            part: written.part_bytes.map(PartLength::try_from).transpose()?,
            compression: written.compression,
        })
    }
}

impl TryFrom<WrittenDistinctLogs> for DistinctLogs {
    type Error = InvalidDefinition;

    fn try_from(written: WrittenDistinctLogs) -> Result<Self, InvalidDefinition> {
        if written.attribute.is_empty() {
            return Err(InvalidDefinition::EmptyAttribute);
        }
        Ok(DistinctLogs {
            attribute: written.attribute,
            unique: written.unique,
            window: WindowLength::try_from(written.window_seconds)?,
        })
    }
}

impl From<Definition> for Written {
    fn from(definition: Definition) -> Self {
        let name = definition.name.0;
        match definition.kind {
            Kind::DistinctLogs(distinct) => {
                let member = WrittenDistinctLogs {
                    attribute: distinct.attribute,
                    unique: distinct.unique,
                    window_seconds: distinct.window.seconds().into(),
                };
                let (kind, distinct_logs) = (WrittenKind::DistinctLogs, Some(member));
                Written { name, kind, distinct_logs, log_files: None }
            }
            Kind::LogFiles(files) => {
                let member = WrittenLogFiles {
                    checkpoint_seconds: files.checkpoint.seconds().into(),
                    retention_seconds: files.retention.map(|it| it.seconds().into()),
                    part_bytes: files.part.map(PartLength::bytes),
                    compression: files.compression,
                };
                let (kind, log_files) = (WrittenKind::LogFiles, Some(member));
                Written { name, kind, distinct_logs: None, log_files }
            }
        }
    }
}

#[cfg(test)]
mod tests;
