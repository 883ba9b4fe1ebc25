//! Files that are renamed, deleted, truncated or done with.

use std::{path::PathBuf, time::Instant};

use super::{
    FollowError, Follower, milliseconds,
    search::{self, Elsewhere},
};
use crate::tail::{
    report::{tell, tell_of},
    session::{End, Entry, Key, Session},
};

/// A complete session is remembered for a day, in case its file comes back.
const REMEMBERED: u64 = 24 * 3600 * 1000;

impl Follower {
    /// A file's name leads elsewhere or nowhere: it is read to its end.
    pub(super) fn leave(&mut self, key: Key) -> Result<(), FollowError> {
        self.lose_location(key);
        let Some(session) = self.state.get(key).cloned() else { return Ok(()) };
        let is_open = self.files.get(&key).is_some_and(|file| file.source.is_some());
        if !is_open && let Some(Elsewhere { source, .. }) = search::renamed(&session) {
            self.open(key, source);
        }
        let Some(file) = self.files.get_mut(&key) else { return Ok(()) };
        file.is_named = false;
        file.quiet_since = Instant::now();
        file.is_lost = file.source.is_none();
        if file.is_lost {
            tell_of(&session.path, "it went away while it was not open; what was not read is lost");
        }
        self.keep_unanswered(key, &session)?;
        self.give_up_lost(key)?;
        self.look_at(key, Instant::now());
        Ok(())
    }

    /// Another name leads to a file.
    pub(super) fn rename(&mut self, key: Key, path: PathBuf) -> Result<(), FollowError> {
        let Some(session) = self.state.get(key) else { return Ok(()) };
        let inode = session.inode;
        self.state.record(Entry::Moved { key, path, inode })?;
        if let Some(file) = self.files.get_mut(&key) {
            file.is_named = true;
            file.quiet_since = Instant::now();
        }
        self.locate(key);
        self.look_at(key, Instant::now());
        Ok(())
    }

    /// A file has not got the bytes any more that were read from it. If there is a copy, the rest
    /// is read from that; what is in the file now is a new session.
    pub(super) fn truncated(&mut self, key: Key) -> Result<(), FollowError> {
        self.lose_location(key);
        self.close(key);
        let Some(session) = self.state.get(key).cloned() else { return Ok(()) };
        let modified = self.files.get(&key).map_or(0, |file| file.modified);
        let copy = search::copied(&session, modified);
        let Some(file) = self.files.get_mut(&key) else { return Ok(()) };
        file.is_named = false;
        file.is_read = false;
        file.quiet_since = Instant::now();
        file.is_lost = copy.is_none();
        match copy {
            Some(Elsewhere { path, source, facts }) => {
                let name = path.display();
                tell_of(&session.path, &format!("it was truncated; the rest is read from {name}"));
                self.open(key, source);
                self.state.record(Entry::Moved { key, path, inode: facts.inode })?;
            }
            None => {
                let read = session.trace.offset;
                let text = format!(
                    "it was truncated, and there is no copy: what followed on its first {read} \
                     bytes and had not been read is lost"
                );
                tell_of(&session.path, &text);
            }
        }
        self.keep_unanswered(key, &session)?;
        self.give_up_lost(key)?;
        self.look_at(key, Instant::now());
        // The file itself is a new one.
        self.scans.hurry(Instant::now());
        Ok(())
    }

    /// Ends a session whose file is gone while chunks of it are to be sent again: whether they
    /// arrived before a restart nobody knows.
    pub(super) fn give_up_lost(&mut self, key: Key) -> Result<(), FollowError> {
        let Some((file, session)) = self.files.get(&key).zip(self.state.get(key)) else {
            return Ok(());
        };
        let mut unsent = session.unanswered.iter().filter(|cut| cut.seq > file.handed);
        let first = unsent.find(|cut| cut.spooled.is_none());
        let Some(cut) = first.filter(|_| file.is_lost && session.end.is_none()) else {
            return Ok(());
        };
        let text = format!(
            "what follows on its first {} bytes cannot be sent again, and may not have arrived",
            cut.offset
        );
        self.give_up(key, &text)
    }

    /// Keeps the bytes of chunks that are under way, as far as they can be had and there is room:
    /// their file may go away before they are answered.
    pub(super) fn keep_unanswered(
        &mut self,
        key: Key,
        session: &Session,
    ) -> Result<(), FollowError> {
        let mut left_out = 0;
        for cut in session.unanswered.iter().filter(|cut| cut.spooled.is_none()) {
            let Some(source) = self.files.get(&key).and_then(|file| file.source.as_ref()) else {
                break;
            };
            let mut bytes = vec![0; cut.length as usize];
            let is_there = source.read(cut.offset, &mut bytes).is_ok()
                && crc32fast::hash(&bytes) == cut.checksum;
            let has_room =
                self.state.spooled_bytes() + u64::from(cut.length) <= self.settings.spool;
            if !is_there {
                continue;
            }
            if !has_room {
                left_out += u64::from(cut.length);
                continue;
            }
            match self.state.spool(key, &bytes) {
                Ok(at) => self.state.record(Entry::Spooled { key, seq: cut.seq, at })?,
                Err(error) => {
                    tell(&format!("write to the state folder: {error}"));
                    break;
                }
            }
        }
        if left_out > 0 {
            let text = format!(
                "the spool is full (--spool): {left_out} bytes that no node has answered yet are \
                 not kept in it; if the file goes away and the agent ends before, they are lost"
            );
            tell_of(&session.path, &text);
        }
        Ok(())
    }

    /// Lets files go that nothing more will come of.
    pub(super) fn sweep(&mut self, now: Instant) -> Result<(), FollowError> {
        let gone: Vec<Key> =
            self.files.iter().filter(|(_, file)| !file.is_named).map(|(key, _)| *key).collect();
        for key in gone {
            self.sweep_one(key, now)?;
        }
        let today = milliseconds();
        let is_old = |key: &&Key| match self.state.get(**key).and_then(|session| session.end) {
            Some(End::Complete(at)) => at.saturating_add(REMEMBERED) < today,
            _ => true,
        };
        let old: Vec<Key> = self.complete.values().filter(is_old).copied().collect();
        for key in old {
            self.forget(key)?;
        }
        Ok(())
    }

    fn sweep_one(&mut self, key: Key, now: Instant) -> Result<(), FollowError> {
        let Some((file, session)) = self.files.get(&key).zip(self.state.get(key)) else {
            return Ok(());
        };
        if !session.unanswered.is_empty() {
            return Ok(());
        }
        if file.is_lost || session.end == Some(End::GivenUp) {
            return self.forget(key);
        }
        let facts = file.source.as_ref().and_then(|source| source.facts().ok().flatten());
        let is_deleted = facts.is_none_or(|facts| facts.links == 0);
        let last = self.state.sessions().last(&session.id);
        let is_followed_on = last.is_some_and(|last| last.key != key && last.seq > 0);
        let is_quiet = file.is_read && now >= file.quiet_since + self.settings.linger;
        if !is_quiet || !(is_deleted || is_followed_on) {
            return Ok(());
        }
        if !session.trace.is_blank() {
            tell_of(&session.path, &format!("it is complete, with {} bytes", session.trace.offset));
        }
        if is_deleted {
            return self.forget(key);
        }
        let place = session.inode.place();
        self.state.record(Entry::Ended { key, end: End::Complete(milliseconds()) })?;
        self.complete.insert(place, key);
        self.close(key);
        self.files.remove(&key);
        Ok(())
    }

    /// Forgets a session, whose file will not be seen again.
    pub(super) fn forget(&mut self, key: Key) -> Result<(), FollowError> {
        self.lose_location(key);
        self.close(key);
        if let Some(due) = self.files.remove(&key).and_then(|file| file.due) {
            self.due.remove(&(due, key));
        }
        self.complete.retain(|_, other| *other != key);
        self.delivered.insert(key);
        if self.state.get(key).is_some() {
            self.state.record(Entry::Forgotten { key })?;
        }
        Ok(())
    }
}
