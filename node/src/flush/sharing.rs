//! What is kept of slots, to their other owners: before the cluster is told that something is
//! complete or carried, all of them have it.
//!
//! Of files they are told only which have changed: each owner reads what it lacks, so that one
//! that has missed something makes up for it. A node that is about to be an owner copies files
//! until it has them all, and is told nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::command::{Change, Command};
use crate::checkpoint::facts::slots::Ownership;
use crate::checkpoint::facts::{Facts, Slot};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::failpoint::is_to_fail;
use crate::flush::FlushError;
use crate::flush::carried::CarriedWindows;
use crate::flush::feed::{Consensus, Disagreement};
use crate::flush::files::FileKey;

/// How long an owner may fail to take what it is sent, before it is an owner no longer ..
const PATIENCE: Duration = Duration::from_secs(5);
/// .. and how long one that is to be an owner may.
const PATIENCE_WHILE_FILLING: Duration = Duration::from_secs(1);
/// How long to rest before an owner is sent the same again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The ways to the other owners of slots.
pub trait Others: Send + Sync {
    /// Has a node keep what came of a window of an aggregation in some slots, whichever tables
    /// have it here. `Ok` means durable there.
    ///
    /// # Errors
    /// When it does not say so; it may have kept some of it.
    fn keep_results(
        &self,
        node: NodeId,
        of: (u32, Window),
        slots: SlotSet,
    ) -> BoxFuture<'_, Result<(), NotKept>>;

    /// Has a node keep a carry, which has some slots only. `Ok` means durable there.
    ///
    /// # Errors
    /// When it does not say so; it may have kept it.
    fn keep_carry<'a>(
        &'a self,
        node: NodeId,
        carry: &'a Carry,
    ) -> BoxFuture<'a, Result<(), NotKept>>;

    /// Has a node keep what checkpoints have of files, of some slots only. `Ok` means durable
    /// there.
    ///
    /// # Errors
    /// When it does not say so; it may have kept some of it.
    fn keep_files<'a>(
        &'a self,
        node: NodeId,
        files: &'a KeptFiles,
        slots: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>>;
}

/// What all owners of some slots are to have, besides what is carried of open windows.
#[derive(Clone, Copy, Debug)]
pub enum Shared<'a> {
    /// Nothing.
    Nothing,
    /// What came of a window.
    Results(Window),
    /// Files as of a checkpoint.
    Files(&'a KeptFiles),
}

/// Checkpoints of files that are kept here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFiles {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The number of each slot's checkpoint.
    pub checkpoints: BTreeMap<Slot, u64>,
    /// The files that have something new.
    pub files: Vec<FileKey>,
}

impl KeptFiles {
    /// What some slots have of it.
    pub fn of(&self, slots: &SlotSet) -> KeptFiles {
        let checkpoints = self.checkpoints.iter().filter(|(slot, _)| slots.contains(**slot));
        let files = self.files.iter().filter(|key| slots.contains(key.slot()));
        KeptFiles {
            aggregation: self.aggregation,
            checkpoints: checkpoints.map(|(&slot, &number)| (slot, number)).collect(),
            files: files.copied().collect(),
        }
    }
}

/// Why it is not known that another owner keeps something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub String);

/// Sends what is kept to the other owners.
pub struct Sharing {
    node: NodeId,
    consensus: Arc<dyn Consensus>,
    others: Arc<dyn Others>,
    carried: CarriedWindows,
    /// What others have of that, as far as they said so in this life.
    known: Mutex<BTreeMap<NodeId, Vec<Carry>>>,
}

/// What one round of sending is about.
struct Round<'a> {
    aggregation: u32,
    shared: Shared<'a>,
    /// Who has what came of the window, or the files.
    have: BTreeMap<NodeId, SlotSet>,
    /// Since when an owner has not taken what it was sent.
    failing: BTreeMap<NodeId, Instant>,
}

impl Sharing {
    /// Sends what `node` has carried, and its tables, to whoever else owns its slots by the
    /// facts.
    pub fn new(
        node: NodeId,
        consensus: Arc<dyn Consensus>,
        others: Arc<dyn Others>,
        carried: CarriedWindows,
    ) -> Sharing {
        Sharing { node, consensus, others, carried, known: Mutex::default() }
    }

    /// Waits until all owners of those of the slots that are this node's have what is shared, and
    /// what is carried of the aggregation's other windows. Returns the facts that say who these
    /// owners are: nothing may be told of the slots in a later epoch.
    ///
    /// # Errors
    /// When the database fails, or the node takes no part any more.
    pub async fn share(
        &self,
        aggregation: u32,
        shared: Shared<'_>,
        slots: &SlotSet,
    ) -> Result<Arc<Facts>, FlushError> {
        let (have, failing) = (BTreeMap::new(), BTreeMap::new());
        let mut round = Round { aggregation, shared, have, failing };
        loop {
            let facts = self.consensus.facts().borrow().clone();
            let own = facts.primary_of(self.node).intersection(slots);
            let others = others(&facts, self.node, &own, shared);
            if others.is_empty() {
                return Ok(facts);
            }
            let failed = self.send(&mut round, &others).await?;
            if failed.is_empty() {
                return Ok(facts);
            }
            round.failing.retain(|node, _| failed.contains(node));
            for node in failed {
                let since = *round.failing.entry(node).or_insert_with(Instant::now);
                let is_owner = !facts.owner_of(node).intersection(&own).is_empty();
                let patience = if is_owner { PATIENCE } else { PATIENCE_WHILE_FILLING };
                if since.elapsed() > patience && self.go_on_without(node, &own).await? {
                    // Whoever is to be an owner again has as long again.
                    round.failing.remove(&node);
                }
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Sends to all others at once what they lack. Returns those who did not take it.
    async fn send(
        &self,
        round: &mut Round<'_>,
        others: &BTreeMap<NodeId, SlotSet>,
    ) -> Result<Vec<NodeId>, FlushError> {
        let all = self.carried.all()?;
        let but = match round.shared {
            Shared::Results(window) => Some(window),
            Shared::Files(_) | Shared::Nothing => None,
        };
        let is_needed =
            |carry: &&Carry| carry.aggregation == round.aggregation && Some(carry.window) != but;
        let carries: Vec<_> = all.iter().filter(is_needed).collect();
        // What is not here any more nobody asks for.
        let is_here = |carry: &Carry| all.iter().any(|now| now.has(carry));
        self.known().values_mut().for_each(|known| known.retain(is_here));
        let sent = others.iter().map(|(&node, slots)| {
            let has = round.have.get(&node) == Some(slots);
            let shared = if has { Shared::Nothing } else { round.shared };
            let lacks = |carry: &&Carry| carry.of(slots).filter(|own| !self.has(node, own));
            let carries: Vec<_> = carries.iter().filter_map(lacks).collect();
            let (others, slots) = (Arc::clone(&self.others), *slots);
            let to = (node, round.aggregation, slots);
            async move { (node, slots, send_to(&*others, to, shared, carries).await) }
        });
        let mut failed = Vec::new();
        for (node, slots, (carries, result)) in join_all(sent).await {
            self.known().entry(node).or_default().extend(carries);
            match result {
                Ok(()) => drop(round.have.insert(node, slots)),
                Err(error) => {
                    debug!(%node, %error, "an owner does not keep what it was sent");
                    failed.push(node);
                }
            }
        }
        Ok(failed)
    }

    fn has(&self, node: NodeId, carry: &Carry) -> bool {
        self.known().get(&node).is_some_and(|known| known.contains(carry))
    }

    /// Nothing panics half-way through a change of it.
    fn known(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Carry>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the cluster count on the other owners alone: whoever comes back copies what it
    /// missed before it is one again. Returns whether the cluster does.
    async fn go_on_without(&self, node: NodeId, slots: &SlotSet) -> Result<bool, FlushError> {
        let facts = self.consensus.facts().borrow().clone();
        let own = facts.primary_of(self.node).intersection(slots);
        let known = facts.slots().iter().filter(|(slot, _)| own.contains(**slot));
        let changes: BTreeMap<Slot, Change> = known
            .filter(|(_, now)| now.owners.contains(&node) || now.filling.contains_key(&node))
            .map(|(&slot, now)| (slot, without(now, node)))
            .collect();
        if changes.is_empty() {
            return Ok(true);
        }
        warn!(%node, slots = changes.len(), "an owner does not answer: the others go on without it");
        match self.consensus.propose(Command::Place { changes }).await {
            // Somebody else has changed the owners: the facts tell better now.
            Err(Disagreement::Refused(refused)) => {
                debug!(%refused, "the owners stay");
                Ok(false)
            }
            placed => Ok(placed.map(|_| true)?),
        }
    }
}

/// The other nodes that are to get what is shared, and of which slots.
fn others(
    facts: &Facts,
    node: NodeId,
    own: &SlotSet,
    shared: Shared<'_>,
) -> BTreeMap<NodeId, SlotSet> {
    let mut others = facts.others_of(node, own);
    if let Shared::Files(_) = shared {
        if is_to_fail("planted-file-unshared") {
            return BTreeMap::new();
        }
        for (&other, slots) in &mut others {
            *slots = slots.intersection(&facts.owner_of(other));
        }
        others.retain(|_, slots| !slots.is_empty());
    }
    others
}

/// Sends what is shared, and then carries. Returns the carries that were taken.
async fn send_to(
    others: &dyn Others,
    (node, aggregation, slots): (NodeId, u32, SlotSet),
    shared: Shared<'_>,
    carries: Vec<Carry>,
) -> (Vec<Carry>, Result<(), NotKept>) {
    let mut taken = Vec::new();
    let kept = match shared {
        Shared::Nothing => Ok(()),
        Shared::Results(window) => others.keep_results(node, (aggregation, window), slots).await,
        Shared::Files(files) => others.keep_files(node, files, slots).await,
    };
    if let Err(error) = kept {
        return (taken, Err(error));
    }
    for carry in carries {
        if let Err(error) = others.keep_carry(node, &carry).await {
            return (taken, Err(error));
        }
        taken.push(carry);
    }
    (taken, Ok(()))
}

fn without(now: &Ownership, node: NodeId) -> Change {
    let rest = |nodes: &[NodeId]| nodes.iter().copied().filter(|&it| it != node).collect();
    let (owners, wanted) = (rest(&now.owners), rest(&now.wanted));
    Change { epoch: now.epoch, owners, copied: 0, wanted }
}

#[cfg(test)]
mod tests;
