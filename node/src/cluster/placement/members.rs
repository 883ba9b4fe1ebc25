//! The members of a placement, by their place in the order of their ids.

use crate::cluster::placement::assignment::Owners;
use crate::cluster::placement::ring::Ring;
use crate::cluster::placement::{Candidate, Placement};
use crate::event::node::NodeId;

/// Members in ascending order, whatever the order of the candidates.
pub(super) struct Members {
    nodes: Vec<NodeId>,
    zones: Vec<usize>,
    zone_count: usize,
    ring: Ring,
}

impl Members {
    /// Of at least one candidate. A node that is listed twice counts once.
    pub(super) fn new(candidates: &[Candidate]) -> Members {
        let mut members: Vec<_> = candidates.iter().collect();
        members.sort_unstable();
        members.dedup_by_key(|member| member.node);
        let nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        let mut names: Vec<_> = members.iter().map(|member| &member.zone).collect();
        names.sort_unstable();
        names.dedup();
        let zone = |member: &&Candidate| names.partition_point(|&name| *name < member.zone);
        let zones = members.iter().map(zone).collect();
        let ring = Ring::new(&nodes);
        Members { nodes, zones, zone_count: names.len(), ring }
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn zone_count(&self) -> usize {
        self.zone_count
    }

    /// Whether two members, or one and itself, are in the same zone.
    pub(super) fn are_neighbours(&self, one: usize, other: usize) -> bool {
        self.zones[one] == self.zones[other]
    }

    /// How many members a slot asks before this one.
    pub(super) fn rank(&self, slot: usize, member: usize) -> usize {
        self.ring.rank(slot, member)
    }

    /// Those of the nodes who are members.
    pub(super) fn places<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> Vec<usize> {
        nodes.into_iter().filter_map(|node| self.nodes.binary_search(node).ok()).collect()
    }

    /// The placement in which these are the owners.
    pub(super) fn placement(&self, owners: Owners) -> Placement {
        let name = |owners: Vec<usize>| owners.into_iter().map(|owner| self.nodes[owner]).collect();
        Placement(owners.into_iter().map(name).collect())
    }
}
