//! A life of a node that is a cluster by itself, without its ports: the test sets the clock
//! and cuts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sheaf_node::app::changing::Changing;
use sheaf_node::app::engine::{Engine, Reader, Start};
use sheaf_node::app::metrics::Metrics;
use sheaf_node::app::settings::{Command, Settings};
use sheaf_node::checkpoint::facts::ledger::Balance;
use sheaf_node::checkpoint::identity::Entropy;
use sheaf_node::cluster::membership::{Candidate, Membership};
use sheaf_node::cluster::peers::Peers;
use sheaf_node::cluster::standing::Standing;
use sheaf_node::event::time::{Clock, SECOND, UnixNanos};
use sheaf_node::intake::admission::Admission;
use sheaf_node::intake::{Intake, IntakeError};
use sheaf_node::sink::stdout::{Format, Stdout};

pub(crate) const QUEUE_BYTES: usize = 1 << 20;
/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A life in which it is always the same second, until `clock` is set.
pub(crate) struct Life {
    pub(crate) intake: Intake,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<AtomicU64>,
    membership: Membership,
    engine: Engine,
}

impl Life {
    /// Starts on a folder, and takes requests.
    pub(crate) async fn begin(folder: &Path, second: u64) -> Life {
        let life = Life::start(folder, second).await;
        life.cut(second).await;
        assert!(life.open());
        life
    }

    /// Starts on a folder.
    pub(crate) async fn start(folder: &Path, second: u64) -> Life {
        let (settings, standing) = (settings(folder), Arc::<Standing>::default());
        let store = Engine::open_store(&settings).unwrap();
        let candidate = Candidate {
            store: Arc::clone(&store),
            address: settings.peer_address.to_string(),
            zone: None,
            voters: settings.voters,
            entropy: Entropy::of_system(),
            initial: settings.initial_members.clone(),
            copies: settings.copies,
            peers: Peers::over_tcp(),
            standing: Arc::clone(&standing),
        };
        let membership = Membership::begin(candidate).await.unwrap();
        let intake = Intake::new(Admission::new(QUEUE_BYTES));
        let metrics = Arc::new(Metrics::new());
        let clock = Arc::new(AtomicU64::new(second));
        let now = Arc::clone(&clock);
        let starting = Start {
            changing: Arc::new(Changing::new(&settings)),
            settings,
            store,
            identity: membership.identity().clone(),
            raft: membership.raft(),
            members: membership.member(),
            silent: membership.silent(),
            standing,
            sink: Box::new(Stdout::new(std::io::stdout(), Format::Json)),
            metrics: Arc::clone(&metrics),
            intake: intake.clone(),
            clock: Clock::new(move || UnixNanos(now.load(Ordering::SeqCst) * SECOND)),
            free: Arc::new(|| Ok(u64::MAX)),
        };
        let engine = Engine::start(starting).await.unwrap();
        Life { intake, metrics, clock, membership, engine }
    }

    /// Takes requests, if it can.
    pub(crate) fn open(&self) -> bool {
        self.engine.open(&self.intake).unwrap()
    }

    pub(crate) async fn send(&self, request: Bytes) -> Result<(), IntakeError> {
        let permit = self.intake.admission().admit(request.len()).await.unwrap();
        self.intake.export(request, permit).await.map(drop)
    }

    /// Cuts at a second, unless there was a cut at it or later.
    pub(crate) async fn cut(&self, second: u64) {
        self.engine.cut(UnixNanos(second * SECOND)).await.unwrap();
    }

    pub(crate) fn reader(&self) -> Reader {
        self.engine.reader()
    }

    pub(crate) fn record_rejected(&self) {
        self.engine.record_rejected(&self.intake);
    }

    /// The account of the only aggregation.
    pub(crate) fn balance(&self) -> Balance {
        self.membership.raft().facts().borrow().balance(0).unwrap()
    }

    /// Waits until so many records are in windows that were flushed.
    pub(crate) async fn flushed(&self, records: u64) {
        until(async || self.balance().ledger.flushed >= records).await;
    }

    /// Waits until so many records below the newest cut are in windows that were not.
    pub(crate) async fn pending(&self, records: u64) {
        let folding = self.reader().lending.folding;
        let pending = async || Some(folding.pending().await?.records[&0]);
        until(async || pending().await == Some(records)).await;
    }

    pub(crate) async fn end(self) {
        self.engine.stop(&self.intake).await.unwrap();
        self.membership.end().await;
    }
}

fn settings(folder: &Path) -> Settings {
    let folder = folder.to_str().unwrap();
    let arguments = ["sheaf-node", "--data-dir", folder, "--attribute", "foo"];
    let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    match Settings::load(arguments.map(Into::into), [], none).unwrap() {
        Command::Run(settings) => *settings,
        Command::Print(text) => panic!("{text}"),
    }
}

/// Waits for a condition.
pub(crate) async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}
