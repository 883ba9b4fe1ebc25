//! The bytes of tables, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;

use super::*;
use crate::event::fingerprint::SLOTS;

/// A value's bytes, and its slots with their counts, by its hash.
type Rows = BTreeMap<u128, (Vec<u8>, BTreeMap<u8, u64>)>;
type Read<T> = Result<T, MalformedTable>;

const HASH: u128 = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;

fn row(canonical: &[u8], slots: &[(u8, u64)]) -> (Vec<u8>, BTreeMap<u8, u64>) {
    (canonical.to_vec(), slots.iter().copied().collect())
}

fn all_slots() -> SlotSet {
    (0..=u8::MAX).collect()
}

fn write(rows: &Rows) -> Vec<Vec<u8>> {
    let mut writer = ChunkWriter::default();
    let mut chunks = Vec::new();
    for (&hash, (canonical, slots)) in rows {
        let slots: Vec<(u8, u64)> = slots.iter().map(|(&slot, &count)| (slot, count)).collect();
        chunks.extend(writer.push(&CountRow { hash, canonical, slots: &slots }));
    }
    chunks.extend(writer.take());
    chunks
}

fn come(chunks: &[Vec<u8>]) -> impl Iterator<Item = Read<Vec<u8>>> {
    chunks.iter().cloned().map(Ok)
}

fn read(chunks: &[Vec<u8>]) -> Read<Rows> {
    let mut reader = RowReader::new(come(chunks), all_slots());
    let mut rows = Rows::new();
    while reader.advance()?.is_some() {
        let CountRow { hash, canonical, slots } = reader.row();
        rows.insert(hash, row(canonical, slots));
    }
    Ok(rows)
}

fn restricted(chunks: &[Vec<u8>], slots: SlotSet) -> Vec<Vec<u8>> {
    restrict(come(chunks), slots).collect::<Read<_>>().unwrap()
}

fn merged(tables: &[(SlotSet, &[Vec<u8>])]) -> Result<Merged, MergeError<MalformedTable>> {
    let tables = tables.iter().map(|&(slots, chunks)| Table { slots, chunks: come(chunks) });
    merge(tables, 0, 1000)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_chunk_are_fixed() {
    let every_other: Vec<(u8, u64)> = (0..33).map(|slot| (2 * slot, 1)).collect();
    let rows = Rows::from([
        (HASH, row(b"ab", &[(3, 1), (200, 300)])),
        (HASH + 1, row(b"", &[(255, u64::MAX)])),
        (HASH + 2, row(b"c", &every_other)),
        (HASH + 3, row(b"d", &every_other[..32])),
    ]);
    let expected = [
        "01",
        "000102030405060708090a0b0c0d0e0f 02 6162 01 03c8 01 ac02",
        "010102030405060708090a0b0c0d0e0f 00 00 ff ffffffffffffffffff01",
        "020102030405060708090a0b0c0d0e0f 01 63 20",
        &"55".repeat(8),
        "01",
        &"00".repeat(23),
        &"01".repeat(33),
        "030102030405060708090a0b0c0d0e0f 01 64 1f",
        "00020406080a0c0e10121416181a1c1e20222426282a2c2e30323436383a3c3e",
        &"01".repeat(32),
    ];
    let chunks = write(&rows);
    assert_eq!(chunks.len(), 1);
    assert_eq!(hex(&chunks[0]), expected.concat().replace(' ', ""));
    assert_eq!(read(&chunks), Ok(rows));
}

/// The expected numbers were computed by a separate implementation.
#[test]
fn the_digest_of_a_slot_is_fixed() {
    let one = write(&Rows::from([(HASH, row(b"ab", &[(3, 1), (200, 300)]))]));
    let two = write(&Rows::from([(HASH, row(b"ab", &[(3, 1)])), (HASH + 1, row(b"c", &[(3, 7)]))]));
    let totals = |chunks: &[Vec<u8>], slots: &[u8]| {
        let slots = slots.iter().copied().collect();
        merged(&[(slots, chunks)]).unwrap().slots
    };
    let expected = [
        TableTotals { slot: 3, distinct: 1, digest: 0x1c473b4f35151d7f1637e64783d2a5d9 },
        TableTotals { slot: 4, distinct: 0, digest: 0 },
        TableTotals { slot: 200, distinct: 300, digest: 0xcdbe425d29f27c064d93f7b2b388be1c },
    ];
    assert_eq!(totals(&one, &[3, 4, 200]), expected);
    let digest = 0x328b38ee5f08e933b72b38d842ca06d5;
    let expected = [TableTotals { slot: 3, distinct: 8, digest }];
    assert_eq!(totals(&two, &[3]), expected);
}

#[test]
fn what_is_no_chunk_is_refused_with_the_reason() {
    let row = |slots: &[u8]| [&[1][..], &HASH.to_le_bytes(), &[1, b'a'], slots].concat();
    let follows = |hash: u128| [row(&[0, 7, 1]), hash.to_le_bytes().to_vec(), vec![0, 0, 7, 1]];
    let dense = |last: u8, set: [u8; 32]| [&[last][..], &set, &[1; SLOTS]].concat();
    let maximum = [[0xff; 9].as_slice(), &[1]].concat();
    let too_large = [&[0, 7][..], &[0xff; 9], &[2]].concat();
    let too_many = [&[1, 7, 8][..], &maximum, &[1]].concat();
    let huge_value = [&[1][..], &HASH.to_le_bytes(), &maximum, &[0, 7, 1]].concat();
    for (chunk, reason) in [
        (vec![], MalformedTable::CutOff),
        (vec![1], MalformedTable::CutOff),
        (vec![2], MalformedTable::Version(2)),
        (row(&[]), MalformedTable::CutOff),
        (row(&[0]), MalformedTable::CutOff),
        (row(&[0, 7]), MalformedTable::CutOff),
        (row(&[0, 7, 0x80]), MalformedTable::CutOff),
        (row(&[0, 7, 1, 9]), MalformedTable::CutOff),
        (huge_value, MalformedTable::CutOff),
        (row(&[0, 7, 0]), MalformedTable::Zero),
        (row(&[0, 7, 0x81, 0]), MalformedTable::Number),
        (row(&too_large), MalformedTable::Number),
        (row(&[[0, 7].as_slice(), &[0xff; 10]].concat()), MalformedTable::Number),
        (row(&too_many), MalformedTable::Overflow),
        (row(&[1, 7, 7, 1, 1]), MalformedTable::Slots),
        (row(&[1, 7, 6, 1, 1]), MalformedTable::Slots),
        (row(&dense(254, [0xff; 32])), MalformedTable::Slots),
        (row(&dense(255, [0x7f; 32])), MalformedTable::Slots),
        (follows(HASH).concat(), MalformedTable::Order),
        (follows(HASH - 1).concat(), MalformedTable::Order),
        (follows(0).concat(), MalformedTable::Order),
    ] {
        assert_eq!(read(std::slice::from_ref(&chunk)), Err(reason), "{}", hex(&chunk));
    }
    assert!(read(&[follows(HASH + 1).concat()]).is_ok());
    assert!(read(&[row(&dense(255, [0xff; 32]))]).is_ok());
}

#[test]
fn the_order_of_values_holds_from_chunk_to_chunk() {
    let chunk = |hash| write(&Rows::from([(hash, row(b"a", &[(1, 1)]))])).concat();
    assert!(read(&[chunk(HASH), chunk(HASH + 1)]).is_ok());
    for second in [HASH, HASH - 1] {
        assert_eq!(read(&[chunk(HASH), chunk(second)]), Err(MalformedTable::Order));
    }
}

#[test]
fn a_chunk_is_as_large_as_it_may_be_or_a_single_row() {
    let sizes = [300 << 10, 1, 262_100, 1, 262_101, 1];
    let rows: Rows =
        (1..).zip(sizes).map(|(hash, size)| (hash, row(&vec![b'x'; size], &[(1, 1)]))).collect();
    let chunks = write(&rows);
    let sizes: Vec<usize> = chunks.iter().map(Vec::len).collect();
    // What a row has beside its value: the length takes one byte, or three.
    let (short, long) = (20, 22);
    let expected =
        [1 + long + (300 << 10), CHUNK_BYTES_MAX, 1 + short + 1, 1 + long + 262_101, 1 + short + 1];
    assert_eq!(sizes, expected);
    assert_eq!(read(&chunks), Ok(rows));
}

#[test]
fn sums_that_do_not_fit_are_refused() {
    let table = |slot, count| write(&Rows::from([(HASH, row(b"a", &[(slot, count)]))]));
    let slots = |slot: u8| -> SlotSet { [slot].into_iter().collect() };
    let (most, one) = (table(1, u64::MAX), table(2, 1));
    let error = merged(&[(slots(1), &most), (slots(2), &one)]).unwrap_err();
    assert_eq!((error.table, error.source), (1, MalformedTable::Overflow));
    assert!(merged(&[(slots(1), &most), (slots(3), &one)]).is_ok());
}

#[test]
fn tables_that_disagree_about_a_value_are_refused() {
    let table = |slot, value: &[u8]| write(&Rows::from([(HASH, row(value, &[(slot, 1)]))]));
    let slots = |slot: u8| -> SlotSet { [slot].into_iter().collect() };
    let (one, other) = (table(1, b"a"), table(2, b"b"));
    let error = merged(&[(slots(1), &one), (slots(2), &other)]).unwrap_err();
    assert_eq!((error.table, error.source), (1, MalformedTable::Value));
}

/// What may be wrong with a chunk that has yet to come.
#[derive(Clone, Debug, PartialEq)]
enum Failure {
    Link,
    Malformed(MalformedTable),
}

impl From<MalformedTable> for Failure {
    fn from(source: MalformedTable) -> Self {
        Failure::Malformed(source)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[test]
fn a_chunk_that_does_not_come_fails_the_table() {
    let chunk = write(&Rows::from([(HASH, row(b"a", &[(1, 1)]))])).concat();
    let broken = [Ok(chunk.clone()), Err(Failure::Link), Ok(chunk.clone())];
    let twice = [Ok(chunk.clone()), Ok(chunk)];
    for (chunks, failure) in
        [(&broken[..], Failure::Link), (&twice[..], MalformedTable::Order.into())]
    {
        let parts: Vec<_> = restrict(chunks.iter().cloned(), all_slots()).collect();
        assert_eq!(parts, [Err(failure.clone())]);
        let nothing = Table { slots: SlotSet::default(), chunks: [].iter().cloned() };
        let table = Table { slots: all_slots(), chunks: chunks.iter().cloned() };
        let error = merge([nothing, table], 0, 10).unwrap_err();
        assert_eq!((error.table, error.source), (1, failure));
    }
}

#[test]
fn no_tables_merge_to_nothing() {
    assert_eq!(merged(&[]).unwrap(), Merged { counts: Default::default(), slots: Vec::new() });
}

fn rows() -> impl Strategy<Value = Rows> {
    let hash = prop_oneof![1..50_u128, any::<u128>().prop_map(|hash| hash.max(1))];
    let count = prop_oneof![1..200_u64, any::<u32>().prop_map(|count| u64::from(count) + 1)];
    let few = prop::collection::btree_map(any::<u8>(), count.clone(), 1..4);
    let many = prop::collection::btree_map(any::<u8>(), count, 1..=SLOTS);
    let slots = prop_oneof![4 => few, 1 => many];
    // What a value is follows from its hash.
    prop::collection::btree_map(hash, slots, 0..40).prop_map(|rows| {
        let with_value = |(hash, slots)| (hash, (format!("{}", hash % 997).into_bytes(), slots));
        rows.into_iter().map(with_value).collect()
    })
}

fn some_slots() -> impl Strategy<Value = SlotSet> {
    prop::collection::vec(any::<bool>(), SLOTS)
        .prop_map(|chosen| (0..=u8::MAX).filter(|&slot| chosen[usize::from(slot)]).collect())
}

/// Each row in a chunk of its own, or several together.
fn cut_up(rows: &Rows, sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let mut left = rows.iter();
    let mut sizes = sizes.iter().cycle();
    loop {
        let size = sizes.next().copied().unwrap_or(1);
        let part: Rows = left.by_ref().take(size).map(|(&hash, row)| (hash, row.clone())).collect();
        if part.is_empty() {
            return chunks;
        }
        chunks.extend(write(&part));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(rows in rows(), sizes in prop::collection::vec(1..9_usize, 1..5)) {
        prop_assert_eq!(read(&write(&rows)), Ok(rows.clone()));
        prop_assert_eq!(read(&cut_up(&rows, &sizes)), Ok(rows));
    }

    #[test]
    fn a_chunk_is_refused_or_is_what_writing_gives(
        rows in rows(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut bytes = write(&rows).concat();
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                _ => if let Some(damaged) = bytes.get_mut(at) { *damaged ^= byte },
            }
        }
        if let Ok(rows) = read(std::slice::from_ref(&bytes)) {
            prop_assert_eq!(write(&rows).concat(), bytes);
        }
    }

    #[test]
    fn a_part_is_what_the_slots_have(rows in rows(), one in some_slots(), other in some_slots()) {
        let whole = write(&rows);
        prop_assert_eq!(&restricted(&whole, all_slots()), &whole);
        let mut expected = rows;
        expected.retain(|_, (_, slots)| {
            slots.retain(|&slot, _| one.contains(slot));
            !slots.is_empty()
        });
        let part = restricted(&whole, one);
        prop_assert_eq!(read(&part), Ok(expected));
        let both = one.iter().filter(|&slot| other.contains(slot)).collect();
        prop_assert_eq!(restricted(&part, other), restricted(&whole, both));
    }

    #[test]
    fn parts_merge_to_what_the_whole_merges_to(rows in rows(), one in some_slots()) {
        let whole = write(&rows);
        let rest: SlotSet = (0..=u8::MAX).filter(|&slot| !one.contains(slot)).collect();
        let expected = merged(&[(all_slots(), &whole)]).unwrap();
        let counts: BTreeMap<_, u64> = rows
            .values()
            .map(|(canonical, slots)| (canonical.clone(), slots.values().sum()))
            .collect();
        prop_assume!(counts.len() == rows.len());
        prop_assert_eq!(expected.counts.counts.iter().cloned().collect::<BTreeMap<_, _>>(), counts);
        for (first, second) in [
            (whole.clone(), whole.clone()),
            (restricted(&whole, one), restricted(&whole, rest)),
            (restricted(&whole, one), whole.clone()),
        ] {
            prop_assert_eq!(&merged(&[(one, &first), (rest, &second)]).unwrap(), &expected);
        }
        let part = restricted(&whole, one);
        prop_assert_eq!(merged(&[(one, &part)]).unwrap(), merged(&[(one, &whole)]).unwrap());
    }
}
