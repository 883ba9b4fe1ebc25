//! The thread that hands out what a cut has closed: claim -> deliver -> complete -> trim, of each
//! slot one window after the other. Nobody waits for it to fold on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use sheaf_proto::statistics::WindowCounts;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::aggregation::SlotTotals;
use crate::aggregation::distinct_logs::{Closed, OpenWindow};
use crate::blocking;
use crate::checkpoint::Digest;
use crate::checkpoint::facts::checkpoints::Checkpoint;
use crate::checkpoint::facts::command::{
    Applied, ClaimAnswer, Command, CompleteAnswer, SlotClaim, SlotNumber,
};
use crate::checkpoint::facts::{Facts, SegmentId, Slot};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::failpoint::{is_to_fail, may_die};
use crate::flush::carried::CarriedWindows;
use crate::flush::due::{Due, closing_cut};
use crate::flush::feed::Consensus;
use crate::flush::files::{Change, Files};
use crate::flush::folding::Folding;
use crate::flush::group::{Checkpointing, Closing};
use crate::flush::results::{Results, Writing};
use crate::flush::sharing::{KeptFiles, Shared, Sharing};
use crate::flush::statistics::statistics;
use crate::flush::{Aggregation, FlushError};
use crate::journal::Journal;
use crate::journal::copies::Copies;

/// How many flushes are handed out at the same time, at most. Each waits most of its time for
/// others to agree; how many there are is how many parts the slots are folded in.
const AT_ONCE: usize = 16;

/// What is to be handed out or kept.
pub enum Flush {
    /// A window that a cut has closed.
    Window {
        /// The group that folded it.
        group: u64,
        /// The window.
        closing: Box<Closing>,
    },
    /// A checkpoint of rebuilt files.
    Files {
        /// The group that folded them.
        group: u64,
        /// What is new.
        checkpoint: Box<Checkpointing>,
    },
    /// Something is kept of open windows, so that the journal can be trimmed.
    Carry {
        /// The group that folded them.
        group: u64,
        /// The slots.
        slots: SlotSet,
        /// All aggregations that the slots were folded for.
        aggregations: Vec<u32>,
        /// The cut below which nothing else is needed.
        cut: u64,
        /// Of how many windows something new is kept.
        windows: usize,
    },
}

impl Flush {
    fn group(&self) -> u64 {
        match self {
            Flush::Window { group, .. }
            | Flush::Files { group, .. }
            | Flush::Carry { group, .. } => *group,
        }
    }

    fn slots(&self) -> SlotSet {
        match self {
            Flush::Window { closing, .. } => closing.due.slots,
            Flush::Files { checkpoint, .. } => checkpoint.slots,
            Flush::Carry { slots, .. } => *slots,
        }
    }

    /// The same, but for these slots.
    fn without(mut self, left_out: &SlotSet) -> Flush {
        let slots = match &mut self {
            Flush::Window { closing, .. } => &mut closing.due.slots,
            Flush::Files { checkpoint, .. } => &mut checkpoint.slots,
            Flush::Carry { slots, .. } => slots,
        };
        *slots = slots.difference(left_out);
        self
    }
}

/// Takes out the first one of which no slot is busy, nor in one that has waited for longer.
fn next(waiting: &mut VecDeque<Flush>, busy: &SlotSet) -> Option<Flush> {
    let mut before = *busy;
    let free = waiting.iter().position(|flush| {
        let is_free = before.intersection(&flush.slots()).is_empty();
        before = before.union(&flush.slots());
        is_free
    });
    free.and_then(|place| waiting.remove(place))
}

/// What a flush did, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushFigures {
    /// A window was flushed.
    Window {
        /// Distinct records in this node's part of it.
        distinct: u64,
        /// How often a part of it was moved to disk.
        spills: u64,
    },
    /// A checkpoint of files was.
    Files {
        /// Chunks whose places have others, with other bytes.
        contradicting: u64,
    },
}

/// How many chunks came for places of these files that have others, and a warning for each file.
fn contradicting<'a>(kept: impl Iterator<Item = &'a Change>) -> u64 {
    let found = kept.map(|change| (change, change.found.contradicting));
    let warned = found.filter(|(_, chunks)| *chunks > 0).map(|(change, chunks)| {
        let (id, session) = (&change.id, change.key.session);
        warn!(%id, session, chunks, "another sender's bytes came for places that a file has filled");
        chunks
    });
    warned.sum()
}

/// Told about every flush; must not block.
pub type Observer = Box<dyn Fn(FlushFigures) + Send + Sync>;

/// Hands windows out.
pub struct Delivery {
    /// Which node claims.
    pub node: NodeId,
    /// Where claims and completions are agreed on.
    pub consensus: Arc<dyn Consensus>,
    /// Where results are kept ..
    pub results: Results,
    /// .. and what is carried ..
    pub carried: CarriedWindows,
    /// .. and rebuilt files ..
    pub files: Files,
    /// .. and who else keeps both.
    pub sharing: Sharing,
    /// What is trimmed: its own entries ..
    pub journal: Journal,
    /// .. and those of others.
    pub copies: Copies,
    /// Who is told that a window was handed out.
    pub folding: Folding,
    /// How many values a summary has at most.
    pub values_max: usize,
    /// Told about every flush.
    pub observer: Observer,
}

/// What was found of a window.
struct Found {
    aggregation: u32,
    window: Window,
    totals: BTreeMap<Slot, SlotTotals>,
    /// Where it has to be claimed; a window is at the cut that closes it.
    at: Option<At>,
}

/// The only place of a checkpoint that goes on from the one before.
struct At {
    cut: u64,
    numbers: BTreeMap<Slot, u64>,
}

/// What became of the claims of some slots.
#[derive(Default)]
struct Claimed {
    /// The numbers under which they are claimed.
    numbers: BTreeMap<Slot, u64>,
    /// The slots that had been flushed before.
    flushed: SlotSet,
}

impl Delivery {
    /// Hands out what is flushed, until nobody can send more.
    ///
    /// # Errors
    /// When a window cannot be handed out; it will be after the next start.
    pub async fn run(self, mut flushes: mpsc::UnboundedReceiver<Flush>) -> Result<(), FlushError> {
        // Of a slot that was given up, what its group hands on later lacks a window: also when
        // the slot has come back, and another group folds it.
        let mut given_up: BTreeMap<u64, SlotSet> = BTreeMap::new();
        let (mut waiting, mut busy) = (VecDeque::new(), SlotSet::default());
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(flush) = next(&mut waiting, &busy)
            {
                let (group, slots) = (flush.group(), flush.slots());
                busy = busy.union(&slots);
                let flush = flush.without(given_up.entry(group).or_default());
                let delivery = &self;
                under_way.push(async move { (group, slots, delivery.flush(flush).await) });
            }
            tokio::select! {
                Some(flush) = flushes.recv() => waiting.push_back(flush),
                Some((group, slots, gave_up)) = under_way.next() => {
                    busy = busy.difference(&slots);
                    let left_out = given_up.entry(group).or_default();
                    *left_out = left_out.union(&gave_up?);
                    self.trim()?;
                }
                else => return Ok(()),
            }
        }
    }

    /// Hands out what is flushed, and returns the slots that were given up.
    async fn flush(&self, flush: Flush) -> Result<SlotSet, FlushError> {
        match flush {
            Flush::Window { group, closing } => self.hand_out(group, *closing).await,
            Flush::Files { group, checkpoint } => self.hand_out_files(group, *checkpoint).await,
            Flush::Carry { slots, aggregations, cut, windows, .. } => {
                self.carry(slots, aggregations, cut).await?;
                if windows > 0 {
                    info!(windows, "open windows carried");
                }
                Ok(SlotSet::default())
            }
        }
    }

    /// Hands out a window, and returns the slots that were given up.
    async fn hand_out(&self, group: u64, closing: Closing) -> Result<SlotSet, FlushError> {
        let Closing { aggregation, due: Due { window, slots, .. }, state, .. } = closing;
        let number = aggregation.number;
        let spills = state.as_ref().map_or(0, OpenWindow::spills);
        let (found, written, summary) = self.close(&aggregation, window, &slots, state)?;
        self.folding.record_decided(self.results.store())?;

        let Claimed { numbers, flushed } = self.claim(&found, slots).await?;
        let claimed: SlotSet = numbers.keys().copied().collect();
        if summary.is_some() && !claimed.is_empty() && claimed != slots {
            return Err(FlushError::NotWhole(window));
        }
        let mut completed = SlotSet::default();
        if !claimed.is_empty() {
            if is_to_fail("planted-complete-first") {
                self.complete(&found, Shared::Nothing, numbers.clone()).await?;
            }
            self.results.store().ready().await;
            let table = written.table();
            self.results.finish(written, claimed, summary)?;
            may_die("flush-after-deliver");
            completed = self.complete(&found, Shared::Results(window), numbers).await?;
            // Whoever claims the others anew may find less in them, if something was lost.
            let superseded = claimed.difference(&completed);
            if !superseded.is_empty() {
                self.results.withdraw(number, window, table, &superseded)?;
            }
            let totals = claimed.iter().filter_map(|slot| found.totals.get(&slot));
            let distinct = totals.map(|totals| totals.distinct).sum();
            info!(aggregation = %aggregation.definition.name, %window, slots = %claimed, distinct, "flushed");
            (self.observer)(FlushFigures::Window { distinct, spills });
        }

        let flushed = completed.union(&flushed);
        // What is carried of slots that another leads by now is kept for it.
        self.carried.forget(number, window, &flushed)?;
        let given_up = slots.difference(&flushed);
        self.folding.closed(group, number, window, given_up);
        Ok(given_up)
    }

    /// Makes a checkpoint of rebuilt files, and returns the slots that were given up.
    async fn hand_out_files(
        &self,
        group: u64,
        checkpoint: Checkpointing,
    ) -> Result<SlotSet, FlushError> {
        let Checkpointing { aggregation, window, cut, slots, numbers, totals, changes } =
            checkpoint;
        let (aggregation, name) = (aggregation.number, aggregation.definition.name);
        let at = Some(At { cut, numbers });
        let found = Found { aggregation, window, totals, at };
        self.folding.record_decided(self.results.store())?;
        let Claimed { numbers, .. } = self.claim(&found, slots).await?;
        let mut completed = SlotSet::default();
        if !numbers.is_empty() {
            self.results.store().ready().await;
            blocking::in_place(|| self.files.keep(&changes, &numbers, window.end))?;
            may_die("flush-after-deliver");
            let files = changes.iter().map(|change| change.key).collect();
            let kept = KeptFiles { aggregation, checkpoints: numbers.clone(), files };
            completed = self.complete(&found, Shared::Files(&kept), numbers).await?;
            let files = changes.len();
            let chunks: u64 = found.totals.values().map(|totals| totals.distinct).sum();
            // Where this log is followed itself, a line about what came would make more come.
            debug!(aggregation = %name, cut, slots = %completed, files, chunks, "files kept");
            let kept = changes.iter().filter(|change| completed.contains(change.key.slot()));
            let contradicting = contradicting(kept);
            (self.observer)(FlushFigures::Files { contradicting });
        }
        let given_up = slots.difference(&completed);
        self.folding.closed(group, aggregation, window, given_up);
        Ok(given_up)
    }

    /// Counts what a window has. Its table is on disk then, where nobody sees it yet; in
    /// place of the table of all slots there is a summary.
    fn close(
        &self,
        aggregation: &Aggregation,
        window: Window,
        slots: &SlotSet,
        state: Option<OpenWindow>,
    ) -> Result<(Found, Writing, Option<WindowCounts>), FlushError> {
        let mut written = self.results.begin(aggregation.number, window);
        let is_whole = slots.len() == SLOTS;
        let closed = match state {
            None => None,
            Some(state) if is_whole => Some(state.close(self.values_max)?),
            Some(state) => {
                let push = |chunk: Vec<u8>| written.push(chunk).map_err(FlushError::from);
                Some(state.close_with_table(self.values_max, push)?)
            }
        };
        let totals = closed.iter().flat_map(|closed| &closed.slots);
        let totals: BTreeMap<_, _> = totals.map(|totals| (totals.slot, *totals)).collect();
        if !is_whole {
            let records = totals.iter().map(|(&slot, totals)| (slot, totals.records));
            written.count_records(records.collect());
        }
        let found = Found { aggregation: aggregation.number, window, totals, at: None };
        let counts = closed.map(|Closed { counts, .. }| counts).unwrap_or_default();
        let summary = is_whole.then(|| statistics(&aggregation.definition, window, counts));
        Ok((found, written, summary))
    }

    /// Claims a window for all of these slots that are still this node's.
    async fn claim(&self, found: &Found, slots: SlotSet) -> Result<Claimed, FlushError> {
        let mut claimed = Claimed::default();
        let mut left = slots;
        loop {
            let facts = self.facts();
            let owned = self.led(&facts);
            left = left.iter().filter(|&slot| owned.contains(slot)).collect();
            let Some((cut, some)) = found.cuts(&facts, &left).pop_first() else {
                return Ok(claimed);
            };
            let claims = found.claims(&facts, &some);
            let Found { aggregation, window, .. } = *found;
            let command =
                Command::Claim { node: self.node, aggregation, window, cut, slots: claims.clone() };
            may_die("checkpoint-before-claim");
            let Applied::Claims(answers) = self.consensus.propose(command).await? else {
                return Err(FlushError::Contradiction("a claim was answered otherwise".to_owned()));
            };
            may_die("checkpoint-after-claim");
            for (slot, answer) in answers {
                let is_decided = match answer {
                    ClaimAnswer::Accepted | ClaimAnswer::Again => {
                        claimed.numbers.extend(claims.get(&slot).map(|claim| (slot, claim.number)));
                        true
                    }
                    ClaimAnswer::Flushed => {
                        claimed.flushed.insert(slot);
                        true
                    }
                    ClaimAnswer::Diverged(earlier) => return Err(found.diverged(slot, &earlier)),
                    // Another node led it meanwhile, and claimed: whoever folds it now begins
                    // with that window.
                    ClaimAnswer::Resume(earlier) if earlier.window != window => true,
                    // The checkpoint that it goes on from is not the last any more, or the cut is
                    // gone: the slot is folded anew.
                    ClaimAnswer::Resume(_)
                    | ClaimAnswer::WrongNumber { .. }
                    | ClaimAnswer::CutUnknown
                        if found.at.is_some() =>
                    {
                        true
                    }
                    // By now the facts tell better.
                    ClaimAnswer::Resume(_)
                    | ClaimAnswer::StaleEpoch
                    | ClaimAnswer::WrongNumber { .. }
                    | ClaimAnswer::CutUnknown => false,
                };
                if is_decided {
                    left.remove(slot);
                }
            }
        }
    }

    /// Completes claims once all owners have what is kept, but for those of slots that are
    /// another node's by now: it will. Returns the others.
    async fn complete(
        &self,
        found: &Found,
        shared: Shared<'_>,
        mut numbers: BTreeMap<Slot, u64>,
    ) -> Result<SlotSet, FlushError> {
        let mut completed = SlotSet::default();
        loop {
            let slots = numbers.keys().copied().collect();
            let facts = self.sharing.share(found.aggregation, shared, &slots).await?;
            let owned = self.led(&facts);
            numbers.retain(|&slot, _| owned.contains(slot));
            if numbers.is_empty() {
                return Ok(completed);
            }
            let slot_number = |(&slot, &number): (&Slot, &u64)| {
                (slot, SlotNumber { epoch: epoch(&facts, slot), number })
            };
            let slots = numbers.iter().map(slot_number).collect();
            let (node, aggregation) = (self.node, found.aggregation);
            may_die("checkpoint-before-complete");
            let keeps =
                self.keeps(aggregation, Some(found.window), &numbers.keys().copied().collect())?;
            let command = Command::Complete { node, aggregation, slots, keeps };
            let Applied::Completions(answers) = self.consensus.propose(command).await? else {
                let what = "a completion was answered otherwise".to_owned();
                return Err(FlushError::Contradiction(what));
            };
            may_die("checkpoint-after-complete");
            for (slot, answer) in answers {
                match answer {
                    CompleteAnswer::Completed | CompleteAnswer::Again => {
                        numbers.remove(&slot);
                        completed.insert(slot);
                    }
                    CompleteAnswer::StaleEpoch => {}
                    CompleteAnswer::NotClaimed => {
                        let what = format!("slot {slot} lost its claim of {}", found.window);
                        return Err(FlushError::Contradiction(what));
                    }
                }
            }
        }
    }

    /// Has the cluster know what is kept of open windows once all owners have it.
    async fn carry(
        &self,
        slots: SlotSet,
        aggregations: Vec<u32>,
        cut: u64,
    ) -> Result<(), FlushError> {
        self.folding.record_decided(self.results.store())?;
        for aggregation in aggregations {
            let facts = self.sharing.share(aggregation, Shared::Nothing, &slots).await?;
            let owned = facts.primary_of(self.node);
            let own: SlotSet = slots.iter().filter(|&slot| owned.contains(slot)).collect();
            let slots = own.iter().map(|slot| (slot, epoch(&facts, slot))).collect();
            // A slot whose carry the cluster does not take keeps its journal a while longer.
            let keeps = self.keeps(aggregation, None, &own)?;
            let command = Command::Carry { node: self.node, aggregation, slots, cut, keeps };
            self.consensus.propose(command).await?;
        }
        Ok(())
    }

    /// Whether something is kept of an open window of one of these slots, but for one window.
    /// What is left of a window that was flushed, as the node ended then, does not count.
    fn keeps(
        &self,
        aggregation: u32,
        but: Option<Window>,
        slots: &SlotSet,
    ) -> Result<bool, FlushError> {
        let (kept, facts) = (self.carried.all()?, self.facts());
        let (known, now) = (facts.aggregations().get(&aggregation), facts.latest_cut().time);
        // Newer windows may have been flushed before: they did not wait for as much.
        let is_open = |slot, window: Window| {
            slots.contains(slot) && known.is_some_and(|known| known.waits_for(slot, window, now))
        };
        Ok(kept.iter().any(|carry| {
            carry.aggregation == aggregation
                && Some(carry.window) != but
                && carry.slots.iter().any(|slot| is_open(slot, carry.window))
        }))
    }

    /// Gives back what of the journals no slot needs any more.
    fn trim(&self) -> Result<(), FlushError> {
        let facts = self.facts();
        let counted = |&id: &SegmentId| (id, facts.latest_cut().count(id).entries);
        let needed = match is_to_fail("planted-trim-uncarried") {
            true => facts.segments().keys().map(counted).collect(),
            false => facts.all_trimmed(),
        };
        may_die("checkpoint-before-trim");
        self.journal.trim(&self.copies, &needed, facts.latest_cut().time)?;
        may_die("checkpoint-after-trim");
        Ok(())
    }

    /// The slots that are this node's to hand out.
    fn led(&self, facts: &Facts) -> SlotSet {
        match is_to_fail("planted-epoch-ignored") {
            true => facts.slots().keys().copied().collect(),
            false => facts.primary_of(self.node),
        }
    }

    fn facts(&self) -> Arc<Facts> {
        self.consensus.facts().borrow().clone()
    }
}

impl Found {
    /// The cuts at which slots claim, and which do at each.
    fn cuts(&self, facts: &Facts, slots: &SlotSet) -> BTreeMap<u64, SlotSet> {
        match &self.at {
            None => closing_cuts(facts, self, slots),
            Some(_) if slots.is_empty() => BTreeMap::new(),
            Some(at) => [(at.cut, *slots)].into(),
        }
    }

    /// What is claimed for these slots.
    fn claims(&self, facts: &Facts, slots: &SlotSet) -> BTreeMap<Slot, SlotClaim> {
        let claim = |slot| {
            let totals = self.totals.get(&slot);
            let found = |field: fn(&SlotTotals) -> u64| totals.map_or(0, field);
            let known = facts.aggregations().get(&self.aggregation);
            let last = known.map_or(0, |aggregation| aggregation.progress(slot).number());
            let fixed = self.at.as_ref().and_then(|at| at.numbers.get(&slot).copied());
            let claim = SlotClaim {
                epoch: epoch(facts, slot),
                number: fixed.unwrap_or(last + 1),
                records: found(|totals| totals.records),
                distinct: found(|totals| totals.distinct),
                digest: Digest(totals.map_or(0, |totals| totals.digest)),
            };
            (slot, claim)
        };
        slots.iter().map(claim).collect()
    }

    fn diverged(&self, slot: Slot, earlier: &Checkpoint) -> FlushError {
        FlushError::Diverged {
            aggregation: self.aggregation,
            window: self.window,
            slot,
            claimed: earlier.digest,
            found: Digest(self.totals.get(&slot).map_or(0, |totals| totals.digest)),
        }
    }
}

/// The cuts at which slots claim a window, and which slots do at each.
fn closing_cuts(facts: &Facts, found: &Found, slots: &SlotSet) -> BTreeMap<u64, SlotSet> {
    let mut cuts: BTreeMap<u64, SlotSet> = BTreeMap::new();
    let Some(aggregation) = facts.aggregations().get(&found.aggregation) else { return cuts };
    for slot in slots.iter() {
        let alone = SlotSet::from_iter([slot]);
        if let Some(cut) = closing_cut(facts, aggregation, &alone, found.window) {
            cuts.entry(cut.number).or_default().insert(slot);
        }
    }
    cuts
}

fn epoch(facts: &Facts, slot: Slot) -> u64 {
    facts.slots().get(&slot).map_or(0, |ownership| ownership.epoch)
}

#[cfg(test)]
mod tests;
