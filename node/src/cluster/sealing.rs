//! How a segment ends: each copy that is reached takes no more entries before it says how
//! far it got, and the cluster fixes the end where the shortest of them ends. What was
//! acknowledged is on every copy, so it is before the end.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use tracing::debug;

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::{Segment, SegmentState};
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::cluster::peers;
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::failpoint::is_to_fail;
use crate::flush::feed::{Consensus, Disagreement};
use crate::journal::{Extent, Replay, Stamped};

/// How long a member may take to answer for its copy.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// Asks other members about their copies.
pub trait AskCopies: Send + Sync {
    /// Has a member take no more entries of a segment; returns what its copy has, if it is
    /// reached.
    fn fence<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        segment: SegmentId,
    ) -> BoxFuture<'a, Option<Stamped>>;
}

impl AskCopies for peers::Member {
    fn fence<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        segment: SegmentId,
    ) -> BoxFuture<'a, Option<Stamped>> {
        let asked = self.other(node, address).fence(segment, ANSWER_WAIT);
        let fenced = asked.map(move |fenced| {
            fenced.unwrap_or_else(|error| {
                debug!(%node, segment, %error, "a copy is not reached");
                None
            })
        });
        fenced.boxed()
    }
}

/// How far a copy got that takes no more.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// Who has it.
    pub node: NodeId,
    /// What it has.
    pub end: Extent,
    /// All of it is stamped before this.
    pub until: UnixNanos,
}

impl Reached {
    /// What a copy on `node` has of a segment with this floor.
    pub fn new(node: NodeId, floor: UnixNanos, Stamped { before: end, last }: Stamped) -> Reached {
        let until = if end.entries == 0 { floor } else { UnixNanos(last.0 + 1) };
        Reached { node, end, until: until.max(floor) }
    }
}

/// Fences the copies of a segment on members that are reached, but for the writer's own.
pub async fn fence(
    members: &dyn AskCopies,
    facts: &Facts,
    id: SegmentId,
    segment: &Segment,
) -> Vec<Reached> {
    let others = segment.copies.iter().filter(|node| **node != segment.writer);
    let asked = others.filter_map(|&node| Some((node, facts.members().get(&node)?)));
    let asked = asked.map(|(node, member)| async move {
        let stamped = members.fence(node, &member.address, id).await?;
        Some(Reached::new(node, segment.floor, stamped))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The command that ends a segment where the shortest ends of the copies that were reached.
pub fn seal(segment: SegmentId, one: &Reached, others: &[Reached]) -> Command {
    let mut reached: Vec<_> = others.iter().chain([one]).collect();
    let holders = reached.iter().map(|reached| reached.node).collect();
    reached.sort_by_key(|reached| reached.end.entries);
    let shortest = match is_to_fail("planted-seal-longest") {
        true => reached.last(),
        false => reached.first(),
    };
    let &Reached { end, until, .. } = *shortest.unwrap_or(&one);
    Command::Seal { segment, end, until, holders }
}

/// Has the cluster fix the end of a segment where the shortest copy ends that is reached, this
/// node's own among them.
async fn propose_end(
    consensus: &dyn Consensus,
    members: &dyn AskCopies,
    facts: &Facts,
    id: SegmentId,
    segment: &Segment,
    here: Reached,
) -> Result<Applied, Disagreement> {
    if segment.state == SegmentState::Open {
        consensus.propose(Command::BeginSeal { segment: id, ceiling: here.until }).await?;
    }
    let others = fence(members, facts, id, segment).await;
    consensus.propose(seal(id, &here, &others)).await
}

/// Has the cluster fix the end of a segment to which this node, its writer, appends nothing
/// more and of which it has so much; returns where that is. `None` if nobody can tell, because
/// the segment was lost.
///
/// # Errors
/// When the facts do not allow it, or the node takes no part any more.
pub async fn seal_own(
    consensus: &dyn Consensus,
    members: &dyn AskCopies,
    segment: SegmentId,
    here: Reached,
) -> Result<Option<u64>, Disagreement> {
    loop {
        let facts = facts(consensus);
        if let Some(end) = facts.end_of(segment) {
            return Ok(Some(end.entries));
        }
        let Some(known) = facts.segments().get(&segment) else { return Ok(None) };
        match propose_end(consensus, members, &facts, segment, known, here).await {
            // If the leader was faster, the facts say by now where it ends.
            Ok(_)
            | Err(Disagreement::Refused(
                Refused::OtherEnd { .. } | Refused::Lost { .. } | Refused::NoSegment { .. },
            )) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Seals what earlier lives of this node left open, where `replay` found its end, or where
/// another copy ends that has less.
///
/// # Errors
/// As [`seal_own`].
pub async fn seal_earlier(
    consensus: &dyn Consensus,
    members: &dyn AskCopies,
    node: NodeId,
    replay: &Replay,
) -> Result<(), Disagreement> {
    let facts = facts(consensus);
    let own = facts.segments().iter().filter(|(_, segment)| segment.writer == node);
    for (&segment, known) in own.filter(|(_, segment)| segment.end().is_none()) {
        let (end, until) = end(&facts, segment, known.floor, replay);
        seal_own(consensus, members, segment, Reached { node, end, until }).await?;
    }
    Ok(())
}

/// What a segment has here, and a time before which all of it is stamped.
fn end(
    facts: &Facts,
    segment: SegmentId,
    floor: UnixNanos,
    replay: &Replay,
) -> (Extent, UnixNanos) {
    let Some(found) = replay.segments.get(&segment) else { return (Extent::default(), floor) };
    let (mut end, last) = (found.marks.end(), found.marks.last());
    if is_to_fail("planted-seal-short") && end.entries > facts.latest_cut().count(segment).entries {
        end = facts.latest_cut().count(segment);
    }
    // What was trimmed is below a cut.
    let trimmed = if end.entries > 0 { facts.latest_cut().time } else { floor };
    let until = if last == UnixNanos(0) { trimmed } else { UnixNanos(last.0 + 1) };
    (end, until.max(floor))
}

/// The segments of this node that end earlier, for the cluster, than `replay` found, and
/// where: what lies beyond was never acknowledged.
pub fn beyond_the_end(facts: &Facts, replay: &Replay) -> Vec<(SegmentId, u64)> {
    let found = replay.segments.iter().filter_map(|(&segment, found)| {
        let end = facts.end_of(segment)?.entries;
        (found.marks.end().entries > end).then_some((segment, end))
    });
    found.collect()
}

fn facts(consensus: &dyn Consensus) -> Arc<Facts> {
    consensus.facts().borrow().clone()
}

#[cfg(test)]
mod tests;
