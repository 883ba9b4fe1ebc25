//! The facts that cannot be derived again: who this node is, what it counts, and
//! which windows were handed out.
//!
//! One node decides them alone and keeps them in its own database; in a cluster Raft
//! decides them behind the same calls.

pub mod facts; // what Raft replicates
pub mod raft; // alone names `openraft`

pub mod aggregations; // which aggregations there are, by number
pub mod identity; // cluster id, node id, fingerprint key
pub mod ledger; // what came in against what went out

use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::event::time::{SECOND, UnixNanos, Window};
use crate::failpoint::may_die;
use crate::journal::{self, Cut, Position};
use crate::store::{Store, StoreError, Table, keys};

/// How long printed windows are kept for the API.
const WINDOWS_KEPT: u64 = 3600 * SECOND;

/// A hash over results, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Digest).map_err(serde::de::Error::custom)
    }
}

/// What was found of one slot at a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotClaim {
    /// The slot.
    pub slot: u8,
    /// Distinct records in it.
    pub distinct: u64,
    /// The digest of its results.
    pub digest: Digest,
}

/// The intent to hand a window out: made durable before anybody sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The window's first instant.
    pub start: u64,
    /// The first instant after it.
    pub end: u64,
    /// The number of the cut that closed it.
    pub cut: u64,
    /// Records that were accepted in the window.
    pub records: u64,
    /// Of these, the distinct ones.
    pub distinct: u64,
    /// The digest of all results.
    pub digest: Digest,
    /// The slots that have results.
    pub slots: Vec<SlotClaim>,
}

impl Claim {
    /// Whether both say the same of the same window. The cut may differ: a window that
    /// ended while the node was down is closed by a later one.
    fn agrees_with(&self, other: &Claim) -> bool {
        Claim { cut: other.cut, ..self.clone() } == *other
    }
}

/// What is kept of an open window in place of the journal before a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carry {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The window's first instant.
    pub start: u64,
    /// The first instant after it.
    pub end: u64,
    /// The segment of the first entry that is not in the state.
    pub segment: u64,
    /// That entry's number.
    pub index: u64,
    /// Records in all entries before it, since the journal began.
    pub records: u64,
    /// Where the state is, as the aggregation wrote it.
    pub state: serde_json::Value,
}

/// How far an aggregation was flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Every window that ends at this instant or earlier is done, nanoseconds since the epoch.
    pub through: u64,
    /// Records in the flushed windows.
    pub records: u64,
    /// Of these, the distinct ones.
    pub distinct: u64,
}

/// Why a fact was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is kept of a window is not what this version writes.
    #[error("an open window's carried state: {0}")]
    Carry(#[source] serde_json::Error),
    /// A window was folded again with another result: the node must stop.
    #[error(
        "aggregation {aggregation}, window {window}: folding again gave digest {found}, \
         but {claimed} was claimed before; nothing is printed, please report this"
    )]
    Diverged {
        /// The aggregation's number.
        aggregation: u32,
        /// The window.
        window: Window,
        /// What was claimed, with its digest.
        claimed: Digest,
        /// What was found now.
        found: Digest,
    },
}

/// The checkpoints of this node; cheap to clone.
#[derive(Clone)]
pub struct Checkpoints {
    store: Arc<Store>,
    /// Held while figures are read and recorded, so that older ones never come last.
    recording: Arc<Mutex<()>>,
}

impl Checkpoints {
    /// The checkpoints in `store`.
    pub fn new(store: Arc<Store>) -> Checkpoints {
        Checkpoints { store, recording: Arc::default() }
    }

    /// How far an aggregation was flushed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn progress(&self, aggregation: u32) -> Result<Progress, StoreError> {
        Ok(self.store.fact(&keys::progress(aggregation))?.unwrap_or_default())
    }

    /// The end of the newest window that was flushed, of any aggregation: nothing may be
    /// stamped before it any more.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn through(&self) -> Result<UnixNanos, StoreError> {
        let (from, to) = keys::all_progress();
        let progress = self.store.facts::<Progress>(&from, &to)?;
        let newest = progress.into_iter().map(|(_, progress)| progress.through).max();
        Ok(UnixNanos(newest.unwrap_or_default()))
    }

    /// Records what is about to be handed out, or checks it against what was.
    ///
    /// # Errors
    /// [`CheckpointError::Diverged`] when the window was claimed with another result.
    pub fn claim(&self, claim: &Claim) -> Result<(), CheckpointError> {
        let key = keys::claim(claim.aggregation, UnixNanos(claim.start));
        if let Some(earlier) = self.store.fact::<Claim>(&key)? {
            return if earlier.agrees_with(claim) {
                Ok(())
            } else {
                Err(diverged(&earlier, claim))
            };
        }
        let mut batch = self.store.batch();
        batch.put_fact(&key, claim)?;
        may_die("checkpoint-before-claim");
        self.store.commit(batch)?;
        may_die("checkpoint-after-claim");
        Ok(())
    }

    /// Records that the claimed window was handed out as `printed`.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn complete(&self, claim: &Claim, printed: &[u8]) -> Result<Progress, StoreError> {
        let before = self.progress(claim.aggregation)?;
        let progress = Progress {
            through: before.through.max(claim.end),
            records: before.records + claim.records,
            distinct: before.distinct + claim.distinct,
        };
        let end = UnixNanos(claim.end);
        let expired = UnixNanos(claim.end.saturating_sub(WINDOWS_KEPT));
        let mut batch = self.store.batch();
        batch.put_fact(&keys::progress(claim.aggregation), &progress)?;
        let start = UnixNanos(claim.start);
        batch.delete(Table::Facts, &keys::claim(claim.aggregation, start))?;
        batch.delete(Table::Facts, &keys::carry(claim.aggregation, start))?;
        batch.put(Table::Windows, &keys::window(end, claim.aggregation), printed)?;
        let oldest = keys::window(UnixNanos(0), 0);
        batch.delete_range(Table::Windows, &oldest, &keys::window(expired, 0))?;
        may_die("checkpoint-before-complete");
        self.store.commit(batch)?;
        may_die("checkpoint-after-complete");
        Ok(progress)
    }

    /// Records what is kept of open windows; the journal before the carries' positions
    /// is not needed for them any more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn carry(&self, carries: &[Carry]) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        for carry in carries {
            let key = keys::carry(carry.aggregation, UnixNanos(carry.start));
            batch.put_fact(&key, carry)?;
        }
        may_die("checkpoint-before-carry");
        self.store.commit(batch)?;
        may_die("checkpoint-after-carry");
        Ok(())
    }

    /// The open windows of which a part is kept in place of the journal.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn carried(&self) -> Result<Vec<Carry>, StoreError> {
        let (from, to) = keys::carries();
        Ok(self.store.facts(&from, &to)?.into_iter().map(|(_, carry)| carry).collect())
    }

    /// Gives back the journal before `begin`, where `records` records were accepted:
    /// all of it was flushed or carried at `cut` or earlier.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn trim(&self, cut: &Cut, begin: Position, records: u64) -> Result<(), StoreError> {
        debug_assert!(begin <= cut.end);
        may_die("checkpoint-before-trim");
        journal::trim(&self.store, begin, records)?;
        may_die("checkpoint-after-trim");
        Ok(())
    }

    /// The windows that were printed, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn windows(&self, since: UnixNanos, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let (from, to) = (keys::window(since, 0), keys::window(UnixNanos(u64::MAX), 0));
        let rows = self.store.scan(Table::Windows, &from, &to)?;
        let mut printed = Vec::new();
        for row in rows {
            printed.push(row?.1.into_vec());
        }
        printed.reverse();
        printed.truncate(limit);
        Ok(printed)
    }
}

fn diverged(earlier: &Claim, found: &Claim) -> CheckpointError {
    CheckpointError::Diverged {
        aggregation: found.aggregation,
        window: Window { start: UnixNanos(found.start), end: UnixNanos(found.end) },
        claimed: earlier.digest,
        found: found.digest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Disk;

    fn claim(digest: u128) -> Claim {
        let slots = vec![SlotClaim { slot: 1, distinct: 2, digest: Digest(digest) }];
        Claim {
            aggregation: 1,
            start: 10,
            end: 20,
            cut: 3,
            records: 5,
            distinct: 2,
            digest: Digest(digest),
            slots,
        }
    }

    fn checkpoints() -> Checkpoints {
        Checkpoints::new(Arc::new(Store::in_memory(&Disk::default()).unwrap()))
    }

    #[test]
    fn a_resumed_claim_must_give_the_same_result() {
        let checkpoints = checkpoints();
        checkpoints.claim(&claim(7)).unwrap();
        checkpoints.claim(&Claim { cut: 9, ..claim(7) }).unwrap();
        let error = checkpoints.claim(&claim(8)).unwrap_err();
        assert!(matches!(error, CheckpointError::Diverged { .. }), "{error}");
    }

    #[test]
    fn a_completed_window_is_counted_once_and_kept_for_an_hour() {
        let checkpoints = checkpoints();
        checkpoints.claim(&claim(7)).unwrap();
        let progress = checkpoints.complete(&claim(7), b"first").unwrap();
        assert_eq!(progress, Progress { through: 20, records: 5, distinct: 2 });
        let later = Claim { start: 20, end: 20 + 2 * WINDOWS_KEPT, ..claim(8) };
        checkpoints.complete(&later, b"second").unwrap();
        assert_eq!(checkpoints.progress(1).unwrap().records, 10);
        assert_eq!(checkpoints.windows(UnixNanos(0), 9).unwrap(), [b"second".to_vec()]);
    }
}
