//! Rebuilt files from other owners of their slots.

use futures::StreamExt as _;

use crate::blocking;
use crate::checkpoint::facts::Slot;
use crate::cluster::copying::ANSWER_WAIT;
use crate::cluster::pace::Pace;
use crate::cluster::peers::{self, Asked, FilePart, PeerError};
use crate::event::node::NodeId;
use crate::flush::files::{Files, FilesError};

/// Reads files from other members.
#[derive(Clone)]
pub struct Fetching {
    /// Where they go.
    pub files: Files,
    /// The ways to the other members.
    pub members: peers::Member,
    /// How fast they may come, where nobody waits for them.
    pub pace: Pace,
}

/// Whether somebody waits for files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Senders need the network and the disk too.
    Paced,
    /// A checkpoint waits for them, or the next one comes soon.
    AtOnce,
}

/// Why files were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// They cannot be kept here.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The other member does not send them.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Fetching {
    /// Makes durable what is asked for, as an owner has it. `may_keep` says of a slot whether
    /// this node may still write its files.
    ///
    /// # Errors
    /// When the owner does not send all of it, or it cannot be kept.
    pub async fn fetch(
        &self,
        (node, address): (NodeId, &str),
        asked: Asked,
        may_keep: impl Fn(Slot) -> bool + Send,
        haste: Haste,
    ) -> Result<(), FetchError> {
        let mut incoming = self.files.receive(&asked, may_keep);
        let mut parts = self.members.other(node, address).files(&asked, ANSWER_WAIT).await?;
        while let Some(part) = parts.next().await {
            let part = part?;
            let bytes = bytes(&part);
            blocking::in_place(|| incoming.take(part))?;
            if haste == Haste::Paced {
                self.pace.rest(bytes).await;
            }
        }
        self.files.ready().await;
        let came = blocking::in_place(|| incoming.finish())?;
        if asked.only_known && asked.known.keys().any(|key| !came.contains(key)) {
            let lacks = "less files than it has told of".to_owned();
            return Err(FilesError::Foreign(lacks).into());
        }
        Ok(())
    }
}

fn bytes(part: &FilePart) -> usize {
    match part {
        FilePart::Begin { .. } | FilePart::Gone(_) => 0,
        FilePart::Fingerprints(bytes) | FilePart::Bytes(bytes) => bytes.len(),
        FilePart::Waiting(_, held) => held.payload.len(),
    }
}
