//! Finds files that are not where they were: in the same folder, under another name.

use std::{
    fs::{self, DirEntry},
    os::unix::fs::DirEntryExt,
    path::{Path, PathBuf},
};

use crate::tail::{
    identity::{Evidence, Likeness},
    session::Session,
    source::{Facts, Source},
};

/// A file that has what a session has read.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) path: PathBuf,
    pub(super) source: Source,
    pub(super) facts: Facts,
}

/// The session's own file, after it was renamed.
pub(super) fn renamed(session: &Session) -> Option<Elsewhere> {
    let is_it = |entry: &DirEntry| entry.ino() == session.inode.number;
    in_folder_of(&session.path, is_it).filter_map(|path| like(session, path, Likeness::Same)).next()
}

/// The youngest copy of the session's file, which was last written to at `modified`, if that is
/// known. If nothing was read of it older files may begin as it did, and are no copies.
pub(super) fn copied(session: &Session, modified: i64) -> Option<Elsewhere> {
    let is_unread = session.trace.offset == 0;
    let first_seen = i64::try_from(session.number).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    let since = match modified {
        _ if !is_unread => i64::MIN,
        0 => first_seen,
        modified => modified,
    };
    let is_no_folder = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    in_folder_of(&session.path, is_no_folder)
        .filter_map(|path| like(session, path, Likeness::Copy))
        .filter(|copy| copy.facts.modified >= since)
        .max_by_key(|copy| copy.facts.modified)
}

/// The file, if it is to the session's what is wanted.
pub(super) fn like(session: &Session, path: PathBuf, wanted: Likeness) -> Option<Elsewhere> {
    let (source, facts) = Source::open(&path).ok().flatten()?;
    // Its bytes need not be read if it is too short to have them.
    if facts.size < session.trace.offset {
        return None;
    }
    let evidence: Evidence = source.evidence(&session.trace, &facts).ok()?;
    let likeness = session.trace.compare(&session.inode, &evidence);
    (likeness == wanted).then_some(Elsewhere { path, source, facts })
}

/// What cannot be looked at is not there.
fn in_folder_of(path: &Path, wanted: impl Fn(&DirEntry) -> bool) -> impl Iterator<Item = PathBuf> {
    // Links are followed: the file is where the last one leads.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(move |entry| wanted(entry)).map(|entry| entry.path())
}
