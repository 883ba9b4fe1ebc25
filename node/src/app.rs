//! A node put together: the one place that knows every part.

pub mod engine; // store, journal, folding and flushing: what a failure restarts
pub mod folder; // folders that survive a power cut
pub mod metrics; // what the parts report, as OpenMetrics text
pub mod room; // how much disk there is left
pub mod settings; // flags, environment, file
pub mod statistics; // what the admin port asks of the node
pub mod telemetry; // the node's own log

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin;
use crate::app::engine::{Engine, EngineError};
use crate::app::metrics::Metrics;
use crate::app::settings::Settings;
use crate::app::statistics::Statistics;
use crate::event::time::{Clock, SECOND};
use crate::intake::Intake;
use crate::intake::admission::{Admission, Closed};
use crate::source::otlp::{self, Limits};

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

/// Runs a node until `stop` is cancelled, then drains it.
///
/// # Errors
/// When it cannot start, fails for good, or does not drain in time.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), AppError> {
    let _lock = lock(&settings.data_dir)?;
    allow_open_files();
    let ports = Ports::bind(&settings).await?;
    let node = Node::new(settings);
    let mut servers = Servers::start(ports, &node);
    let supervised = node.supervise(&stop).await;
    let deadline = Instant::now() + node.settings.drain_timeout;
    node.refuse();
    servers.drain(deadline - COMMIT_TIME.min(node.settings.drain_timeout)).await;
    let stopped = match supervised {
        Ok(engine) => node.stop(engine, deadline).await,
        Err(error) => Err(error.into()),
    };
    servers.close().await;
    stopped
}

/// What outlives an engine.
struct Node {
    settings: Settings,
    intake: Intake,
    metrics: Arc<Metrics>,
    statistics: Arc<Statistics>,
    ready: watch::Sender<bool>,
    clock: Clock,
}

impl Node {
    fn new(settings: Settings) -> Node {
        let intake = Intake::new(Admission::new(settings.queue_size));
        intake.close(Closed::Starting);
        let metrics = Arc::new(Metrics::new());
        let (ready, readiness) = watch::channel(false);
        let (to, report) = (intake.clone(), Arc::clone(&metrics));
        let statistics = Arc::new(Statistics::new(to, report, readiness, settings.stats_limit));
        Node { settings, intake, metrics, statistics, ready, clock: Clock::system() }
    }

    /// Keeps an engine running until the node is asked to stop, and returns it.
    async fn supervise(&self, stop: &CancellationToken) -> Result<Engine, EngineError> {
        let mut first = true;
        loop {
            let error = match self.start().await {
                Ok(mut engine) => {
                    first = false;
                    let Some(error) = self.attend(&mut engine, stop).await else {
                        return Ok(engine);
                    };
                    self.give_up(engine).await;
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

    async fn start(&self) -> Result<Engine, EngineError> {
        let starting = engine::Start {
            settings: self.settings.clone(),
            metrics: Arc::clone(&self.metrics),
            intake: self.intake.clone(),
            clock: self.clock.clone(),
        };
        let started = tokio::task::spawn_blocking(move || Engine::start(starting)).await;
        let mut engine = started.map_err(|_| EngineError::Panicked("start"))??;
        engine.open(&self.intake);
        self.statistics.attach(engine.reader());
        self.ready.send_replace(true);
        Ok(engine)
    }

    /// Cuts and records on every whole second, and watches the disk, until the engine
    /// fails (with its error) or the node is asked to stop.
    async fn attend(&self, engine: &mut Engine, stop: &CancellationToken) -> Option<EngineError> {
        let mut had_room = true;
        let mut recorded = self.intake.received().rejected();
        loop {
            let into_second = self.clock.now().0 % SECOND;
            tokio::select! {
                error = engine.failed() => return Some(error),
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_nanos(SECOND - into_second)) => {}
            }
            engine.cut(self.clock.now().whole_second());
            let rejected = self.intake.received().rejected();
            if rejected != recorded {
                engine.record_rejected(&self.intake);
                recorded = rejected;
            }
            had_room = self.watch_disk(had_room);
        }
    }

    /// Whether there is room on the disk; acts when that changes.
    fn watch_disk(&self, had_room: bool) -> bool {
        let Settings { data_dir, disk_reserve, .. } = &self.settings;
        let has_room = room::is_there_room(data_dir, *disk_reserve, had_room);
        if has_room && !had_room {
            info!("there is room on the disk again");
            self.intake.admission().reopen();
            self.ready.send_replace(true);
        } else if !has_room && had_room {
            error!(disk_reserve, "the disk is down to its reserve");
            self.intake.admission().close(Closed::DiskFull);
            self.ready.send_replace(false);
        }
        has_room
    }

    /// Takes everything away from an engine that failed, so that its database closes.
    async fn give_up(&self, engine: Engine) {
        self.ready.send_replace(false);
        self.statistics.detach();
        self.intake.close(Closed::StoreTrouble);
        let intake = self.intake.clone();
        // It failed, and ends with the same error or another that follows from it.
        let _ = tokio::task::spawn_blocking(move || engine.stop(&intake)).await;
    }

    /// Takes no new requests; those in flight are still finished.
    fn refuse(&self) {
        self.ready.send_replace(false);
        self.intake.admission().close(Closed::Draining);
    }

    async fn stop(&self, engine: Engine, deadline: Instant) -> Result<(), AppError> {
        self.statistics.detach();
        self.intake.close(Closed::Draining);
        let intake = self.intake.clone();
        let stopping = tokio::task::spawn_blocking(move || engine.stop(&intake));
        match tokio::time::timeout_at(deadline, stopping).await {
            Ok(Ok(stopped)) => {
                stopped?;
                info!("the node has drained");
                Ok(())
            }
            Ok(Err(_)) => Err(EngineError::Panicked("stop").into()),
            Err(_) => Err(AppError::DrainTimeout(self.settings.drain_timeout)),
        }
    }
}

/// The servers of all ports.
struct Servers {
    sources: JoinSet<()>,
    drain: CancellationToken,
    admin: JoinHandle<()>,
    off: CancellationToken,
}

impl Servers {
    fn start(ports: Ports, node: &Node) -> Servers {
        let (drain, off) = (CancellationToken::new(), CancellationToken::new());
        let limits = Limits {
            request_bytes_max: node.settings.max_request_size,
            drain: node.settings.drain_timeout.saturating_sub(COMMIT_TIME),
            ..Limits::default()
        };
        let mut sources = JoinSet::new();
        let (to, end) = (node.intake.clone(), drain.clone());
        sources.spawn(otlp::serve_grpc(ports.grpc, to, limits, node.ready.subscribe(), end));
        let (to, end) = (node.intake.clone(), drain.clone());
        sources.spawn(otlp::serve_http(ports.http, to, limits, end));
        let asked: Arc<dyn admin::Node> = Arc::clone(&node.statistics) as _;
        let end = off.clone().cancelled_owned();
        let admin = tokio::spawn(admin::serve(ports.admin, asked, end));
        Servers { sources, drain, admin, off }
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
        if let Err(error) = self.admin.await {
            error!(%error, "the admin port's server panicked");
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
    admin: TcpListener,
}

impl Ports {
    async fn bind(settings: &Settings) -> Result<Ports, AppError> {
        let ports = Ports {
            grpc: listen(settings.otlp_grpc_listen).await?,
            http: listen(settings.otlp_http_listen).await?,
            admin: listen(settings.admin_listen).await?,
        };
        for (name, listener) in
            [("OTLP/gRPC", &ports.grpc), ("OTLP/HTTP", &ports.http), ("admin", &ports.admin)]
        {
            let address = listener.local_addr().map_err(AppError::Serve)?;
            info!(%address, "listening for {name}");
        }
        Ok(ports)
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| AppError::Listen { address, source })
}
