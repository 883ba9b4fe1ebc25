//! What stays with retained volumes, so that they go on with the cluster that they belong to and
//! with no other. Nobody owns it: it outlives the aggregator.

use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::names;
use crate::validate::ValidAggregator;

const CLUSTER: &str = "clusterID";
const SLOTS: &str = "slots";
const SIZE: &str = "size";

/// Whose the volumes are, and what they were made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumesRecord {
    /// The cluster that the nodes formed.
    pub cluster_id: String,
    /// Into how many parts they count.
    pub slots: i32,
    /// How large each volume is, as the spec had it.
    pub size: String,
}

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ConfigMap {name}: {field} is missing, or is not what was written there")]
pub struct InvalidRecord {
    /// The object.
    pub name: String,
    /// What is wrong in it.
    pub field: &'static str,
}

impl VolumesRecord {
    /// The record of a cluster that has formed.
    pub fn of(aggregator: &ValidAggregator, cluster_id: String) -> VolumesRecord {
        let size = aggregator.volume.size.0.clone();
        VolumesRecord { cluster_id, slots: aggregator.slots, size }
    }

    /// The object that keeps it.
    pub fn config_map(&self, aggregator: &ValidAggregator) -> ConfigMap {
        let mut metadata = metadata(aggregator, &aggregator.names.volumes);
        metadata.owner_references = None;
        let data = names::labeled([
            (CLUSTER, self.cluster_id.as_str()),
            (SLOTS, self.slots.to_string().as_str()),
            (SIZE, self.size.as_str()),
        ]);
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    }
}

impl TryFrom<&ConfigMap> for VolumesRecord {
    type Error = InvalidRecord;

    fn try_from(object: &ConfigMap) -> Result<VolumesRecord, InvalidRecord> {
        let invalid = |field| {
            let name = object.metadata.name.clone().unwrap_or_default();
            InvalidRecord { name, field }
        };
        let text = |field| {
            let text = object.data.as_ref().and_then(|data| data.get(field));
            text.filter(|text| !text.is_empty()).cloned().ok_or_else(|| invalid(field))
        };
        Ok(VolumesRecord {
            cluster_id: text(CLUSTER)?,
            slots: text(SLOTS)?.parse().map_err(|_| invalid(SLOTS))?,
            size: text(SIZE)?,
        })
    }
}
