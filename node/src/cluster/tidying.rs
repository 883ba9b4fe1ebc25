//! Rebuilt files as their aggregations want them in the long run, on each owner's disk.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::aggregation::definition::{Compression, Kind, LogFiles};
use crate::blocking::{self, Interrupted};
use crate::checkpoint::facts::{Facts, Slot};
use crate::event::node::NodeId;
use crate::event::time::{Clock, SECOND, UnixNanos};
use crate::flush::files::{Files, FilesError, Tidied, Tidy};
use crate::flush::{FlushError, aggregations};

/// How often files are looked at, where none are to go sooner: those of which something has
/// changed, ..
const EVERY: Duration = Duration::from_secs(60);
/// .. or has become old, within this time, since it may take until nobody writes a file ..
const RECENT: u64 = 2 * 3_600 * SECOND;
/// .. and all of them once in so many times.
const ALL_ONCE_IN: u32 = 60;

/// Is told what was done.
pub type Observer = Box<dyn Fn(Tidied) + Send + Sync>;

/// Tidies rebuilt files.
pub struct Tidying {
    /// This node.
    pub node: NodeId,
    /// The files.
    pub files: Files,
    /// What aggregations want, and who owns what.
    pub facts: watch::Receiver<Arc<Facts>>,
    /// Tells how old files are.
    pub clock: Clock,
    /// Cancelled when the node stops.
    pub off: CancellationToken,
    /// Who counts it.
    pub observer: Observer,
}

/// Why files are not tidied.
#[derive(Debug, thiserror::Error)]
enum TidyError {
    #[error(transparent)]
    Definition(#[from] FlushError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Tidying {
    /// Does so again and again, and at once when what is wanted has changed. What fails is tried
    /// again the next time.
    pub async fn run(self) -> Infallible {
        let (mut facts, mut last) = (self.facts.clone(), Vec::new());
        let mut round = 0;
        loop {
            let wanted = definitions(&facts.borrow_and_update());
            round = if wanted == last { (round + 1) % ALL_ONCE_IN } else { 0 };
            last = wanted;
            match self.tidy(round == 0).await {
                Ok(Tidied { removed: 0, compressed: 0 }) => {}
                Ok(Tidied { removed, compressed }) => {
                    info!(removed, compressed, "bytes of rebuilt files were tidied");
                }
                Err(error) => warn!(%error, "rebuilt files are not tidied"),
            }
            let every = every(&facts.borrow());
            let changed = async {
                if facts.wait_for(|facts| definitions(facts) != last).await.is_err() {
                    // Nothing changes any more.
                    pending().await
                }
            };
            // Whichever comes first.
            timeout(every, changed).await.ok();
        }
    }

    /// Tidies all files, or those that may need it. What fails in one slot holds up no other.
    async fn tidy(&self, all: bool) -> Result<Tidied, TidyError> {
        let facts = self.facts.borrow().clone();
        let (mut tidied, mut failed) = (Tidied::default(), None);
        for aggregation in aggregations(&facts)? {
            let Kind::LogFiles(wanted) = aggregation.definition.kind else { continue };
            let number = aggregation.number;
            self.files.divide(number, wanted.part);
            if wanted.retention.is_none() && wanted.compression == Compression::None {
                continue;
            }
            let Some(known) = facts.aggregations().get(&number) else { continue };
            for slot in facts.owner_of(self.node).iter() {
                let checkpoint = known.progress(slot).number();
                match self.tidy_slot(number, wanted.clone(), (slot, checkpoint), all).await {
                    Ok(slot) => {
                        (self.observer)(slot);
                        tidied.removed += slot.removed;
                        tidied.compressed += slot.compressed;
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(tidied), Err)
    }

    async fn tidy_slot(
        &self,
        aggregation: u32,
        wanted: LogFiles,
        slot: (Slot, u64),
        all: bool,
    ) -> Result<Tidied, TidyError> {
        let (files, off, now) = (self.files.clone(), self.off.clone(), self.clock.now());
        let since = UnixNanos(if all { 0 } else { now.0.saturating_sub(RECENT) });
        let tidying = blocking::run(move || {
            let tidy = Tidy { wanted: &wanted, now, since, goes_on: &|| !off.is_cancelled() };
            files.tidy(aggregation, slot, &tidy)
        });
        Ok(tidying.await??)
    }
}

/// How long after files were looked at that is done again: soon where they are not to stay long.
fn every(facts: &Facts) -> Duration {
    let kinds = aggregations(facts).into_iter().flatten().map(|it| it.definition.kind);
    let retentions = kinds.filter_map(|kind| match kind {
        Kind::LogFiles(wanted) => wanted.retention,
        Kind::DistinctLogs(_) => None,
    });
    let times = retentions.map(|it| Duration::from_secs(it.seconds().into()));
    times.fold(EVERY, Duration::min)
}

/// What aggregations want of files, as it is written.
fn definitions(facts: &Facts) -> Vec<(u32, Value)> {
    facts.rebuilding().map(|(number, known)| (number, known.definition.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::facts::Settings;
    use crate::checkpoint::facts::command::Command;

    fn files(member: &Value) -> Value {
        json!({"name": "files", "type": "LogFiles", "logFiles": member})
    }

    #[test]
    fn files_are_looked_at_once_a_minute_or_as_often_as_some_are_to_go() {
        let mut facts = Facts::new(Settings { slots: 256 });
        assert_eq!(every(&facts), Duration::from_secs(60));
        let mut with = |definitions: [Value; 2]| {
            let definitions = ["a".to_owned(), "b".to_owned()].into_iter().zip(definitions);
            facts.apply(Command::Register { definitions: definitions.collect() }).unwrap();
            every(&facts).as_secs()
        };
        let forever = || files(&json!({}));
        assert_eq!(with([forever(), files(&json!({"retentionSeconds": 3_600}))]), 60);
        assert_eq!(with([forever(), files(&json!({"retentionSeconds": 5}))]), 5);
        assert_eq!(with([files(&json!({"retentionSeconds": 7})), forever()]), 7);
    }
}
