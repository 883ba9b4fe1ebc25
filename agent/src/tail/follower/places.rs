//! What became of the followed files, by the names that lead to files now. No clock, no I/O.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use crate::tail::{identity::Inode, session::Key};

/// A followed file, and the name that led to it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) key: Key,
    pub(crate) inode: Inode,
    /// Nothing, if no name that is followed does.
    pub(crate) path: Option<&'a Path>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its name leads elsewhere or nowhere: it was renamed or deleted.
    Leave(Key),
    /// Another name leads to it now.
    Move(Key, PathBuf),
    /// A file that is not followed yet.
    Adopt(PathBuf),
}

/// Compares what is followed with what was found. A file with several names keeps the one it has;
/// files leave before others take their names.
pub(crate) fn reconcile(known: &[Place<'_>], found: &BTreeMap<PathBuf, Inode>) -> Vec<Step> {
    let leads_to = |path: &Path, inode: &Inode| found.get(path).is_some_and(|it| it.is(inode));
    let by_place: HashMap<(u64, u64), &Place<'_>> =
        known.iter().map(|place| (place.inode.place(), place)).collect();
    let mut settled: HashSet<Key> = known
        .iter()
        .filter(|place| place.path.is_some_and(|path| leads_to(path, &place.inode)))
        .map(|place| place.key)
        .collect();
    let (mut moves, mut adoptions) = (Vec::new(), Vec::new());
    let mut adopted = HashSet::new();
    for (path, inode) in found {
        match by_place.get(&inode.place()).filter(|place| place.inode.is(inode)) {
            Some(place) if settled.insert(place.key) => {
                moves.push(Step::Move(place.key, path.clone()));
            }
            Some(_) => {}
            None if adopted.insert(inode.place()) => adoptions.push(Step::Adopt(path.clone())),
            None => {}
        }
    }
    let leaving = known
        .iter()
        .filter(|place| place.path.is_some() && !settled.contains(&place.key))
        .map(|place| Step::Leave(place.key));
    leaving.chain(moves).chain(adoptions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(number: u64) -> Inode {
        Inode { device: 1, number, born: Some(number as i64) }
    }

    /// Files as (key, inode, path), and paths with the inode that each leads to.
    fn steps(known: &[(Key, u64, &'static str)], found: &[(&str, u64)]) -> Vec<Step> {
        let place = |(key, number, path): &(Key, u64, &'static str)| Place {
            key: *key,
            inode: inode(*number),
            path: (!path.is_empty()).then_some(Path::new(*path)),
        };
        let known: Vec<Place<'_>> = known.iter().map(place).collect();
        let found = found.iter().map(|(path, number)| (path.into(), inode(*number))).collect();
        reconcile(&known, &found)
    }

    fn adopt(path: &str) -> Step {
        Step::Adopt(path.into())
    }

    #[test]
    fn what_stays_needs_nothing() {
        assert_eq!(steps(&[(1, 7, "/a"), (2, 8, "/b")], &[("/a", 7), ("/b", 8)]), []);
    }

    #[test]
    fn a_renamed_file_leaves_before_the_next_is_adopted() {
        assert_eq!(steps(&[(1, 7, "/a")], &[("/a", 8)]), [Step::Leave(1), adopt("/a")]);
        assert_eq!(steps(&[(1, 7, "/a")], &[]), [Step::Leave(1)]);
        assert_eq!(steps(&[(1, 7, "")], &[("/a", 8)]), [adopt("/a")]);
    }

    #[test]
    fn a_file_that_is_renamed_to_another_followed_name_is_the_same() {
        let rotated = [("/a", 9), ("/a.1", 8), ("/a.2", 7)];
        let wanted = [Step::Move(1, "/a.1".into()), Step::Move(2, "/a.2".into()), adopt("/a")];
        assert_eq!(steps(&[(1, 8, "/a"), (2, 7, "/a.1")], &rotated), wanted);
    }

    #[test]
    fn a_file_comes_back() {
        let switched = [Step::Leave(2), Step::Move(1, "/a".into())];
        assert_eq!(steps(&[(1, 7, ""), (2, 8, "/a")], &[("/a", 7)]), switched);
    }

    #[test]
    fn a_file_with_several_names_is_followed_once() {
        assert_eq!(steps(&[], &[("/a", 7), ("/b", 7)]), [adopt("/a")]);
        assert_eq!(steps(&[(1, 7, "/b")], &[("/a", 7), ("/b", 7)]), []);
    }

    #[test]
    fn a_reused_inode_is_another_file() {
        let known = [Place { key: 1, inode: inode(7), path: Some(Path::new("/a")) }];
        let reborn = Inode { born: Some(99), ..inode(7) };
        let found = BTreeMap::from([("/a".into(), reborn)]);
        assert_eq!(reconcile(&known, &found), [Step::Leave(1), adopt("/a")]);
    }
}
