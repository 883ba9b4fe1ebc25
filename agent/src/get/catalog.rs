//! Which files there are.

use globset::{GlobBuilder, GlobMatcher};
use sheaf_proto::{
    files::{RebuiltFile, RebuiltFiles},
    names::{FILES_MAX, FILES_PATH},
};

use super::{
    reading::Place,
    remote::{GetError, Remote},
};
use crate::{
    output,
    table::Table,
    text::{grouped, printable},
};

/// What ids match: `*` and `?` stay between two slashes, `**` does not.
#[derive(Debug)]
pub(super) struct Pattern {
    matcher: GlobMatcher,
    /// What all of them begin with.
    prefix: String,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// If its wildcards make no sense.
    pub(super) fn parse(text: &str) -> Result<Pattern, GetError> {
        let matcher = GlobBuilder::new(text).literal_separator(true).build()?.compile_matcher();
        let prefix = text.split(['*', '?', '[', '{', '\\']).next().unwrap_or_default();
        Ok(Pattern { matcher, prefix: prefix.to_owned() })
    }

    fn is_match(&self, id: &str) -> bool {
        self.matcher.is_match(id)
    }
}

/// Prints all files that match. `true`: nothing is missing.
///
/// # Errors
/// If no node answers, or nothing can be printed.
pub(super) async fn print(
    remote: &mut Remote,
    pattern: Option<&Pattern>,
    is_json: bool,
) -> Result<bool, GetError> {
    let prefix = pattern.map_or("", |pattern| &pattern.prefix);
    let mut query = format!("?limit={FILES_MAX}&prefix={}", escaped(prefix));
    let (mut is_complete, mut is_first) = (true, true);
    loop {
        let mut page: RebuiltFiles = remote.ask(&format!("{FILES_PATH}{query}")).await?;
        page.files.retain(|file| pattern.is_none_or(|pattern| pattern.is_match(&file.id)));
        is_complete &= page.complete;
        let next = page.next.take();
        // A page of which nothing matches is not worth a word, if there are others.
        if is_json || !page.files.is_empty() || (is_first && next.is_none()) {
            let text = if is_json { json(&page)? } else { table(&page.files) };
            output::result(&text).map_err(GetError::Print)?;
            is_first = false;
        }
        if let Some(waits_for) = &page.waits_for {
            let nodes: Vec<_> = waits_for.nodes.iter().map(u64::to_string).collect();
            output::note(&format!(
                "sheaf: something may be missing: the files of slots {} wait for {}",
                printable(&waits_for.slots),
                nodes.join(", "),
            ));
        }
        let Some(next) = next else { return Ok(is_complete) };
        let prefix = escaped(prefix);
        query = format!("?limit={FILES_MAX}&prefix={prefix}&continue={}", escaped(&next));
    }
}

fn json(page: &RebuiltFiles) -> Result<String, GetError> {
    serde_json::to_string(page).map_err(|error| GetError::Print(error.into()))
}

fn table(files: &[RebuiltFile]) -> String {
    if files.is_empty() {
        return "no files".to_owned();
    }
    let heads = [
        "id",
        "session",
        "bytes",
        "checkpointed",
        "waits for",
        "waiting",
        "contradicting",
        "removed",
    ];
    let mut table = Table::new(1, heads);
    for file in files {
        let some = |count: u64| if count == 0 { "-".to_owned() } else { grouped(count) };
        table.row([
            printable(&file.id),
            file.session.to_string(),
            grouped(file.bytes),
            grouped(file.checkpointed_bytes),
            some(file.waits_for.unwrap_or(0)),
            some(file.waiting),
            some(file.contradicting),
            some(file.removed_bytes),
        ]);
    }
    table.render().trim_end().to_owned()
}

/// All sessions of an id, the oldest first.
///
/// # Errors
/// If no node answers.
pub(super) async fn sessions(remote: &mut Remote, id: &str) -> Result<RebuiltFiles, GetError> {
    let first = format!("{FILES_PATH}?limit={FILES_MAX}&id={}", escaped(id));
    let mut list: RebuiltFiles = remote.ask(&first).await?;
    while let Some(next) = list.next.take() {
        let page = format!("{first}&continue={}", escaped(&next));
        let page: RebuiltFiles = remote.ask(&page).await?;
        list.files.extend(page.files);
        list.complete &= page.complete;
        list.next = page.next;
    }
    Ok(list)
}

/// A session of an id, if it is there, and the next one.
///
/// # Errors
/// If no node answers.
pub(super) async fn from_session(
    remote: &mut Remote,
    id: &str,
    session: u64,
) -> Result<Vec<RebuiltFile>, GetError> {
    let mut path = format!("{FILES_PATH}?limit=2&id={}", escaped(id));
    if let Some(before) = session.checked_sub(1) {
        path.push_str(&format!("&continue={}", escaped(&format!("{before}/{id}"))));
    }
    Ok(remote.ask::<RebuiltFiles>(&path).await?.files)
}

/// Whether a file comes after the one that is read.
pub(super) fn is_newer(file: &RebuiltFile, place: &Place) -> bool {
    file.session > place.session
}

/// A text as a part of a path or a query.
pub(super) fn escaped(text: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| match is_plain(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_within_slashes_and_say_how_all_ids_begin() {
        for (pattern, prefix, matched, other) in [
            ("host/*.log", "host/", "host/a.log", "host/b/a.log"),
            ("host/**/a.log", "host/", "host/b/c/a.log", "host/b.log"),
            ("host/a.log", "host/a.log", "host/a.log", "host/a_log"),
            ("h?st/{a,b}", "h", "host/b", "host/c"),
            ("**", "", "host/a.log", ""),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.prefix, prefix, "{pattern}");
            assert!(read.is_match(matched), "{pattern}");
            assert!(other.is_empty() || !read.is_match(other), "{pattern}");
        }
        assert!(Pattern::parse("a[").is_err());
    }

    #[test]
    fn texts_are_escaped_for_paths() {
        assert_eq!(escaped("host/a b%ü.log"), "host%2Fa%20b%25%C3%BC.log");
    }

    #[test]
    fn a_table_tells_what_each_file_waits_for_and_lacks() {
        let file = |id: &str, waits_for| RebuiltFile {
            id: id.to_owned(),
            session: 1_790_000_000_000,
            bytes: 1_234,
            checkpointed_bytes: 1_000,
            waits_for,
            waiting: waits_for.map_or(0, |_| 2),
            contradicting: 0,
            removed_bytes: waits_for.map_or(0, |_| 1_024),
        };
        let lines = [
            "  id             session  bytes  checkpointed  waits for  waiting  contradicting  removed",
            "  a\\u{1b}  1790000000000  1,234         1,000          7        2              -    1,024",
            "  b        1790000000000  1,234         1,000          -        -              -        -",
        ];
        assert_eq!(table(&[file("a\u{1b}", Some(7)), file("b", None)]), lines.join("\n"));
        assert_eq!(table(&[]), "no files");
    }
}
