//! How many nodes there are, by how full they are.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use kube::KubeSchema;
use schemars::Schema;
use schemars::transform::transform_subschemas;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{REPLICAS_MAX, borrowed};

/// How long an autoscaler may wait for more recommendations, at most, ..
pub const STABILIZATION_SECONDS_MAX: i32 = 3_600;
/// .. and over how long a policy of it may reach.
pub const PERIOD_SECONDS_MAX: i32 = 1_800;
/// Which of several policies counts.
pub const SELECT_POLICIES: [&str; 3] = ["Max", "Min", "Disabled"];
/// What a policy counts in.
pub const POLICY_TYPES: [&str; 2] = ["Pods", "Percent"];

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
    #[schemars(transform = bound)]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

/// Bounds a behavior as the API server does when the HorizontalPodAutoscaler is written, which
/// would be too late.
fn bound(schema: &mut Schema) {
    borrowed::bound(schema);
    bound_rules(schema);
}

fn bound_rules(schema: &mut Schema) {
    transform_subschemas(&mut bound_rules, schema);
    let Some(Value::Object(fields)) = schema.get_mut("properties") else { return };
    for (field, bounds) in [
        ("stabilizationWindowSeconds", json!({"minimum": 0, "maximum": STABILIZATION_SECONDS_MAX})),
        ("periodSeconds", json!({"minimum": 1, "maximum": PERIOD_SECONDS_MAX})),
        ("value", json!({"minimum": 1, "maximum": i32::MAX})),
        ("policies", json!({"minItems": 1})),
        ("selectPolicy", json!({"enum": SELECT_POLICIES})),
        ("type", json!({"enum": POLICY_TYPES})),
    ] {
        if let (Some(Value::Object(known)), Value::Object(bounds)) = (fields.get_mut(field), bounds)
        {
            known.extend(bounds);
        }
    }
}

fn default_target_queue_percent() -> i32 {
    50
}
