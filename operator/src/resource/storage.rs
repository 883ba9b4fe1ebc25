//! Where nodes keep what they took: one volume each.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The volume of each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// How large each volume is, at least 1Gi. It may grow, if the storage class allows that, and
    /// never shrinks.
    #[serde(default = "default_size")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(
        "isQuantity(self) && quantity(self).compareTo(quantity('1Gi')) >= 0"
    ).message("use a size of at least 1Gi, such as 10Gi"))]
    pub size: String,

    /// The storage class of the volumes. If left out, the cluster's default class. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(
        "self == '' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?\
        ([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')"
    ).message("use the name of a StorageClass, such as standard"))]
    pub storage_class_name: Option<String>,

    /// What becomes of the volumes of nodes that are gone.
    #[serde(default)]
    pub retention: Retention,
}

impl Default for Storage {
    fn default() -> Self {
        Storage { size: default_size(), storage_class_name: None, retention: Retention::default() }
    }
}

fn default_size() -> String {
    "10Gi".to_owned()
}

/// What becomes of volumes. Those of nodes that were drained are always deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// What becomes of the volumes when the aggregator is deleted.
    #[serde(default)]
    pub when_deleted: WhenDeleted,
}

/// What becomes of the volumes when the aggregator is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenDeleted {
    /// They stay, and an aggregator of the same name goes on with them.
    #[default]
    Retain,
    /// They are deleted as well, with everything that was accepted.
    Delete,
}
