//! What of a window left the memory: its runs, and what a live answer says of them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::ranking::Ranking;
use super::run::{Run, Scratch, write_run};
use super::values::{RankedValues, is_unknown};
use super::{Counts, FoldError};

/// How many values of a spilled part keep their counts in memory.
const FREQUENT: usize = 1024;

/// The spilled parts of a window, of which at most one is still being written.
pub(super) struct Spilled {
    scratch: Arc<Scratch>,
    /// Whether others may go on from the same file, as it was taken up.
    is_shared: bool,
    runs: Vec<Run>,
    writing: Option<Writing>,
    parts: u64,
    /// Sums over all parts, hence upper bounds: the same key may be in several.
    distinct: u64,
    values: u64,
    unknown: u64,
    /// By the values' hashes, from the parts that were written.
    frequent: HashMap<u128, Frequent>,
}

/// The runs of a carried window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedRuns {
    /// The file's name in the scratch folder.
    pub(super) file: String,
    runs: Vec<Run>,
    parts: u64,
    distinct: u64,
    values: u64,
    unknown: u64,
}

/// A part that a thread of its own sorts and writes.
struct Writing {
    thread: JoinHandle<Result<Written, FoldError>>,
    bytes: usize,
}

struct Written {
    run: Run,
    frequent: Vec<(u128, Frequent)>,
}

/// A value that was among the most frequent of a part.
struct Frequent {
    canonical: Vec<u8>,
    count: u64,
}

impl Spilled {
    /// Nothing yet; runs will go to `scratch`.
    pub(super) fn new(scratch: Scratch) -> Self {
        Spilled {
            scratch: Arc::new(scratch),
            is_shared: false,
            runs: Vec::new(),
            writing: None,
            parts: 0,
            distinct: 0,
            values: 0,
            unknown: 0,
            frequent: HashMap::new(),
        }
    }

    /// Makes all parts durable, and says what is needed to take them up again.
    pub(super) fn carry(&mut self) -> Result<CarriedRuns, FoldError> {
        self.wait()?;
        self.scratch.keep()?;
        let &mut Spilled { parts, distinct, values, unknown, .. } = self;
        let runs = self.runs.clone();
        let file = self.scratch.path().file_name().unwrap_or_default();
        let file = file.to_string_lossy().into_owned();
        Ok(CarriedRuns { file, runs, parts, distinct, values, unknown })
    }

    /// Takes up what was carried, when all of it is there. Its file stays as it is: others may
    /// take it up as well, or still have it open.
    pub(super) fn resume(folder: &Path, carried: CarriedRuns) -> Result<Self, FoldError> {
        let CarriedRuns { file, runs, parts, distinct, values, unknown } = carried;
        let scratch = Arc::new(Scratch::reopen(folder.join(file))?);
        runs.iter().try_for_each(|run| run.verify(&scratch))?;
        let (is_shared, writing, frequent) = (true, None, HashMap::new());
        Ok(Spilled {
            scratch,
            is_shared,
            runs,
            writing,
            parts,
            distinct,
            values,
            unknown,
            frequent,
        })
    }

    /// The memory of the part that is being written.
    pub(super) fn memory_bytes(&self) -> usize {
        self.writing.as_ref().map_or(0, |writing| writing.bytes)
    }

    /// How many parts were spilled.
    pub(super) fn parts(&self) -> u64 {
        self.parts
    }

    /// Begins to write a part. No other may be being written: see [`Spilled::wait`].
    pub(super) fn write(&mut self, part: Memory) -> Result<(), FoldError> {
        let shared = self.leave_shared_file()?;
        self.parts += 1;
        self.distinct += part.distinct();
        self.values += part.values.len() as u64;
        self.unknown += part.values.unknown();
        let bytes = part.bytes();
        let start = self.runs.last().map_or(0, Run::end);
        let scratch = Arc::clone(&self.scratch);
        let thread = thread::Builder::new()
            .name("spill".to_owned())
            .spawn(move || {
                shared.map_or(Ok(()), |shared| scratch.copy(&shared, start))?;
                write(part, &scratch, start)
            })
            .map_err(FoldError::Thread)?;
        self.writing = Some(Writing { thread, bytes });
        Ok(())
    }

    /// Goes on in a file of its own. Returns the shared one, from which the runs are to be
    /// copied.
    fn leave_shared_file(&mut self) -> Result<Option<Arc<Scratch>>, FoldError> {
        if !self.is_shared {
            return Ok(None);
        }
        let own = Scratch::create(self.scratch.folder())?;
        self.is_shared = false;
        Ok(Some(mem::replace(&mut self.scratch, Arc::new(own))))
    }

    /// Waits until nothing is being written.
    pub(super) fn wait(&mut self) -> Result<(), FoldError> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let Written { run, frequent } = writing.thread.join().map_err(|_| FoldError::Failed)??;
        self.runs.push(run);
        for (hash, Frequent { canonical, count }) in frequent {
            self.frequent.entry(hash).or_insert(Frequent { canonical, count: 0 }).count += count;
        }
        Ok(())
    }

    /// Takes note of a part that was written meanwhile; never waits.
    pub(super) fn poll(&mut self) -> Result<(), FoldError> {
        match &self.writing {
            Some(writing) if writing.thread.is_finished() => self.wait(),
            _ => Ok(()),
        }
    }

    /// All runs, when the last one is written.
    pub(super) fn into_runs(mut self) -> Result<(Arc<Scratch>, Vec<Run>), FoldError> {
        self.wait()?;
        Ok((self.scratch, self.runs))
    }

    /// The counts of what was spilled and of what is in memory, as far as they are
    /// known without reading: see [`Counts::upper_bound`].
    pub(super) fn current(&self, memory: &Memory, records: u64, limit: usize) -> Counts {
        let mut ranking = Ranking::new(limit);
        for (hash, value) in memory.values.iter_hashed() {
            if !is_unknown(value.canonical) {
                let spilled = self.frequent.get(&hash).map_or(0, |frequent| frequent.count);
                ranking.add(value.canonical, spilled + value.total());
            }
        }
        for (&hash, frequent) in &self.frequent {
            if memory.values.get(hash).is_none() {
                ranking.add(&frequent.canonical, frequent.count);
            }
        }
        let listed = ranking.finish(records);
        let listed_count: u64 = listed.counts.iter().map(|(_, count)| count).sum();
        let distinct = self.distinct + memory.distinct();
        let unknown = self.unknown + memory.values.unknown();
        let values = self.values + memory.values.len() as u64;
        Counts {
            distinct,
            unknown,
            other_values: values.saturating_sub(listed.counts.len() as u64),
            other_count: distinct - unknown - listed_count,
            upper_bound: true,
            ..listed
        }
    }
}

/// Sorts and writes a part, and gives its memory back.
fn write(part: Memory, scratch: &Scratch, start: u64) -> Result<Written, FoldError> {
    let Memory { keys, values, .. } = part;
    let values = values.into_ranked();
    let run = write_run(&values, keys, scratch, start)?;
    Ok(Written { run, frequent: most_frequent(&values) })
}

fn most_frequent(values: &RankedValues) -> Vec<(u128, Frequent)> {
    let mut highest: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::with_capacity(FREQUENT);
    for (rank, value) in values.iter_unordered() {
        if is_unknown(value.canonical) {
            continue;
        }
        if highest.len() < FREQUENT {
            highest.push(Reverse((value.total(), rank)));
        } else if let Some(mut lowest) = highest.peek_mut()
            && value.total() > lowest.0.0
        {
            *lowest = Reverse((value.total(), rank));
        }
    }
    let frequent = |Reverse((count, rank))| {
        let (hash, value) = values.get(rank);
        (hash, Frequent { canonical: value.canonical.to_vec(), count })
    };
    highest.into_iter().map(frequent).collect()
}
