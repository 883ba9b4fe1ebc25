//! What was refused for good, by reason, over all lives of the node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::{Store, StoreError, keys};

/// Records that were refused for good, by reason.
pub type Rejected = BTreeMap<String, u64>;

/// The record of what was rejected; cheap to clone.
#[derive(Clone)]
pub struct RejectedRecord {
    store: Arc<Store>,
    /// Held while figures are read and recorded, so that older ones never come last.
    recording: Arc<Mutex<()>>,
}

impl RejectedRecord {
    /// The record in `store`.
    pub fn new(store: Arc<Store>) -> RejectedRecord {
        RejectedRecord { store, recording: Arc::default() }
    }

    /// What was rejected up to the last time it was recorded.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read(&self) -> Result<Rejected, StoreError> {
        Ok(self.store.fact(&keys::REJECTED)?.unwrap_or_default())
    }

    /// Records what was rejected so far, as `rejected` says when it is asked.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn write(&self, rejected: impl FnOnce() -> Rejected) -> Result<(), StoreError> {
        let _recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.store.batch();
        batch.put_fact(&keys::REJECTED, &rejected())?;
        self.store.commit(batch)
    }
}
