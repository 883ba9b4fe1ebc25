//! Who belongs to a cluster, who leads it and where its journals are, as JSON carries
//! them: the answer to `GET /v1/cluster`, which `sheaf cluster` shows.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A cluster as one of its nodes knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id; `None` until the node belongs to a cluster.
    pub cluster: Option<Uuid>,
    /// The id of the node that answers; `None` until it belongs to a cluster.
    pub node: Option<u64>,
    /// Whether the node belongs to a cluster, newly formed or joined.
    pub formed: bool,
    /// While it does not: what it waits for, one text each, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
    /// The id of the node that leads, if the answering node knows one.
    pub leader: Option<u64>,
    /// The newest term of Raft that the answering node knows.
    pub term: u64,
    /// The highest epoch of all slots: it rises with every change of owners. 0 before the
    /// first.
    pub epoch: u64,
    /// All nodes that were ever members, by id.
    pub members: Vec<Member>,
    /// The segments that some slot may still ask for, by id.
    pub segments: Vec<Segment>,
    /// The ids of the segments of which the newest cut does not know how much they have: what
    /// is counted lacks it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<u64>,
    /// Into how many slots the counting is divided; `None` until the node belongs to a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u16>,
    /// How many of the slots that the answering node is the primary of it has not counted up to
    /// a cut of the last ten seconds; `None` while it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfolded: Option<u64>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number, which is never given to another.
    pub id: u64,
    /// What it was born with; an emptied volume makes another one, and another member.
    pub uuid: Uuid,
    /// Where its peers reach it: host and port.
    pub address: String,
    /// What it may fail together with, if it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What it may do.
    pub state: MemberState,
    /// Its part in Raft.
    pub role: Role,
    /// Whether it has answered the answering node in the last two seconds, which only the
    /// leader can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// The number of slots that it is the primary of.
    pub slots: u64,
    /// The number of slots that it is an owner of, primary or not.
    pub owned: u64,
    /// The number of slots that it copies before it becomes an owner of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub filling: u64,
    /// The number of segments that it has and that some slot may still ask for.
    #[serde(default)]
    pub segments: u64,
    /// The entries of Raft's log that it is behind the leader, if the answering node
    /// knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// How far its clock is ahead of the leader's, in microseconds, if the answering node has
    /// measured it: the leader has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_micros: Option<i64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It copies what it needs, and may become an owner of slots.
    Joining,
    /// It keeps journals and owns slots.
    Active,
    /// It hands everything over and takes nothing new.
    Draining,
    /// It has handed everything over. Nothing follows.
    Drained,
    /// It was given up, with what only it had. Nothing follows.
    Forgotten,
}

/// A member's part in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It votes, and the others follow it.
    Leader,
    /// It votes.
    Voter,
    /// It follows and does not vote.
    Learner,
    /// It has none: it is not in yet, or gone.
    None,
}

/// A stretch of one node's journal, with one set of copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number.
    pub id: u64,
    /// The id of the only node that appends to it.
    pub writer: u64,
    /// The ids of the nodes that have it: while it may grow, the writer among them. None
    /// are left when those that had it were forgotten.
    pub copies: Vec<u64>,
    /// Whether it may still grow.
    pub state: SegmentState,
    /// The number of its entries, trimmed ones too, if the answering node knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// How many of its first entries no slot needs any more.
    pub trimmed: u64,
}

/// Whether a segment may still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentState {
    /// Its writer appends to it.
    Open,
    /// Its end is being found out.
    Sealing,
    /// It has its final length.
    Sealed,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_is_read_and_written_in_one_form() {
        let json = json!({
            "cluster": "5ea1c0de-0000-4000-8000-000000000001", "node": 2, "formed": true,
            "leader": 1, "term": 3, "epoch": 41,
            "members": [
                {"id": 1, "uuid": "5ea1c0de-0000-4000-8000-000000000002",
                 "address": "sheaf-0.sheaf:9465", "zone": "a", "state": "active",
                 "role": "leader", "reachable": true, "slots": 256, "owned": 256, "segments": 2,
                 "lag": 0, "clock_offset_micros": -1500},
                {"id": 2, "uuid": "5ea1c0de-0000-4000-8000-000000000003",
                 "address": "sheaf-1.sheaf:9465", "state": "joining", "role": "none",
                 "slots": 0, "owned": 0, "filling": 85, "segments": 1},
            ],
            "segments": [
                {"id": 7, "writer": 1, "copies": [1], "state": "sealed", "entries": 12,
                 "trimmed": 5},
                {"id": 8, "writer": 1, "copies": [1, 2], "state": "open", "trimmed": 0},
            ],
            "missing": [8], "slots": 256, "unfolded": 3,
        });
        let cluster: Cluster = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(cluster).unwrap(), json);
    }

    #[test]
    fn a_node_without_a_cluster_says_what_it_waits_for() {
        let json = json!({
            "cluster": null, "node": null, "formed": false,
            "waiting": ["sheaf-1.sheaf:9465 does not answer"],
            "leader": null, "term": 0, "epoch": 0, "members": [], "segments": [],
        });
        let cluster: Cluster = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(cluster).unwrap(), json);
    }
}
