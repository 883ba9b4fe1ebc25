//! Results from other members, at a bounded rate: senders need the network and the disk too.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::info;

use crate::cluster::leaving::Counted;
use crate::cluster::peers::{self, Listed, PeerError};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::results::Results;
use crate::store::StoreError;

/// How long a member may take to say what it has, or to begin to send it.
pub const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How fast a node copies.
const BYTES_PER_SECOND: u32 = 32 << 20;

/// Copies results.
#[derive(Clone)]
pub struct Copying {
    results: Results,
    members: peers::Member,
    /// Held by whoever rests: all together are as fast as one.
    rest: Arc<Mutex<()>>,
}

/// Why something was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// This node's database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The other member does not send it.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Copying {
    /// Copies results of other members to this node's.
    pub fn new(results: Results, members: peers::Member) -> Copying {
        Copying { results, members, rest: Arc::default() }
    }

    /// Copies what a member has of a window in these slots. What cannot be divided is copied
    /// as a whole, if `takes_sums` or if the first slot is among them.
    ///
    /// # Errors
    /// When the member does not send it, or it cannot be kept.
    pub async fn copy(
        &self,
        (node, address): (NodeId, &str),
        (number, window): Counted,
        lacks: SlotSet,
        takes_sums: bool,
    ) -> Result<(), CopyError> {
        let member = self.members.other(node, address);
        let tables = member.tables(number, window.end, ANSWER_WAIT).await?;
        for Listed { table, slots, summary, records } in tables {
            let slots = match &summary {
                Some(_) if takes_sums || lacks.contains(0) => slots,
                Some(_) => continue,
                None => slots.intersection(&lacks),
            };
            if slots.is_empty() {
                continue;
            }
            let mut writing = self.results.begin(number, window);
            writing.count_records(records);
            let named = (number, window.end, table);
            let mut chunks = member.results(named, slots, ANSWER_WAIT).await?;
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk?;
                let bytes = chunk.len();
                writing.push(chunk.into())?;
                let _rest = self.rest.lock().await;
                pace(bytes).await;
            }
            self.results.fill(writing, slots, summary)?;
            info!(aggregation = number, %window, %slots, "results of another member are copied");
        }
        Ok(())
    }

    /// Those of some slots of which there is no result of a window here.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn lacks(&self, (number, window): Counted, slots: SlotSet) -> Result<SlotSet, StoreError> {
        let found = self.results.find(number, window.end)?;
        Ok(found.iter().fold(slots, |lacks, found| lacks.difference(&found.slots)))
    }
}

/// Rests for as long as so many bytes may take.
pub async fn pace(bytes: usize) {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    sleep(Duration::from_secs(1) * bytes / BYTES_PER_SECOND).await;
}
