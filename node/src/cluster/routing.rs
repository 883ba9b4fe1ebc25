//! Entries to where they are folded: from this node's journal, and from those of others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::checkpoint::facts::{Facts, SegmentId};
use crate::cluster::lending::held;
use crate::cluster::peers::{self, PeerError};
use crate::event::entry::part::Splitter;
use crate::event::entry::{Entry, MalformedEntry};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::failpoint::is_to_fail;
use crate::flush::feed::{Batch, Feed, Followed, Part, Told};
use crate::journal::copies::Copies;
use crate::journal::follow::{self, Follower};
use crate::journal::{Journal, JournalError, Position};

/// Bytes of entries that are read at a time.
const READ_BYTES: usize = 256 << 10;
/// How long a member may take to begin.
const BEGIN_WAIT: Duration = Duration::from_secs(5);
/// How long a member may take to say what it has decided.
const DECIDED_WAIT: Duration = Duration::from_secs(2);
/// How long to rest before a member is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The ways of entries to this node.
#[derive(Clone)]
pub struct Routing {
    /// This node.
    pub node: NodeId,
    /// Its journal ..
    pub journal: Journal,
    /// .. and what it has of others'.
    pub copies: Copies,
    /// The ways to the other members.
    pub members: peers::Member,
    /// Which segments there are, and who has them.
    pub facts: watch::Receiver<Arc<Facts>>,
}

impl Feed for Routing {
    fn follow(&self, from: Position, slots: SlotSet) -> Followed {
        let Position { segment, index } = from;
        let (routing, next) = (self.clone(), index);
        let source = Source { routing, segment, slots, next, turn: 0, open: None };
        let batches = stream::try_unfold(source, async |mut source| {
            Ok(source.next().await?.map(|batch| (batch, source)))
        });
        batches.boxed()
    }

    fn folded(&self, segment: u64, index: u64) {
        self.journal.folded(segment, index);
    }

    fn decided(&self) -> BoxFuture<'static, Told> {
        let (members, facts, own) = (self.members.clone(), self.facts.clone(), self.node);
        let told = async move {
            let facts = facts.borrow().clone();
            let others = facts.staying().filter(|(node, _)| *node != own);
            let asked = others
                .map(|(node, other)| members.other(node, &other.address).decided(DECIDED_WAIT));
            let answers = join_all(asked).await;
            let is_all = answers.iter().all(Result::is_ok);
            Told { decided: answers.into_iter().flatten().collect(), is_all }
        };
        told.boxed()
    }
}

impl Routing {
    /// Begins with a segment that is here, or with what one of the others has.
    async fn begin(&self, from: Position, slots: SlotSet, turn: usize) -> Result<Open, PeerError> {
        let Routing { node, journal, copies, members, facts } = self;
        let facts = facts.borrow().clone();
        if let Some(follower) = held(journal, copies, &facts, from) {
            return Ok(Open::Here(own(follower, slots).boxed()));
        }
        let Position { segment, mut index } = from;
        let nobody = || PeerError::Unreachable("nobody has the segment".to_owned());
        let (holder, address) = holder(&facts, segment, *node, turn).ok_or_else(nobody)?;
        if is_to_fail("planted-follow-skips") && index > 0 {
            index += 1;
        }
        if is_to_fail("planted-fold-again") {
            index = 0;
        }
        let holder = members.other(holder, address);
        Ok(Open::Elsewhere(holder.follow(segment, index, slots, BEGIN_WAIT).await?))
    }
}

/// What of this node's entries belongs to some slots; ends with the segment.
pub fn own(
    follower: Follower,
    slots: SlotSet,
) -> impl stream::Stream<Item = Result<Batch, JournalError>> {
    let splitter = Splitter::default();
    stream::try_unfold((follower, splitter), move |(mut follower, mut splitter)| async move {
        let entries = follower.next(READ_BYTES).await?;
        let next = follower.position().index;
        if entries.is_empty() {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(entries.len());
        for follow::Followed { index, stamp, entry } in entries {
            let position = Position { index, ..follower.position() };
            let part = part(&mut splitter, entry, &slots);
            let part = part.map_err(|source| JournalError::Malformed { position, source })?;
            parts.extend(part.map(|entry| Part { index, stamp, entry }));
        }
        Ok(Some((Batch { next, parts }, (follower, splitter))))
    })
}

/// What of an entry belongs to some slots: all of it, or less, or nothing.
fn part(
    splitter: &mut Splitter,
    entry: Bytes,
    slots: &SlotSet,
) -> Result<Option<Bytes>, MalformedEntry> {
    if slots.len() == SLOTS {
        return Ok(Some(entry));
    }
    Ok(splitter.part(&Entry::parse(&entry)?, slots)?.map(Bytes::from))
}

/// A segment, wherever it is.
struct Source {
    routing: Routing,
    segment: SegmentId,
    slots: SlotSet,
    next: u64,
    /// Whose turn it is among the others who have it.
    turn: usize,
    open: Option<Open>,
}

/// A way to a segment's entries.
enum Open {
    Here(BoxStream<'static, Result<Batch, JournalError>>),
    Elsewhere(peers::Followed),
}

impl Source {
    /// The next batch; `None` at the end of the segment, or when nobody needs it any more.
    async fn next(&mut self) -> Result<Option<Batch>, JournalError> {
        loop {
            match self.attempt().await? {
                Ok(Some(batch)) => {
                    self.next = self.next.max(batch.next);
                    return Ok(Some(batch));
                }
                Ok(None) => {}
                Err(error) => {
                    debug!(segment = self.segment, %error, "entries of another node do not come");
                    self.turn += 1;
                }
            }
            self.open = None;
            let facts = self.routing.facts.borrow().clone();
            let Some(segment) = facts.segments().get(&self.segment) else { return Ok(None) };
            let end = segment.end().map(|end| end.entries);
            if end.is_some_and(|end| end <= self.next) {
                return Ok(None);
            }
            if let Some(next) = end.filter(|_| segment.nodes().next().is_none()) {
                warn!(segment = self.segment, from = self.next, next, "entries are lost");
                self.next = next;
                return Ok(Some(Batch { next, parts: Vec::new() }));
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// The next batch of who has it; what is here is not to fail.
    async fn attempt(&mut self) -> Result<Result<Option<Batch>, PeerError>, JournalError> {
        if self.open.is_none() {
            let from = Position { segment: self.segment, index: self.next };
            match self.routing.begin(from, self.slots, self.turn).await {
                Ok(open) => self.open = Some(open),
                Err(error) => return Ok(Err(error)),
            }
        }
        match &mut self.open {
            Some(Open::Here(open)) => Ok(Ok(open.next().await.transpose()?)),
            Some(Open::Elsewhere(open)) => Ok(open.next().await.transpose()),
            None => Ok(Ok(None)),
        }
    }
}

/// Where one of the other nodes that have a segment is reached: the next one at each turn.
fn holder(facts: &Facts, segment: SegmentId, own: NodeId, turn: usize) -> Option<(NodeId, &str)> {
    let segment = facts.segments().get(&segment)?;
    let mut others: Vec<_> = segment.nodes().filter(|&node| node != own).collect();
    // The writer of one that still grows has it first.
    others.sort_by_key(|&node| (node != segment.writer, node));
    let node = others.get(turn % others.len().max(1))?;
    Some((*node, &facts.members().get(node)?.address))
}

#[cfg(test)]
mod tests;
