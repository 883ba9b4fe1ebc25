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
use tokio::task::JoinSet;
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
    let intake = Intake::new(Admission::new(settings.queue_size));
    intake.close(Closed::Starting);
    let metrics = Arc::new(Metrics::new());
    let (ready, readiness) = watch::channel(false);
    let statistics = Arc::new(Statistics::new(
        intake.clone(),
        Arc::clone(&metrics),
        readiness.clone(),
        settings.stats_limit,
    ));

    let drain = CancellationToken::new();
    let off = CancellationToken::new();
    let ports = Ports::bind(&settings).await?;
    let limits = Limits {
        request_bytes_max: settings.max_request_size,
        drain: settings.drain_timeout.saturating_sub(COMMIT_TIME),
        ..Limits::default()
    };
    let mut sources = JoinSet::new();
    let (to, end) = (intake.clone(), drain.clone());
    sources.spawn(otlp::serve_grpc(ports.grpc, to, limits, readiness, end));
    let (to, end) = (intake.clone(), drain.clone());
    sources.spawn(otlp::serve_http(ports.http, to, limits, end));
    let node: Arc<dyn admin::Node> = Arc::clone(&statistics) as _;
    let admin_port = tokio::spawn(admin::serve(ports.admin, node, off.clone().cancelled_owned()));

    let supervised = supervise(&settings, &intake, &metrics, &statistics, &ready, &stop).await;
    ready.send_replace(false);
    intake.admission().close(Closed::Draining);
    drain.cancel();
    let deadline = settings.drain_timeout;
    let drained = async {
        while let Some(ended) = sources.join_next().await {
            if let Err(error) = ended {
                error!(%error, "a port's server panicked");
            }
        }
    };
    let in_time = tokio::time::timeout(deadline.saturating_sub(COMMIT_TIME), drained).await;
    if in_time.is_err() {
        warn!("some requests did not end in time; their senders will send them again");
        sources.abort_all();
    }
    let engine = supervised?;
    statistics.detach();
    intake.close(Closed::Draining);
    let rejected = intake.received().rejected();
    let stopped = tokio::task::spawn_blocking(move || engine.stop(&rejected));
    let stopped = tokio::time::timeout(deadline, stopped).await;
    off.cancel();
    // It answers nothing that matters any more.
    let _ = admin_port.await;
    match stopped {
        Ok(Ok(result)) => {
            result?;
            info!("the node has drained");
            Ok(())
        }
        Ok(Err(panicked)) => Err(AppError::Serve(io::Error::other(panicked))),
        Err(_) => Err(AppError::DrainTimeout(deadline)),
    }
}

/// Keeps an engine running until the node is asked to stop, and returns it.
async fn supervise(
    settings: &Settings,
    intake: &Intake,
    metrics: &Arc<Metrics>,
    statistics: &Arc<Statistics>,
    ready: &watch::Sender<bool>,
    stop: &CancellationToken,
) -> Result<Engine, EngineError> {
    let mut first = true;
    loop {
        let starting = engine::Start {
            settings: settings.clone(),
            metrics: Arc::clone(metrics),
            intake: intake.clone(),
            clock: Clock::system(),
        };
        let started = tokio::task::spawn_blocking(move || Engine::start(starting)).await;
        let error = match started.map_err(|_| EngineError::Panicked("start")).flatten() {
            Ok(mut engine) => {
                engine.open(intake);
                statistics.attach(engine.reader());
                ready.send_replace(true);
                first = false;
                let ended = attend(settings, intake, &mut engine, ready, stop).await;
                let Some(error) = ended else { return Ok(engine) };
                ready.send_replace(false);
                statistics.detach();
                intake.close(Closed::StoreTrouble);
                let rejected = intake.received().rejected();
                // Its own end repeats the error.
                let _ = tokio::task::spawn_blocking(move || engine.stop(&rejected)).await;
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

/// Cuts on every whole second and watches the disk, until the engine fails (with its
/// error) or the node is asked to stop.
async fn attend(
    settings: &Settings,
    intake: &Intake,
    engine: &mut Engine,
    ready: &watch::Sender<bool>,
    stop: &CancellationToken,
) -> Option<EngineError> {
    let clock = Clock::system();
    let mut had_room = true;
    loop {
        let into_second = clock.now().0 % SECOND;
        tokio::select! {
            error = engine.failed() => return Some(error),
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_nanos(SECOND - into_second)) => {}
        }
        engine.cut(clock.now().whole_second());
        let has_room = room::is_there_room(&settings.data_dir, settings.disk_reserve, had_room);
        if has_room != had_room {
            had_room = has_room;
            ready.send_replace(has_room);
            if has_room {
                info!("there is room on the disk again");
                intake.admission().reopen();
            } else {
                error!(reserve = settings.disk_reserve, "the disk is down to its reserve");
                intake.admission().close(Closed::DiskFull);
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
