//! Rebuilt files as readers see them: as far as a checkpoint has them, or else as far as they were
//! folded in this life. What else is on disk a loss of power may have spoilt.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

use sheaf_proto::files::RebuiltFile;

use super::parts::{Parts, Pieces};
use super::{FileKey, Files, FilesError, Kept};
use crate::aggregation::log_files::session::{Reached, Session};
use crate::checkpoint::Digest;
use crate::checkpoint::facts::Slot;
use crate::event::chunk::StreamId;
use crate::event::fingerprint::slot_of;
use crate::event::slots::SlotSet;
use crate::store::{Table, keys};

/// A file that is folded here, as far as it is written.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    id: StreamId,
    reached: Reached,
    /// Chunks behind a gap.
    waiting: u64,
}

/// Which files are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The aggregation's number.
    pub aggregation: u32,
    /// The slots that they belong to.
    pub slots: SlotSet,
    /// What they are called.
    pub named: Named,
    /// The id and the session that they come after.
    pub after: Option<(String, u64)>,
    /// How many at most.
    pub limit: usize,
}

/// What files are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Their ids begin so.
    Prefix(String),
    /// Their id has this hash under the cluster's key.
    Hash(u128),
}

/// A file as a reader sees it, so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The file.
    pub file: RebuiltFile,
    /// Of all chunks that can be read, in their order.
    pub digest: Digest,
}

impl Files {
    fn tails(&self) -> MutexGuard<'_, BTreeMap<FileKey, Tail>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a file as far as it is written here.
    pub fn show(&self, key: &FileKey, id: &StreamId, session: &Session) {
        let (reached, waiting) = (session.tail(), session.behind_a_gap());
        let mut tails = self.tails();
        match tails.get_mut(key) {
            Some(tail) => (tail.reached, tail.waiting) = (reached, waiting),
            None => drop(tails.insert(*key, Tail { id: id.clone(), reached, waiting })),
        }
    }

    /// Shows of some files what checkpoints have, from now on.
    pub fn hide(&self, is_hidden: impl Fn(&FileKey) -> bool) {
        self.tails().retain(|key, _| !is_hidden(key));
    }

    /// Whether a file is longer than a checkpoint has it.
    pub(super) fn is_shown(&self, key: &FileKey) -> bool {
        self.tails().contains_key(key)
    }

    /// The first of the files that are wanted, in the order of ids and sessions.
    ///
    /// # Errors
    /// When the database cannot be read, or the system refuses.
    pub fn list(&self, wanted: &Wanted) -> Result<Vec<Shown>, FilesError> {
        // A file is hidden once a checkpoint has it: so these come first, and then the rows.
        let mut tails = self.tails_of(wanted);
        let mut first = First { wanted, found: BTreeMap::new() };
        if let Some((from, to)) = wanted.rows() {
            for row in self.store.scan(Table::Files, &from, &to)? {
                let (key, row) = row?;
                let key = self.key(wanted.aggregation, &key)?;
                if wanted.slots.contains(key.slot()) {
                    let kept: Kept = self.store.decode(&row)?;
                    let tail = tails.remove(&key);
                    first.add(&kept.id, key.session, || shown(&key, Some(&kept), tail.as_ref()));
                }
            }
        }
        for (key, tail) in &tails {
            first.add(&tail.id, key.session, || shown(key, None, Some(tail)));
        }
        first
            .found
            .into_values()
            .map(|shown| self.with_removed(wanted.aggregation, shown))
            .collect()
    }

    fn with_removed(&self, aggregation: u32, mut shown: Shown) -> Result<Shown, FilesError> {
        let Shown { file, .. } = &mut shown;
        if let Ok(id) = StreamId::try_from(file.id.clone()) {
            let parts = Parts::find(&self.path(aggregation, &id, file.session))?;
            file.removed_bytes = parts.begin().min(file.bytes);
        }
        Ok(shown)
    }

    fn tails_of(&self, wanted: &Wanted) -> BTreeMap<FileKey, Tail> {
        let tails = self.tails();
        let of = tails.iter().filter(|(key, _)| {
            let is_named = match wanted.named {
                Named::Prefix(_) => true,
                Named::Hash(hash) => key.hash == hash,
            };
            key.aggregation == wanted.aggregation && wanted.slots.contains(key.slot()) && is_named
        });
        of.map(|(key, tail)| (*key, tail.clone())).collect()
    }

    /// A part of a file, which is to be there.
    ///
    /// # Errors
    /// When the system refuses: the file may be gone.
    pub fn read(
        &self,
        aggregation: u32,
        id: &StreamId,
        session: u64,
        part: &Range<u64>,
    ) -> Result<Pieces, FilesError> {
        Pieces::open(self.path(aggregation, id, session), part.clone())
    }
}

impl Wanted {
    /// The keys of the rows among which all of these files are, from and to.
    fn rows(&self) -> Option<([u8; 29], [u8; 29])> {
        if let Named::Hash(hash) = self.named {
            return Some(keys::files_of(self.aggregation, hash));
        }
        let (first, last) = (self.slots.iter().next()?, self.slots.iter().last()?);
        let (from, _) = keys::files(self.aggregation, first);
        let (_, to) = keys::files(self.aggregation, last);
        Some((from, to))
    }
}

impl Named {
    /// The slots that such files belong to.
    pub fn may_be_in(&self, slot: Slot) -> bool {
        match self {
            Named::Prefix(_) => true,
            Named::Hash(hash) => slot_of(*hash) == slot,
        }
    }
}

/// The first files of those that are wanted.
struct First<'a> {
    wanted: &'a Wanted,
    found: BTreeMap<(String, u64), Shown>,
}

impl First<'_> {
    fn add(&mut self, id: &StreamId, session: u64, shown: impl FnOnce() -> Shown) {
        let is_named = match &self.wanted.named {
            Named::Prefix(prefix) => id.as_str().starts_with(prefix),
            Named::Hash(_) => true,
        };
        let place = (id.as_str(), session);
        let is_after = |(id, session): &(String, u64)| place > (id.as_str(), *session);
        let is_full = self.found.len() >= self.wanted.limit;
        let last = self.found.last_key_value().map(|(last, _)| last).filter(|_| is_full);
        let is_wanted = is_named
            && self.wanted.after.as_ref().is_none_or(is_after)
            && !last.is_some_and(is_after);
        if !is_wanted {
            return;
        }
        self.found.insert((id.as_str().to_owned(), session), shown());
        if self.found.len() > self.wanted.limit {
            self.found.pop_last();
        }
    }
}

/// What there is of a file: a checkpoint may have more than was folded again since.
fn shown(key: &FileKey, kept: Option<&Kept>, tail: Option<&Tail>) -> Shown {
    let now = kept.map(|kept| &kept.now);
    let checkpointed = now.map(|now| now.reached).unwrap_or_default();
    let tail = tail.filter(|tail| tail.reached.length >= checkpointed.length);
    let reached = tail.map_or(checkpointed, |tail| tail.reached);
    let kept_waiting = now.map_or(0, |now| now.waiting.len() as u64);
    let waiting = tail.map_or(kept_waiting, |tail| tail.waiting);
    let id = kept.map(|kept| &kept.id).or(tail.map(|tail| &tail.id));
    let file = RebuiltFile {
        id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        session: key.session,
        bytes: reached.length,
        checkpointed_bytes: checkpointed.length,
        waits_for: (waiting > 0).then(|| reached.next.number()),
        waiting,
        contradicting: now.map_or(0, |now| now.contradicting),
        removed_bytes: 0,
    };
    Shown { file, digest: reached.digest }
}
