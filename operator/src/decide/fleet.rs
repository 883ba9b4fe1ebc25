//! The pods of an aggregator, their volumes and the members of its cluster, as they were seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sheaf_proto::cluster::{Cluster, Member, MemberState, Role};

use crate::build::VolumesRecord;

/// All that was seen of an aggregator when a round began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The StatefulSet's metadata, if there is one.
    pub stateful_set: Option<ObjectMeta>,
    /// How many replicas the StatefulSet has, if there is one.
    pub replicas: Option<u32>,
    /// The size of the volumes that the StatefulSet makes.
    pub template_size: Option<Quantity>,
    /// The pods, in any order.
    pub pods: Vec<Pod>,
    /// The volumes, in any order.
    pub claims: Vec<Claim>,
    /// What the pods said.
    pub answers: Answers,
    /// What is kept with the volumes, or why that cannot be read.
    pub record: Option<Result<VolumesRecord, String>>,
    /// With how many members the settings say that the cluster begins, if there are any.
    pub founders: Option<u32>,
    /// The members that a person gives up.
    pub given_up: Vec<u64>,
    /// The pods that were not told their zone yet, and the zone.
    pub untold_zones: Vec<(Pod, String)>,
}

/// A pod of the StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name, which ends with its ordinal.
    pub name: String,
    /// Tells it from the pod of the same name before it.
    pub uid: String,
    /// Its number in the StatefulSet.
    pub ordinal: u32,
    /// Where it is reached, once it has an address.
    pub address: Option<IpAddr>,
    /// Whether a container of it has ever run.
    pub started: bool,
    /// Whether senders may come.
    pub ready: bool,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Whether it waits for a machine that can take it.
    pub unschedulable: bool,
    /// Whether it was made from another template than the StatefulSet has now.
    pub outdated: bool,
}

/// A volume of the StatefulSet, bound or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name, which ends with the ordinal of its pod.
    pub name: String,
    /// Tells it from the claim of the same name before it.
    pub uid: String,
    /// The number of its pod.
    pub ordinal: u32,
    /// The member whose data is on it, once that was seen.
    pub member: Option<u64>,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Whether the machine that the volume is on is gone for good, or the volume itself.
    pub lost: bool,
    /// The size that it asks for, in bytes.
    pub size: u64,
}

/// What a pod said when it was asked for its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// By the pods' ordinals; a pod that did not answer is not in it.
    pub by_ordinal: BTreeMap<u32, Cluster>,
}

impl Answers {
    /// The word of the leader, or else none: only the leader knows who left last.
    pub fn leaders(&self) -> Option<&Cluster> {
        let leads =
            |told: &&Cluster| told.formed && told.node.is_some() && told.leader == told.node;
        // A leader that was deposed and has not noticed is of an older term.
        self.by_ordinal.values().filter(leads).max_by_key(|told| told.term)
    }

    /// The word of anybody who belongs to a cluster, the newest.
    pub fn newest(&self) -> Option<&Cluster> {
        self.by_ordinal.values().filter(|told| told.formed).max_by_key(|told| told.term)
    }

    /// The member that a pod says it is.
    pub fn member_of(&self, ordinal: u32) -> Option<u64> {
        self.by_ordinal.get(&ordinal)?.node
    }
}

/// A member of the cluster, at the pod that its address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its id, which is never given to another.
    pub member: u64,
    /// The number of the pod.
    pub ordinal: u32,
    /// What it may do.
    pub state: MemberState,
    /// Whether it has a vote.
    pub votes: bool,
}

impl Seat {
    /// Whether the member is out of the cluster for ever.
    pub fn is_gone(&self) -> bool {
        is_gone(self.state)
    }
}

/// Whether a member in this state is out of the cluster for ever.
pub fn is_gone(state: MemberState) -> bool {
    matches!(state, MemberState::Drained | MemberState::Forgotten)
}

/// The members that have the address of a pod of this aggregator.
pub fn seats(aggregator: &str, cluster: &Cluster) -> Vec<Seat> {
    let seat = |member: &Member| {
        let pod = pod_at(&member.address)?;
        Some(Seat {
            member: member.id,
            ordinal: ordinal(aggregator, pod)?,
            state: member.state,
            votes: matches!(member.role, Role::Leader | Role::Voter),
        })
    };
    cluster.members.iter().filter_map(seat).collect()
}

/// The name of the pod that a member's address is of: `logs-2` of `logs-2.logs-nodes.ns.svc:9465`.
pub fn pod_at(address: &str) -> Option<&str> {
    address.split(['.', ':']).next().filter(|pod| !pod.is_empty())
}

/// The number at the end of a pod's or claim's name, if the rest is `prefix`.
pub fn ordinal(prefix: &str, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?.strip_prefix('-')?;
    let is_canonical = digits == "0" || !digits.starts_with(['0', '+']);
    if is_canonical { digits.parse().ok() } else { None }
}

#[cfg(test)]
pub(crate) mod tests {
    use sheaf_proto::cluster::{Segment, SegmentState};
    use uuid::Uuid;

    use super::*;

    /// A member of `logs`, active, with its share of 256 slots on three members and two copies.
    pub(crate) fn member(id: u64, ordinal: u32) -> Member {
        Member {
            id,
            uuid: Uuid::from_u128(id.into()),
            address: format!("logs-{ordinal}.logs-nodes.ns.svc:9465"),
            zone: None,
            state: MemberState::Active,
            role: if id == 1 { Role::Leader } else { Role::Voter },
            reachable: Some(true),
            slots: if id == 1 { 86 } else { 85 },
            owned: if id == 1 { 172 } else { 170 },
            filling: 0,
            segments: 0,
            lag: Some(0),
            clock_offset_micros: None,
        }
    }

    /// What the leader, member 1, says of a cluster of three, in which all is well.
    pub(crate) fn cluster() -> Cluster {
        serde_json::from_value(serde_json::json!({
            "cluster": "5ea1c0de-0000-4000-8000-000000000001", "node": 1, "formed": true,
            "leader": 1, "term": 3, "epoch": 41, "segments": [], "unfolded": 0,
            "members": [member(1, 0), member(2, 1), member(3, 2)],
        }))
        .unwrap()
    }

    /// An open segment of `writer`, with these copies.
    pub(crate) fn segment(id: u64, writer: u64, copies: &[u64], state: SegmentState) -> Segment {
        Segment { id, writer, copies: copies.to_vec(), state, entries: None, trimmed: 0 }
    }

    pub(crate) fn seat(member: u64, ordinal: u32, state: MemberState) -> Seat {
        Seat { member, ordinal, state, votes: !is_gone(state) }
    }

    #[test]
    fn a_members_address_names_its_pod() {
        assert_eq!(pod_at("logs-2.logs-nodes.ns.svc:9465"), Some("logs-2"));
        assert_eq!(pod_at("logs-2:9465"), Some("logs-2"));
        assert_eq!(pod_at(":9465"), None);
    }

    #[test]
    fn an_ordinal_is_the_number_after_the_name() {
        assert_eq!(ordinal("logs", "logs-12"), Some(12));
        assert_eq!(ordinal("logs", "logs-0"), Some(0));
        assert_eq!(ordinal("data-logs", "data-logs-3"), Some(3));
        for other in ["logs", "logs-", "logs-a", "logs-01", "logs-+1", "logs-x-1", "log-1"] {
            assert_eq!(ordinal("logs", other), None, "{other}");
        }
    }

    #[test]
    fn seats_are_the_members_at_pods_of_this_aggregator() {
        let mut cluster = cluster();
        cluster.members[1].state = MemberState::Drained;
        cluster.members[1].role = Role::Learner;
        cluster.members[2].address = "10.0.0.7:9465".to_owned();
        let expected = [
            Seat { member: 1, ordinal: 0, state: MemberState::Active, votes: true },
            Seat { member: 2, ordinal: 1, state: MemberState::Drained, votes: false },
        ];
        assert_eq!(seats("logs", &cluster), expected);
    }

    #[test]
    fn the_leader_of_the_newest_term_is_believed() {
        let deposed = cluster();
        let leads = Cluster { node: Some(2), leader: Some(2), term: 4, ..cluster() };
        let follows = Cluster { node: Some(3), leader: Some(2), term: 5, ..cluster() };
        let answers = Answers { by_ordinal: [(0, deposed), (1, leads), (2, follows)].into() };
        assert_eq!(answers.leaders().and_then(|told| told.node), Some(2));
        assert_eq!(answers.newest().and_then(|told| told.node), Some(3));
        assert_eq!(answers.member_of(1), Some(2));
        assert_eq!(answers.member_of(7), None);
    }

    #[test]
    fn a_node_without_a_cluster_is_no_leader() {
        let alone = Cluster { node: None, leader: None, formed: false, ..cluster() };
        let answers = Answers { by_ordinal: [(0, alone)].into() };
        assert_eq!(answers.leaders(), None);
        assert_eq!(answers.newest(), None);
    }
}
