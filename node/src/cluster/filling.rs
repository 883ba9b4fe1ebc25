//! What the owners of slots have, to a node that is to be one of them: results of the last
//! hour, what is carried, and rebuilt files. What is flushed or carried meanwhile the primaries
//! send, but for files: these are copied once more, few slots at a time, just before the node
//! says that it has them. If a checkpoint was completed all the same, it does so again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::sleep;
use tracing::{debug, info};

use crate::aggregation::distinct_logs::FoldError;
use crate::blocking;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::copying::{ANSWER_WAIT, CopyError, Copying};
use crate::cluster::fetching::{FetchError, Haste};
use crate::cluster::forgetting::Forgetting;
use crate::cluster::keeping::Keeping;
use crate::cluster::leaving::{Counted, flushed_windows, next};
use crate::cluster::peers::{self, CarriedPart, PeerError};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::failpoint::is_to_fail;
use crate::flush::FlushError;
use crate::flush::carried::Incoming;
use crate::flush::feed::{Consensus, Disagreement};
use crate::flush::files::FilesError;

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
    /// What removes files of slots that are others'.
    pub forgetting: Forgetting,
}

/// Windows of which results are copied at a time: for most of it they wait for an answer.
const WINDOWS_AT_ONCE: usize = 8;
/// Slots of which files are copied at a time, and the node says that it has them.
const SLOTS_AT_ONCE: usize = 16;
/// How often it tries to say so before a checkpoint is completed, until it begins anew.
const TRIES: usize = 50;
/// How long it rests in between.
const TRY_AGAIN: Duration = Duration::from_millis(100);

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
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Say(#[from] Disagreement),
    #[error("nobody has slots {0}")]
    Nobody(SlotSet),
}

impl Filling {
    /// Fills whenever the cluster wants this node to own slots that it does not own yet, and
    /// forgets what it owns no longer.
    ///
    /// # Errors
    /// When the database fails, or the node takes no part any more.
    pub async fn run(mut self) -> Result<(), FlushError> {
        let mut facts = self.consensus.facts();
        loop {
            let now = facts.borrow_and_update().clone();
            self.keeping.forget_what_is_over(&now)?;
            self.forgetting.forget_some()?;
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
        let filled = async {
            self.fill(facts, &slots, of).await?;
            self.say(slots).await
        };
        match filled.await {
            Ok(()) => Ok(()),
            Err(FillError::Copy(CopyError::Store(error))) => Err(error.into()),
            Err(FillError::Fetch(FetchError::Files(error @ FilesError::Store(_)))) => {
                Err(error.into())
            }
            Err(FillError::Keep(error @ FlushError::Store(_))) => Err(error),
            Err(FillError::Say(Disagreement::Refused(refused))) => {
                debug!(%refused, "slots are not this node's");
                Ok(())
            }
            Err(FillError::Say(error)) => Err(error.into()),
            Err(error) => {
                debug!(slots = %of, %error, "slots are not filled yet");
                Ok(())
            }
        }
    }

    /// Says that slots are filled, a few at a time where they have files: so little comes
    /// between copying what is new of these and saying so.
    async fn say(&self, mut slots: BTreeMap<Slot, u64>) -> Result<(), FillError> {
        for _ in 0..TRIES {
            let has_files = self.facts().rebuilding().next().is_some();
            let at_once = if has_files { SLOTS_AT_ONCE } else { SLOTS };
            let all: Vec<_> = slots.iter().map(|(&slot, &since)| (slot, since)).collect();
            for some in all.chunks(at_once) {
                let (node, slots) = (self.node, some.iter().copied().collect());
                let files = self.copy_files(&self.facts(), &slots, Haste::AtOnce).await?;
                self.consensus.propose(Command::Filled { node, slots, files }).await?;
            }
            let now = self.facts().filled_by(self.node);
            let of: SlotSet = slots.keys().copied().collect();
            slots.retain(|slot, since| now.get(slot) == Some(since));
            let left = slots.keys().copied().collect();
            info!(slots = %of.difference(&left), %left, "slots are filled: this node owns them");
            if slots.is_empty() {
                break;
            }
            sleep(TRY_AGAIN).await;
        }
        Ok(())
    }

    /// Copies files of slots, and says up to which of their checkpoints.
    async fn copy_files(
        &self,
        facts: &Facts,
        slots: &BTreeMap<Slot, u64>,
        haste: Haste,
    ) -> Result<BTreeMap<u32, BTreeMap<Slot, u64>>, FillError> {
        let fetching = &self.keeping.fetching;
        let of: SlotSet = slots.keys().copied().collect();
        let mut files: BTreeMap<u32, BTreeMap<Slot, u64>> = BTreeMap::new();
        for (number, known) in facts.rebuilding() {
            for (primary, led) in primaries(facts, of) {
                let led: Vec<_> = led.iter().collect();
                for some in led.chunks(SLOTS_AT_ONCE) {
                    let last = |&slot: &Slot| (slot, known.progress(slot).number());
                    let checkpoints: BTreeMap<_, _> = some.iter().map(last).collect();
                    files.entry(number).or_default().extend(&checkpoints);
                    if is_to_fail("planted-file-uncopied") {
                        continue;
                    }
                    let ask = || fetching.files.ask_all(number, checkpoints);
                    let asked = blocking::in_place(ask).map_err(FetchError::from)?;
                    let from = (primary, address(facts, primary)?);
                    let may_keep = |slot| {
                        let since = slots.get(&slot);
                        since.is_some() && self.facts().filled_by(self.node).get(&slot) == since
                    };
                    fetching.fetch(from, asked, may_keep, haste).await?;
                }
            }
        }
        Ok(files)
    }

    fn facts(&self) -> Arc<Facts> {
        self.consensus.facts().borrow().clone()
    }

    /// Copies all that was complete or carried by these facts.
    async fn fill(
        &self,
        facts: &Facts,
        since: &BTreeMap<Slot, u64>,
        slots: SlotSet,
    ) -> Result<(), FillError> {
        let copy = |counted| self.copy_results(facts, slots, counted);
        let windows = stream::iter(flushed_windows(facts)).map(Ok);
        windows.try_for_each_concurrent(WINDOWS_AT_ONCE, copy).await?;
        let mut missing = slots;
        for (owner, owned) in owners(facts, slots) {
            let asked = owned.intersection(&missing);
            if !asked.is_empty() {
                self.copy_carries(facts, owner, asked).await?;
                missing = missing.difference(&asked);
            }
        }
        if !missing.is_empty() {
            return Err(FillError::Nobody(missing));
        }
        self.copy_files(facts, since, Haste::Paced).await.map(drop)
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
                    self.copying.pace.rest(chunk.len()).await;
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

/// Who leads some slots, and which ones.
fn primaries(facts: &Facts, slots: SlotSet) -> BTreeMap<NodeId, SlotSet> {
    let mut led: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
    for (&slot, now) in facts.slots().iter().filter(|(slot, _)| slots.contains(**slot)) {
        if let Some(&primary) = now.owners.first() {
            led.entry(primary).or_default().insert(slot);
        }
    }
    led
}

fn address(facts: &Facts, node: NodeId) -> Result<&str, PeerError> {
    let member = facts.members().get(&node);
    let nobody = || PeerError::Unreachable(format!("node {node} is no member"));
    Ok(&member.ok_or_else(nobody)?.address)
}

#[cfg(test)]
mod tests;
