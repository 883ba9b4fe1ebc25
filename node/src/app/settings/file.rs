//! The settings file: YAML, with the lines that errors name.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::SettingsError;
use super::flags;
use super::given::{Given, Origin};
use crate::aggregation::definition::{Definition, Written};

/// The key of the list of aggregations, the one setting that is no flag.
const AGGREGATIONS: &str = "aggregations";

/// A settings file; each value in it is valid.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    pub(super) settings: Given,
    /// `None` if the file has no such key.
    pub(super) aggregations: Option<Vec<Definition>>,
}

impl Document {
    /// Reads the text of the file at `path`.
    pub(super) fn parse(path: PathBuf, text: &str) -> Result<Self, SettingsError> {
        let options = serde_saphyr::Options { with_snippet: false, ..Default::default() };
        let entries: Entries = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| malformed(&path, &error))?;
        let mut document = Document { path, settings: Given::default(), aggregations: None };
        for entry in entries.0 {
            document.take(entry)?;
        }
        Ok(document)
    }

    fn take(&mut self, Entry { key, content }: Entry) -> Result<(), SettingsError> {
        let at = |location: Location| Origin::File {
            path: self.path.clone(),
            line: location.line(),
            key: key.value.clone(),
        };
        match content {
            Content::Values { id, values } => {
                let origin = at(values.referenced);
                let values = checked(&id, values.value, &origin)?;
                self.settings.set(&id, origin, values);
                Ok(())
            }
            Content::Aggregations(list) if list.is_empty() => {
                let reason = "the list is empty: name one at least, or leave the key out";
                Err(invalid(at(key.referenced), reason))
            }
            Content::Aggregations(list) => {
                let definitions = list.into_iter().map(|Spanned { value, referenced, .. }| {
                    Definition::try_from(value)
                        .map_err(|error| invalid(at(referenced), &error.to_string()))
                });
                self.aggregations = Some(definitions.collect::<Result<_, _>>()?);
                Ok(())
            }
            Content::Unknown => {
                let reason = "there is no such setting (see --help for their names)";
                Err(invalid(at(key.referenced), reason))
            }
        }
    }
}

fn checked(
    id: &str,
    OneOrMore(values): OneOrMore,
    origin: &Origin,
) -> Result<Vec<OsString>, SettingsError> {
    if values.is_empty() {
        let reason = "write a text, in quotes if it is no plain word, or a list of texts";
        return Err(invalid(origin.clone(), reason));
    }
    let values: Vec<OsString> = values.into_iter().map(OsString::from).collect();
    for value in &values {
        flags::check(id, value).map_err(|reason| invalid(origin.clone(), &reason))?;
    }
    Ok(values)
}

fn invalid(origin: Origin, reason: &str) -> SettingsError {
    SettingsError::Invalid { origin, reason: reason.to_owned() }
}

/// An error of the YAML itself, or of the shape of a value.
fn malformed(path: &Path, error: &serde_saphyr::Error) -> SettingsError {
    let text = error.to_string().replace('\n', " ");
    let (reason, line) = match error.location() {
        Some(place) => {
            let said_by_us = format!(" at line {}, column {}", place.line(), place.column());
            (text.replace(&said_by_us, ""), Some(place.line()))
        }
        None => (text, None),
    };
    SettingsError::Malformed { path: path.to_owned(), line, reason }
}

/// The file as it is written, in its order.
#[derive(Default)]
struct Entries(Vec<Entry>);

struct Entry {
    key: Spanned<String>,
    content: Content,
}

enum Content {
    Values { id: String, values: Spanned<OneOrMore> },
    Aggregations(Vec<Spanned<Written>>),
    Unknown,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, each as \"name: value\"")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Entries, E> {
        Ok(Entries::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let command = flags::command();
        let known = |key: &str| {
            command
                .get_arguments()
                .find(|arg| flags::key(arg) == key && arg.get_id() != "config")
                .map(|arg| (arg.get_id().to_string(), flags::is_list(arg)))
        };
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let content = match known(&key.value) {
                Some((id, true)) => Content::Values { id, values: map.next_value()? },
                Some((id, false)) => Content::Values { id, values: one(map.next_value()?) },
                None if key.value == AGGREGATIONS => Content::Aggregations(map.next_value()?),
                None => map.next_value::<IgnoredAny>().map(|_| Content::Unknown)?,
            };
            entries.push(Entry { key, content });
        }
        Ok(Entries(entries))
    }
}

fn one(text: Spanned<String>) -> Spanned<OneOrMore> {
    Spanned::new(OneOrMore(vec![text.value]), text.referenced, text.defined)
}

/// What may stand under the key of a list; empty for what may not, because an error
/// from here would not know its line.
struct OneOrMore(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMoreVisitor)
    }
}

struct OneOrMoreVisitor;

impl<'de> Visitor<'de> for OneOrMoreVisitor {
    type Value = OneOrMore;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
        Ok(OneOrMore(vec![text.to_owned()]))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<OneOrMore, E> {
        Ok(OneOrMore(Vec::new()))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<OneOrMore, E> {
        Ok(OneOrMore(Vec::new()))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<OneOrMore, E> {
        Ok(OneOrMore(Vec::new()))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<OneOrMore, E> {
        Ok(OneOrMore(Vec::new()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<OneOrMore, E> {
        Ok(OneOrMore(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(OneOrMore(texts))
    }
}
