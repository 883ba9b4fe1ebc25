//! Reads what is new, cuts it into chunks and hands them over.

use std::{io, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{FollowError, Follower, Lack, TRY_AGAIN};
use crate::tail::{
    identity::Trace,
    parcel::Parcel,
    report::tell,
    session::{Cut, Entry, Key},
    source::{Facts, Next, Source},
};

/// What is cut before it is written down and handed over.
const TURN_BYTES: usize = 8 << 20;
const TURN_CHUNKS: usize = 4096;
/// Files that are open beside those that are followed.
const OTHER_FILES: usize = 64;

/// What came of looking at a file.
enum Outcome {
    /// There may be more.
    More(usize),
    /// It is to be looked at then.
    Later(Instant),
    /// It is to be looked at when something happens.
    Idle,
    /// There is no room for more.
    NoRoom(Lack),
}

impl Follower {
    /// Looks at files that are due, each in its turn, until there is enough to write down.
    pub(super) fn turn(&mut self) -> Result<(), FollowError> {
        let now = Instant::now();
        let mut bytes = 0;
        while bytes < TURN_BYTES && self.out.len() < TURN_CHUNKS {
            let Some((due, key)) = self.due.first().copied().filter(|(due, _)| *due <= now) else {
                break;
            };
            self.due.remove(&(due, key));
            if let Some(file) = self.files.get_mut(&key) {
                file.due = None;
            }
            let outcome = self.step(key)?;
            self.close_if_too_many(key);
            if let Some(file) = self.files.get_mut(&key)
                && !matches!(outcome, Outcome::NoRoom(_))
            {
                file.is_waiting = false;
            }
            match outcome {
                Outcome::More(count) => {
                    bytes += count;
                    self.look_at(key, Instant::now());
                }
                Outcome::Later(at) => self.look_at(key, at),
                Outcome::Idle => {}
                Outcome::NoRoom(lack) => {
                    self.full.note(lack, now);
                    if let Some(file) = self.files.get_mut(&key)
                        && !std::mem::replace(&mut file.is_waiting, true)
                    {
                        self.waiting.push_back(key);
                    }
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, key: Key) -> Result<Outcome, FollowError> {
        let now = Instant::now();
        if let Some(at) = self.waits_until(key, now) {
            return self.wait_for(key, Outcome::Later(at));
        }
        let Some((file, session)) = self.files.get(&key).zip(self.state.get(key)) else {
            return Ok(Outcome::Idle);
        };
        if session.end.is_some() {
            return Ok(Outcome::Idle);
        }
        if let Some(held) = file.held.filter(|held| held.until > now) {
            return self.hold(key, held.until);
        }
        let first = session.unanswered.front().map_or(session.seq + 1, |cut| cut.seq);
        let unsent = usize::try_from((file.handed + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        match session.unanswered.get(unsent).copied() {
            Some(cut) if self.has_room() => self.send_again(key, cut),
            Some(_) if file.is_lost => Ok(Outcome::NoRoom(Lack::Window)),
            None if file.is_lost => Ok(Outcome::Idle),
            Some(_) if file.is_named => self.wait_for(key, Outcome::NoRoom(Lack::Window)),
            None if file.is_named && !self.has_room() => {
                self.wait_for(key, Outcome::NoRoom(Lack::Window))
            }
            // It goes on when there is room, also if nothing is added to it.
            Some(_) => Ok(match self.read_on(key)? {
                Outcome::Idle => Outcome::NoRoom(Lack::Window),
                outcome => outcome,
            }),
            None => self.read_on(key),
        }
    }

    /// A session of which a node does not take the next chunk, for now. What goes away is kept
    /// meanwhile.
    fn hold(&mut self, key: Key, until: Instant) -> Result<Outcome, FollowError> {
        let Some(file) = self.files.get(&key) else { return Ok(Outcome::Idle) };
        if file.is_named {
            return self.wait_for(key, Outcome::Later(until));
        }
        Ok(match self.read_on(key)? {
            Outcome::Idle | Outcome::NoRoom(_) => Outcome::Later(until),
            outcome => outcome,
        })
    }

    /// Looks at a file that is not read for now, for what the outcome says: if it is truncated
    /// meanwhile, and then once more, nobody could tell what its copies are.
    fn wait_for(&mut self, key: Key, outcome: Outcome) -> Result<Outcome, FollowError> {
        let is_named = self.files.get(&key).is_some_and(|file| file.is_named);
        if !is_named || !self.reopen(key) {
            return Ok(outcome);
        }
        let Some((file, session)) = self.files.get_mut(&key).zip(self.state.get(key)) else {
            return Ok(Outcome::Idle);
        };
        let Some(source) = &file.source else { return Ok(outcome) };
        // What cannot be read now is told of when it is to be read.
        let Ok(Some(facts)) = source.facts() else { return Ok(outcome) };
        if facts.modified == file.modified && facts.size >= session.trace.offset {
            return Ok(outcome);
        }
        match source.glimpse(&session.trace, &facts) {
            Ok(Some(trace)) => {
                file.is_read = false;
                file.modified = facts.modified;
                if trace != session.trace {
                    self.state.record(Entry::Passed { key, trace })?;
                }
                Ok(outcome)
            }
            Ok(None) => {
                self.truncated(key)?;
                Ok(Outcome::Idle)
            }
            Err(_) => Ok(outcome),
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight + self.settings.chunk_size <= self.settings.window
    }

    fn read_on(&mut self, key: Key) -> Result<Outcome, FollowError> {
        if !self.reopen(key) {
            return Ok(Outcome::Idle);
        }
        let Some((file, session)) = self.files.get_mut(&key).zip(self.state.get(key)) else {
            return Ok(Outcome::Idle);
        };
        let Some(source) = &file.source else { return Ok(Outcome::Idle) };
        let limit = self.settings.chunk_size;
        if !file.is_named && self.state.spooled_bytes() + limit as u64 > self.settings.spool {
            return Ok(Outcome::NoRoom(Lack::Spool));
        }
        let next = source.facts().and_then(|facts| match facts {
            Some(facts) => Ok(Some((source.next(&session.trace, &facts, limit)?, facts))),
            None => Ok(None),
        });
        match next {
            Ok(Some((Next::Bytes { offset, payload, trace }, facts))) => {
                self.cut(key, offset, payload, trace, &facts)
            }
            Ok(Some((Next::Nothing, facts))) => {
                file.is_read = true;
                file.modified = facts.modified;
                Ok(Outcome::Idle)
            }
            Ok(Some((Next::Passed(trace), _))) => {
                self.state.record(Entry::Passed { key, trace })?;
                Ok(Outcome::More(0))
            }
            Ok(Some((Next::Rewritten, _))) => {
                self.truncated(key)?;
                Ok(Outcome::Idle)
            }
            Ok(None) => Ok(Outcome::Idle),
            Err(error) => {
                let path = session.path.clone();
                self.tell_once(&path, &format!("read: {error}; it is tried again"));
                Ok(Outcome::Later(Instant::now() + TRY_AGAIN))
            }
        }
    }

    /// Writes a chunk down, and hands it over if there is room. What may go away is kept.
    fn cut(
        &mut self,
        key: Key,
        offset: u64,
        payload: Bytes,
        trace: Trace,
        facts: &Facts,
    ) -> Result<Outcome, FollowError> {
        let has_room = self.has_room();
        let Some((file, session)) = self.files.get_mut(&key).zip(self.state.get(key)) else {
            return Ok(Outcome::Idle);
        };
        let seq = session.seq + 1;
        let is_next = file.handed + 1 == seq;
        let spooled = if file.is_named {
            None
        } else {
            match self.state.spool(key, &payload) {
                Ok(at) => Some(at),
                Err(error) => {
                    tell(&format!("write to the state folder: {error}; it is tried again"));
                    return Ok(Outcome::Later(Instant::now() + TRY_AGAIN));
                }
            }
        };
        let length = payload.len();
        let checksum = crc32fast::hash(&payload);
        let cut = Cut { seq, offset, length: length as u32, checksum, spooled };
        self.state.record(Entry::Cut { key, cut, trace })?;
        file.is_read = trace.offset == facts.size;
        file.modified = facts.modified;
        file.quiet_since = Instant::now();
        let is_read = file.is_read;
        if has_room && is_next {
            self.hand_over(key, seq, payload);
        } else {
            return Ok(Outcome::More(length));
        }
        // What is written meanwhile is told of by the system, and cut when there is more of it.
        Ok(if is_read { Outcome::Idle } else { Outcome::More(length) })
    }

    /// Sends a chunk that was cut before, from where its bytes are.
    fn send_again(&mut self, key: Key, cut: Cut) -> Result<Outcome, FollowError> {
        let why = match self.load(key, &cut) {
            Ok(Some(payload)) => {
                self.hand_over(key, cut.seq, payload);
                return Ok(Outcome::More(cut.length as usize));
            }
            Ok(None) => "its bytes are not what they were".to_owned(),
            Err(error) => format!("read it: {error}"),
        };
        if self.is_rewritten(key) {
            // Its bytes may be in a copy.
            self.truncated(key)?;
            return Ok(Outcome::More(0));
        }
        self.give_up(key, &format!("chunk {} is to be sent again: {why}", cut.seq))?;
        Ok(Outcome::Idle)
    }

    /// Whether an open file has lost what was read from it.
    fn is_rewritten(&self, key: Key) -> bool {
        let Some((file, session)) = self.files.get(&key).zip(self.state.get(key)) else {
            return false;
        };
        let source = file.source.as_ref();
        source.is_some_and(|source| source.has_kept(&session.trace).is_ok_and(|kept| !kept))
    }

    /// A chunk's bytes; nothing if they are not what was cut.
    fn load(&mut self, key: Key, cut: &Cut) -> io::Result<Option<Bytes>> {
        let mut payload = BytesMut::zeroed(cut.length as usize);
        if let Some(at) = cut.spooled {
            self.state.unspool(key, cut, at, &mut payload)?;
        } else {
            self.reopen(key);
            let source = self.files.get(&key).and_then(|file| file.source.as_ref());
            source.ok_or(io::ErrorKind::NotFound)?.read(cut.offset, &mut payload)?;
        }
        let is_same = crc32fast::hash(&payload) == cut.checksum;
        Ok(is_same.then(|| payload.freeze()))
    }

    fn hand_over(&mut self, key: Key, seq: u64, payload: Bytes) {
        let Some((file, session)) = self.files.get_mut(&key).zip(self.state.get(key)) else {
            return;
        };
        let parcel = Parcel::new(key, &session.id, session.number, seq, payload);
        file.handed = seq;
        self.in_flight += parcel.weight();
        self.out.push(parcel);
    }

    /// Closes a file that a name leads to, if more are open than may be: it is opened again when
    /// there is something to read.
    pub(super) fn close_if_too_many(&mut self, key: Key) {
        let is_named = self.files.get(&key).is_some_and(|file| file.is_named);
        if is_named && self.open_files + OTHER_FILES > self.settings.open_files_max {
            self.close(key);
        }
    }

    /// Opens a file that was closed. `false`: it is not there any more.
    fn reopen(&mut self, key: Key) -> bool {
        let Some((file, session)) = self.files.get(&key).zip(self.state.get(key)) else {
            return false;
        };
        if file.source.is_some() {
            return true;
        }
        if !file.is_named {
            return false;
        }
        match Source::open(&session.path) {
            Ok(Some((source, facts))) if facts.inode.is(&session.inode) => {
                self.open(key, source);
                true
            }
            // The next scan finds out what happened.
            _ => {
                self.scans.hurry(Instant::now());
                false
            }
        }
    }

    /// Until when a session has to wait for the one before it; nothing if that is at its end.
    fn waits_until(&mut self, key: Key, now: Instant) -> Option<Instant> {
        let before = self.files.get(&key)?.predecessor?;
        let until = self.ends_at(before, now);
        if until.is_none()
            && let Some(file) = self.files.get_mut(&key)
        {
            file.predecessor = None;
        }
        until
    }

    /// When a session may be at its end, at the earliest; nothing if it is. It is when all was
    /// read, and nothing was written for a while.
    fn ends_at(&mut self, key: Key, now: Instant) -> Option<Instant> {
        let file = self.files.get(&key)?;
        let session = self.state.get(key)?;
        if file.is_lost || session.end.is_some() {
            return None;
        }
        let quiet_at = file.quiet_since + self.settings.rotate_wait;
        if now < quiet_at {
            return Some(quiet_at);
        }
        let facts = file.source.as_ref().and_then(|source| source.facts().ok().flatten());
        let is_at_end = match facts {
            Some(facts) => file.is_read && facts.modified == file.modified,
            None => file.is_read,
        };
        if is_at_end {
            return None;
        }
        self.look_at(key, now);
        Some(now + self.settings.chunk_interval)
    }
}
