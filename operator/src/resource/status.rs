//! What is told of an aggregator: the operator's answer to the spec.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{REPLICAS_MAX, borrowed};

/// How the aggregator is, as the operator last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogAggregatorStatus {
    /// How many pods there are.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,

    /// How many of the pods take logs.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,

    /// Which labels the pods have, as text: what autoscalers look for.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub selector: String,

    /// The id of the cluster that the nodes formed, which their volumes keep.
    #[serde(rename = "clusterID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub cluster_id: Option<String>,

    /// How often slots changed their owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,

    /// The pod whose node leads: it prints the windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub leader: Option<String>,

    /// Whether nothing is missing in what is counted and rebuilt: every slot has a node that works
    /// on it, and nothing waits for one that is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,

    /// The members of the cluster that have not left it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = REPLICAS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub members: Vec<Member>,

    /// The generation of the spec that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What holds and what does not: Ready, Progressing, Degraded and ScalingBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), transform = borrowed::bound)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its number in the cluster, which is never given to another.
    pub id: i64,

    /// The pod that it runs in.
    #[schemars(length(max = 63))]
    pub pod: String,

    /// What it may do.
    pub state: MemberState,

    /// Its part in Raft.
    pub role: MemberRole,

    /// The zone that it runs in, if it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub zone: Option<String>,

    /// Whether the leader reaches it.
    pub reachable: bool,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberState {
    /// It copies what it needs, and takes over slots.
    Joining,
    /// It takes logs and counts.
    Active,
    /// It hands everything over and takes nothing new.
    Draining,
    /// It has handed everything over, and its pod may go.
    Drained,
}

/// A member's part in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberRole {
    /// It votes, and the others follow it.
    Leader,
    /// It votes.
    Voter,
    /// It follows and does not vote.
    Learner,
    /// It has none: it is not in yet, or gone.
    None,
}
