//! Looks at all files: which there are, and which have grown.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    FollowError, Followed, Follower, milliseconds,
    places::{Place, Step, reconcile},
};
use crate::tail::{
    identity::{Inode, Likeness, Trace},
    pattern::Matches,
    report::{tell, tell_of},
    session::{Entry, Key, Session},
    source::{Facts, Source},
};

/// Regular looks take no more than this part of the time ..
const SHARE: u32 = 100;
/// .. and those that the system asks for no more than this.
const SHARE_IN_A_HURRY: u32 = 10;

/// When all files are looked at.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Instant,
    ended: Option<Instant>,
    took: Duration,
}

impl Schedule {
    /// The first time is now.
    pub(super) fn new(now: Instant) -> Schedule {
        Schedule { next: now, ended: None, took: Duration::ZERO }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Whether there was one.
    pub(super) fn has_begun(&self) -> bool {
        self.ended.is_some()
    }

    /// Has the next begin soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        let soonest = self.ended.map_or(now, |ended| ended + self.took * SHARE_IN_A_HURRY);
        self.next = self.next.min(soonest.max(now));
    }

    fn done(&mut self, began: Instant, every: Duration) {
        let now = Instant::now();
        self.took = now - began;
        self.ended = Some(now);
        self.next = now + every.max(self.took * SHARE);
    }
}

/// What there is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) files: BTreeMap<PathBuf, Facts>,
    /// Where it was looked for.
    pub(super) folders: BTreeSet<PathBuf>,
}

impl Follower {
    pub(super) fn scan_if_due(&mut self) -> Result<(), FollowError> {
        let now = Instant::now();
        if now < self.scans.next() {
            return Ok(());
        }
        let found = self.find();
        self.settle(&found.files)?;
        let is_new = self.keep_watching(&found.folders);
        self.notice_growth(&found.files, now);
        self.sweep(now)?;
        self.scans.done(now, self.settings.poll);
        if is_new {
            // Something may have come before it was watched.
            self.scans.hurry(Instant::now());
        }
        Ok(())
    }

    /// What there is now.
    pub(super) fn find(&mut self) -> Found {
        let mut matches = Matches::default();
        for pattern in &self.settings.files {
            pattern.find(&mut matches);
        }
        for (folder, error) in &matches.closed {
            self.tell_once(folder, &format!("look into it: {error}"));
        }
        let mut files = BTreeMap::new();
        for path in matches.files {
            match Facts::at(&path) {
                Ok(Some(facts)) => {
                    files.insert(path, facts);
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.tell_once(&path, &format!("look at it: {error}")),
            }
        }
        Found { files, folders: matches.folders }
    }

    /// Follows what is new, and takes note of what was renamed or went away.
    fn settle(&mut self, found: &BTreeMap<PathBuf, Facts>) -> Result<(), FollowError> {
        let inodes: BTreeMap<PathBuf, Inode> =
            found.iter().map(|(path, facts)| (path.clone(), facts.inode)).collect();
        let places = self.files.iter().filter(|(_, file)| !file.is_lost);
        let places: Vec<Place<'_>> = places
            .filter_map(|(key, file)| {
                let session = self.state.get(*key)?;
                let path = file.is_named.then_some(session.path.as_path());
                Some(Place { key: *key, inode: session.inode, path })
            })
            .collect();
        let mut adoptions = Vec::new();
        for step in reconcile(&places, &inodes) {
            match step {
                Step::Leave(key) => self.leave(key)?,
                Step::Move(key, path) => self.rename(key, path)?,
                Step::Adopt(path) => adoptions.push(path),
            }
        }
        // Of several files with one id those that were written last come last.
        adoptions.sort_by_key(|path| found.get(path).map(|facts| facts.modified));
        let count = adoptions.len();
        for path in adoptions {
            if let Some(facts) = found.get(&path) {
                self.adopt(path, facts.inode)?;
            }
        }
        if count > 0 {
            let all = self.files.values().filter(|file| file.is_named).count();
            tell(&format!("follows {all} files, {count} of them new"));
        }
        Ok(())
    }

    /// Begins to follow a file.
    fn adopt(&mut self, path: PathBuf, inode: Inode) -> Result<(), FollowError> {
        let (source, facts) = match Source::open(&path) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                self.tell_once(&path, &format!("open it: {error}"));
                return Ok(());
            }
        };
        if !facts.inode.is(&inode) {
            // It was replaced just now, perhaps by one that is followed.
            self.scans.hurry(Instant::now());
            return Ok(());
        }
        if let Some(key) = self.known_complete(&source, &facts) {
            return self.follow_again(key, path, source);
        }
        let id = match self.settings.naming.id(&path) {
            Ok(id) => id,
            Err(error) => {
                self.tell_once(&path, &format!("ERROR: it cannot be followed: {error}"));
                return Ok(());
            }
        };
        self.told.remove(&path);
        let now = Instant::now();
        let before = self.state.sessions().last(&id).map(|session| session.key);
        let predecessor = before.filter(|key| self.files.contains_key(key));
        if let Some(file) = predecessor.and_then(|key| self.files.get_mut(&key)) {
            file.quiet_since = now;
        }
        let (key, number) = self.state.sessions().next(&id, milliseconds());
        let (trace, unanswered) = (Trace::default(), VecDeque::new());
        let session =
            Session { key, id, number, path, inode, trace, seq: 0, unanswered, end: None };
        self.state.record(Entry::Known(session))?;
        self.follow(key, Followed { predecessor, ..Followed::new(now) }, Some(source));
        Ok(())
    }

    /// Follows a file under the name of its session.
    pub(super) fn follow(&mut self, key: Key, file: Followed, source: Option<Source>) {
        let is_named = file.is_named;
        self.files.insert(key, file);
        if let Some(source) = source {
            self.open(key, source);
        }
        if is_named {
            self.locate(key);
        }
        self.close_if_too_many(key);
        self.look_at(key, Instant::now());
    }

    /// Notes where the system tells of a file: links lead there.
    pub(super) fn locate(&mut self, key: Key) {
        self.lose_location(key);
        let Some(path) = self.state.get(key).map(|session| session.path.clone()) else { return };
        // Without it the file is only polled.
        if let (Ok(location), Some(file)) = (fs::canonicalize(path), self.files.get_mut(&key)) {
            file.location = Some(location.clone());
            self.locations.insert(location, key);
        }
    }

    pub(super) fn lose_location(&mut self, key: Key) {
        let location = self.files.get_mut(&key).and_then(|file| file.location.take());
        if let Some(location) = location
            && self.locations.get(&location) == Some(&key)
        {
            self.locations.remove(&location);
        }
    }

    /// The complete session whose file this is.
    fn known_complete(&self, source: &Source, facts: &Facts) -> Option<Key> {
        let key = *self.complete.get(&facts.inode.place())?;
        let session = self.state.get(key)?;
        let evidence = source.evidence(&session.trace, facts).ok()?;
        let likeness = session.trace.compare(&session.inode, &evidence);
        (likeness == Likeness::Same).then_some(key)
    }

    fn follow_again(&mut self, key: Key, path: PathBuf, source: Source) -> Result<(), FollowError> {
        let Some(session) = self.state.get(key).cloned() else { return Ok(()) };
        tell_of(&path, "it is back; what is added to it goes on where it ended");
        self.complete.remove(&session.inode.place());
        let handed = session.seq;
        self.state.record(Entry::Known(Session { path, end: None, ..session }))?;
        self.follow(key, Followed { handed, ..Followed::new(Instant::now()) }, Some(source));
        Ok(())
    }

    /// Has those looked at that are not as they were.
    fn notice_growth(&mut self, found: &BTreeMap<PathBuf, Facts>, now: Instant) {
        let mut grown = Vec::new();
        for (key, file) in &self.files {
            let Some(session) = self.state.get(*key) else { continue };
            let facts = match &file.source {
                _ if file.is_lost || session.end.is_some() => None,
                _ if file.is_named => found.get(&session.path).copied(),
                Some(source) if !file.is_waiting => source.facts().ok().flatten(),
                _ => None,
            };
            // One that waits need not be looked at for what is to be read, but may be truncated.
            let is_same = |facts: &Facts| {
                (file.is_read || file.is_waiting)
                    && facts.modified == file.modified
                    && facts.size >= session.trace.offset
            };
            if facts.is_some_and(|facts| !is_same(&facts)) {
                grown.push(*key);
            }
        }
        for key in grown {
            self.look_at(key, now);
        }
    }

    /// Watches the folders in which files are looked for, and those in which they really are.
    /// `true`: one of them is new.
    fn keep_watching(&mut self, searched: &BTreeSet<PathBuf>) -> bool {
        let mut folders: BTreeSet<PathBuf> =
            self.locations.keys().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        folders.extend(searched.iter().filter_map(|folder| fs::canonicalize(folder).ok()));
        let (is_new, failed) = self.watch.keep(&folders);
        if let Some((folder, error)) = failed {
            let text = format!("the system does not tell of changes in it ({error}): it is polled");
            self.tell_once(&folder, &text);
        }
        is_new
    }
}
