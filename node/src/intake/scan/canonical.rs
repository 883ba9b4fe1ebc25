//! From protobuf's encoding of a value or a record to the canonical one.

use crate::event::value::{
    HEADER_BYTES, NESTING_MAX, Tag, header, put_bool, put_bytes, put_double, put_header, put_int,
    put_string,
};
use crate::intake::scan::attributes::KeyValue;
use crate::intake::scan::embedded::Embedded;
use crate::intake::scan::record::{self, MESSAGE};
use crate::intake::scan::rejected::{RejectReason, Unreadable};
use crate::intake::wire::{Fields, Undecodable, read_delimited};

const STRING: u32 = 1;
const BOOL: u32 = 2;
const INT: u32 = 3;
const DOUBLE: u32 = 4;
const ARRAY: u32 = 5;
const KVLIST: u32 = 6;
const BYTES: u32 = 7;
const STRING_STRINDEX: u32 = 8;

/// The fields of a record that its canonical encoding has.
const RECORD_FIELDS: usize = 9;

/// Which member an `AnyValue` has in the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Member<'r> {
    Empty,
    String(&'r [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'r [u8]),
    /// The pieces of the array are the array members from this field on, counted over
    /// all fields of the `AnyValue`.
    Array(usize),
    /// The same for a map.
    Map(usize),
}

impl<'r> Member<'r> {
    /// The last member given counts. Arrays and maps that follow one another, without
    /// another member between them, are pieces of one.
    pub(super) fn of(value: Embedded<'r>) -> Result<Member<'r>, Undecodable> {
        match usual_string(&value) {
            Some(string) => Ok(Member::String(string)),
            None => Member::of_any(value),
        }
    }

    fn of_any(value: Embedded<'r>) -> Result<Member<'r>, Undecodable> {
        const MESSAGE: &str = "AnyValue";
        let mut member = Member::Empty;
        let mut index = 0;
        value.each_field(|field| -> Result<(), Undecodable> {
            member = match field.number {
                STRING => Member::String(field.delimited(MESSAGE)?),
                BOOL => Member::Bool(field.varint(MESSAGE)? != 0),
                INT => Member::Int(field.varint(MESSAGE)? as i64),
                DOUBLE => Member::Double(f64::from_bits(field.fixed64(MESSAGE)?)),
                ARRAY => {
                    field.delimited(MESSAGE)?;
                    if matches!(member, Member::Array(_)) { member } else { Member::Array(index) }
                }
                KVLIST => {
                    field.delimited(MESSAGE)?;
                    if matches!(member, Member::Map(_)) { member } else { Member::Map(index) }
                }
                BYTES => Member::Bytes(field.delimited(MESSAGE)?),
                // Refers to a table that only profiles have: as good as no value.
                STRING_STRINDEX => field.varint(MESSAGE).map(|_| Member::Empty)?,
                _ => member,
            };
            index += 1;
            Ok(())
        })?;
        Ok(member)
    }
}

/// The string of an `AnyValue` that is a string and nothing else: what most are.
#[inline(always)]
pub(super) fn usual_string<'r>(value: &Embedded<'r>) -> Option<&'r [u8]> {
    let Embedded::Whole(bytes) = *value else { return None };
    let [0x0a, string @ ..] = bytes else { return None };
    let mut rest = string;
    let string = read_delimited(&mut rest).ok()?;
    rest.is_empty().then_some(string)
}

/// Calls `visit` for each element of an array or map, the member `number` of `value`
/// whose pieces begin at the field `from`.
fn each_element<'r>(
    value: Embedded<'r>,
    number: u32,
    from: usize,
    mut visit: impl FnMut(&'r [u8]) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let mut index = 0;
    value.each_field(|field| {
        let is_piece = index >= from && field.number == number;
        index += 1;
        if !is_piece {
            return Ok(());
        }
        for element in Fields::of(field.delimited("AnyValue")?) {
            let element = element?;
            if element.number == 1 {
                visit(element.delimited("a list of values")?)?;
            }
        }
        Ok(())
    })
}

/// Refuses what is not UTF-8.
#[inline(always)]
pub(super) fn utf8(bytes: &[u8]) -> Result<&[u8], RejectReason> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(RejectReason::InvalidUtf8),
    }
}

/// Writes canonical bytes.
pub(super) struct Canonical<'s, 'r> {
    /// Where to; what is there stays.
    pub(super) out: &'s mut Vec<u8>,
    /// The entries of the maps that are being read, the innermost last.
    pub(super) entries: &'s mut Vec<KeyValue<'r>>,
    /// What the two may hold together, in bytes.
    pub(super) bytes_max: usize,
}

impl<'r> Canonical<'_, 'r> {
    /// Writes the value that has this member, at the given depth from 1.
    ///
    /// The recursion is at most [`NESTING_MAX`] deep. No level reads what is within its
    /// values, so all levels together read each byte a few times.
    pub(super) fn value(
        &mut self,
        value: Embedded<'r>,
        member: Member<'r>,
        depth: usize,
    ) -> Result<(), Unreadable> {
        if depth > NESTING_MAX {
            return Err(RejectReason::NestedTooDeep.into());
        }
        self.check_room()?;
        match member {
            Member::Empty => put_header(Tag::Empty, 0, self.out),
            Member::String(string) => put_string(utf8(string)?, self.out),
            Member::Bool(value) => put_bool(value, self.out),
            Member::Int(value) => put_int(value, self.out),
            Member::Double(value) => put_double(value, self.out),
            Member::Bytes(bytes) => put_bytes(bytes, self.out),
            Member::Array(from) => self.array(value, from, depth)?,
            Member::Map(from) => self.map(value, from, depth)?,
        }
        Ok(())
    }

    fn array(&mut self, value: Embedded<'r>, from: usize, depth: usize) -> Result<(), Unreadable> {
        let start = self.out.len();
        put_header(Tag::Array, 0, self.out);
        let mut len = 0;
        each_element(value, ARRAY, from, |element| {
            len += 1;
            let element = Embedded::Whole(element);
            self.value(element, Member::of(element)?, depth + 1)
        })?;
        // The length was not known before.
        self.out[start..][..HEADER_BYTES].copy_from_slice(&header(Tag::Array, len).to_le_bytes());
        Ok(())
    }

    fn map(&mut self, value: Embedded<'r>, from: usize, depth: usize) -> Result<(), Unreadable> {
        let first = self.entries.len();
        each_element(value, KVLIST, from, |entry| self.add_entry(entry))?;
        self.write_entries(first, depth + 1)
    }

    fn add_entry(&mut self, bytes: &'r [u8]) -> Result<(), Unreadable> {
        self.check_room()?;
        let entry = KeyValue::read(bytes)?;
        utf8(entry.key)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the entries from `first` on as a map, and forgets them.
    fn write_entries(&mut self, first: usize, depth: usize) -> Result<(), Unreadable> {
        // Stable, so that the first of equal keys is the one that stays.
        self.entries[first..].sort_by(|a, b| a.key.cmp(b.key));
        let end = first + keep_first_of_equal_keys(&mut self.entries[first..]);
        put_header(Tag::Map, end - first, self.out);
        for index in first..end {
            let KeyValue { key, value } = self.entries[index];
            put_string(key, self.out);
            self.value(value, Member::of(value)?, depth)?;
        }
        self.entries.truncate(first);
        Ok(())
    }

    /// Writes a whole record: time, severity number and text, body, attributes, flags,
    /// trace id, span id, event name, in this order. Left out are the time of
    /// observation and the count of dropped attributes, which differ between two
    /// sightings of one record. A field that is not there has its default.
    pub(super) fn record(&mut self, record: &'r [u8]) -> Result<(), Unreadable> {
        let (mut time, mut severity_number, mut flags) = (0, 0, 0);
        let (mut severity_text, mut event_name): (&[u8], &[u8]) = (&[], &[]);
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        let mut body = None;
        let first = self.entries.len();
        for field in Fields::of(record) {
            let field = field?;
            match field.number {
                record::TIME_UNIX_NANO => time = field.fixed64(MESSAGE)?,
                record::SEVERITY_NUMBER => severity_number = field.varint(MESSAGE)? as i32,
                record::SEVERITY_TEXT => severity_text = field.delimited(MESSAGE)?,
                record::BODY => {
                    body =
                        Some(Embedded::and(body, field.delimited(MESSAGE)?, record, record::BODY));
                }
                record::ATTRIBUTES => self.add_entry(field.delimited(MESSAGE)?)?,
                record::FLAGS => flags = field.fixed32(MESSAGE)?,
                record::TRACE_ID => trace_id = field.delimited(MESSAGE)?,
                record::SPAN_ID => span_id = field.delimited(MESSAGE)?,
                record::EVENT_NAME => event_name = field.delimited(MESSAGE)?,
                _ => {}
            }
        }
        put_header(Tag::Record, RECORD_FIELDS, self.out);
        put_int(time as i64, self.out);
        put_int(severity_number.into(), self.out);
        put_string(utf8(severity_text)?, self.out);
        match body {
            None => put_header(Tag::Absent, 0, self.out),
            Some(body) => self.value(body, Member::of(body)?, 1)?,
        }
        self.write_entries(first, 1)?;
        put_int(flags.into(), self.out);
        put_bytes(trace_id, self.out);
        put_bytes(span_id, self.out);
        put_string(utf8(event_name)?, self.out);
        Ok(())
    }

    fn check_room(&self) -> Result<(), RejectReason> {
        // Half as much again, because sorting takes a copy of up to half the entries.
        let entries = self.entries.len() * size_of::<KeyValue<'_>>();
        if self.out.len() + entries + entries / 2 > self.bytes_max {
            return Err(RejectReason::TooManyElements);
        }
        Ok(())
    }
}

/// Moves the first entry of each key to the front of the sorted `entries`: how many they are.
fn keep_first_of_equal_keys(entries: &mut [KeyValue<'_>]) -> usize {
    let mut kept = 0;
    for index in 0..entries.len() {
        if kept == 0 || entries[kept - 1].key != entries[index].key {
            entries[kept] = entries[index];
            kept += 1;
        }
    }
    kept
}
