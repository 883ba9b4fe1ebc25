//! Store, journal, folding and flushing: what is thrown away and built again from
//! disk when any of them fails.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use rustix::process::nice;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{info, warn};

use crate::aggregation::definition::Definition;
use crate::aggregation::distinct_logs::MemoryLimit;
use crate::app::folder;
use crate::app::metrics::Metrics;
use crate::app::settings::{Settings, StatsFormat};
use crate::checkpoint::Checkpoints;
use crate::checkpoint::aggregations::{self, Registered};
use crate::checkpoint::identity::Identity;
use crate::cluster::membership::MembershipError;
use crate::event::time::{Clock, UnixNanos};
use crate::flush::delivery::Delivery;
use crate::flush::folding::{Folder, Folding};
use crate::flush::{Aggregation, Begin, FlushError, FlushSettings};
use crate::intake::{Intake, Packing};
use crate::journal::frame::Header;
use crate::journal::{self, Journal, JournalError};
use crate::sink::Sink;
use crate::sink::stdout::{Format, Stdout};
use crate::store::{Store, StoreError};

/// Why an engine did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A folder in the data folder cannot be made or emptied.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node is no member of its cluster.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal failed, or is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Folding or flushing failed.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// A thread could not be started.
    #[error("start the {name} thread: {source}")]
    Thread {
        /// What it is for.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A part of the engine ended without being asked to.
    #[error("a part of the engine ended by itself; please report this")]
    Ended,
    /// A part of the engine panicked.
    #[error("the {0} thread panicked; please report this")]
    Panicked(&'static str),
}

impl EngineError {
    /// Whether opening the database again and replaying can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            EngineError::Folder { .. }
            | EngineError::Store(_)
            | EngineError::Journal(_)
            | EngineError::Thread { .. } => true,
            EngineError::Flush(error) => error.is_retryable(),
            EngineError::Membership(error) => error.is_retryable(),
            EngineError::Ended | EngineError::Panicked(_) => false,
        }
    }
}

/// What an engine is started with.
pub struct Start {
    /// The node's settings.
    pub settings: Settings,
    /// The node's database.
    pub store: Arc<Store>,
    /// Who the node is.
    pub identity: Identity,
    /// Where the parts report.
    pub metrics: Arc<Metrics>,
    /// Whose account of rejected records goes on where an earlier life ended.
    pub intake: Intake,
    /// What stamps are taken from.
    pub clock: Clock,
}

/// What answers questions about an engine; dropped before the engine stops.
#[derive(Clone)]
pub struct Reader {
    /// The open windows.
    pub folding: Folding,
    /// The closed ones.
    pub checkpoints: Checkpoints,
}

/// A running engine: three threads, each of which ends when the one before it has.
pub struct Engine {
    journal: Journal,
    reader: Reader,
    packing: Option<Packing>,
    ends: UnboundedReceiver<Result<(), EngineError>>,
}

impl Engine {
    /// Replays the journal and starts the threads. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When the database or the journal is damaged or cannot be used.
    pub fn start(start: Start) -> Result<Engine, EngineError> {
        let Start { settings, store, identity, metrics, intake, clock } = start;
        let checkpoints = Checkpoints::new(Arc::clone(&store));
        intake.received().resume(checkpoints.rejected()?);

        let (flushes, to_flush) = mpsc::channel();
        let mut folder = Folder::new(
            flush_settings(&settings)?,
            checkpoints.clone(),
            parse(aggregations::load(&store)?)?,
            flushes,
            metrics.open_observer(),
        )?;
        let mut replay = journal::replay::replay(&store, |replayed| {
            let Header { stamp, records, records_before } = replayed.header;
            let begin = Begin { position: replayed.position, records: records_before };
            folder.fold(begin, stamp, records, replayed.entry).map_err(EngineError::from)
        })?;
        // The clock may have been set back, and all entries with later stamps be trimmed.
        replay.last_stamp = replay.last_stamp.max(checkpoints.through()?);
        let registered = parse(register(&store, &settings, replay.records)?)?;
        let active = registered.iter().filter(|a| a.fact.until.is_none());
        let active = active.map(|a| (a.number, &a.definition));
        let packing = Packing::new(identity.fingerprint_key, active);
        folder.register(registered)?;
        info!(
            cluster = %identity.cluster, node = %identity.node, entries = replay.entries,
            records = replay.records, "the journal is replayed"
        );

        let (folding, commands) = Folding::new();
        let consumer = folding.clone();
        let consumer = Box::new(move |committed| consumer.committed(committed));
        let observer = metrics.commit_observer();
        let (journal, writer) = Journal::open(store, &replay, clock, consumer, observer)?;
        let sink = Stdout::new(io::stdout(), format(settings.stats_format));
        info!(promise = ?sink.promise(), "windows go to stdout");
        let delivery = Delivery {
            cluster: identity.cluster,
            checkpoints: checkpoints.clone(),
            sink: Box::new(sink),
            values_max: settings.stats_limit,
            observer: metrics.flush_observer(),
        };
        let (end, ends) = unbounded_channel();
        let records = replay.records;
        spawn("journal", Priority::Senders, end.clone(), move || Ok(writer.run()?))?;
        spawn("fold", Priority::Folding, end.clone(), move || Ok(folder.run(records, commands)?))?;
        spawn("flush", Priority::Folding, end, move || Ok(delivery.run(to_flush)?))?;
        let reader = Reader { folding, checkpoints };
        Ok(Engine { journal, reader, packing: Some(packing), ends })
    }

    /// Lets `intake` append to this engine's journal.
    pub fn open(&mut self, intake: &Intake) {
        if let Some(packing) = self.packing.take() {
            intake.open(self.journal.clone(), packing);
        }
    }

    /// What answers questions about this engine.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Asks for a cut at `time`, a whole second.
    pub fn cut(&self, time: UnixNanos) {
        self.journal.cut(time);
    }

    /// Records what `intake` rejected so far, in the background.
    pub fn record_rejected(&self, intake: &Intake) {
        let (checkpoints, intake) = (self.reader.checkpoints.clone(), intake.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = checkpoints.record_rejected(|| intake.received().rejected()) {
                warn!(%error, "what was rejected is not recorded");
            }
        });
    }

    /// Opens the database in the data folder. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When it is damaged or cannot be used.
    pub fn open_store(settings: &Settings) -> Result<Arc<Store>, EngineError> {
        Ok(Arc::new(Store::open(&folder(settings, "db")?)?))
    }

    /// Waits for a part of the engine to fail.
    pub async fn failed(&mut self) -> EngineError {
        match self.ends.recv().await {
            Some(Err(error)) => error,
            // Nobody has closed the journal yet, so no thread has a reason to end.
            Some(Ok(())) | None => EngineError::Ended,
        }
    }

    /// Commits what is queued, folds it, hands out what is due, records what `intake`
    /// rejected, and closes the database. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The first error of any part.
    pub fn stop(mut self, intake: &Intake) -> Result<(), EngineError> {
        self.journal.close();
        let Reader { folding, checkpoints } = self.reader;
        drop(folding);
        let mut ended = Ok(());
        while let Some(end) = self.ends.blocking_recv() {
            ended = ended.and(end);
        }
        ended?;
        Ok(checkpoints.record_rejected(|| intake.received().rejected())?)
    }
}

/// Which threads go first when the cores are busy.
#[derive(Clone, Copy)]
enum Priority {
    /// Those that a sender waits for.
    Senders,
    /// Those that nobody waits for: what they do takes milliseconds at a time. They get
    /// about a quarter of a core that others want as well, which is more than they need.
    Folding,
}

impl Priority {
    /// Sets this thread's own priority, and that of the threads that it starts: so Linux
    /// understands it.
    fn set(self) {
        let niceness = match self {
            Priority::Senders => return,
            Priority::Folding => 5,
        };
        if let Err(error) = nice(niceness) {
            warn!(%error, "a thread's priority stays as it is");
        }
    }
}

/// Runs a part of the engine in a thread; `ends` is told how it ended.
fn spawn(
    name: &'static str,
    priority: Priority,
    ends: UnboundedSender<Result<(), EngineError>>,
    run: impl FnOnce() -> Result<(), EngineError> + Send + 'static,
) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let run = move || {
        priority.set();
        let ended = catch_unwind(AssertUnwindSafe(run));
        // After a failure nobody may be listening for the other parts' ends.
        let _ = ends.send(ended.unwrap_or(Err(EngineError::Panicked(name))));
    };
    thread.spawn(run).map(drop).map_err(|source| EngineError::Thread { name, source })
}

fn flush_settings(settings: &Settings) -> Result<FlushSettings, EngineError> {
    Ok(FlushSettings {
        // A window that closes gives its memory back while the next one begins to need it.
        window_memory: MemoryLimit(settings.memory_limit / settings.aggregations.len()),
        scratch: folder(settings, "scratch")?,
        journal_bytes_max: settings.journal_limit,
    })
}

/// Makes the settings' aggregations the active ones, after `records` accepted records.
fn register(
    store: &Store,
    settings: &Settings,
    records: u64,
) -> Result<Vec<Registered>, EngineError> {
    let wanted = settings.aggregations.iter().map(|definition| {
        let name = definition.name.as_str().to_owned();
        let written = serde_json::to_value(definition);
        let written = written.map_err(|error| invalid(None, &name, &error))?;
        Ok((name, written))
    });
    let wanted = wanted.collect::<Result<Vec<_>, EngineError>>()?;
    Ok(aggregations::register(store, &wanted, records)?)
}

fn parse(registered: Vec<Registered>) -> Result<Vec<Aggregation>, EngineError> {
    let parsed = registered.into_iter().map(|Registered { number, fact }| {
        let definition = serde_json::from_value::<Definition>(fact.definition.clone());
        let definition = definition.map_err(|error| invalid(Some(number), &fact.name, &error))?;
        Ok(Aggregation { number, definition, fact })
    });
    parsed.collect()
}

fn invalid(number: Option<u32>, name: &str, error: &serde_json::Error) -> EngineError {
    let (name, reason) = (name.to_owned(), error.to_string());
    FlushError::Definition { number: number.unwrap_or_default(), name, reason }.into()
}

fn format(format: StatsFormat) -> Format {
    match format {
        StatsFormat::Json => Format::Json,
        StatsFormat::Text => Format::Text,
    }
}

fn folder(settings: &Settings, name: &str) -> Result<PathBuf, EngineError> {
    let path = settings.data_dir.join(name);
    let created = folder::create(&path);
    created.map_err(|source| EngineError::Folder { path: path.clone(), source })?;
    Ok(path)
}
