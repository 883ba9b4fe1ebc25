//! Count tables of windows that were folded apart, against the window that has it all.

use super::count_table::{MalformedTable, Merged, Table, merge, restrict};
use super::*;
use crate::event::entry::part::Splitter;
use crate::event::fingerprint::SLOTS;
use crate::event::slots::SlotSet;

const NODES_MAX: usize = 5;

/// Why a window with a table was not closed, or its table not read.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fold(#[from] FoldError),
    #[error(transparent)]
    Malformed(#[from] MalformedTable),
    #[error("no room for chunk {0}")]
    Full(usize),
}

fn close(window: OpenWindow) -> (Closed, Vec<Vec<u8>>) {
    let mut chunks = Vec::new();
    let closed = window.close_with_table(1000, |chunk| {
        chunks.push(chunk);
        Ok::<_, FoldError>(())
    });
    (closed.unwrap(), chunks)
}

fn come(chunks: &[Vec<u8>]) -> impl Iterator<Item = Result<Vec<u8>, Failure>> {
    chunks.iter().cloned().map(Ok)
}

fn merge_all(tables: &[(SlotSet, Vec<Vec<u8>>)], records: u64, limit: usize) -> Merged {
    let tables = tables.iter().map(|(slots, chunks)| Table { slots: *slots, chunks: come(chunks) });
    merge(tables, records, limit).unwrap()
}

/// The slots of each node.
fn slots_of(assignment: &[u8; SLOTS], node: usize) -> SlotSet {
    (0..=u8::MAX).filter(|&slot| usize::from(assignment[usize::from(slot)]) == node).collect()
}

/// What a window's slots and a merged table say alike.
fn in_both(closed: &[SlotTotals], merged: &Merged) -> bool {
    let mut closed = closed.iter().peekable();
    let equal = merged.slots.iter().all(|slot| {
        let found = closed.next_if(|closed| closed.slot == slot.slot);
        let expected = found.map_or((0, 0), |found| (found.distinct, found.digest));
        (slot.distinct, slot.digest) == expected
    });
    equal && closed.next().is_none()
}

/// Folds each entry's parts into a window per node, and spills when `spills` says so.
fn fold_apart(
    requests: &[Vec<Record>],
    assignment: &[u8; SLOTS],
    windows: &mut [OpenWindow],
    mut spills: impl Iterator<Item = bool>,
) {
    let mut splitter = Splitter::default();
    for records in requests {
        let entry = pack(&mut Packer::new(KEY), records);
        let entry = Entry::parse(&entry).unwrap();
        let parts = splitter.split(&entry, assignment, windows.len()).unwrap();
        for (window, part) in windows.iter_mut().zip(parts) {
            if let Some(part) = part {
                window.fold(&section(&part)).unwrap();
            }
            if spills.next().unwrap_or(false) {
                window.spill().unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn tables_of_nodes_merge_to_what_one_window_counts(
        requests in prop::collection::vec(records(), 0..6),
        nodes in 1..=NODES_MAX,
        assignment in prop::collection::vec(any::<u8>(), SLOTS),
        spills in prop::collection::vec(prop::bool::weighted(0.3), 6 * NODES_MAX),
        chosen in prop::collection::vec(any::<bool>(), SLOTS),
        limit in 0..50_usize,
    ) {
        let folder = scratch();
        let mut whole = window(folder.path());
        requests.iter().for_each(|records| fold(&mut whole, records));
        let whole = whole.close(limit).unwrap();

        let assignment = std::array::from_fn(|slot| assignment[slot] % nodes as u8);
        let mut windows: Vec<_> = (0..nodes).map(|_| window(folder.path())).collect();
        fold_apart(&requests, &assignment, &mut windows, spills.into_iter());
        let (mut tables, mut slots) = (Vec::new(), Vec::new());
        for (node, window) in windows.into_iter().enumerate() {
            let (closed, chunks) = close(window);
            slots.extend(closed.slots);
            tables.push((slots_of(&assignment, node), chunks));
        }
        slots.sort_by_key(|totals| totals.slot);
        prop_assert_eq!(&slots, &whole.slots);

        let merged = merge_all(&tables, whole.counts.records, limit);
        prop_assert_eq!(&merged.counts, &whole.counts);
        prop_assert_eq!(merged.slots.len(), SLOTS);
        prop_assert!(in_both(&whole.slots, &merged));

        for (slots, _) in &mut tables {
            *slots = slots.iter().filter(|&slot| chosen[usize::from(slot)]).collect();
        }
        let part = merge_all(&tables, 0, limit);
        for (slots, chunks) in &mut tables {
            *chunks = restrict(come(chunks), *slots).collect::<Result<_, _>>().unwrap();
        }
        prop_assert_eq!(merge_all(&tables, 0, limit), part);
    }

    #[test]
    fn a_table_is_the_same_whatever_was_spilled(
        requests in prop::collection::vec(records(), 1..6),
        spills in prop::collection::vec(any::<bool>(), 6),
    ) {
        let folder = scratch();
        let mut windows = [window(folder.path()), window(folder.path())];
        let [in_memory, spilled] = &mut windows;
        for (records, spill) in requests.iter().zip(spills) {
            fold(in_memory, records);
            fold(spilled, records);
            if spill {
                spilled.spill().unwrap();
            }
        }
        let [in_memory, spilled] = windows.map(close);
        prop_assert_eq!(spilled.1, in_memory.1);
        prop_assert_eq!(spilled.0.slots, in_memory.0.slots);
    }
}

#[test]
fn keys_and_plain_records_of_a_value_are_one_row() {
    let folder = scratch();
    let mut window = window(folder.path());
    // The first body is of the slot that the value's plain records are of.
    let body = (0..).find(|&body| slot(1, Some(body)) == slot(1, None)).unwrap();
    fold(&mut window, &[(1, Some(body)), (1, Some(body))]);
    fold(&mut window, &[(1, None), (1, None), (1, None)]);
    let (closed, chunks) = close(window);
    let [totals] = closed.slots[..] else { panic!("{:?}", closed.slots) };
    assert_eq!((totals.slot, totals.records, totals.distinct), (slot(1, None), 5, 4));
    let canonical = canonical(1);
    let row = [&hash(1).to_le_bytes()[..], &[canonical.len() as u8], &canonical];
    let expected = [&[1], &row.concat()[..], &[0, totals.slot, 4]].concat();
    assert_eq!(chunks, [expected]);
}

#[test]
fn a_window_without_a_record_has_a_table_without_a_chunk() {
    let folder = scratch();
    assert!(close(window(folder.path())).1.is_empty());
}

#[test]
fn a_value_without_a_record_is_not_in_the_table() {
    let folder = scratch();
    let mut window = window(folder.path());
    let (one, two) = (canonical(1), canonical(2));
    let ends = [one.len() as u32, (one.len() + two.len()) as u32];
    let dictionary =
        Dictionary { hashes: &[hash(1), hash(2)], ends: &ends, bytes: &[one, two].concat() };
    let mut entry = EntryWriter::new(None);
    entry.distinct_counts(1, dictionary, &[0, 2]);
    window.fold(&section(&entry.finish(2))).unwrap();
    let (closed, chunks) = close(window);
    assert_eq!(closed.counts.counts, [(canonical(2), 2)]);
    let merged = merge_all(&[([slot(2, None)].into_iter().collect(), chunks)], 2, 10);
    assert_eq!(merged.counts, closed.counts);
}

#[test]
fn a_chunk_that_is_not_taken_ends_the_closing() {
    for spilled in [false, true] {
        let folder = scratch();
        let mut window = window(folder.path());
        fold(&mut window, &(0..20_000).map(|value| (value, None)).collect::<Vec<_>>());
        if spilled {
            window.spill().unwrap();
        }
        let mut taken = 0;
        let closed = window.close_with_table(10, |_| {
            taken += 1;
            if taken < 2 { Ok(()) } else { Err(Failure::Full(taken)) }
        });
        assert!(matches!(closed, Err(Failure::Full(2))));
        assert!(folder.path().read_dir().unwrap().next().is_none(), "the runs are removed");
    }
}
