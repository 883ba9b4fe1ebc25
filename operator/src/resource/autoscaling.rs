//! How many nodes there are, by how full they are.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{REPLICAS_MAX, borrowed};

/// Between which bounds, and by what, the number of nodes follows the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("minReplicas must be at most maxReplicas: lower minReplicas, or raise maxReplicas"))]
pub struct Autoscaling {
    /// The fewest nodes; at least as many as copies.
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub min_replicas: i32,

    /// The most nodes.
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub max_replicas: i32,

    /// How full the queues of the nodes are to be, in percent of their size: the mean of the last
    /// minute. Above it nodes are added, below it removed.
    #[serde(default = "default_target_queue_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub target_queue_percent: i32,

    /// How fast nodes are added and removed, as in a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = borrowed::bound)]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

fn default_target_queue_percent() -> i32 {
    50
}
