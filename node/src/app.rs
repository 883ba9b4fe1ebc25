//! A node put together: the one place that knows every part.

pub mod changing; // what takes effect while the node runs
pub mod collector; // what the port for chunks asks of the node
pub mod engine; // store, journal, folding and flushing: what a failure restarts
pub mod metrics; // what the parts report, as OpenMetrics text
pub mod room; // how much disk there is left
pub mod settings; // flags, environment, file
pub mod statistics; // what the admin port asks of the node
pub mod surroundings; // disk, time and network, as the node sees them
pub mod telemetry; // the node's own log
mod threads; // which go first when the cores are busy
pub mod watching; // files that are read again when they change

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{self, Guard, TokenError};
use crate::app::changing::Changing;
use crate::app::collector::Collector;
use crate::app::engine::{Engine, EngineError};
use crate::app::metrics::Metrics;
use crate::app::settings::Settings;
use crate::app::statistics::Statistics;
use crate::app::surroundings::Surroundings;
use crate::app::telemetry::Log;
use crate::app::watching::Reload;
use crate::blocking;
use crate::cluster::membership::{Candidate, Membership};
use crate::cluster::peers;
use crate::cluster::standing::Standing;
use crate::event::time::SECOND;
use crate::intake::Intake;
use crate::intake::admission::{Admission, Closed};
use crate::source::{Limits, chunks, otlp};
use crate::store::{Store, folder};

/// How long a failed engine rests before its database is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Of the drain timeout, what is kept for the last commit and the closing of files.
const COMMIT_TIME: Duration = Duration::from_secs(5);

/// Why a node ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data folder cannot be used.
    #[error("data folder {}: {source}", path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another node uses the data folder.
    #[error(
        "data folder {} is in use by another node; stop it, or give this one a --data-dir of its own",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever may change the cluster cannot be told apart.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What the node is made of failed for good.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A port's server failed.
    #[error("serve: {0}")]
    Serve(io::Error),
    /// What was in flight did not end in time. What was acknowledged is durable.
    #[error("the node did not drain within {0:?}; what was acknowledged is durable")]
    DrainTimeout(Duration),
}

/// Runs a node until `stop` is cancelled, then drains it. Until then it reads its settings
/// again by `reload` when their file changes.
///
/// # Errors
/// When it cannot start, fails for good, or does not drain in time.
pub async fn run(
    settings: Settings,
    reload: Reload,
    log: Log,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let _lock = lock(&settings.data_dir)?;
    allow_open_files();
    let guard = Guard::new(settings.control_token_file.as_deref());
    guard.check()?;
    let read = settings.clone();
    let (ports, settings) = Ports::bind(settings).await?;
    let surroundings = Surroundings::of_machine(&settings);
    let node = Node::new(settings, surroundings);
    let watching = watching::watch(read, reload, log, Arc::clone(&node.changing));
    tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
    let mut servers = Servers::start(ports, guard, &node);
    let supervised = node.supervise(&stop).await;
    let deadline = Instant::now() + node.settings.drain_timeout;
    node.refuse();
    if let Ok(Some(running)) = &supervised {
        running.membership.hand_on().await;
    }
    servers.drain(deadline - COMMIT_TIME.min(node.settings.drain_timeout)).await;
    let stopped = match supervised {
        Ok(Some(running)) => node.stop(running, deadline).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    servers.close().await;
    stopped
}

/// A node but for its ports: what outlives an engine.
pub struct Node {
    settings: Settings,
    changing: Arc<Changing>,
    intake: Intake,
    metrics: Arc<Metrics>,
    statistics: Arc<Statistics>,
    ready: watch::Sender<bool>,
    surroundings: Surroundings,
    standing: Arc<Standing>,
}

/// What is thrown away and built again when a part of it fails.
pub struct Running {
    membership: Membership,
    engine: Engine,
}

impl Running {
    /// Waits for a part to fail.
    async fn failed(&mut self) -> EngineError {
        tokio::select! {
            error = self.engine.failed() => error,
            stopped = self.membership.failed() => EngineError::Membership(stopped.into()),
        }
    }

    /// Ends all parts, so that the database closes.
    async fn end(self, intake: &Intake) -> Result<(), EngineError> {
        let stopped = self.engine.stop(intake).await;
        self.membership.end().await;
        stopped
    }
}

impl Node {
    /// A node that runs once it is supervised.
    pub fn new(settings: Settings, surroundings: Surroundings) -> Node {
        let intake = Intake::new(Admission::new(settings.queue_size));
        intake.close(Closed::Starting);
        let metrics = Arc::new(Metrics::new());
        let (ready, readiness) = watch::channel(false);
        let standing = Arc::new(Standing::new(surroundings.clock.clone()));
        let statistics = Statistics {
            intake: intake.clone(),
            metrics: Arc::clone(&metrics),
            standing: Arc::clone(&standing),
            readiness,
            values_max: settings.stats_limit,
            reader: RwLock::default(),
            lines: Mutex::default(),
        };
        let statistics = Arc::new(statistics);
        let changing = Arc::new(Changing::new(&settings));
        Node { settings, changing, intake, metrics, statistics, ready, surroundings, standing }
    }

    /// Takes requests while the node runs.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Takes chunks while the node runs.
    pub fn collector(&self) -> Collector {
        Collector {
            intake: self.intake.clone(),
            standing: Arc::clone(&self.standing),
            statistics: Arc::clone(&self.statistics),
        }
    }

    /// What people are answered from.
    pub fn answers(&self) -> Arc<dyn admin::Node> {
        Arc::clone(&self.statistics) as _
    }

    /// What other nodes are answered from.
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// Keeps the node running until it is asked to stop, and returns what then runs.
    ///
    /// # Errors
    /// When the node cannot start, or a part of it fails for good.
    pub async fn supervise(
        &self,
        stop: &CancellationToken,
    ) -> Result<Option<Running>, EngineError> {
        let mut first = true;
        loop {
            let started = tokio::select! {
                started = self.start() => started,
                () = stop.cancelled() => return Ok(None),
            };
            let error = match started {
                Ok(mut running) => {
                    first = false;
                    let Some(error) = self.attend(&mut running, stop).await else {
                        return Ok(Some(running));
                    };
                    self.give_up(running).await;
                    error
                }
                Err(error) => error,
            };
            if first || !error.is_retryable() || stop.is_cancelled() {
                return Err(error);
            }
            error!(%error, "the engine failed; its database is opened again and replayed");
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    async fn start(&self) -> Result<Running, EngineError> {
        let open = Arc::clone(&self.surroundings.store);
        let opened = blocking::run(move || open()).await;
        let store = opened.map_err(|_| EngineError::Panicked("start"))??;
        let membership = Membership::begin(self.candidate(Arc::clone(&store))).await?;
        match self.start_engine(store, &membership).await {
            Ok(engine) => Ok(Running { membership, engine }),
            Err(error) => {
                membership.end().await;
                Err(error)
            }
        }
    }

    async fn start_engine(
        &self,
        store: Arc<Store>,
        membership: &Membership,
    ) -> Result<Engine, EngineError> {
        let starting = engine::Start {
            settings: self.settings.clone(),
            changing: Arc::clone(&self.changing),
            store,
            identity: membership.identity().clone(),
            raft: membership.raft(),
            members: membership.member(),
            silent: membership.silent(),
            standing: Arc::clone(&self.standing),
            sink: (self.surroundings.sink)(),
            metrics: Arc::clone(&self.metrics),
            intake: self.intake.clone(),
            clock: self.surroundings.clock.clone(),
            free: Arc::clone(&self.surroundings.free),
        };
        let engine = Engine::start(starting).await?;
        self.statistics.attach(engine.reader());
        Ok(engine)
    }

    fn candidate(&self, store: Arc<Store>) -> Candidate {
        Candidate {
            store,
            address: self.settings.peer_address.to_string(),
            zone: self.changing.zone.borrow().clone(),
            entropy: self.surroundings.entropy.clone(),
            initial: self.settings.initial_members.clone(),
            copies: self.settings.copies,
            voters: self.settings.voters,
            peers: self.surroundings.peers.clone(),
            standing: Arc::clone(&self.standing),
        }
    }

    /// Cuts and records on every whole second, and when this node begins to lead, and watches
    /// the disk, until a part fails (with its error) or the node is asked to stop.
    async fn attend(&self, running: &mut Running, stop: &CancellationToken) -> Option<EngineError> {
        let (mut is_open, mut had_room) = (false, true);
        let mut recorded = self.intake.received().rejected();
        let mut led = None;
        // An aggregation that is new begins at once.
        let mut next = Instant::now();
        loop {
            let (begun, elected) = (running.engine.begun(), running.engine.elected(led));
            // A node that leaves never opens, so it must not wait for that again and again.
            let may_open = running.engine.leaves().is_none();
            tokio::select! {
                error = running.failed() => return Some(error),
                () = stop.cancelled() => return None,
                () = begun, if may_open => {}
                term = elected => led = Some(term),
                () = tokio::time::sleep_until(next) => {}
            }
            let (now, asked) = (self.surroundings.clock.now(), Instant::now());
            let done = running.engine.cut(now);
            // It may wait for a part that has failed.
            tokio::select! {
                error = running.failed() => return Some(error),
                () = stop.cancelled() => return None,
                done = done => if let Err(error) = done { return Some(error) },
            }
            match running.engine.open(&self.intake) {
                Ok(opened) if opened && !is_open => {
                    is_open = true;
                    self.ready.send_replace(true);
                }
                Ok(_) => {}
                Err(error) => return Some(error),
            }
            let rejected = self.intake.received().rejected();
            if rejected != recorded {
                running.engine.record_rejected(&self.intake);
                recorded = rejected;
            }
            had_room = self.watch_disk(had_room);
            self.show_ready(is_open && had_room && running.engine.leaves().is_none());
            // What took longer than to there has missed it, and makes up for it at once.
            next = asked + Duration::from_nanos(SECOND - now.0 % SECOND);
        }
    }

    /// Whether there is room on the disk; acts when that changes.
    fn watch_disk(&self, had_room: bool) -> bool {
        let disk_reserve = self.settings.disk_reserve;
        let has_room = match (self.surroundings.free)() {
            Ok(free) => room::is_enough(free, disk_reserve, had_room),
            Err(error) => {
                // A disk that does not answer is not a reason to refuse: the journal's next
                // write tells.
                warn!(%error, "the free space of the disk cannot be read");
                had_room
            }
        };
        if has_room && !had_room {
            info!("there is room on the disk again");
            self.intake.admission().reopen();
        } else if !has_room && had_room {
            error!(disk_reserve, "the disk is down to its reserve");
            self.intake.admission().close(Closed::DiskFull);
        }
        has_room
    }

    /// Tells those who look whether senders may come, if that has changed.
    fn show_ready(&self, ready: bool) {
        self.ready.send_if_modified(|shown| std::mem::replace(shown, ready) != ready);
    }

    /// Takes everything away from an engine that failed, so that its database closes.
    async fn give_up(&self, running: Running) {
        self.show_ready(false);
        self.statistics.detach();
        self.intake.close(Closed::StoreTrouble);
        // It failed, and ends with the same error or another that follows from it.
        let _ = running.end(&self.intake).await;
    }

    /// Takes no new requests; those in flight are still finished.
    fn refuse(&self) {
        self.show_ready(false);
        self.intake.admission().close(Closed::Draining);
        self.intake.throttle().set(None);
    }

    async fn stop(&self, running: Running, deadline: Instant) -> Result<(), AppError> {
        self.statistics.detach();
        self.intake.close(Closed::Draining);
        match tokio::time::timeout_at(deadline, running.end(&self.intake)).await {
            Ok(stopped) => {
                stopped?;
                info!("the node has drained");
                Ok(())
            }
            Err(_) => Err(AppError::DrainTimeout(self.settings.drain_timeout)),
        }
    }
}

/// The servers of all ports.
struct Servers {
    sources: JoinSet<()>,
    drain: CancellationToken,
    admin: JoinHandle<()>,
    control: JoinHandle<()>,
    peers: JoinHandle<()>,
    off: CancellationToken,
}

impl Servers {
    fn start(ports: Ports, guard: Guard, node: &Node) -> Servers {
        let (drain, off) = (CancellationToken::new(), CancellationToken::new());
        let limits = Limits {
            request_bytes_max: node.settings.max_request_size,
            connection_age: node.settings.connection_max_age,
            drain: node.settings.drain_timeout.saturating_sub(COMMIT_TIME),
            ..Limits::default()
        };
        let mut sources = JoinSet::new();
        let (to, end) = (node.intake.clone(), drain.clone());
        sources.spawn(otlp::serve_grpc(ports.grpc, to, limits, node.ready.subscribe(), end));
        let (to, end) = (node.intake.clone(), drain.clone());
        sources.spawn(otlp::serve_http(ports.http, to, limits, end));
        sources.spawn(chunks::serve(ports.chunks, node.collector(), limits, drain.clone()));
        let end = off.clone().cancelled_owned();
        let admin = tokio::spawn(admin::serve(ports.admin, node.answers(), end));
        let end = off.clone().cancelled_owned();
        let control = admin::serve_control(ports.control, node.answers(), guard, end);
        let control = tokio::spawn(control);
        let incoming = peers::accept(ports.peers);
        let serving = peers::serve(incoming, node.standing(), off.clone());
        let peers = tokio::spawn(serving);
        Servers { sources, drain, admin, control, peers, off }
    }

    /// Finishes the requests in flight, until `deadline`.
    async fn drain(&mut self, deadline: Instant) {
        self.drain.cancel();
        let sources = &mut self.sources;
        let drained = async {
            while let Some(ended) = sources.join_next().await {
                if let Err(error) = ended {
                    error!(%error, "a port's server panicked");
                }
            }
        };
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            warn!("some requests did not end in time; their senders will send them again");
            self.sources.abort_all();
        }
    }

    async fn close(self) {
        self.off.cancel();
        for server in [self.admin, self.control, self.peers] {
            if let Err(error) = server.await {
                error!(%error, "a port's server panicked");
            }
        }
    }
}

/// Every connection is an open file: as many as the system allows.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit on open files stays as it is");
    }
}

/// The data folder, for this process alone.
fn lock(path: &Path) -> Result<File, AppError> {
    let failed = |source| AppError::DataFolder { path: path.to_owned(), source };
    folder::create(path).map_err(failed)?;
    let lock = File::create(path.join("LOCK")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AppError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The open ports.
struct Ports {
    grpc: TcpListener,
    http: TcpListener,
    chunks: TcpListener,
    admin: TcpListener,
    control: TcpListener,
    peers: TcpListener,
}

impl Ports {
    /// Opens all ports; the settings then know which one the system chose for peers.
    async fn bind(settings: Settings) -> Result<(Ports, Settings), AppError> {
        let ports = Ports {
            grpc: listen(settings.otlp_grpc_listen).await?,
            http: listen(settings.otlp_http_listen).await?,
            chunks: listen(settings.chunk_http_listen).await?,
            admin: listen(settings.admin_listen).await?,
            control: listen(settings.control_listen).await?,
            peers: listen(settings.peer_listen).await?,
        };
        for (name, listener) in [
            ("OTLP/gRPC", &ports.grpc),
            ("OTLP/HTTP", &ports.http),
            ("chunks", &ports.chunks),
            ("admin", &ports.admin),
            ("control", &ports.control),
            ("peers", &ports.peers),
        ] {
            let address = listener.local_addr().map_err(AppError::Serve)?;
            info!(%address, "listening for {name}");
        }
        let bound = ports.peers.local_addr().map_err(AppError::Serve)?;
        Ok((ports, settings.with_peer_port(bound)))
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| AppError::Listen { address, source })
}
