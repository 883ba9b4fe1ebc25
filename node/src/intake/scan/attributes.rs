//! Finding attributes by name.

use crate::intake::scan::embedded::Embedded;
use crate::intake::wire::{Fields, Undecodable, read_delimited};

const KEY: u32 = 1;
const VALUE: u32 = 2;
const KEY_STRINDEX: u32 = 3;

/// One `KeyValue`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct KeyValue<'r> {
    /// Not yet known to be UTF-8.
    pub(super) key: &'r [u8],
    /// An `AnyValue`; one without fields stands for none at all.
    pub(super) value: Embedded<'r>,
}

impl<'r> KeyValue<'r> {
    pub(super) fn read(bytes: &'r [u8]) -> Result<KeyValue<'r>, Undecodable> {
        match usual(bytes) {
            Some((key, value)) => Ok(KeyValue { key, value: Embedded::Whole(value) }),
            None => KeyValue::read_any(bytes),
        }
    }

    #[cold]
    fn read_any(bytes: &'r [u8]) -> Result<KeyValue<'r>, Undecodable> {
        let mut key: &[u8] = &[];
        let mut value = None;
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                KEY => key = field.delimited("KeyValue")?,
                VALUE => {
                    value = Some(Embedded::and(value, field.delimited("KeyValue")?, bytes, VALUE))
                }
                // Refers to a table that only profiles have: as good as no key.
                KEY_STRINDEX => drop(field.varint("KeyValue")?),
                _ => {}
            }
        }
        Ok(KeyValue { key, value: value.unwrap_or(Embedded::EMPTY) })
    }
}

/// The key and the value of a `KeyValue` that is a short key, then a value, then
/// nothing: what exporters write.
#[inline(always)]
fn usual(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, key_len @ ..0x80, rest @ ..] = bytes else { return None };
    let (key, [0x12, rest @ ..]) = rest.split_at_checked(usize::from(*key_len))? else {
        return None;
    };
    let mut rest = rest;
    let value = read_delimited(&mut rest).ok()?;
    rest.is_empty().then_some((key, value))
}

/// The wanted attributes that one list has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found<'r> {
    /// One per wanted name.
    values: Vec<Option<Embedded<'r>>>,
    missing: usize,
}

impl<'r> Found<'r> {
    pub(super) fn new(names: &[Box<[u8]>]) -> Found<'r> {
        Found { values: vec![None; names.len()], missing: names.len() }
    }

    /// Forgets everything: another list begins.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        if self.missing < self.values.len() {
            self.values.fill(None);
            self.missing = self.values.len();
        }
    }

    /// Whether the list has not all the wanted names.
    #[inline(always)]
    pub(super) fn lacks_any(&self) -> bool {
        self.missing > 0
    }

    /// The value of the wanted name at `index`, if the list has it.
    #[inline(always)]
    pub(super) fn value(&self, index: usize) -> Option<&Embedded<'r>> {
        self.values[index].as_ref()
    }

    /// Takes note of the list's next `KeyValue`. The first of equal keys counts; once
    /// every name is found, what follows is not even read.
    #[inline(always)]
    pub(super) fn look_at(
        &mut self,
        bytes: &'r [u8],
        names: &[Box<[u8]>],
    ) -> Result<(), Undecodable> {
        if self.missing == 0 {
            return Ok(());
        }
        match usual(bytes) {
            Some((key, value)) => self.note(key, Embedded::Whole(value), names),
            None => {
                let KeyValue { key, value } = KeyValue::read_any(bytes)?;
                self.note(key, value, names);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn note(&mut self, key: &[u8], value: Embedded<'r>, names: &[Box<[u8]>]) {
        for (name, known) in names.iter().zip(&mut self.values) {
            if **name == *key && known.is_none() {
                *known = Some(value);
                self.missing -= 1;
            }
        }
    }
}
