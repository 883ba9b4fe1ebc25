//! Where entries come from: this node's journal, and those of others.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::raft::Stopped;
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use crate::flush::requests::Decided;
use crate::journal::{JournalError, Position};

/// What of a segment's entries belongs to some slots, in the entries' order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// All entries before this one are in this batch or came earlier, or say nothing of the
    /// slots.
    pub next: u64,
    /// Parts of entries.
    pub parts: Vec<Part>,
}

/// What of an entry belongs to some slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The entry's number within its segment.
    pub index: u64,
    /// When it was stamped.
    pub stamp: UnixNanos,
    /// A packed entry, which has the slots' records only.
    pub entry: Bytes,
}

/// Batches as they come.
pub type Followed = BoxStream<'static, Result<Batch, JournalError>>;

/// Where entries come from.
pub trait Feed: Send + Sync {
    /// What of a segment's entries from a position on belongs to `slots`, or, without slots,
    /// their request ids. Waits for what is not there yet, and for a node that is not reached;
    /// ends with the segment, or with an error of this node's own journal.
    fn follow(&self, from: Position, slots: SlotSet) -> Followed;

    /// The entries of a segment before `index` were folded here: nobody waits for them in
    /// memory. Slots that came later may still ask for some.
    fn folded(&self, segment: u64, index: u64);

    /// Asks the other members what they have decided on repeated requests.
    fn decided(&self) -> BoxFuture<'static, Told>;
}

/// What other members have decided.
#[derive(Debug)]
pub struct Told {
    /// Of each that has answered.
    pub decided: Vec<Decided>,
    /// Whether all have.
    pub is_all: bool,
}

/// Passes on what comes, while somebody takes it.
pub(super) async fn pass_on<T>(items: impl Stream<Item = T>, to: mpsc::Sender<T>) {
    let mut items = pin!(items);
    while let Some(item) = items.next().await {
        if to.send(item).await.is_err() {
            return;
        }
    }
}

/// What the cluster agrees on, seen from a node.
pub trait Consensus: Send + Sync {
    /// The facts on this node, and word of each change.
    fn facts(&self) -> watch::Receiver<Arc<Facts>>;

    /// Has the cluster apply a command, as long as that takes, and returns what it did. This
    /// node's facts contain it by then.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, Disagreement>>;
}

/// Why a command has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The facts do not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// This node takes no part any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Disagreement {
    /// There will be no other facts on this node.
    pub fn facts_ended() -> Disagreement {
        let reason = "there is no more word of the facts".to_owned();
        Disagreement::Stopped(Stopped { reason })
    }
}
