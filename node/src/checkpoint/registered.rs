//! What this node's settings said is to be counted when the cluster heard of it last.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::store::{Store, StoreError, keys};

/// Definitions of aggregations by name, in the shape of the settings.
pub type Definitions = BTreeMap<String, Value>;

/// The record of what the cluster heard of this node's settings; cheap to clone. With it a node
/// speaks only when they change: one that comes back with old ones does not overrule what others
/// have said since.
#[derive(Clone)]
pub struct RegisteredRecord {
    store: Arc<Store>,
}

impl RegisteredRecord {
    /// The record in `store`.
    pub fn new(store: Arc<Store>) -> RegisteredRecord {
        RegisteredRecord { store }
    }

    /// What the cluster heard; `None` if it never heard anything.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read(&self) -> Result<Option<Definitions>, StoreError> {
        self.store.fact(&keys::REGISTERED)
    }

    /// Records what the cluster has heard.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn write(&self, definitions: &Definitions) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        batch.put_fact(&keys::REGISTERED, definitions)?;
        self.store.commit(batch)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_heard_last_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let record = || RegisteredRecord::new(Arc::new(Store::open(folder.path()).unwrap()));
        assert_eq!(record().read().unwrap(), None);
        for attribute in ["foo", "bar"] {
            let definitions =
                Definitions::from([("a".to_owned(), json!({"attribute": attribute}))]);
            record().write(&definitions).unwrap();
            assert_eq!(record().read().unwrap(), Some(definitions));
        }
    }
}
