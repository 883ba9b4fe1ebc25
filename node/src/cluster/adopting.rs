//! The results of members that are drained, to those who own the slots now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::members::MemberState;
use crate::cluster::leaving::{Counted, flushed_windows, next};
use crate::cluster::peers::{self, Listed, PeerError};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::results::Results;
use crate::store::StoreError;

/// How long a member may take to say which results it has, or to begin to send them.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How fast results are copied: senders need the network and the disk too.
const BYTES_PER_SECOND: u32 = 32 << 20;

/// Copies results; they are asked for by window.
pub struct Adopting {
    node: NodeId,
    results: Results,
    members: peers::Member,
    facts: watch::Receiver<Arc<Facts>>,
    /// What of a window was asked of a member that had nothing else of it.
    asked: BTreeMap<(NodeId, Counted), SlotSet>,
}

/// Why results were not copied.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Adopting {
    /// Copies to `results` what this node owns by the `facts`, from other members.
    pub fn new(
        node: NodeId,
        results: Results,
        members: peers::Member,
        facts: watch::Receiver<Arc<Facts>>,
    ) -> Adopting {
        Adopting { node, results, members, facts, asked: BTreeMap::new() }
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
            let kept = |(node, _): &(NodeId, Counted), _: &mut SlotSet| {
                facts.members().get(node).is_some_and(|member| !member.state.is_gone())
            };
            self.asked.retain(kept);
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
        match self.copy(address, counted, lacks).await {
            Ok(()) => drop(self.asked.insert((node, counted), lacks)),
            Err(AdoptError::Store(error)) => return Err(error),
            Err(error) => debug!(%node, %error, "results of a member do not come"),
        }
        Ok(())
    }

    /// The slots that are this node's and were flushed by another.
    fn lacks(&self, facts: &Facts, (number, window): Counted) -> Result<SlotSet, StoreError> {
        let fact =
            facts.aggregations().get(&number).and_then(|known| known.windows.get(&window.start));
        let Some(fact) = fact else { return Ok(SlotSet::default()) };
        let flushed =
            facts.primary_of(self.node).iter().filter(|&slot| !fact.waiting.contains(slot));
        let mut lacks: SlotSet = flushed.collect();
        for result in self.results.find(number, window.end)? {
            result.slots.iter().for_each(|slot| lacks.remove(slot));
        }
        Ok(lacks)
    }

    async fn copy(
        &self,
        address: &str,
        (number, window): Counted,
        lacks: SlotSet,
    ) -> Result<(), AdoptError> {
        let tables = self.members.tables(address, number, window.end, ANSWER_WAIT).await?;
        for Listed { table, slots, summary } in tables {
            let slots = match &summary {
                // It cannot be divided: whoever has the first slot takes all of it.
                Some(_) if lacks.contains(0) => slots,
                Some(_) => continue,
                None => slots.iter().filter(|&slot| lacks.contains(slot)).collect(),
            };
            if slots.is_empty() {
                continue;
            }
            let mut writing = self.results.begin(number, window);
            let named = (number, window.end, table);
            let mut chunks = self.members.results(address, named, slots, ANSWER_WAIT).await?;
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk?;
                writing.push(&chunk)?;
                let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
                sleep(Duration::from_secs(1) * bytes / BYTES_PER_SECOND).await;
            }
            self.results.finish(writing, slots, summary)?;
            info!(aggregation = number, %window, %slots, "results of a member that leaves are copied");
        }
        Ok(())
    }
}
