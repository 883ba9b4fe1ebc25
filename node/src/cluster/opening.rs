//! A segment for each life of a node.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use tracing::warn;

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::{Segment, SegmentState};
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::cluster::leases;
use crate::cluster::placement::Copies;
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::flush::feed::{Consensus, Disagreement};
use crate::journal::{Extent, Opening, Replay, Stamped};

/// Asks other members about copies.
pub trait AskCopies: Send + Sync {
    /// Whether a member is reached.
    fn is_there<'a>(&'a self, address: &'a str) -> BoxFuture<'a, bool>;

    /// Has a member take no more entries of a segment; returns what its copy has, if it has
    /// one and is reached.
    fn fence<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        segment: SegmentId,
    ) -> BoxFuture<'a, Option<Stamped>>;
}

/// What is needed to open a segment.
pub struct Opener<'a> {
    /// What the cluster agrees on.
    pub consensus: &'a dyn Consensus,
    /// The ways to the others.
    pub members: &'a dyn AskCopies,
    /// This node.
    pub node: NodeId,
    /// On how many nodes each entry is to be.
    pub copies: Copies,
}

impl Opener<'_> {
    /// Seals what earlier lives of this node left open, where `replay` found its end, or
    /// where another copy ends that has less.
    ///
    /// # Errors
    /// When the facts do not allow it, or the node takes no part any more.
    pub async fn seal_earlier(&self, replay: &Replay) -> Result<(), Disagreement> {
        let facts = facts(self.consensus);
        let own = facts.segments().iter().filter(|(_, segment)| segment.writer == self.node);
        for (&segment, known) in own.filter(|(_, segment)| segment.end().is_none()) {
            let (end, until) = end(&facts, segment, known.floor, replay);
            let here = Reached { node: self.node, end, until };
            let reached = reached(self.members, &facts, segment, known, Some(here)).await;
            if known.state == SegmentState::Open {
                self.consensus.propose(Command::BeginSeal { segment, ceiling: until }).await?;
            }
            let Some(command) = seal(segment, &reached) else { continue };
            match self.consensus.propose(command).await {
                // The leader was faster, and asked another copy.
                Ok(_) | Err(Disagreement::Refused(Refused::OtherEnd { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens the next segment.
    ///
    /// # Errors
    /// As [`Opener::seal_earlier`].
    pub async fn open(&self) -> Result<Opening, Disagreement> {
        loop {
            let others = self.others().await;
            let mut copies = vec![self.node];
            copies.extend(&others);
            let command = Command::OpenSegment { writer: self.node, copies };
            match self.consensus.propose(command).await {
                Ok(Applied::Segment(segment)) => {
                    let facts = facts(self.consensus);
                    let floor = facts.segments().get(&segment).map(|opened| opened.floor);
                    let floor = floor.unwrap_or(facts.latest_cut().time);
                    let lease = leases::first(floor);
                    return Ok(Opening { segment, floor, lease, copies: others });
                }
                // It was opened, and the answer was lost: nobody has appended to it.
                Ok(_) | Err(Disagreement::Refused(Refused::StillOpen { .. })) => {
                    self.seal_earlier(&Replay::default()).await?;
                }
                // One of them is leaving.
                Err(Disagreement::Refused(Refused::NotActive { node, .. }))
                    if node != self.node => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The other nodes that are to have a copy: of those that are reached, one in each zone
    /// first, and those that have the fewest.
    async fn others(&self) -> Vec<NodeId> {
        let wanted = usize::from(u8::from(self.copies)) - 1;
        let facts = facts(self.consensus);
        let active = facts
            .members()
            .iter()
            .filter(|(node, member)| **node != self.node && member.state == MemberState::Active);
        let asked = active.map(|(&node, member)| async move {
            self.members.is_there(&member.address).await.then_some(node)
        });
        let reached: BTreeSet<_> = if wanted == 0 {
            BTreeSet::new()
        } else {
            join_all(asked).await.into_iter().flatten().collect()
        };
        let others = choose(&facts, self.node, wanted, reached);
        if others.len() < wanted {
            warn!(
                copies = others.len() + 1,
                wanted = wanted + 1,
                "fewer nodes are reached than are to have a copy of what this one accepts"
            );
        }
        others
    }
}

/// Of the nodes that are reached, those that are to have a copy.
fn choose(
    facts: &Facts,
    writer: NodeId,
    wanted: usize,
    mut reached: BTreeSet<NodeId>,
) -> Vec<NodeId> {
    let zone = |node: &NodeId| facts.members().get(node).and_then(|member| member.zone.clone());
    let copies_of = |node: &NodeId| {
        let segments = facts.segments().values();
        segments.filter(|segment| segment.nodes().any(|other| other == *node)).count()
    };
    let mut chosen = vec![writer];
    while chosen.len() <= wanted {
        let in_zone =
            |node: &NodeId| chosen.iter().filter(|other| zone(other) == zone(node)).count();
        // Each writer begins with the next id, so that equal ones take turns.
        let turn = |node: &NodeId| node.0.wrapping_sub(writer.0 + 1);
        let next = reached.iter().min_by_key(|node| (in_zone(node), copies_of(node), turn(node)));
        let Some(&next) = next else { break };
        reached.remove(&next);
        chosen.push(next);
    }
    chosen.split_off(1)
}

/// How far a copy got that takes no more.
pub struct Reached {
    node: NodeId,
    end: Extent,
    /// All of it is stamped before this.
    until: UnixNanos,
}

/// Fences the copies of a segment that are reached, but for this node's own.
pub async fn reached(
    members: &dyn AskCopies,
    facts: &Facts,
    id: SegmentId,
    segment: &Segment,
    here: Option<Reached>,
) -> Vec<Reached> {
    let own = here.as_ref().map(|here| here.node);
    let others =
        segment.copies.iter().filter(|node| **node != segment.writer && Some(**node) != own);
    let asked = others.filter_map(|&node| Some((node, facts.members().get(&node)?)));
    let asked = asked.map(|(node, member)| async move {
        let Stamped { before: end, last } = members.fence(node, &member.address, id).await?;
        let until = if end.entries == 0 { segment.floor } else { UnixNanos(last.0 + 1) };
        Some(Reached { node, end, until: until.max(segment.floor) })
    });
    let fenced = join_all(asked).await;
    here.into_iter().chain(fenced.into_iter().flatten()).collect()
}

/// The command that ends a segment where the shortest copy ends that was reached.
pub fn seal(segment: SegmentId, reached: &[Reached]) -> Option<Command> {
    let shortest = reached.iter().min_by_key(|reached| reached.end.entries)?;
    let holders = reached.iter().map(|reached| reached.node).collect();
    Some(Command::Seal { segment, end: shortest.end, until: shortest.until, holders })
}

/// What a segment has here, and a time before which all of it is stamped.
fn end(
    facts: &Facts,
    segment: SegmentId,
    floor: UnixNanos,
    replay: &Replay,
) -> (Extent, UnixNanos) {
    let Some(found) = replay.segments.get(&segment) else { return (Extent::default(), floor) };
    let (end, last) = (found.marks.end(), found.marks.last());
    // What was trimmed is below a cut.
    let trimmed = if end.entries > 0 { facts.latest_cut().time } else { floor };
    let until = if last == UnixNanos(0) { trimmed } else { UnixNanos(last.0 + 1) };
    (end, until.max(floor))
}

/// The segments of this node that end earlier, for the cluster, than `replay` found, and
/// where: what lies beyond was never acknowledged.
pub fn beyond_the_end(facts: &Facts, replay: &Replay) -> Vec<(SegmentId, u64)> {
    let found = replay.segments.iter().filter_map(|(&segment, found)| {
        let end = facts.segments().get(&segment)?.end()?.entries;
        (found.marks.end().entries > end).then_some((segment, end))
    });
    found.collect()
}

fn facts(consensus: &dyn Consensus) -> Arc<Facts> {
    consensus.facts().borrow().clone()
}
