//! The results of members that are drained, to those who own the slots now.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::debug;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::members::MemberState;
use crate::cluster::copying::{CopyError, Copying};
use crate::cluster::leaving::{Counted, flushed_windows, next};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::store::StoreError;

/// Copies results; they are asked for by window.
pub struct Adopting {
    node: NodeId,
    copying: Copying,
    facts: watch::Receiver<Arc<Facts>>,
    /// What of a window was asked of a member that had nothing else of it.
    asked: BTreeMap<(NodeId, Counted), SlotSet>,
}

impl Adopting {
    /// Copies what this node leads by the `facts`, from other members.
    pub fn new(node: NodeId, copying: Copying, facts: watch::Receiver<Arc<Facts>>) -> Adopting {
        Adopting { node, copying, facts, asked: BTreeMap::new() }
    }

    /// Copies whenever a member is drained.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run(mut self) -> Result<(), StoreError> {
        loop {
            let facts = self.facts.borrow_and_update().clone();
            let own = self.node;
            let others = facts.members().iter().filter(|(node, _)| **node != own);
            let draining = others.filter(|(_, member)| member.state == MemberState::Draining);
            for (&node, member) in draining {
                for counted in flushed_windows(&facts) {
                    self.adopt(&facts, (node, &member.address), counted).await?;
                }
            }
            self.asked.retain(|(node, _), _| facts.stays(*node));
            next(&mut self.facts).await;
        }
    }

    /// Copies what of a window is this node's by now, as far as the member has it.
    async fn adopt(
        &mut self,
        facts: &Facts,
        (node, address): (NodeId, &str),
        counted: Counted,
    ) -> Result<(), StoreError> {
        let lacks = self.lacks(facts, counted)?;
        if lacks.is_empty() || self.asked.get(&(node, counted)) == Some(&lacks) {
            return Ok(());
        }
        match self.copying.copy((node, address), counted, lacks, false).await {
            Ok(()) => drop(self.asked.insert((node, counted), lacks)),
            Err(CopyError::Store(error)) => return Err(error),
            Err(error) => debug!(%node, %error, "results of a member do not come"),
        }
        Ok(())
    }

    /// The slots that are this node's and were flushed by another.
    fn lacks(&self, facts: &Facts, (number, window): Counted) -> Result<SlotSet, StoreError> {
        let Some(fact) = facts.window(number, window) else { return Ok(SlotSet::default()) };
        self.copying.lacks((number, window), facts.primary_of(self.node).difference(&fact.waiting))
    }
}
