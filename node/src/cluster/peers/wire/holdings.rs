//! What is told of journals and results.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sheaf_proto::peer;

use super::Malformed;
use crate::checkpoint::facts::{SegmentId, Slot};
use crate::cluster::peers::{Batch, CHUNK_BYTES_MAX, Listed, Part, Stamped};
use crate::event::slots::SlotSet;
use crate::event::time::UnixNanos;
use crate::flush::requests::Decided;
use crate::journal::Extent;

/// What a part takes in a message beside its entry, at most: tags, lengths, index, stamp.
const PART_HEAD_BYTES: usize = 32;

pub(in crate::cluster::peers) fn whole_second(time: u64) -> Result<UnixNanos, Malformed> {
    let time = UnixNanos(time);
    if time == time.whole_second() { Ok(time) } else { Err(Malformed("time")) }
}

pub(in crate::cluster::peers) fn to_slots(slots: SlotSet) -> Bytes {
    Bytes::copy_from_slice(&slots.to_bytes())
}

pub(in crate::cluster::peers) fn slots(bytes: &[u8]) -> Result<SlotSet, Malformed> {
    bytes.try_into().map(SlotSet::from_bytes).map_err(|_| Malformed("slots"))
}

pub(in crate::cluster::peers) fn to_records(records: &BTreeMap<Slot, u64>) -> BTreeMap<u32, u64> {
    records.iter().map(|(&slot, &records)| (slot.into(), records)).collect()
}

pub(in crate::cluster::peers) fn records(
    message: BTreeMap<u32, u64>,
) -> Result<BTreeMap<Slot, u64>, Malformed> {
    let slot = |slot: u32| Slot::try_from(slot).map_err(|_| Malformed("records"));
    message.into_iter().map(|(of, records)| Ok((slot(of)?, records))).collect()
}

pub(in crate::cluster::peers) fn to_stamped(
    stamped: &BTreeMap<SegmentId, Stamped>,
) -> peer::StampedResponse {
    let segments = stamped.iter().map(|(&segment, &stamped)| (segment, to_one_stamped(stamped)));
    peer::StampedResponse { segments: segments.collect() }
}

pub(in crate::cluster::peers) fn to_one_stamped(stamped: Stamped) -> peer::Stamped {
    let Stamped { before: Extent { entries, records, chunks }, last } = stamped;
    peer::Stamped { entries, records, last: last.0, chunks }
}

pub(in crate::cluster::peers) fn one_stamped(message: peer::Stamped) -> Stamped {
    let peer::Stamped { entries, records, last, chunks } = message;
    Stamped { before: Extent { entries, records, chunks }, last: UnixNanos(last) }
}

pub(in crate::cluster::peers) fn stamped(
    message: peer::StampedResponse,
) -> BTreeMap<SegmentId, Stamped> {
    let segments = message.segments.into_iter();
    segments.map(|(segment, stamped)| (segment, one_stamped(stamped))).collect()
}

/// A batch in messages of up to [`CHUNK_BYTES_MAX`], unless a single entry takes more.
pub(in crate::cluster::peers) fn to_batches(batch: Batch) -> Vec<peer::FollowResponse> {
    let (mut messages, mut parts, mut bytes) = (Vec::new(), Vec::new(), 0);
    for Part { index, stamp, entry } in batch.parts {
        let length = PART_HEAD_BYTES + entry.len();
        if bytes + length > CHUNK_BYTES_MAX && !parts.is_empty() {
            // Of the entries between two parts the slots need nothing.
            let parts = std::mem::take(&mut parts);
            messages.push(peer::FollowResponse { next: index, parts });
            bytes = 0;
        }
        bytes += length;
        parts.push(peer::Part { index, stamp: stamp.0, entry });
    }
    messages.push(peer::FollowResponse { next: batch.next, parts });
    messages
}

/// Entries with their frames, the first of this number, in messages of up to
/// [`CHUNK_BYTES_MAX`]: one that is longer goes on in the next.
pub(in crate::cluster::peers) fn to_copies(
    first: u64,
    frames: Vec<Bytes>,
) -> Vec<peer::CopyRequest> {
    let beginning = |first| peer::CopyRequest { first, ..Default::default() };
    let (mut messages, mut message) = (Vec::new(), beginning(first));
    let mut room = CHUNK_BYTES_MAX;
    for (index, mut frame) in (first..).zip(frames) {
        if frame.len() > room && !message.frames.is_empty() {
            messages.push(std::mem::replace(&mut message, beginning(index)));
            room = CHUNK_BYTES_MAX;
        }
        while frame.len() > room {
            message.frames.push(frame.split_to(room));
            message.continues = true;
            messages.push(std::mem::replace(&mut message, beginning(index)));
            room = CHUNK_BYTES_MAX;
        }
        room -= frame.len();
        message.frames.push(frame);
    }
    messages.push(message);
    messages
}

/// Entries that come in messages of a copy.
#[derive(Default)]
pub(in crate::cluster::peers) struct Copied {
    /// What came of one that goes on in the next message.
    begun: BytesMut,
    first: u64,
    frames: Vec<Bytes>,
}

impl Copied {
    /// Takes the next message.
    pub(in crate::cluster::peers) fn add(&mut self, message: peer::CopyRequest) {
        let peer::CopyRequest { first, mut frames, continues, .. } = message;
        if self.frames.is_empty() {
            self.first = first;
        }
        if !self.begun.is_empty()
            && let Some(next) = frames.first_mut()
        {
            self.begun.extend_from_slice(next);
            *next = self.begun.split().freeze();
        }
        if continues && let Some(last) = frames.pop() {
            self.begun.extend_from_slice(&last);
        }
        self.frames.append(&mut frames);
    }

    /// The whole entries that came since, and the number of the first; `None` if there are
    /// none.
    pub(in crate::cluster::peers) fn take(&mut self) -> Option<(u64, Vec<Bytes>)> {
        let frames = std::mem::take(&mut self.frames);
        (!frames.is_empty()).then_some((self.first, frames))
    }
}

/// The batch that follows all entries before `from`. What is out of order is malformed:
/// an entry that is counted twice, or passed over, makes all counts wrong.
pub(in crate::cluster::peers) fn batch(
    message: peer::FollowResponse,
    from: u64,
) -> Result<Batch, Malformed> {
    let peer::FollowResponse { next, parts } = message;
    let mut begin = from;
    for part in &parts {
        if part.index < begin || part.index >= next {
            return Err(Malformed("parts.index"));
        }
        begin = part.index + 1;
    }
    if next < begin {
        return Err(Malformed("next"));
    }
    let parts = parts.into_iter();
    let parts = parts.map(|peer::Part { index, stamp, entry }| Part {
        index,
        stamp: UnixNanos(stamp),
        entry,
    });
    Ok(Batch { next, parts: parts.collect() })
}

pub(in crate::cluster::peers) fn to_decided(decided: &Decided) -> Result<Bytes, Malformed> {
    serde_json::to_vec(decided).map(Bytes::from).map_err(|_| Malformed("decided"))
}

pub(in crate::cluster::peers) fn decided(json: &[u8]) -> Result<Decided, Malformed> {
    serde_json::from_slice(json).map_err(|_| Malformed("decided"))
}

pub(in crate::cluster::peers) fn to_tables(
    tables: &[Listed],
) -> Result<peer::TablesResponse, Malformed> {
    let listed = tables.iter().map(|Listed { table, slots, summary, records }| {
        let summary = summary.as_ref().map(serde_json::to_vec).transpose();
        let summary = summary.map_err(|_| Malformed("tables.summary"))?.map(Bytes::from);
        let (slots, records) = (to_slots(*slots), to_records(records));
        Ok(peer::Table { table: *table, slots, summary, records })
    });
    Ok(peer::TablesResponse { tables: listed.collect::<Result<_, Malformed>>()? })
}

pub(in crate::cluster::peers) fn tables(
    message: peer::TablesResponse,
) -> Result<Vec<Listed>, Malformed> {
    let listed = message.tables.into_iter().map(|listed| {
        let peer::Table { table, slots: set, summary, records: of } = listed;
        let summary = summary.map(|summary| serde_json::from_slice(&summary)).transpose();
        let summary = summary.map_err(|_| Malformed("tables.summary"))?;
        Ok(Listed { table, slots: slots(&set)?, summary, records: records(of)? })
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::cluster::example::identity;
    use crate::cluster::peers::wire::to_caller;

    fn part(index: u64, bytes: usize) -> Part {
        let stamp = UnixNanos(1000 + index);
        Part { index, stamp, entry: vec![index as u8; bytes].into() }
    }

    /// What arrives of a batch that follows the entries before 10.
    fn sent(batch: Batch) -> Vec<Batch> {
        let mut from = 10;
        let read = |message: peer::FollowResponse| {
            assert!(message.encoded_len() <= CHUNK_BYTES_MAX || message.parts.len() == 1);
            let batch = super::batch(message, from).unwrap();
            from = batch.next;
            batch
        };
        to_batches(batch).into_iter().map(read).collect()
    }

    #[test]
    fn a_batch_goes_into_as_few_messages_as_it_fits() {
        let small = Batch { next: 20, parts: vec![part(10, 5), part(19, 5)] };
        assert_eq!(sent(small.clone()), [small]);
        let nothing = Batch { next: 20, parts: Vec::new() };
        assert_eq!(sent(nothing.clone()), [nothing]);

        let third = CHUNK_BYTES_MAX / 3 - PART_HEAD_BYTES;
        let parts: Vec<_> = (10..14).map(|index| part(2 * index, third)).collect();
        let batches = sent(Batch { next: 99, parts: parts.clone() });
        let first = Batch { next: 26, parts: parts[..3].to_vec() };
        assert_eq!(batches, [first, Batch { next: 99, parts: parts[3..].to_vec() }]);
    }

    #[test]
    fn an_entry_that_is_larger_than_a_message_goes_alone() {
        let parts = vec![part(10, 1), part(11, CHUNK_BYTES_MAX + 1), part(12, 1)];
        let batches = sent(Batch { next: 13, parts });
        let shapes: Vec<_> = batches.iter().map(|batch| (batch.next, batch.parts.len())).collect();
        assert_eq!(shapes, [(11, 1), (12, 1), (13, 1)]);
    }

    #[test]
    fn entries_out_of_order_are_malformed() {
        let read = |from, next, indexes: &[u64]| {
            let parts = indexes.iter().map(|&index| peer::Part { index, ..peer::Part::default() });
            batch(peer::FollowResponse { next, parts: parts.collect() }, from).map(drop)
        };
        assert_eq!(read(3, 6, &[3, 5]), Ok(()));
        assert_eq!(read(3, 3, &[]), Ok(()));
        for indexes in [&[2, 5][..], &[4, 4], &[5, 4], &[6], &[u64::MAX]] {
            assert_eq!(read(3, 6, indexes), Err(Malformed("parts.index")), "{indexes:?}");
        }
        assert_eq!(read(3, 2, &[]), Err(Malformed("next")));
    }

    #[test]
    fn only_whole_seconds_are_asked_for() {
        assert_eq!(whole_second(2_000_000_000), Ok(UnixNanos(2_000_000_000)));
        assert_eq!(whole_second(2_000_000_001), Err(Malformed("time")));
    }

    #[test]
    fn slots_are_32_bytes() {
        let set: SlotSet = [0, 9, 255].into_iter().collect();
        assert_eq!(slots(&to_slots(set)), Ok(set));
        for length in [0, 31, 33] {
            assert_eq!(slots(&vec![0; length]), Err(Malformed("slots")));
        }
    }

    #[test]
    fn the_bytes_of_tables_are_fixed() {
        let (slots, records) = ([255].into_iter().collect(), BTreeMap::from([(255, 5)]));
        let listed = vec![Listed { table: 7, slots, summary: None, records }];
        let table = [0x09, 7, 0, 0, 0, 0, 0, 0, 0];
        let (set, records) =
            ([&[0x12, 32][..], &[0; 31], &[0x80]].concat(), [0x22, 5, 0x08, 0xff, 1, 0x10, 5]);
        let of = [&table[..], &set, &records].concat();
        let bytes = [&[0x0a, of.len() as u8][..], &of].concat();
        assert_eq!(to_tables(&listed).unwrap().encode_to_vec(), bytes);
        assert_eq!(tables(peer::TablesResponse::decode(&bytes[..]).unwrap()), Ok(listed));
        assert_eq!(super::records(BTreeMap::from([(256, 5)])), Err(Malformed("records")));
    }

    #[test]
    fn the_bytes_of_what_was_stamped_are_fixed() {
        let before = Extent { entries: 2, records: 5, chunks: 1 };
        let some = Stamped { before, last: UnixNanos(0x0102_0304) };
        let told = BTreeMap::from([(300, some), (1, Stamped::default())]);
        let message = to_stamped(&told);
        let first = [0x0a, 2, 0x08, 1];
        let second = [0x0a, 20, 0x08, 0xac, 0x02, 0x12, 15, 0x08, 2, 0x10, 5, 0x19, 4, 3, 2, 1];
        let bytes = [&first[..], &second, &[0; 4], &[0x20, 1]].concat();
        assert_eq!(message.encode_to_vec(), bytes);
        let read = peer::StampedResponse::decode(&bytes[..]).unwrap();
        assert_eq!(stamped(read), told);
    }

    #[test]
    fn the_bytes_of_a_batch_are_fixed() {
        let entry = Bytes::from_static(b"part");
        let parts = vec![Part { index: 7, stamp: UnixNanos(0x0102_0304), entry }];
        let message = to_batches(Batch { next: 9, parts }).remove(0);
        let head = [0x08, 9, 0x12, 17, 0x08, 7, 0x11, 4, 3, 2, 1, 0, 0, 0, 0, 0x1a, 4];
        assert_eq!(message.encode_to_vec(), [&head[..], b"part"].concat());
    }

    #[test]
    fn the_bytes_of_requests_are_fixed() {
        let set = to_slots([255].into_iter().collect());
        let follow = peer::FollowRequest { caller: None, segment: 3, from: 4, slots: set.clone() };
        let head = [0x10, 3, 0x18, 4, 0x22, 32];
        let slots = [&[0; 31][..], &[0x80]].concat();
        assert_eq!(follow.encode_to_vec(), [&head[..], &slots].concat());
        let (caller, aggregation, end, table) = (None, 3, 4, 5);
        let results = peer::ResultsRequest { caller, aggregation, end, table, slots: set };
        let (end, table) = ([0x19, 4, 0, 0, 0, 0, 0, 0, 0], [0x21, 5, 0, 0, 0, 0, 0, 0, 0]);
        let head = [&[0x10, 3][..], &end, &table, &[0x2a, 32]].concat();
        assert_eq!(results.encode_to_vec(), [&head[..], &slots].concat());

        let caller = Some(to_caller(&identity(2)));
        let stamped = peer::StampedRequest { caller: caller.clone(), time: 5, lease: 6 };
        let stamped = stamped.encode_to_vec();
        assert_eq!(stamped[..2], [0x0a, 38]);
        let (time, lease) = ([0x11, 5, 0, 0, 0, 0, 0, 0, 0], [0x19, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(stamped[40..], [time, lease].concat());
        let live = peer::LiveRequest { caller, limit: 5 }.encode_to_vec();
        assert_eq!((&live[..40], &live[40..]), (&stamped[..40], &[0x10, 5][..]));
    }
}
