//! Bytes are refused as an entry, or are the very bytes that writing what was read
//! from them gives; and its parts are entries that have all of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_node::event::entry::distinct::{Content, Dictionary, DistinctSection};
use sheaf_node::event::entry::part::Splitter;
use sheaf_node::event::entry::{Entry, EntryWriter, Section};
use sheaf_node::event::fingerprint::SLOTS;
use sheaf_node::event::value::to_json;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::parse(bytes) else { return };
    let mut writer = EntryWriter::new(entry.request());
    for section in entry.sections() {
        match section {
            Ok((aggregation, Section::DistinctLogs(section))) => {
                rewrite(&section, aggregation, &mut writer);
            }
            Ok((aggregation, Section::LogFiles(chunk))) => {
                writer.chunk_section(aggregation, &chunk);
            }
            Err(_) => return,
        }
    }
    assert_eq!(writer.finish(entry.records()), bytes);
    cut(&entry);
});

fn cut(entry: &Entry<'_>) {
    let assignment: [u8; SLOTS] = std::array::from_fn(|slot| (slot % 3) as u8);
    let parts = Splitter::default().split(entry, &assignment, 3).unwrap();
    let mut records = 0;
    for part in parts.iter().flatten() {
        let part = Entry::parse(part).unwrap();
        assert!(part.sections().all(|section| section.is_ok()));
        records += part.records();
    }
    assert_eq!(records, entry.records());
}

fn rewrite(section: &DistinctSection<'_>, aggregation: u32, writer: &mut EntryWriter) {
    let (mut hashes, mut ends, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..section.values() {
        let value = section.value(index);
        // It may be anything: the journal's checksum vouches for it, not the entry.
        drop(to_json(value.canonical));
        hashes.push(value.hash);
        bytes.extend_from_slice(value.canonical);
        ends.push(bytes.len() as u32);
    }
    let dictionary = Dictionary { hashes: &hashes, ends: &ends, bytes: &bytes };
    match section.content() {
        Content::Keys(keys) => {
            let all: Vec<_> = (0..keys.len()).map(|at| keys.key(at)).collect();
            let mut indices = vec![0; keys.len()];
            keys.indices(&mut indices);
            writer.distinct_keys(aggregation, dictionary, &all, &indices);
        }
        Content::Counts(counts) => {
            let counts: Vec<_> = counts.iter().collect();
            writer.distinct_counts(aggregation, dictionary, &counts);
        }
    }
}
