//! Journal, folding, flushing and printing: what is thrown away and built again from disk
//! when any of them fails.

mod counting; // what this node's settings say is to be counted
mod error; // why an engine does not start, or ends
mod parts; // what its parts are run with

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryFutureExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::aggregation::distinct_logs::MemoryLimit;
use crate::app::changing::Changing;
use crate::app::metrics::Metrics;
use crate::app::room::Free;
use crate::app::settings::Settings;
use crate::blocking;
use crate::checkpoint::carries::Carries;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::{Facts, SegmentId};
use crate::checkpoint::identity::Identity;
use crate::checkpoint::raft::{Raft, Status, Term};
use crate::checkpoint::registered::RegisteredRecord;
use crate::checkpoint::rejected::RejectedRecord;
use crate::cluster::adopting::Adopting;
use crate::cluster::announcing::Announcing;
use crate::cluster::awareness;
use crate::cluster::clocks::{Clocks, Comparing};
use crate::cluster::copying::Copying;
use crate::cluster::cutting::Cutter;
use crate::cluster::departures::Departures;
use crate::cluster::fetching::Fetching;
use crate::cluster::filling::Filling;
use crate::cluster::forgetting::Forgetting;
use crate::cluster::gaps::{Asking, KnownGaps};
use crate::cluster::gathering::Gathering;
use crate::cluster::keeping::Keeping;
use crate::cluster::leases::Silent;
use crate::cluster::leaving::Leaving;
use crate::cluster::lending::Lending;
use crate::cluster::opening::{Opener, leaves};
use crate::cluster::pace::Pace;
use crate::cluster::peers;
use crate::cluster::printing::Printer;
use crate::cluster::proposals::Proposals;
use crate::cluster::reading::Reading;
use crate::cluster::routing::Routing;
use crate::cluster::sealing::{beyond_the_end, seal_earlier};
use crate::cluster::sending::Sending;
use crate::cluster::stamping::Stamping;
use crate::cluster::standing::Standing;
use crate::cluster::tidying::Tidying;
use crate::event::fingerprint::FingerprintKey;
use crate::event::node::NodeId;
use crate::event::time::{Clock, UnixNanos};
use crate::flush::carried::CarriedWindows;
use crate::flush::delivery::Delivery;
use crate::flush::feed::{Consensus, Disagreement};
use crate::flush::files::Files;
use crate::flush::folding::{self, Folder, Folding};
use crate::flush::results::Results;
use crate::flush::sharing::Sharing;
use crate::flush::{FlushSettings, aggregations};
use crate::intake::admission::Closed;
use crate::intake::{Earlier, Intake, Packing};
use crate::journal::copies::Copies;
use crate::journal::{Journal, JournalError, Replay, replay};
use crate::sink::Sink;
use crate::store::Store;
use crate::store::folder;
use counting::Counting;
pub use error::EngineError;
use parts::Parts;

/// What an engine is started with.
pub struct Start {
    /// The node's settings.
    pub settings: Settings,
    /// What of them may change.
    pub changing: Arc<Changing>,
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
    /// The free bytes of its disk.
    pub free: Free,
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
    /// What else it is to agree on.
    pub proposals: Proposals,
    /// How far the members' clocks are apart.
    pub clocks: Clocks,
    /// The node's database.
    pub store: Arc<Store>,
    /// The files that all nodes rebuild ..
    pub reading: Reading,
    /// .. and those of them of which too much waits.
    pub gaps: KnownGaps,
}

/// What requests are packed for.
#[derive(Default)]
struct Packed {
    /// The numbers of the aggregations.
    numbers: Vec<u32>,
    /// All lower numbers were looked at.
    below: u32,
    /// What the cluster was told, or will be: that all lower ones are packed in a segment.
    told: (SegmentId, u32),
    /// Requests on their way that were packed for others.
    earlier: Vec<Earlier>,
}

/// A running engine. Its threads end when they are told to.
pub struct Engine {
    node: NodeId,
    journal: Journal,
    reader: Reader,
    rejected: RejectedRecord,
    standing: Arc<Standing>,
    facts: watch::Receiver<Arc<Facts>>,
    cutter: Arc<tokio::sync::Mutex<Cutter>>,
    raft: Raft,
    key: FingerprintKey,
    consensus: Arc<dyn Consensus>,
    packed: Mutex<Packed>,
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
            changing,
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
            free,
        } = start;
        let rejected = RejectedRecord::new(Arc::clone(&store));
        intake.received().resume(rejected.read()?);
        let mut replayed = check_journal(Arc::clone(&store)).await?;
        let proposals = Proposals::new(raft.clone(), members.clone());
        let lead = Arc::new(proposals.clone());
        let consensus: Arc<dyn Consensus> = Arc::clone(&lead) as _;
        let node = identity.node;
        let aggregations = changing.aggregations.subscribe();
        let heard = RegisteredRecord::new(Arc::clone(&store));
        let mut counting = Counting { consensus: Arc::clone(&consensus), aggregations, heard };
        if !leaves(&raft.facts().borrow(), node) {
            catch_up(&*consensus, node).await?;
            counting.tell().await?;
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
            records = replayed.events.records, chunks = replayed.events.chunks,
            "the journal is whole"
        );

        let (end, ends) = unbounded_channel();
        let off = CancellationToken::new();
        let parts = Parts { end, off: off.clone() };
        let observer = metrics.commit_observer();
        let (journal, writer) =
            Journal::new(Arc::clone(&store), &replayed, clock.clone(), observer);
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
        let results = Results::new(Arc::clone(&store));
        let flush_settings = flush_settings(&settings)?;
        let carries = Carries::new(Arc::clone(&store));
        let carried = CarriedWindows { carries, scratch: flush_settings.scratch.clone() };
        let reserve = settings.disk_reserve;
        let left = move || Ok(free()?.saturating_sub(reserve));
        let files = Files::new(folder(&settings, "files")?, Arc::clone(&store));
        let files = files.with_left(Arc::new(left));
        let folding_parts = folding::Parts {
            node,
            settings: flush_settings,
            carried: carried.clone(),
            files: files.clone(),
            consensus: Arc::clone(&consensus),
            feed: Arc::new(routing),
            flushes,
            observer: metrics.open_observer(),
        };
        let folder = Folder::new(folding_parts, &commands)?;
        parts.run("fold", async move { Ok(folder.run(commands).await?) })?;

        let sending = Sending {
            results: results.clone(),
            carried: carried.clone(),
            members: members.clone(),
            facts: facts.clone(),
        };
        let sharing =
            Sharing::new(node, Arc::clone(&consensus), Arc::new(sending), carried.clone());
        let delivery = Delivery {
            node,
            consensus: Arc::clone(&consensus),
            results: results.clone(),
            carried: carried.clone(),
            files: files.clone(),
            sharing,
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
        let pace = Pace::default();
        let fetching =
            Fetching { files: files.clone(), members: members.clone(), pace: pace.clone() };
        let keeping =
            Keeping { node, results: results.clone(), carried, fetching, facts: facts.clone() };
        let lending = Lending {
            journal: journal.clone(),
            copies,
            facts: facts.clone(),
            results,
            keeping,
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
        let copying = Copying { results: lending.results.clone(), members: members.clone(), pace };
        let adopting = Adopting::new(node, copying.clone(), facts.clone());
        let filling = Filling {
            node,
            consensus: Arc::clone(&consensus),
            copying,
            keeping: lending.keeping.clone(),
            members: members.clone(),
            forgetting: Forgetting::new(node, files.clone(), facts.clone()),
        };
        parts.run("hand-over", hand_over(leaving, adopting, filling, intake))?;
        let tidying = Tidying {
            node,
            files,
            facts: facts.clone(),
            clock: clock.clone(),
            off: off.clone(),
            observer: metrics.tidy_observer(),
        };
        parts.run("tidy", async move { match tidying.run().await {} })?;

        let zone = changing.zone.subscribe();
        let announcing = Announcing { node, consensus: Arc::clone(&consensus), zone };
        let announce = async {
            futures::try_join!(counting.run(), announcing.run().map_err(EngineError::from))?;
            // Nothing changes any more.
            std::future::pending().await
        };
        parts.run("announce", announce)?;

        standing.attach(Arc::new(lending.clone()));
        let opener = Opener {
            node,
            copies: settings.copies,
            consensus: Arc::clone(&consensus),
            members: members.clone(),
            journal: journal.clone(),
        };
        parts.run("open", async move { Ok(opener.run().await?) })?;
        let clocks = Clocks::new(settings.clock_bound);
        let comparing = Comparing {
            node,
            raft: raft.clone(),
            members: members.clone(),
            clock,
            clocks: clocks.clone(),
        };
        parts
            .run("clocks", async move { Ok(comparing.run().await.map_err(Disagreement::from)?) })?;
        let stamping = Stamping { node, own: lending.clone(), members: members.clone() };
        let key = identity.fingerprint_key;
        let reading = Reading::new(lending.clone(), members.clone(), key);
        let gaps = KnownGaps::new(node, key, lending.folding.clone(), facts.clone());
        let asking = Asking { known: gaps.clone(), members: members.clone() };
        parts.run("gaps", async move { match asking.run().await {} })?;
        let departures = Departures {
            proposals: proposals.clone(),
            lending: lending.clone(),
            members: members.clone(),
        };
        let cutter =
            Cutter::new(lead, Arc::new(stamping), Arc::new(members), silent, clocks.clone());
        let cutter = Arc::new(tokio::sync::Mutex::new(cutter));
        let packed = Mutex::default();
        let reader =
            Reader { lending, gathering, departures, proposals, clocks, store, reading, gaps };
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
            consensus,
            packed,
            off,
            ends,
        })
    }

    /// Lets `intake` append to this engine's journal what the aggregations want that count or
    /// will; to be repeated when those have changed. Says whether it does: not before the first
    /// one counts, for what is stamped earlier none ever would; and a node that leaves its
    /// cluster takes nothing. Tells the cluster when it packs what is to begin.
    ///
    /// # Errors
    /// When a definition among the facts is not one that this version knows.
    pub fn open(&self, intake: &Intake) -> Result<bool, EngineError> {
        let facts = self.facts.borrow().clone();
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaves) = self.leaves() {
            packed.below = facts.next_aggregation();
            intake.close(leaves);
            return Ok(false);
        }
        let (segment, next) = (self.journal.segment(), facts.next_aggregation());
        let has_begun = facts.has_begun();
        if has_begun {
            self.pack(&facts, segment, &mut packed, intake)?;
            packed.below = next;
        }
        if facts.is_unaware(segment) && packed.told != (segment, next) {
            packed.told = (segment, next);
            self.tell_aware(segment, next, packed.earlier.clone());
        }
        Ok(has_begun)
    }

    /// Packs for what the facts say, if that has changed.
    fn pack(
        &self,
        facts: &Facts,
        segment: SegmentId,
        packed: &mut Packed,
        intake: &Intake,
    ) -> Result<(), EngineError> {
        let wanted: Vec<_> = aggregations(facts)?;
        let wanted: Vec<_> =
            wanted.into_iter().filter(|known| is_packed(facts, segment, known.number)).collect();
        let numbers: Vec<_> = wanted.iter().map(|wanted| wanted.number).collect();
        if packed.numbers != numbers {
            let wanted = wanted.iter().map(|wanted| (wanted.number, &wanted.definition));
            let earlier = intake.open(self.journal.clone(), Packing::new(self.key, wanted));
            packed.numbers = numbers;
            packed.earlier.retain(|earlier| !earlier.is_over());
            packed.earlier.push(earlier);
        }
        Ok(())
    }

    /// Tells the cluster, in the background, that all aggregations below a number are packed in
    /// a segment, once the requests that were packed for others are over.
    fn tell_aware(&self, segment: SegmentId, below: u32, earlier: Vec<Earlier>) {
        let over = async {
            for earlier in earlier {
                earlier.over().await;
            }
        };
        let (journal, consensus) = (self.journal.clone(), Arc::clone(&self.consensus));
        let tell = awareness::tell(journal, segment, consensus, below, over);
        tokio::spawn(self.off.clone().run_until_cancelled_owned(tell));
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

    /// Waits until this node leads in another term than `before`.
    pub fn elected(&self, before: Option<Term>) -> impl Future<Output = Term> + use<> {
        let raft = self.raft.clone();
        let leads_anew = move |status: &Status| status.leads() && Some(status.term) != before;
        async move {
            match raft.until(leads_anew).await {
                Ok(status) => status.term,
                // The node takes no part any more, of which there is word elsewhere.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// If this node leads, has the cluster cut at the last whole second.
    ///
    /// # Errors
    /// When the node takes no part any more.
    pub fn cut(&self, now: UnixNanos) -> impl Future<Output = Result<(), EngineError>> + use<> {
        let (leads, cutter) = (self.raft.leading().is_some(), Arc::clone(&self.cutter));
        async move {
            if leads {
                cutter.lock().await.cut(now).await?;
            }
            Ok(())
        }
    }

    /// Waits until an aggregation counts, and there are some that [`Engine::open`] has not
    /// looked at.
    pub fn begun(&self) -> impl Future<Output = ()> + use<> {
        let mut facts = self.facts.clone();
        let below = self.packed.lock().unwrap_or_else(PoisonError::into_inner).below;
        let is_new =
            move |facts: &Arc<Facts>| facts.has_begun() && facts.next_aggregation() > below;
        async move {
            if facts.wait_for(is_new).await.is_err() {
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
        drop((self.reader, self.cutter, self.consensus));
        let mut ended = Ok(());
        while let Some(end) = self.ends.recv().await {
            ended = ended.and(end);
        }
        ended?;
        Ok(self.rejected.write(|| intake.received().rejected())?)
    }
}

/// Whether what is appended to this segment has to say something to an aggregation: also
/// before it begins, and until nothing more can be stamped before its end.
fn is_packed(facts: &Facts, segment: SegmentId, number: u32) -> bool {
    let latest = facts.latest_cut();
    let until = facts.aggregations().get(&number).and_then(|known| known.until);
    until.is_none_or(|until| until > latest.number || latest.missing.contains_key(&segment))
}

/// Takes over what members leave behind, and hands over everything when this one is to leave.
async fn hand_over(
    leaving: Leaving,
    adopting: Adopting,
    filling: Filling,
    intake: Intake,
) -> Result<(), EngineError> {
    let leave = async move {
        leaving.asked().await;
        intake.close(Closed::Leaving);
        leaving.run().await.map_err(EngineError::from)
    };
    let adopt = adopting.run().map_err(EngineError::from);
    let fill = filling.run().map_err(EngineError::from);
    futures::try_join!(leave, adopt, fill).map(drop)
}

/// Reads and checks all that is in the journal.
async fn check_journal(store: Arc<Store>) -> Result<Replay, EngineError> {
    let checking = move || replay::replay(&store, |_| Ok::<_, JournalError>(()));
    let checked = blocking::run(checking).await.map_err(|_| EngineError::Panicked("start"))?;
    Ok(checked?)
}

/// Waits until the facts here have all that was decided before this node started: what they
/// say of its segments decides which of its entries exist.
async fn catch_up(consensus: &dyn Consensus, node: NodeId) -> Result<(), Disagreement> {
    // It changes nothing, and is answered once all before it is known here.
    let nothing = Command::Filled { node, slots: BTreeMap::new(), files: BTreeMap::new() };
    match consensus.propose(nothing).await {
        Ok(_) | Err(Disagreement::Refused(_)) => Ok(()),
        Err(stopped) => Err(stopped),
    }
}

fn flush_settings(settings: &Settings) -> Result<FlushSettings, EngineError> {
    Ok(FlushSettings {
        memory: settings.memory_limit,
        // Until it is known how many aggregations count.
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
