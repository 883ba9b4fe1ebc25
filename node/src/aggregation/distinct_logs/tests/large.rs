//! Twenty million in one window. Run each in a process of its own, in release:
//!
//! ```text
//! cargo test --release -p sheaf-node -- --ignored --nocapture --test-threads 1 twenty_million
//! ```

use std::time::{Duration, Instant};

use super::*;

const MILLIONS: u32 = 20;
const REQUEST: u32 = 1000;
const LIMIT: MemoryLimit = MemoryLimit(224 << 20);
const RESIDENT_BYTES_MAX: usize = 512 << 20;

/// The most memory that the process has had at once, as the kernel knows it.
fn most_resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes << 10
}

/// Folds twenty million records and closes; says what it took.
fn close_twenty_million(record: impl Fn(u32) -> (u32, u32)) -> Closed {
    let folder = scratch();
    let mut packer = Packer::new(KEY);
    let mut window = OpenWindow::new(LIMIT, folder.path(), None);
    let (mut folding, mut longest) = (Duration::ZERO, Duration::ZERO);
    for first in (0..MILLIONS * 1_000_000).step_by(REQUEST as usize) {
        packer.clear();
        for number in first..first + REQUEST {
            let (value, body) = record(number);
            let value = format!("value {value:08}");
            packer.add(&AttributeValue::String(value.as_bytes()), Some(fingerprint(body)));
        }
        let mut entry = EntryWriter::new(None);
        packer.finish(&mut entry, 1);
        let entry = entry.finish(REQUEST);
        let section = section(&entry);
        let start = Instant::now();
        window.fold(&section).unwrap();
        let took = start.elapsed();
        folding += took;
        longest = longest.max(took);
    }
    let spills = window.spills();
    let start = Instant::now();
    let closed = window.close(1000).unwrap();
    eprintln!(
        "folded in {folding:?} (longest section {longest:?}), {spills} spills, closed in {:?}, \
         at most {} MiB resident",
        start.elapsed(),
        most_resident_bytes() >> 20,
    );
    closed
}

#[test]
#[ignore = "takes a minute, and measures the whole process"]
fn twenty_million_distinct_records_fit_in_512_mib() {
    let counts = close_twenty_million(|number| (number % 40, number)).counts;
    assert_eq!((counts.records, counts.distinct), (20_000_000, 20_000_000));
    assert_eq!(counts.counts.len(), 40);
    assert!(counts.counts.iter().all(|(_, count)| *count == 500_000));
    assert!(most_resident_bytes() <= RESIDENT_BYTES_MAX);
}

#[test]
#[ignore = "takes a minute, and measures the whole process"]
fn twenty_million_values_fit_in_512_mib() {
    let counts = close_twenty_million(|number| (number, 1)).counts;
    assert_eq!((counts.records, counts.distinct), (20_000_000, 20_000_000));
    assert_eq!((counts.counts.len(), counts.other_values), (1000, 19_999_000));
    assert!(counts.counts.is_sorted());
    assert!(most_resident_bytes() <= RESIDENT_BYTES_MAX);
}
