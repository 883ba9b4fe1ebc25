//! Runs into a closed window, in one pass and little memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::FoldError;
use super::closing::{Closing, SlotCounts};
use super::count_table::TakeRows;
use super::run::{Head, Run, RunReader, Scratch};
use crate::event::fingerprint::slot_of;

/// Merges a window's runs and counts each key once.
pub(super) fn merge<T: TakeRows>(
    scratch: &Scratch,
    runs: &[Run],
    closing: &mut Closing<T>,
) -> Result<(), T::Error> {
    let mut merge = Merge::new(scratch, runs)?;
    let mut canonical = Vec::new();
    let mut counts = SlotCounts::default();
    while let Some(hash) = merge.next_value(&mut canonical)? {
        counts.clear();
        merge.keys(|key| counts.add_keys(slot_of(key), 1))?;
        counts.add_plain(hash, merge.plain());
        closing.add(hash, &canonical, &counts)?;
    }
    Ok(())
}

struct Merge<'a> {
    readers: Vec<RunReader<'a>>,
    /// The value that each run comes to next, the smallest hash on top.
    waiting: BinaryHeap<Reverse<(u128, usize)>>,
    heads: Vec<Head>,
    /// The runs that have the current value.
    current: Vec<usize>,
    /// The next key of each of these, the smallest on top.
    keys: BinaryHeap<Reverse<(u128, usize)>>,
    /// How many keys of the current value each run has left.
    left: Vec<u32>,
}

impl<'a> Merge<'a> {
    fn new(scratch: &'a Scratch, runs: &'a [Run]) -> Result<Self, FoldError> {
        let nothing = Head { hash: 0, plain: 0, keys: 0, length: 0 };
        let mut merge = Merge {
            readers: runs.iter().map(|run| RunReader::new(scratch, run)).collect(),
            waiting: BinaryHeap::new(),
            heads: vec![nothing; runs.len()],
            current: (0..runs.len()).collect(),
            keys: BinaryHeap::new(),
            left: vec![0; runs.len()],
        };
        merge.advance()?;
        Ok(merge)
    }

    /// Lets the runs of the current value come to their next one.
    fn advance(&mut self) -> Result<(), FoldError> {
        for run in self.current.drain(..) {
            if let Some(head) = self.readers[run].head()? {
                self.heads[run] = head;
                self.waiting.push(Reverse((head.hash, run)));
            }
        }
        Ok(())
    }

    /// The hash of the next value, whose bytes are put into `canonical`. The keys of
    /// the one before must have been taken.
    fn next_value(&mut self, canonical: &mut Vec<u8>) -> Result<Option<u128>, FoldError> {
        self.advance()?;
        let Some(Reverse((hash, first))) = self.waiting.pop() else { return Ok(None) };
        self.readers[first].value(self.heads[first].length, canonical)?;
        self.current.push(first);
        while let Some(&Reverse((same, run))) = self.waiting.peek()
            && same == hash
        {
            self.waiting.pop();
            self.readers[run].skip_value(self.heads[run].length)?;
            self.current.push(run);
        }
        Ok(Some(hash))
    }

    /// The current value's records that were counted without a key.
    fn plain(&self) -> u64 {
        self.current.iter().map(|&run| self.heads[run].plain).sum()
    }

    /// Takes the current value's keys, each once, in ascending order.
    fn keys(&mut self, mut take: impl FnMut(u128)) -> Result<(), FoldError> {
        if let [run] = self.current[..] {
            for _ in 0..self.heads[run].keys {
                take(self.readers[run].key()?);
            }
            return Ok(());
        }
        for &run in &self.current {
            self.left[run] = self.heads[run].keys;
            if let Some(left) = self.left[run].checked_sub(1) {
                self.left[run] = left;
                self.keys.push(Reverse((self.readers[run].key()?, run)));
            }
        }
        let mut last = None;
        while let Some(mut next) = self.keys.peek_mut() {
            let Reverse((key, run)) = *next;
            if last != Some(key) {
                take(key);
                last = Some(key);
            }
            if let Some(left) = self.left[run].checked_sub(1) {
                self.left[run] = left;
                *next = Reverse((self.readers[run].key()?, run));
            } else {
                PeekMut::pop(next);
            }
        }
        Ok(())
    }
}
