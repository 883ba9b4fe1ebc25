//! Parts of an entry: what of it belongs to some of the slots.
//!
//! An entry is journalled whole, and the primary of a slot folds what is the slot's: of
//! a section of keys, the keys of the slot; of a section of counts, the values whose
//! hash is of the slot; a section of a chunk, if its file is of the slot. A part is an entry itself, so the same code folds it:
//!
//! - It keeps the request id, and the order of sections, keys and counts.
//! - Of the values it has those that its records use. With keys they stand in the
//!   order of their first use, with counts as before.
//! - A section of which nothing is left is not in it.
//!
//! The part of no slot is the request id alone, with the entry's number of records, for
//! whoever only has to know which requests there are.
//!
//! The parts of any partition of the slots have together what the entry has, each once;
//! and a part of a part is the part of the slots that both are of.
//!
//! The head's number of records cannot be divided among slots, since each record has a
//! key in every section, of a different slot. All of it goes with the lowest slot of
//! which the entry says anything, or with the last slot if it says nothing; other parts
//! have 0. So it adds up over the parts to the entry's. How many records an aggregation
//! has in a part is its section's number.

use std::ops::Range;

use crate::event::entry::distinct::{Content, Dictionary, DistinctSection, Value};
use crate::event::entry::{Entry, EntryWriter, MalformedEntry, Section};
use crate::event::fingerprint::{SLOTS, slot_of};
use crate::event::slots::SlotSet;

/// Stands for a value that is not in the part.
const NOT_IN_PART: u32 = u32::MAX;

/// Makes parts of one entry after the other. What it needs for that it keeps from entry
/// to entry.
#[derive(Default)]
pub struct Splitter {
    /// For each part, where in the section its keys stand, or its counts.
    runs: Vec<Vec<Range<usize>>>,
    section: PartSection,
}

impl Splitter {
    /// The part of `slots`, or `None` if the entry says nothing of them; of no slot, `None`
    /// if it has no request id.
    ///
    /// # Errors
    /// When a section of the entry cannot be read.
    pub fn part(
        &mut self,
        entry: &Entry<'_>,
        slots: &SlotSet,
    ) -> Result<Option<Vec<u8>>, MalformedEntry> {
        if slots.is_empty() {
            let named = entry.request().map(|request| EntryWriter::new(Some(request)));
            return Ok(named.map(|named| named.finish(entry.records())));
        }
        let mut parts = self.cut(entry, 1, |slot| slots.contains(slot).then_some(0))?;
        Ok(parts.pop().flatten())
    }

    /// The part of each destination, or `None` for those of which the entry says nothing;
    /// `assignment` says for each slot which destination it belongs to.
    ///
    /// # Errors
    /// When a section of the entry cannot be read.
    ///
    /// # Panics
    /// When a slot is assigned to a destination that is not below `destinations`.
    pub fn split(
        &mut self,
        entry: &Entry<'_>,
        assignment: &[u8; SLOTS],
        destinations: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, MalformedEntry> {
        self.cut(entry, destinations, |slot| Some(usize::from(assignment[usize::from(slot)])))
    }

    fn cut(
        &mut self,
        entry: &Entry<'_>,
        parts: usize,
        part_of: impl Fn(u8) -> Option<usize>,
    ) -> Result<Vec<Option<Vec<u8>>>, MalformedEntry> {
        let begin = || EntryWriter::new(entry.request());
        let mut writers: Vec<Option<EntryWriter>> = (0..parts).map(|_| None).collect();
        let mut lowest = u8::MAX;
        self.runs.resize_with(parts, Vec::new);
        for section in entry.sections() {
            let (aggregation, section) = section?;
            let section = match section {
                Section::DistinctLogs(section) => section,
                Section::LogFiles(chunk) => {
                    lowest = lowest.min(chunk.slot());
                    if let Some(part) = part_of(chunk.slot()) {
                        let writer = writers[part].get_or_insert_with(begin);
                        writer.chunk_section(aggregation, &chunk);
                    }
                    continue;
                }
            };
            self.runs.iter_mut().for_each(Vec::clear);
            visit_slots(&section, |slot, places| {
                lowest = lowest.min(slot);
                if let Some(part) = part_of(slot) {
                    add_run(&mut self.runs[part], places);
                }
            });
            self.section.reset(&section);
            for (writer, runs) in writers.iter_mut().zip(&self.runs) {
                if !runs.is_empty() {
                    let writer = writer.get_or_insert_with(begin);
                    self.section.write(writer, aggregation, &section, runs);
                }
            }
        }
        let counted = part_of(lowest).filter(|_| entry.records() > 0);
        if let Some(part) = counted {
            writers[part].get_or_insert_with(begin);
        }
        let finish = |(part, writer): (usize, Option<EntryWriter>)| {
            let records = if counted == Some(part) { entry.records() } else { 0 };
            writer.map(|writer| writer.finish(records))
        };
        Ok(writers.into_iter().enumerate().map(finish).collect())
    }
}

/// Visits everything that the section says: of which slot it is, and where it stands
/// among the keys or counts.
fn visit_slots(section: &DistinctSection<'_>, mut visit: impl FnMut(u8, Range<usize>)) {
    match section.content() {
        Content::Keys(keys) => keys.slots().for_each(|(slot, places)| visit(slot, places)),
        Content::Counts(counts) => {
            for (at, count) in counts.iter().enumerate() {
                // A value without records says nothing.
                if count > 0 {
                    visit(slot_of(section.hash(at)), at..at + 1);
                }
            }
        }
    }
}

fn add_run(runs: &mut Vec<Range<usize>>, places: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.end == places.start => last.end = places.end,
        _ => runs.push(places),
    }
}

/// Scratch for one section of one part.
#[derive(Default)]
struct PartSection {
    /// Of each key of the whole section the value that it belongs to, or of each value
    /// its count.
    whole: Vec<u32>,
    /// Where each value of the whole section stands among those of the part.
    places: Vec<u32>,
    values: Values,
    /// Which value of the part each key belongs to.
    indices: Vec<u32>,
    counts: Vec<u32>,
}

impl PartSection {
    /// Prepares for parts of another section.
    fn reset(&mut self, section: &DistinctSection<'_>) {
        self.whole.clear();
        match section.content() {
            Content::Keys(keys) => {
                self.whole.resize(keys.len(), 0);
                keys.indices(&mut self.whole);
                self.places.clear();
                self.places.resize(section.values(), NOT_IN_PART);
            }
            Content::Counts(counts) => self.whole.extend(counts.iter()),
        }
    }

    fn write(
        &mut self,
        out: &mut EntryWriter,
        aggregation: u32,
        section: &DistinctSection<'_>,
        runs: &[Range<usize>],
    ) {
        self.values.clear();
        match section.content() {
            Content::Keys(keys) => {
                self.take_keys(section, runs);
                let dictionary = self.values.dictionary();
                out.copy_distinct_keys(aggregation, dictionary, keys, runs, &self.indices);
            }
            Content::Counts(_) => {
                self.take_counts(section, runs);
                out.distinct_counts(aggregation, self.values.dictionary(), &self.counts);
            }
        }
    }

    fn take_keys(&mut self, section: &DistinctSection<'_>, runs: &[Range<usize>]) {
        let PartSection { whole, places, values, indices, .. } = self;
        indices.clear();
        for run in runs {
            indices.extend(whole[run.clone()].iter().map(|&value| {
                let place = &mut places[value as usize];
                if *place == NOT_IN_PART {
                    *place = values.push(section, value as usize);
                }
                *place
            }));
        }
        for &value in &values.used {
            places[value] = NOT_IN_PART;
        }
    }

    fn take_counts(&mut self, section: &DistinctSection<'_>, runs: &[Range<usize>]) {
        self.counts.clear();
        for run in runs {
            self.counts.extend_from_slice(&self.whole[run.clone()]);
            for value in run.clone() {
                self.values.push(section, value);
            }
        }
    }
}

/// The values of one section of one part.
#[derive(Default)]
struct Values {
    /// Where they stand in the whole section.
    used: Vec<usize>,
    hashes: Vec<u128>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Values {
    fn clear(&mut self) {
        self.used.clear();
        self.hashes.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    /// Adds a value of the section, and returns its place.
    fn push(&mut self, section: &DistinctSection<'_>, value: usize) -> u32 {
        let place = self.used.len() as u32;
        let Value { hash, canonical } = section.value(value);
        self.used.push(value);
        self.hashes.push(hash);
        self.bytes.extend_from_slice(canonical);
        self.ends.push(self.bytes.len() as u32);
        place
    }

    fn dictionary(&self) -> Dictionary<'_> {
        Dictionary { hashes: &self.hashes, ends: &self.ends, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests;
