//! What the owners of slots have, to a node that is to be one of them: results of the last
//! hour, and what is carried. What is flushed or carried meanwhile the primaries send.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use tracing::{debug, info};

use crate::aggregation::distinct_logs::FoldError;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::copying::{ANSWER_WAIT, CopyError, Copying, pace};
use crate::cluster::keeping::Keeping;
use crate::cluster::leaving::{Counted, flushed_windows, next};
use crate::cluster::peers::{self, CarriedPart, PeerError};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::FlushError;
use crate::flush::carried::Incoming;
use crate::flush::feed::{Consensus, Disagreement};

/// Fills slots, and says so.
pub struct Filling {
    /// This node.
    pub node: NodeId,
    /// Where it says that it has filled.
    pub consensus: Arc<dyn Consensus>,
    /// What copies results.
    pub copying: Copying,
    /// What keeps carries.
    pub keeping: Keeping,
    /// The ways to the other members.
    pub members: peers::Member,
}

/// Why slots are not filled yet.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Keep(#[from] FlushError),
    #[error(transparent)]
    File(#[from] FoldError),
    #[error("nobody has slots {0}")]
    Nobody(SlotSet),
}

impl Filling {
    /// Fills whenever the cluster wants this node to own slots that it does not own yet, and
    /// forgets what it owns no longer.
    ///
    /// # Errors
    /// When the database fails, or the node takes no part any more.
    pub async fn run(self) -> Result<(), FlushError> {
        let mut facts = self.consensus.facts();
        loop {
            let now = facts.borrow_and_update().clone();
            self.keeping.forget_what_is_over(&now)?;
            let slots = now.filled_by(self.node);
            if !slots.is_empty() {
                self.fill_and_say(&now, slots).await?;
            }
            next(&mut facts).await;
        }
    }

    async fn fill_and_say(
        &self,
        facts: &Facts,
        slots: BTreeMap<Slot, u64>,
    ) -> Result<(), FlushError> {
        let of: SlotSet = slots.keys().copied().collect();
        match self.fill(facts, of).await {
            Ok(()) => {}
            Err(FillError::Copy(CopyError::Store(error))) => return Err(error.into()),
            Err(FillError::Keep(error @ FlushError::Store(_))) => return Err(error),
            Err(error) => {
                debug!(slots = %of, %error, "slots are not filled yet");
                return Ok(());
            }
        }
        match self.consensus.propose(Command::Filled { node: self.node, slots }).await {
            Ok(_) => info!(slots = %of, "slots are filled: this node owns them"),
            Err(Disagreement::Refused(refused)) => debug!(%refused, "slots are not this node's"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Copies all that was complete or carried by these facts.
    async fn fill(&self, facts: &Facts, slots: SlotSet) -> Result<(), FillError> {
        for counted in flushed_windows(facts) {
            self.copy_results(facts, slots, counted).await?;
        }
        let mut missing = slots;
        for (owner, owned) in owners(facts, slots) {
            let asked = owned.intersection(&missing);
            if !asked.is_empty() {
                self.copy_carries(facts, owner, asked).await?;
                missing = missing.difference(&asked);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(FillError::Nobody(missing)) }
    }

    /// Copies results from whoever has them. What no owner has, all of whom were asked, there
    /// is nowhere.
    async fn copy_results(
        &self,
        facts: &Facts,
        slots: SlotSet,
        counted: Counted,
    ) -> Result<(), FillError> {
        let (number, window) = counted;
        let Some(fact) = facts.window(number, window) else { return Ok(()) };
        let flushed = slots.difference(&fact.waiting);
        for owner in owners(facts, slots).into_keys() {
            let lacks = self.copying.lacks(counted, flushed).map_err(CopyError::from)?;
            if lacks.is_empty() {
                return Ok(());
            }
            self.copying.copy((owner, address(facts, owner)?), counted, lacks, true).await?;
        }
        Ok(())
    }

    async fn copy_carries(
        &self,
        facts: &Facts,
        owner: NodeId,
        slots: SlotSet,
    ) -> Result<(), FillError> {
        let owner = self.members.other(owner, address(facts, owner)?);
        let mut parts = owner.carried(slots, ANSWER_WAIT).await?;
        let mut coming: Option<(Carry, Incoming)> = None;
        while let Some(part) = parts.next().await {
            match (part?, &mut coming) {
                (CarriedPart::Carry(carry), coming) => {
                    let begun = (carry, self.keeping.carried.receive()?);
                    self.copied(facts, coming.replace(begun))?;
                }
                (CarriedPart::Chunk(chunk), Some((_, file))) => {
                    file.write(&chunk)?;
                    pace(chunk.len()).await;
                }
                (CarriedPart::Chunk(_), None) => {
                    return Err(PeerError::Malformed("bytes of no carry".to_owned()).into());
                }
            }
        }
        Ok(self.copied(facts, coming)?)
    }

    fn copied(&self, facts: &Facts, whole: Option<(Carry, Incoming)>) -> Result<(), FlushError> {
        whole.map_or(Ok(()), |(carry, file)| self.keeping.copy_carry(facts, carry, file))
    }
}

/// The other owners of some slots, and of which ones.
fn owners(facts: &Facts, slots: SlotSet) -> BTreeMap<NodeId, SlotSet> {
    let mut owners: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
    for (&slot, now) in facts.slots().iter().filter(|(slot, _)| slots.contains(**slot)) {
        for &owner in &now.owners {
            owners.entry(owner).or_default().insert(slot);
        }
    }
    owners
}

fn address(facts: &Facts, node: NodeId) -> Result<&str, PeerError> {
    let member = facts.members().get(&node);
    let nobody = || PeerError::Unreachable(format!("node {node} is no member"));
    Ok(&member.ok_or_else(nobody)?.address)
}

#[cfg(test)]
mod tests;
