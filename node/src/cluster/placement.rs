//! Which nodes own which slot: consistent hashing with bounded load, in different zones.
//!
//! Pure and deterministic: no clock, no I/O, no hash-map order. The next placement is
//! computed from the one before and keeps of it what may be kept; a ring decides only
//! for what has to move (docs/adr/0005-placement.md).

mod assignment; // slots dealt out within bounds, by few moves
mod members; // who they are dealt out to, and in which zones
mod ring; // whom a slot asks first

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cluster::placement::assignment::{Assignment, Owners, Rules};
use crate::cluster::placement::members::Members;
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;

const COPIES_MAX: u8 = 3;

// For more, a limit for each zone would not be enough to have as many zones as can be.
const _: () = assert!(COPIES_MAX <= 3);

/// How many nodes own each slot: 1, 2 or 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Copies(u8);

impl Copies {
    /// A lone owner.
    pub const ONE: Copies = Copies(1);
    /// Two owners: the loss of one loses nothing.
    pub const TWO: Copies = Copies(2);
}

impl TryFrom<u8> for Copies {
    type Error = InvalidCopies;

    fn try_from(count: u8) -> Result<Self, InvalidCopies> {
        match count {
            1..=COPIES_MAX => Ok(Copies(count)),
            _ => Err(InvalidCopies(count)),
        }
    }
}

impl From<Copies> for u8 {
    fn from(copies: Copies) -> u8 {
        copies.0
    }
}

/// A number of copies that no slot can have, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} copies: use 1, 2 or 3; with 2 or more, the loss of one node loses nothing")]
pub struct InvalidCopies(u8);

/// A member that may own slots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The member.
    pub node: NodeId,
    /// What it may fail together with, such as a Kubernetes zone. Those that name none
    /// count as being in one zone.
    pub zone: Option<String>,
}

/// The owners of every slot: different nodes, the primary first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<NodeId>>", into = "Vec<Vec<NodeId>>")]
pub struct Placement(Vec<Vec<NodeId>>);

impl Placement {
    /// The placement before there is a member: no slot has an owner.
    pub fn empty() -> Placement {
        Placement(vec![Vec::new(); SLOTS])
    }

    /// The nodes that own a slot. Only where there is no member at all there is no owner.
    pub fn owners(&self, slot: u8) -> &[NodeId] {
        &self.0[usize::from(slot)]
    }

    /// The node that folds and flushes a slot.
    pub fn primary(&self, slot: u8) -> Option<NodeId> {
        self.owners(slot).first().copied()
    }

    /// The slots of which a node is an owner, primary or not, in ascending order.
    pub fn slots_of(&self, node: NodeId) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |&slot| self.owners(slot).contains(&node))
    }
}

impl TryFrom<Vec<Vec<NodeId>>> for Placement {
    type Error = InvalidPlacement;

    fn try_from(owners: Vec<Vec<NodeId>>) -> Result<Self, InvalidPlacement> {
        if owners.len() != SLOTS {
            return Err(InvalidPlacement::Slots(owners.len()));
        }
        for (slot, owners) in owners.iter().enumerate() {
            let different: BTreeSet<_> = owners.iter().collect();
            if different.len() < owners.len() {
                return Err(InvalidPlacement::Twice(slot));
            }
        }
        Ok(Placement(owners))
    }
}

impl From<Placement> for Vec<Vec<NodeId>> {
    fn from(placement: Placement) -> Self {
        placement.0
    }
}

/// Why lists of nodes are not a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlacement {
    /// There is not one list for each slot.
    #[error("a placement of {0} slots instead of {SLOTS}")]
    Slots(usize),
    /// A node is named more than once.
    #[error("slot {0} names an owner twice")]
    Twice(usize),
}

/// The first placement of a cluster.
pub fn place(candidates: &[Candidate], copies: Copies) -> Placement {
    rebalance(&Placement::empty(), candidates, copies)
}

/// The placement that follows `previous` when these are the members, whatever their order:
///
/// - a slot has `copies` owners, or all members if they are fewer;
/// - they are in as many different zones as can be;
/// - a member is primary of at most a tenth more slots than its fair share, rounded up,
///   and is an owner of at most a tenth more than that fair share, except where the rule
///   of zones leaves no other way: then those whom it concerns share alike;
/// - a member that has less than nine tenths of its fair share, rounded down, gets more,
///   if zones let it;
/// - what needs not move for this stays, and a primary that leaves is followed by the next
///   owner in the list, unless that one is at its bound.
///
/// This says where slots are to be. Until a new owner has copied a slot, the old ones have
/// to keep and serve it; all of them can be new.
pub fn rebalance(previous: &Placement, candidates: &[Candidate], copies: Copies) -> Placement {
    if candidates.is_empty() {
        return Placement::empty();
    }
    let members = Members::new(candidates);
    let holders: Owners = previous.0.iter().map(|owners| members.places(owners)).collect();
    let primaries = choose_primaries(&members, previous, &holders);
    let owners = choose_owners(&members, primaries, &holders, copies);
    members.placement(owners)
}

/// A lone owner of each slot: any member can be primary of any slot, so its bound always
/// holds, and the rule of zones is kept by whoever is added.
fn choose_primaries(members: &Members, previous: &Placement, holders: &Owners) -> Owners {
    let kept = previous.0.iter().map(|owners| members.places(owners.first())).collect();
    let next_in_line = holders.iter().map(|owners| owners.iter().copied().take(1).collect());
    let rules = Rules { members, holders, kept: &kept, wanted: 1, per_zone: 1, fixed: 0 };
    Assignment::settle(next_in_line.collect(), rules)
}

/// The primary and then the others: whoever has been an owner for longest is next in line.
fn choose_owners(members: &Members, primaries: Owners, holders: &Owners, copies: Copies) -> Owners {
    let wanted = usize::from(copies.0).min(members.count());
    let per_zone = (wanted + 1).saturating_sub(members.zone_count()).max(1);
    let mut owners = primaries;
    for (owners, holders) in owners.iter_mut().zip(holders) {
        let primary = owners.clone();
        owners.extend(holders.iter().filter(|holder| !primary.contains(holder)));
    }
    let rules = Rules { members, holders, kept: holders, wanted, per_zone, fixed: 1 };
    let mut owners = Assignment::settle(owners, rules);
    for (slot, owners) in owners.iter_mut().enumerate() {
        owners[1..].sort_by_key(|owner| {
            let seniority = holders[slot].iter().position(|holder| holder == owner);
            (seniority.unwrap_or(SLOTS), members.rank(slot, *owner))
        });
    }
    owners
}

/// What becomes of a placement when nodes fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The same owners, with a live one first wherever there is one.
    pub placement: Placement,
    /// The slots without a live owner, which stay as they were, in ascending order.
    pub without_live_owner: Vec<u8>,
}

/// Puts a live owner first where the primary is not alive: the first of them in the list.
/// The dead primary stays an owner, and the last one. Nothing else changes.
pub fn promote(previous: &Placement, is_alive: impl Fn(NodeId) -> bool) -> Promotion {
    let mut placement = previous.clone();
    let mut without_live_owner = Vec::new();
    for (slot, owners) in (0..=u8::MAX).zip(&mut placement.0) {
        match owners.iter().position(|&owner| is_alive(owner)) {
            None => without_live_owner.push(slot),
            Some(0) => {}
            Some(live) => {
                let dead = owners.remove(0);
                owners.push(dead);
                owners[..live].rotate_right(1);
            }
        }
    }
    Promotion { placement, without_live_owner }
}

#[cfg(test)]
mod tests;
