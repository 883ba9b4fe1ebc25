//! Bytes are refused as an entry, or are the very bytes that writing what was read
//! from them gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_node::event::entry::distinct::{Content, Dictionary, DistinctSection};
use sheaf_node::event::entry::{Entry, EntryWriter, Section};
use sheaf_node::event::value::to_json;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::parse(bytes) else { return };
    let mut writer = EntryWriter::new(entry.request());
    for section in entry.sections() {
        let Ok((aggregation, Section::DistinctLogs(section))) = section else { return };
        rewrite(&section, aggregation, &mut writer);
    }
    assert_eq!(writer.finish(entry.records()), bytes);
});

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
