//! Results from other members.

use std::time::Duration;

use futures::StreamExt as _;
use tracing::info;

use crate::blocking::{self, Interrupted};
use crate::cluster::leaving::Counted;
use crate::cluster::pace::Pace;
use crate::cluster::peers::{self, Listed, PeerError};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::results::Results;
use crate::store::StoreError;

/// How long a member may take to say what it has, or to begin to send it.
pub const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Copies results.
#[derive(Clone)]
pub struct Copying {
    /// Where they go.
    pub results: Results,
    /// The ways to the other members.
    pub members: peers::Member,
    /// How fast they may come.
    pub pace: Pace,
}

/// Why something was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// This node's database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process ends.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The other member does not send it.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl Copying {
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
                blocking::in_place(|| writing.push(chunk.into()))?;
                self.pace.rest(bytes).await;
            }
            let results = self.results.clone();
            // Beside others, since it waits for the disk.
            blocking::run(move || results.fill(writing, slots, summary)).await??;
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
