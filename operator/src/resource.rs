//! The `LogAggregator`: what a user asks for, and what is told of it.
//!
//! The comments on fields are what `kubectl explain` shows. What the API server can check is
//! checked there, by bounds and rules; [`crate::validate`] checks the rest.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function")]

mod aggregation; // what is counted and rebuilt
mod autoscaling; // how many nodes, by how full they are
mod borrowed; // fields that Kubernetes defines
pub mod definition; // the CustomResourceDefinition, as files
mod status; // what is told
mod storage; // where nodes keep what they took

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use aggregation::{
    Aggregation, AggregationType, Compression, DistinctLogs, LogFiles, PART_BYTES_MAX,
    PART_BYTES_MIN, RETENTION_SECONDS_MAX, Unique,
};
pub use autoscaling::{
    Autoscaling, PERIOD_SECONDS_MAX, POLICY_TYPES, SELECT_POLICIES, STABILIZATION_SECONDS_MAX,
};
pub use borrowed::PodTemplate;
pub use status::{LogAggregatorStatus, Member, MemberRole, MemberState};
pub use storage::{Retention, Storage, WhenDeleted};

/// The most nodes of an aggregator: more than slots would have nothing to do.
pub const REPLICAS_MAX: i32 = SLOTS;
/// The one number of slots that nodes know so far.
pub const SLOTS: i32 = 256;

/// What a cluster of Sheaf nodes counts and rebuilds, and how large it is.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sheaf.dev",
    version = "v1alpha1",
    kind = "LogAggregator",
    namespaced,
    shortname = "la",
    category = "all",
    status = "LogAggregatorStatus",
    derive = "PartialEq",
    doc = "A cluster of Sheaf nodes, which takes logs, counts them exactly, and rebuilds log files.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether all nodes take logs."
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".status.replicas",
        description = "How many nodes there are."
    ),
    printcolumn(
        name = "Epoch",
        type_ = "integer",
        json_path = ".status.epoch",
        description = "How often slots changed their owners."
    ),
    printcolumn(
        name = "Complete",
        type_ = "boolean",
        json_path = ".status.complete",
        description = "Whether nothing is missing in what is counted and rebuilt."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("use a name of at most 40 characters: names of pods and claims are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "use a name of lower-case letters, digits and \"-\", with a letter first and no \"-\" last: \
         it becomes the name of a Service"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.slots == oldSelf.slots").field_path(".slots").message(
        "slots is immutable: set it back, or create another LogAggregator with the new number"
    ),
    validation = Rule::new(
        "has(self.storage.storageClassName) == has(oldSelf.storage.storageClassName) && \
         (!has(self.storage.storageClassName) || \
         self.storage.storageClassName == oldSelf.storage.storageClassName)"
    ).field_path(".storage.storageClassName").message(
        "storageClassName is immutable: set it back, or create another LogAggregator with the new class"
    ),
    validation = Rule::new(
        "!isQuantity(self.storage.size) || \
         quantity(self.storage.size).compareTo(quantity(oldSelf.storage.size)) >= 0"
    ).field_path(".storage.size").message(
        "storage cannot become smaller: set size to what it was, or to more"
    ),
    validation = Rule::new(
        "has(self.autoscaling) || !has(self.replicas) || self.copies <= self.replicas"
    ).field_path(".copies").message(
        "copies must be at most replicas: lower copies, or raise replicas"
    ),
    validation = Rule::new(
        "!has(self.autoscaling) || self.copies <= self.autoscaling.minReplicas"
    ).field_path(".copies").message(
        "copies must be at most autoscaling.minReplicas: lower copies, or raise minReplicas"
    ),
    validation = Rule::new(
        "self.aggregations.filter(it, it.type == 'LogFiles').size() <= 1"
    ).field_path(".aggregations").message(
        "one aggregation of the type LogFiles at most: a chunk does not say which of them it is for"
    )
)]
pub struct LogAggregatorSpec {
    /// How many nodes there are to be. If left out, as many as there are, or for a new
    /// aggregator autoscaling.minReplicas, or 3. With autoscaling it belongs to the
    /// HorizontalPodAutoscaler, and is kept between its bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub replicas: Option<i32>,

    /// Into how many parts the counting is divided; a node without one has nothing to count.
    /// Immutable, and so far always 256.
    #[serde(default = "default_slots")]
    #[schemars(range(min = SLOTS, max = SLOTS))]
    pub slots: i32,

    /// How many nodes vote at most: 1, 3 or 5. Of fewer nodes the largest odd number votes.
    #[serde(default = "default_voters")]
    #[schemars(range(min = 1, max = 5))]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]").message(
        "use 1, 3 or 5 voters: an even number survives no more failures than the odd one below it"
    ))]
    pub voters: i32,

    /// On how many nodes, 1 to 3, a request is durable before it is acknowledged, and results
    /// are before they are printed.
    #[serde(default = "default_copies")]
    #[schemars(range(min = 1, max = 3))]
    pub copies: i32,

    /// The volume of each node.
    #[serde(default)]
    pub storage: Storage,

    /// What is counted, and whether files are rebuilt.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub aggregations: Vec<Aggregation>,

    /// Lets a HorizontalPodAutoscaler set replicas by how full the nodes are. It needs the
    /// metric that the operator can serve, or one of an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// The image of the nodes. If left out, the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("!self.matches('[[:space:]]')").message(
        "use the name of an image, without spaces, such as registry.example.com/sheaf:1"
    ))]
    pub image: Option<String>,

    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Whether the operator leaves everything as it is, and only tells how it is.
    #[serde(default)]
    pub paused: bool,

    /// The processor time and memory of each node. Its queue and the memory for open windows
    /// follow from the limit of memory. If left out, requests of 250m and 512Mi, and a limit of
    /// 1Gi of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = borrowed::bound)]
    pub resources: Option<ResourceRequirements>,

    /// What is to be different in the pods, as in the template of a StatefulSet. It is merged
    /// over what is built; the container is named "node". The labels that all pods have, their host
    /// names and the volume "data" are reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

fn default_slots() -> i32 {
    SLOTS
}

fn default_voters() -> i32 {
    3
}

fn default_copies() -> i32 {
    2
}

/// When the image is pulled. If left out, as Kubernetes does by the image's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Each time that a container starts.
    Always,
    /// When the machine does not have it.
    IfNotPresent,
    /// Never: the machine has it, or the container does not start.
    Never,
}

impl ImagePullPolicy {
    /// The word for it, as Kubernetes has it too.
    pub fn as_str(self) -> &'static str {
        match self {
            ImagePullPolicy::Always => "Always",
            ImagePullPolicy::IfNotPresent => "IfNotPresent",
            ImagePullPolicy::Never => "Never",
        }
    }
}

#[cfg(test)]
mod tests;
