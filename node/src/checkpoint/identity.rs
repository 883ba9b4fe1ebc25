//! Who a node is: made when its volume is new, and kept there for ever.
//!
//! A new volume gets a *birth*, random bytes that no other volume has. When the node has
//! become a member of a cluster it gets an *identity*, which is written once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::{Builder, Uuid};

use crate::checkpoint::Digest;
use crate::event::fingerprint::{FingerprintKey, SLOTS};
use crate::event::node::NodeId;
use crate::store::{Store, StoreError, keys};

/// The version of everything that the database holds.
const FORMAT: u32 = 3;

/// Random bytes that one node adds to the fingerprint key of a cluster that it helps to
/// form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contribution(pub [u8; 16]);

/// Does not show the bytes: those of all founders together give the fingerprint key away.
impl fmt::Debug for Contribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contribution(..)")
    }
}

impl Serialize for Contribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest(u128::from_be_bytes(self.0)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Contribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Contribution(Digest::deserialize(deserializer)?.0.to_be_bytes()))
    }
}

/// Random bytes that nobody can guess; cheap to clone.
#[derive(Clone)]
pub struct Entropy(Arc<Fill>);

/// Fills a buffer with random bytes.
type Fill = dyn Fn(&mut [u8]) -> Result<(), getrandom::Error> + Send + Sync;

impl Entropy {
    /// The system's.
    pub fn of_system() -> Entropy {
        Entropy(Arc::new(getrandom::fill))
    }

    /// Those that `fill` gives, which a simulation can repeat. Whoever can guess them can
    /// choose records that a cluster takes for one.
    pub fn of_simulation(fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Entropy {
        Entropy(Arc::new(move |bytes| {
            fill(bytes);
            Ok(())
        }))
    }

    fn bytes(&self) -> Result<[u8; 16], getrandom::Error> {
        let mut bytes = [0; 16];
        (self.0)(&mut bytes)?;
        Ok(bytes)
    }
}

/// What a node is before it belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Birth {
    /// Random, made when the node's volume was new, and durable there before anybody
    /// hears of it. A volume that was emptied makes another one.
    pub uuid: Uuid,
    /// Made and kept in the same way.
    pub contribution: Contribution,
    /// Where its peers reach it, host and port.
    pub address: String,
    /// Where its machine stands, if that is known.
    pub zone: Option<String>,
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that it belongs to.
    pub cluster: Uuid,
    /// The node itself: allocated once, and never to another volume.
    pub node: NodeId,
    /// The key of the cluster's fingerprints.
    pub fingerprint_key: FingerprintKey,
    /// The nodes that formed the cluster, as they were born.
    pub founders: BTreeSet<Birth>,
}

/// Why a folder is not this program's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The database below failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random bytes.
    #[error("get random bytes for the volume's birth: {0}")]
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

/// What every format begins with.
#[derive(Deserialize)]
struct Head {
    format: u32,
    slots: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    format: u32,
    slots: usize,
    cluster: Uuid,
    node: NodeId,
    fingerprint_key: Digest,
    founders: BTreeSet<Birth>,
}

/// What a volume keeps of a birth; the rest may be another at each start.
#[derive(Serialize, Deserialize)]
struct Born {
    uuid: Uuid,
    contribution: Contribution,
}

impl Birth {
    /// The birth of `store`'s volume, now at `address` in `zone`; a new one of `entropy` if
    /// the volume is new.
    ///
    /// # Errors
    /// When the database or the system's random numbers fail.
    pub fn load_or_create(
        store: &Store,
        address: String,
        zone: Option<String>,
        entropy: &Entropy,
    ) -> Result<Birth, IdentityError> {
        let Born { uuid, contribution } = match store.fact(&keys::BIRTH)? {
            Some(born) => born,
            None => Born::create(store, entropy)?,
        };
        Ok(Birth { uuid, contribution, address, zone })
    }
}

impl Born {
    fn create(store: &Store, entropy: &Entropy) -> Result<Born, IdentityError> {
        let contribution = Contribution(entropy.bytes()?);
        let uuid = Builder::from_random_bytes(entropy.bytes()?).into_uuid();
        let born = Born { uuid, contribution };
        let mut batch = store.batch();
        batch.put_fact(&keys::BIRTH, &born)?;
        store.commit(batch)?;
        Ok(born)
    }
}

impl Identity {
    /// Who the owner of `store` is, if it is a member of a cluster.
    ///
    /// # Errors
    /// When the database fails or was written in another format.
    pub fn load(store: &Store) -> Result<Option<Identity>, IdentityError> {
        match store.fact::<Head>(&keys::IDENTITY)? {
            None => Ok(None),
            Some(Head { format: FORMAT, slots: SLOTS }) => {
                Ok(store.fact::<Stored>(&keys::IDENTITY)?.map(Identity::from))
            }
            Some(Head { format: found, slots }) => Err(IdentityError::Format { found, slots }),
        }
    }

    /// Writes down who the owner of `store` has become.
    ///
    /// # Errors
    /// When the database fails.
    pub fn record(&self, store: &Store) -> Result<(), StoreError> {
        let Identity { cluster, node, fingerprint_key, founders } = self.clone();
        let fingerprint_key = Digest(u128::from_be_bytes(fingerprint_key.0));
        let stored =
            Stored { format: FORMAT, slots: SLOTS, cluster, node, fingerprint_key, founders };
        let mut batch = store.batch();
        batch.put_fact(&keys::IDENTITY, &stored)?;
        store.commit(batch)
    }
}

impl From<Stored> for Identity {
    fn from(stored: Stored) -> Identity {
        let fingerprint_key = FingerprintKey(stored.fingerprint_key.0.to_be_bytes());
        let Stored { cluster, node, founders, .. } = stored;
        Identity { cluster, node, fingerprint_key, founders }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(folder.path()).unwrap()
    }

    fn birth(store: &Store, address: &str) -> Birth {
        Birth::load_or_create(store, address.to_owned(), None, &Entropy::of_system()).unwrap()
    }

    #[test]
    fn a_birth_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = birth(&store(&folder), "a:1");
        let moved = birth(&store(&folder), "b:1");
        assert_eq!(moved, Birth { address: "b:1".to_owned(), ..first });
    }

    #[test]
    fn an_identity_is_kept_as_it_was_recorded() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(&store(&folder)).unwrap(), None);
        let identity = Identity {
            cluster: Uuid::from_u128(6),
            node: NodeId(1),
            fingerprint_key: FingerprintKey([7; 16]),
            founders: BTreeSet::from([birth(&store(&folder), "a:1")]),
        };
        identity.record(&store(&folder)).unwrap();
        assert_eq!(Identity::load(&store(&folder)).unwrap(), Some(identity));
    }

    #[test]
    fn a_folder_of_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        for other in [FORMAT - 1, FORMAT + 1] {
            let mut batch = store.batch();
            let head = serde_json::json!({"format": other, "slots": SLOTS, "new": true});
            batch.put_fact(&keys::IDENTITY, &head).unwrap();
            store.commit(batch).unwrap();
            let refused = Identity::load(&store).unwrap_err();
            let clear = format!("has format {other} with 256 slots, and this version reads format");
            assert!(refused.to_string().contains(&clear), "{refused}");
        }
    }
}
