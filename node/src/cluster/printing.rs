//! The leader's lines: each window of the whole cluster, once it is complete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sheaf_proto::statistics::{Lost, WaitsFor, WindowCounts};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::checkpoint::Digest;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::forget::Loss;
use crate::checkpoint::facts::windows::{Completeness, Outcome, Printed, WindowFact};
use crate::checkpoint::printed;
use crate::checkpoint::raft::{ProposeError, Raft, Status, Term};
use crate::cluster::gathering::{GatherError, Gathering};
use crate::cluster::lending::Lending;
use crate::event::fingerprint::digest;
use crate::event::time::{UnixNanos, Window};
use crate::failpoint::{is_to_fail, may_die};
use crate::flush::feed::{Consensus, Disagreement};
use crate::sink::{DeliveryKey, Sink, SinkError};
use crate::store::{Store, StoreError};

/// How long after its end a window that is not complete is printed as such.
const GRACE: Duration = Duration::from_secs(15);
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
    /// Where the counts come from ..
    pub gathering: Gathering,
    /// .. and what this node has of windows that are not complete.
    pub lending: Lending,
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
    /// When a line cannot be printed or noted, or the node takes no part any more; it will be
    /// after the next start.
    pub async fn run(mut self) -> Result<(), PrintError> {
        let mut facts = self.consensus.facts();
        loop {
            let led = self.raft.until(Status::leads).await;
            led.map_err(Disagreement::from)?;
            let Some(term) = self.catch_up().await? else { continue };
            while self.raft.leading() == Some(term) {
                let now = facts.borrow_and_update().clone();
                self.print_all(&now).await?;
                facts.changed().await.map_err(|_| Disagreement::facts_ended())?;
            }
        }
    }

    async fn print_all(&mut self, facts: &Facts) -> Result<(), PrintError> {
        let mut due = due(facts);
        due.extend(self.stuck(facts).await);
        due.sort_by_key(|&(number, window)| (window.end, number));
        due.dedup();
        for (aggregation, window) in due {
            let Some(line) = self.line(facts, aggregation, window).await? else { continue };
            if line.counts.records == 0 && line.printed.outcome != Outcome::Lost {
                continue;
            }
            let Line { aggregation, window, printed, .. } = line;
            let command = Command::Print { aggregation, window, printed };
            let is_early = is_to_fail("planted-print-first");
            if is_early {
                self.deliver(&line).await?;
            }
            match self.consensus.propose(command).await {
                Ok(_) if is_early => {}
                Ok(_) => self.deliver(&line).await?,
                // Another leads by now, and was faster.
                Err(Disagreement::Refused(refused)) => {
                    warn!(%window, %refused, "a line is not printed");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Windows that this node has something of, and that no slot was flushed for although
    /// they ended a while ago: the cuts miss something of them.
    async fn stuck(&self, facts: &Facts) -> Vec<(u32, Window)> {
        if facts.latest_cut().missing.is_empty() {
            return Vec::new();
        }
        let given_up = given_up(facts);
        let open = self.lending.folding.current(0).await.into_iter();
        let stuck = open.filter_map(|open| {
            let (number, window) = (open.aggregation.number, open.window);
            let known = facts.aggregations().get(&number)?;
            let is_new = !known.windows.contains_key(&window.start);
            (is_new && window.end <= given_up).then_some((number, window))
        });
        stuck.collect()
    }

    /// What an earlier leader has agreed on and perhaps not printed comes first, for nobody
    /// would print it later; but not for ever, as its results may be on a node that is gone.
    /// Returns the term that this node leads in then, if it still does.
    async fn catch_up(&mut self) -> Result<Option<Term>, PrintError> {
        let until = Instant::now() + GRACE;
        while self.raft.leading().is_some() {
            match self.raft.read_index().await {
                Ok(term) if self.repeat_last().await? => return Ok(Some(term)),
                Ok(term) if Instant::now() >= until => {
                    error!("the line that was agreed on last may not have been printed");
                    return Ok(Some(term));
                }
                Ok(_) => {}
                Err(ProposeError::Stopped(stopped)) => {
                    return Err(Disagreement::from(stopped).into());
                }
                Err(error) => {
                    debug!(%error, "this node does not know yet what was printed last");
                    sleep(AGAIN_AFTER).await;
                }
            }
        }
        Ok(None)
    }

    /// Prints the line again that was agreed on last, unless this node knows that it was, and
    /// says whether nothing is owed any more.
    async fn repeat_last(&mut self) -> Result<bool, PrintError> {
        let facts = self.consensus.facts().borrow().clone();
        let Some((aggregation, window)) = facts.last_printed() else { return Ok(true) };
        if is_to_fail("planted-print-once") {
            return Ok(true);
        }
        // Of one that is so old that the facts have forgotten it, nobody has anything.
        let Some(agreed) = agreed(&facts, aggregation, window) else { return Ok(true) };
        if printed::find(&self.store, aggregation, window)?.is_some() {
            return Ok(true);
        }
        match self.line(&facts, aggregation, window).await? {
            Some(line) if line.printed == agreed => self.deliver(&line).await?,
            Some(_) => error!(%window, "what was printed of a window cannot be reproduced"),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// What is to be printed of a window, if its results are reached.
    async fn line(
        &self,
        facts: &Facts,
        aggregation: u32,
        window: Window,
    ) -> Result<Option<Line>, PrintError> {
        let completeness = facts.is_complete(aggregation, window);
        let outcome = completeness.outcome();
        let limit = self.values_max;
        let counts = match outcome {
            Outcome::Waiting => {
                self.gathering.partial(aggregation, window, &self.lending, limit).await
            }
            Outcome::Complete | Outcome::Lost => {
                self.gathering.counts(aggregation, window, limit).await
            }
        };
        let mut counts = match counts {
            Ok(counts) => counts,
            Err(GatherError::Store(error)) => return Err(error.into()),
            Err(GatherError::Missing { slots, reached: asked })
                if facts.check_lost(aggregation, window, &asked).is_ok() =>
            {
                self.give_up(Command::LoseResults { aggregation, window, slots, asked }).await?;
                return Ok(None);
            }
            Err(error) => {
                warn!(%window, %error, "a window cannot be printed yet");
                sleep(AGAIN_AFTER).await;
                return Ok(None);
            }
        };
        let revision = agreed(facts, aggregation, window).map_or(1, |printed| {
            if printed.outcome.is_settled() { printed.revision } else { printed.revision + 1 }
        });
        tell(&mut counts, facts, &completeness, revision);
        let start = window.start;
        let json = serde_json::to_vec(&counts);
        let json = json.map_err(|source| SinkError::Format { window: start, source })?;
        let digest = Digest(digest(&json));
        let printed = Printed { revision, digest, outcome };
        Ok(Some(Line { aggregation, window, printed, counts, json }))
    }

    /// Agrees that what no member has is lost; then another line is due.
    async fn give_up(&self, lost: Command) -> Result<(), PrintError> {
        error!(?lost, "what came of a window is with nobody any more");
        match self.consensus.propose(lost).await {
            Err(Disagreement::Refused(refused)) => {
                debug!(%refused, "it may be with somebody, or was printed");
                Ok(())
            }
            said => Ok(said.map(drop)?),
        }
    }

    async fn deliver(&mut self, line: &Line) -> Result<(), PrintError> {
        let Line { aggregation, window, printed, counts, json } = line;
        let (cluster, start, revision) = (self.cluster, window.start, printed.revision);
        let key = DeliveryKey { cluster, aggregation: *aggregation, start, revision };
        may_die("print-before-deliver");
        self.sink.deliver(&key, counts)?;
        may_die("print-after-deliver");
        self.store.ready().await;
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

/// Says in a line whether its window is complete, and why not.
pub fn tell(counts: &mut WindowCounts, facts: &Facts, completeness: &Completeness, revision: u32) {
    counts.complete = *completeness == Completeness::Complete;
    counts.revision = revision;
    counts.waits_for = waits_for(facts, completeness);
    counts.settled = completeness.outcome() == Outcome::Lost;
    counts.lost = match completeness {
        Completeness::Lost(losses) => losses.iter().map(lost).collect(),
        Completeness::Complete | Completeness::WaitsFor { .. } => Vec::new(),
    };
}

fn lost(loss: &Loss) -> Lost {
    Lost {
        node: loss.node.map(|node| node.0),
        segments: loss.segments.iter().copied().collect(),
        slots: loss.slots.to_string(),
        records: loss.extent.records,
        from: loss.stamps.from.timestamp(),
        until: loss.stamps.until.timestamp(),
    }
}

/// The windows of which a line is due: those that are settled and were not printed so, and
/// those that are not, and were not printed at all, after a while.
fn due(facts: &Facts) -> Vec<(u32, Window)> {
    let windows = facts.aggregations().iter().flat_map(|(&number, aggregation)| {
        aggregation.windows.iter().map(move |(&start, fact)| (number, start, fact))
    });
    let given_up = given_up(facts);
    let is_due = |number: u32, window: Window, fact: &WindowFact| match facts
        .is_complete(number, window)
        .outcome()
    {
        Outcome::Complete => fact.records > 0 && is_open(fact),
        Outcome::Waiting => fact.printed.is_none() && window.end <= given_up,
        Outcome::Lost => is_open(fact),
    };
    let due = windows.filter_map(|(number, start, fact)| {
        let window = Window { start, end: fact.end };
        is_due(number, window, fact).then_some((number, window))
    });
    due.collect()
}

/// Whether another line of a window may follow.
fn is_open(fact: &WindowFact) -> bool {
    fact.printed.is_none_or(|printed| !printed.outcome.is_settled())
}

/// Windows that ended then or earlier are printed also if they are not complete.
fn given_up(facts: &Facts) -> UnixNanos {
    UnixNanos(facts.latest_cut().time.0.saturating_sub(GRACE.as_nanos() as u64))
}

/// What a line says that it waits for.
fn waits_for(facts: &Facts, completeness: &Completeness) -> Option<WaitsFor> {
    let Completeness::WaitsFor { slots, segments } = completeness else { return None };
    let primaries = slots.iter().filter_map(|slot| facts.slots().get(&slot)?.owners.first());
    let nodes: BTreeSet<_> = primaries.map(|node| node.0).collect();
    let (nodes, segments) = (nodes.into_iter().collect(), segments.iter().copied().collect());
    Some(WaitsFor { slots: slots.to_string(), nodes, segments })
}

fn agreed(facts: &Facts, aggregation: u32, window: Window) -> Option<Printed> {
    facts.window(aggregation, window)?.printed
}

#[cfg(test)]
mod tests;
