//! What a rebuilt file is called on disk.
//!
//! An id of letters, digits, `-`, `_` and dots stays as it is, and the file of its session 7 is
//! `ID.7`. Every other byte becomes `%` and two hexadecimal digits, and so does a dot that comes
//! first: no name leads out of the folder, is hidden, or means another file to some tool. A name
//! that is too long for one folder's entry goes on in a folder, whose name ends with a `%`, which
//! none else does.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use crate::event::chunk::StreamId;

/// The longest name of a file that systems take is 255 bytes; a session has up to 20, and a dot.
const PIECE_BYTES_MAX: usize = 200;
const CONTINUES: char = '%';

/// Where a rebuilt file is, below the folder of all of them.
pub fn path_of(id: &StreamId, session: u64) -> PathBuf {
    let (mut path, mut piece) = (PathBuf::new(), String::new());
    for (place, &byte) in id.as_str().as_bytes().iter().enumerate() {
        if piece.len() + 3 > PIECE_BYTES_MAX {
            piece.push(CONTINUES);
            path.push(std::mem::take(&mut piece));
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => piece.push(char::from(byte)),
            b'.' if place > 0 => piece.push('.'),
            // Writing to a text cannot fail.
            _ => drop(write!(piece, "%{byte:02X}")),
        }
    }
    path.push(format!("{piece}.{session}"));
    path
}

/// The id and the session of the file at a path below the folder of all of them; `None` if
/// no file of ours is called so.
pub fn of_path(path: &Path) -> Option<(StreamId, u64)> {
    let mut name = String::new();
    for component in path.components() {
        let Component::Normal(piece) = component else { return None };
        if name.ends_with(CONTINUES) {
            name.pop();
        }
        name.push_str(piece.to_str()?);
    }
    let (escaped, session) = name.rsplit_once('.')?;
    let id = StreamId::try_from(unescaped(escaped)?).ok()?;
    let session = session.parse().ok()?;
    (path_of(&id, session) == path).then_some((id, session))
}

fn unescaped(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(id: &str) -> String {
        path_of(&id.to_owned().try_into().unwrap(), 7).to_str().unwrap().to_owned()
    }

    #[test]
    fn plain_ids_stay_plain_and_others_are_escaped() {
        for (id, expected) in [
            ("log1.log", "log1.log.7"),
            ("app_1-2.LOG", "app_1-2.LOG.7"),
            ("host/var/log", "host%2Fvar%2Flog.7"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.7"),
            ("..", "%2E..7"),
            (".", "%2E.7"),
            ("a\0b", "a%00b.7"),
            ("100%", "100%25.7"),
            ("größe", "gr%C3%B6%C3%9Fe.7"),
            (" ", "%20.7"),
            ("%2F", "%252F.7"),
        ] {
            assert_eq!(name(id), expected, "{id:?}");
        }
    }

    #[test]
    fn a_long_id_goes_on_in_folders() {
        let long = "x".repeat(300);
        let expected = format!("{}%/{}.7", "x".repeat(198), "x".repeat(102));
        assert_eq!(name(&long), expected);
        let longest = "/".repeat(1024);
        assert!(name(&longest).len() < 4000, "a path has at most 4096 bytes");
        assert!(name(&longest).split('/').all(|piece| piece.len() <= PIECE_BYTES_MAX + 2));
    }

    #[test]
    fn names_that_are_not_ours_mean_no_file() {
        for foreign in
            ["log1.log", "a.x", "a.-7", "a.07", "../a.7", "/a.7", "a/b.7", "%2f.7", "%zz.7", ".7"]
        {
            assert_eq!(of_path(Path::new(foreign)), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_read_back(id in "(\\.|/|%|[a-z]|\\PC|\0){1,300}", session: u64) {
            prop_assume!(id.len() <= 1024);
            let id = StreamId::try_from(id).unwrap();
            let path = path_of(&id, session);
            prop_assert!(path.components().all(|piece| matches!(piece, Component::Normal(_))));
            prop_assert!(path.iter().all(|piece| piece.len() <= 255));
            prop_assert_eq!(of_path(&path), Some((id, session)));
        }

        #[test]
        fn two_ids_never_share_a_file(one in "[a./%]{1,9}", other in "[a./%]{1,9}") {
            let names = [&one, &other].map(|id| path_of(&id.clone().try_into().unwrap(), 1));
            prop_assert_eq!(one == other, names[0] == names[1]);
        }
    }
}
