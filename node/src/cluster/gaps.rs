//! Of which files only what closes their gaps is taken, as the primaries of their slots tell.
//!
//! Any node takes chunks, and only the primary knows what waits. So each node asks the others
//! once a second: what came meanwhile is over the bounds, and nobody minds. Of a primary that does
//! not answer nothing is believed for long: what is taken without need costs a little room, and
//! what is refused without need is late.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::checkpoint::facts::Facts;
use crate::cluster::peers;
use crate::event::chunk::{Chunk, Sequence};
use crate::event::fingerprint::{FingerprintKey, slot_of};
use crate::event::node::NodeId;
use crate::flush::folding::Folding;
use crate::flush::gaps::Gaps;

/// How often members are asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long one may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How long an answer counts.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

// It does so until the next one comes.
const _: () = assert!(EVERY.as_secs() + ANSWER_WAIT.as_secs() < BELIEVED_FOR.as_secs());

/// What is known of gaps; cheap to clone.
#[derive(Clone)]
pub struct KnownGaps {
    node: NodeId,
    key: FingerprintKey,
    folding: Folding,
    facts: watch::Receiver<Arc<Facts>>,
    told: watch::Sender<BTreeMap<NodeId, Told>>,
}

/// What a member has told, and when. Whoever has nothing to tell is not among them.
struct Told {
    gaps: Gaps,
    at: Instant,
}

impl KnownGaps {
    /// Nothing is known of others yet, and of this node what it folds. Ids are hashed under the key.
    pub fn new(
        node: NodeId,
        key: FingerprintKey,
        folding: Folding,
        facts: watch::Receiver<Arc<Facts>>,
    ) -> KnownGaps {
        KnownGaps { node, key, folding, facts, told: watch::Sender::default() }
    }

    /// The chunk that a file lacks, if so much waits behind it that this one is not to be taken.
    pub fn lacks(&self, chunk: &Chunk) -> Option<Sequence> {
        let (own, told) = (self.folding.gaps(), self.told.borrow());
        if own.is_empty() && told.is_empty() {
            return None;
        }
        let hash = self.key.string(chunk.id.as_str().as_bytes());
        let facts = self.facts.borrow();
        let primary = *facts.slots().get(&slot_of(hash))?.owners.first()?;
        let gaps = match told.get(&primary) {
            _ if primary == self.node => &*own,
            Some(Told { gaps, at }) if at.elapsed() < BELIEVED_FOR => gaps,
            _ => return None,
        };
        gaps.lacks(hash, chunk.session, chunk.seq)
    }
}

/// Asks the other members.
pub struct Asking {
    /// Where it goes.
    pub known: KnownGaps,
    /// The ways to them.
    pub members: peers::Member,
}

impl Asking {
    /// Asks again and again, while files are collected.
    pub async fn run(self) -> Infallible {
        loop {
            let facts = self.known.facts.borrow().clone();
            if facts.rebuilding().any(|(_, known)| known.until.is_none()) {
                self.ask(&facts).await;
            }
            sleep(EVERY).await;
        }
    }

    async fn ask(&self, facts: &Facts) {
        let primaries = facts
            .staying()
            .filter(|(node, _)| *node != self.known.node && !facts.primary_of(*node).is_empty());
        let asked = primaries.map(|(node, member)| async move {
            (node, self.members.other(node, &member.address).gaps(ANSWER_WAIT).await)
        });
        for (node, told) in join_all(asked).await {
            match told {
                Ok(gaps) => self.note(node, gaps),
                Err(error) => debug!(%node, %error, "a member does not tell of gaps in files"),
            }
        }
    }

    fn note(&self, node: NodeId, gaps: Gaps) {
        self.known.told.send_modify(|told| {
            told.retain(|_, told| told.at.elapsed() < BELIEVED_FOR);
            match gaps.is_empty() {
                true => drop(told.remove(&node)),
                false => drop(told.insert(node, Told { gaps, at: Instant::now() })),
            }
        });
    }
}

#[cfg(test)]
mod tests;
