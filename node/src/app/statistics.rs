//! What the admin port asks of the node.

mod following; // windows as they are printed
mod ledger; // what came in against what went out
mod rebuilt; // rebuilt files

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};
use sheaf_proto::cluster::{Cluster, Member};
use sheaf_proto::files::RebuiltFiles;
use sheaf_proto::queue::Queue;
use sheaf_proto::statistics::{Ledger, WindowCounts};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::admin::{AdminError, Content, Listing, Node, Scope};
use crate::app::engine::Reader;
use crate::app::metrics::Metrics;
use crate::checkpoint::Digest;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::windows::Printed;
use crate::checkpoint::printed;
use crate::cluster::gathering::GatherError;
use crate::cluster::live::{self, Live};
use crate::cluster::peers::Answers as _;
use crate::cluster::printing::tell;
use crate::cluster::proposals::{ProposalError, Proposals};
use crate::cluster::standing::Standing;
use crate::cluster::view::view;
use crate::event::chunk::{Chunk, Sequence};
use crate::event::fingerprint::digest;
use crate::event::node::NodeId;
use crate::event::time::{SECOND, UnixNanos, Window};
use crate::intake::Intake;
use crate::intake::admission::{Closed, Why};
use following::Following;

/// How long another node may take to say what it has.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How often a ledger is drawn up before one is shown that does not balance: nodes may be
/// a cut apart.
const ATTEMPTS: usize = 10;
/// How long to rest in between.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A cut that is older than this, in nanoseconds, says nothing of how far the node is.
const RECENTLY: u64 = 10 * SECOND;

/// Answers for the node, whether its engine runs or not.
pub struct Statistics {
    pub(super) intake: Intake,
    pub(super) metrics: Arc<Metrics>,
    pub(super) standing: Arc<Standing>,
    pub(super) readiness: watch::Receiver<bool>,
    pub(super) values_max: usize,
    pub(super) reader: RwLock<Option<Reader>>,
    /// Lines that other nodes printed and this one added up.
    pub(super) lines: Mutex<BTreeMap<(u32, Window), Arc<str>>>,
}

impl Statistics {
    /// Asks this engine from now on.
    pub fn attach(&self, reader: Reader) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// Asks no engine from now on, so that the one that ran can close its database.
    pub fn detach(&self) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reader(&self) -> Result<Reader, AdminError> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner).clone();
        reader.ok_or_else(|| AdminError::Unavailable("the node is starting".to_owned()))
    }

    /// The way to change what the cluster agrees on.
    ///
    /// # Errors
    /// While no engine runs.
    pub fn proposals(&self) -> Result<Proposals, AdminError> {
        Ok(self.reader()?.proposals)
    }

    /// The chunk that a file lacks, if so much waits behind it that this one is not to be taken.
    pub fn lacks(&self, chunk: &Chunk) -> Option<Sequence> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        reader.as_ref()?.gaps.lacks(chunk)
    }

    async fn closed(&self, scope: Scope, limit: usize) -> Result<Vec<Box<RawValue>>, AdminError> {
        let reader = self.reader()?;
        match scope {
            Scope::Node => self.parts(&reader, limit).await,
            Scope::Cluster => self.printed(&reader, limit).await,
        }
    }

    /// What this node has of closed windows, the newest first.
    async fn parts(&self, reader: &Reader, limit: usize) -> Result<Vec<Box<RawValue>>, AdminError> {
        let windows = counted_windows(&reader.gathering.facts.borrow());
        let mut parts = Vec::new();
        for (number, window) in windows {
            if parts.len() == limit {
                break;
            }
            let part = reader.gathering.part(number, window, self.values_max).await;
            if let Some(part) = part.map_err(failed)? {
                parts.push(to_raw_value(&part).map_err(failed)?);
            }
        }
        Ok(parts)
    }

    /// What was printed of closed windows, the newest first.
    async fn printed(
        &self,
        reader: &Reader,
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, AdminError> {
        let facts = reader.gathering.facts.borrow().clone();
        let windows = printed_windows(&facts);
        self.forget_all_but(&windows);
        let mut lines = Vec::new();
        for &(number, window, printed) in &windows {
            if lines.len() == limit {
                break;
            }
            if let Some(line) = self.line(reader, number, window, printed).await? {
                lines.push(RawValue::from_string(line.to_string()).map_err(failed)?);
            }
        }
        Ok(lines)
    }

    /// The line of a window, as it was printed; `None` while its results are not reached.
    async fn line(
        &self,
        reader: &Reader,
        number: u32,
        window: Window,
        printed: Printed,
    ) -> Result<Option<Arc<str>>, AdminError> {
        // What this node printed may have been followed by what another one did.
        let found = printed::find(&reader.store, number, window).map_err(failed)?;
        if let Some(line) = found.filter(|line| Digest(digest(line)) == printed.digest) {
            return Ok(Some(String::from_utf8(line).map_err(failed)?.into()));
        }
        let known = self.lines().get(&(number, window)).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let counts = reader.gathering.counts(number, window, self.values_max).await;
        let mut counts = match counts {
            Ok(counts) => counts,
            Err(error @ (GatherError::Store(_) | GatherError::Mismatch)) => {
                return Err(failed(error));
            }
            Err(error) => {
                debug!(%window, %error, "a closed window is not shown");
                return Ok(None);
            }
        };
        let facts = reader.gathering.facts.borrow().clone();
        tell(&mut counts, &facts, &facts.is_complete(number, window), printed.revision);
        let line: Arc<str> = serde_json::to_string(&counts).map_err(failed)?.into();
        self.lines().insert((number, window), Arc::clone(&line));
        Ok(Some(line))
    }
}

/// The windows of which a line was agreed on that is never followed by another, the newest
/// first.
fn printed_windows(facts: &Facts) -> Vec<(u32, Window, Printed)> {
    let windows = facts.aggregations().iter().flat_map(|(&number, aggregation)| {
        aggregation.windows.iter().filter_map(move |(&start, fact)| {
            let printed = fact.printed.filter(|printed| printed.outcome.is_settled())?;
            Some((number, Window { start, end: fact.end }, printed))
        })
    });
    let mut windows: Vec<_> = windows.collect();
    windows.sort_by_key(|&(number, window, _)| Reverse((window.end, number)));
    windows
}

/// The windows of which some slot has flushed records, the newest first.
fn counted_windows(facts: &Facts) -> Vec<(u32, Window)> {
    let windows = facts.aggregations().iter().flat_map(|(&number, aggregation)| {
        let counted = aggregation.windows.iter().filter(|(_, fact)| fact.records > 0);
        counted.map(move |(&start, fact)| (number, Window { start, end: fact.end }))
    });
    let mut windows: Vec<_> = windows.collect();
    windows.sort_by_key(|&(number, window)| Reverse((window.end, number)));
    windows
}

impl Statistics {
    async fn current(&self, scope: Scope) -> Result<Vec<WindowCounts>, AdminError> {
        let reader = self.reader()?;
        let all = self.live(&reader, scope, live::VALUES_MAX.max(self.values_max)).await;
        Ok(live::add_up(all.into_iter().flat_map(|live| live.windows), self.values_max))
    }

    /// What this node has at the moment, or what all that are reached have.
    async fn live(&self, reader: &Reader, scope: Scope, limit: usize) -> Vec<Live> {
        let mut all = vec![reader.lending.live(limit).await];
        if scope == Scope::Cluster {
            all.extend(reader.gathering.live_of_others(limit, ANSWER_WAIT).await);
        }
        all
    }

    async fn accounts(&self, scope: Scope) -> Result<Ledger, AdminError> {
        let reader = self.reader()?;
        for _ in 1..ATTEMPTS {
            let ledger = self.draw_up(&reader, scope).await;
            if ledger.balanced {
                return Ok(ledger);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        Ok(self.draw_up(&reader, scope).await)
    }

    async fn draw_up(&self, reader: &Reader, scope: Scope) -> Ledger {
        let live = self.live(reader, scope, 0).await;
        let facts = reader.gathering.facts.borrow().clone();
        ledger::draw_up(&facts, &live, scope)
    }

    fn forget_all_but(&self, windows: &[(u32, Window, Printed)]) {
        let kept: BTreeSet<_> =
            windows.iter().map(|&(number, window, _)| (number, window)).collect();
        self.lines().retain(|line, _| kept.contains(line));
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u32, Window), Arc<str>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Statistics {
    fn view(&self) -> Cluster {
        let mut cluster = view(&self.standing);
        let Ok(reader) = self.reader() else { return cluster };
        let offsets = reader.clocks.offsets();
        for member in &mut cluster.members {
            let offset = offsets.get(&NodeId(member.id));
            member.clock_offset_micros = offset.map(|offset| offset.nanos() / 1_000);
        }
        let led = cluster.members.iter().find(|member| Some(member.id) == cluster.node);
        let since = UnixNanos(self.standing.now().0.saturating_sub(RECENTLY));
        let folded = reader.lending.folding.folded(since);
        cluster.unfolded = led.map(|member| member.slots.saturating_sub(folded));
        cluster
    }

    fn member(&self, id: u64) -> Result<Member, AdminError> {
        let found = self.view().members.into_iter().find(|member| member.id == id);
        found.ok_or_else(|| AdminError::Unavailable("the node takes no part any more".to_owned()))
    }
}

impl Node for Statistics {
    fn readiness(&self) -> Result<(), String> {
        if *self.readiness.borrow() {
            return Ok(());
        }
        let closed = self.intake.admission().closed().unwrap_or(Closed::Starting);
        Err(Why::Closed(closed).to_string())
    }

    fn closed_windows(
        &self,
        scope: Scope,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Box<RawValue>>, AdminError>> {
        self.closed(scope, limit).boxed()
    }

    fn follow_windows(
        self: Arc<Self>,
        after: Option<Timestamp>,
    ) -> BoxStream<'static, Result<Box<RawValue>, AdminError>> {
        let following = future::ready(Following::begin(self, after));
        let lines = following.into_stream().map_ok(|following| {
            stream::try_unfold(following, async |mut following| {
                let line = following.next().await?;
                Ok(Some((line, following)))
            })
        });
        lines.try_flatten().boxed()
    }

    fn current_windows(
        &self,
        scope: Scope,
    ) -> BoxFuture<'_, Result<Vec<WindowCounts>, AdminError>> {
        self.current(scope).boxed()
    }

    fn ledger(&self, scope: Scope) -> BoxFuture<'_, Result<Ledger, AdminError>> {
        self.accounts(scope).boxed()
    }

    fn queue(&self) -> Queue {
        let admission = self.intake.admission();
        Queue {
            used_bytes: admission.used() as u64,
            capacity_bytes: admission.capacity() as u64,
            used_percent: admission.used_percent(),
            throttle_bytes_per_second: self.intake.throttle().limit(),
        }
    }

    fn files(&self, listing: Listing) -> BoxFuture<'_, Result<RebuiltFiles, AdminError>> {
        async move { rebuilt::list(self.reader()?.reading, listing).await }.boxed()
    }

    fn file(
        &self,
        scope: Scope,
        id: String,
        session: u64,
    ) -> BoxFuture<'_, Result<Content, AdminError>> {
        async move { rebuilt::find(self.reader()?.reading, scope, id, session).await }.boxed()
    }

    fn cluster(&self) -> Cluster {
        self.view()
    }

    fn drain(&self, member: u64) -> BoxFuture<'_, Result<Member, AdminError>> {
        let draining = async move {
            let reader = self.reader()?;
            reader.departures.drain(NodeId(member)).await.map_err(undone)?;
            self.member(member)
        };
        draining.boxed()
    }

    fn forget(&self, member: u64) -> BoxFuture<'_, Result<Member, AdminError>> {
        let forgetting = async move {
            let reader = self.reader()?;
            reader.departures.forget(NodeId(member)).await.map_err(undone)?;
            self.member(member)
        };
        forgetting.boxed()
    }

    fn throttle(&self, bytes_per_second: Option<NonZeroU64>) {
        match bytes_per_second {
            Some(limit) => warn!(bytes_per_second = limit, "requests are worked off no faster"),
            None => info!("requests are worked off as fast as they can be"),
        }
        self.intake.throttle().set(bytes_per_second);
    }

    fn metrics(&self, out: &mut String) {
        self.metrics.read_intake(&self.intake);
        if let Ok((_, raft)) = self.standing.member() {
            self.metrics.read_raft(&raft.status());
            self.metrics.read_facts(&raft.facts().borrow());
        }
        if let Ok(reader) = self.reader() {
            self.metrics.read_clocks(&reader.clocks);
        }
        self.metrics.write(out);
    }
}

fn undone(error: ProposalError) -> AdminError {
    match error {
        ProposalError::Refused(refused @ Refused::NoNode { .. }) => {
            AdminError::Unknown(refused.to_string())
        }
        ProposalError::Refused(refused) => AdminError::Refused(refused.to_string()),
        ProposalError::Undecided { .. } | ProposalError::Stopped(_) => {
            AdminError::Unavailable(error.to_string())
        }
    }
}

fn failed(error: impl std::fmt::Display) -> AdminError {
    AdminError::Internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Digest;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::windows::Outcome;
    use crate::flush::example::{Cluster, window};

    #[test]
    fn windows_are_shown_that_were_printed_for_good_the_newest_first() {
        let cluster = Cluster::of(1);
        let print = |window, outcome| {
            let printed = Printed { revision: 1, digest: Digest(1), outcome };
            cluster.apply(Command::Print { aggregation: 0, window, printed });
        };
        for end in [10, 20] {
            let cut = cluster.cut(end, &[]);
            cluster.flush(1, "0-255", window(end - 10, end), cut);
            print(window(end - 10, end), Outcome::Complete);
        }
        let cut = cluster.cut(30, &[]);
        cluster.flush(1, "0-99", window(20, 30), cut);
        print(window(20, 30), Outcome::Waiting);
        let shown = printed_windows(&cluster.now());
        let shown: Vec<_> = shown.into_iter().map(|(number, window, _)| (number, window)).collect();
        assert_eq!(shown, [(0, window(10, 20)), (0, window(0, 10))]);
    }
}
