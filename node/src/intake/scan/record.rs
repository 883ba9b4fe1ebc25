//! What a `LogRecord` has of what is wanted: found, but not yet read.

use crate::intake::scan::attributes::Found;
use crate::intake::scan::embedded::Embedded;
use crate::intake::wire::{Fields, Undecodable, read_delimited, read_varint};

pub(super) const MESSAGE: &str = "LogRecord";
pub(super) const TIME_UNIX_NANO: u32 = 1;
pub(super) const SEVERITY_NUMBER: u32 = 2;
pub(super) const SEVERITY_TEXT: u32 = 3;
pub(super) const BODY: u32 = 5;
pub(super) const ATTRIBUTES: u32 = 6;
pub(super) const DROPPED_ATTRIBUTES_COUNT: u32 = 7;
pub(super) const FLAGS: u32 = 8;
pub(super) const TRACE_ID: u32 = 9;
pub(super) const SPAN_ID: u32 = 10;
pub(super) const OBSERVED_TIME_UNIX_NANO: u32 = 11;
pub(super) const EVENT_NAME: u32 = 12;

/// The parts of one record. Its framing is sound, the contents are unchecked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts<'r> {
    pub(super) attributes: Found<'r>,
    pub(super) body: Option<Embedded<'r>>,
}

impl<'r> Parts<'r> {
    pub(super) fn new(names: &[Box<[u8]>]) -> Parts<'r> {
        Parts { attributes: Found::new(names), body: None }
    }

    /// Finds the parts of `record`, in place of the last one's.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        record: &'r [u8],
        names: &[Box<[u8]>],
    ) -> Result<(), Undecodable> {
        match self.find_usual(record, names) {
            Some(()) => Ok(()),
            None => self.find_any(record, names),
        }
    }

    /// Reads the layout that exporters write, any order of fields included. `None` on
    /// anything else, errors too: then [`Self::find_any`] decides.
    ///
    /// A function of its own, so that what it counts with stays in registers.
    #[inline(never)]
    fn find_usual(&mut self, record: &'r [u8], names: &[Box<[u8]>]) -> Option<()> {
        self.clear();
        let mut rest = record;
        while let [tag, after @ ..] = rest {
            rest = after;
            match tag {
                // time_unix_nano, observed_time_unix_nano
                0x09 | 0x59 => rest = rest.get(8..)?,
                // flags
                0x45 => rest = rest.get(4..)?,
                0x32 => self.attributes.look_at(read_delimited(&mut rest).ok()?, names).ok()?,
                0x2a => match self.body.replace(Embedded::Whole(read_delimited(&mut rest).ok()?)) {
                    None => {}
                    Some(_) => return None,
                },
                // severity_text, trace_id, span_id, event_name
                0x1a | 0x4a | 0x52 | 0x62 => drop(read_delimited(&mut rest).ok()?),
                // severity_number, dropped_attributes_count
                0x10 | 0x38 => drop(read_varint(&mut rest).ok()?),
                _ => return None,
            }
        }
        Some(())
    }

    /// Reads whatever protobuf allows.
    #[cold]
    fn find_any(&mut self, record: &'r [u8], names: &[Box<[u8]>]) -> Result<(), Undecodable> {
        self.clear();
        for field in Fields::of(record) {
            let field = field?;
            match field.number {
                ATTRIBUTES => self.attributes.look_at(field.delimited(MESSAGE)?, names)?,
                BODY => {
                    let piece = field.delimited(MESSAGE)?;
                    self.body = Some(Embedded::and(self.body, piece, record, BODY));
                }
                TIME_UNIX_NANO | OBSERVED_TIME_UNIX_NANO => drop(field.fixed64(MESSAGE)?),
                SEVERITY_NUMBER | DROPPED_ATTRIBUTES_COUNT => drop(field.varint(MESSAGE)?),
                SEVERITY_TEXT | TRACE_ID | SPAN_ID | EVENT_NAME => drop(field.delimited(MESSAGE)?),
                FLAGS => drop(field.fixed32(MESSAGE)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether [`Self::find_usual`] finds what is there; `None` if it gives up.
    #[cfg(test)]
    pub(super) fn short_path_is_right(
        record: &'r [u8],
        names: &[Box<[u8]>],
    ) -> Option<Result<bool, Undecodable>> {
        let (mut usual, mut any) = (Parts::new(names), Parts::new(names));
        usual.find_usual(record, names)?;
        Some(any.find_any(record, names).map(|()| usual == any))
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.attributes.clear();
        self.body = None;
    }
}
