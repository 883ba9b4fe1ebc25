//! What came in against what went out, from what was stored and delivered.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use crate::checkpoint::aggregations::Fact;
use crate::checkpoint::{Checkpoints, Progress};
use crate::store::{StoreError, keys};

/// Records that were refused for good, by reason.
pub type Rejected = BTreeMap<String, u64>;

/// One aggregation's account at a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Records that the journal says were accepted.
    pub accepted: u64,
    /// Records in windows that were handed out, as the checkpoints say.
    pub flushed: u64,
    /// Of the flushed records, those that were counted.
    pub distinct: u64,
    /// Records in the windows that are still open, as their states say.
    pub pending: u64,
}

impl Balance {
    /// The account of an aggregation at a cut, before which the journal holds `records`.
    pub fn at(fact: &Fact, records: u64, progress: &Progress, pending: u64) -> Balance {
        let Progress { records: flushed, distinct, .. } = *progress;
        Balance { accepted: fact.accepted(records), flushed, distinct, pending }
    }

    /// Whether nothing is missing and nothing is there twice.
    pub fn holds(&self) -> bool {
        self.accepted == self.flushed + self.pending
    }
}

impl Checkpoints {
    /// What was rejected up to the last time it was recorded.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn rejected(&self) -> Result<Rejected, StoreError> {
        Ok(self.store.fact(&keys::REJECTED)?.unwrap_or_default())
    }

    /// Records what was rejected so far, as `rejected` says when it is asked.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn record_rejected(&self, rejected: impl FnOnce() -> Rejected) -> Result<(), StoreError> {
        let _recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.store.batch();
        batch.put_fact(&keys::REJECTED, &rejected())?;
        self.store.commit(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::{Disk, Store};

    #[test]
    fn the_newest_figures_are_recorded_last() {
        const ROUNDS: u64 = 50;
        let checkpoints = Checkpoints::new(Arc::new(Store::in_memory(&Disk::default()).unwrap()));
        let counter = AtomicU64::new(0);
        let record = || {
            for _ in 0..ROUNDS {
                counter.fetch_add(1, Ordering::SeqCst);
                let now = || Rejected::from([("utf8".into(), counter.load(Ordering::SeqCst))]);
                checkpoints.record_rejected(now).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(record);
            scope.spawn(record);
        });
        assert_eq!(checkpoints.rejected().unwrap()["utf8"], 2 * ROUNDS);
    }

    #[test]
    fn an_account_holds_only_if_accepted_is_flushed_and_pending() {
        let fact = Fact { name: String::new(), definition: 0.into(), since: 10, until: None };
        let progress = Progress { through: 0, records: 60, distinct: 6 };
        assert!(Balance::at(&fact, 100, &progress, 30).holds());
        assert!(!Balance::at(&fact, 100, &progress, 29).holds());
        assert!(!Balance::at(&fact, 100, &progress, 31).holds());
    }
}
