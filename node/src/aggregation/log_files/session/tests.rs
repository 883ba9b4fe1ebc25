use std::collections::VecDeque;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// A file in memory. The fingerprint of a chunk is its content.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    /// The fingerprints of the chunks that checkpoints have.
    index: Vec<u128>,
    /// What waits in the last checkpoint.
    waiting: BTreeMap<Sequence, Held>,
    /// How often one of these was read.
    read_back: usize,
}

impl Content for Memory {
    type Error = Infallible;

    fn write(&mut self, at: u64, payload: &[u8]) -> Result<(), Infallible> {
        assert!(at as usize <= self.bytes.len(), "a hole");
        let end = at as usize + payload.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at as usize..end].copy_from_slice(payload);
        Ok(())
    }

    fn read(&mut self, at: u64, bytes: u64) -> Result<Bytes, Infallible> {
        Ok(Bytes::copy_from_slice(&self.bytes[at as usize..(at + bytes) as usize]))
    }

    fn recorded(&mut self, seq: Sequence) -> Result<Bytes, Infallible> {
        self.read_back += 1;
        Ok(self.waiting[&seq].payload.clone())
    }

    fn fingerprint(&mut self, seq: Sequence) -> Result<u128, Infallible> {
        Ok(self.index[seq.number() as usize - 1])
    }
}

/// A file and what is known of it.
struct File {
    session: Session,
    memory: Memory,
    entries: u64,
}

impl File {
    fn new() -> File {
        let session = Session::resume(Reached::default(), BTreeMap::new());
        File { session, memory: Memory::default(), entries: 0 }
    }

    /// The next entry has a chunk.
    fn take(&mut self, seq: u64, payload: &'static str) {
        let index = self.entries;
        self.entries += 1;
        self.take_at(index, seq, payload);
    }

    fn take_at(&mut self, index: u64, seq: u64, payload: &'static str) {
        let position = Position { segment: 1, index };
        let order = Order { stamp: UnixNanos(index), position };
        let held = held(payload);
        let Ok(()) = self.session.take(sequence(seq), order, held, &mut self.memory);
    }

    /// A checkpoint at a cut that counts so many entries.
    fn close(&mut self, entries: u64) -> Found {
        let Ok(found) = self.session.close(|at| at.index < entries, &mut self.memory);
        self.memory.index.extend(&found.appended);
        assert_eq!(self.memory.index.len() as u64, found.reached.next.number() - 1);
        let waiting = &mut self.memory.waiting;
        found.placed.iter().for_each(|seq| drop(waiting.remove(seq)));
        waiting.extend(found.waiting.clone());
        found
    }

    /// The database has what a checkpoint found.
    fn record(&mut self, found: &Found) {
        self.session.record(found.waiting.keys().copied());
    }

    /// As another node goes on from the last checkpoint.
    fn resume(&mut self, reached: Reached) {
        let recorded = |(&seq, held): (&Sequence, &Held)| {
            let (fingerprint, bytes) = (held.fingerprint, held.payload.len() as u64);
            (seq, Recorded { fingerprint, bytes })
        };
        let waiting = self.memory.waiting.iter().map(recorded).collect();
        self.session = Session::resume(reached, waiting);
    }

    fn text(&self) -> &str {
        let written = self.session.tail().length as usize;
        str::from_utf8(&self.memory.bytes[..written]).unwrap()
    }
}

fn sequence(number: u64) -> Sequence {
    (number as i64).try_into().unwrap()
}

fn held(payload: &'static str) -> Held {
    let fingerprint = payload.bytes().fold(1, |sum: u128, byte| sum << 8 | u128::from(byte));
    Held { fingerprint, payload: Bytes::from_static(payload.as_bytes()) }
}

#[test]
fn what_is_behind_a_gap_is_held_until_that_is_closed() {
    let mut file = File::new();
    let held = |file: &File| (file.session.behind_a_gap(), file.session.held_bytes());
    file.take(1, "one");
    file.take(3, "three");
    file.take(4, "4");
    assert_eq!(held(&file), (2, 6));
    file.close(3);
    assert_eq!(held(&file), (2, 6));
    file.take(2, "two");
    assert_eq!(held(&file), (0, 0));
}

#[test]
fn what_the_database_has_is_held_no_longer_and_read_back_when_the_gap_is_closed() {
    let mut file = File::new();
    let waiting = |file: &File| (file.session.waiting_bytes(), file.session.held_bytes());
    file.take(3, "three");
    file.take(4, "4");
    let found = file.close(1);
    file.record(&found);
    assert_eq!(waiting(&file), (6, 1), "the other is in no checkpoint");
    let found = file.close(2);
    file.record(&found);
    file.take(3, "three");
    file.take(3, "THREE");
    assert_eq!(waiting(&file), (11, 5), "what contradicts is in the journal alone");
    assert_eq!(file.close(4).settled(), 2);
    file.take(1, "one");
    assert_eq!((waiting(&file), file.memory.read_back), ((6, 0), 0));
    file.take(2, "two");
    assert_eq!((waiting(&file), file.text()), ((0, 0), "onetwothree4"));
    assert_eq!(file.memory.read_back, 2);
    assert_eq!(file.close(6).placed, [3, 4].map(sequence));
}

#[test]
fn what_is_taken_back_and_in_the_database_is_read_there_again() {
    let mut file = File::new();
    file.take_at(0, 2, "-two");
    let found = file.close(1);
    file.take_at(6, 1, "late");
    file.record(&found);
    assert_eq!(file.text(), "late-two");
    file.take_at(3, 1, "one");
    let found = file.close(7);
    assert_eq!((file.text(), found.contradicting), ("one-two", 1));
    assert_eq!(file.memory.read_back, 1);
}

#[test]
fn whoever_resumes_reads_what_waits_when_the_gap_is_closed() {
    let mut file = File::new();
    file.take(2, "two");
    let found = file.close(1);
    file.resume(found.reached);
    assert_eq!((file.session.waiting_bytes(), file.session.held_bytes()), (3, 0));
    assert_eq!(file.memory.read_back, 0);
    file.take(1, "one");
    assert_eq!(file.text(), "onetwo");
    assert_eq!(file.close(2).appended.len(), 2);
}

#[test]
fn chunks_in_order_are_written_as_they_come() {
    let mut file = File::new();
    file.take(1, "ab");
    assert_eq!(file.text(), "ab");
    file.take(2, "cd");
    assert_eq!((file.text(), file.session.tail().length), ("abcd", 4));
    let found = file.close(1);
    assert_eq!((found.reached.length, found.settled()), (2, 1));
    assert_eq!(file.close(2).reached.length, 4);
    assert!(file.close(2).is_empty());
}

#[test]
fn what_comes_behind_a_gap_waits_for_it() {
    let mut file = File::new();
    file.take(3, "ef");
    file.take(2, "cd");
    assert_eq!((file.text(), file.session.unsettled()), ("", 2));
    let found = file.close(2);
    assert_eq!((found.settled(), found.waiting.len()), (0, 2));
    assert_eq!(file.session.unsettled(), 2);
    file.take(1, "ab");
    assert_eq!(file.text(), "abcdef");
    let found = file.close(3);
    assert_eq!((found.settled(), found.placed), (3, vec![sequence(2), sequence(3)]));
    assert_eq!((found.reached.length, file.session.unsettled()), (6, 0));
}

#[test]
fn a_gap_is_one_where_only_an_entry_above_the_cut_fills_it() {
    let mut file = File::new();
    file.take_at(0, 2, "cd");
    file.take_at(9, 1, "ab");
    assert_eq!(file.text(), "abcd");
    let found = file.close(1);
    assert_eq!((found.reached.length, found.waiting.len()), (0, 1));
    let found = file.close(10);
    assert_eq!((found.reached.length, found.settled()), (4, 2));
}

#[test]
fn a_repeated_chunk_counts_once() {
    let mut file = File::new();
    for _ in 0..3 {
        file.take(1, "ab");
    }
    let found = file.close(2);
    assert_eq!((found.appended.len(), found.repeated, found.contradicting), (1, 1, 0));
    file.take(1, "ab");
    let found = file.close(4);
    assert_eq!((found.repeated, found.contradicting, file.text()), (2, 0, "ab"));
}

#[test]
fn other_bytes_for_a_place_are_never_taken_for_a_repetition() {
    let mut file = File::new();
    file.take(1, "ab");
    file.take(1, "AB");
    file.take(2, "cd");
    let found = file.close(3);
    assert_eq!((found.repeated, found.contradicting, file.text()), (0, 1, "abcd"));
    file.take(2, "CD");
    file.take(2, "CDE");
    let found = file.close(5);
    assert_eq!((found.repeated, found.contradicting, file.text()), (0, 2, "abcd"));
    file.take(4, "gh");
    file.close(6);
    file.take(4, "GH");
    file.take(3, "ef");
    let found = file.close(8);
    assert_eq!((found.contradicting, file.text()), (1, "abcdefgh"));
}

#[test]
fn of_several_chunks_for_a_place_the_first_by_their_entries_order_is_the_files() {
    let mut file = File::new();
    file.take_at(5, 1, "late");
    file.take_at(6, 2, "-two");
    assert_eq!(file.text(), "late-two");
    file.take_at(3, 1, "one");
    let found = file.close(7);
    assert_eq!((file.text(), found.contradicting), ("one-two", 1));
    assert_eq!(found.reached.length, 7);
}

#[test]
fn what_an_earlier_checkpoint_has_comes_before_an_earlier_entry() {
    let mut file = File::new();
    file.take_at(5, 2, "two");
    let found = file.session.close(|at| at.index == 5, &mut file.memory).unwrap();
    assert_eq!(found.waiting.len(), 1);
    file.take_at(3, 2, "TWO");
    file.take_at(6, 1, "one-");
    let found = file.session.close(|_| true, &mut file.memory).unwrap();
    assert_eq!((file.text(), found.contradicting), ("one-two", 1));
}

#[test]
fn an_empty_chunk_has_its_place() {
    let mut file = File::new();
    file.take(2, "");
    file.take(1, "ab");
    file.take(3, "cd");
    let found = file.close(3);
    assert_eq!((file.text(), found.reached.next.number()), ("abcd", 4));
}

/// What one of a few senders sends: place and content, of which some contradict each other.
fn chunks() -> impl Strategy<Value = Vec<(u64, bool)>> {
    proptest::collection::vec((1..9_u64, prop::bool::weighted(0.2)), 0..40)
}

fn payload(seq: u64, is_other: bool) -> &'static str {
    let own = ["", "bb", "ccc", "d", "ee", "fff", "g", "hh"];
    let other = ["A", "BB", "C", "DDDD", "EE", "F", "G", "H"];
    (if is_other { other } else { own })[seq as usize - 1]
}

proptest! {
    #[test]
    fn the_order_of_arrival_changes_nothing(
        chunks in chunks(),
        cuts in proptest::collection::vec(0..45_u64, 0..5),
        seed: u64,
        resumes: bool,
        // After how many checkpoints the database has one.
        lag in prop::option::of(0..3_usize),
    ) {
        let mut cuts = cuts;
        cuts.push(chunks.len() as u64);
        cuts.sort_unstable();
        let mut one = File::new();
        let mut other = File::new();
        // One hears all in order before the first cut, the other in disorder and just in time.
        for (index, &(seq, is_other)) in chunks.iter().enumerate() {
            one.take_at(index as u64, seq, payload(seq, is_other));
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut told, mut settled, mut kept) = (0, 0, VecDeque::new());
        for cut in cuts {
            let mut indices: Vec<_> = (told..cut.min(chunks.len() as u64)).collect();
            told = told.max(cut.min(chunks.len() as u64));
            random.shuffle(&mut indices);
            for index in indices {
                let (seq, is_other) = chunks[index as usize];
                other.take_at(index, seq, payload(seq, is_other));
            }
            let (found, same) = (one.close(cut), other.close(cut));
            prop_assert_eq!(&found, &same);
            settled += found.settled();
            kept.push_back(same.clone());
            if let Some(lag) = lag && kept.len() > lag {
                kept.pop_front().iter().for_each(|found| other.record(found));
            }
            let length = found.reached.length as usize;
            prop_assert_eq!(&one.memory.bytes[..length], &other.memory.bytes[..length]);
            if resumes {
                other.resume(same.reached);
            }
            if resumes || lag == Some(0) {
                prop_assert_eq!(other.session.held_bytes(), 0);
            }
        }
        prop_assert_eq!(settled + one.session.unsettled(), chunks.len() as u64);
    }
}
