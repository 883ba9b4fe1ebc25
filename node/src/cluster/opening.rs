//! A segment for each life of a node.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::SegmentState;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::flush::feed::{Consensus, Disagreement};
use crate::journal::{Extent, Opening, Replay};

/// Seals what earlier lives of this node left open, where `replay` found its end, and opens
/// the next segment.
///
/// # Errors
/// When the facts do not allow it, or the node takes no part any more.
pub async fn open(
    consensus: &dyn Consensus,
    node: NodeId,
    replay: &Replay,
) -> Result<Opening, Disagreement> {
    loop {
        seal_earlier(consensus, node, replay).await?;
        let command = Command::OpenSegment { writer: node, copies: vec![node] };
        match consensus.propose(command).await {
            Ok(Applied::Segment(segment)) => {
                let facts = facts(consensus);
                let floor = facts.segments().get(&segment).map(|opened| opened.floor);
                return Ok(Opening { segment, floor: floor.unwrap_or(facts.latest_cut().time) });
            }
            // It was opened, and the answer was lost: nobody has appended to it.
            Ok(_) | Err(Disagreement::Refused(Refused::StillOpen { .. })) => {}
            Err(error) => return Err(error),
        }
    }
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
        if known.state == SegmentState::Open {
            consensus.propose(Command::BeginSeal { segment, ceiling: until }).await?;
        }
        let holders = BTreeSet::from([node]);
        consensus.propose(Command::Seal { segment, end, until, holders }).await?;
    }
    Ok(())
}

/// What a segment has, and a time before which all of it is stamped.
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

fn facts(consensus: &dyn Consensus) -> Arc<Facts> {
    consensus.facts().borrow().clone()
}

#[cfg(test)]
mod tests;
