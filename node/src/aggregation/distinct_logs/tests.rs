//! The fold against an oracle that keeps everything in ordered maps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::event::entry::distinct::{Dictionary, DistinctSection};
use crate::event::entry::{Entry, EntryWriter, Section};
use crate::event::fingerprint::{FingerprintKey, event_key, slot_of};
use crate::event::value::{AttributeValue, put_int, put_string};

mod large;
mod parts;
mod tables;

const KEY: FingerprintKey = FingerprintKey([7; 16]);
const ROOMY: MemoryLimit = MemoryLimit(64 << 20);

/// A record: the number of its value, and of its body unless every record counts.
type Record = (u32, Option<u32>);

/// 0 stands for no attribute, every third number for an integer, the others for strings.
fn canonical(value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    match value {
        0 => AttributeValue::Absent.write_canonical(&mut bytes),
        _ if value.is_multiple_of(3) => put_int(i64::from(value) - 30, &mut bytes),
        _ => put_string(format!("value {value}").as_bytes(), &mut bytes),
    }
    bytes
}

fn fingerprint(body: u32) -> u128 {
    KEY.string(&body.to_le_bytes())
}

fn pack(packer: &mut Packer, records: &[Record]) -> Vec<u8> {
    packer.clear();
    for &(value, body) in records {
        let bytes = canonical(value);
        let value = match value {
            0 => AttributeValue::Absent,
            _ if value.is_multiple_of(3) => AttributeValue::Other(&bytes),
            _ => AttributeValue::String(&bytes[8..]),
        };
        packer.add(&value, body.map(fingerprint));
    }
    let mut entry = EntryWriter::new(None);
    packer.finish(&mut entry, 1);
    entry.finish(records.len() as u32)
}

fn section(entry: &[u8]) -> DistinctSection<'_> {
    let section = Entry::parse(entry).unwrap().sections().next().unwrap().unwrap();
    let (_, Section::DistinctLogs(section)) = section else { panic!("a chunk") };
    section
}

fn fold(window: &mut OpenWindow, records: &[Record]) {
    let entry = pack(&mut Packer::new(KEY), records);
    window.fold(&section(&entry)).unwrap();
}

fn hash(value: u32) -> u128 {
    KEY.value(&canonical(value))
}

/// The slot that a record is folded in.
fn slot(value: u32, body: Option<u32>) -> u8 {
    slot_of(body.map_or(hash(value), |body| event_key(hash(value), fingerprint(body))))
}

/// Records and distinct ones by slot.
type SlotOracle = BTreeMap<u8, (u64, u64)>;

/// What must come out, over all and slot by slot.
fn oracle(records: &[Record], limit: usize) -> (Counts, SlotOracle) {
    let keys: BTreeSet<(u32, u32)> =
        records.iter().filter_map(|&(value, body)| Some((value, body?))).collect();
    let mut values: BTreeMap<u32, u64> = BTreeMap::new();
    let mut slots = SlotOracle::new();
    for &(value, body) in &keys {
        *values.entry(value).or_default() += 1;
        slots.entry(slot(value, Some(body))).or_default().1 += 1;
    }
    for &(value, _) in records.iter().filter(|(_, body)| body.is_none()) {
        *values.entry(value).or_default() += 1;
        slots.entry(slot(value, None)).or_default().1 += 1;
    }
    for &(value, body) in records {
        slots.entry(slot(value, body)).or_default().0 += 1;
    }
    let distinct = values.values().sum();
    let unknown = values.remove(&0).unwrap_or(0);
    let mut counts: Vec<(Vec<u8>, u64)> =
        values.into_iter().map(|(value, count)| (canonical(value), count)).collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| compare_values(a, b)));
    let other = counts.split_off(limit.min(counts.len()));
    let counts = Counts {
        records: records.len() as u64,
        distinct,
        unknown,
        counts,
        other_values: other.len() as u64,
        other_count: other.iter().map(|(_, count)| count).sum(),
        upper_bound: false,
    };
    (counts, slots)
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn window(scratch: &Path) -> OpenWindow {
    OpenWindow::new(ROOMY, scratch, None)
}

#[test]
fn the_worked_example_counts_each_value_and_the_records_without_one() {
    let folder = scratch();
    let mut packer = Packer::new(KEY);
    packer.clear();
    for (body, value) in
        [Some("bar"), Some("qux"), Some("baz"), Some("baz"), None].iter().enumerate()
    {
        let value = value.map_or(AttributeValue::Absent, |v| AttributeValue::String(v.as_bytes()));
        packer.add(&value, Some(fingerprint(body as u32)));
    }
    let mut entry = EntryWriter::new(None);
    packer.finish(&mut entry, 1);
    let entry = entry.finish(5);
    let mut window = window(folder.path());
    window.fold(&section(&entry)).unwrap();
    let string = |content: &str| {
        let mut bytes = Vec::new();
        put_string(content.as_bytes(), &mut bytes);
        bytes
    };
    let expected = Counts {
        records: 5,
        distinct: 5,
        unknown: 1,
        counts: vec![(string("baz"), 2), (string("bar"), 1), (string("qux"), 1)],
        ..Counts::default()
    };
    assert_eq!(window.current(1000), expected);
    assert_eq!(window.close(1000).unwrap().counts, expected);
}

#[test]
fn the_same_body_under_two_values_counts_twice_and_under_one_once() {
    let folder = scratch();
    let mut window = window(folder.path());
    fold(&mut window, &[(1, Some(5)), (2, Some(5)), (1, Some(5))]);
    fold(&mut window, &[(1, Some(5))]);
    let closed = window.close(10).unwrap();
    assert_eq!((closed.counts.records, closed.counts.distinct), (4, 2));
}

#[test]
fn an_empty_window_closes_empty() {
    let folder = scratch();
    let closed = window(folder.path()).close(10).unwrap();
    assert_eq!((closed.counts, closed.slots), (Counts::default(), Vec::new()));
}

#[test]
fn a_packer_forgets_the_request_before() {
    let mut packer = Packer::new(KEY);
    pack(&mut packer, &[(1, Some(1)), (2, Some(2))]);
    pack(&mut packer, &[(1, None), (1, None)]);
    let again = pack(&mut packer, &[(2, Some(3)), (0, Some(4))]);
    assert_eq!(again, pack(&mut Packer::new(KEY), &[(2, Some(3)), (0, Some(4))]));
}

#[test]
fn a_full_memory_spills_by_itself_and_nothing_is_left_of_it() {
    let folder = scratch();
    let limit = MemoryLimit(256 << 10);
    let mut small = OpenWindow::new(limit, folder.path(), None);
    let mut all = Vec::new();
    for request in 0..40 {
        let records: Vec<Record> = (0..1000).map(|n| (n % 100, Some(request * 500 + n))).collect();
        fold(&mut small, &records);
        assert!(small.memory_bytes() <= limit.0 + (200 << 10), "{}", small.memory_bytes());
        all.extend(records);
    }
    assert!(small.spills() > 3, "{}", small.spills());
    let current = small.current(10);
    let closed = small.close(1000).unwrap();
    assert!(folder.path().read_dir().unwrap().next().is_none(), "the runs are removed");
    assert!(current.upper_bound && current.distinct >= closed.counts.distinct);
    assert_eq!(closed.counts, oracle(&all, 1000).0);
    let mut roomy = OpenWindow::new(ROOMY, folder.path(), Some(&closed.sizes));
    fold(&mut roomy, &all);
    assert_eq!(roomy.spills(), 0);
    let in_memory = roomy.close(1000).unwrap();
    assert_eq!(in_memory.slots, closed.slots);
}

#[test]
fn a_section_larger_than_the_memory_spills_in_its_midst() {
    let folder = scratch();
    let mut window = OpenWindow::new(MemoryLimit(256 << 10), folder.path(), None);
    let keyed: Vec<Record> = (0..20_000).map(|n| (n % 50, Some(n / 2))).collect();
    let plain: Vec<Record> = (0..20_000).map(|n| (n / 2, None)).collect();
    for section in [&keyed, &plain] {
        let before = window.spills();
        fold(&mut window, section);
        assert!(window.spills() > before + 1, "{}", window.spills());
    }
    let all = [keyed, plain].concat();
    assert_eq!(window.close(1000).unwrap().counts, oracle(&all, 1000).0);
}

#[test]
fn many_values_spill_and_are_counted_once() {
    let folder = scratch();
    let mut window = OpenWindow::new(MemoryLimit(256 << 10), folder.path(), None);
    let mut all = Vec::new();
    for request in 0..30 {
        let records: Vec<Record> = (0..1000).map(|n| (request * 300 + n, Some(7))).collect();
        fold(&mut window, &records);
        all.extend(records);
    }
    assert!(window.spills() > 3);
    assert_eq!(window.close(100).unwrap().counts, oracle(&all, 100).0);
}

#[test]
fn a_carried_window_is_taken_up_as_it_was() {
    let folder = scratch();
    let all: Vec<Record> = (0..4000).map(|n| (n % 7, Some(n * 37 % 1500))).collect();
    let mut carried = window(folder.path());
    let mut states = Vec::new();
    for part in all.chunks(1000) {
        fold(&mut carried, part);
        states.push(carried.carry().unwrap());
        drop(carried);
        std::fs::write(folder.path().join("left by a dead process"), "x").unwrap();
        remove_all_but(folder.path(), &states[states.len() - 1..]).unwrap();
        let state = serde_json::to_string(&states[states.len() - 1]).unwrap();
        let state = serde_json::from_str(&state).unwrap();
        carried = OpenWindow::resume(ROOMY, folder.path(), state).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
    let kept = folder.path().join(states[states.len() - 1].file());
    let closed = carried.close(1000).unwrap();
    assert!(kept.exists(), "until its counts are recorded");
    let mut whole = window(folder.path());
    fold(&mut whole, &all);
    let whole = whole.close(1000).unwrap();
    assert_eq!((closed.counts, closed.slots), (whole.counts, whole.slots));
}

#[test]
fn a_window_that_is_taken_up_twice_is_counted_alike_both_times() {
    let folder = scratch();
    let all: Vec<Record> = (0..3000).map(|n| (n % 7, Some(n * 37 % 1500))).collect();
    let (begin, rest) = all.split_at(1000);
    let mut first = window(folder.path());
    fold(&mut first, begin);
    let state = first.carry().unwrap();
    let mut windows: Vec<_> = std::iter::once(first)
        .chain((0..2).map(|_| OpenWindow::resume(ROOMY, folder.path(), state.clone()).unwrap()))
        .collect();
    // Each goes on in its own way, and none in the place of another.
    for (number, window) in windows.iter_mut().enumerate() {
        for part in rest.chunks(300 * (number + 1)) {
            fold(window, part);
            window.carry().unwrap();
        }
    }
    OpenWindow::resume(ROOMY, folder.path(), state).unwrap();
    for window in windows {
        assert_eq!(window.close(1000).unwrap().counts, oracle(&all, 1000).0);
    }
}

#[test]
fn a_carried_window_whose_file_changed_is_not_taken_up() {
    let folder = scratch();
    let mut carried = window(folder.path());
    fold(&mut carried, &(0..4000).map(|n| (n % 7, Some(n))).collect::<Vec<_>>());
    let state = carried.carry().unwrap();
    let file = folder.path().join(state.file());
    drop(carried);
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &flipped, &[]] {
        std::fs::write(&file, damaged).unwrap();
        let error = OpenWindow::resume(ROOMY, folder.path(), state.clone()).err().unwrap();
        assert!(matches!(error, FoldError::Carried { .. }), "{error}");
    }
    std::fs::write(&file, whole).unwrap();
    assert!(OpenWindow::resume(ROOMY, folder.path(), state.clone()).is_ok());
    std::fs::remove_file(&file).unwrap();
    assert!(OpenWindow::resume(ROOMY, folder.path(), state).is_err());
}

#[test]
fn a_scratch_folder_that_cannot_be_made_is_named_and_ends_the_window() {
    let folder = scratch();
    let file = folder.path().join("taken");
    std::fs::write(&file, "").unwrap();
    let mut window = OpenWindow::new(MemoryLimit(0), &file, None);
    fold(&mut window, &[(1, Some(1))]);
    let entry = pack(&mut Packer::new(KEY), &[(1, Some(2))]);
    let error = window.fold(&section(&entry)).unwrap_err();
    assert!(
        matches!(&error, FoldError::Scratch { path, .. } if path.starts_with(&file)),
        "{error}"
    );
    assert!(matches!(window.fold(&section(&entry)), Err(FoldError::Failed)));
    assert!(matches!(window.close(10), Err(FoldError::Failed)));
}

#[test]
fn live_counts_after_a_spill_are_bounds_and_say_so() {
    let folder = scratch();
    let mut window = window(folder.path());
    let records: Vec<Record> = (0..3000).map(|n| (n % 1500, Some(n))).collect();
    fold(&mut window, &records);
    let exact = window.current(5);
    assert!(!exact.upper_bound);
    window.spill().unwrap();
    fold(&mut window, &records);
    let current = window.current(5);
    assert!(current.upper_bound);
    assert_eq!((current.distinct, current.unknown), (2 * exact.distinct, 2 * exact.unknown));
    let listed: u64 = current.counts.iter().map(|(_, count)| count).sum();
    assert_eq!(current.distinct, current.unknown + listed + current.other_count);
    assert_eq!(window.close(5).unwrap().counts.distinct, exact.distinct);
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let keyed = prop::collection::vec((0..40_u32, (0..60_u32).prop_map(Some)), 0..300);
    let plain = prop::collection::vec((0..40_u32, Just(None)), 0..300);
    prop_oneof![3 => keyed, 1 => plain]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn order_splits_and_spills_change_nothing(
        (requests, shuffled) in prop::collection::vec(records(), 0..8)
            .prop_flat_map(|requests| (Just(requests.clone()), Just(requests).prop_shuffle())),
        splits in prop::collection::vec(1..200_usize, 8),
        spills in prop::collection::vec(prop::bool::weighted(0.4), 16),
        limit in 0..50_usize,
    ) {
        let folder = scratch();
        let mut whole = window(folder.path());
        for records in &requests {
            fold(&mut whole, records);
        }
        let whole = whole.close(limit).unwrap();

        let all = requests.concat();
        let (counts, slots) = oracle(&all, limit);
        prop_assert_eq!(&whole.counts, &counts);
        let totals = whole.slots.iter().map(|slot| (slot.slot, (slot.records, slot.distinct)));
        prop_assert_eq!(totals.collect::<SlotOracle>(), slots);

        let mut pieces = window(folder.path());
        let mut spills = spills.into_iter();
        for (records, split) in shuffled.iter().zip(splits.iter().cycle()) {
            for piece in records.chunks(*split) {
                fold(&mut pieces, piece);
                if spills.next().unwrap_or(false) {
                    pieces.spill().unwrap();
                }
            }
        }
        let pieces = pieces.close(limit).unwrap();
        prop_assert_eq!(&pieces.counts, &counts);
        prop_assert_eq!(pieces.slots, whole.slots);
    }

    #[test]
    fn another_set_has_another_digest(requests in records(), change: prop::sample::Index) {
        prop_assume!(!requests.is_empty());
        let folder = scratch();
        let mut changed = requests.clone();
        let record = change.get(&requests);
        changed.push((record.0 + 100, record.1));
        let close = |records: &[Record]| {
            let mut window = window(folder.path());
            fold(&mut window, records);
            window.close(0).unwrap()
        };
        let (one, other) = (close(&requests), close(&changed));
        prop_assert_ne!(one.digest(), other.digest());
        prop_assert_ne!(one.slots, other.slots);
    }
}
