//! A segment for each life of a node.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::{Segment, SegmentState};
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::cluster::leases;
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::failpoint::is_to_fail;
use crate::flush::feed::{Consensus, Disagreement};
use crate::journal::{Extent, Opening, Replay};

/// Seals what earlier lives of this node left open, where `replay` found its end, and opens
/// the next segment; none if the node leaves the cluster.
///
/// # Errors
/// When the facts do not allow it, or the node takes no part any more.
pub async fn open(
    consensus: &dyn Consensus,
    node: NodeId,
    replay: &Replay,
) -> Result<Option<Opening>, Disagreement> {
    loop {
        if is_to_fail("planted-earlier-segment")
            && let Some(opening) = earlier(&facts(consensus), node)
        {
            return Ok(Some(opening));
        }
        seal_earlier(consensus, node, replay).await?;
        if leaves(&facts(consensus), node) {
            return Ok(None);
        }
        let command = Command::OpenSegment { writer: node, copies: vec![node] };
        match consensus.propose(command).await {
            Ok(Applied::Segment(segment)) => {
                let facts = facts(consensus);
                let floor = facts.segments().get(&segment).map(|opened| opened.floor);
                let floor = floor.unwrap_or(facts.latest_cut().time);
                return Ok(Some(Opening { segment, floor, lease: leases::first(floor) }));
            }
            // It was opened, and the answer was lost: nobody has appended to it. Or the node is
            // to leave, as the facts say by now.
            Ok(_) | Err(Disagreement::Refused(Refused::StillOpen { .. })) => {}
            Err(Disagreement::Refused(Refused::NotActive { .. }))
                if leaves(&facts(consensus), node) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The segment that an earlier life of the node left open: it must never be gone on with.
fn earlier(facts: &Facts, node: NodeId) -> Option<Opening> {
    let is_own = |known: &Segment| known.writer == node && known.state == SegmentState::Open;
    let (&segment, known) = facts.segments().iter().find(|(_, known)| is_own(known))?;
    Some(Opening { segment, floor: known.floor, lease: leases::first(known.floor) })
}

async fn seal_earlier(
    consensus: &dyn Consensus,
    node: NodeId,
    replay: &Replay,
) -> Result<(), Disagreement> {
    let facts = facts(consensus);
    let own = facts.segments().iter().filter(|(_, segment)| segment.writer == node);
    for (&segment, known) in own.filter(|(_, segment)| segment.end().is_none()) {
        let (end, until) = end(&facts, segment, known.floor, replay);
        seal(consensus, node, segment, end, until).await?;
    }
    Ok(())
}

/// Seals a segment of a node that alone has it and appends nothing more to it.
///
/// # Errors
/// When the facts do not allow it, or the node takes no part any more.
pub async fn seal(
    consensus: &dyn Consensus,
    node: NodeId,
    segment: SegmentId,
    end: Extent,
    until: UnixNanos,
) -> Result<(), Disagreement> {
    let known = facts(consensus).segments().get(&segment).map(|known| known.state.clone());
    if known == Some(SegmentState::Open) {
        consensus.propose(Command::BeginSeal { segment, ceiling: until }).await?;
    }
    let holders = BTreeSet::from([node]);
    consensus.propose(Command::Seal { segment, end, until, holders }).await.map(drop)
}

/// Whether a node is on its way out of the cluster, or gone.
pub fn leaves(facts: &Facts, node: NodeId) -> bool {
    facts.members().get(&node).is_some_and(|member| !member.state.may_own())
}

/// What a segment has, and a time before which all of it is stamped.
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

fn facts(consensus: &dyn Consensus) -> Arc<Facts> {
    consensus.facts().borrow().clone()
}
