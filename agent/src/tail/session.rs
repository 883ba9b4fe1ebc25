//! What has to be known of each file across restarts, and how it changes. No clock, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
};

use super::identity::{Inode, Trace};

/// What the agent calls an incarnation of a file.
pub(crate) type Key = u64;

/// One incarnation of a file: a session of the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) key: Key,
    pub(crate) id: String,
    /// Which file of that id.
    pub(crate) number: u64,
    /// Where it was seen last.
    pub(crate) path: PathBuf,
    pub(crate) inode: Inode,
    pub(crate) trace: Trace,
    /// The last chunk's; 0 before the first.
    pub(crate) seq: u64,
    /// The chunks that no node has answered yet, in order and without a gap.
    pub(crate) unanswered: VecDeque<Cut>,
    pub(crate) end: Option<End>,
}

/// A chunk: which bytes of the file it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    /// CRC-32 of the bytes.
    pub(crate) checksum: u32,
    /// Where its bytes are in the session's spool, if they are.
    pub(crate) spooled: Option<u64>,
}

/// Why nothing more is read of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was read to its end; this many milliseconds since 1970.
    Complete(u64),
    /// A node refused a chunk, or its bytes are gone: what follows could not be put together.
    GivenUp,
}

/// A change of what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A session, as a whole.
    Known(Session),
    /// The next chunk of a session was cut.
    Cut { key: Key, cut: Cut, trace: Trace },
    /// The next bytes of a file were passed over: a hole.
    Passed { key: Key, trace: Trace },
    /// The chunks up to this one are answered.
    Answered { key: Key, seq: u64 },
    /// The file is found elsewhere now.
    Moved { key: Key, path: PathBuf, inode: Inode },
    /// A chunk's bytes are in the spool.
    Spooled { key: Key, seq: u64, at: u64 },
    /// Nothing more is read of it.
    Ended { key: Key, end: End },
    /// It will not be seen again.
    Forgotten { key: Key },
    /// The largest number of the sessions that are forgotten, and the largest key.
    Floor { number: u64, key: Key },
}

/// An entry that does not follow on those before it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum OutOfPlace {
    /// Nothing is known of that session.
    #[error("an entry is about session {0}, which is unknown")]
    Unknown(Key),
    /// A chunk is missing before this one.
    #[error("chunk {seq} of session {key} does not follow on the one before it")]
    Gap {
        /// Which session.
        key: Key,
        /// Which chunk.
        seq: u64,
    },
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    known: BTreeMap<Key, Session>,
    /// The sessions of each id by their numbers.
    of_id: HashMap<String, BTreeSet<(u64, Key)>>,
    floor: u64,
    last_key: Key,
}

impl Sessions {
    /// Takes an entry in.
    ///
    /// # Errors
    /// If it cannot follow on what is known.
    pub(crate) fn apply(&mut self, entry: Entry) -> Result<(), OutOfPlace> {
        match entry {
            Entry::Known(session) => self.know(session),
            Entry::Cut { key, cut, trace } => {
                let session = self.session(key)?;
                if cut.seq != session.seq + 1 {
                    return Err(OutOfPlace::Gap { key, seq: cut.seq });
                }
                session.seq = cut.seq;
                session.trace = trace;
                session.unanswered.push_back(cut);
            }
            Entry::Passed { key, trace } => self.session(key)?.trace = trace,
            Entry::Answered { key, seq } => {
                let unanswered = &mut self.session(key)?.unanswered;
                while unanswered.front().is_some_and(|cut| cut.seq <= seq) {
                    unanswered.pop_front();
                }
            }
            Entry::Moved { key, path, inode } => {
                let session = self.session(key)?;
                (session.path, session.inode) = (path, inode);
            }
            Entry::Spooled { key, seq, at } => {
                let mut cuts = self.session(key)?.unanswered.iter_mut();
                if let Some(cut) = cuts.find(|cut| cut.seq == seq) {
                    cut.spooled = Some(at);
                }
            }
            Entry::Ended { key, end } => {
                let session = self.session(key)?;
                session.end = Some(end);
                if end == End::GivenUp {
                    session.unanswered.clear();
                }
            }
            Entry::Forgotten { key } => self.forget(key),
            Entry::Floor { number, key } => {
                self.floor = self.floor.max(number);
                self.last_key = self.last_key.max(key);
            }
        }
        Ok(())
    }

    /// All that is known, from which it can be put together again.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = Entry> {
        let floor = Entry::Floor { number: self.floor, key: self.last_key };
        std::iter::once(floor).chain(self.known.values().cloned().map(Entry::Known))
    }

    /// A new session of the id: the milliseconds since 1970, or one more than the last session's
    /// number if that is larger.
    pub(crate) fn next(&self, id: &str, now: u64) -> (Key, u64) {
        // The last one may be forgotten, with others of its id before it that are not.
        let last = self.last(id).map_or(0, |session| session.number).max(self.floor);
        (self.last_key + 1, now.max(last + 1))
    }

    /// The last session of an id.
    pub(crate) fn last(&self, id: &str) -> Option<&Session> {
        let (_, key) = self.of_id.get(id)?.last()?;
        self.known.get(key)
    }

    /// The session of the same id before this one.
    pub(crate) fn before(&self, session: &Session) -> Option<&Session> {
        let numbers = self.of_id.get(&session.id)?;
        let (_, key) = numbers.range(..(session.number, session.key)).next_back()?;
        self.known.get(key)
    }

    /// One of them.
    pub(crate) fn get(&self, key: Key) -> Option<&Session> {
        self.known.get(&key)
    }

    /// All of them, those that began first at first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.known.values()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    fn session(&mut self, key: Key) -> Result<&mut Session, OutOfPlace> {
        self.known.get_mut(&key).ok_or(OutOfPlace::Unknown(key))
    }

    fn know(&mut self, session: Session) {
        self.last_key = self.last_key.max(session.key);
        let numbers = self.of_id.entry(session.id.clone()).or_default();
        numbers.insert((session.number, session.key));
        self.known.insert(session.key, session);
    }

    fn forget(&mut self, key: Key) {
        if let Some(session) = self.known.remove(&key) {
            self.floor = self.floor.max(session.number);
            if let Some(numbers) = self.of_id.get_mut(&session.id) {
                numbers.remove(&(session.number, key));
                if numbers.is_empty() {
                    self.of_id.remove(&session.id);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tail::identity::Fingerprint;

    pub(crate) fn session(key: Key, id: &str, number: u64) -> Session {
        Session {
            key,
            id: id.into(),
            number,
            path: format!("/{id}").into(),
            inode: Inode { device: 1, number: key, born: Some(-7) },
            trace: Trace::default(),
            seq: 0,
            unanswered: VecDeque::new(),
            end: None,
        }
    }

    pub(crate) fn cut(key: Key, seq: u64) -> Entry {
        let cut = Cut { seq, offset: seq * 10, length: 10, checksum: 5, spooled: None };
        let head = Fingerprint::of_head(&seq.to_be_bytes());
        Entry::Cut { key, cut, trace: Trace { offset: seq * 10 + 10, head, tail: head } }
    }

    fn sessions(entries: impl IntoIterator<Item = Entry>) -> Sessions {
        let mut sessions = Sessions::default();
        for entry in entries {
            sessions.apply(entry).unwrap();
        }
        sessions
    }

    fn unanswered(sessions: &Sessions, key: Key) -> Vec<u64> {
        sessions.get(key).unwrap().unanswered.iter().map(|cut| cut.seq).collect()
    }

    #[test]
    fn chunks_are_remembered_until_they_are_answered() {
        let entries = [Entry::Known(session(1, "a", 5)), cut(1, 1), cut(1, 2), cut(1, 3)];
        let mut sessions = sessions(entries);
        assert_eq!(unanswered(&sessions, 1), [1, 2, 3]);
        sessions.apply(Entry::Answered { key: 1, seq: 2 }).unwrap();
        assert_eq!(unanswered(&sessions, 1), [3]);
        assert_eq!(sessions.get(1).unwrap().trace.offset, 40);
    }

    #[test]
    fn a_chunk_out_of_order_is_no_history() {
        let mut sessions = sessions([Entry::Known(session(1, "a", 5)), cut(1, 1)]);
        assert_eq!(sessions.apply(cut(1, 3)), Err(OutOfPlace::Gap { key: 1, seq: 3 }));
        assert_eq!(sessions.apply(cut(1, 1)), Err(OutOfPlace::Gap { key: 1, seq: 1 }));
        assert_eq!(sessions.apply(cut(2, 1)), Err(OutOfPlace::Unknown(2)));
    }

    #[test]
    fn a_session_is_younger_than_all_before_it_whatever_the_clock_says() {
        let mut sessions = sessions([Entry::Known(session(1, "a", 1_000))]);
        assert_eq!(sessions.next("a", 2_000), (2, 2_000));
        assert_eq!(sessions.next("a", 500), (2, 1_001));
        assert_eq!(sessions.next("b", 500), (2, 500));
        sessions.apply(Entry::Forgotten { key: 1 }).unwrap();
        assert_eq!(sessions.next("a", 500), (2, 1_001));
        assert_eq!(sessions.next("b", 500), (2, 1_001));
    }

    #[test]
    fn when_the_last_session_is_forgotten_the_one_before_it_is_the_last() {
        let known = [(1, 10), (2, 20), (3, 30)].map(|(key, number)| session(key, "a", number));
        let mut sessions = sessions(known.clone().map(Entry::Known));
        assert_eq!(sessions.before(&known[1]), Some(&known[0]));
        sessions.apply(Entry::Forgotten { key: 3 }).unwrap();
        assert_eq!(sessions.last("a"), Some(&known[1]));
        assert_eq!(sessions.next("a", 5), (4, 31), "no number is given twice");
        sessions.apply(Entry::Forgotten { key: 1 }).unwrap();
        assert_eq!((sessions.last("a"), sessions.before(&known[1])), (Some(&known[1]), None));
        sessions.apply(Entry::Forgotten { key: 2 }).unwrap();
        assert_eq!(sessions.last("a"), None);
    }

    #[test]
    fn a_snapshot_says_all_that_is_known() {
        let entries = [
            Entry::Known(session(1, "a", 5)),
            Entry::Known(session(2, "b", 9)),
            Entry::Known(session(3, "c", 7)),
            cut(1, 1),
            cut(3, 1),
            Entry::Spooled { key: 3, seq: 1, at: 77 },
            Entry::Moved { key: 3, path: "/d".into(), inode: session(8, "", 0).inode },
            Entry::Ended { key: 1, end: End::Complete(8) },
            Entry::Forgotten { key: 2 },
        ];
        let before = sessions(entries);
        let after = sessions(before.snapshot());
        assert!(before.iter().eq(after.iter()));
        assert_eq!(before.next("z", 0), after.next("z", 0));
        assert_eq!(after.next("b", 0), (4, 10));
        assert_eq!(after.get(3).unwrap().unanswered[0].spooled, Some(77));
    }

    #[test]
    fn what_is_given_up_is_not_sent_again() {
        let given_up = Entry::Ended { key: 1, end: End::GivenUp };
        let sessions = sessions([Entry::Known(session(1, "a", 5)), cut(1, 1), given_up]);
        assert_eq!(unanswered(&sessions, 1), [0; 0]);
    }
}
