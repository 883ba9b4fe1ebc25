//! What came of one file, and how far it reaches without a gap.
//!
//! Chunks come in any order, some of them twice. The next one goes behind the file at once, so
//! that it can be read; whatever comes after a gap is held, until the database has it. At a
//! checkpoint only those count that the cut does, and of several for one place the first by their
//! entries' order: so what a checkpoint makes of a file depends on the checkpoint before and on the
//! set of entries below its cut, and never on the order of arrival.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Digest;
use crate::event::chunk::Sequence;
use crate::event::fingerprint::digest;
use crate::event::time::UnixNanos;
use crate::failpoint::is_to_fail;
use crate::journal::Position;

/// How far a file reaches without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The chunk that comes next.
    pub next: Sequence,
    /// Bytes of all chunks before.
    pub length: u64,
    /// Of all chunks before, in their order.
    pub digest: Digest,
}

impl Default for Reached {
    fn default() -> Self {
        Reached { next: Sequence::FIRST, length: 0, digest: Digest(0) }
    }
}

impl Reached {
    fn extended(self, fingerprint: u128, bytes: u64) -> Reached {
        Reached { length: self.length + bytes, ..self.behind([fingerprint]) }
    }

    /// Where further chunks are before it too, of a length that it does not know.
    pub fn behind(self, chunks: impl IntoIterator<Item = u128>) -> Reached {
        let extend = |reached: Reached, fingerprint: u128| {
            let mut chain = [0; 32];
            chain[..16].copy_from_slice(&reached.digest.0.to_le_bytes());
            chain[16..].copy_from_slice(&fingerprint.to_le_bytes());
            Reached { next: reached.next.next(), digest: Digest(digest(&chain)), ..reached }
        };
        chunks.into_iter().fold(self, extend)
    }
}

/// Which of several chunks for one place is the file's: the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// When its entry was stamped.
    pub stamp: UnixNanos,
    /// Where its entry stands.
    pub position: Position,
}

/// A chunk's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Tells its payload from all others.
    pub fingerprint: u128,
    /// What is in it.
    pub payload: Bytes,
}

/// A chunk that waits behind a gap, and that the database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Tells its payload from all others.
    pub fingerprint: u128,
    /// How long its payload is.
    pub bytes: u64,
}

/// The chunks of one place that have the same content.
#[derive(Debug)]
struct Variant {
    fingerprint: u128,
    payload: Payload,
    /// Those that no checkpoint has.
    new: Vec<Order>,
    /// Whether it is the place's: a checkpoint has it, behind a gap.
    is_chosen: bool,
    /// Whether the database has it: nothing of it needs to be in memory.
    is_recorded: bool,
}

#[derive(Debug)]
enum Payload {
    Held(Bytes),
    /// In the database alone.
    Recorded {
        bytes: u64,
    },
    /// In the file, behind what the last checkpoint has.
    Written {
        at: u64,
        bytes: u64,
    },
}

/// A chunk for a place that a checkpoint has filled.
#[derive(Debug)]
struct Late {
    seq: Sequence,
    fingerprint: u128,
    order: Order,
}

/// What a checkpoint found of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How far the file reaches.
    pub reached: Reached,
    /// The fingerprints of the chunks that the file has more than before.
    pub appended: Vec<u128>,
    /// Chunks that begin to wait behind a gap.
    pub waiting: BTreeMap<Sequence, Held>,
    /// Those that did, and do no longer.
    pub placed: Vec<Sequence>,
    /// Chunks that repeat one that the file or what waits has.
    pub repeated: u64,
    /// Chunks whose place has another one, with other bytes.
    pub contradicting: u64,
}

impl Found {
    /// How many chunks need nothing more: they are in the file, or never will be.
    pub fn settled(&self) -> u64 {
        self.appended.len() as u64 + self.repeated + self.contradicting
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.settled() == 0 && self.waiting.is_empty()
    }

    /// What is claimed of it: the same, whoever comes to the same.
    pub fn canonical(&self, hash: u128, session: u64) -> Vec<u8> {
        let Reached { next, length, digest } = self.reached;
        let mut bytes = Vec::with_capacity(80 + 24 * self.waiting.len());
        bytes.extend_from_slice(&hash.to_le_bytes());
        for number in [session, next.number(), length, self.repeated, self.contradicting] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&digest.0.to_le_bytes());
        for (seq, held) in &self.waiting {
            bytes.extend_from_slice(&seq.number().to_le_bytes());
            bytes.extend_from_slice(&held.fingerprint.to_le_bytes());
        }
        bytes
    }

    /// Counts what came for a place that has a chunk.
    fn count(&mut self, is_same: bool, chunks: u64) {
        if is_same {
            self.repeated += chunks;
        } else {
            self.contradicting += chunks;
        }
    }
}

/// A file of which more may come.
#[derive(Debug)]
pub struct Session {
    reached: Reached,
    /// Up to where the file is written: each place before has one variant that is.
    tail: Reached,
    /// What is known of each place from `reached` on.
    places: BTreeMap<Sequence, Vec<Variant>>,
    late: Vec<Late>,
}

/// A file, and which chunks it has.
pub trait Content {
    /// Why it cannot be used.
    type Error;

    /// Writes a chunk at a place in the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn write(&mut self, at: u64, payload: &[u8]) -> Result<(), Self::Error>;

    /// What was written.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read(&mut self, at: u64, bytes: u64) -> Result<Bytes, Self::Error>;

    /// The payload of a chunk that waits behind a gap, from the database.
    ///
    /// # Errors
    /// When it cannot be read.
    fn recorded(&mut self, seq: Sequence) -> Result<Bytes, Self::Error>;

    /// The fingerprint of a chunk that a checkpoint has.
    ///
    /// # Errors
    /// When it cannot be read.
    fn fingerprint(&mut self, seq: Sequence) -> Result<u128, Self::Error>;
}

impl Session {
    /// Goes on where a checkpoint has left it, with the chunks that wait behind a gap.
    pub fn resume(reached: Reached, waiting: BTreeMap<Sequence, Recorded>) -> Session {
        let places = waiting.into_iter().map(|(seq, Recorded { fingerprint, bytes })| {
            let (payload, new) = (Payload::Recorded { bytes }, Vec::new());
            let one = Variant { fingerprint, payload, new, is_chosen: true, is_recorded: true };
            (seq, vec![one])
        });
        Session { reached, tail: reached, places: places.collect(), late: Vec::new() }
    }

    /// Up to where it can be read.
    pub fn tail(&self) -> Reached {
        self.tail
    }

    /// How many chunks came behind a gap, each place counted once.
    pub fn behind_a_gap(&self) -> u64 {
        let written = self.tail.next.number() - self.reached.next.number();
        (self.places.len() as u64).saturating_sub(written)
    }

    /// How far the last checkpoint has it.
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// Chunks that are in no checkpoint, and those that wait behind a gap in one.
    pub fn unsettled(&self) -> u64 {
        self.unsettled_before(UnixNanos(u64::MAX))
    }

    /// Of these, those that were stamped before a time.
    pub fn unsettled_before(&self, time: UnixNanos) -> u64 {
        let is_before = |order: &&Order| order.stamp < time;
        let chunks = |one: &Variant| {
            one.new.iter().filter(is_before).count() as u64 + u64::from(one.is_chosen)
        };
        let known: u64 = self.places.values().flatten().map(chunks).sum();
        known + self.late.iter().filter(|late| late.order.stamp < time).count() as u64
    }

    /// Bytes of what came behind a gap.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting().map(Variant::bytes).sum()
    }

    /// Of these, those that are in memory.
    pub fn held_bytes(&self) -> u64 {
        let is_held = |one: &&Variant| matches!(one.payload, Payload::Held(_));
        self.waiting().filter(is_held).map(Variant::bytes).sum()
    }

    /// Whether some of it is in a checkpoint.
    pub fn has_waited(&self) -> bool {
        self.waiting().any(|one| one.is_chosen)
    }

    /// What came behind a gap.
    fn waiting(&self) -> impl Iterator<Item = &Variant> {
        self.places.range(self.tail.next..).flat_map(|(_, place)| place)
    }

    /// The database has the chunks of these places that wait in a checkpoint.
    pub fn record(&mut self, places: impl IntoIterator<Item = Sequence>) {
        for seq in places {
            let place = self.places.get_mut(&seq).into_iter().flatten();
            for one in place.filter(|one| one.is_chosen) {
                one.is_recorded = true;
                if let Payload::Held(payload) = &one.payload {
                    one.payload = Payload::Recorded { bytes: payload.len() as u64 };
                }
            }
        }
    }

    /// Whether something came that no checkpoint has.
    pub fn has_new(&self) -> bool {
        let is_new = |one: &Variant| !one.new.is_empty();
        self.places.values().flatten().any(is_new) || !self.late.is_empty()
    }

    /// Takes a chunk, and writes what follows without a gap.
    ///
    /// # Errors
    /// When the file cannot be written. Then nothing more can be done here.
    pub fn take<C: Content>(
        &mut self,
        seq: Sequence,
        order: Order,
        held: Held,
        content: &mut C,
    ) -> Result<(), C::Error> {
        let Held { fingerprint, payload } = held;
        let seq = self.planted(seq);
        if seq < self.reached.next {
            self.late.push(Late { seq, fingerprint, order });
            return Ok(());
        }
        let place = self.places.entry(seq).or_default();
        match place.iter_mut().find(|one| one.fingerprint == fingerprint) {
            Some(known) => known.new.push(order),
            None => {
                let (payload, new) = (Payload::Held(payload), vec![order]);
                let (is_chosen, is_recorded) = (false, false);
                place.push(Variant { fingerprint, payload, new, is_chosen, is_recorded });
            }
        }
        self.write(content)
    }

    /// Where a chunk goes: to its place, unless a bug is planted.
    fn planted(&self, seq: Sequence) -> Sequence {
        if is_to_fail("planted-file-repeats") {
            return seq.max(self.reached.next);
        }
        match is_to_fail("planted-file-as-it-arrives") {
            true => seq.min(self.tail.next),
            false => seq,
        }
    }

    /// Makes a checkpoint of what is below a cut, and goes on from there.
    ///
    /// # Errors
    /// When the file cannot be read or written. Then nothing more can be done here.
    pub fn close<C: Content>(
        &mut self,
        is_below: impl Fn(Position) -> bool,
        content: &mut C,
    ) -> Result<Found, C::Error> {
        let mut found = Found::default();
        for late in self.late.extract_if(.., |late| is_below(late.order.position)) {
            found.count(content.fingerprint(late.seq)? == late.fingerprint, 1);
        }
        let chosen = self.choose(is_below, &mut found);
        self.advance(&chosen, &mut found, content)?;
        for seq in chosen.range(self.reached.next..) {
            let place = self.places.get(seq).into_iter().flatten();
            for one in place.filter(|one| one.is_chosen) {
                let (fingerprint, payload) = (one.fingerprint, one.payload(*seq, content)?);
                found.waiting.insert(*seq, Held { fingerprint, payload });
            }
        }
        self.write(content)?;
        found.reached = self.reached;
        Ok(found)
    }

    /// Finds of each place whose chunk it is, if one came below the cut. Returns the places of
    /// which that was not known.
    fn choose(
        &mut self,
        is_below: impl Fn(Position) -> bool,
        found: &mut Found,
    ) -> BTreeSet<Sequence> {
        let mut newly = BTreeSet::new();
        for (&seq, place) in &mut self.places {
            let first = |one: &Variant| {
                one.new.iter().filter(|order| is_below(order.position)).min().copied()
            };
            let chosen = place.iter().position(|one| one.is_chosen).or_else(|| {
                let firsts = place.iter().enumerate();
                let below = firsts.filter_map(|(at, one)| Some((first(one)?, at)));
                below.min().map(|(_, at)| at)
            });
            let Some(chosen) = chosen else { continue };
            for (at, one) in place.iter_mut().enumerate() {
                let mut below = one.new.extract_if(.., |order| is_below(order.position)).count();
                if at == chosen && !one.is_chosen {
                    one.is_chosen = newly.insert(seq);
                    below -= 1;
                }
                found.count(at == chosen, below as u64);
            }
            place.retain(|one| one.is_chosen || !one.new.is_empty() || one.is_written());
        }
        newly
    }

    /// Moves on over all places whose chunk is known.
    fn advance<C: Content>(
        &mut self,
        newly: &BTreeSet<Sequence>,
        found: &mut Found,
        content: &mut C,
    ) -> Result<(), C::Error> {
        while let Some(place) = self.places.get(&self.reached.next)
            && let Some(chosen) = place.iter().find(|one| one.is_chosen)
        {
            let (seq, at) = (self.reached.next, self.reached.length);
            let (fingerprint, bytes) = (chosen.fingerprint, chosen.bytes());
            let after = self.reached.extended(fingerprint, bytes);
            if !chosen.is_written() {
                let payload = chosen.payload(seq, content)?;
                self.take_back(after.next, content)?;
                content.write(at, &payload)?;
                self.tail = after;
            }
            self.reached = after;
            found.appended.push(fingerprint);
            if !newly.contains(&seq) {
                found.placed.push(seq);
            }
            for Variant { fingerprint, new, .. } in self.places.remove(&seq).unwrap_or_default() {
                self.late.extend(new.into_iter().map(|order| Late { seq, fingerprint, order }));
            }
        }
        Ok(())
    }

    /// Holds what was written from a place on, unless the database has it: other bytes belong
    /// before it.
    fn take_back<C: Content>(&mut self, from: Sequence, content: &mut C) -> Result<(), C::Error> {
        for one in self.places.range_mut(from..).flat_map(|(_, place)| place) {
            if let Payload::Written { at, bytes } = one.payload {
                one.payload = match one.is_recorded {
                    true => Payload::Recorded { bytes },
                    false => Payload::Held(content.read(at, bytes)?),
                };
            }
        }
        Ok(())
    }

    /// Writes what follows without a gap.
    fn write<C: Content>(&mut self, content: &mut C) -> Result<(), C::Error> {
        while let Some(place) = self.places.get_mut(&self.tail.next) {
            let first = |one: &&mut Variant| (!one.is_chosen, one.new.iter().min().copied());
            let Some(one) = place.iter_mut().min_by_key(first) else { return Ok(()) };
            if one.is_written() {
                return Ok(());
            }
            let payload = one.payload(self.tail.next, content)?;
            let (at, bytes) = (self.tail.length, payload.len() as u64);
            content.write(at, &payload)?;
            one.payload = Payload::Written { at, bytes };
            self.tail = self.tail.extended(one.fingerprint, bytes);
        }
        Ok(())
    }
}

impl Variant {
    /// What is in it, at this place.
    fn payload<C: Content>(&self, seq: Sequence, content: &mut C) -> Result<Bytes, C::Error> {
        match self.payload {
            Payload::Held(ref payload) => Ok(payload.clone()),
            Payload::Recorded { .. } => content.recorded(seq),
            Payload::Written { at, bytes } => content.read(at, bytes),
        }
    }

    fn is_written(&self) -> bool {
        matches!(self.payload, Payload::Written { .. })
    }

    fn bytes(&self) -> u64 {
        match &self.payload {
            Payload::Held(payload) => payload.len() as u64,
            Payload::Recorded { bytes } | Payload::Written { bytes, .. } => *bytes,
        }
    }
}

#[cfg(test)]
mod tests;
