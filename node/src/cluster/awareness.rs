//! From when on a node packs what is new.

use std::sync::Arc;

use tracing::debug;

use crate::checkpoint::facts::command::Command;
use crate::event::time::UnixNanos;
use crate::flush::feed::Consensus;
use crate::journal::Journal;

/// Tells the cluster that all that is appended to the journal's open segment has the sections
/// of all aggregations below a number, once the requests that lack some are `over`.
pub async fn tell(
    journal: Journal,
    consensus: Arc<dyn Consensus>,
    below: u32,
    over: impl Future<Output = ()>,
) {
    over.await;
    let segment = journal.segment();
    // It asks for nothing: no time is before the first one, and no lease is shorter.
    let told = match journal.stamped(UnixNanos(0), UnixNanos(0)).await {
        Ok(stamped) => {
            let last = stamped.get(&segment).map(|stamped| stamped.last).unwrap_or_default();
            let from = UnixNanos(last.0.saturating_add(1));
            let aware = Command::Aware { segment, below, from };
            consensus.propose(aware).await.map(drop).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    // The segment will be sealed, and the next one packs everything.
    if let Err(error) = told {
        debug!(segment, error, "the cluster is not told what this node packs");
    }
}
