//! What was followed before a restart.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    FollowError, Followed, Follower,
    search::{self, Elsewhere},
};
use crate::tail::{
    identity::Likeness,
    report::tell_of,
    session::{End, Entry, Key, Session},
    source::{Facts, Source},
};

impl Follower {
    /// Finds the files again that were followed before.
    pub(super) fn resume(&mut self) -> Result<(), FollowError> {
        let found = self.find().files;
        let names = names(&found);
        let keys: Vec<Key> = self.state.sessions().iter().map(|session| session.key).collect();
        for key in keys {
            let Some(session) = self.state.get(key).cloned() else { continue };
            match session.end {
                Some(End::Complete(_)) => {
                    self.complete.insert(session.inode.place(), key);
                }
                // Empty files are all alike.
                _ if session.trace.is_blank() => self.forget(key)?,
                _ => self.resume_one(&session, &found, &names)?,
            }
        }
        Ok(())
    }

    fn resume_one(
        &mut self,
        session: &Session,
        found: &BTreeMap<PathBuf, Facts>,
        names: &HashMap<(u64, u64), Vec<&Path>>,
    ) -> Result<(), FollowError> {
        let key = session.key;
        let handed = session.unanswered.front().map_or(session.seq, |cut| cut.seq - 1);
        let before = self.state.sessions().before(session).map(|before| before.key);
        let predecessor = before.filter(|key| session.seq == 0 && self.files.contains_key(key));
        let file = Followed { handed, predecessor, ..Followed::new(Instant::now()) };
        let names = names.get(&session.inode.place()).map(Vec::as_slice).unwrap_or_default();
        let own = names.iter().find(|name| **name == session.path).or(names.first());
        if let Some(path) = own {
            let path = path.to_path_buf();
            if let Some(Elsewhere { source, .. }) =
                search::like(session, path.clone(), Likeness::Same)
            {
                if path != session.path {
                    let inode = session.inode;
                    self.state.record(Entry::Moved { key, path, inode })?;
                }
                self.follow(key, file, Some(source));
                return Ok(());
            }
            if found.get(&path).is_some_and(|facts| facts.inode.is(&session.inode)) {
                self.follow(key, file, None);
                // What cannot be opened now has not lost anything.
                return match Source::open(&path) {
                    Ok(_) => self.truncated(key),
                    Err(_) => Ok(()),
                };
            }
        }
        let renamed = search::renamed(session).map(|found| found.source);
        let is_lost = renamed.is_none();
        self.follow(key, Followed { is_named: false, is_lost, ..file }, renamed);
        if is_lost && session.end.is_none() {
            tell_of(
                &session.path,
                "it went away while nobody followed it; what was not read is lost",
            );
        }
        self.keep_unanswered(key, session)?;
        self.give_up_lost(key)
    }
}

/// Which names lead to each file.
fn names(found: &BTreeMap<PathBuf, Facts>) -> HashMap<(u64, u64), Vec<&Path>> {
    let mut names: HashMap<(u64, u64), Vec<&Path>> = HashMap::new();
    for (path, facts) in found {
        names.entry(facts.inode.place()).or_default().push(path);
    }
    names
}
