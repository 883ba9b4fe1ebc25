//! What of a file a request asks for: conditions and ranges (RFC 9110, sections 13 and 14).

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, StatusCode, header};

/// What is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The whole file.
    Whole,
    /// These of its bytes, one at least.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Beyond,
    /// That a condition is so, or is not.
    Nothing(StatusCode),
}

/// What headers ask for of a file of so many bytes, which a strong tag tells from all others. A
/// range that cannot be read, or several, are as none.
pub(super) fn wanted(headers: &HeaderMap, tag: &str, bytes: u64) -> Wanted {
    let tags = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if tags(header::IF_MATCH).is_some_and(|tags| !names(tags, tag, false)) {
        return Wanted::Nothing(StatusCode::PRECONDITION_FAILED);
    }
    if tags(header::IF_NONE_MATCH).is_some_and(|tags| names(tags, tag, true)) {
        return Wanted::Nothing(StatusCode::NOT_MODIFIED);
    }
    // A file that has grown since is another one: who knows that it only grows asks without.
    if headers.get(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Wanted::Whole;
    }
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    match range.and_then(one_range) {
        None => Wanted::Whole,
        Some(asked) => asked.of(bytes).map_or(Wanted::Beyond, Wanted::Part),
    }
}

/// Whether a list of tags names one, or everything; a weak one does if that is enough.
fn names(tags: &str, tag: &str, is_weak_enough: bool) -> bool {
    tags.split(',').map(str::trim).any(|known| {
        let strong = known.strip_prefix("W/").filter(|_| is_weak_enough).unwrap_or(known);
        known == "*" || strong == tag
    })
}

/// A range as it was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// From the first to the last byte, or to the end.
    From(u64, Option<u64>),
    /// So many of the last bytes.
    Last(u64),
}

fn one_range(text: &str) -> Option<Asked> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", last) => Some(Asked::Last(number(last)?)),
        (first, "") => Some(Asked::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

impl Asked {
    /// What there is of it in so many bytes; `None` if that is nothing.
    fn of(&self, bytes: u64) -> Option<Range<u64>> {
        let part = match *self {
            Asked::From(first, last) => {
                first..last.map_or(bytes, |last| last.saturating_add(1).min(bytes))
            }
            Asked::Last(count) => bytes.saturating_sub(count)..bytes,
        };
        (!part.is_empty()).then_some(part)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TAG: &str = "\"10-ab\"";

    fn of(headers: &[(HeaderName, &'static str)]) -> Wanted {
        let headers = headers.iter().cloned();
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        wanted(&headers.collect(), TAG, 10)
    }

    #[test]
    fn one_range_is_a_part_of_what_there_is() {
        for (range, part) in [
            ("bytes=0-3", 0..4),
            ("bytes=9-9", 9..10),
            ("bytes=3-", 3..10),
            ("Bytes=3-99", 3..10),
            ("bytes=-4", 6..10),
            ("bytes=-99", 0..10),
            ("bytes=0-18446744073709551615", 0..10),
        ] {
            assert_eq!(of(&[(header::RANGE, range)]), Wanted::Part(part), "{range}");
        }
        for range in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(of(&[(header::RANGE, range)]), Wanted::Beyond, "{range}");
        }
    }

    #[test]
    fn what_is_no_single_range_is_as_none() {
        for range in [
            "bytes=4-3",
            "bytes=0-1,3-4",
            "lines=0-3",
            "bytes",
            "bytes=-",
            "bytes=+1-2",
            "bytes=a-",
        ] {
            assert_eq!(of(&[(header::RANGE, range)]), Wanted::Whole, "{range}");
        }
    }

    #[test]
    fn a_part_is_for_whoever_knows_the_same_file() {
        let range = (header::RANGE, "bytes=3-5");
        assert_eq!(of(&[range.clone(), (header::IF_RANGE, TAG)]), Wanted::Part(3..6));
        for other in ["\"9-aa\"", "W/\"10-ab\"", "Sat, 21 Nov 2026 00:00:00 GMT"] {
            assert_eq!(of(&[range.clone(), (header::IF_RANGE, other)]), Wanted::Whole, "{other}");
        }
    }

    #[test]
    fn whoever_has_the_file_is_told_so() {
        for tags in ["\"10-ab\"", "W/\"10-ab\"", "\"x\", \"10-ab\"", "*"] {
            let same = Wanted::Nothing(StatusCode::NOT_MODIFIED);
            assert_eq!(of(&[(header::IF_NONE_MATCH, tags)]), same, "{tags}");
        }
        assert_eq!(of(&[(header::IF_NONE_MATCH, "\"9-aa\"")]), Wanted::Whole);
        assert_eq!(of(&[(header::IF_MATCH, "\"10-ab\"")]), Wanted::Whole);
        let other = Wanted::Nothing(StatusCode::PRECONDITION_FAILED);
        assert_eq!(of(&[(header::IF_MATCH, "W/\"10-ab\"")]), other);
    }
}
