use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::event::entry::RequestId;
use crate::event::value::{Tag, put_bool, put_bytes, put_double, put_header, put_int, put_string};

const REQUEST: RequestId = RequestId { session: [7; 16], sequence: 0x0102 };

/// Three values: no attribute, the string "a", and true.
const DICTIONARY: Dictionary<'_> = Dictionary {
    hashes: &[0x11, 0x22 << 120, 0x33 << 120],
    ends: &[8, 17, 26],
    bytes: &[
        0, 0, 0, 0, 0, 0, 0, 0, //
        2, 1, 0, 0, 0, 0, 0, 0, b'a', //
        3, 1, 0, 0, 0, 0, 0, 0, 1,
    ],
};

/// Keys in the slots 0, 3 (two of them) and 4; counts in the slots 0, 0x22 and 0x33.
fn small_entry() -> Vec<u8> {
    let mut writer = EntryWriter::new(Some(REQUEST));
    let keys = [3 << 120 | 1, 2, 3 << 120 | 3, 4 << 120 | 4];
    writer.distinct_keys(5, DICTIONARY, &keys, &[2, 0, 1, 0]);
    writer.distinct_counts(6, DICTIONARY, &[5, 1, 2]);
    writer.finish(8)
}

fn slots(slots: impl IntoIterator<Item = u8>) -> SlotSet {
    slots.into_iter().collect()
}

fn part(entry: &[u8], slots: &SlotSet) -> Option<Vec<u8>> {
    Splitter::default().part(&Entry::parse(entry).unwrap(), slots).unwrap()
}

fn records(part: &Option<Vec<u8>>) -> u64 {
    part.as_ref().map_or(0, |part| Entry::parse(part).unwrap().records().into())
}

/// One thing that a section says: its slot; the key, or the count; and the value's hash
/// and bytes.
type Row = (u8, u128, u128, Vec<u8>);

/// What a section says, after its aggregation and whether it has keys.
type Said = (u32, bool, Vec<Row>);

/// What an entry says, read with nothing but the accessors; each section's own number of
/// records is checked on the way.
fn said(entry: &[u8]) -> Result<Vec<Said>, MalformedEntry> {
    let mut all = Vec::new();
    for section in Entry::parse(entry)?.sections() {
        let (aggregation, Section::DistinctLogs(section)) = section? else { panic!("a chunk") };
        let value = |index: usize| (section.hash(index), section.value(index).canonical.to_vec());
        let (rows, records): (Vec<Row>, u128) = match section.content() {
            Content::Keys(keys) => {
                let mut indices = vec![0; keys.len()];
                let rows = keys.indices(&mut indices).iter().enumerate().map(|(at, &index)| {
                    let (hash, canonical) = value(index as usize);
                    (slot_of(keys.key(at)), keys.key(at), hash, canonical)
                });
                (rows.collect(), keys.len() as u128)
            }
            Content::Counts(counts) => {
                let counts: Vec<u128> = counts.iter().map(u128::from).collect();
                let rows = counts.iter().enumerate().filter(|(_, count)| **count > 0);
                let rows = rows.map(|(index, &count)| {
                    let (hash, canonical) = value(index);
                    (slot_of(hash), count, hash, canonical)
                });
                (rows.collect(), counts.iter().sum())
            }
        };
        assert_eq!(u128::from(section.records()), records);
        all.push((aggregation, matches!(section.content(), Content::Keys(_)), rows));
    }
    Ok(all)
}

/// What is left of it for some of the slots.
fn kept(said: &[Said], slots: &SlotSet) -> Vec<Said> {
    let kept = said.iter().map(|(aggregation, keyed, rows)| {
        let rows = rows.iter().filter(|(slot, ..)| slots.contains(*slot)).cloned().collect();
        (*aggregation, *keyed, rows)
    });
    kept.filter(|(_, _, rows): &Said| !rows.is_empty()).collect()
}

/// Whether each section has records, and each of its values has some of them.
fn nothing_is_idle(entry: &[u8]) -> bool {
    Entry::parse(entry).unwrap().sections().all(|section| {
        let (_, Section::DistinctLogs(section)) = section.unwrap() else { panic!("a chunk") };
        let used = match section.content() {
            Content::Counts(counts) => counts.iter().all(|count| count > 0),
            Content::Keys(keys) => {
                let mut indices = vec![0; keys.len()];
                keys.indices(&mut indices);
                indices.sort_unstable();
                indices.dedup();
                indices.len() == section.values()
            }
        };
        used && section.records() > 0
    })
}

fn sixteen(first: u8, last: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    (bytes[0], bytes[15]) = (first, last);
    bytes
}

#[test]
fn a_part_never_changes() {
    let mut expected = vec![1, 1, 2, 0, 0, 0, 0, 0];
    expected.extend([7; 16]);
    expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);

    expected.extend([5, 0, 0, 0, 108, 0, 0, 0]);
    expected.extend([1, 1, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 18, 0, 0, 0]);
    expected.extend(sixteen(1, 3));
    expected.extend(sixteen(3, 3));
    expected.extend(sixteen(0, 0x33));
    expected.extend(sixteen(0, 0x22));
    expected.extend([9, 0, 0, 0, 18, 0, 0, 0]);
    expected.extend([0, 1]);
    expected.extend([3, 1, 0, 0, 0, 0, 0, 0, 1]);
    expected.extend([2, 1, 0, 0, 0, 0, 0, 0, b'a']);

    expected.extend([6, 0, 0, 0, 49, 0, 0, 0]);
    expected.extend([2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
    expected.extend(sixteen(0, 0x22));
    expected.extend([9, 0, 0, 0]);
    expected.extend([1, 0, 0, 0]);
    expected.extend([2, 1, 0, 0, 0, 0, 0, 0, b'a']);
    assert_eq!(part(&small_entry(), &slots([3, 0x22])), Some(expected));
}

#[test]
fn a_section_of_which_nothing_is_left_is_not_in_the_part() {
    let entry = small_entry();
    let aggregations = |slot: u8| {
        let said = said(&part(&entry, &slots([slot])).unwrap()).unwrap();
        said.iter().map(|(aggregation, ..)| *aggregation).collect::<Vec<_>>()
    };
    assert_eq!(aggregations(0), [5, 6]);
    assert_eq!(aggregations(4), [5]);
    assert_eq!(aggregations(0x33), [6]);
    assert_eq!(part(&entry, &slots([1, 2, 0x11])), None);
}

#[test]
fn the_part_of_no_slot_is_the_request_id_and_the_number_of_records() {
    let mut expected = vec![1, 1, 0, 0, 8, 0, 0, 0];
    expected.extend([7; 16]);
    expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(part(&small_entry(), &slots([])), Some(expected.clone()));
    assert_eq!(part(&expected, &slots([])), Some(expected));
    let mut unnamed = EntryWriter::new(None);
    unnamed.distinct_counts(6, DICTIONARY, &[5, 1, 2]);
    assert_eq!(part(&unnamed.finish(8), &slots([])), None);
}

#[test]
fn the_accepted_records_go_with_the_lowest_slot() {
    let entry = small_entry();
    assert_eq!(records(&part(&entry, &slots([0]))), 8);
    assert_eq!(records(&part(&entry, &slots(1..=255))), 0);
    let higher = part(&entry, &slots([0, 4])).unwrap();
    assert_eq!(records(&part(&higher, &slots([4]))), 0);
}

#[test]
fn of_an_entry_that_says_nothing_the_last_slot_has_the_records() {
    let entry = EntryWriter::new(Some(REQUEST)).finish(3);
    assert_eq!(part(&entry, &slots(0..255)), None);
    assert_eq!(part(&entry, &slots([255])), Some(entry));
    assert_eq!(part(&EntryWriter::new(None).finish(0), &slots(0..=255)), None);
}

#[test]
fn a_value_without_records_is_left_out() {
    let mut writer = EntryWriter::new(None);
    writer.distinct_counts(6, DICTIONARY, &[3, 0, 0]);
    let entry = writer.finish(3);
    assert_eq!(part(&entry, &slots([0x22, 0x33])), None);
    let part = part(&entry, &slots([0, 0x22])).unwrap();
    assert!(nothing_is_idle(&part));
    assert_eq!(said(&part), said(&entry));
}

#[test]
fn an_index_is_as_narrow_as_the_values_of_the_part_allow() {
    const VALUES: u32 = 0x1_0001;
    let hashes: Vec<u128> = (0..u128::from(VALUES)).collect();
    let ends: Vec<u32> = (1..=VALUES).map(|value| value * 16).collect();
    let mut bytes = Vec::new();
    (0..VALUES).for_each(|value| put_int(value.into(), &mut bytes));
    let dictionary = Dictionary { hashes: &hashes, ends: &ends, bytes: &bytes };
    // One value in slot 0, 0x100 in slot 1, the others in slot 2.
    let slot = |value: u32| u128::from(value > 0) + u128::from(value > 0x100);
    let keys: Vec<u128> = (0..VALUES).map(|value| slot(value) << 120).collect();
    let mut writer = EntryWriter::new(None);
    writer.distinct_keys(1, dictionary, &keys, &(0..VALUES).collect::<Vec<_>>());
    let entry = writer.finish(VALUES);
    let whole = said(&entry).unwrap();

    let cases: [(&[u8], u8); _] =
        [(&[0], 0), (&[1], 1), (&[0, 1], 2), (&[1, 2], 2), (&[0, 1, 2], 4)];
    for (of, width) in cases {
        let of = slots(of.iter().copied());
        let part = part(&entry, &of).unwrap();
        assert_eq!(part[17], width, "slots {of}");
        assert!(said(&part).unwrap() == kept(&whole, &of), "slots {of}");
    }
}

fn canonical(kind: u8, number: u64) -> Vec<u8> {
    let text = format!("{number:x}");
    let mut out = Vec::new();
    match kind {
        0 => put_header(Tag::Absent, 0, &mut out),
        1 => put_header(Tag::Empty, 0, &mut out),
        2 => put_string(text.as_bytes(), &mut out),
        3 => put_bool(number.is_multiple_of(2), &mut out),
        4 => put_int(number as i64, &mut out),
        5 => put_double(f64::from_bits(number), &mut out),
        6 => put_bytes(&number.to_le_bytes()[..(number % 9) as usize], &mut out),
        7 => {
            put_header(Tag::Array, 2, &mut out);
            put_int(1, &mut out);
            put_string(text.as_bytes(), &mut out);
        }
        _ => {
            put_header(Tag::Map, 1, &mut out);
            put_string(text.as_bytes(), &mut out);
            put_bool(true, &mut out);
        }
    }
    out
}

/// A hash or key; often one of a few slots.
fn hash() -> impl Strategy<Value = u128> {
    let slot = prop_oneof![any::<u8>(), 0..4_u8];
    (slot, any::<u64>()).prop_map(|(slot, low)| u128::from(slot) << 120 | u128::from(low))
}

/// Values, and what a section says of them: keys with indices, or counts.
#[derive(Clone, Debug)]
struct Written {
    aggregation: u32,
    values: Vec<(u128, Vec<u8>)>,
    keys: Vec<(u128, u32)>,
    counts: Vec<u32>,
}

fn value() -> impl Strategy<Value = (u128, Vec<u8>)> {
    (hash(), 0..9_u8, any::<u64>()).prop_map(|(hash, kind, number)| (hash, canonical(kind, number)))
}

/// Indices of 0, 1 and 2 bytes; values that no record has; counts of zero.
fn section() -> impl Strategy<Value = Written> {
    let values = prop_oneof![
        4 => vec(value(), 0..2),
        12 => vec(value(), 2..12),
        1 => vec(value(), 0x101..0x110),
    ];
    (0..4_u32, values, any::<bool>()).prop_flat_map(|(aggregation, values, keyed)| {
        let count = values.len();
        // As many records as values, or more.
        let keys = if keyed && count > 0 { count..count + 40 } else { 0..1 };
        let keys = vec((hash(), any::<Index>()), keys).prop_map(move |keys| {
            keys.into_iter().map(|(key, index)| (key, index.index(count) as u32)).collect()
        });
        let counts = vec(0..4_u32, if keyed { 0 } else { count });
        (keys, counts).prop_map(move |(keys, mut counts): (_, Vec<u32>)| {
            if let Some(first) = counts.first_mut() {
                *first += count as u32;
            }
            Written { aggregation, values: values.clone(), keys, counts }
        })
    })
}

fn entry() -> impl Strategy<Value = Vec<u8>> {
    (vec(section(), 0..4), prop::option::of(Just(REQUEST)), 0..2000_u32).prop_map(
        |(sections, request, records)| {
            let mut writer = EntryWriter::new(request);
            for Written { aggregation, values, keys, counts } in sections {
                let (hashes, texts): (Vec<u128>, Vec<Vec<u8>>) = values.into_iter().unzip();
                let mut end = 0;
                let ends = texts.iter().map(|text| {
                    end += text.len() as u32;
                    end
                });
                let (ends, bytes) = (ends.collect::<Vec<_>>(), texts.concat());
                let dictionary = Dictionary { hashes: &hashes, ends: &ends, bytes: &bytes };
                if counts.is_empty() {
                    let (keys, indices): (Vec<u128>, Vec<u32>) = keys.into_iter().unzip();
                    writer.distinct_keys(aggregation, dictionary, &keys, &indices);
                } else {
                    writer.distinct_counts(aggregation, dictionary, &counts);
                }
            }
            writer.finish(records)
        },
    )
}

fn some_slots() -> impl Strategy<Value = SlotSet> {
    vec(any::<bool>(), SLOTS)
        .prop_map(|set| slots((0..=u8::MAX).filter(|&slot| set[usize::from(slot)])))
}

fn assignment() -> impl Strategy<Value = ([u8; SLOTS], u8)> {
    (1..6_u8).prop_flat_map(|destinations| {
        vec(0..destinations, SLOTS)
            .prop_map(move |of| (std::array::from_fn(|slot| of[slot]), destinations))
    })
}

/// The slots of each destination.
fn partition(assignment: &[u8; SLOTS], destinations: u8) -> Vec<SlotSet> {
    let of = |slot: u8| assignment[usize::from(slot)];
    let destinations = 0..destinations;
    destinations.map(|one| slots((0..=u8::MAX).filter(|&slot| of(slot) == one))).collect()
}

proptest! {
    #[test]
    fn the_parts_of_a_partition_have_all_that_the_entry_has_once(
        entry in entry(), (assignment, destinations) in assignment()
    ) {
        let parsed = Entry::parse(&entry).unwrap();
        let whole = said(&entry).unwrap();
        let parts = Splitter::default().split(&parsed, &assignment, destinations.into()).unwrap();
        prop_assert_eq!(parts.iter().map(records).sum::<u64>(), u64::from(parsed.records()));
        prop_assert_eq!(parts.len(), usize::from(destinations));
        for (found, of) in parts.iter().zip(partition(&assignment, destinations)) {
            prop_assert_eq!(found, &part(&entry, &of));
            let expected = kept(&whole, &of);
            match found {
                None => prop_assert!(expected.is_empty()),
                Some(found) => {
                    prop_assert_eq!(said(found).unwrap(), expected);
                    prop_assert!(nothing_is_idle(found));
                    prop_assert_eq!(Entry::parse(found).unwrap().request(), parsed.request());
                }
            }
        }
    }

    #[test]
    fn the_part_of_all_slots_says_what_the_entry_says(entry in entry()) {
        let all = slots(0..=u8::MAX);
        let whole = kept(&said(&entry).unwrap(), &all);
        match part(&entry, &all) {
            None => prop_assert!(whole.is_empty() && records(&Some(entry)) == 0),
            Some(part) => {
                prop_assert_eq!(said(&part).unwrap(), whole);
                prop_assert_eq!(records(&Some(part)), records(&Some(entry)));
            }
        }
    }

    #[test]
    fn a_part_of_a_part_is_the_part_of_what_both_are_of(
        entry in entry(), one in some_slots(), other in some_slots()
    ) {
        let both = slots(one.iter().filter(|&slot| other.contains(slot)));
        let of_part = part(&entry, &one).and_then(|first| part(&first, &other));
        prop_assert_eq!(of_part, part(&entry, &both));
    }

    #[test]
    fn a_damaged_entry_is_cut_like_any_other_or_refused_and_leaves_no_trace(
        mut entry in entry(),
        next in entry(),
        damage in vec((any::<Index>(), any::<u8>()), 0..4),
        (assignment, destinations) in assignment(),
    ) {
        prop_assume!(entry.len() > 8);
        let behind_head = &mut entry[8..];
        for (at, byte) in damage {
            *at.get_mut(behind_head) = byte;
        }
        let mut splitter = Splitter::default();
        let mut split = |entry: &[u8]| {
            let entry = Entry::parse(entry).unwrap();
            splitter.split(&entry, &assignment, destinations.into())
        };
        let parts = split(&entry);
        match said(&entry) {
            Err(malformed) => prop_assert_eq!(parts, Err(malformed)),
            Ok(whole) => {
                let parts = parts.unwrap();
                prop_assert_eq!(parts.iter().map(records).sum::<u64>(), records(&Some(entry)));
                for (part, of) in parts.iter().zip(partition(&assignment, destinations)) {
                    let found = part.as_ref().map_or(Ok(Vec::new()), |part| said(part));
                    prop_assert_eq!(found, Ok(kept(&whole, &of)));
                }
            }
        }
        let parsed = Entry::parse(&next).unwrap();
        let fresh = Splitter::default().split(&parsed, &assignment, destinations.into());
        prop_assert_eq!(split(&next), fresh);
    }
}
