//! The cluster's clock: on every whole second the leader asks how much is stamped before it,
//! and has the cluster agree on the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::segments::{Segment, SegmentState};
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::checkpoint::raft::Term;
use crate::cluster::clocks::Clocks;
use crate::cluster::leases::{ABSENCE, Leases, Silent};
use crate::cluster::sealing::{self, AskCopies};
use crate::event::node::NodeId;
use crate::event::time::{SECOND, UnixNanos, Window};
use crate::flush::aggregations;
use crate::flush::feed::{Consensus, Disagreement};
use crate::journal::Stamped;

/// How long a member may take to say how much is stamped.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Windows that may have ended since the last cut and get one of their own. Of what was
/// stamped in older ones, nothing can be missing: nobody stamps for as long without a leader.
const CUTS_MAX: usize = 1 << 12;

/// Why a member does not say how much is stamped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unanswered {
    /// In words.
    pub reason: String,
    /// Nobody listens where it is reached: it is not there, rather than slow.
    pub is_gone: bool,
}

/// Asks members how much is stamped before a time.
pub trait AskStamped: Send + Sync {
    /// What a member says of its segments, or why it says nothing. It may stamp until
    /// `lease` from then on.
    fn stamped<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        time: UnixNanos,
        lease: UnixNanos,
        within: Duration,
    ) -> BoxFuture<'a, Result<BTreeMap<SegmentId, Stamped>, Unanswered>>;
}

/// What only the cluster's leader does.
pub trait Lead: Consensus {
    /// Makes sure that this node leads, and that its facts have all that was decided before.
    /// Returns the term; `None` if it does not, or nobody can tell.
    fn confirm(&self) -> BoxFuture<'_, Result<Option<Term>, Disagreement>>;

    /// As [`Consensus::propose`], if this node still leads in `term`. `None` if it does not, or
    /// nobody can tell.
    fn propose_in(
        &self,
        term: Term,
        command: Command,
    ) -> BoxFuture<'_, Result<Option<Applied>, Disagreement>>;
}

/// Makes cuts while this node leads.
pub struct Cutter {
    lead: Arc<dyn Lead>,
    members: Arc<dyn AskStamped>,
    copies: Arc<dyn AskCopies>,
    /// The members that did not answer last time: nobody waits for them.
    silent: BTreeSet<NodeId>,
    /// Who may stamp until when, in the term in which this node leads.
    leases: Option<(Term, Leases)>,
    /// Who is told which members do not answer any more.
    told: watch::Sender<Silent>,
    /// Whose clocks are right.
    clocks: Clocks,
}

impl Cutter {
    /// A cutter of this cluster, which tells `told` of those who do not answer any more,
    /// and gives leases to those whose `clocks` are right.
    pub fn new(
        lead: Arc<dyn Lead>,
        members: Arc<dyn AskStamped>,
        copies: Arc<dyn AskCopies>,
        told: watch::Sender<Silent>,
        clocks: Clocks,
    ) -> Cutter {
        let (silent, leases) = (BTreeSet::new(), None);
        Cutter { lead, members, copies, silent, leases, told, clocks }
    }

    /// If this node leads, has the cluster cut at the last whole second at or before `now`,
    /// and before at the end of each window that something may be in and that has no cut at its
    /// end. Renews the leases, and begins to seal the segments of those who have been silent for
    /// too long. When it begins to lead, it asks also if there is nothing to cut.
    ///
    /// Another leader comes only after this one was confirmed for the last time: so it knows an
    /// end of all leases that this one gave, for they count from `now`, which was before.
    ///
    /// # Errors
    /// When the node takes no part any more. If another leader was faster, nothing happens.
    pub async fn cut(&mut self, now: UnixNanos) -> Result<(), Disagreement> {
        let Some(term) = self.lead.confirm().await? else { return Ok(()) };
        let begins = self.leases.as_ref().is_none_or(|(leading, _)| *leading != term);
        if begins {
            self.leases = Some((term, Leases::begin(now, self.clocks.bound())));
        }
        let facts = self.lead.facts().borrow().clone();
        let (latest, time) = (facts.latest_cut().time, now.whole_second());
        if time <= latest {
            if begins {
                // The last leader may be gone: that is found out before the next whole second.
                self.ask(&facts, latest, now).await;
                self.look_again(latest, now).await?;
            }
            return Ok(());
        }
        let stamped = self.ask(&facts, time, now).await;
        let told = stamped.values().map(|stamped| stamped.last);
        let last = told.chain(last_sealed(&facts)).max().unwrap_or_default();
        for time in ends(&lengths(&facts), latest, time, last) {
            let stamped = self.ask(&facts, time, now).await;
            if !self.agree(term, &facts, time, stamped).await? {
                return Ok(());
            }
        }
        self.agree(term, &facts, time, stamped).await?;
        self.seal_silent(&facts, now).await?;
        self.look_again(time, now).await
    }

    /// Where nobody listens any more, this does not wait for the next cut to find that again.
    async fn look_again(&mut self, time: UnixNanos, now: UnixNanos) -> Result<(), Disagreement> {
        let Some((_, leases)) = &mut self.leases else { return Ok(()) };
        let facts = self.lead.facts().borrow().clone();
        let doubtful: Vec<_> =
            facts.staying().filter(|(node, _)| leases.is_in_doubt(*node, now)).collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        sleep(ABSENCE).await;
        let now = UnixNanos(now.0.saturating_add(ABSENCE.as_nanos() as u64));
        for (node, member) in doubtful {
            let (address, lease) = (&member.address, leases.keep(node));
            match self.members.stamped(node, address, time, lease, ANSWER_WAIT / 10).await {
                Ok(_) => leases.hear(node, now),
                Err(error) => leases.miss(node, error.is_gone, now),
            }
        }
        let facts = self.lead.facts().borrow().clone();
        self.seal_silent(&facts, now).await
    }

    /// Nobody waits for what a silent node may still append: it gets no more leases.
    async fn seal_silent(&self, facts: &Facts, now: UnixNanos) -> Result<(), Disagreement> {
        let Some((term, leases)) = &self.leases else { return Ok(()) };
        let silent = facts.staying().map(|(node, _)| node);
        let silent = silent.filter(|&node| leases.is_silent(node, now));
        let silent = (*term, silent.collect());
        self.told.send_if_modified(|told| {
            let differs = *told != silent;
            *told = silent;
            differs
        });
        let growing = facts.segments().iter().filter(|(_, segment)| segment.end().is_none());
        for (&id, segment) in growing.filter(|(_, segment)| leases.is_silent(segment.writer, now)) {
            let Segment { writer, floor, .. } = *segment;
            if segment.state == SegmentState::Open {
                let ceiling = leases.ceiling(writer, floor);
                warn!(node = %writer, segment = id, %ceiling, "a silent member's segment is sealed");
                let begin = Command::BeginSeal { segment: id, ceiling };
                if !self.propose(*term, begin).await? {
                    continue;
                }
            }
            self.seal(*term, facts, id, segment).await?;
        }
        Ok(())
    }

    /// Ends a segment whose writer is silent, where its other copies end.
    async fn seal(
        &self,
        term: Term,
        facts: &Facts,
        id: SegmentId,
        segment: &Segment,
    ) -> Result<(), Disagreement> {
        let reached = sealing::fence(&*self.copies, facts, id, segment).await;
        let Some((one, others)) = reached.split_first() else { return Ok(()) };
        if self.propose(term, sealing::seal(id, one, others)).await? {
            info!(segment = id, copies = reached.len(), "a silent member's segment is sealed");
        }
        Ok(())
    }

    /// Says whether the cluster does it: another leader may be faster, or a writer that is back.
    async fn propose(&self, term: Term, command: Command) -> Result<bool, Disagreement> {
        match self.lead.propose_in(term, command).await {
            Err(Disagreement::Refused(refused)) => {
                debug!(%refused, "what the leader proposes was refused");
                Ok(false)
            }
            proposed => Ok(proposed?.is_some()),
        }
    }

    /// Has the cluster agree on a cut, and says whether it does.
    async fn agree(
        &self,
        term: Term,
        before: &Facts,
        time: UnixNanos,
        stamped: BTreeMap<SegmentId, Stamped>,
    ) -> Result<bool, Disagreement> {
        let facts = self.lead.facts().borrow().clone();
        let number = facts.latest_cut().number + 1;
        // Of one that was opened or sealed since, more is known the next time.
        let is_as_before = |id: &SegmentId| facts.segments().get(id) == before.segments().get(id);
        let stamped = stamped.into_iter().filter(|(id, _)| is_as_before(id));
        let stamped = stamped.map(|(id, stamped)| (id, stamped.before)).collect();
        self.propose(term, Command::Cut { number, time, stamped }).await
    }

    /// How much is stamped before a time of each segment of which somebody has to tell. All
    /// members are asked: those who answer are not silent.
    async fn ask(
        &mut self,
        facts: &Facts,
        time: UnixNanos,
        now: UnixNanos,
    ) -> BTreeMap<SegmentId, Stamped> {
        let unknown = facts.segments().iter().filter(|(_, segment)| has_to_be_told(segment, time));
        let unknown: BTreeMap<_, _> = unknown.collect();
        // Of those who have nothing to tell it is known then that they are there.
        let asked = facts.staying();
        let Cutter { members, silent, leases, clocks, .. } = self;
        let Some((term, leases)) = leases else { return BTreeMap::new() };
        let answers: Vec<_> = asked
            .map(|(node, member)| {
                let wait = if silent.contains(&node) { ANSWER_WAIT / 10 } else { ANSWER_WAIT };
                let is_off = clocks.is_off(*term, node);
                let lease = if is_off { leases.keep(node) } else { leases.grant(node, now) };
                let answer = members.stamped(node, &member.address, time, lease, wait);
                async move { (node, answer.await) }
            })
            .collect();
        let mut stamped = BTreeMap::new();
        for (node, answer) in join_all(answers).await {
            match answer {
                Ok(told) => {
                    silent.remove(&node);
                    leases.hear(node, now);
                    stamped.extend(told.into_iter().filter(|(id, _)| {
                        unknown.get(id).is_some_and(|segment| tellers(segment).any(|n| n == node))
                    }));
                }
                Err(error) => {
                    leases.miss(node, error.is_gone, now);
                    if silent.insert(node) {
                        warn!(%node, %error, "a member does not say how much it has stamped");
                    }
                }
            }
        }
        stamped
    }
}

/// Whether a cut at this time does not follow from what the facts know of a segment.
fn has_to_be_told(segment: &Segment, time: UnixNanos) -> bool {
    segment.end().is_none() || segment.ceiling > time
}

/// Who can tell how much of a segment is stamped before a time: its writer, or once it is
/// sealed, whoever has it.
fn tellers(segment: &Segment) -> Box<dyn Iterator<Item = NodeId> + '_> {
    match segment.end() {
        None => Box::new(std::iter::once(segment.writer)),
        Some(_) => Box::new(segment.nodes()),
    }
}

/// The last instants at which something can be stamped in sealed segments.
fn last_sealed(facts: &Facts) -> impl Iterator<Item = UnixNanos> {
    let sealed = facts.segments().values().filter(|segment| segment.end().is_some());
    sealed.map(|segment| UnixNanos(segment.ceiling.0.saturating_sub(1)))
}

/// How long the windows of the aggregations are, in seconds.
fn lengths(facts: &Facts) -> BTreeSet<u32> {
    // Definitions that this version does not know are folded by nobody here.
    let known = aggregations(facts).unwrap_or_default();
    known.iter().filter_map(|known| known.definition.kind.window_seconds()).collect()
}

/// When windows end after `latest` and before `now` that may have something that was stamped
/// at `last` or earlier.
fn ends(
    lengths: &BTreeSet<u32>,
    latest: UnixNanos,
    now: UnixNanos,
    last: UnixNanos,
) -> BTreeSet<UnixNanos> {
    let mut ends = BTreeSet::new();
    for &length in lengths {
        let length_nanos = u64::from(length) * SECOND;
        let newest = Window::of(last, length).end;
        let before_now = |end: &UnixNanos| *end < now && *end <= newest && *end > latest;
        let oldest = Window::of(latest, length).end;
        let following = (0..).map(|n| UnixNanos(oldest.0 + n * length_nanos));
        ends.extend(following.take(CUTS_MAX).take_while(before_now));
    }
    ends
}

#[cfg(test)]
mod tests;
