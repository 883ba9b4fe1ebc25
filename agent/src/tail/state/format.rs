//! The bytes of a batch of entries: a protobuf message, whose tags are never used again for
//! something else (docs/adr/0020-agent-state.md).

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use prost::{Message, Oneof};

use crate::tail::{
    identity::{Fingerprint, Inode, Trace},
    session::{Cut, End, Entry, Session},
};

/// The body of the batch with this number.
pub(crate) fn encode(number: u64, entries: &[Entry]) -> Vec<u8> {
    let entries = entries.iter().map(|entry| EntryBytes { kind: Some(entry.into()) }).collect();
    BatchBytes { number, entries }.encode_to_vec()
}

/// A batch's number and entries; nothing if it is no batch.
pub(crate) fn decode(body: &[u8]) -> Option<(u64, Vec<Entry>)> {
    let batch = BatchBytes::decode(body).ok()?;
    let entries = batch.entries.into_iter().map(|entry| entry.kind?.entry());
    Some((batch.number, entries.collect::<Option<_>>()?))
}

#[derive(Clone, PartialEq, Message)]
struct BatchBytes {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryBytes>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryBytes {
    #[prost(oneof = "KindBytes", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    kind: Option<KindBytes>,
}

#[derive(Clone, PartialEq, Oneof)]
enum KindBytes {
    #[prost(message, tag = "1")]
    Known(SessionBytes),
    #[prost(message, tag = "2")]
    Cut(NextBytes),
    #[prost(message, tag = "3")]
    Passed(NextBytes),
    #[prost(message, tag = "4")]
    Answered(PlaceBytes),
    #[prost(message, tag = "5")]
    Moved(MovedBytes),
    #[prost(message, tag = "6")]
    Spooled(PlaceBytes),
    #[prost(message, tag = "7")]
    Ended(EndedBytes),
    #[prost(message, tag = "8")]
    Forgotten(PlaceBytes),
    #[prost(message, tag = "9")]
    Floor(FloorBytes),
}

#[derive(Clone, PartialEq, Message)]
struct SessionBytes {
    #[prost(uint64, tag = "1")]
    key: u64,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint64, tag = "3")]
    number: u64,
    #[prost(bytes = "vec", tag = "4")]
    path: Vec<u8>,
    #[prost(message, required, tag = "5")]
    inode: InodeBytes,
    #[prost(message, required, tag = "6")]
    trace: TraceBytes,
    #[prost(uint64, tag = "7")]
    seq: u64,
    #[prost(message, repeated, tag = "8")]
    unanswered: Vec<CutBytes>,
    #[prost(message, optional, tag = "9")]
    end: Option<EndBytes>,
}

#[derive(Clone, PartialEq, Message)]
struct InodeBytes {
    #[prost(uint64, tag = "1")]
    device: u64,
    #[prost(uint64, tag = "2")]
    number: u64,
    #[prost(sfixed64, optional, tag = "3")]
    born: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct TraceBytes {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(message, required, tag = "2")]
    head: FingerprintBytes,
    #[prost(message, required, tag = "3")]
    tail: FingerprintBytes,
}

#[derive(Clone, PartialEq, Message)]
struct FingerprintBytes {
    #[prost(uint32, tag = "1")]
    length: u32,
    #[prost(fixed64, tag = "2")]
    high: u64,
    #[prost(fixed64, tag = "3")]
    low: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CutBytes {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint64, tag = "2")]
    offset: u64,
    #[prost(uint32, tag = "3")]
    length: u32,
    #[prost(fixed32, tag = "4")]
    checksum: u32,
    #[prost(uint64, optional, tag = "5")]
    spooled: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct NextBytes {
    #[prost(uint64, tag = "1")]
    key: u64,
    #[prost(message, optional, tag = "2")]
    cut: Option<CutBytes>,
    #[prost(message, required, tag = "3")]
    trace: TraceBytes,
}

#[derive(Clone, PartialEq, Message)]
struct PlaceBytes {
    #[prost(uint64, tag = "1")]
    key: u64,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(uint64, tag = "3")]
    at: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MovedBytes {
    #[prost(uint64, tag = "1")]
    key: u64,
    #[prost(bytes = "vec", tag = "2")]
    path: Vec<u8>,
    #[prost(message, required, tag = "3")]
    inode: InodeBytes,
}

#[derive(Clone, PartialEq, Message)]
struct EndedBytes {
    #[prost(uint64, tag = "1")]
    key: u64,
    #[prost(message, required, tag = "2")]
    end: EndBytes,
}

/// Given up, unless it says when it was complete.
#[derive(Clone, PartialEq, Message)]
struct EndBytes {
    #[prost(uint64, optional, tag = "1")]
    complete: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct FloorBytes {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    key: u64,
}

impl From<&Entry> for KindBytes {
    fn from(entry: &Entry) -> Self {
        let place = |key, seq, at| PlaceBytes { key, seq, at };
        match entry {
            Entry::Known(session) => KindBytes::Known(session.into()),
            Entry::Cut { key, cut, trace } => {
                KindBytes::Cut(NextBytes { key: *key, cut: Some(cut.into()), trace: trace.into() })
            }
            Entry::Passed { key, trace } => {
                KindBytes::Passed(NextBytes { key: *key, cut: None, trace: trace.into() })
            }
            Entry::Answered { key, seq } => KindBytes::Answered(place(*key, *seq, 0)),
            Entry::Moved { key, path, inode } => KindBytes::Moved(MovedBytes {
                key: *key,
                path: path.clone().into_os_string().into_vec(),
                inode: inode.into(),
            }),
            Entry::Spooled { key, seq, at } => KindBytes::Spooled(place(*key, *seq, *at)),
            Entry::Ended { key, end } => {
                KindBytes::Ended(EndedBytes { key: *key, end: end.into() })
            }
            Entry::Forgotten { key } => KindBytes::Forgotten(place(*key, 0, 0)),
            Entry::Floor { number, key } => {
                KindBytes::Floor(FloorBytes { number: *number, key: *key })
            }
        }
    }
}

impl KindBytes {
    fn entry(self) -> Option<Entry> {
        Some(match self {
            KindBytes::Known(session) => Entry::Known(session.session()?),
            KindBytes::Cut(NextBytes { key, cut, trace }) => {
                Entry::Cut { key, cut: cut?.cut(), trace: trace.trace()? }
            }
            KindBytes::Passed(NextBytes { key, trace, .. }) => {
                Entry::Passed { key, trace: trace.trace()? }
            }
            KindBytes::Answered(PlaceBytes { key, seq, .. }) => Entry::Answered { key, seq },
            KindBytes::Moved(MovedBytes { key, path, inode }) => {
                Entry::Moved { key, path: OsString::from_vec(path).into(), inode: inode.inode() }
            }
            KindBytes::Spooled(PlaceBytes { key, seq, at }) => Entry::Spooled { key, seq, at },
            KindBytes::Ended(EndedBytes { key, end }) => Entry::Ended { key, end: end.end() },
            KindBytes::Forgotten(PlaceBytes { key, .. }) => Entry::Forgotten { key },
            KindBytes::Floor(FloorBytes { number, key }) => Entry::Floor { number, key },
        })
    }
}

impl From<&Session> for SessionBytes {
    fn from(session: &Session) -> Self {
        SessionBytes {
            key: session.key,
            id: session.id.clone(),
            number: session.number,
            path: session.path.clone().into_os_string().into_vec(),
            inode: (&session.inode).into(),
            trace: (&session.trace).into(),
            seq: session.seq,
            unanswered: session.unanswered.iter().map(CutBytes::from).collect(),
            end: session.end.as_ref().map(EndBytes::from),
        }
    }
}

impl SessionBytes {
    fn session(self) -> Option<Session> {
        Some(Session {
            key: self.key,
            id: self.id,
            number: self.number,
            path: OsString::from_vec(self.path).into(),
            inode: self.inode.inode(),
            trace: self.trace.trace()?,
            seq: self.seq,
            unanswered: self.unanswered.into_iter().map(CutBytes::cut).collect(),
            end: self.end.map(EndBytes::end),
        })
    }
}

impl From<&Inode> for InodeBytes {
    fn from(inode: &Inode) -> Self {
        InodeBytes { device: inode.device, number: inode.number, born: inode.born }
    }
}

impl InodeBytes {
    fn inode(self) -> Inode {
        Inode { device: self.device, number: self.number, born: self.born }
    }
}

impl From<&Trace> for TraceBytes {
    fn from(trace: &Trace) -> Self {
        TraceBytes { offset: trace.offset, head: (&trace.head).into(), tail: (&trace.tail).into() }
    }
}

impl TraceBytes {
    fn trace(self) -> Option<Trace> {
        let (head, tail) = (self.head.fingerprint()?, self.tail.fingerprint()?);
        Some(Trace { offset: self.offset, head, tail })
    }
}

impl From<&Fingerprint> for FingerprintBytes {
    fn from(fingerprint: &Fingerprint) -> Self {
        FingerprintBytes {
            length: fingerprint.length.into(),
            high: (fingerprint.hash >> 64) as u64,
            low: fingerprint.hash as u64,
        }
    }
}

impl FingerprintBytes {
    fn fingerprint(self) -> Option<Fingerprint> {
        let hash = u128::from(self.high) << 64 | u128::from(self.low);
        Some(Fingerprint { length: self.length.try_into().ok()?, hash })
    }
}

impl From<&Cut> for CutBytes {
    fn from(cut: &Cut) -> Self {
        let Cut { seq, offset, length, checksum, spooled } = *cut;
        CutBytes { seq, offset, length, checksum, spooled }
    }
}

impl CutBytes {
    fn cut(self) -> Cut {
        let CutBytes { seq, offset, length, checksum, spooled } = self;
        Cut { seq, offset, length, checksum, spooled }
    }
}

impl From<&End> for EndBytes {
    fn from(end: &End) -> Self {
        match end {
            End::Complete(at) => EndBytes { complete: Some(*at) },
            End::GivenUp => EndBytes { complete: None },
        }
    }
}

impl EndBytes {
    fn end(self) -> End {
        self.complete.map_or(End::GivenUp, End::Complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::session::tests::{cut, session};

    fn entries() -> Vec<Entry> {
        let mut whole = session(3, "host/var/log/a", 1_700_000_000_000);
        let Entry::Cut { cut: chunk, trace, .. } = cut(3, 1) else { unreachable!() };
        whole.path = OsString::from_vec(b"/var/log/\xff".to_vec()).into();
        whole.unanswered.push_back(Cut { spooled: Some(0), ..chunk });
        (whole.trace, whole.seq, whole.end) = (trace, 1, Some(End::Complete(9)));
        vec![
            Entry::Known(whole),
            cut(3, 2),
            Entry::Passed { key: 3, trace },
            Entry::Answered { key: 3, seq: 2 },
            Entry::Moved { key: 3, path: "/b".into(), inode: session(4, "", 0).inode },
            Entry::Spooled { key: 3, seq: 2, at: 5 },
            Entry::Ended { key: 3, end: End::GivenUp },
            Entry::Forgotten { key: 3 },
            Entry::Floor { number: 7, key: 3 },
        ]
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        assert_eq!(decode(&encode(6, &entries())), Some((6, entries())));
    }

    #[test]
    fn what_is_on_disk_stays_readable() {
        let hex: String = encode(6, &entries()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = "\
        0806127b0a790803120e686f73742f7661722f6c6f672f611880d095ffbc31220a2f7661722f6c6f672f\
        ff2a0d0801100319f9ffffffffffffff322e08141214080811a18089e30737b4b61962d7b5174a55f483\
        1a14080811a18089e30737b4b61962d7b5174a55f4833801420d0801100a180a250500000028004a0208\
        091241123f0803120b08021014180a25050000001a2e081e1214080811c5c81567c13577e219138cf518\
        433e2bae1a14080811c5c81567c13577e219138cf518433e2bae12341a3208031a2e08141214080811a1\
        8089e30737b4b61962d7b5174a55f4831a14080811a18089e30737b4b61962d7b5174a55f48312062204\
        0803100212172a15080312022f621a0d0801100419f9ffffffffffffff1208320608031002180512063a\
        040803120012044202080312064a0408071003";
}
