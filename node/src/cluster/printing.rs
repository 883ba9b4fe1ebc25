//! The leader's lines: each window of the whole cluster, once it is complete.

use std::sync::Arc;
use std::time::Duration;

use sheaf_proto::statistics::WindowCounts;
use tokio::time::sleep;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::checkpoint::Digest;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::windows::{Completeness, Outcome, Printed, WindowFact};
use crate::checkpoint::printed;
use crate::checkpoint::raft::{Raft, Status};
use crate::cluster::gathering::{GatherError, Gathering};
use crate::event::fingerprint::digest;
use crate::event::time::Window;
use crate::failpoint::may_die;
use crate::flush::feed::{Consensus, Disagreement};
use crate::sink::{DeliveryKey, Sink, SinkError};
use crate::store::{Store, StoreError};

/// How long to rest when the results of a window cannot be added up.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why nothing more is printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The sink will never take anything again, or a line cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster does not agree, or this node takes no part any more.
    #[error(transparent)]
    Consensus(#[from] Disagreement),
}

impl PrintError {
    /// Whether opening the database again can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            PrintError::Sink(_) | PrintError::Consensus(Disagreement::Refused(_)) => false,
            PrintError::Store(_) | PrintError::Consensus(Disagreement::Stopped(_)) => true,
        }
    }
}

/// Told of each line whether the facts' ledger balances; must not block.
pub type Observer = Box<dyn Fn(bool) + Send + Sync>;

/// Prints while this node leads.
pub struct Printer {
    /// The cluster, for the deliveries' keys.
    pub cluster: Uuid,
    /// Who leads.
    pub raft: Raft,
    /// Where a line is agreed on before it is printed.
    pub consensus: Arc<dyn Consensus>,
    /// Where the counts come from.
    pub gathering: Gathering,
    /// Where lines go.
    pub sink: Box<dyn Sink>,
    /// Where is noted what was printed.
    pub store: Arc<Store>,
    /// How many values a line has at most.
    pub values_max: usize,
    /// Told of each line.
    pub observer: Observer,
}

/// A line that is to be printed.
struct Line {
    aggregation: u32,
    window: Window,
    printed: Printed,
    counts: WindowCounts,
    json: Vec<u8>,
}

impl Printer {
    /// Prints every window that becomes complete, in the order of their ends.
    ///
    /// # Errors
    /// When a line cannot be printed or noted; it will be after the next start.
    pub async fn run(mut self) -> Result<(), PrintError> {
        let mut facts = self.consensus.facts();
        loop {
            let led = self.raft.until(Status::leads).await;
            led.map_err(Disagreement::from)?;
            // What an earlier leader has agreed on and perhaps not printed comes first.
            self.repeat_last().await?;
            while self.raft.leading().is_some() {
                let now = facts.borrow_and_update().clone();
                self.print_all(&now).await?;
                if facts.changed().await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    async fn print_all(&mut self, facts: &Facts) -> Result<(), PrintError> {
        for (aggregation, window) in complete(facts) {
            let Some(line) = self.line(facts, aggregation, window).await? else { continue };
            let Line { aggregation, window, printed, .. } = line;
            let command = Command::Print { aggregation, window, printed };
            match self.consensus.propose(command).await {
                Ok(_) => self.deliver(&line)?,
                // Another leads by now, and was faster.
                Err(Disagreement::Refused(refused)) => {
                    warn!(%window, %refused, "a line is not printed");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Prints the line again that was agreed on last, unless this node knows that it was.
    async fn repeat_last(&mut self) -> Result<(), PrintError> {
        let facts = self.consensus.facts().borrow().clone();
        let Some((aggregation, window)) = facts.last_printed() else { return Ok(()) };
        if printed::find(&self.store, aggregation, window)?.is_some() {
            return Ok(());
        }
        match self.line(&facts, aggregation, window).await? {
            Some(line) if Some(line.printed) == agreed(&facts, aggregation, window) => {
                self.deliver(&line)
            }
            Some(_) => {
                error!(%window, "what was printed of a window cannot be reproduced");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What is to be printed of a window, if its results are reached.
    async fn line(
        &self,
        facts: &Facts,
        aggregation: u32,
        window: Window,
    ) -> Result<Option<Line>, PrintError> {
        let mut counts = match self.gathering.counts(aggregation, window, self.values_max).await {
            Ok(counts) => counts,
            Err(GatherError::Store(error)) => return Err(error.into()),
            Err(error) => {
                warn!(%window, %error, "a complete window cannot be printed yet");
                sleep(AGAIN_AFTER).await;
                return Ok(None);
            }
        };
        let revision = agreed(facts, aggregation, window).map_or(1, |printed| {
            if printed.outcome.is_settled() { printed.revision } else { printed.revision + 1 }
        });
        (counts.complete, counts.revision) = (true, revision);
        let start = window.start;
        let json = serde_json::to_vec(&counts);
        let json = json.map_err(|source| SinkError::Format { window: start, source })?;
        let digest = Digest(digest(&json));
        let printed = Printed { revision, digest, outcome: Outcome::Complete };
        Ok(Some(Line { aggregation, window, printed, counts, json }))
    }

    fn deliver(&mut self, line: &Line) -> Result<(), PrintError> {
        let Line { aggregation, window, printed, counts, json } = line;
        let (cluster, start, revision) = (self.cluster, window.start, printed.revision);
        let key = DeliveryKey { cluster, aggregation: *aggregation, start, revision };
        may_die("print-before-deliver");
        self.sink.deliver(&key, counts)?;
        may_die("print-after-deliver");
        printed::record(&self.store, *aggregation, *window, json)?;
        let (name, records, distinct) = (&counts.aggregation, counts.records, counts.distinct);
        info!(aggregation = name, %window, records, distinct, "window printed");
        let facts = self.consensus.facts().borrow().clone();
        let balance = facts.balance(*aggregation);
        let holds = balance.is_none_or(|balance| balance.holds());
        if !holds {
            error!(aggregation = name, ?balance, "the ledger does not balance");
        }
        (self.observer)(holds);
        Ok(())
    }
}

/// The windows that are complete and were not printed so, in the order of their ends.
fn complete(facts: &Facts) -> Vec<(u32, Window)> {
    let windows = facts.aggregations().iter().flat_map(|(&number, aggregation)| {
        aggregation.windows.iter().map(move |(&start, fact)| (number, start, fact))
    });
    let is_due = |number: u32, window: Window, fact: &WindowFact| {
        fact.waiting.is_empty()
            && fact.printed.is_none_or(|printed| !printed.outcome.is_settled())
            && facts.is_complete(number, window) == Completeness::Complete
    };
    let due = windows.filter_map(|(number, start, fact)| {
        let window = Window { start, end: fact.end };
        (is_due(number, window, fact) && fact.records > 0).then_some((number, window))
    });
    let mut due: Vec<_> = due.collect();
    due.sort_by_key(|&(number, window)| (window.end, number));
    due
}

fn agreed(facts: &Facts, aggregation: u32, window: Window) -> Option<Printed> {
    facts.aggregations().get(&aggregation)?.windows.get(&window.start)?.printed
}

#[cfg(test)]
mod tests;
