//! The open segment of a node's journal, and its other copies.
//!
//! A node appends to one segment at a time. When one of its copies is lost, or there could
//! be more of them, or the cluster has taken this node for dead, the segment is sealed and
//! the journal goes on in another; senders wait meanwhile, or are told to come back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, pending};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep};
use tracing::{info, warn};

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::members::{Member, MemberState};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::SegmentState;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::cluster::leases;
use crate::cluster::mirroring::{MirrorError, Mirroring};
use crate::cluster::peers;
use crate::cluster::placement::Copies;
use crate::cluster::sealing::{Reached, seal_own};
use crate::event::node::NodeId;
use crate::flush::feed::{Consensus, Disagreement};
use crate::journal::{AppendError, Journal, JournalError, Mirror, Opening, Stamped};

/// How long senders wait for another segment before they are told to come back.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to rest before other members are asked again to take a copy.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How often a segment with too few copies looks for more.
const MORE_EVERY: Duration = Duration::from_secs(2);

/// Why a node's journal has no segment any more.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cluster does not agree, or this node takes no part any more.
    #[error(transparent)]
    Consensus(#[from] Disagreement),
    /// The node's own journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Opens one segment after the other.
pub struct Opener {
    /// This node.
    pub node: NodeId,
    /// On how many nodes each entry is to be.
    pub copies: Copies,
    /// What the cluster agrees on.
    pub consensus: Arc<dyn Consensus>,
    /// The ways to the others.
    pub members: peers::Member,
    /// The node's journal.
    pub journal: Journal,
}

/// Why the journal goes on in another segment.
enum Change {
    Lost(NodeId, MirrorError),
    Sealing,
    Leaving,
    Left(NodeId),
    More,
}

impl Opener {
    /// Keeps a segment open until the node is to leave the cluster; then it has sealed its
    /// journal, and rests for ever.
    ///
    /// # Errors
    /// When the journal fails, or the node takes no part any more.
    pub async fn run(self) -> Result<(), OpenError> {
        let mut avoided = BTreeSet::new();
        loop {
            let opened = self.refuse_meanwhile(self.open(&avoided)).await??;
            let Some((segment, mirrorings)) = opened else {
                info!("this node is to leave, and has sealed its journal");
                return self.refuse_meanwhile(pending()).await?;
            };
            avoided.clear();
            match self.hold(segment, mirrorings).await? {
                Change::Lost(node, reason) => {
                    warn!(segment, %node, %reason, "a copy of the journal is lost");
                    avoided.insert(node);
                }
                Change::Sealing => warn!(
                    segment,
                    "the cluster seals the journal's segment, as this node was silent for too long"
                ),
                Change::Left(node) => info!(segment, %node, "a member with a copy leaves"),
                Change::More => info!(segment, "the journal can have more copies"),
                Change::Leaving => {}
            }
            self.refuse_meanwhile(self.seal(segment)).await??;
        }
    }

    /// Refuses those who wait for too long while `work` is done.
    async fn refuse_meanwhile<T>(&self, work: impl Future<Output = T>) -> Result<T, OpenError> {
        let mut patience = interval_at(Instant::now() + PATIENCE, PATIENCE / 4);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                _ = patience.tick() => or_end(self.journal.refuse_waiting()).await,
            }
        }
    }

    /// Opens a segment with copies on other members, but for those to avoid if that can be;
    /// `None` if the node is to leave.
    async fn open(
        &self,
        avoided: &BTreeSet<NodeId>,
    ) -> Result<Option<(SegmentId, Vec<Mirroring>)>, OpenError> {
        let mut warn_at = Some(Instant::now() + PATIENCE);
        loop {
            let facts = self.facts();
            if leaves(&facts, self.node) {
                return Ok(None);
            }
            self.seal_unused(None).await?;
            let wanted = wanted(&facts, self.copies);
            let ready = self.ready(&facts).await;
            let others = choose(&facts, self.node, wanted, &ready, avoided);
            if others.len() < wanted {
                if warn_at.take_if(|at| *at <= Instant::now()).is_some() {
                    let (reached, copies) = (others.len() + 1, wanted + 1);
                    warn!(
                        reached,
                        copies, "senders wait for nodes that take copies of the journal"
                    );
                }
                sleep(AGAIN_AFTER).await;
                continue;
            }
            let copies = std::iter::once(self.node).chain(others.iter().copied()).collect();
            let command = Command::OpenSegment { writer: self.node, copies };
            match self.consensus.propose(command).await {
                Ok(Applied::Segment(segment)) => {
                    // One that was opened before, unheard of, may be known only now.
                    self.seal_unused(Some(segment)).await?;
                    return Ok(Some((segment, self.begin(segment, &others).await)));
                }
                // It was opened, and the answer was lost; or one of them leaves by now.
                Ok(_)
                | Err(Disagreement::Refused(
                    Refused::StillOpen { .. } | Refused::NotActive { .. },
                )) => sleep(AGAIN_AFTER).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets the journal go on in a segment.
    async fn begin(&self, segment: SegmentId, others: &[NodeId]) -> Vec<Mirroring> {
        let facts = self.facts();
        let floor = facts.segments().get(&segment).map(|opened| opened.floor);
        let floor = floor.unwrap_or(facts.latest_cut().time);
        let ways = others.iter().map(|&node| {
            let member = facts.members().get(&node);
            let address = member.map_or_else(String::new, |member| member.address.clone());
            Mirroring::new(node, address, self.members.clone())
        });
        let (mirrorings, mirrors): (_, Vec<Arc<dyn Mirror>>) = ways.unzip();
        let lease = leases::first(floor);
        or_end(self.journal.open(Opening { segment, floor, lease, mirrors }).await).await;
        let copies: Vec<_> = others.iter().map(|node| node.0).collect();
        info!(segment, ?copies, "the journal is open");
        mirrorings
    }

    /// Waits until the journal has to go on in another segment.
    async fn hold(
        &self,
        segment: SegmentId,
        mirrorings: Vec<Mirroring>,
    ) -> Result<Change, OpenError> {
        let copies: Vec<_> = mirrorings.iter().map(|mirroring| mirroring.node).collect();
        let mut mirrors: FuturesUnordered<_> = mirrorings
            .into_iter()
            .enumerate()
            .map(|(copy, mirroring)| mirroring.run(self.journal.clone(), segment, copy))
            .collect();
        let mut facts = self.consensus.facts();
        let mut more = interval_at(Instant::now() + MORE_EVERY, MORE_EVERY);
        loop {
            tokio::select! {
                Some((node, error)) = mirrors.next() => match error {
                    MirrorError::Journal(error) => return Err(error.into()),
                    reason => return Ok(Change::Lost(node, reason)),
                },
                change = self.change(&mut facts, segment, &copies) => return Ok(change),
                _ = more.tick() => {
                    let facts = self.facts();
                    let wanted = wanted(&facts, self.copies);
                    if copies.len() < wanted && self.ready(&facts).await.len() >= wanted {
                        return Ok(Change::More);
                    }
                }
            }
        }
    }

    /// Waits until the facts ask for another segment.
    async fn change(
        &self,
        facts: &mut watch::Receiver<Arc<Facts>>,
        segment: SegmentId,
        copies: &[NodeId],
    ) -> Change {
        loop {
            let now = facts.borrow_and_update().clone();
            if leaves(&now, self.node) {
                return Change::Leaving;
            }
            let known = now.segments().get(&segment);
            if known.is_none_or(|known| known.state != SegmentState::Open) {
                return Change::Sealing;
            }
            if let Some(&left) = copies.iter().find(|copy| leaves(&now, **copy)) {
                return Change::Left(left);
            }
            if facts.changed().await.is_err() {
                // The node takes no part any more, of which there is word elsewhere.
                return pending().await;
            }
        }
    }

    /// Ends a segment; what it has beyond its end waits for the next one, if that is known.
    async fn seal(&self, segment: SegmentId) -> Result<(), OpenError> {
        let stamped = or_end(self.journal.suspend().await).await;
        let facts = self.facts();
        let floor = facts.segments().get(&segment).map(|known| known.floor);
        let here = Reached::new(self.node, floor.unwrap_or_default(), stamped);
        let end = seal_own(&*self.consensus, &self.members, segment, here).await?;
        or_end(self.journal.seal(end).await).await;
        Ok(())
    }

    /// Seals segments of this life to which nothing was appended, but for the one to be used.
    async fn seal_unused(&self, used: Option<SegmentId>) -> Result<(), OpenError> {
        let facts = self.facts();
        let own = facts.segments().iter().filter(|(_, segment)| segment.writer == self.node);
        let unused = own.filter(|(id, segment)| segment.end().is_none() && Some(**id) != used);
        for (&segment, known) in unused {
            let here = Reached::new(self.node, known.floor, Stamped::default());
            seal_own(&*self.consensus, &self.members, segment, here).await?;
        }
        Ok(())
    }

    /// The other active members that take copies at the moment.
    async fn ready(&self, facts: &Facts) -> BTreeSet<NodeId> {
        if u8::from(self.copies) == 1 {
            return BTreeSet::new();
        }
        let others = active(facts).filter(|(node, _)| *node != self.node);
        let asked = others.map(|(node, member)| async move {
            let other = self.members.other(node, &member.address);
            other.takes_copies(AGAIN_AFTER * 2).await.then_some(node)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn facts(&self) -> Arc<Facts> {
        self.consensus.facts().borrow().clone()
    }
}

/// Waits for ever when the journal is closed: all of the engine ends then.
async fn or_end<T>(done: Result<T, AppendError>) -> T {
    match done {
        Ok(done) => done,
        Err(_) => pending().await,
    }
}

/// Whether a node is on its way out of the cluster, or gone.
pub fn leaves(facts: &Facts, node: NodeId) -> bool {
    facts.members().get(&node).is_some_and(|member| !member.state.may_own())
}

fn active(facts: &Facts) -> impl Iterator<Item = (NodeId, &Member)> {
    let members = facts.members().iter().map(|(&node, member)| (node, member));
    members.filter(|(_, member)| member.state == MemberState::Active)
}

/// How many other nodes are to have each entry: no more than there are.
fn wanted(facts: &Facts, copies: Copies) -> usize {
    usize::from(u8::from(copies)).min(active(facts).count().max(1)) - 1
}

/// Of the nodes that are ready, those that are to have a copy: one in each zone first, and
/// those that have the fewest. Those to avoid come last.
fn choose(
    facts: &Facts,
    writer: NodeId,
    wanted: usize,
    ready: &BTreeSet<NodeId>,
    avoided: &BTreeSet<NodeId>,
) -> Vec<NodeId> {
    let zone = |node: &NodeId| facts.members().get(node).and_then(|member| member.zone.as_ref());
    let copies_of = |node: &NodeId| {
        let segments = facts.segments().values();
        segments.filter(|segment| segment.nodes().any(|other| other == *node)).count()
    };
    let mut left = ready.clone();
    let mut chosen = vec![writer];
    while chosen.len() <= wanted {
        let in_zone =
            |node: &NodeId| chosen.iter().filter(|other| zone(other) == zone(node)).count();
        // Each writer begins with the next id, so that equal ones take turns.
        let turn = |node: &NodeId| node.0.wrapping_sub(writer.0 + 1);
        let order =
            |node: &&NodeId| (avoided.contains(*node), in_zone(node), copies_of(node), turn(node));
        let Some(&next) = left.iter().min_by_key(order) else { break };
        left.remove(&next);
        chosen.push(next);
    }
    chosen.split_off(1)
}

#[cfg(test)]
mod tests;
