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
mod tests {
    use super::*;
    use crate::checkpoint::facts::aggregations::Takes;

    fn parse(json: &str) -> Result<Definition, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn named(name: &str) -> String {
        format!(r#"{{"name":"{name}","type":"DistinctLogs","distinctLogs":{{"attribute":"foo"}}}}"#)
    }

    #[test]
    fn what_is_left_out_is_a_count_of_bodies_over_ten_seconds() {
        let Kind::DistinctLogs(distinct) = parse(&named("by-foo")).unwrap().kind else {
            panic!("another kind")
        };
        assert_eq!(distinct.attribute, "foo");
        assert_eq!(distinct.unique, Unique::Body);
        assert_eq!(distinct.window.seconds(), 10);
    }

    #[test]
    fn a_definition_is_written_as_it_was_read() {
        let json = r#"{"name":"by-foo","type":"DistinctLogs","distinctLogs":{"attribute":"foo","unique":"Record","windowSeconds":60}}"#;
        let definition = parse(json).unwrap();
        assert_eq!(serde_json::to_string(&definition).unwrap(), json);
    }

    #[test]
    fn a_name_is_a_dns_label_that_starts_with_a_letter() {
        let longest = "a".repeat(63);
        for name in ["a", "a1", "by-foo", "a--b", &longest] {
            assert!(parse(&named(name)).is_ok(), "{name}");
        }
        let too_long = "a".repeat(64);
        for name in ["", "1a", "-a", "a-", "By-foo", "by_foo", "by.foo", "bär", &too_long] {
            let error = parse(&named(name)).unwrap_err();
            assert!(error.contains("lower-case letters"), "{name}: {error}");
        }
    }

    #[test]
    fn a_window_has_from_one_second_to_a_day() {
        for (seconds, valid) in
            [(0, false), (1, true), (86_400, true), (86_401, false), (u64::MAX, false)]
        {
            assert_eq!(WindowLength::try_from(seconds).is_ok(), valid, "{seconds}");
        }
        assert!(WindowLength::try_from((1 << 32) + 1).is_err(), "no cut to 32 bits");
    }

    #[test]
    fn the_member_has_to_match_the_type() {
        let error = parse(r#"{"name":"by-foo","type":"DistinctLogs"}"#).unwrap_err();
        assert!(error.contains(r#"needs the member "distinctLogs""#), "{error}");
        let error = parse(r#"{"name":"files","type":"LogFiles","distinctLogs":{"attribute":"a"}}"#);
        assert!(error.unwrap_err().contains(r#"needs the member "logFiles""#));
        let both =
            r#"{"name":"a","type":"LogFiles","logFiles":{},"distinctLogs":{"attribute":"a"}}"#;
        assert!(parse(both).unwrap_err().contains("and no other"));
    }

    fn written_files(member: &str) -> String {
        format!(r#"{{"name":"files","type":"LogFiles","logFiles":{member}}}"#)
    }

    fn files(member: &str) -> Result<LogFiles, String> {
        match parse(&written_files(member))?.kind {
            Kind::LogFiles(files) => Ok(files),
            other => panic!("{} is another kind", other.name()),
        }
    }

    #[test]
    fn files_are_rebuilt_with_a_checkpoint_every_second_to_every_hour() {
        assert_eq!(files("{}").unwrap().checkpoint.seconds(), 10);
        for (seconds, valid) in [(0, false), (1, true), (3600, true), (3601, false)] {
            let member = format!(r#"{{"checkpointSeconds":{seconds}}}"#);
            assert_eq!(files(&member).is_ok(), valid, "{seconds}");
        }
    }

    #[test]
    fn files_are_kept_for_ever_in_one_part_as_they_are_if_nothing_is_said() {
        for member in ["{}", r#"{"compression":"None"}"#] {
            let found = files(member).unwrap();
            let wanted = (None, None, Compression::None);
            assert_eq!((found.retention, found.part, found.compression), wanted, "{member}");
            let written = serde_json::to_string(&parse(&written_files(member)).unwrap()).unwrap();
            assert_eq!(written, written_files(r#"{"checkpointSeconds":10}"#), "{member}");
        }
    }

    #[test]
    fn what_is_said_of_files_is_written_as_it_was_read() {
        let member = r#"{"checkpointSeconds":60,"retentionSeconds":604800,"partBytes":67108864,"compression":"Zstd"}"#;
        let found = files(member).unwrap();
        assert_eq!(found.retention.map(Retention::seconds), Some(604_800));
        assert_eq!(found.part.map(PartLength::bytes), Some(64 << 20));
        assert_eq!(found.compression, Compression::Zstd);
        let json = written_files(member);
        assert_eq!(serde_json::to_string(&parse(&json).unwrap()).unwrap(), json);
    }

    #[test]
    fn files_are_kept_from_one_second_to_ten_years() {
        for (seconds, valid) in
            [(0, false), (1, true), (315_360_000, true), (315_360_001, false), (u64::MAX, false)]
        {
            let error = files(&format!(r#"{{"retentionSeconds":{seconds}}}"#)).err();
            assert_eq!(error.is_none(), valid, "{seconds}");
            assert!(error.is_none_or(|it| it.contains("1 to 315360000")), "{seconds}");
        }
        assert!(Retention::try_from((1 << 32) + 1).is_err(), "no cut to 32 bits");
    }

    #[test]
    fn a_part_has_from_a_kib_to_a_tib() {
        for (bytes, valid) in [
            (0, false),
            ((1 << 10) - 1, false),
            (1 << 10, true),
            (1_u64 << 40, true),
            ((1_u64 << 40) + 1, false),
        ] {
            let error = files(&format!(r#"{{"partBytes":{bytes}}}"#)).err();
            assert_eq!(error.is_none(), valid, "{bytes}");
            assert!(error.is_none_or(|it| it.contains("1024 (1 KiB)")), "{bytes}");
        }
    }

    #[test]
    fn only_files_of_parts_are_compressed() {
        let error = files(r#"{"compression":"Zstd","retentionSeconds":60}"#).unwrap_err();
        assert!(error.contains("set partBytes, or leave compression out"), "{error}");
        assert!(files(r#"{"compression":"Zstd","partBytes":1048576}"#).is_ok());
        assert!(files(r#"{"compression":"None","partBytes":1048576}"#).is_ok());
        assert!(files(r#"{"compression":"zstd","partBytes":1048576}"#).is_err());
    }

    #[test]
    fn two_aggregations_that_rebuild_files_are_refused() {
        let files =
            |name| parse(&format!(r#"{{"name":"{name}","type":"LogFiles","logFiles":{{}}}}"#));
        let list =
            [files("one").unwrap(), parse(&named("by-foo")).unwrap(), files("other").unwrap()];
        assert!(Definition::check_list(&list[..2]).is_ok());
        let error = Definition::check_list(&list).unwrap_err().to_string();
        assert!(error.contains("\"one\"") && error.contains("\"other\""), "{error}");
    }

    #[test]
    fn an_unknown_type_field_or_choice_is_named_in_the_error() {
        for (json, word) in [
            (r#"{"name":"a","type":"Distinct"}"#, "Distinct"),
            (r#"{"name":"a","type":"DistinctLogs","counters":{}}"#, "counters"),
            (
                r#"{"name":"a","type":"DistinctLogs","distinctLogs":{"attribute":"b","window":1}}"#,
                "window",
            ),
            (
                r#"{"name":"a","type":"DistinctLogs","distinctLogs":{"attribute":"b","unique":"body"}}"#,
                "body",
            ),
            (r#"{"name":"a","type":"DistinctLogs","distinctLogs":{}}"#, "attribute"),
            (r#"{"name":"a","type":"DistinctLogs","distinctLogs":{"attribute":""}}"#, "attribute"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn two_aggregations_with_one_name_are_refused() {
        let one = parse(&named("by-foo")).unwrap();
        let other = parse(&named("by-bar")).unwrap();
        assert!(Definition::check_list(&[one.clone(), other.clone()]).is_ok());
        let error = Definition::check_list(&[one.clone(), other, one]).unwrap_err();
        assert!(error.to_string().contains("by-foo"), "{error}");
    }

    #[test]
    fn the_name_made_from_an_attribute_is_valid() {
        for (attribute, name) in [
            ("service.name", "by-service-name"),
            ("K8s.Pod", "by-k8s-pod"),
            ("größe.", "by-gr--e"),
            ("...", "by"),
            (&"x".repeat(99), &format!("by-{}", "x".repeat(60))),
        ] {
            let made = AggregationName::by_attribute(attribute);
            assert_eq!(made.as_str(), name);
            assert!(AggregationName::try_from(made.0).is_ok());
        }
    }

    #[test]
    fn the_facts_know_who_takes_chunks() {
        let takes = |json: &str| {
            let definition = parse(json).unwrap();
            Takes::of_definition(&serde_json::to_value(definition).unwrap())
        };
        assert_eq!(takes(&named("by-foo")), Takes::Records);
        assert_eq!(takes(r#"{"name":"files","type":"LogFiles","logFiles":{}}"#), Takes::Chunks);
    }
}
