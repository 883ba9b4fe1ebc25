use proptest::prelude::*;

use super::distinct::{Content, Dictionary};
use super::*;

const REQUEST: RequestId = RequestId { session: [7; 16], sequence: 0x0102 };

/// Two values: no attribute, and the string "a".
const DICTIONARY: Dictionary<'_> = Dictionary {
    hashes: &[0x11, 0x22 << 120],
    ends: &[8, 17],
    bytes: &[0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, b'a'],
};

fn keys(entry: &mut EntryWriter) {
    entry.distinct_keys(5, DICTIONARY, &[0x0300 << 112 | 1, 2, 0x03ff << 112 | 3], &[1, 0, 1]);
}

fn sixteen(first: u8, last: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    (bytes[0], bytes[15]) = (first, last);
    bytes
}

fn sections(entry: &[u8]) -> Result<Vec<(u32, Section<'_>)>, MalformedEntry> {
    Entry::parse(entry)?.sections().collect()
}

/// Keys with the index of their value, counts, and values with their hashes.
type Read = (Vec<(u128, usize)>, Vec<u32>, Vec<(u128, Vec<u8>)>);

/// Everything that a section says, read in each way.
fn read(section: &Section<'_>) -> Read {
    let Section::DistinctLogs(section) = section else { panic!("a chunk") };
    let values = (0..section.values())
        .map(|index| section.value(index))
        .map(|value| (value.hash, value.canonical.to_vec()))
        .collect();
    match section.content() {
        Content::Counts(counts) => (Vec::new(), counts.iter().collect(), values),
        Content::Keys(keys) => {
            let mut indices = vec![0; keys.len()];
            let indices = keys.indices(&mut indices).iter();
            let pairs = indices.enumerate().map(|(at, &index)| (keys.key(at), index as usize));
            (pairs.collect(), Vec::new(), values)
        }
    }
}

#[test]
fn an_entry_never_changes() {
    let mut writer = EntryWriter::new(Some(REQUEST));
    keys(&mut writer);
    writer.distinct_counts(6, DICTIONARY, &[2, 1]);
    let entry = writer.finish(3);

    let mut expected = vec![1, 1, 2, 0, 3, 0, 0, 0];
    expected.extend([7; 16]);
    expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);

    expected.extend([5, 0, 0, 0, 124, 0, 0, 0]);
    expected.extend([1, 1, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 17, 0, 0, 0]);
    expected.extend(sixteen(2, 0));
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 3]);
    expected.extend(sixteen(0x11, 0));
    expected.extend(sixteen(0, 0x22));
    expected.extend([8, 0, 0, 0, 17, 0, 0, 0]);
    expected.extend([0, 1, 1]);
    expected.extend(DICTIONARY.bytes);

    expected.extend([6, 0, 0, 0, 81, 0, 0, 0]);
    expected.extend([2, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 17, 0, 0, 0]);
    expected.extend(sixteen(0x11, 0));
    expected.extend(sixteen(0, 0x22));
    expected.extend([8, 0, 0, 0, 17, 0, 0, 0]);
    expected.extend([2, 0, 0, 0, 1, 0, 0, 0]);
    expected.extend(DICTIONARY.bytes);
    assert_eq!(entry, expected);
}

#[test]
fn what_was_packed_is_read() {
    let mut writer = EntryWriter::new(Some(REQUEST));
    keys(&mut writer);
    let bytes = writer.finish(3);
    let entry = Entry::parse(&bytes).unwrap();
    assert_eq!((entry.records(), entry.request()), (3, Some(REQUEST)));
    let sections = sections(&bytes).unwrap();
    assert_eq!(sections.len(), 1);
    assert_eq!(sections[0].0, 5);
    let (pairs, counts, values) = read(&sections[0].1);
    assert_eq!(pairs, [(2, 0), (0x0300 << 112 | 1, 1), (0x03ff << 112 | 3, 1)]);
    assert!(counts.is_empty());
    assert_eq!(values[0], (0x11, vec![0; 8]));
    assert_eq!(values[1], (0x22 << 120, DICTIONARY.bytes[8..].to_vec()));
}

#[test]
fn a_lone_record_stays_small() {
    let mut writer = EntryWriter::new(None);
    let value = Dictionary { hashes: &[1], ends: &[8], bytes: &[0; 8] };
    writer.distinct_keys(1, value, &[2], &[0]);
    assert_eq!(writer.finish(1).len(), 76);
}

#[test]
fn the_prefix_stands_before_the_entry() {
    let mut plain = EntryWriter::new(Some(REQUEST));
    let mut prefixed = EntryWriter::with_prefix(36, Some(REQUEST));
    keys(&mut plain);
    keys(&mut prefixed);
    let prefixed = prefixed.finish(3);
    assert_eq!(prefixed[..36], [0; 36]);
    assert_eq!(prefixed[36..], plain.finish(3));
}

#[test]
fn an_entry_without_records_is_read() {
    let empty = EntryWriter::new(None).finish(0);
    assert!(sections(&empty).unwrap().is_empty());
    let mut writer = EntryWriter::new(None);
    let nothing = Dictionary { hashes: &[], ends: &[], bytes: &[] };
    writer.distinct_keys(1, nothing, &[], &[]);
    assert_eq!(sections(&writer.finish(0)).unwrap().len(), 1);
}

#[test]
fn a_cut_off_or_extended_entry_is_refused() {
    let mut writer = EntryWriter::new(Some(REQUEST));
    keys(&mut writer);
    writer.distinct_counts(6, DICTIONARY, &[2, 1]);
    let mut entry = writer.finish(3);
    for length in 0..entry.len() {
        assert!(sections(&entry[..length]).is_err(), "{length} bytes");
    }
    entry.push(0);
    assert_eq!(sections(&entry).unwrap_err(), MalformedEntry::TooLong(1));
}

#[test]
fn each_contradiction_is_named() {
    let mut writer = EntryWriter::new(None);
    keys(&mut writer);
    let entry = writer.finish(3);
    let damaged = |at: usize, byte: u8| {
        let mut entry = entry.clone();
        entry[at] = byte;
        sections(&entry).unwrap_err()
    };
    const SECTION: usize = 16;
    const INDICES: usize = SECTION + 16 + 3 * 16 + 2 * 20;
    assert_eq!(damaged(0, 2), MalformedEntry::Version(2));
    assert_eq!(damaged(1, 0x82), MalformedEntry::Flags(0x82));
    assert_eq!(damaged(SECTION, 9), MalformedEntry::Kind(9));
    assert_eq!(damaged(SECTION, 2), MalformedEntry::Section("head"));
    assert_eq!(damaged(SECTION + 1, 2), MalformedEntry::Section("head"));
    assert_eq!(damaged(SECTION + 2, 1), MalformedEntry::Section("head"));
    assert_eq!(damaged(SECTION + 4, 1), MalformedEntry::Section("number of values"));
    assert_eq!(damaged(SECTION + 7, 0xff), MalformedEntry::Section("length"));
    assert_eq!(damaged(SECTION + 16 + 15, 4), MalformedEntry::Section("order"));
    assert_eq!(damaged(INDICES - 8, 200), MalformedEntry::Section("values' ends"));
    assert_eq!(damaged(INDICES - 4, 16), MalformedEntry::Section("values' ends"));
    assert_eq!(damaged(INDICES, 2), MalformedEntry::Section("index"));

    let mut writer = EntryWriter::new(None);
    writer.distinct_counts(6, DICTIONARY, &[2, 1]);
    let mut entry = writer.finish(3);
    entry[SECTION + 16 + 2 * 20] = 1;
    assert_eq!(sections(&entry).unwrap_err(), MalformedEntry::Section("sum of counts"));
}

#[test]
fn a_request_id_has_one_text() {
    let id = RequestId { session: [0xab; 16], sequence: 18 };
    let text = "abababababababababababababababab/18";
    assert_eq!((id.to_string().as_str(), text.parse()), (text, Ok(id)));
    assert_eq!(text.to_uppercase().parse(), Ok(id));
    for malformed in [
        "",
        "ab/1",
        "abababababababababababababababab",
        "abababababababababababababababab/",
        "abababababababababababababababab/0",
        "abababababababababababababababab/+1",
        "abababababababababababababababab/1/1",
        "abababababababababababababababab/18446744073709551616",
        "+babababababababababababababababa/1",
        "gbababababababababababababababab/1",
        "ababababababababababababababababab/1",
    ] {
        assert_eq!(malformed.parse::<RequestId>(), Err(MalformedRequestId), "{malformed}");
    }
}

proptest! {
    #[test]
    fn indices_of_every_width_are_read(values in prop_oneof![
        Just(1_u32), Just(2), Just(0x100), Just(0x101), Just(0x1_0000), Just(0x1_0001)
    ], seed: u64) {
        let hashes: Vec<u128> = (0..u128::from(values)).collect();
        let ends: Vec<u32> = (1..=values).map(|value| value * 8).collect();
        let bytes = vec![0; values as usize * 8];
        let dictionary = Dictionary { hashes: &hashes, ends: &ends, bytes: &bytes };
        let indices: Vec<u32> = (0..values).rev().collect();
        let spread = |index: u32| u128::from(u64::from(index) ^ seed).wrapping_mul(u128::MAX / 3);
        let keys: Vec<u128> = indices.iter().copied().map(spread).collect();
        let mut writer = EntryWriter::new(None);
        writer.distinct_keys(1, dictionary, &keys, &indices);
        let entry = writer.finish(values);
        let sections = sections(&entry).unwrap();
        let (mut read, _, _) = read(&sections[0].1);
        let mut written: Vec<_> =
            keys.into_iter().zip(indices.into_iter().map(|index| index as usize)).collect();
        read.sort_unstable();
        written.sort_unstable();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, section) in sections(&bytes).unwrap_or_default() {
            read(&section);
        }
    }

    #[test]
    fn damaged_entries_are_read_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut writer = EntryWriter::new(Some(REQUEST));
        keys(&mut writer);
        writer.distinct_counts(6, DICTIONARY, &[2, 1]);
        let mut entry = writer.finish(3);
        for (at, byte) in damage {
            let at = at.index(entry.len());
            entry[at] = byte;
        }
        if cut {
            entry.truncate(length.index(entry.len()));
        }
        for (_, section) in sections(&entry).unwrap_or_default() {
            read(&section);
        }
    }
}
