//! The thread that folds what was committed, in commit order, and finds what is due.

use std::collections::BTreeMap;
use std::sync::mpsc;

use serde::Deserialize;
use tokio::sync::oneshot;

use crate::aggregation::definition::Kind;
use crate::aggregation::distinct_logs::{self, Carried, Counts, OpenWindow, Sizes};
use crate::checkpoint::ledger::Balance;
use crate::checkpoint::{Carry, CheckpointError, Checkpoints};
use crate::event::entry::{Entry, Section};
use crate::event::time::{UnixNanos, Window};
use crate::flush::delivery::{Closing, Flush};
use crate::flush::{Aggregation, Begin, FlushError, FlushSettings, begin_after, due};
use crate::journal::{Committed, Cut, FRAME_BYTES, Group, Position};

/// What the thread is told or asked.
enum Command {
    Committed(Committed),
    Current { limit: usize, answer: oneshot::Sender<Vec<CurrentWindow>> },
    Balances { answer: oneshot::Sender<Result<Balances, FlushError>> },
}

/// Every aggregation's account at one moment.
#[derive(Debug, Default)]
pub struct Balances {
    /// Records that were folded, since the journal began.
    pub records: u64,
    /// The accounts, by aggregation.
    pub accounts: Vec<(Aggregation, Balance)>,
}

/// How large an aggregation's open windows are, for the metrics.
#[derive(Clone, Debug)]
pub struct OpenFigures {
    /// The aggregation's name.
    pub aggregation: String,
    /// Records in them.
    pub records: u64,
    /// Bytes that they take in memory.
    pub memory_bytes: usize,
}

/// Told at every cut; must not block.
pub type Observer = Box<dyn Fn(OpenFigures) + Send>;

/// An open window, as far as it has got.
pub struct CurrentWindow {
    /// Its aggregation.
    pub aggregation: Aggregation,
    /// The time that it covers.
    pub window: Window,
    /// What was counted so far.
    pub counts: Counts,
}

/// A handle on the folding thread; cheap to clone. When the last one is dropped, what
/// was handed in is folded and the thread ends.
#[derive(Clone)]
pub struct Folding {
    commands: mpsc::Sender<Command>,
}

/// The folding thread's end of the handle.
pub struct Commands(mpsc::Receiver<Command>);

impl Folding {
    /// A handle, and what is to be run behind it.
    pub fn new() -> (Folding, Commands) {
        let (commands, received) = mpsc::channel();
        (Folding { commands }, Commands(received))
    }

    /// Hands in what was committed.
    pub fn committed(&self, committed: Committed) {
        // After a failure nobody folds; what is durable is folded at the next start.
        let _ = self.commands.send(Command::Committed(committed));
    }

    /// The open windows, as far as they have got; empty when the thread has ended.
    pub async fn current(&self, limit: usize) -> Vec<CurrentWindow> {
        let (answer, current) = oneshot::channel();
        let _ = self.commands.send(Command::Current { limit, answer });
        current.await.unwrap_or_default()
    }

    /// Each aggregation's account; empty when the thread has ended.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn balances(&self) -> Result<Balances, FlushError> {
        let (answer, balances) = oneshot::channel();
        let _ = self.commands.send(Command::Balances { answer });
        balances.await.unwrap_or_else(|_| Ok(Balances::default()))
    }
}

/// The state of every open window.
pub struct Folder {
    settings: FlushSettings,
    checkpoints: Checkpoints,
    accounts: Vec<Open>,
    flushes: mpsc::Sender<Flush>,
    observer: Observer,
    /// Records in all entries that were folded, since the journal began.
    records: u64,
    /// Bytes of all entries that were folded in this life.
    bytes: u64,
}

/// One aggregation's open windows.
struct Open {
    aggregation: Aggregation,
    /// Windows that end here or earlier are done.
    through: UnixNanos,
    windows: BTreeMap<Window, WindowState>,
    /// Windows that are being handed out, with their records.
    closing: Vec<(Window, u64)>,
    /// How large the last window became.
    like: Option<Sizes>,
}

struct WindowState {
    /// The first entry that is not carried.
    begin: Begin,
    /// [`Folder::bytes`] before that entry.
    bytes_before: u64,
    state: OpenWindow,
}

impl Folder {
    /// Nothing folded yet, but for what was carried.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(
        settings: FlushSettings,
        checkpoints: Checkpoints,
        aggregations: Vec<Aggregation>,
        flushes: mpsc::Sender<Flush>,
        observer: Observer,
    ) -> Result<Folder, FlushError> {
        let (accounts, records, bytes) = (Vec::new(), 0, 0);
        let mut folder =
            Folder { settings, checkpoints, accounts, flushes, observer, records, bytes };
        folder.register(aggregations)?;
        folder.resume()?;
        Ok(folder)
    }

    /// Folds for these aggregations from now on; open windows stay as they are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn register(&mut self, aggregations: Vec<Aggregation>) -> Result<(), FlushError> {
        for aggregation in aggregations {
            let number = aggregation.number;
            match self.accounts.iter_mut().find(|open| open.aggregation.number == number) {
                Some(open) => open.aggregation = aggregation,
                None => {
                    let through = UnixNanos(self.checkpoints.progress(number)?.through);
                    self.accounts.push(Open::new(aggregation, through));
                }
            }
        }
        Ok(())
    }

    /// Takes up the windows that were carried.
    fn resume(&mut self) -> Result<(), FlushError> {
        let FlushSettings { window_memory, scratch, .. } = &self.settings;
        let mut kept = Vec::new();
        for carry in self.checkpoints.carried()? {
            let Carry { aggregation, start, end, segment, index, records, state } = carry;
            let carried = Carried::deserialize(state).map_err(CheckpointError::Carry)?;
            kept.push(carried.clone());
            let Some(open) = self.accounts.iter_mut().find(|a| a.aggregation.number == aggregation)
            else {
                continue;
            };
            let window = Window { start: UnixNanos(start), end: UnixNanos(end) };
            let begin = Begin { position: Position { segment, index }, records };
            let state = OpenWindow::resume(*window_memory, scratch, carried)?;
            open.windows.insert(window, WindowState { begin, bytes_before: 0, state });
        }
        Ok(distinct_logs::remove_all_but(scratch, &kept)?)
    }

    /// Folds one entry: its `records` came in after `begin.records` others.
    ///
    /// # Errors
    /// When the entry cannot be read or a window's state cannot be kept.
    pub fn fold(
        &mut self,
        begin: Begin,
        stamp: UnixNanos,
        records: u64,
        entry: &[u8],
    ) -> Result<(), FlushError> {
        let Position { segment, index } = begin.position;
        let malformed = |source| FlushError::Entry { segment, index, source };
        self.records = begin.records + records;
        let bytes_before = self.bytes;
        self.bytes += entry.len() as u64;
        for section in Entry::parse(entry).map_err(malformed)?.sections() {
            let (number, section) = section.map_err(malformed)?;
            // A number is never reused, so an unknown one belongs to an aggregation that
            // ended and was flushed.
            let Some(open) = self.accounts.iter_mut().find(|a| a.aggregation.number == number)
            else {
                continue;
            };
            if let Some(window) = open.window(begin, bytes_before, stamp, &self.settings) {
                let Section::DistinctLogs(section) = section;
                window.state.fold(&section)?;
            }
        }
        Ok(())
    }

    fn fold_group(&mut self, group: Group) -> Result<(), FlushError> {
        let mut begin = Begin { position: group.first, records: group.records_before };
        for entry in group.entries {
            self.fold(begin, group.stamp, entry.records, &entry.frame[FRAME_BYTES..])?;
            begin.position.index += 1;
            begin.records += entry.records;
            drop(entry.hold);
        }
        Ok(())
    }

    /// Hands on the windows that the cut has closed, and carries the others if the
    /// journal has become too large.
    fn cut(&mut self, cut: Cut) -> Result<(), FlushError> {
        let mut closing = Vec::new();
        for open in &mut self.accounts {
            closing.extend(open.close(&cut));
            (self.observer)(open.figures());
        }
        let carries = self.carry(&cut)?;
        if !closing.is_empty() || !carries.is_empty() {
            let begin = begin_after(&cut, self.open_windows().map(|window| window.begin));
            // If the other thread failed, the node is about to open its database again.
            let _ = self.flushes.send(Flush { cut, closing, carries, begin });
        }
        Ok(())
    }

    fn open_windows(&self) -> impl Iterator<Item = &WindowState> {
        self.accounts.iter().flat_map(|open| open.windows.values())
    }

    /// Makes the open windows' states durable, if the journal that they need is too large.
    fn carry(&mut self, cut: &Cut) -> Result<Vec<Carry>, FlushError> {
        let needed_from = self.open_windows().map(|window| window.bytes_before).min();
        let needed = needed_from.map_or(0, |from| self.bytes - from);
        if needed <= self.settings.journal_bytes_max {
            return Ok(Vec::new());
        }
        let mut carries = Vec::new();
        for open in &mut self.accounts {
            for (window, kept) in &mut open.windows {
                let carried = kept.state.carry()?;
                kept.begin = Begin { position: cut.end, records: cut.records };
                kept.bytes_before = self.bytes;
                carries.push(Carry {
                    aggregation: open.aggregation.number,
                    start: window.start.0,
                    end: window.end.0,
                    segment: cut.end.segment,
                    index: cut.end.index,
                    records: cut.records,
                    state: serde_json::to_value(carried).map_err(CheckpointError::Carry)?,
                });
            }
        }
        Ok(carries)
    }

    fn current(&self, limit: usize) -> Vec<CurrentWindow> {
        let windows = self.accounts.iter().flat_map(|open| {
            open.windows.iter().map(move |(window, WindowState { state, .. })| CurrentWindow {
                aggregation: open.aggregation.clone(),
                window: *window,
                counts: state.current(limit),
            })
        });
        windows.collect()
    }

    fn balances(&mut self) -> Result<Balances, FlushError> {
        let mut accounts = Vec::with_capacity(self.accounts.len());
        for open in &mut self.accounts {
            let progress = self.checkpoints.progress(open.aggregation.number)?;
            open.closing.retain(|(window, _)| window.end.0 > progress.through);
            let closing: u64 = open.closing.iter().map(|(_, records)| records).sum();
            let balance = Balance::at(
                &open.aggregation.fact,
                self.records,
                &progress,
                open.records() + closing,
            );
            accounts.push((open.aggregation.clone(), balance));
        }
        Ok(Balances { records: self.records, accounts })
    }

    /// Goes on from what was replayed, where the journal had `records` records, until
    /// the last [`Folding`] is dropped.
    ///
    /// # Errors
    /// As [`Folder::fold`].
    pub fn run(mut self, records: u64, commands: Commands) -> Result<(), FlushError> {
        self.records = records;
        for command in commands.0 {
            match command {
                Command::Committed(Committed::Group(group)) => self.fold_group(group)?,
                Command::Committed(Committed::Cut(cut)) => self.cut(cut)?,
                // Whoever asked may have gone.
                Command::Current { limit, answer } => drop(answer.send(self.current(limit))),
                Command::Balances { answer } => drop(answer.send(self.balances())),
            }
        }
        Ok(())
    }
}

impl Open {
    fn new(aggregation: Aggregation, through: UnixNanos) -> Open {
        let (windows, closing) = (BTreeMap::new(), Vec::new());
        Open { aggregation, through, windows, closing, like: None }
    }

    /// Takes out the windows that are due at the cut, oldest first.
    fn close(&mut self, cut: &Cut) -> Vec<Closing> {
        let due = due(cut, self.windows.keys().copied());
        let mut pending = self.records();
        let mut closing = Vec::with_capacity(due.len());
        for window in due {
            let Some(WindowState { state, .. }) = self.windows.remove(&window) else { continue };
            self.through = self.through.max(window.end);
            self.closing.push((window, state.records()));
            self.like = Some(state.sizes());
            pending -= state.records();
            closing.push(Closing { aggregation: self.aggregation.clone(), window, state, pending });
        }
        closing
    }

    /// Records in the open windows.
    fn records(&self) -> u64 {
        self.windows.values().map(|window| window.state.records()).sum()
    }

    fn figures(&self) -> OpenFigures {
        let memory = self.windows.values().map(|window| window.state.memory_bytes());
        OpenFigures {
            aggregation: self.aggregation.fact.name.clone(),
            records: self.records(),
            memory_bytes: memory.sum(),
        }
    }

    /// The window that `stamp` falls into, or `None` if the entry at `begin` was flushed
    /// or carried before.
    fn window(
        &mut self,
        begin: Begin,
        bytes_before: u64,
        stamp: UnixNanos,
        settings: &FlushSettings,
    ) -> Option<&mut WindowState> {
        let Kind::DistinctLogs(definition) = &self.aggregation.definition.kind;
        let window = Window::of(stamp, definition.window.seconds());
        if window.end <= self.through {
            return None;
        }
        let like = self.like.as_ref();
        let open = self.windows.entry(window).or_insert_with(|| WindowState {
            begin,
            bytes_before,
            state: OpenWindow::new(settings.window_memory, &settings.scratch, like),
        });
        // What was carried is not folded again.
        (open.begin.position <= begin.position).then_some(open)
    }
}
