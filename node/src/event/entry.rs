//! One accepted request, packed: the bytes that the journal keeps.
//!
//! ```text
//! 0      version, 1
//! 1      flags: bit 0, a request id follows; the others are zero
//! 2..4   number of sections
//! 4..8   number of records that were accepted; of a part: see [`part`]
//! 8..32  only with a request id: session (16 bytes), sequence (8)
//! then, for each section: aggregation (4), length (4), that many bytes
//! ```
//! All numbers are little-endian. An entry ends where its last section ends. The
//! stamp, the position and the checksum belong to the journal's frame.

use std::fmt;
use std::str::FromStr;

use crate::event::entry::chunk::ChunkSection;
use crate::event::entry::distinct::DistinctSection;

pub mod chunk; // the section of the aggregation type `LogFiles`
pub mod distinct; // the section of the aggregation type `DistinctLogs`
pub mod part; // what of an entry belongs to some of the slots

/// The largest request, in bytes, whose packed entry is sure to fit its 32-bit lengths.
///
/// An empty record takes two bytes of a request and twenty of a section; values
/// grow less than that.
pub const REQUEST_BYTES_MAX: usize = 256 << 20;
const GROWTH_MAX: usize = 12;
const _: () = assert!(REQUEST_BYTES_MAX * GROWTH_MAX <= u32::MAX as usize);

const VERSION: u8 = 1;
const HAS_REQUEST_ID: u8 = 1;
const HEAD_BYTES: usize = 8;
const SESSION_BYTES: usize = 16;
const REQUEST_ID_BYTES: usize = SESSION_BYTES + 8;
const SECTION_HEAD_BYTES: usize = 8;

/// What a client calls its request, so that a retry of it is counted once.
///
/// As text it is `SESSION/SEQUENCE`: 32 hexadecimal digits, and a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// Chosen at random by each life of a client.
    pub session: [u8; SESSION_BYTES],
    /// Counts the session's requests, from 1; a retry keeps it.
    pub sequence: u64,
}

/// A text that is not a [`RequestId`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request id is SESSION/SEQUENCE: 32 hexadecimal digits, and a number from 1")]
pub struct MalformedRequestId;

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}/{}", u128::from_be_bytes(self.session), self.sequence)
    }
}

impl FromStr for RequestId {
    type Err = MalformedRequestId;

    fn from_str(text: &str) -> Result<Self, MalformedRequestId> {
        let (session, sequence) = text.split_once('/').ok_or(MalformedRequestId)?;
        // The standard library would also read a sign.
        let has_digits = session.bytes().all(|digit| digit.is_ascii_hexdigit())
            && sequence.bytes().all(|digit| digit.is_ascii_digit());
        if session.len() != 2 * SESSION_BYTES || !has_digits {
            return Err(MalformedRequestId);
        }
        let session = u128::from_str_radix(session, 16).map_err(|_| MalformedRequestId)?;
        let sequence = sequence.parse().ok().filter(|&sequence| sequence > 0);
        let sequence = sequence.ok_or(MalformedRequestId)?;
        Ok(RequestId { session: session.to_be_bytes(), sequence })
    }
}

/// Why bytes are not a packed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedEntry {
    /// The entry ends before something that it announces.
    #[error("the entry is cut off")]
    CutOff,
    /// Bytes are left over after the last section.
    #[error("{0} bytes follow the entry's last section")]
    TooLong(usize),
    /// Another version of Sheaf wrote the entry, or nobody did.
    #[error("version {0} of entries is unknown")]
    Version(u8),
    /// Flags are set that have no meaning.
    #[error("flags {0:#04x} are unknown")]
    Flags(u8),
    /// A section is of no known kind.
    #[error("section kind {0} is unknown")]
    Kind(u8),
    /// A section contradicts itself.
    #[error("the section's {0} is wrong")]
    Section(&'static str),
}

/// Packs one request, section by section, into one buffer.
pub struct EntryWriter {
    bytes: Vec<u8>,
    prefix: usize,
    sections: u16,
}

impl EntryWriter {
    /// Begins an entry.
    pub fn new(request: Option<RequestId>) -> Self {
        EntryWriter::with_prefix(0, request)
    }

    /// Begins an entry behind `prefix` zero bytes, which the caller fills in when
    /// the entry is complete (the journal puts its frame there).
    pub fn with_prefix(prefix: usize, request: Option<RequestId>) -> Self {
        let mut bytes = vec![0; prefix];
        let flags = if request.is_some() { HAS_REQUEST_ID } else { 0 };
        bytes.extend_from_slice(&[VERSION, flags, 0, 0, 0, 0, 0, 0]);
        if let Some(RequestId { session, sequence }) = request {
            bytes.extend_from_slice(&session);
            bytes.extend_from_slice(&sequence.to_le_bytes());
        }
        EntryWriter { bytes, prefix, sections: 0 }
    }

    /// Adds a section of `length` zero bytes and returns them, to be filled in.
    ///
    /// # Panics
    /// With more than 65,535 sections, or a section of 4 GiB: see [`REQUEST_BYTES_MAX`].
    fn section(&mut self, aggregation: u32, length: usize) -> &mut [u8] {
        assert!(self.sections < u16::MAX, "too many aggregations for one entry");
        assert!(length <= u32::MAX as usize, "a section of {length} bytes");
        self.sections += 1;
        self.bytes.reserve(SECTION_HEAD_BYTES + length);
        self.bytes.extend_from_slice(&aggregation.to_le_bytes());
        self.bytes.extend_from_slice(&(length as u32).to_le_bytes());
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        &mut self.bytes[start..]
    }

    /// Completes the entry, of which `records` records were accepted, and returns
    /// the prefix and the entry.
    pub fn finish(mut self, records: u32) -> Vec<u8> {
        let head = &mut self.bytes[self.prefix..][..HEAD_BYTES];
        head[2..4].copy_from_slice(&self.sections.to_le_bytes());
        head[4..8].copy_from_slice(&records.to_le_bytes());
        self.bytes
    }
}

/// A packed entry, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    records: u32,
    request: Option<RequestId>,
    sections: u16,
    rest: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads the entry's head; each section is checked when its turn comes.
    ///
    /// # Errors
    /// When the head is cut off or of an unknown version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MalformedEntry> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(MalformedEntry::CutOff)?;
        let [version, flags, s0, s1, records @ ..] = *head;
        if version != VERSION {
            return Err(MalformedEntry::Version(version));
        }
        let (request, rest) = match flags {
            0 => (None, rest),
            HAS_REQUEST_ID => request_id(rest)?,
            _ => return Err(MalformedEntry::Flags(flags)),
        };
        let sections = u16::from_le_bytes([s0, s1]);
        Ok(Entry { records: u32::from_le_bytes(records), request, sections, rest })
    }

    /// The number of records that were accepted with the request; of a part, all of
    /// them or none: see [`part`].
    pub fn records(&self) -> u32 {
        self.records
    }

    /// What the client called its request, if it did.
    pub fn request(&self) -> Option<RequestId> {
        self.request
    }

    /// Each section with the number of its aggregation, in the order of writing.
    ///
    /// The first error ends the iteration. An iteration without one has read all
    /// bytes of the entry.
    pub fn sections(&self) -> Sections<'a> {
        Sections { left: self.sections, rest: self.rest, done: false }
    }
}

fn request_id(rest: &[u8]) -> Result<(Option<RequestId>, &[u8]), MalformedEntry> {
    let (id, rest) = rest.split_first_chunk::<REQUEST_ID_BYTES>().ok_or(MalformedEntry::CutOff)?;
    let (mut session, mut sequence) = ([0; SESSION_BYTES], [0; 8]);
    session.copy_from_slice(&id[..SESSION_BYTES]);
    sequence.copy_from_slice(&id[SESSION_BYTES..]);
    Ok((Some(RequestId { session, sequence: u64::from_le_bytes(sequence) }), rest))
}

/// What one aggregation gets to know of a request.
#[derive(Clone, Copy, Debug)]
pub enum Section<'a> {
    /// For an aggregation of the type `DistinctLogs`.
    DistinctLogs(DistinctSection<'a>),
    /// For an aggregation of the type `LogFiles`.
    LogFiles(ChunkSection<'a>),
}

impl<'a> Section<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, MalformedEntry> {
        match bytes.first() {
            Some(&(distinct::KEYS | distinct::COUNTS)) => {
                DistinctSection::parse(bytes).map(Section::DistinctLogs)
            }
            Some(&chunk::CHUNK) => ChunkSection::parse(bytes).map(Section::LogFiles),
            Some(&kind) => Err(MalformedEntry::Kind(kind)),
            None => Err(MalformedEntry::CutOff),
        }
    }
}

/// The sections of an [`Entry`], from [`Entry::sections`].
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    left: u16,
    rest: &'a [u8],
    done: bool,
}

impl<'a> Sections<'a> {
    fn read(&mut self) -> Result<(u32, Section<'a>), MalformedEntry> {
        let (head, rest) =
            self.rest.split_first_chunk::<SECTION_HEAD_BYTES>().ok_or(MalformedEntry::CutOff)?;
        let [a0, a1, a2, a3, length @ ..] = *head;
        let length = u32::from_le_bytes(length) as usize;
        let (section, rest) = rest.split_at_checked(length).ok_or(MalformedEntry::CutOff)?;
        self.rest = rest;
        Ok((u32::from_le_bytes([a0, a1, a2, a3]), Section::parse(section)?))
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<(u32, Section<'a>), MalformedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.done = true;
            let extra = self.rest.len();
            return (extra > 0).then_some(Err(MalformedEntry::TooLong(extra)));
        };
        self.left = left;
        let section = self.read();
        self.done = section.is_err();
        Some(section)
    }
}

#[cfg(test)]
mod tests;
