//! What is kept of slots, to their other owners: before the cluster is told that something is
//! complete or carried, all of them have it.

use std::collections::BTreeMap;
use std::sync::Arc;
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
use crate::flush::FlushError;
use crate::flush::carried::CarriedWindows;
use crate::flush::feed::{Consensus, Disagreement};

/// How long an owner may fail to take what it is sent, before it is an owner no longer ..
const PATIENCE: Duration = Duration::from_secs(5);
/// .. and how long one that is to be an owner may.
const PATIENCE_WHILE_FILLING: Duration = Duration::from_secs(1);
/// How long to rest before an owner is sent the same again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The ways to the other owners of slots.
pub trait Others: Send + Sync {
    /// Has a node keep a count table of this node for some slots. `Ok` means durable there.
    ///
    /// # Errors
    /// When it does not say so; it may have kept it.
    fn keep_table<'a>(
        &'a self,
        node: NodeId,
        table: &'a Kept,
        slots: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>>;

    /// Has a node keep a carry, which has some slots only. `Ok` means durable there.
    ///
    /// # Errors
    /// When it does not say so; it may have kept it.
    fn keep_carry<'a>(
        &'a self,
        node: NodeId,
        carry: &'a Carry,
    ) -> BoxFuture<'a, Result<(), NotKept>>;
}

/// A count table that is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The window.
    pub window: Window,
    /// Which table.
    pub table: u64,
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
    known: BTreeMap<NodeId, Vec<Carry>>,
}

/// What one round of sending is about.
struct Round<'a> {
    aggregation: u32,
    table: Option<&'a Kept>,
    /// Who has the table.
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
        Sharing { node, consensus, others, carried, known: BTreeMap::new() }
    }

    /// Waits until all owners of those of the slots that are this node's have the table, and
    /// what is carried of the aggregation's other windows. Returns the facts that say who these
    /// owners are: nothing may be told of the slots in a later epoch.
    ///
    /// # Errors
    /// When the database fails, or the node takes no part any more.
    pub async fn share(
        &mut self,
        aggregation: u32,
        table: Option<&Kept>,
        slots: &SlotSet,
    ) -> Result<Arc<Facts>, FlushError> {
        let (have, failing) = (BTreeMap::new(), BTreeMap::new());
        let mut round = Round { aggregation, table, have, failing };
        loop {
            let facts = self.consensus.facts().borrow().clone();
            let own = facts.primary_of(self.node).intersection(slots);
            let others = facts.others_of(self.node, &own);
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
                if since.elapsed() > patience {
                    self.go_on_without(node, &own).await?;
                }
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Sends to all others at once what they lack. Returns those who did not take it.
    async fn send(
        &mut self,
        round: &mut Round<'_>,
        others: &BTreeMap<NodeId, SlotSet>,
    ) -> Result<Vec<NodeId>, FlushError> {
        let all = self.carried.all()?;
        let but = round.table.map(|kept| kept.window);
        let is_needed =
            |carry: &&Carry| carry.aggregation == round.aggregation && Some(carry.window) != but;
        let carries: Vec<_> = all.iter().filter(is_needed).collect();
        // What is not here any more nobody asks for.
        self.known.values_mut().for_each(|known| {
            known
                .retain(|carry| all.iter().any(|now| now.of(&carry.slots).as_ref() == Some(carry)));
        });
        let sent = others.iter().map(|(&node, slots)| {
            let table = round.table.filter(|_| round.have.get(&node) != Some(slots));
            let lacks = |carry: &&Carry| carry.of(slots).filter(|own| !self.has(node, own));
            let carries: Vec<_> = carries.iter().filter_map(lacks).collect();
            let (others, slots) = (Arc::clone(&self.others), *slots);
            async move { (node, slots, send_to(&*others, node, table, slots, carries).await) }
        });
        let mut failed = Vec::new();
        for (node, slots, (carries, result)) in join_all(sent).await {
            self.known.entry(node).or_default().extend(carries);
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
        self.known.get(&node).is_some_and(|known| known.contains(carry))
    }

    /// Has the cluster count on the other owners alone: whoever comes back copies what it
    /// missed before it is one again.
    async fn go_on_without(&self, node: NodeId, slots: &SlotSet) -> Result<(), FlushError> {
        let facts = self.consensus.facts().borrow().clone();
        let own = facts.primary_of(self.node).intersection(slots);
        let known = facts.slots().iter().filter(|(slot, _)| own.contains(**slot));
        let changes: BTreeMap<Slot, Change> = known
            .filter(|(_, now)| now.owners.contains(&node) || now.filling.contains_key(&node))
            .map(|(&slot, now)| (slot, without(now, node)))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        warn!(%node, slots = changes.len(), "an owner does not answer: the others go on without it");
        match self.consensus.propose(Command::Place { changes }).await {
            // Somebody else has changed the owners: the facts tell better now.
            Err(Disagreement::Refused(refused)) => debug!(%refused, "the owners stay"),
            placed => drop(placed?),
        }
        Ok(())
    }
}

/// Sends a table, and then carries. Returns the carries that were taken.
async fn send_to(
    others: &dyn Others,
    node: NodeId,
    table: Option<&Kept>,
    slots: SlotSet,
    carries: Vec<Carry>,
) -> (Vec<Carry>, Result<(), NotKept>) {
    let mut taken = Vec::new();
    if let Some(table) = table
        && let Err(error) = others.keep_table(node, table, slots).await
    {
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
