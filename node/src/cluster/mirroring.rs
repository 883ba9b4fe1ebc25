//! The open segment to its other copies, as it is written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::checkpoint::facts::SegmentId;
use crate::cluster::peers::{self, PeerError};
use crate::event::node::NodeId;
use crate::journal::{Journal, JournalError, Mirror};

/// How long another node may take to be ready: it may be starting too.
const READY_WAIT: Duration = Duration::from_secs(15);
/// How long a call may take.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long to rest before a node is asked again whether it is ready.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why a copy is none any more.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The other node is not reached, or takes nothing more.
    #[error("node {node} has no copy of segment {segment} any more: {reason}")]
    Lost {
        /// The other node.
        node: NodeId,
        /// The segment.
        segment: SegmentId,
        /// What happened.
        reason: String,
    },
    /// This node's own journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Takes what is to be copied; it waits here, bounded by the admission budget.
struct Queued(mpsc::UnboundedSender<(u64, Vec<Bytes>)>);

impl Mirror for Queued {
    fn write(&self, first: u64, frames: &[Bytes]) {
        // When nobody sends it, nothing is acknowledged any more, and another segment opened.
        let _ = self.0.send((first, frames.to_vec()));
    }
}

/// One other copy of the open segment.
pub struct Mirroring {
    node: NodeId,
    address: String,
    members: peers::Member,
    groups: mpsc::UnboundedReceiver<(u64, Vec<Bytes>)>,
}

impl Mirroring {
    /// A copy on the member that is reached at `address`, and what the journal writes to.
    pub fn new(
        node: NodeId,
        address: String,
        members: peers::Member,
    ) -> (Mirroring, Arc<dyn Mirror>) {
        let (queued, groups) = mpsc::unbounded_channel();
        (Mirroring { node, address, members, groups }, Arc::new(Queued(queued)))
    }

    /// Sends all that is written, and tells `journal` what is durable there; `copy` is the
    /// mirror's place. Returns when there is no copy any more.
    pub async fn run(self, journal: Journal, copy: usize) -> MirrorError {
        let (node, segment) = (self.node, journal.segment());
        match self.send(&journal, copy).await {
            Ok(()) => MirrorError::Lost { node, segment, reason: "it ended".to_owned() },
            Err(Failure::Journal(error)) => error.into(),
            Err(Failure::Peer(error)) => {
                MirrorError::Lost { node, segment, reason: error.to_string() }
            }
        }
    }

    async fn send(self, journal: &Journal, copy: usize) -> Result<(), Failure> {
        let Mirroring { node, address, members, groups } = self;
        until_ready(&members, &address).await?;
        let groups =
            stream::unfold(groups, async |mut groups| Some((groups.recv().await?, groups)));
        let segment = journal.segment();
        let mut durable = members.copy(&address, segment, groups, ANSWER_WAIT).await?;
        info!(%node, segment, "the segment has another copy");
        while let Some(entries) = durable.next().await {
            journal.copied(copy, entries?)?;
        }
        Ok(())
    }
}

enum Failure {
    Peer(PeerError),
    Journal(JournalError),
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Failure {
        Failure::Peer(error)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Failure {
        Failure::Journal(error)
    }
}

/// Waits until a member that may be starting answers for its copies.
async fn until_ready(members: &peers::Member, address: &str) -> Result<(), PeerError> {
    let until = Instant::now() + READY_WAIT;
    loop {
        // There is no segment 0.
        match members.fence(address, 0, ANSWER_WAIT).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => sleep(AGAIN_AFTER).await,
        }
    }
}
