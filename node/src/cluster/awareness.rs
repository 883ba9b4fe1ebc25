//! From when on a node packs what is new.

use std::sync::Arc;

use tracing::debug;

use crate::checkpoint::facts::SegmentId;
use crate::checkpoint::facts::command::Command;
use crate::event::time::UnixNanos;
use crate::flush::feed::Consensus;
use crate::journal::{AppendError, Journal};

/// Tells the cluster that all that is appended to this segment of the journal has the sections
/// of all aggregations below a number, once the requests that lack some are `over`.
pub async fn tell(
    journal: Journal,
    segment: SegmentId,
    consensus: Arc<dyn Consensus>,
    below: u32,
    over: impl Future<Output = ()>,
) {
    over.await;
    let told = match last_stamp(&journal, segment).await {
        Ok(last) => {
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

/// The last stamp of a segment when all that was appended is stamped.
async fn last_stamp(journal: &Journal, segment: SegmentId) -> Result<UnixNanos, AppendError> {
    // A sender may have gone away while its entry waits for the writer, which answers before
    // it stamps what waits: so the second answer comes after. Neither asks for anything, as no
    // time is before the first one and no lease is shorter.
    let ask = || journal.stamped(UnixNanos(0), UnixNanos(0));
    ask().await?;
    let stamped = ask().await?;
    Ok(stamped.get(&segment).map(|stamped| stamped.last).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures::poll;

    use super::*;
    use crate::event::time::Clock;
    use crate::flush::example::{Cluster, at, register};
    use crate::journal::{Events, FRAME_BYTES, Opening, Replay};
    use crate::store::{Disk, Store};

    #[tokio::test]
    async fn what_waits_for_the_writer_is_stamped_before_the_cluster_is_told() {
        let cluster = Cluster::of(1);
        let segment = cluster.open(1);
        cluster.apply(register(&[("by-foo", 10), ("by-bar", 10)]));
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let opening = Opening { segment, floor: at(1), lease: at(99), mirrors: Vec::new() };
        let (clock, replay) = (Clock::new(|| at(5)), Replay::default());
        let (journal, writer) = Journal::new(store, &replay, clock, Box::new(|_| ()));
        let writer = tokio::spawn(writer.run_as_task());
        journal.open(opening).await.unwrap();
        {
            // Its sender goes away.
            let append = journal.append(vec![0; FRAME_BYTES], Events::of_records(1), Box::new(()));
            assert!(poll!(std::pin::pin!(append)).is_pending());
        }
        tell(journal.clone(), segment, Arc::clone(&cluster) as _, 2, ready(())).await;
        let since = || cluster.now().aggregations()[&1].since;
        cluster.cut(5, &[]);
        assert_eq!(since(), 3, "at this time there is one more entry as before");
        cluster.cut(6, &[]);
        cluster.cut(7, &[]);
        assert_eq!(since(), 3);
        journal.close();
        writer.await.unwrap().unwrap();
    }
}
