//! What the nodes are told: their settings file.

use std::hash::Hasher;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use sheaf_proto::names::{CONTROL_PORT, PEER_PORT};
use siphasher::sip::SipHasher13;

use super::metadata;
use crate::names;
use crate::validate::ValidAggregator;

/// The settings that take effect without a restart: nodes read the file again when it changes.
const RELOADED: [&str; 1] = ["aggregations"];
/// The settings that may wait for the next start, whatever brings it about: who forms a cluster
/// matters to empty volumes only, and a volume that grows is no reason to stop its node.
const PATIENT: [&str; 3] = ["initialMembers", "diskReserve", "journalLimit"];

/// The memory of a node at which its own defaults fit, which all others are in proportion to.
const ORDINARY_MEMORY: u64 = 1 << 30;
const ORDINARY_QUEUE: u64 = 192 << 20;
const ORDINARY_WINDOWS: u64 = 256 << 20;
const ORDINARY_REQUEST: u64 = 64 << 20;
/// The queue holds the largest request so many times.
const REQUESTS_IN_QUEUE: u64 = 3;
const _: () = assert!(ORDINARY_REQUEST * REQUESTS_IN_QUEUE <= ORDINARY_QUEUE);
const _: () = assert!(ORDINARY_QUEUE + ORDINARY_WINDOWS <= ORDINARY_MEMORY / 2);

/// A node's own defaults, which are meant for large disks.
const ORDINARY_RESERVE: u64 = 1 << 30;
const ORDINARY_JOURNAL: u64 = 4 << 30;

/// The settings that all nodes of an aggregator share, in the order in which they are written.
pub(super) struct Settings(Vec<(&'static str, Value)>);

impl Settings {
    /// The settings for a cluster that began with so many members.
    pub(super) fn of(aggregator: &ValidAggregator, founders: i32) -> Settings {
        let mut settings = vec![
            ("initialMembers", members(aggregator, founders)),
            ("copies", json!(aggregator.copies)),
            ("voters", json!(aggregator.voters)),
            ("zoneFile", json!(format!("{}/{}", names::POD_PATH, names::ZONE_FILE))),
            ("controlListen", json!(format!("0.0.0.0:{CONTROL_PORT}"))),
            ("controlTokenFile", json!(format!("{}/{}", names::CONTROL_PATH, names::TOKEN_FILE))),
            ("logFormat", json!("json")),
            ("diskReserve", json!(ORDINARY_RESERVE.min(aggregator.volume.bytes / 10))),
            ("journalLimit", json!(ORDINARY_JOURNAL.min(aggregator.volume.bytes / 4))),
        ];
        settings.extend(aggregator.memory_limit.into_iter().flat_map(memory));
        settings.push(("aggregations", json!(aggregator.aggregations)));
        Settings(settings)
    }

    /// The file, as an object that the pods mount.
    pub(super) fn config_map(&self, aggregator: &ValidAggregator) -> ConfigMap {
        let file = (names::SETTINGS_FILE.to_owned(), self.text());
        ConfigMap {
            metadata: metadata(aggregator, &aggregator.names.aggregator),
            data: Some([file].into()),
            ..ConfigMap::default()
        }
    }

    /// Changes with every setting that only a restart brings about, and with no other.
    pub(super) fn restart_hash(&self) -> String {
        let mut hasher = SipHasher13::new();
        for (key, value) in &self.0 {
            if !RELOADED.contains(key) && !PATIENT.contains(key) {
                hasher.write(line(key, value).as_bytes());
            }
        }
        format!("{:016x}", hasher.finish())
    }

    fn text(&self) -> String {
        self.0.iter().map(|(key, value)| line(key, value)).collect()
    }
}

/// YAML that people read, of which JSON is a part.
fn line(key: &str, value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: String = items.iter().map(|item| format!("  - {item}\n")).collect();
            format!("{key}:\n{items}")
        }
        other => format!("{key}: {other}\n"),
    }
}

/// By name, one for each: a name that stands for all of them would stand for others when the
/// cluster grows.
fn members(aggregator: &ValidAggregator, founders: i32) -> Value {
    let member = |ordinal| {
        let pod = aggregator.names.pod(ordinal);
        format!("{}:{PEER_PORT}", aggregator.names.host(&pod, &aggregator.namespace))
    };
    (0..founders).map(member).collect()
}

/// What a limit of memory is divided into; the rest is for the database, connections and ids.
fn memory(limit: u64) -> [(&'static str, Value); 3] {
    // Divided first, so that nothing overflows.
    let share = |ordinary: u64| limit / 16 * (ordinary / (ORDINARY_MEMORY / 16));
    let queue = share(ORDINARY_QUEUE);
    [
        ("maxRequestSize", json!(ORDINARY_REQUEST.min(queue / REQUESTS_IN_QUEUE))),
        ("queueSize", json!(queue)),
        ("memoryLimit", json!(share(ORDINARY_WINDOWS))),
    ]
}

/// With how many members the cluster began, as the settings say it that [`super::build`] made.
pub fn founders(settings: &ConfigMap) -> Option<i32> {
    let text = settings.data.as_ref()?.get(names::SETTINGS_FILE)?;
    let mut lines = text.lines().skip_while(|line| *line != "initialMembers:");
    lines.next()?;
    let count = lines.take_while(|line| line.starts_with("  - ")).count();
    i32::try_from(count).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests;
