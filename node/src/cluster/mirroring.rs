//! The open segment to its other copies, as it is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::checkpoint::facts::SegmentId;
use crate::cluster::peers::{self, PeerError};
use crate::event::node::NodeId;
use crate::journal::{Journal, JournalError, Mirror};

/// How long another node may take to begin.
const BEGIN_WAIT: Duration = Duration::from_secs(2);
/// How long another node may make no entry durable while it has some to write.
const STALL_MAX: Duration = Duration::from_secs(2);

/// Why a copy is none any more.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The other node has ended the stream.
    #[error("it takes nothing more")]
    Ended,
    /// The other node has entries to write, and writes none.
    #[error("it makes nothing durable")]
    Stalled,
    /// The other node is not reached, or refuses.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// This node's own journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Takes what is to be copied; it waits here, bounded by the admission budget.
struct Queued {
    groups: mpsc::UnboundedSender<(u64, Vec<Bytes>)>,
    written: Arc<AtomicU64>,
}

impl Mirror for Queued {
    fn write(&self, first: u64, frames: Vec<Bytes>) {
        self.written.store(first + frames.len() as u64, Ordering::Relaxed);
        // When nobody sends it, nothing is acknowledged any more, and another segment opened.
        let _ = self.groups.send((first, frames));
    }
}

/// One other copy of the open segment.
pub struct Mirroring {
    /// Who has it.
    pub node: NodeId,
    address: String,
    members: peers::Member,
    groups: mpsc::UnboundedReceiver<(u64, Vec<Bytes>)>,
    /// How many entries were written here.
    written: Arc<AtomicU64>,
}

impl Mirroring {
    /// A copy on the member that is reached at `address`, and what the journal writes to.
    pub fn new(
        node: NodeId,
        address: String,
        members: peers::Member,
    ) -> (Mirroring, Arc<dyn Mirror>) {
        let (sender, groups) = mpsc::unbounded_channel();
        let written = Arc::<AtomicU64>::default();
        let queued = Queued { groups: sender, written: Arc::clone(&written) };
        (Mirroring { node, address, members, groups, written }, Arc::new(queued))
    }

    /// Sends all that is written, and tells `journal` what is durable there; `copy` is the
    /// mirror's place. Returns who has no copy any more, and why.
    pub async fn run(
        self,
        journal: Journal,
        segment: SegmentId,
        copy: usize,
    ) -> (NodeId, MirrorError) {
        let node = self.node;
        let sent = self.send(&journal, segment, copy).await;
        (node, sent.err().unwrap_or(MirrorError::Ended))
    }

    async fn send(
        self,
        journal: &Journal,
        segment: SegmentId,
        copy: usize,
    ) -> Result<(), MirrorError> {
        let Mirroring { node, address, members, groups, written } = self;
        let groups =
            stream::unfold(groups, async |mut groups| Some((groups.recv().await?, groups)));
        let mut durable = members.other(node, &address).copy(segment, groups, BEGIN_WAIT).await?;
        let (mut copied, mut since) = (0, Instant::now());
        let mut look = interval(STALL_MAX / 4);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = durable.next() => {
                    let Some(entries) = told.transpose()? else { return Ok(()) };
                    (copied, since) = (entries, Instant::now());
                    journal.copied(segment, copy, entries)?;
                }
                _ = look.tick() => {
                    if written.load(Ordering::Relaxed) <= copied {
                        since = Instant::now();
                    } else if since.elapsed() > STALL_MAX {
                        return Err(MirrorError::Stalled);
                    }
                }
            }
        }
    }
}
