//! One aggregation's files in some slots: those of which more may come.

use std::collections::{BTreeMap, BTreeSet};

use super::Positions;
use crate::aggregation::SlotTotals;
use crate::aggregation::definition::Definition;
use crate::aggregation::log_files::session::{Found, Held, Order, Session};
use crate::checkpoint::facts::cuts::Cut;
use crate::checkpoint::facts::{Facts, Slot};
use crate::event::chunk::{Sequence, StreamId};
use crate::event::entry::chunk::ChunkSection;
use crate::event::fingerprint::digest;
use crate::event::slots::SlotSet;
use crate::event::time::{SECOND, UnixNanos, Window};
use crate::failpoint::is_to_fail;
use crate::flush::Aggregation;
use crate::flush::feed::Part;
use crate::flush::files::{Change, FileKey, Files, FilesError, Kept, OpenFile};
use crate::flush::gaps::{CHUNK_BYTES, Gap};
use crate::journal::Position;

/// Files that are open to be written at the same time.
const OPEN_MAX: usize = 256;
/// Bytes of chunks, and for what is known of each, after which a checkpoint does not wait for its
/// time.
const BYTES_MAX: u64 = 64 << 20;

/// The files of an aggregation.
pub(super) struct Shelf {
    aggregation: Aggregation,
    /// The first entry of each segment that no checkpoint has.
    begin: Positions,
    /// What is stamped then or later is not the aggregation's.
    end: Option<UnixNanos>,
    files: Files,
    /// The number of each slot's last checkpoint that was completed.
    completed: BTreeMap<Slot, u64>,
    open: BTreeMap<FileKey, Open>,
    /// How many of them are open to be written.
    written: usize,
    /// The number of the cut up to which a checkpoint was begun, and its time.
    closed: (u64, UnixNanos),
    /// Bytes of chunks that came since, and for what is known of each.
    bytes: u64,
    /// Whether some came that no checkpoint has.
    is_fresh: bool,
    /// Checkpoints that are being handed out. What they have of a file is known here only.
    closing: BTreeMap<Window, Closing>,
}

/// What is to be known of a checkpoint until it was handed out.
#[derive(Default)]
struct Closing {
    /// How many chunks of each slot it settles.
    settled: BTreeMap<Slot, u64>,
    /// The chunks that begin to wait in it.
    waiting: Vec<(FileKey, Vec<Sequence>)>,
}

/// A file of which more may come.
struct Open {
    id: StreamId,
    session: Session,
    content: Option<OpenFile>,
}

/// What of an aggregation's files waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFigures {
    /// Files that lack a chunk while later ones are there.
    pub files: u64,
    /// These later ones.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, those in memory.
    pub memory_bytes: u64,
}

/// A checkpoint on its way out.
pub struct Checkpointing {
    /// The aggregation.
    pub aggregation: Aggregation,
    /// The second before the cut.
    pub window: Window,
    /// The number of the cut that it has everything below of.
    pub cut: u64,
    /// The slots.
    pub slots: SlotSet,
    /// The number that the checkpoint has in each slot. If another one took it, the slots are
    /// to be folded anew.
    pub numbers: BTreeMap<Slot, u64>,
    /// What is new in each slot that has something.
    pub totals: BTreeMap<Slot, SlotTotals>,
    /// The files that have something new.
    pub changes: Vec<Change>,
}

/// A cut at which a checkpoint is due.
struct Due<'a> {
    cut: &'a Cut,
    window: Window,
}

impl Shelf {
    /// Goes on from a cut, with what the slots' last checkpoints have.
    ///
    /// # Errors
    /// When what they say of files cannot be read.
    pub(super) fn resume(
        aggregation: Aggregation,
        from: &Cut,
        slots: &SlotSet,
        facts: &Facts,
        files: Files,
    ) -> Result<Shelf, FilesError> {
        let number = aggregation.number;
        let known = facts.aggregations().get(&number);
        let progress = |slot| known.map(|known| known.progress(slot));
        let completed = slots.iter().filter_map(|slot| Some((slot, progress(slot)?.number())));
        files.divide(number, aggregation.definition.kind.part());
        let mut shelf = Shelf {
            aggregation,
            begin: super::positions(from),
            end: super::end(facts, number),
            files,
            completed: completed.collect(),
            open: BTreeMap::new(),
            written: 0,
            closed: (from.number, from.time),
            bytes: 0,
            is_fresh: false,
            closing: BTreeMap::new(),
        };
        for slot in slots.iter() {
            for key in shelf.files.with_gaps(number, slot)? {
                shelf.take_up(key)?;
            }
        }
        Ok(shelf)
    }

    /// Goes on under what its definition is now, up to where it ends.
    pub(super) fn follow(&mut self, definition: &Definition, end: Option<UnixNanos>) {
        self.aggregation.definition.clone_from(definition);
        self.files.divide(self.aggregation.number, definition.kind.part());
        self.end = end;
    }

    pub(super) fn begin(&self, segment: u64) -> u64 {
        self.begin.get(&segment).copied().unwrap_or(0)
    }

    /// Goes on with a file in which chunks wait, as its slot's last checkpoint has it.
    fn take_up(&mut self, key: FileKey) -> Result<(), FilesError> {
        let Some(kept) = self.files.kept(&key)? else { return Ok(()) };
        let session = self.resumed(&key, Some(&kept))?;
        if session.unsettled() > 0 {
            self.open.insert(key, Open { id: kept.id, session, content: None });
        }
        Ok(())
    }

    fn resumed(&self, key: &FileKey, kept: Option<&Kept>) -> Result<Session, FilesError> {
        let checkpoint = self.completed.get(&key.slot()).copied().unwrap_or(0);
        let version = kept.map(|kept| kept.as_of(checkpoint)).unwrap_or_default();
        let waiting = self.files.recorded(key, &version)?;
        Ok(Session::resume(version.reached, waiting))
    }

    /// Takes a chunk, and writes what follows without a gap.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(super) fn take(
        &mut self,
        segment: u64,
        part: &Part,
        chunk: &ChunkSection<'_>,
    ) -> Result<(), FilesError> {
        if part.index < self.begin(segment) || self.end.is_some_and(|end| end <= part.stamp) {
            return Ok(());
        }
        let ChunkSection { hash, fingerprint, session, seq, payload, .. } = *chunk;
        let key = FileKey { aggregation: self.aggregation.number, hash, session };
        if !self.open.contains_key(&key) {
            let session = self.resumed(&key, self.files.kept(&key)?.as_ref())?;
            let id = chunk.stream_id();
            self.open.insert(key, Open { id, session, content: None });
        }
        if self.written >= OPEN_MAX {
            // Each is opened again when it has to be.
            self.open.values_mut().for_each(|open| open.content = None);
            self.written = 0;
        }
        let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
        let position = Position { segment, index: part.index };
        let order = Order { stamp: part.stamp, position };
        // What is held must not hold the whole batch that it came with.
        let payload = match open.session.tail().next == seq {
            true => part.entry.slice_ref(payload),
            false => payload.to_vec().into(),
        };
        self.bytes += payload.len() as u64 + CHUNK_BYTES;
        self.is_fresh = true;
        self.written += usize::from(open.content.is_none());
        let (session, content) = open.parts(&key, &self.files)?;
        session.take(seq, order, Held { fingerprint, payload }, content)?;
        self.files.show(&key, &open.id, &open.session);
        Ok(())
    }

    fn retain(&mut self, stays: impl Fn(&FileKey, &Open) -> bool) {
        self.open.retain(|key, open| stays(key, open));
        self.written = self.open.values().filter(|open| open.content.is_some()).count();
    }

    /// Makes a checkpoint of these slots if one is due at a cut below which all is folded, and
    /// says whether one may be due once more is.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(super) fn close(
        &mut self,
        facts: &Facts,
        slots: &SlotSet,
        is_reached: impl Fn(&Cut) -> bool,
    ) -> Result<(Option<Checkpointing>, bool), FilesError> {
        let Some(Due { cut, window }) = self.due(facts, slots, &is_reached) else {
            return Ok((None, !is_reached(facts.latest_cut())));
        };
        if !is_reached(cut) {
            return Ok((None, true));
        }
        let (mut totals, mut changes) = (BTreeMap::new(), Vec::new());
        let mut closing = Closing::default();
        let is_below = |at: Position| {
            at.index < cut.count(at.segment).entries || is_to_fail("planted-file-beyond-cut")
        };
        self.retain(|key, _| slots.contains(key.slot()));
        for (&key, open) in self.open.iter_mut().filter(|(_, open)| open.session.has_new()) {
            let was_open = open.content.is_some();
            let (session, content) = open.parts(&key, &self.files)?;
            let before = session.reached().next;
            let found = session.close(is_below, content)?;
            content.add_to_index(before, &found.appended)?;
            content.cut_off(session.tail().length)?;
            self.files.show(&key, &open.id, &open.session);
            if !was_open {
                open.content = None;
            }
            if !found.is_empty() {
                *closing.settled.entry(key.slot()).or_default() += found.settled();
                if !found.waiting.is_empty() {
                    closing.waiting.push((key, found.waiting.keys().copied().collect()));
                }
                add(&mut totals, &key, &found);
                changes.push(Change { key, id: open.id.clone(), found });
            }
        }
        let begun = self.closing.len() as u64 + 1;
        let number = |slot| (slot, self.completed.get(&slot).copied().unwrap_or(0) + begun);
        let numbers = slots.iter().map(number).collect();
        self.bytes = 0;
        self.is_fresh = self.open.values().any(|open| open.session.has_new());
        self.closed = (cut.number, cut.time);
        self.closing.insert(window, closing);
        let aggregation = self.aggregation.clone();
        let checkpoint = Checkpointing {
            aggregation,
            window,
            cut: cut.number,
            slots: *slots,
            numbers,
            totals,
            changes,
        };
        Ok((Some(checkpoint), !is_reached(facts.latest_cut())))
    }

    /// The cut at which a checkpoint is due: one that was claimed, or that begins another interval,
    /// or has much, or the aggregation's last one.
    fn due<'a>(
        &self,
        facts: &'a Facts,
        slots: &SlotSet,
        is_reached: &impl Fn(&Cut) -> bool,
    ) -> Option<Due<'a>> {
        let known = facts.aggregations().get(&self.aggregation.number)?;
        let (closed, interval) = (self.closed.0, self.interval(self.closed.1));
        let claims = slots.iter().filter_map(|slot| known.progress(slot).claimed);
        let claimed = claims.filter(|claim| claim.cut > closed).min_by_key(|claim| claim.cut);
        if let Some(claim) = claimed {
            return Some(Due { cut: facts.cut(claim.cut)?, window: claim.window });
        }
        let last = known.until.and_then(|until| facts.cut(until));
        let reached = || facts.cuts().filter(|cut| cut.number > closed && is_reached(cut));
        let cut = match last {
            Some(last) if last.number > closed && is_reached(last) => last,
            _ if self.bytes > BYTES_MAX => reached().last()?,
            _ if self.is_fresh => {
                let first = reached().filter(|cut| self.begins_interval(facts, cut)).last();
                // What is folded late may come after the cut is forgotten.
                let late = || reached().last().filter(|cut| self.interval(cut.time) > interval);
                first.or_else(late)?
            }
            _ => return None,
        };
        let start = UnixNanos(cut.time.0.saturating_sub(SECOND));
        Some(Due { cut, window: Window { start, end: cut.time } })
    }

    /// Whether a cut is the first one of an interval between checkpoints. Intervals are the same
    /// for all slots: those that go on from the same cut are folded as one, wherever they come
    /// from.
    fn begins_interval(&self, facts: &Facts, cut: &Cut) -> bool {
        let before = cut.number.checked_sub(1).and_then(|number| facts.cut(number));
        before.is_some_and(|before| self.interval(before.time) < self.interval(cut.time))
    }

    /// The number of the interval that a time is in.
    fn interval(&self, time: UnixNanos) -> u64 {
        let seconds = self.aggregation.definition.kind.checkpoint_seconds().unwrap_or(1);
        time.0 / (u64::from(seconds) * SECOND)
    }

    /// Whether nothing came since the last checkpoint, and none is on its way out.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_fresh && !self.is_closing()
    }

    /// Whether a checkpoint is on its way out.
    pub(super) fn is_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// A checkpoint was handed out, or is not this node's to hand out any more.
    pub(super) fn closed(&mut self, window: Window) {
        if let Some(Closing { waiting, .. }) = self.closing.remove(&window) {
            self.completed.values_mut().for_each(|number| *number += 1);
            // Of a slot that was given up they may be in no database, and nothing more is done.
            for (key, places) in waiting {
                if let Some(open) = self.open.get_mut(&key) {
                    open.session.record(places);
                }
            }
        }
        if self.closing.is_empty() {
            let is_settled = |(_, open): &(&FileKey, &Open)| open.session.unsettled() == 0;
            let settled: BTreeSet<_> =
                self.open.iter().filter(is_settled).map(|(&key, _)| key).collect();
            self.retain(|key, _| !settled.contains(key));
            // A checkpoint has them.
            self.files.hide(|key| settled.contains(key));
        }
    }

    /// The aggregation's name.
    pub(super) fn name(&self) -> &str {
        self.aggregation.definition.name.as_str()
    }

    /// Adds what waits.
    pub(super) fn add_figures(&self, to: &mut FileFigures) {
        for open in self.open.values() {
            let chunks = open.session.behind_a_gap();
            to.files += u64::from(chunks > 0);
            to.chunks += chunks;
            to.bytes += open.session.waiting_bytes();
            to.memory_bytes += open.session.held_bytes();
        }
    }

    /// The files of some slots that lack a chunk which may come.
    pub(super) fn gaps(&self, slots: &SlotSet) -> impl Iterator<Item = Gap> {
        let open = self.open.iter().filter(|_| self.end.is_none());
        let open = open.filter(|(key, _)| slots.contains(key.slot()));
        open.filter_map(|(&FileKey { hash, session, .. }, open)| {
            let (next, chunks) = (open.session.tail().next, open.session.behind_a_gap());
            let bytes = open.session.waiting_bytes() + chunks * CHUNK_BYTES;
            let has_lasted = open.session.has_waited();
            (chunks > 0).then_some(Gap { hash, session, next, bytes, has_lasted })
        })
    }

    /// Chunks that were stamped before a time and that no checkpoint among the facts settles.
    pub(super) fn pending(&self, facts: &Facts, slots: &SlotSet, before: UnixNanos) -> u64 {
        let open = self.open.iter().filter(|(key, _)| slots.contains(key.slot()));
        let open: u64 = open.map(|(_, open)| open.session.unsettled_before(before)).sum();
        let known = facts.aggregations().get(&self.aggregation.number);
        let waits = |slot: Slot, window: &Window| {
            let is_behind = known.is_some_and(|known| known.progress(slot).through < window.end);
            is_behind && slots.contains(slot)
        };
        let closing = self.closing.iter().flat_map(|(window, closing)| {
            closing.settled.iter().filter(|(slot, _)| waits(**slot, window))
        });
        open + closing.map(|(_, chunks)| chunks).sum::<u64>()
    }
}

impl Open {
    /// What is known of it, and the file itself.
    fn parts(
        &mut self,
        key: &FileKey,
        files: &Files,
    ) -> Result<(&mut Session, &mut OpenFile), FilesError> {
        let content = match self.content.take() {
            Some(content) => content,
            None => files.open(key, &self.id, self.session.tail(), self.session.reached())?,
        };
        Ok((&mut self.session, self.content.insert(content)))
    }
}

/// Adds what was found of a file to its slot's totals.
fn add(totals: &mut BTreeMap<Slot, SlotTotals>, key: &FileKey, found: &Found) {
    let slot = key.slot();
    let sum = totals.entry(slot).or_insert(SlotTotals { slot, records: 0, distinct: 0, digest: 0 });
    sum.records += found.settled();
    sum.distinct += found.appended.len() as u64;
    sum.digest = sum.digest.wrapping_add(digest(&found.canonical(key.hash, key.session)));
}
