//! Who belongs to the cluster. A member leaves only by an explicit act, never because it
//! is silent; its id is never given to another.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::slots::Ownership;
use crate::event::node::NodeId;
use crate::failpoint::is_to_fail;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it was born with. A volume that was emptied makes another one, and so
    /// another member.
    pub uuid: Uuid,
    /// Where its peers reach it, host and port.
    pub address: String,
    /// Where its machine stands, if that is known.
    pub zone: Option<String>,
    /// What it may do.
    pub state: MemberState,
}

/// What a member may do. It only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

impl MemberState {
    /// Whether the member is out of the cluster for ever.
    pub fn is_gone(self) -> bool {
        matches!(self, MemberState::Drained | MemberState::Forgotten)
    }

    /// Whether the member may become an owner of slots.
    pub fn may_own(self) -> bool {
        matches!(self, MemberState::Joining | MemberState::Active)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MemberState::Joining => "joining",
            MemberState::Active => "active",
            MemberState::Draining => "draining",
            MemberState::Drained => "drained",
            MemberState::Forgotten => "forgotten",
        })
    }
}

/// The members and the last id. Members that are gone stay, so that their volumes are
/// recognised should they come back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Members {
    pub(super) last: NodeId,
    pub(super) known: BTreeMap<NodeId, Member>,
}

impl Facts {
    /// The members that are not gone: all that something can be asked of.
    pub fn staying(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        let members = self.members.known.iter().map(|(&node, member)| (node, member));
        members.filter(|(_, member)| !member.state.is_gone())
    }

    /// Whether a node is a member that is not gone.
    pub fn stays(&self, node: NodeId) -> bool {
        self.members.known.get(&node).is_some_and(|member| !member.state.is_gone())
    }

    pub(super) fn join(
        &mut self,
        uuid: Uuid,
        address: String,
        zone: Option<String>,
    ) -> Result<Applied, Refused> {
        let known = self.members.known.iter_mut().find(|(_, member)| member.uuid == uuid);
        if let Some((&node, member)) = known {
            if member.state.is_gone() {
                return Err(Refused::Gone { node, state: member.state });
            }
            (member.address, member.zone) = (address, zone);
            return Ok(Applied::Node(node));
        }
        let mut node = NodeId(self.members.last.0 + 1);
        self.members.last = node;
        if is_to_fail("planted-node-id-reused") {
            let gone = self.members.known.iter().find(|(_, member)| member.state.is_gone());
            node = gone.map_or(node, |(&gone, _)| gone);
        }
        let state = MemberState::Joining;
        self.members.known.insert(node, Member { uuid, address, zone, state });
        Ok(Applied::Node(node))
    }

    pub(super) fn activate(&mut self, node: NodeId) -> Result<Applied, Refused> {
        match self.state_of(node)? {
            MemberState::Joining | MemberState::Active => self.set_state(node, MemberState::Active),
            state => Err(Refused::Leaving { node, state }),
        }
    }

    pub(super) fn drain(&mut self, node: NodeId) -> Result<Applied, Refused> {
        match self.state_of(node)? {
            MemberState::Joining | MemberState::Active => {
                self.check_rest_without(node)?;
                self.set_state(node, MemberState::Draining)
            }
            MemberState::Draining | MemberState::Drained => Ok(Applied::Done),
            state @ MemberState::Forgotten => Err(Refused::Gone { node, state }),
        }
    }

    pub(super) fn drained(&mut self, node: NodeId) -> Result<Applied, Refused> {
        if self.state_of(node)? == MemberState::Drained {
            return Ok(Applied::Done);
        }
        self.check_drained(node)?;
        self.segments.remove_holder(node);
        self.slots.values_mut().for_each(|ownership| ownership.give_up(node));
        self.set_state(node, MemberState::Drained)
    }

    /// Whether a draining member has handed over everything that the facts know of.
    ///
    /// # Errors
    /// When it has not, or is no draining member.
    pub fn check_drained(&self, node: NodeId) -> Result<(), Refused> {
        match self.state_of(node)? {
            MemberState::Draining => {}
            state => return Err(Refused::NotDraining { node, state }),
        }
        self.check_owns_nothing(node)?;
        self.check_holds_nothing_alone(node)
    }

    /// The state of a member.
    pub(super) fn state_of(&self, node: NodeId) -> Result<MemberState, Refused> {
        let member = self.members.known.get(&node);
        member.map(|member| member.state).ok_or(Refused::NoNode { node })
    }

    pub(super) fn set_state(
        &mut self,
        node: NodeId,
        state: MemberState,
    ) -> Result<Applied, Refused> {
        let member = self.members.known.get_mut(&node).ok_or(Refused::NoNode { node })?;
        member.state = state;
        Ok(Applied::Done)
    }

    /// Refuses to let a node go when the others could not hold what the slots need.
    ///
    /// Whether they are alive and form a majority is not a fact; but a command that gets
    /// here was agreed on by a majority.
    pub(super) fn check_rest_without(&self, node: NodeId) -> Result<(), Refused> {
        let active = |(&other, member): (&NodeId, &Member)| {
            other != node && member.state == MemberState::Active
        };
        let left = self.members.known.iter().filter(|&entry| active(entry)).count();
        let owners = self.slots.values().map(Ownership::copies);
        let needed = owners.max().unwrap_or(0).max(1);
        if left < needed { Err(Refused::TooFewLeft { node, left, needed }) } else { Ok(()) }
    }

    fn check_owns_nothing(&self, node: NodeId) -> Result<(), Refused> {
        match self.slots.iter().find(|(_, ownership)| ownership.owners.contains(&node)) {
            Some((&slot, _)) => Err(Refused::StillOwner { node, slot }),
            None => Ok(()),
        }
    }

    /// Refuses to let a node go while a segment would lose a copy with it.
    fn check_holds_nothing_alone(&self, node: NodeId) -> Result<(), Refused> {
        let keeps = self.segments.known.iter().find(|(_, segment)| {
            let others = segment.nodes().filter(|&other| other != node).count();
            let enough = segment.end().is_some() && others >= segment.copies.len();
            segment.nodes().any(|other| other == node) && !enough
        });
        match keeps {
            Some((&segment, _)) => Err(Refused::StillCopy { node, segment }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, join, node, window};

    fn state(cluster: &Cluster, id: u64) -> MemberState {
        cluster.facts.members()[&node(id)].state
    }

    #[test]
    fn the_same_uuid_gets_the_same_id_and_moves_to_its_new_address() {
        let mut cluster = Cluster::of(2);
        let uuid = Uuid::from_u128(2);
        let again = Command::Join { uuid, address: "moved:1".into(), zone: Some("b".into()) };
        assert_eq!(cluster.accept(again.clone()), Applied::Node(node(2)));
        let member = &cluster.facts.members()[&node(2)];
        assert_eq!((member.address.as_str(), member.zone.as_deref()), ("moved:1", Some("b")));
        assert_eq!(member.state, MemberState::Active);
        cluster.repeat(again);
    }

    #[test]
    fn an_id_is_never_allotted_twice() {
        let mut cluster = Cluster::of(3);
        cluster.accept(Command::Forget { node: node(3) });
        assert_eq!(cluster.accept(join(4)), Applied::Node(node(4)));
        let refused = cluster.refuse(join(3));
        assert_eq!(refused, Refused::Gone { node: node(3), state: MemberState::Forgotten });
    }

    #[test]
    fn a_member_joins_is_active_drains_and_is_drained() {
        let mut cluster = Cluster::of(2);
        let three = node(3);
        cluster.accept(join(3));
        let not_draining = Refused::NotDraining { node: three, state: MemberState::Joining };
        assert_eq!(cluster.refuse(Command::Drained { node: three }), not_draining);
        for (command, becomes) in [
            (Command::Activate { node: three }, MemberState::Active),
            (Command::Drain { node: three }, MemberState::Draining),
            (Command::Drained { node: three }, MemberState::Drained),
        ] {
            cluster.accept(command.clone());
            assert_eq!(state(&cluster, 3), becomes);
            cluster.repeat(command);
        }
        let leaving = Refused::Leaving { node: three, state: MemberState::Drained };
        assert_eq!(cluster.refuse(Command::Activate { node: three }), leaving);
        let gone = Refused::Gone { node: three, state: MemberState::Drained };
        assert_eq!(cluster.refuse(join(3)), gone);
        cluster.repeat(Command::Drain { node: three });
    }

    #[test]
    fn a_stranger_is_refused() {
        let mut cluster = Cluster::of(1);
        for command in [
            Command::Activate { node: node(9) },
            Command::Drain { node: node(9) },
            Command::Drained { node: node(9) },
            Command::Forget { node: node(9) },
        ] {
            assert_eq!(cluster.refuse(command), Refused::NoNode { node: node(9) });
        }
    }

    #[test]
    fn a_node_stays_while_the_others_are_too_few_for_the_slots() {
        let mut cluster = Cluster::of(2);
        let too_few = Refused::TooFewLeft { node: node(2), left: 1, needed: 2 };
        assert_eq!(cluster.refuse(Command::Drain { node: node(2) }), too_few);
        cluster.place(0, &[1]);
        cluster.place(1, &[1]);
        cluster.accept(Command::Drain { node: node(2) });
    }

    #[test]
    fn a_node_is_not_drained_while_it_owns_a_slot() {
        let mut cluster = Cluster::of(3);
        cluster.accept(Command::Drain { node: node(2) });
        let owner = Refused::StillOwner { node: node(2), slot: 0 };
        assert_eq!(cluster.refuse(Command::Drained { node: node(2) }), owner);
        cluster.place(0, &[1, 3]);
        cluster.place(1, &[1, 3]);
        cluster.accept(Command::Drained { node: node(2) });
    }

    #[test]
    fn a_node_is_not_drained_while_too_few_others_have_its_segments() {
        let mut cluster = Cluster::of(4);
        let segment = cluster.open(3, &[3, 4]);
        cluster.cut(2, &[(segment, 5)]);
        cluster.accept(Command::Drain { node: node(3) });
        let copy = Refused::StillCopy { node: node(3), segment };
        assert_eq!(cluster.refuse(Command::Drained { node: node(3) }), copy);
        cluster.seal(segment, 3, 5, &[3, 4]);
        assert_eq!(cluster.refuse(Command::Drained { node: node(3) }), copy);
        cluster.accept(Command::Hold { segment, node: node(1) });
        cluster.accept(Command::Drained { node: node(3) });
        let holders: Vec<_> = cluster.facts.segments()[&segment].nodes().collect();
        assert_eq!(holders, [node(1), node(4)]);
    }

    #[test]
    fn a_node_is_drained_once_its_segments_are_trimmed() {
        let mut cluster = Cluster::of(3);
        let segment = cluster.open(3, &[3]);
        cluster.accept(Command::Drain { node: node(3) });
        cluster.seal(segment, 5, 5, &[3]);
        cluster.cut(10, &[]);
        cluster.refuse(Command::Drained { node: node(3) });
        assert_eq!(cluster.facts.latest_cut().time, at(10));
        cluster.flush(window(0, 10));
        cluster.accept(Command::Drained { node: node(3) });
    }
}
