//! OTLP/JSON, transcoded into protobuf bytes, so that one scanner serves both.
//!
//! Nothing is materialised: each field goes to the output as the parser meets it.
//! The rules are those of OTLP 1.11 ("JSON Protobuf Encoding") and of proto3's
//! JSON mapping beneath it. Where they leave a choice:
//!
//! - `null` under a key is the same as no such key; as an element of an array it is
//!   an error, as in every proto3 parser.
//! - A key that comes twice means what a protobuf field that comes twice means: the
//!   last scalar wins, arrays are joined, objects are merged. Two *different*
//!   members of an AnyValue are an error.
//! - Values nest as deep as the scanner reads them ([`NESTING_MAX`]); deeper ones are
//!   an error. That bounds the stack: unknown values are skipped without any.
//! - A number in a string must still be a JSON number: no "+1", no " 1", no "01".
//!
//! The output is about half as long as the JSON and never longer by more than a few
//! bytes. Decoding strings with escapes and skipping unknown values needs scratch
//! memory besides, again at most as much as the JSON is long.

mod number;
mod output;
mod schema;

use std::fmt;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::value::RawValue;

use self::number::InvalidNumber;
use self::output::Output;
use self::schema::{Field, Kind, Message, Number};
use crate::event::value::NESTING_MAX;

/// A logs request that came as JSON.
#[derive(Debug)]
pub struct Transcoded {
    /// The request as a protobuf `ExportLogsServiceRequest`.
    pub request: Vec<u8>,
    /// `false` if the request had keys, but none that OTLP knows: most likely it
    /// was not meant for this endpoint, and its sender deserves to be told.
    pub known: bool,
}

/// Why a body is not a logs request in OTLP/JSON. Says where, and never quotes
/// more than a number of what was sent.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJson {
    /// JSON is UTF-8 and nothing else.
    #[error("the text is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// How many bytes before it are.
        at: usize,
    },
    /// The text is not JSON, or its values are not what their keys need.
    #[error(transparent)]
    NotALogsRequest(#[from] serde_json::Error),
}

/// Transcodes the JSON form of an `ExportLogsServiceRequest`.
pub fn to_protobuf(json: &[u8]) -> Result<Transcoded, InvalidJson> {
    let text = simdutf8::compat::from_utf8(json)
        .map_err(|invalid| InvalidJson::NotUtf8 { at: invalid.valid_up_to() })?;
    let mut output = Output::with_capacity(json.len());
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit(); // NESTING_MAX stands in for it
    let known = Request { output: &mut output }.deserialize(&mut parser)?;
    parser.end()?;
    let mut request = output.finish();
    request.shrink_to_fit(); // it outlives the JSON, and is charged by its length
    Ok(Transcoded { request, known })
}

/// The whole request.
struct Request<'a> {
    output: &'a mut Output,
}

impl<'de> DeserializeSeed<'de> for Request<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<bool, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Request<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", schema::REQUEST.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let seen = members(&schema::REQUEST, map, 0, self.output)?;
        Ok(seen.known || !seen.unknown)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<bool, E> {
        Err(E::invalid_type(Unexpected::Other("string"), &self))
    }
}

/// Which kinds of keys an object had.
#[derive(Default)]
struct Seen {
    known: bool,
    unknown: bool,
}

/// Writes an object's members. `depth` AnyValues stand around them.
fn members<'de, A: MapAccess<'de>>(
    message: &'static Message,
    mut map: A,
    depth: usize,
    output: &mut Output,
) -> Result<Seen, A::Error> {
    let mut seen = Seen::default();
    let mut set: Option<&'static Field> = None;
    while let Some(field) = map.next_key_seed(Key(message))? {
        let Some(field) = field else {
            seen.unknown = true;
            map.next_value::<IgnoredAny>()?;
            continue;
        };
        seen.known = true;
        let present = map.next_value_seed(Slot { field, element: false, depth, output })?;
        if message.is_value && present {
            match set {
                Some(first) if first.number != field.number => {
                    return Err(A::Error::custom(format_args!(
                        "{} has both `{}` and `{}`",
                        message.name, first.key, field.key
                    )));
                }
                _ => set = Some(field),
            }
        }
    }
    Ok(seen)
}

/// A key, looked up in the object that it belongs to.
struct Key(&'static Message);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key of {}", self.0.name)
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(key))
    }
}

/// The place of a value: under a key, or as an element of the array under it.
/// Answers whether a value was there (`null` is none).
struct Slot<'a> {
    field: &'static Field,
    element: bool,
    depth: usize,
    output: &'a mut Output,
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<bool, D::Error> {
        match self.field.kind {
            Kind::Number(number) => {
                let json = <&RawValue>::deserialize(parser)?.get();
                if json == "null" {
                    return Ok(false);
                }
                let key = self.field.key;
                self.put_number(number, json)
                    .map_err(|invalid| D::Error::custom(format_args!("`{key}`: {invalid}")))
            }
            _ => parser.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.field.key;
        if self.field.repeated && !self.element {
            return write!(f, "an array for `{key}`");
        }
        match self.field.kind {
            Kind::Text => write!(f, "a string for `{key}`"),
            Kind::Base64 => write!(f, "a base64 string for `{key}`"),
            Kind::Hex(digits) => write!(f, "a string of {digits} hexadecimal digits for `{key}`"),
            Kind::Bool => write!(f, "true or false for `{key}`"),
            Kind::Number(_) => write!(f, "a number for `{key}`"),
            Kind::Message(message) => write!(f, "an object ({}) for `{key}`", message.name),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        if self.element { Err(E::invalid_type(Unexpected::Unit, &self)) } else { Ok(false) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        let Kind::Bool = self.field.kind else {
            return Err(E::invalid_type(Unexpected::Bool(value), &self));
        };
        self.output.put(self.field.tag());
        self.output.put(u8::from(value));
        Ok(true)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        // Not the default's message: that would repeat the string, however long.
        let misplaced = self.field.repeated && !self.element;
        match self.field.kind {
            Kind::Text if !misplaced => {
                self.output.put(self.field.tag());
                self.output.put_varint(text.len() as u64);
                self.output.put_slice(text.as_bytes());
                Ok(true)
            }
            Kind::Hex(digits) => self.put_hex(digits, text),
            Kind::Base64 => self.put_base64(text),
            _ => Err(E::invalid_type(Unexpected::Other("string"), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<bool, A::Error> {
        if self.element || !self.field.repeated {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let Slot { field, depth, output, .. } = self;
        while array.next_element_seed(Slot { field, element: true, depth, output })?.is_some() {}
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let message = match self.field.kind {
            Kind::Message(message) if self.element || !self.field.repeated => message,
            _ => return Err(A::Error::invalid_type(Unexpected::Map, &self)),
        };
        let depth = self.depth + usize::from(message.is_value);
        if depth > NESTING_MAX {
            return Err(A::Error::custom(format_args!(
                "values are nested more than {NESTING_MAX} deep"
            )));
        }
        self.output.put(self.field.tag());
        let open = self.output.open();
        members(message, map, depth, self.output)?;
        self.output.close(open);
        Ok(true)
    }
}

impl Slot<'_> {
    fn put_number(self, number: Number, json: &str) -> Result<bool, InvalidNumber> {
        let tag = self.field.tag();
        let output = self.output;
        match number {
            Number::Double => {
                let value = number::double(json)?;
                output.put(tag);
                output.put_slice(&value.to_le_bytes());
            }
            Number::Fixed64 => {
                let value: u64 = in_range(number::integer(json)?)?;
                output.put(tag);
                output.put_slice(&value.to_le_bytes());
            }
            Number::Fixed32 => {
                let value: u32 = in_range(number::integer(json)?)?;
                output.put(tag);
                output.put_slice(&value.to_le_bytes());
            }
            Number::Uint32 => {
                let value: u32 = in_range(number::integer(json)?)?;
                output.put(tag);
                output.put_varint(u64::from(value));
            }
            Number::Int64 => {
                let value: i64 = in_range(number::integer(json)?)?;
                output.put(tag);
                output.put_varint(value as u64);
            }
            Number::Int32 | Number::Enum => {
                let integer = match number {
                    Number::Enum => number::bare_integer(json)?,
                    _ => number::integer(json)?,
                };
                let value: i32 = in_range(integer)?;
                output.put(tag);
                output.put_varint(i64::from(value) as u64); // negative ones take ten bytes
            }
        }
        Ok(true)
    }

    fn put_hex<E: Error>(self, digits: usize, text: &str) -> Result<bool, E> {
        if !text.is_empty() && text.len() != digits {
            return Err(E::custom(format_args!(
                "`{}`: expected {digits} hexadecimal digits, found {} bytes",
                self.field.key,
                text.len()
            )));
        }
        self.output.put(self.field.tag());
        self.output.put_varint(text.len() as u64 / 2);
        for pair in text.as_bytes().chunks_exact(2) {
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => self.output.put(high << 4 | low),
                _ => {
                    return Err(E::custom(format_args!(
                        "`{}`: expected hexadecimal digits",
                        self.field.key
                    )));
                }
            }
        }
        Ok(true)
    }

    fn put_base64<E: Error>(self, text: &str) -> Result<bool, E> {
        let engine = if text.contains(['-', '_']) { &BASE64_URL_SAFE } else { &BASE64 };
        self.output.put(self.field.tag());
        self.output
            .append(|bytes| engine.decode_vec(text, bytes))
            .map_err(|invalid| E::custom(format_args!("`{}`: {invalid}", self.field.key)))?;
        Ok(true)
    }
}

fn in_range<T: TryFrom<i128>>(integer: i128) -> Result<T, InvalidNumber> {
    T::try_from(integer).map_err(|_| InvalidNumber::OutOfRange)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|nibble| nibble as u8)
}

/// Padded or not, with any left-over bits: what senders' base64 libraries produce.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
static BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
static BASE64_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

#[cfg(test)]
mod tests;
