//! Journal, folding, flushing and printing: what is thrown away and built again from disk
//! when any of them fails.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryFutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::aggregation::distinct_logs::MemoryLimit;
use crate::app::folder;
use crate::app::metrics::Metrics;
use crate::app::settings::Settings;
use crate::app::threads::{Priority, spawn};
use crate::blocking;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::identity::Identity;
use crate::checkpoint::raft::Raft;
use crate::checkpoint::rejected::RejectedRecord;
use crate::cluster::adopting::Adopting;
use crate::cluster::cutting::Cutter;
use crate::cluster::departures::Departures;
use crate::cluster::gathering::Gathering;
use crate::cluster::leases::Silent;
use crate::cluster::leaving::{LeaveError, Leaving};
use crate::cluster::lending::Lending;
use crate::cluster::membership::MembershipError;
use crate::cluster::opening::{OpenError, Opener, leaves};
use crate::cluster::peers;
use crate::cluster::printing::{PrintError, Printer};
use crate::cluster::proposals::Proposals;
use crate::cluster::routing::Routing;
use crate::cluster::sealing::{beyond_the_end, seal_earlier};
use crate::cluster::stamping::Stamping;
use crate::cluster::standing::Standing;
use crate::event::fingerprint::FingerprintKey;
use crate::event::node::NodeId;
use crate::event::time::{Clock, UnixNanos};
use crate::flush::delivery::Delivery;
use crate::flush::feed::{Consensus, Disagreement};
use crate::flush::folding::{self, Folder, Folding};
use crate::flush::results::Results;
use crate::flush::{FlushError, FlushSettings, aggregations};
use crate::intake::admission::Closed;
use crate::intake::{Intake, Packing};
use crate::journal::copies::Copies;
use crate::journal::{Journal, JournalError, Replay, Writer, replay};
use crate::sink::Sink;
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
    /// A line could not be printed.
    #[error(transparent)]
    Print(#[from] PrintError),
    /// The cluster did not agree to what the node needs.
    #[error(transparent)]
    Consensus(#[from] Disagreement),
    /// The journal has no segment any more.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node could not hand over what it has.
    #[error(transparent)]
    Leave(#[from] LeaveError),
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
            | EngineError::Open(OpenError::Journal(_))
            | EngineError::Leave(LeaveError::Store(_))
            | EngineError::Thread { .. } => true,
            EngineError::Flush(error) => error.is_retryable(),
            EngineError::Print(error) => error.is_retryable(),
            EngineError::Consensus(error)
            | EngineError::Open(OpenError::Consensus(error))
            | EngineError::Leave(LeaveError::Consensus(error)) => {
                matches!(error, Disagreement::Stopped(_))
            }
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
    /// Its part in the cluster.
    pub raft: Raft,
    /// The ways to the other members.
    pub members: peers::Member,
    /// Who is told which of them do not answer any more.
    pub silent: watch::Sender<Silent>,
    /// Who lends the journal and the results to other members.
    pub standing: Arc<Standing>,
    /// Where closed windows go.
    pub sink: Box<dyn Sink>,
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
    /// This node's journal and results.
    pub lending: Lending,
    /// Those of all nodes.
    pub gathering: Gathering,
    /// Whom the cluster is to let go.
    pub departures: Departures,
    /// The node's database.
    pub store: Arc<Store>,
}

/// A running engine. Its threads end when they are told to.
pub struct Engine {
    node: NodeId,
    journal: Journal,
    reader: Reader,
    rejected: RejectedRecord,
    standing: Arc<Standing>,
    facts: watch::Receiver<Arc<Facts>>,
    cutter: tokio::sync::Mutex<Cutter>,
    raft: Raft,
    key: FingerprintKey,
    /// The numbers of the aggregations that requests are packed for.
    packed: Mutex<Vec<u32>>,
    off: CancellationToken,
    ends: UnboundedReceiver<Result<(), EngineError>>,
}

impl Engine {
    /// Checks the journal, opens a segment, and starts to fold and flush.
    ///
    /// # Errors
    /// When the database or the journal is damaged or cannot be used, or the node takes no
    /// part in its cluster any more.
    pub async fn start(start: Start) -> Result<Engine, EngineError> {
        let Start {
            settings,
            store,
            identity,
            raft,
            members,
            silent,
            standing,
            sink,
            metrics,
            intake,
            clock,
        } = start;
        let rejected = RejectedRecord::new(Arc::clone(&store));
        intake.received().resume(rejected.read()?);
        let mut replayed = check_journal(Arc::clone(&store)).await?;
        let proposals = Proposals::new(raft.clone(), members.clone());
        let departures = Departures::new(proposals.clone());
        let consensus: Arc<dyn Consensus> = Arc::new(proposals);
        let node = identity.node;
        if !leaves(&raft.facts().borrow(), node) {
            register(&*consensus, &settings).await?;
        }
        seal_earlier(&*consensus, &members, node, &replayed).await?;
        let facts = consensus.facts();
        let beyond = beyond_the_end(&facts.borrow(), &replayed);
        for &(segment, end) in &beyond {
            replay::cut_off(&store, &replayed, segment, end)?;
        }
        if !beyond.is_empty() {
            replayed = check_journal(Arc::clone(&store)).await?;
        }
        info!(
            cluster = %identity.cluster, %node, entries = replayed.entries,
            records = replayed.records, "the journal is whole"
        );

        let (end, ends) = unbounded_channel();
        let off = CancellationToken::new();
        let parts = Parts { end, off: off.clone() };
        let observer = metrics.commit_observer();
        let (journal, writer) = Journal::new(Arc::clone(&store), &replayed, clock, observer);
        parts.write(writer)?;
        let copies = Copies::open(Arc::clone(&store))?;

        let (folding, commands) = Folding::new();
        let (flushes, to_flush) = unbounded_channel();
        let routing = Routing {
            node,
            journal: journal.clone(),
            copies: copies.clone(),
            members: members.clone(),
            facts: facts.clone(),
        };
        let folder = Folder::new(folding::Parts {
            node,
            settings: flush_settings(&settings)?,
            store: Arc::clone(&store),
            consensus: Arc::clone(&consensus),
            feed: Arc::new(routing),
            flushes,
            observer: metrics.open_observer(),
        })?;
        parts.run("fold", async move { Ok(folder.run(commands).await?) })?;

        let results = Results::new(Arc::clone(&store));
        let delivery = Delivery {
            node,
            consensus: Arc::clone(&consensus),
            results: results.clone(),
            journal: journal.clone(),
            copies: copies.clone(),
            folding: folding.clone(),
            values_max: settings.stats_limit,
            observer: metrics.flush_observer(),
        };
        parts.run("flush", async move { Ok(delivery.run(to_flush).await?) })?;

        let gathering = Gathering {
            node,
            results: results.clone(),
            members: members.clone(),
            facts: facts.clone(),
        };
        let refused = intake.clone();
        let lending = Lending {
            journal: journal.clone(),
            copies,
            facts: facts.clone(),
            results,
            folding,
            rejected: Arc::new(move || refused.received().rejected()),
        };
        info!(promise = ?sink.promise(), "closed windows are handed out");
        let printer = Printer {
            cluster: identity.cluster,
            raft: raft.clone(),
            consensus: Arc::clone(&consensus),
            gathering: gathering.clone(),
            lending: lending.clone(),
            sink,
            store: Arc::clone(&store),
            values_max: settings.stats_limit,
            observer: metrics.line_observer(),
        };
        parts.run("print", async move { Ok(printer.run().await?) })?;

        let leaving = Leaving {
            node,
            raft: raft.clone(),
            consensus: Arc::clone(&consensus),
            results: lending.results.clone(),
            members: members.clone(),
        };
        let adopting = Adopting::new(node, lending.results.clone(), members.clone(), facts.clone());
        parts.run("hand-over", hand_over(leaving, adopting, intake))?;

        standing.attach(Arc::new(lending.clone()));
        let opener = Opener {
            node,
            copies: settings.copies,
            consensus: Arc::clone(&consensus),
            members: members.clone(),
            journal: journal.clone(),
        };
        parts.run("open", async move { Ok(opener.run().await?) })?;
        let stamping = Stamping { node, own: lending.clone(), members: members.clone() };
        let cutter = Cutter::new(consensus, Arc::new(stamping), Arc::new(members), silent);
        let cutter = tokio::sync::Mutex::new(cutter);
        let (key, packed) = (identity.fingerprint_key, Mutex::default());
        let reader = Reader { lending, gathering, departures, store };
        Ok(Engine {
            node,
            journal,
            reader,
            rejected,
            standing,
            facts,
            cutter,
            raft,
            key,
            packed,
            off,
            ends,
        })
    }

    /// Lets `intake` append to this engine's journal what the active aggregations want; to
    /// be repeated when those have changed. Says whether it does: not before the cut from
    /// which on they count, for what is stamped earlier they never would; and a node that
    /// leaves its cluster takes nothing.
    ///
    /// # Errors
    /// When a definition among the facts is not one that this version knows.
    pub fn open(&self, intake: &Intake) -> Result<bool, EngineError> {
        let facts = self.facts.borrow().clone();
        if let Some(leaves) = self.leaves() {
            intake.close(leaves);
            return Ok(false);
        }
        if awaits_cut(&facts) {
            return Ok(false);
        }
        let is_active = |number: &u32| facts.aggregations()[number].until.is_none();
        let active: Vec<_> = aggregations(&facts)?;
        let active: Vec<_> = active.into_iter().filter(|known| is_active(&known.number)).collect();
        let numbers: Vec<_> = active.iter().map(|active| active.number).collect();
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if *packed != numbers {
            let wanted = active.iter().map(|active| (active.number, &active.definition));
            intake.open(self.journal.clone(), Packing::new(self.key, wanted));
            *packed = numbers;
        }
        Ok(true)
    }

    /// Why the node takes nothing any more, if it leaves its cluster or has left it.
    pub fn leaves(&self) -> Option<Closed> {
        match self.facts.borrow().members().get(&self.node)?.state {
            MemberState::Joining | MemberState::Active => None,
            MemberState::Draining => Some(Closed::Leaving),
            MemberState::Drained | MemberState::Forgotten => Some(Closed::Gone),
        }
    }

    /// What answers questions about this engine.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// If this node leads, has the cluster cut at the last whole second.
    ///
    /// # Errors
    /// When the node takes no part any more.
    pub async fn cut(&self, now: UnixNanos) -> Result<(), EngineError> {
        if let Some(term) = self.raft.leading() {
            self.cutter.lock().await.cut(term, now).await?;
        }
        Ok(())
    }

    /// Waits until the cut is known from which on all aggregations count.
    pub fn begun(&self) -> impl Future<Output = ()> + use<> {
        let mut facts = self.facts.clone();
        async move {
            if facts.wait_for(|facts| !awaits_cut(facts)).await.is_err() {
                // The node takes no part any more, of which there is word elsewhere.
                std::future::pending().await
            }
        }
    }

    /// Records what `intake` rejected so far, in the background.
    pub fn record_rejected(&self, intake: &Intake) {
        let (rejected, intake) = (self.rejected.clone(), intake.clone());
        let writing = blocking::run(move || {
            if let Err(error) = rejected.write(|| intake.received().rejected()) {
                warn!(%error, "what was rejected is not recorded");
            }
        });
        tokio::spawn(writing);
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
            // Nobody has told a part to end.
            Some(Ok(())) | None => EngineError::Ended,
        }
    }

    /// Commits what is queued, records what `intake` rejected, and lets go of the database.
    /// What is not flushed will be after the next start.
    ///
    /// # Errors
    /// The first error of any part.
    pub async fn stop(mut self, intake: &Intake) -> Result<(), EngineError> {
        self.standing.detach().await;
        self.journal.close();
        self.off.cancel();
        drop((self.reader, self.cutter));
        let mut ended = Ok(());
        while let Some(end) = self.ends.recv().await {
            ended = ended.and(end);
        }
        ended?;
        Ok(self.rejected.write(|| intake.received().rejected())?)
    }
}

/// What the parts of an engine are run with.
struct Parts {
    end: UnboundedSender<Result<(), EngineError>>,
    off: CancellationToken,
}

impl Parts {
    /// Runs the journal's writer, which ends with the journal.
    fn write(&self, writer: Writer) -> Result<(), EngineError> {
        let end = self.end.clone();
        if blocking::is_alone() {
            tokio::spawn(async move { end.send(writer.run_as_task().await.map_err(Into::into)) });
            return Ok(());
        }
        spawn("journal", Priority::Senders, end, move || Ok(writer.run()?))
    }

    /// Runs a part in a thread of its own if there are several, until it is told to end.
    fn run(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<(), EngineError>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let (runtime, off, end) = (Handle::current(), self.off.clone(), self.end.clone());
        if blocking::is_alone() {
            tokio::spawn(
                async move { end.send(off.run_until_cancelled(part).await.unwrap_or(Ok(()))) },
            );
            return Ok(());
        }
        let run = move || runtime.block_on(off.run_until_cancelled(part)).unwrap_or(Ok(()));
        spawn(name, Priority::Folding, end, run)
    }
}

/// Whether an aggregation waits for the next cut to begin.
fn awaits_cut(facts: &Facts) -> bool {
    let latest = facts.latest_cut().number;
    facts.aggregations().values().any(|aggregation| aggregation.since > latest)
}

/// Takes over what members leave behind, and hands over everything when this one is to leave.
async fn hand_over(
    leaving: Leaving,
    adopting: Adopting,
    intake: Intake,
) -> Result<(), EngineError> {
    let leave = async move {
        leaving.asked().await;
        intake.close(Closed::Leaving);
        leaving.run().await.map_err(EngineError::from)
    };
    let adopt = adopting.run().map_err(EngineError::from);
    futures::try_join!(leave, adopt).map(drop)
}

/// Reads and checks all that is in the journal.
async fn check_journal(store: Arc<Store>) -> Result<Replay, EngineError> {
    let checking = move || replay::replay(&store, |_| Ok::<_, JournalError>(()));
    let checked = blocking::run(checking).await.map_err(|_| EngineError::Panicked("start"))?;
    Ok(checked?)
}

/// Makes the settings' aggregations the active ones.
async fn register(consensus: &dyn Consensus, settings: &Settings) -> Result<(), EngineError> {
    let wanted = settings.aggregations.iter().map(|definition| {
        let name = definition.name.as_str().to_owned();
        let written = serde_json::to_value(definition);
        let written = written.map_err(|error| invalid(&name, &error))?;
        Ok((name, written))
    });
    let definitions = wanted.collect::<Result<_, EngineError>>()?;
    consensus.propose(Command::Register { definitions }).await?;
    Ok(())
}

fn invalid(name: &str, error: &serde_json::Error) -> EngineError {
    let (name, reason) = (name.to_owned(), error.to_string());
    FlushError::Definition { number: 0, name, reason }.into()
}

fn flush_settings(settings: &Settings) -> Result<FlushSettings, EngineError> {
    Ok(FlushSettings {
        // A window that closes gives its memory back while the next one begins to need it.
        window_memory: MemoryLimit(settings.memory_limit / settings.aggregations.len()),
        scratch: folder(settings, "scratch")?,
        journal_bytes_max: settings.journal_limit,
    })
}

fn folder(settings: &Settings, name: &str) -> Result<PathBuf, EngineError> {
    let path = settings.data_dir.join(name);
    let created = folder::create(&path);
    created.map_err(|source| EngineError::Folder { path: path.clone(), source })?;
    Ok(path)
}
