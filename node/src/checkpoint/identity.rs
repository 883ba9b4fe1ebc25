//! Who a node is: written once, when its folder is new, and never changed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::Digest;
use crate::event::fingerprint::{FingerprintKey, SLOTS};
use crate::store::{Store, StoreError, keys};

/// The version of everything that the database holds.
const FORMAT: u32 = 1;

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that it belongs to.
    pub cluster: Uuid,
    /// The node itself.
    pub node: Uuid,
    /// The key of the cluster's fingerprints.
    pub fingerprint_key: FingerprintKey,
}

/// Why a folder is not this program's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random bytes for a key.
    #[error("get random bytes for the fingerprint key: {0}")]
    Random(#[from] getrandom::Error),
    /// The folder was written by a version that this one cannot read.
    #[error(
        "the data folder has format {found} with {slots} slots, and this version reads \
         format {FORMAT} with {SLOTS}; start the version that wrote it"
    )]
    Format {
        /// The folder's format.
        found: u32,
        /// The folder's number of slots.
        slots: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    format: u32,
    slots: usize,
    cluster: Uuid,
    node: Uuid,
    fingerprint_key: Digest,
}

impl Identity {
    /// Who the owner of `store` is; a new one if it is empty.
    ///
    /// # Errors
    /// When the database fails or was written in another format.
    pub fn load_or_create(store: &Store) -> Result<Identity, IdentityError> {
        match store.fact::<Stored>(&keys::IDENTITY)? {
            Some(stored) => Identity::read(&stored),
            None => Identity::create(store),
        }
    }

    fn read(stored: &Stored) -> Result<Identity, IdentityError> {
        let (found, slots) = (stored.format, stored.slots);
        if (found, slots) != (FORMAT, SLOTS) {
            return Err(IdentityError::Format { found, slots });
        }
        let fingerprint_key = FingerprintKey(stored.fingerprint_key.0.to_be_bytes());
        Ok(Identity { cluster: stored.cluster, node: stored.node, fingerprint_key })
    }

    fn create(store: &Store) -> Result<Identity, IdentityError> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        let (cluster, node) = (Uuid::new_v4(), Uuid::new_v4());
        let fingerprint_key = Digest(u128::from_be_bytes(key));
        let stored = Stored { format: FORMAT, slots: SLOTS, cluster, node, fingerprint_key };
        let mut batch = store.batch();
        batch.put_fact(&keys::IDENTITY, &stored)?;
        store.commit(batch)?;
        Ok(Identity { cluster, node, fingerprint_key: FingerprintKey(key) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Disk;

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let disk = Disk::default();
        let first = Identity::load_or_create(&Store::in_memory(&disk).unwrap()).unwrap();
        let again = Identity::load_or_create(&Store::in_memory(&disk).unwrap()).unwrap();
        assert_eq!(first, again);
    }

    #[test]
    fn a_folder_of_another_format_is_refused() {
        let stored = Stored {
            format: FORMAT + 1,
            slots: SLOTS,
            cluster: Uuid::nil(),
            node: Uuid::nil(),
            fingerprint_key: Digest(0),
        };
        assert!(matches!(Identity::read(&stored), Err(IdentityError::Format { .. })));
    }
}
