//! What this node keeps for slots that others lead: as an owner of them, or about to be one.

use std::sync::Arc;

use futures::StreamExt as _;
use sheaf_proto::statistics::WindowCounts;
use tokio::sync::watch;

use crate::blocking;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::peers::{Chunks, Declined, Kept};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::flush::FlushError;
use crate::flush::carried::{CarriedWindows, Incoming};
use crate::flush::results::Results;

/// Keeps what primaries send.
#[derive(Clone)]
pub struct Keeping {
    /// This node.
    pub node: NodeId,
    /// Where results are kept.
    pub results: Results,
    /// What is carried here.
    pub carried: CarriedWindows,
    /// Who leads what.
    pub facts: watch::Receiver<Arc<Facts>>,
}

impl Keeping {
    /// Makes durable what a primary keeps.
    ///
    /// # Errors
    /// When it does not come in full, cannot be kept, or is not the sender's to send.
    pub async fn keep(&self, primary: NodeId, kept: Kept, chunks: Chunks) -> Result<(), Declined> {
        match kept {
            Kept::Table { aggregation, window, slots, summary } => {
                self.keep_table((aggregation, window), slots, summary, chunks).await
            }
            Kept::Carry(carry) => self.keep_carry(primary, carry, chunks).await,
        }
    }

    async fn keep_table(
        &self,
        (aggregation, window): (u32, Window),
        slots: SlotSet,
        summary: Option<WindowCounts>,
        mut chunks: Chunks,
    ) -> Result<(), Declined> {
        let mut writing = self.results.begin(aggregation, window);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            blocking::in_place(|| writing.push(chunk.into())).map_err(not_now)?;
        }
        blocking::in_place(|| self.results.finish(writing, slots, summary)).map_err(not_now)
    }

    async fn keep_carry(
        &self,
        primary: NodeId,
        carry: Carry,
        chunks: Chunks,
    ) -> Result<(), Declined> {
        self.check_sender(primary, &carry)?;
        if self.has(&carry, |own| own.covers(&carry.next)).map_err(not_now)? {
            return Ok(());
        }
        let incoming = self.receive(chunks).await?;
        // Its owners may have changed since; in a later epoch this may be less than is needed.
        self.check_sender(primary, &carry)?;
        blocking::in_place(|| self.carried.keep(carry, incoming)).map_err(not_now)
    }

    /// Makes durable what another owner has carried, unless this node has enough by now: the
    /// primary sends it what is newer.
    ///
    /// # Errors
    /// When it is not what was carried, or cannot be kept.
    pub fn copy_carry(
        &self,
        facts: &Facts,
        carry: Carry,
        incoming: Incoming,
    ) -> Result<(), FlushError> {
        let is_enough = |own: &Carry| own.slots.iter().all(|slot| goes_on(facts, own, slot));
        if self.has(&carry, is_enough)? {
            return Ok(());
        }
        blocking::in_place(|| self.carried.keep(carry, incoming))
    }

    /// Forgets what is carried for nobody: of windows that were flushed, and of slots that this
    /// node owns no longer.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget_what_is_over(&self, facts: &Facts) -> Result<(), FlushError> {
        let led = facts.primary_of(self.node);
        let filled = facts.filled_by(self.node).into_keys().collect();
        let owned = facts.owner_of(self.node).union(&filled);
        let now = facts.latest_cut().time;
        self.carried.retain(|carry| {
            let known = facts.aggregations().get(&carry.aggregation);
            let waits = |slot| known.is_some_and(|known| known.waits_for(slot, carry.window, now));
            let stays = |&slot: &Slot| led.contains(slot) || owned.contains(slot) && waits(slot);
            carry.slots.iter().filter(stays).collect()
        })
    }

    async fn receive(&self, mut chunks: Chunks) -> Result<Incoming, Declined> {
        let mut incoming = self.carried.receive().map_err(not_now)?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            blocking::in_place(|| incoming.write(&chunk)).map_err(not_now)?;
        }
        Ok(incoming)
    }

    /// Whether this node has such a carry of each slot and the window.
    fn has(&self, carry: &Carry, such: impl Fn(&Carry) -> bool) -> Result<bool, FlushError> {
        let is_of =
            |own: &Carry| (own.aggregation, own.window) == (carry.aggregation, carry.window);
        let all = self.carried.all()?;
        let own = all.iter().filter(|own| is_of(own)).filter_map(|own| own.of(&carry.slots));
        let found = own.filter(such).fold(SlotSet::default(), |all, own| all.union(&own.slots));
        Ok(found == carry.slots)
    }

    /// Declines what is carried of slots that the sender does not lead, or that are not kept
    /// here, as far as this node knows.
    fn check_sender(&self, primary: NodeId, carry: &Carry) -> Result<(), Declined> {
        let facts = self.facts.borrow().clone();
        let led = facts.primary_of(primary);
        let here = facts.others_of(primary, &led).remove(&self.node).unwrap_or_default();
        if carry.slots.difference(&here).is_empty() {
            return Ok(());
        }
        let (node, slots) = (self.node, carry.slots.difference(&here));
        Err(Declined::NotNow(format!(
            "node {node} does not know that it keeps slots {slots} for node {primary}"
        )))
    }
}

/// Whether a slot can be folded on from a carry: the journal may lack what is before the cut
/// that the slot goes on from.
fn goes_on(facts: &Facts, carry: &Carry, slot: Slot) -> bool {
    let known = facts.aggregations().get(&carry.aggregation);
    let cut = known.and_then(|known| facts.cut(known.carried(slot)));
    let needed = cut.map(|cut| {
        let counts = cut.counts.iter().filter(|(id, _)| facts.segments().contains_key(id));
        counts.map(|(&segment, extent)| (segment, extent.entries)).collect()
    });
    needed.is_none_or(|needed| carry.covers(&needed))
}

fn not_now(error: impl std::fmt::Display) -> Declined {
    Declined::NotNow(error.to_string())
}
