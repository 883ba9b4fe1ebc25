//! Files behind whose gaps so much waits that only what closes them is still taken.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::event::chunk::Sequence;

/// What waits behind the gap of one file, beyond which only what closes it is taken ..
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// .. and what waits in all files that a node folds, beyond which that holds for each of them.
pub const NODE_BYTES_MAX: u64 = 1 << 30;
/// What a chunk counts for beside its payload.
pub const CHUNK_BYTES: u64 = 512;
/// From the one on that a file waits for, so many chunks are taken whatever waits: they may be the
/// gap, and were on their way while it was not known how far the file is.
pub const CHUNKS_TAKEN: u64 = 16;
/// How many files a node tells of at most: those behind whose gaps most waits.
const FILES_MAX: usize = 10_000;

// A node has room for several such files.
const _: () = assert!(8 * FILE_BYTES_MAX <= NODE_BYTES_MAX);

/// A file that lacks a chunk while later ones are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The hash of its id.
    pub hash: u128,
    /// Which file of that name.
    pub session: u64,
    /// The chunk that it lacks.
    pub next: Sequence,
    /// What the later ones count for.
    pub bytes: u64,
    /// Whether a checkpoint has the gap: chunks that overtake each other make none that lasts.
    pub has_lasted: bool,
}

/// The files of which only what closes their gaps is taken, each with the chunk that it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps(BTreeMap<(u128, u64), Sequence>);

impl Gaps {
    /// Those of all files with gaps that a node folds of which too much waits.
    pub fn over(found: impl IntoIterator<Item = Gap>) -> Gaps {
        let mut found: Vec<_> = found.into_iter().collect();
        let is_full = found.iter().map(|gap| gap.bytes).sum::<u64>() > NODE_BYTES_MAX;
        found.retain(|gap| gap.bytes > FILE_BYTES_MAX || (is_full && gap.has_lasted));
        found.sort_by_key(|gap| Reverse(gap.bytes));
        found.truncate(FILES_MAX);
        found.into_iter().map(|gap| (gap.hash, gap.session, gap.next)).collect()
    }

    /// Whether all chunks are taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hash of each file's id, its session, and the chunk that it lacks.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u64, Sequence)> {
        self.0.iter().map(|(&(hash, session), &next)| (hash, session, next))
    }

    /// The chunk that comes before this one, which is not taken until then; `None` if it is.
    pub fn lacks(&self, hash: u128, session: u64, seq: Sequence) -> Option<Sequence> {
        let next = self.0.get(&(hash, session)).copied()?;
        (seq.number() >= next.number().saturating_add(CHUNKS_TAKEN)).then_some(next)
    }

    /// Tells others from now on, and people if there is more to say than how far files are.
    pub fn tell(self, to: &watch::Sender<Arc<Gaps>>) {
        let before = to.borrow().0.len();
        let files = self.0.len();
        if files > 0 && before == 0 {
            warn!(files, "too much waits behind gaps of files: only what closes them is taken");
        }
        if files == 0 && before > 0 {
            info!("all chunks of files are taken again");
        }
        if files > 0 || before > 0 {
            to.send_replace(Arc::new(self));
        }
    }
}

impl FromIterator<(u128, u64, Sequence)> for Gaps {
    /// Where two aggregations rebuild a file, what both may lack is taken.
    fn from_iter<I: IntoIterator<Item = (u128, u64, Sequence)>>(files: I) -> Gaps {
        let mut gaps = Gaps::default();
        for (hash, session, next) in files {
            let known = gaps.0.entry((hash, session)).or_insert(next);
            *known = next.max(*known);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: u64) -> Sequence {
        Sequence::try_from(number as i64).unwrap()
    }

    /// A gap that has lasted, at the first chunk of a file.
    fn gap(hash: u128, bytes: u64) -> Gap {
        Gap { hash, session: 7, next: seq(1), bytes, has_lasted: true }
    }

    fn hashes(gaps: &Gaps) -> Vec<u128> {
        gaps.iter().map(|(hash, ..)| hash).collect()
    }

    #[test]
    fn a_file_is_over_its_bound_alone() {
        let new = Gap { has_lasted: false, ..gap(3, FILE_BYTES_MAX + 1) };
        let gaps = Gaps::over([gap(1, FILE_BYTES_MAX), gap(2, FILE_BYTES_MAX + 1), new]);
        assert_eq!(hashes(&gaps), [2, 3]);
        assert!(Gaps::over([gap(1, FILE_BYTES_MAX)]).is_empty());
    }

    #[test]
    fn a_node_that_is_over_its_bound_takes_only_what_closes_the_gaps_that_have_lasted() {
        let large = (0..16).map(|hash| gap(hash, FILE_BYTES_MAX));
        assert_eq!(16 * FILE_BYTES_MAX, NODE_BYTES_MAX);
        let new = Gap { has_lasted: false, ..gap(100, 1) };
        assert!(Gaps::over(large.clone()).is_empty());
        let gaps = Gaps::over(large.chain([gap(99, 1), new]));
        assert_eq!(hashes(&gaps), (0..16).chain([99]).collect::<Vec<_>>());
    }

    #[test]
    fn of_very_many_files_those_are_told_of_behind_whose_gaps_most_waits() {
        let many = FILES_MAX as u128 + 5;
        let gaps = (0..many).map(|hash| gap(hash, FILE_BYTES_MAX + 1 + hash as u64));
        assert_eq!(hashes(&Gaps::over(gaps)), (5..many).collect::<Vec<_>>());
    }

    #[test]
    fn what_closes_a_gap_is_taken_and_what_came_before_and_all_other_files() {
        let gaps: Gaps = [(1, 7, seq(100))].into_iter().collect();
        for number in [1, 99, 100, 99 + CHUNKS_TAKEN] {
            assert_eq!(gaps.lacks(1, 7, seq(number)), None, "{number}");
        }
        for number in [100 + CHUNKS_TAKEN, i64::MAX as u64] {
            assert_eq!(gaps.lacks(1, 7, seq(number)), Some(seq(100)), "{number}");
        }
        for (hash, session) in [(1, 8), (2, 7)] {
            assert_eq!(gaps.lacks(hash, session, seq(1000)), None);
        }
    }

    #[test]
    fn where_two_aggregations_rebuild_a_file_what_both_lack_is_taken() {
        let gaps: Gaps = [(1, 7, seq(100)), (1, 7, seq(5))].into_iter().collect();
        assert_eq!(gaps.lacks(1, 7, seq(100)), None);
        assert_eq!(gaps.lacks(1, 7, seq(1000)), Some(seq(100)));
    }
}
