//! Which files are followed: patterns like `/var/log/*/app-?.log`, and what they match.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};

/// Links in a circle would lead on for ever.
const DEPTH_MAX: usize = 64;

/// A pattern, part by part.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    /// A name without wildcards.
    Name(OsString),
    /// One with wildcards. What begins with a dot has to be asked for.
    Wild { matcher: GlobMatcher, hidden: bool },
    /// `**`: any number of folders.
    Folders,
}

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidPattern {
    /// Its wildcards.
    #[error("{0}")]
    Wildcards(#[from] globset::Error),
    /// It names no file.
    #[error("a pattern for files is expected, like '/var/log/app/*.log'")]
    NoFile,
    /// It is relative, and nobody knows to what.
    #[error("the current folder cannot be found: {0}")]
    NoFolder(#[from] io::Error),
}

/// What patterns match.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// Files, or what may be one: links too.
    pub(crate) files: BTreeSet<PathBuf>,
    /// The folders in which they were looked for.
    pub(crate) folders: BTreeSet<PathBuf>,
    /// Folders that cannot be looked into.
    pub(crate) closed: Vec<(PathBuf, io::Error)>,
}

impl Pattern {
    /// Reads a pattern; a relative one begins at the current folder.
    pub(crate) fn parse(text: &Path) -> Result<Pattern, InvalidPattern> {
        let absolute = std::path::absolute(text)?;
        if text.as_os_str().as_bytes().last().is_none_or(|byte| *byte == b'/') {
            return Err(InvalidPattern::NoFile);
        }
        let mut parts = Vec::new();
        for component in absolute.components() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => parts.push(Part::Name("..".into())),
                Component::Normal(name) => parts.push(Part::parse(name)?),
            }
        }
        match parts.last() {
            None | Some(Part::Folders) => Err(InvalidPattern::NoFile),
            Some(_) => Ok(Pattern { parts }),
        }
    }

    /// Adds what it matches now.
    pub(crate) fn find(&self, matches: &mut Matches) {
        walk(Path::new("/"), &self.parts, DEPTH_MAX, matches);
    }
}

impl Part {
    fn parse(name: &std::ffi::OsStr) -> Result<Part, InvalidPattern> {
        let is_wild = |byte: &u8| b"*?[{".contains(byte);
        match name.to_str() {
            Some("**") => Ok(Part::Folders),
            Some(text) if text.bytes().any(|byte| is_wild(&byte)) => {
                let matcher = GlobBuilder::new(text).literal_separator(true).build()?;
                let hidden = text.starts_with('.');
                Ok(Part::Wild { matcher: matcher.compile_matcher(), hidden })
            }
            _ => Ok(Part::Name(name.to_owned())),
        }
    }
}

fn walk(folder: &Path, parts: &[Part], depth: usize, matches: &mut Matches) {
    let (Some((part, rest)), Some(depth)) = (parts.split_first(), depth.checked_sub(1)) else {
        return;
    };
    match part {
        Part::Name(name) if rest.is_empty() => {
            matches.files.insert(folder.join(name));
            matches.folders.insert(folder.to_owned());
        }
        Part::Name(name) => walk(&folder.join(name), rest, depth, matches),
        Part::Wild { matcher, hidden } => {
            for (path, is_folder) in children(folder, *hidden, matches) {
                let is_match = path.file_name().is_some_and(|name| matcher.is_match(name));
                match (is_match, rest.is_empty()) {
                    (true, true) if is_folder != Some(true) => {
                        matches.files.insert(path);
                    }
                    (true, false) if is_folder != Some(false) && path.is_dir() => {
                        walk(&path, rest, depth, matches);
                    }
                    _ => {}
                }
            }
        }
        Part::Folders => {
            walk(folder, rest, depth, matches);
            for (path, is_folder) in children(folder, false, matches) {
                // Links are not followed: they may lead upwards.
                if is_folder == Some(true) {
                    walk(&path, parts, depth, matches);
                }
            }
        }
    }
}

/// What is in a folder, and whether it is one itself; nobody knows of a link.
fn children(folder: &Path, hidden: bool, matches: &mut Matches) -> Vec<(PathBuf, Option<bool>)> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Vec::new();
        }
        Err(error) => {
            matches.closed.push((folder.to_owned(), error));
            return Vec::new();
        }
    };
    matches.folders.insert(folder.to_owned());
    let visible = |name: &OsString| hidden || !name.as_bytes().starts_with(b".");
    // An entry that cannot be read is gone, or is there the next time.
    let entries = entries.flatten().filter(|entry| visible(&entry.file_name()));
    let is_folder = |entry: &fs::DirEntry| {
        entry.file_type().ok().filter(|kind| !kind.is_symlink()).map(|kind| kind.is_dir())
    };
    entries.map(|entry| (entry.path(), is_folder(&entry))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with some files, and what of it a pattern matches.
    fn found(pattern: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/one.log", "a/two.log", "a/.three.log", "a/b/one.log", "a/b/c/four.txt"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        symlink("..", folder.path().join("a/b/up")).unwrap();
        symlink("one.log", folder.path().join("a/link.log")).unwrap();
        let mut matches = Matches::default();
        Pattern::parse(&folder.path().join(pattern)).unwrap().find(&mut matches);
        let relative = |path: &PathBuf| path.strip_prefix(folder.path()).unwrap().to_owned();
        matches.files.iter().map(|path| relative(path).to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn wildcards_match_within_a_folder() {
        assert_eq!(found("a/*.log"), ["a/link.log", "a/one.log", "a/two.log"]);
        assert_eq!(found("a/t?o.log"), ["a/two.log"]);
        assert_eq!(found("*/{one,two}.log"), ["a/one.log", "a/two.log"]);
        assert_eq!(found("a/[n-z]*.log"), ["a/one.log", "a/two.log"]);
        assert_eq!(found("a/.*.log"), ["a/.three.log"]);
        assert_eq!(found("b/*.log"), [""; 0]);
    }

    #[test]
    fn two_stars_match_any_number_of_folders() {
        assert_eq!(found("**/one.log").len(), 4);
        assert_eq!(found("**/*.txt"), ["a/b/c/four.txt"]);
        assert_eq!(found("a/**/o*.log"), ["a/b/one.log", "a/one.log"]);
    }

    #[test]
    fn a_name_is_followed_before_there_is_a_file() {
        assert_eq!(found("a/later.log"), ["a/later.log"]);
    }

    #[test]
    fn folders_are_no_files() {
        for text in ["/", "a/", "a/**", ""] {
            assert!(Pattern::parse(Path::new(text)).is_err(), "{text}");
        }
        assert!(Pattern::parse(Path::new("a/[")).is_err());
    }
}
