//! Rebuilt files of slots that this node owns no longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::blocking;
use crate::checkpoint::facts::{Facts, Slot};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::files::{Files, FilesError};

/// How long files outlive the ownership of their slot: a node that was away for a moment gets
/// its slots back, and copies only what it has missed.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How many files are removed at a time.
const REMOVED_AT_ONCE: usize = 64;

/// Removes files.
pub struct Forgetting {
    node: NodeId,
    files: Files,
    facts: watch::Receiver<Arc<Facts>>,
    /// Since when others own a slot.
    since: BTreeMap<Slot, Instant>,
    /// Of these there is nothing left.
    over: SlotSet,
}

impl Forgetting {
    /// Removes what `node` has in `files` and does not own by the facts.
    pub fn new(node: NodeId, files: Files, facts: watch::Receiver<Arc<Facts>>) -> Forgetting {
        let (since, over) = (BTreeMap::new(), SlotSet::default());
        Forgetting { node, files, facts, since, over }
    }

    /// Removes a few files, if others have owned their slots for long enough.
    ///
    /// # Errors
    /// When a file cannot be removed, or the database fails.
    pub fn forget_some(&mut self) -> Result<(), FilesError> {
        let facts = self.facts.borrow().clone();
        let is_others = |slot: &Slot| is_others(&facts, self.node, *slot);
        let others: SlotSet = facts.slots().keys().copied().filter(is_others).collect();
        self.since.retain(|slot, _| others.contains(*slot));
        self.over = self.over.intersection(&others);
        let mut left = REMOVED_AT_ONCE;
        for slot in others.difference(&self.over).iter() {
            let since = *self.since.entry(slot).or_insert_with(Instant::now);
            if since.elapsed() < KEPT_FOR || left == 0 {
                continue;
            }
            left -= self.forget(&facts, slot, left)?;
            if left > 0 {
                self.over.insert(slot);
            }
        }
        Ok(())
    }

    /// Removes so many files of a slot at most, and says how many.
    fn forget(&self, facts: &Facts, slot: Slot, most: usize) -> Result<usize, FilesError> {
        let mut removed = 0;
        let may_forget = |slot| is_others(&self.facts.borrow(), self.node, slot);
        for (number, _) in facts.rebuilding() {
            let forget = || self.files.forget(number, slot, most - removed, may_forget);
            removed += blocking::in_place(forget)?;
        }
        Ok(removed)
    }
}

/// Whether a slot has owners, and a node is none of them and not about to be. A slot that has
/// none was lost: nobody has more of it.
fn is_others(facts: &Facts, node: NodeId, slot: Slot) -> bool {
    facts.slots().get(&slot).is_some_and(|now| {
        let is_to_be = now.wanted.contains(&node) || now.filling.contains_key(&node);
        !now.owners.is_empty() && !now.owners.contains(&node) && !is_to_be
    })
}
