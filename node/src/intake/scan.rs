//! Reading a request without materialising it.
//!
//! A scan visits the records of a protobuf `ExportLogsServiceRequest` in their
//! order and tells of each what the aggregations need: the values of some
//! attributes, and fingerprints. What exporters usually write is read on short
//! paths (`usual`, `find_usual`, `usual_string`); these give up on anything
//! else, and a complete path with the same result takes over.
//!
//! What no aggregation needs is skipped unchecked. So a scan takes at least every
//! request that a decoder takes, and refuses only what a decoder refuses too.
//! `tests/differential.rs` holds it to that.

mod attributes; // finding attributes by name
mod canonical; // protobuf's values -> canonical bytes
mod embedded; // messages within messages, in one piece or several
mod record; // finding the parts of a record
mod rejected; // records refused, and why

pub use rejected::{RejectReason, Rejected};

use crate::event::fingerprint::FingerprintKey;
use crate::event::value::{AttributeValue, Tag, header};
use crate::intake::scan::attributes::{Found, KeyValue};
use crate::intake::scan::canonical::{Canonical, Member, usual_string, utf8};
use crate::intake::scan::embedded::Embedded;
use crate::intake::scan::record::Parts;
use crate::intake::scan::rejected::Unreadable;
use crate::intake::wire::{Fields, Undecodable};

/// Scratch that any request may use, in bytes. A request of many tiny values takes
/// several times its size, so its size alone would be too little for small ones.
const SCRATCH_BYTES_MIN: usize = 8 << 20;
/// Scratch that a request may use beyond that, per byte of its own.
const SCRATCH_PER_REQUEST_BYTE: usize = 2;
/// Scratch that is kept for the next request, in bytes.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;
/// Attributes in a plan up to which a visit allocates nothing.
const FEW_ATTRIBUTES: usize = 4;

/// What the enabled aggregations need to know of each record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The names of the attributes to look up, UTF-8.
    pub attributes: Vec<Box<[u8]>>,
    /// Whether the fingerprint of the body is needed.
    pub body: bool,
    /// Whether the fingerprint of the whole record is needed: all its fields but the
    /// time of observation and the count of dropped attributes.
    pub record: bool,
}

/// What a scan tells of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned<'a> {
    /// The attributes' values, in the plan's order. Each is looked up in the record,
    /// then its scope, then its resource; the first of equal keys in a list counts.
    pub values: &'a [AttributeValue<'a>],
    /// The body's fingerprint; 0 if the plan does not ask for it.
    pub body: u128,
    /// The record's fingerprint; 0 if the plan does not ask for it.
    pub record: u128,
}

/// What became of a request's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The records that were visited.
    pub accepted: u64,
    /// The records that were not.
    pub rejected: Rejected,
}

/// Scans requests, one at a time; keeps its scratch for the next.
#[derive(Debug)]
pub struct Scanner {
    key: FingerprintKey,
    scratch: Vec<u8>,
}

impl Scanner {
    /// A scanner whose fingerprints are made with `key`.
    pub fn new(key: FingerprintKey) -> Scanner {
        Scanner { key, scratch: Vec::new() }
    }

    /// Calls `visit` for every record of a protobuf `ExportLogsServiceRequest` that can
    /// be read. After an error the request counts as a whole as not received: what was
    /// visited of it is to be forgotten.
    ///
    /// The time is proportional to the request's size, but for the sorting of maps, and
    /// the scratch is at most twice that size and a constant.
    pub fn scan(
        &mut self,
        plan: &Plan,
        request: &[u8],
        visit: &mut impl FnMut(&Scanned<'_>),
    ) -> Result<Scan, Undecodable> {
        let mut walk = Walk::new(self.key, plan, &mut self.scratch, request.len());
        let walked = walk.request(request, visit);
        let scan = walk.scan;
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES_KEPT);
        walked.map(|()| scan)
    }
}

/// An attribute that was looked up and read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Looked<'r> {
    Absent,
    String(&'r [u8]),
    /// The canonical bytes are in the scratch, from here to there.
    Other(usize, usize),
    /// It is there, but a record that it belongs to has to be refused.
    Rejected(RejectReason),
}

impl<'r> Looked<'r> {
    #[inline(always)]
    fn string(bytes: &'r [u8]) -> Looked<'r> {
        match utf8(bytes) {
            Ok(utf8) => Looked::String(utf8),
            Err(reason) => Looked::Rejected(reason),
        }
    }
}

/// The part of a record that cannot be read.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// An attribute of the plan, by index.
    Attribute(usize),
    Body,
    Record,
}

/// One walk through one request, `'r`.
///
/// The scratch holds canonical bytes: of the resource's attributes, then of the
/// scope's, then what the record needs. Each level takes its own away again.
struct Walk<'s, 'r> {
    key: FingerprintKey,
    plan: &'s Plan,
    scratch: &'s mut Vec<u8>,
    scratch_max: usize,
    entries: Vec<KeyValue<'r>>,
    /// What was found of the record.
    found: Parts<'r>,
    /// What was found of the resource or scope above it.
    above: Found<'r>,
    /// What the plan's attributes are on each level, including what it inherits.
    of_resource: Vec<Looked<'r>>,
    of_scope: Vec<Looked<'r>>,
    of_record: Vec<Looked<'r>>,
    scan: Scan,
}

impl<'s, 'r> Walk<'s, 'r> {
    fn new(
        key: FingerprintKey,
        plan: &'s Plan,
        scratch: &'s mut Vec<u8>,
        request_bytes: usize,
    ) -> Self {
        let absent = vec![Looked::Absent; plan.attributes.len()];
        Walk {
            key,
            plan,
            scratch,
            scratch_max: request_bytes
                .saturating_mul(SCRATCH_PER_REQUEST_BYTE)
                .saturating_add(SCRATCH_BYTES_MIN),
            entries: Vec::new(),
            found: Parts::new(&plan.attributes),
            above: Found::new(&plan.attributes),
            of_resource: absent.clone(),
            of_scope: absent.clone(),
            of_record: absent,
            scan: Scan::default(),
        }
    }

    fn request(
        &mut self,
        request: &'r [u8],
        visit: &mut impl FnMut(&Scanned<'_>),
    ) -> Result<(), Undecodable> {
        for field in Fields::of(request) {
            let field = field?;
            if field.number == 1 {
                self.resource_logs(field.delimited("ExportLogsServiceRequest")?, visit)?;
            }
        }
        Ok(())
    }

    fn resource_logs(
        &mut self,
        logs: &'r [u8],
        visit: &mut impl FnMut(&Scanned<'_>),
    ) -> Result<(), Undecodable> {
        const MESSAGE: &str = "ResourceLogs";
        self.scratch.clear();
        self.read_resource(logs)?;
        let resource_bytes = self.scratch.len();
        for field in Fields::of(logs) {
            let field = field?;
            match field.number {
                1 | 3 => drop(field.delimited(MESSAGE)?),
                2 => {
                    self.scope_logs(field.delimited(MESSAGE)?, visit)?;
                    self.scratch.truncate(resource_bytes);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the resource's attributes before anything that inherits them: it may come
    /// in pieces and after its scopes.
    fn read_resource(&mut self, logs: &'r [u8]) -> Result<(), Undecodable> {
        const MESSAGE: &str = "Resource";
        let names = &self.plan.attributes;
        if names.is_empty() {
            return Ok(());
        }
        self.above.clear();
        Embedded::Split { parent: logs, number: 1 }.each_field(|field| match field.number {
            1 => self.above.look_at(field.delimited(MESSAGE)?, names),
            2 => field.varint(MESSAGE).map(drop),
            3 => field.delimited(MESSAGE).map(drop),
            _ => Ok(()),
        })?;
        for index in 0..names.len() {
            self.of_resource[index] = match self.above.value(index) {
                None => Looked::Absent,
                Some(value) => self.look(*value)?,
            };
        }
        Ok(())
    }

    fn scope_logs(
        &mut self,
        logs: &'r [u8],
        visit: &mut impl FnMut(&Scanned<'_>),
    ) -> Result<(), Undecodable> {
        const MESSAGE: &str = "ScopeLogs";
        let mut scope_is_read = false;
        for field in Fields::of(logs) {
            let field = field?;
            match field.number {
                1 | 3 => drop(field.delimited(MESSAGE)?),
                2 => {
                    let record = field.delimited(MESSAGE)?;
                    self.found.find(record, &self.plan.attributes)?;
                    if !scope_is_read && self.found.attributes.lacks_any() {
                        self.read_scope(logs)?;
                        scope_is_read = true;
                    }
                    self.record(record, visit)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the scope's attributes. It too may come in pieces and after its records,
    /// and to look for it there touches all of them: only done for a record that lacks
    /// an attribute.
    fn read_scope(&mut self, logs: &'r [u8]) -> Result<(), Undecodable> {
        const MESSAGE: &str = "InstrumentationScope";
        let names = &self.plan.attributes;
        self.above.clear();
        warm(logs);
        Embedded::Split { parent: logs, number: 1 }.each_field(|field| match field.number {
            1 | 2 => field.delimited(MESSAGE).map(drop),
            3 => self.above.look_at(field.delimited(MESSAGE)?, names),
            4 => field.varint(MESSAGE).map(drop),
            _ => Ok(()),
        })?;
        for index in 0..names.len() {
            self.of_scope[index] = match self.above.value(index) {
                None => self.of_resource[index],
                Some(value) => self.look(*value)?,
            };
        }
        Ok(())
    }

    /// Reads the record whose parts were just found, and hands it out.
    #[inline(always)]
    fn record(
        &mut self,
        record: &'r [u8],
        visit: &mut impl FnMut(&Scanned<'_>),
    ) -> Result<(), Undecodable> {
        let before = self.scratch.len();
        match self.read(record) {
            Ok((body, record)) => {
                self.scan.accepted += 1;
                self.show(body, record, visit);
            }
            Err((Unreadable::Request(undecodable), _)) => return Err(undecodable),
            Err((Unreadable::Record(reason), part)) => {
                let number = self.scan.accepted + self.scan.rejected.total() + 1;
                let part = match part {
                    Part::Attribute(index) => {
                        format!("attribute {}", self.plan.attributes[index].escape_ascii())
                    }
                    Part::Body => "body".to_owned(),
                    Part::Record => "some field".to_owned(),
                };
                self.scan.rejected.add(reason, number, &part);
            }
        }
        self.scratch.truncate(before);
        Ok(())
    }

    /// Reads the parts of the record that were found: its attributes, the fingerprints
    /// of its body and of all of it. An error names the part to blame.
    #[inline(always)]
    fn read(&mut self, record: &'r [u8]) -> Result<(u128, u128), (Unreadable, Part)> {
        for index in 0..self.of_record.len() {
            let looked = match self.found.attributes.value(index) {
                None => self.of_scope[index],
                Some(value) => {
                    self.look(*value).map_err(|error| (error.into(), Part::Attribute(index)))?
                }
            };
            if let Looked::Rejected(reason) = looked {
                return Err((reason.into(), Part::Attribute(index)));
            }
            self.of_record[index] = looked;
        }
        let body =
            if self.plan.body { self.body().map_err(|error| (error, Part::Body))? } else { 0 };
        let record = if self.plan.record {
            self.whole_record(record).map_err(|error| (error, Part::Record))?
        } else {
            0
        };
        Ok((body, record))
    }

    /// Hands the record out.
    #[inline(always)]
    fn show(&self, body: u128, record: u128, visit: &mut impl FnMut(&Scanned<'_>)) {
        let value = |looked: &Looked<'r>| match *looked {
            Looked::String(utf8) => AttributeValue::String(utf8),
            Looked::Other(start, end) => AttributeValue::Other(&self.scratch[start..end]),
            Looked::Absent | Looked::Rejected(_) => AttributeValue::Absent,
        };
        if self.of_record.len() <= FEW_ATTRIBUTES {
            let mut values = [AttributeValue::Absent; FEW_ATTRIBUTES];
            for (value_of, looked) in values.iter_mut().zip(&self.of_record) {
                *value_of = value(looked);
            }
            visit(&Scanned { values: &values[..self.of_record.len()], body, record });
        } else {
            let values: Vec<_> = self.of_record.iter().map(value).collect();
            visit(&Scanned { values: &values, body, record });
        }
    }

    /// Reads an attribute where it was found.
    #[inline(always)]
    fn look(&mut self, value: Embedded<'r>) -> Result<Looked<'r>, Undecodable> {
        match usual_string(&value) {
            Some(string) => Ok(Looked::string(string)),
            None => self.look_at_any(value),
        }
    }

    fn look_at_any(&mut self, value: Embedded<'r>) -> Result<Looked<'r>, Undecodable> {
        let start = self.scratch.len();
        let member = Member::of(value)?;
        if let Member::String(string) = member {
            return Ok(Looked::string(string));
        }
        match self.canonical().value(value, member, 1) {
            Ok(()) => Ok(Looked::Other(start, self.scratch.len())),
            Err(Unreadable::Request(undecodable)) => Err(undecodable),
            Err(Unreadable::Record(reason)) => {
                self.scratch.truncate(start);
                Ok(Looked::Rejected(reason))
            }
        }
    }

    #[inline(always)]
    fn body(&mut self) -> Result<u128, Unreadable> {
        let Some(body) = &self.found.body else {
            return Ok(self.key.canonical(&header(Tag::Absent, 0).to_le_bytes()));
        };
        match usual_string(body) {
            Some(string) => Ok(self.key.string(utf8(string)?)),
            None => self.any_body(*body),
        }
    }

    fn any_body(&mut self, body: Embedded<'r>) -> Result<u128, Unreadable> {
        let start = self.scratch.len();
        self.canonical().value(body, Member::of(body)?, 1)?;
        Ok(self.hash_and_truncate(start))
    }

    fn whole_record(&mut self, record: &'r [u8]) -> Result<u128, Unreadable> {
        let start = self.scratch.len();
        self.canonical().record(record)?;
        Ok(self.hash_and_truncate(start))
    }

    /// The fingerprint of the scratch from `start` on, which is then free again.
    fn hash_and_truncate(&mut self, start: usize) -> u128 {
        let fingerprint = self.key.canonical(&self.scratch[start..]);
        self.scratch.truncate(start);
        fingerprint
    }

    fn canonical(&mut self) -> Canonical<'_, 'r> {
        // What a refused value left behind is of no use to the next.
        self.entries.clear();
        Canonical { out: self.scratch, entries: &mut self.entries, bytes_max: self.scratch_max }
    }
}

/// Reads a byte of each cache line, in order: much faster than to hop from record to
/// record, each hop waiting for the memory that tells where the next one is.
fn warm(bytes: &[u8]) {
    std::hint::black_box(bytes.iter().step_by(64).fold(0, |all, byte| all ^ byte));
}

#[cfg(test)]
mod tests;
