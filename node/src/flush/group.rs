//! Slots that are folded together, since they go on from the same cuts.

mod account; // one aggregation's open windows
mod beginning; // which slots can be folded together, and from where
mod shelf; // one aggregation's open files

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::aggregation::distinct_logs::{Counts, OpenWindow};
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::cuts::Cut;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::segments::SegmentState;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::event::entry::{Entry, Section};
use crate::event::fingerprint::slot_of;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::{SECOND, UnixNanos, Window};
use crate::failpoint::is_to_fail;
use crate::flush::due::{Due, due, is_reached, newest_reached};
use crate::flush::feed::{Batch, Part};
use crate::flush::files::{Files, Folded};
use crate::flush::gaps::Gap;
use crate::flush::requests::Decided;
use crate::flush::{Aggregation, FlushError, FlushSettings};
use account::Account;
pub use beginning::{Beginning, alike, joint};
use shelf::Shelf;
pub use shelf::{Checkpointing, FileFigures};

/// How long a slot without open windows stays at a cut, in nanoseconds.
const IDLE_MAX: u64 = 60 * SECOND;
/// Bytes of parts that wait until a cut decides on them; no more are taken then.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Of each segment, the number of an entry.
pub type Positions = BTreeMap<u64, u64>;

/// Slots that are folded together.
///
/// What has no request id is folded as it comes: where it stands within a window does not
/// matter. What has one waits until a cut decides whether it repeats another.
pub struct Group {
    slots: SlotSet,
    /// The first entry of each segment that has not come yet.
    next: Positions,
    /// What came and is not folded yet, by segment: first a part with a request id on which
    /// no cut has decided. No segment is without parts.
    held: BTreeMap<u64, VecDeque<Part>>,
    held_bytes: usize,
    /// Which entries are not folded, because they repeat a request.
    decided: Arc<Decided>,
    accounts: BTreeMap<u32, Account>,
    shelves: BTreeMap<u32, Shelf>,
    files: Files,
    /// Nobody else writes the slots' files.
    folded: Folded,
    /// All aggregations with a lower number are known, or were flushed and forgotten.
    known_below: u32,
    /// The cuts that aggregations go on from, where the facts have an older one of some slots.
    from: BTreeMap<u32, u64>,
    /// Carries that were not taken up yet.
    carries: Vec<Carry>,
    /// Bytes of all parts that were folded in this life.
    bytes: u64,
    /// The segments of which only what was carried counts.
    lost: BTreeSet<u64>,
}

/// What a group has to hand out.
#[derive(Default)]
pub struct Closings {
    /// The windows that are due.
    pub now: Vec<Closing>,
    /// The checkpoints of files that are due.
    pub files: Vec<Checkpointing>,
    /// Whether another one may be due once more is folded.
    pub is_behind: bool,
}

/// A window on its way out.
pub struct Closing {
    /// Its aggregation.
    pub aggregation: Aggregation,
    /// When and where it is due.
    pub due: Due,
    /// What was folded into it; `None` if nothing was.
    pub state: Option<OpenWindow>,
    /// What must be kept of older windows that stay open, before this one is claimed.
    pub carries: Vec<Carry>,
}

/// An open window, as far as it has got.
pub struct CurrentWindow {
    /// Its aggregation.
    pub aggregation: Aggregation,
    /// The time that it covers.
    pub window: Window,
    /// What was counted so far.
    pub counts: Counts,
}

/// How large what is open is, by the aggregation's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenFigures {
    /// Open windows.
    pub windows: BTreeMap<String, WindowFigures>,
    /// Files that wait for a chunk.
    pub files: BTreeMap<String, FileFigures>,
}

/// How large an aggregation's open windows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowFigures {
    /// Records in them.
    pub records: u64,
    /// Bytes that they take in memory.
    pub memory_bytes: usize,
}

impl Group {
    /// Slots that go on from what the facts say, or from these later cuts of some aggregations,
    /// and from what was carried of them.
    ///
    /// # Errors
    /// When what was carried is not there, or a definition is not known.
    pub fn resume(
        slots: SlotSet,
        from: BTreeMap<u32, u64>,
        carries: Vec<Carry>,
        facts: &Facts,
        settings: &FlushSettings,
        files: &Files,
    ) -> Result<Group, FlushError> {
        let mut group = Group {
            slots,
            next: Positions::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            decided: Arc::default(),
            accounts: BTreeMap::new(),
            shelves: BTreeMap::new(),
            files: files.clone(),
            folded: files.fold(slots),
            known_below: 0,
            from,
            carries,
            bytes: 0,
            lost: lost(facts),
        };
        group.register(facts, settings)?;
        group.next = group.needed(facts);
        Ok(group)
    }

    /// The slots.
    pub fn slots(&self) -> SlotSet {
        self.slots
    }

    /// Leaves out all but these slots. What was folded of the others stays where it is and is
    /// not claimed.
    pub fn retain(&mut self, keep: impl Fn(u8) -> bool) {
        self.slots = self.slots.iter().filter(|&slot| keep(slot)).collect();
        self.folded.retain(&self.slots);
    }

    /// The first entry of a segment that has not come yet.
    pub fn next(&self, segment: u64) -> u64 {
        self.next.get(&segment).copied().unwrap_or(0)
    }

    /// The first entry of each segment that is not folded yet.
    fn folded(&self) -> Positions {
        let mut folded = self.next.clone();
        let held =
            self.held.iter().filter_map(|(&segment, parts)| Some((segment, parts.front()?.index)));
        folded.extend(held);
        folded
    }

    /// Of each segment, the first entry that is not folded yet, or on which is not decided.
    fn reached(&self) -> Positions {
        let mut reached = self.folded();
        for (&segment, next) in &mut reached {
            *next = self.decided.count(segment).min(*next);
        }
        reached
    }

    /// Whether a segment was lost since this began. What was folded of it nobody could fold
    /// again, and some of it the cluster has never counted: all is to be folded without it.
    pub fn has_lost(&self, facts: &Facts) -> bool {
        !lost(facts).is_subset(&self.lost)
    }

    /// Whether something is on its way out.
    pub fn is_closing(&self) -> bool {
        self.accounts.values().any(|account| !account.closing.is_empty())
            || self.shelves.values().any(Shelf::is_closing)
    }

    /// Folds for the aggregations that the facts tell of from now on, if the cut is known
    /// from which on they count; what is open of others stays as it is.
    ///
    /// # Errors
    /// When what was carried is not there, or a definition is not known.
    pub fn register(&mut self, facts: &Facts, settings: &FlushSettings) -> Result<(), FlushError> {
        for aggregation in super::aggregations(facts)? {
            let (number, end) = (aggregation.number, end(facts, aggregation.number));
            if let Some(account) = self.accounts.get_mut(&number) {
                account.end = end;
            } else if let Some(shelf) = self.shelves.get_mut(&number) {
                shelf.follow(&aggregation.definition, end);
            } else if let Some(cut) = self.begin(facts, number) {
                self.add(aggregation, cut, facts, settings)?;
            }
        }
        let knows_all = facts.aggregations().keys().all(|&number| self.knows(number));
        if knows_all {
            self.known_below = facts.next_aggregation();
        }
        Ok(())
    }

    fn add(
        &mut self,
        aggregation: Aggregation,
        from: &Cut,
        facts: &Facts,
        settings: &FlushSettings,
    ) -> Result<(), FlushError> {
        let number = aggregation.number;
        if aggregation.definition.kind.takes_chunks() {
            let files = self.files.clone();
            let shelf = Shelf::resume(aggregation, from, &self.slots, facts, files)?;
            self.shelves.insert(number, shelf);
            return Ok(());
        }
        let begin = positions(from);
        let mut account = Account::new(aggregation, begin, end(facts, number));
        for carry in self.carries.extract_if(.., |carry| carry.aggregation == number) {
            account.take_up(carry, settings)?;
        }
        self.accounts.insert(number, account);
        Ok(())
    }

    fn knows(&self, number: u32) -> bool {
        self.accounts.contains_key(&number) || self.shelves.contains_key(&number)
    }

    /// Where the slots go on in an aggregation: all of them at the same cut.
    fn begin<'a>(&self, facts: &'a Facts, number: u32) -> Option<&'a Cut> {
        let first = self.slots.iter().next()?;
        let carried = facts.aggregations().get(&number)?.carried(first);
        let (from, latest) = (self.from.get(&number).copied(), facts.latest_cut());
        let from = from.unwrap_or(carried);
        // Of an aggregation that has ended, the cut that has all of it is not kept for long.
        let has_all = || (from < latest.number).then_some(latest);
        facts.cut(from).or_else(has_all)
    }

    /// The first entry of each segment that some account needs.
    fn needed(&self, facts: &Facts) -> Positions {
        let first = |segment: &u64| {
            let begins = self.accounts.values().map(|account| account.begin(*segment));
            let begins = begins.chain(self.shelves.values().map(|shelf| shelf.begin(*segment)));
            (*segment, begins.min().unwrap_or(0))
        };
        facts.segments().keys().map(first).collect()
    }

    /// Folds parts of a segment's entries, but for those that came before, and says whether
    /// it took them all. If not, one names an aggregation that is not known yet, as the facts
    /// are behind, or too many wait for a cut: then the batch has to come again.
    ///
    /// # Errors
    /// When an entry cannot be read or a window's state cannot be kept.
    pub fn fold(
        &mut self,
        segment: u64,
        batch: &Batch,
        settings: &FlushSettings,
    ) -> Result<bool, FlushError> {
        let next = self.next(segment);
        let is_new = |part: &&Part| part.index >= next || is_to_fail("planted-fold-again");
        for part in batch.parts.iter().filter(is_new) {
            if !self.take(segment, part, settings)? {
                return Ok(false);
            }
            self.next.insert(segment, part.index + 1);
        }
        self.next.insert(segment, batch.next.max(next));
        Ok(true)
    }

    /// Folds a part, or holds it if it waits for a cut, or comes behind one that does: what
    /// is folded of a segment has no gaps.
    fn take(
        &mut self,
        segment: u64,
        part: &Part,
        settings: &FlushSettings,
    ) -> Result<bool, FlushError> {
        if !self.held.contains_key(&segment) && !self.is_undecided(segment, part)? {
            return self.fold_part(segment, part, settings);
        }
        if self.held_bytes > HELD_BYTES_MAX {
            return Ok(false);
        }
        self.held_bytes += part.entry.len();
        self.held.entry(segment).or_default().push_back(part.clone());
        Ok(true)
    }

    /// Folds what was held until this was decided, and says whether it could. If not, a part
    /// names an aggregation that is not known yet.
    ///
    /// # Errors
    /// When an entry cannot be read or a window's state cannot be kept.
    pub fn decide(
        &mut self,
        decided: &Arc<Decided>,
        settings: &FlushSettings,
    ) -> Result<bool, FlushError> {
        self.decided = Arc::clone(decided);
        let mut knows_all = true;
        for (segment, mut parts) in std::mem::take(&mut self.held) {
            while let Some(part) = parts.front()
                && !self.is_undecided(segment, part)?
                && knows_all
            {
                knows_all &= self.fold_part(segment, part, settings)?;
                if knows_all {
                    self.held_bytes -= part.entry.len();
                    parts.pop_front();
                }
            }
            if !parts.is_empty() {
                self.held.insert(segment, parts);
            }
        }
        Ok(knows_all)
    }

    /// Whether a part has a request id on which is not decided.
    fn is_undecided(&self, segment: u64, part: &Part) -> Result<bool, FlushError> {
        let index = part.index;
        let malformed = |source| FlushError::Entry { segment, index, source };
        let entry = Entry::parse(&part.entry).map_err(malformed)?;
        Ok(entry.request().is_some() && self.decided.is_repeated(segment, index).is_none())
    }

    fn fold_part(
        &mut self,
        segment: u64,
        part: &Part,
        settings: &FlushSettings,
    ) -> Result<bool, FlushError> {
        let index = part.index;
        let malformed = |source| FlushError::Entry { segment, index, source };
        let entry = Entry::parse(&part.entry).map_err(malformed)?;
        if entry.request().is_some() && self.decided.is_repeated(segment, index) == Some(true) {
            return Ok(true);
        }
        let sections = entry.sections().collect::<Result<Vec<_>, _>>().map_err(malformed)?;
        if sections.iter().any(|&(number, _)| number >= self.known_below) {
            return Ok(false);
        }
        let bytes_before = self.bytes;
        self.bytes += part.entry.len() as u64;
        for (number, section) in sections {
            let section = match section {
                Section::DistinctLogs(section) => section,
                Section::LogFiles(chunk) => {
                    // Files of slots that were given up are another's to write.
                    let is_own = self.slots.contains(slot_of(chunk.hash));
                    if let Some(shelf) = self.shelves.get_mut(&number).filter(|_| is_own) {
                        shelf.take(segment, part, &chunk)?;
                    }
                    continue;
                }
            };
            // A number is never reused, so an unknown one belongs to an aggregation that
            // ended and was flushed.
            let Some(account) = self.accounts.get_mut(&number) else { continue };
            if let Some(open) = account.window(segment, part, bytes_before, settings) {
                open.recent.entry(part.stamp.whole_second()).or_default().add(&section);
                open.has_grown = true;
                open.state.fold(&section)?;
            }
        }
        Ok(true)
    }

    /// Takes out the windows that the facts' cuts have closed, oldest first.
    ///
    /// # Errors
    /// When the state of a window that stays open cannot be kept.
    pub fn close(&mut self, facts: &Facts) -> Result<Closings, FlushError> {
        let mut closings = Closings::default();
        let (next, reached) = (&self.folded(), self.reached());
        let folded = |segment| reached.get(&segment).copied().unwrap_or(0);
        for (&number, account) in &mut self.accounts {
            account.cut(facts.latest_cut().time);
            let open = account.windows.keys().copied();
            let dues = due(facts, number, &self.slots, open, folded);
            closings.is_behind |= dues.is_behind;
            for due in dues.now {
                if !account.closing.contains_key(&due.window) {
                    let closing = account.close(due, facts, &self.slots, next, self.bytes)?;
                    closings.now.extend(closing);
                }
            }
        }
        let is_reached = |cut: &Cut| is_reached(facts, cut, &folded);
        for shelf in self.shelves.values_mut() {
            let (checkpoint, is_behind) = shelf.close(facts, &self.slots, is_reached)?;
            closings.is_behind |= is_behind;
            closings.files.extend(checkpoint);
        }
        Ok(closings)
    }

    /// The number of the newest cut below which everything was folded.
    pub fn newest_reached(&self, facts: &Facts) -> Option<u64> {
        let reached = self.reached();
        newest_reached(facts, |segment| reached.get(&segment).copied().unwrap_or(0))
    }

    /// A window was handed out, or is not this node's to hand out any more.
    pub fn closed(&mut self, aggregation: u32, window: Window) {
        if let Some(account) = self.accounts.get_mut(&aggregation) {
            account.closing.remove(&window);
        }
        if let Some(shelf) = self.shelves.get_mut(&aggregation) {
            shelf.closed(window);
        }
    }

    /// Makes the states of all open windows durable if the journal that they need is larger
    /// than the settings say; those that have grown since are in the answer.
    ///
    /// # Errors
    /// When a state cannot be kept.
    pub fn carry(&mut self, settings: &FlushSettings) -> Result<Option<Vec<Carry>>, FlushError> {
        let open = self.accounts.values().flat_map(|account| account.windows.values());
        // One that has not grown needs nothing beyond what was carried.
        let grown = open.filter(|open| open.has_grown);
        let needed = grown.map(|open| self.bytes - open.bytes_before).max().unwrap_or(0);
        // Other slots have about as much of each entry.
        let journal = needed as u128 * 256 / self.slots.len().max(1) as u128;
        if journal <= u128::from(settings.journal_bytes_max) {
            return Ok(None);
        }
        let (mut carries, next) = (Vec::new(), self.folded());
        for account in self.accounts.values_mut() {
            carries.extend(account.carry(|_| true, &self.slots, &next, self.bytes)?);
            account.windows.values_mut().for_each(|open| open.bytes_before = self.bytes);
        }
        Ok(Some(carries))
    }

    /// The aggregations of which nothing is open, and whose slots would fold much again if
    /// they did not go on from this cut, or would need a journal that is about to leave with its
    /// node: nothing needs to be kept for that.
    pub fn idle(&self, facts: &Facts, cut: u64) -> Vec<u32> {
        let Some(now) = facts.cut(cut) else { return Vec::new() };
        let leaving = leaving(facts);
        let is_late = |number: &u32| {
            let known = facts.aggregations().get(number);
            let carried = |slot| facts.cut(known?.carried(slot));
            let oldest = self.slots.iter().filter_map(carried).min_by_key(|cut| cut.number);
            oldest.is_some_and(|oldest| {
                let is_old = oldest.time.0.saturating_add(IDLE_MAX) <= now.time.0;
                let needs = |&(segment, end): &(SegmentId, u64)| {
                    oldest.count(segment).entries < end && now.count(segment).entries >= end
                };
                (is_old && oldest.counts != now.counts) || leaving.iter().any(needs)
            })
        };
        let counting = self.accounts.iter().filter(|(_, account)| account.is_idle());
        let counting = counting.map(|(&number, _)| number);
        let rebuilding = self.shelves.iter().filter(|(_, shelf)| shelf.is_idle());
        let idle = counting.chain(rebuilding.map(|(&number, _)| number));
        idle.filter(is_late).collect()
    }

    /// The open windows, with at most `limit` values each.
    pub fn current(&self, limit: usize) -> impl Iterator<Item = CurrentWindow> {
        self.accounts.values().flat_map(move |account| {
            account.windows.iter().map(move |(&window, open)| CurrentWindow {
                aggregation: account.aggregation.clone(),
                window,
                counts: open.state.current(limit),
            })
        })
    }

    /// Records that were stamped before a time and are in no window that the facts know as
    /// flushed, and chunks in no checkpoint, by aggregation. No cut is later than that time.
    pub fn pending(&self, facts: &Facts, before: UnixNanos) -> BTreeMap<u32, u64> {
        let pending = self
            .accounts
            .iter()
            .map(|(&number, account)| (number, account.pending(facts, &self.slots, before)));
        let chunks = self
            .shelves
            .iter()
            .map(|(&number, shelf)| (number, shelf.pending(facts, &self.slots, before)));
        pending.chain(chunks).collect()
    }

    /// The numbers of the aggregations that count, and whose open windows can be carried.
    pub fn aggregations(&self) -> Vec<u32> {
        self.accounts.keys().copied().collect()
    }

    /// The files that lack a chunk.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.shelves.values().flat_map(|shelf| shelf.gaps(&self.slots))
    }

    /// Adds how large what is open is.
    pub fn add_figures(&self, to: &mut OpenFigures) {
        for account in self.accounts.values() {
            let name = account.aggregation.definition.name.as_str().to_owned();
            let sum = to.windows.entry(name).or_default();
            for open in account.windows.values() {
                sum.records += open.state.records().of(&self.slots);
                sum.memory_bytes += open.state.memory_bytes();
            }
        }
        for shelf in self.shelves.values() {
            let name = shelf.name().to_owned();
            shelf.add_figures(to.files.entry(name).or_default());
        }
    }
}

/// The first entry of each segment that is not below a cut.
fn positions(cut: &Cut) -> Positions {
    cut.counts.iter().map(|(&segment, extent)| (segment, extent.entries)).collect()
}

/// When an aggregation has ended, if it has.
fn end(facts: &Facts, number: u32) -> Option<UnixNanos> {
    let until = facts.aggregations().get(&number)?.until?;
    facts.cut(until).map(|cut| cut.time)
}

/// The segments that only members have who are being drained, with their ends.
fn leaving(facts: &Facts) -> Vec<(SegmentId, u64)> {
    let state = |node: &NodeId| facts.members().get(node).map(|member| member.state);
    let segments = facts.segments().iter().filter_map(|(&id, segment)| match &segment.state {
        SegmentState::Sealed { end, holders } if !holders.is_empty() => {
            let leaves = holders.iter().all(|node| state(node) == Some(MemberState::Draining));
            leaves.then_some((id, end.entries))
        }
        _ => None,
    });
    segments.collect()
}

/// The segments that were lost with nodes that were forgotten.
fn lost(facts: &Facts) -> BTreeSet<u64> {
    let losses = facts.aggregations().values().flat_map(|known| &known.losses);
    losses.flat_map(|loss| loss.segments.iter().copied()).collect()
}

#[cfg(test)]
mod tests;
