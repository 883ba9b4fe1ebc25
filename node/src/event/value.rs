//! The canonical bytes of OTLP values: what fingerprints cover, and how a
//! counted value is kept.
//!
//! A value is a header word (8 bytes, little-endian: `tag | len << 8`) and its
//! content. No encoding is the beginning of another, and two values have the same
//! bytes if and only if they are the same value. Golden vectors fix the bytes:
//! they are on disk and under every fingerprint (docs/adr/0002-fingerprints.md).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

/// How deep values may stand in one another: a value in an array is one level below the array.
pub const NESTING_MAX: usize = 64;

/// Bytes of a header word.
pub const HEADER_BYTES: usize = 8;

const LEN_MAX: usize = (1 << 56) - 1;

/// The type of a value: the low byte of its header. A number once given is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// There is no such attribute, or no body. Length 0.
    Absent = 0,
    /// An `AnyValue` without a value. Length 0.
    Empty = 1,
    /// Length: bytes of UTF-8.
    String = 2,
    /// Length 1: 0 or 1.
    Bool = 3,
    /// Length 8: little-endian, two's complement.
    Int = 4,
    /// Length 8: IEEE 754, little-endian; -0 is written as 0, every NaN as one NaN.
    Double = 5,
    /// Length: bytes.
    Bytes = 6,
    /// Length: elements; they follow in their order.
    Array = 7,
    /// Length: entries; each is a string, the key, and a value. Sorted by the key's
    /// bytes; of equal keys only the first stays.
    Map = 8,
    /// A whole log record. Length: fields. Only ever hashed, never kept.
    Record = 9,
    /// Stands before the canonical bytes when the hash of a value is wanted, not a
    /// fingerprint: nothing canonical begins with it.
    ValueHash = 255,
}

impl Tag {
    fn of(byte: u8) -> Option<Tag> {
        Some(match byte {
            0 => Tag::Absent,
            1 => Tag::Empty,
            2 => Tag::String,
            3 => Tag::Bool,
            4 => Tag::Int,
            5 => Tag::Double,
            6 => Tag::Bytes,
            7 => Tag::Array,
            8 => Tag::Map,
            _ => return None,
        })
    }
}

/// The header word of a value.
pub const fn header(tag: Tag, len: usize) -> u64 {
    debug_assert!(len <= LEN_MAX);
    tag as u64 | (len as u64) << 8
}

/// The header word of a string of `len` bytes.
pub const fn string_header(len: usize) -> u64 {
    header(Tag::String, len)
}

/// Appends a header word. An array's or a map's elements, a record's fields, come next.
pub fn put_header(tag: Tag, len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(tag, len).to_le_bytes());
}

/// Appends a string.
pub fn put_string(utf8: &[u8], out: &mut Vec<u8>) {
    put_header(Tag::String, utf8.len(), out);
    out.extend_from_slice(utf8);
}

/// Appends a truth value.
pub fn put_bool(value: bool, out: &mut Vec<u8>) {
    put_header(Tag::Bool, 1, out);
    out.push(value.into());
}

/// Appends a 64-bit integer.
pub fn put_int(value: i64, out: &mut Vec<u8>) {
    put_header(Tag::Int, 8, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a floating-point number.
pub fn put_double(value: f64, out: &mut Vec<u8>) {
    put_header(Tag::Double, 8, out);
    out.extend_from_slice(&canonical_double(value).to_bits().to_le_bytes());
}

/// Appends bytes.
pub fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_header(Tag::Bytes, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The NaN that stands for all: quiet, positive, no payload.
const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

fn canonical_double(value: f64) -> f64 {
    if value.is_nan() {
        NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

/// What an attribute lookup found in one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeValue<'a> {
    /// Neither the record nor its scope nor its resource has the attribute.
    Absent,
    /// A string: its content, valid UTF-8.
    String(&'a [u8]),
    /// The canonical bytes of a value of any other type.
    Other(&'a [u8]),
}

impl AttributeValue<'_> {
    /// Appends the value's canonical bytes.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            AttributeValue::Absent => put_header(Tag::Absent, 0, out),
            AttributeValue::String(utf8) => put_string(utf8, out),
            AttributeValue::Other(canonical) => out.extend_from_slice(canonical),
        }
    }
}

/// Bytes that are not the canonical encoding of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedValue {
    /// The bytes end within the value.
    #[error("a value ends early")]
    Truncated,
    /// There are bytes after the value.
    #[error("{0} bytes after the value")]
    Trailing(usize),
    /// No value has this tag.
    #[error("unknown value tag {0}")]
    Tag(u8),
    /// The length does not belong to this tag, or the content to this type.
    #[error("the content does not fit the value's tag {0}")]
    Content(u8),
    /// A map's keys do not ascend.
    #[error("the keys of a map are not sorted")]
    Order,
    /// Values stand deeper in one another than [`NESTING_MAX`].
    #[error("values nested deeper than {NESTING_MAX}")]
    Nesting,
}

/// The value as statistics carry it, and a hint where JSON cannot tell its type:
/// `bytes` (then it is base64) or `double` (then it is an infinity or NaN by name).
/// What is absent or empty is null.
pub fn to_json(canonical: &[u8]) -> Result<(Value, Option<&'static str>), MalformedValue> {
    let mut reader = Reader { rest: canonical };
    let (tag, value) = reader.value(1)?;
    if !reader.rest.is_empty() {
        return Err(MalformedValue::Trailing(reader.rest.len()));
    }
    let hint = match (tag, &value) {
        (Tag::Bytes, _) => Some("bytes"),
        (Tag::Double, Value::String(_)) => Some("double"),
        _ => None,
    };
    Ok((value, hint))
}

/// Reads canonical bytes that may come from a disk: nothing about them is believed.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], MalformedValue> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MalformedValue::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<[u8; 8], MalformedValue> {
        let (word, rest) = self.rest.split_first_chunk().ok_or(MalformedValue::Truncated)?;
        self.rest = rest;
        Ok(*word)
    }

    fn header(&mut self) -> Result<(Tag, usize), MalformedValue> {
        let word = u64::from_le_bytes(self.word()?);
        let [tag, ..] = word.to_le_bytes();
        let tag = Tag::of(tag).ok_or(MalformedValue::Tag(tag))?;
        // A length beyond the address space is beyond the bytes as well.
        let len = usize::try_from(word >> 8).map_err(|_| MalformedValue::Truncated)?;
        Ok((tag, len))
    }

    fn text(&mut self, len: usize) -> Result<&'a str, MalformedValue> {
        str::from_utf8(self.take(len)?).map_err(|_| MalformedValue::Content(Tag::String as u8))
    }

    fn value(&mut self, depth: usize) -> Result<(Tag, Value), MalformedValue> {
        if depth > NESTING_MAX {
            return Err(MalformedValue::Nesting);
        }
        let (tag, len) = self.header()?;
        let value = match (tag, len) {
            (Tag::Absent | Tag::Empty, 0) => Value::Null,
            (Tag::String, len) => Value::from(self.text(len)?),
            (Tag::Bool, 1) => match self.take(1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err(MalformedValue::Content(tag as u8)),
            },
            (Tag::Int, 8) => Value::from(i64::from_le_bytes(self.word()?)),
            (Tag::Double, 8) => double_to_json(f64::from_le_bytes(self.word()?)),
            (Tag::Bytes, len) => Value::from(STANDARD.encode(self.take(len)?)),
            (Tag::Array, len) => self.array(len, depth)?,
            (Tag::Map, len) => self.map(len, depth)?,
            _ => return Err(MalformedValue::Content(tag as u8)),
        };
        Ok((tag, value))
    }

    fn array(&mut self, len: usize, depth: usize) -> Result<Value, MalformedValue> {
        // The length is not believed: nothing is reserved for it.
        let mut elements = Vec::new();
        for _ in 0..len {
            elements.push(self.value(depth + 1)?.1);
        }
        Ok(Value::Array(elements))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Value, MalformedValue> {
        let mut entries = Map::new();
        let mut last: Option<&str> = None;
        for _ in 0..len {
            let (Tag::String, key_len) = self.header()? else {
                return Err(MalformedValue::Content(Tag::Map as u8));
            };
            let key = self.text(key_len)?;
            if last.is_some_and(|last| last >= key) {
                return Err(MalformedValue::Order);
            }
            last = Some(key);
            entries.insert(key.to_owned(), self.value(depth + 1)?.1);
        }
        Ok(Value::Object(entries))
    }
}

fn double_to_json(value: f64) -> Value {
    let name = if value.is_nan() {
        "NaN"
    } else if value == f64::INFINITY {
        "Infinity"
    } else {
        "-Infinity"
    };
    Number::from_f64(value).map_or_else(|| Value::from(name), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn canonical(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        out
    }

    /// {"a": [true, -1, "x"], "b": bytes 00 ff}
    fn nested() -> Vec<u8> {
        canonical(|out| {
            put_header(Tag::Map, 2, out);
            put_string(b"a", out);
            put_header(Tag::Array, 3, out);
            put_bool(true, out);
            put_int(-1, out);
            put_string(b"x", out);
            put_string(b"b", out);
            put_bytes(&[0, 255], out);
        })
    }

    #[test]
    fn the_bytes_of_every_type_are_fixed() {
        let hex =
            |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(canonical(|out| AttributeValue::Absent.write_canonical(out))),
            "0000000000000000"
        );
        assert_eq!(hex(canonical(|out| put_header(Tag::Empty, 0, out))), "0100000000000000");
        assert_eq!(hex(canonical(|out| put_string("é".as_bytes(), out))), "0202000000000000c3a9");
        assert_eq!(hex(canonical(|out| put_bool(true, out))), "030100000000000001");
        assert_eq!(hex(canonical(|out| put_int(-2, out))), "0408000000000000feffffffffffffff");
        assert_eq!(hex(canonical(|out| put_double(1.5, out))), "0508000000000000000000000000f83f");
        assert_eq!(hex(canonical(|out| put_bytes(&[0, 255], out))), "060200000000000000ff");
        assert_eq!(
            hex(nested()),
            concat!(
                "0802000000000000",
                "020100000000000061",
                "0703000000000000",
                "030100000000000001",
                "0408000000000000ffffffffffffffff",
                "020100000000000078",
                "020100000000000062",
                "060200000000000000ff",
            )
        );
    }

    #[test]
    fn zeros_are_one_value_and_so_are_nans() {
        let double = |value| canonical(|out| put_double(value, out));
        assert_eq!(double(-0.0), double(0.0));
        assert_eq!(double(f64::from_bits(0xfff0_dead_beef_0001)), double(NAN));
        assert_eq!(&double(-f64::NAN)[8..], 0x7ff8_0000_0000_0000_u64.to_le_bytes());
    }

    #[test]
    fn an_attribute_writes_the_same_bytes_as_its_value() {
        let text = canonical(|out| AttributeValue::String(b"abc").write_canonical(out));
        assert_eq!(text, canonical(|out| put_string(b"abc", out)));
        assert_eq!(text[..8], string_header(3).to_le_bytes());
        let other = canonical(|out| AttributeValue::Other(&nested()).write_canonical(out));
        assert_eq!(other, nested());
    }

    #[test]
    fn statistics_show_every_type_and_hint_at_what_json_lacks() {
        let shown = |put: fn(&mut Vec<u8>)| to_json(&canonical(put)).unwrap();
        assert_eq!(shown(|out| put_header(Tag::Absent, 0, out)), (Value::Null, None));
        assert_eq!(shown(|out| put_header(Tag::Empty, 0, out)), (Value::Null, None));
        assert_eq!(shown(|out| put_string(b"NaN", out)), (json!("NaN"), None));
        assert_eq!(shown(|out| put_bool(false, out)), (json!(false), None));
        assert_eq!(shown(|out| put_int(i64::MIN, out)), (json!(i64::MIN), None));
        assert_eq!(shown(|out| put_double(2.0, out)), (json!(2.0), None));
        assert_eq!(shown(|out| put_double(NAN, out)), (json!("NaN"), Some("double")));
        assert_eq!(
            shown(|out| put_double(f64::INFINITY, out)),
            (json!("Infinity"), Some("double"))
        );
        assert_eq!(
            shown(|out| put_double(f64::NEG_INFINITY, out)),
            (json!("-Infinity"), Some("double"))
        );
        assert_eq!(shown(|out| put_bytes(&[0, 255], out)), (json!("AP8="), Some("bytes")));
        assert_eq!(to_json(&nested()).unwrap(), (json!({"a": [true, -1, "x"], "b": "AP8="}), None));
    }

    #[test]
    fn damaged_bytes_are_refused_at_every_length() {
        let whole = nested();
        for end in 0..whole.len() {
            assert_eq!(to_json(&whole[..end]), Err(MalformedValue::Truncated), "{end} bytes");
        }
        let mut longer = whole;
        longer.push(0);
        assert_eq!(to_json(&longer), Err(MalformedValue::Trailing(1)));
    }

    #[test]
    fn bytes_that_no_value_has_are_refused() {
        let refused = |bytes: &[u8]| to_json(bytes).unwrap_err();
        assert_eq!(refused(&header(Tag::Record, 9).to_le_bytes()), MalformedValue::Tag(9));
        assert_eq!(refused(&header(Tag::Empty, 1).to_le_bytes()), MalformedValue::Content(1));
        assert_eq!(refused(&[3, 1, 0, 0, 0, 0, 0, 0, 2]), MalformedValue::Content(3));
        assert_eq!(refused(&[2, 1, 0, 0, 0, 0, 0, 0, 0xff]), MalformedValue::Content(2));
        assert_eq!(refused(&header(Tag::Array, LEN_MAX).to_le_bytes()), MalformedValue::Truncated);
        let unsorted = canonical(|out| {
            put_header(Tag::Map, 2, out);
            for _ in 0..2 {
                put_string(b"a", out);
                put_bool(true, out);
            }
        });
        assert_eq!(refused(&unsorted), MalformedValue::Order);
        let deep = header(Tag::Array, 1).to_le_bytes().repeat(NESTING_MAX + 1);
        assert_eq!(refused(&deep), MalformedValue::Nesting);
    }
}
