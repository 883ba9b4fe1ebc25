//! A simulated machine: a disk, a clock, an address, and the node that lives on it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, Stream, TryStreamExt as _};
use sheaf_node::admin::{self, Listing, Scope};
use sheaf_node::app::Node;
use sheaf_node::app::settings::{Command, Settings};
use sheaf_node::app::surroundings::Surroundings;
use sheaf_node::checkpoint::identity::Entropy;
use sheaf_node::cluster::peers::{self, Peers};
use sheaf_node::event::time::{Clock, UnixNanos};
use sheaf_node::sink::{DeliveryKey, Promise, Sink, SinkError};
use sheaf_node::store::{Disk, Store};
use sheaf_proto::files::RebuiltFile;
use sheaf_proto::statistics::WindowCounts;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use turmoil::net::{TcpListener, TcpStream};

use super::agents::{Agent, Sources};
use super::history::{Event, File, History};
use super::operator::Orders;
use super::senders::{GROUP, ID, Numbers, Sender};
use super::torn;

const PEER_PORT: u16 = 9465;
/// Journal above which open windows are carried.
const JOURNAL_BYTES: u64 = 8_000;
/// The same where files are in it too.
const JOURNAL_BYTES_WITH_FILES: u64 = 20_000;
/// How many send to each node.
const SENDERS: u64 = 2;
/// How many send it chunks of files.
const AGENTS: u64 = 2;
/// How often the ledger is asked for once the senders have stopped, and files are read.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The true time.
pub(crate) fn true_time() -> UnixNanos {
    let since_epoch = turmoil::since_epoch().unwrap_or_default();
    UnixNanos(since_epoch.as_nanos() as u64)
}

/// Tells the true time in what is logged.
pub(crate) struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", true_time())
    }
}

/// What all machines of a simulation share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) history: History,
    pub(crate) numbers: Numbers,
    /// What the agents read, if there are any.
    pub(crate) sources: Option<Sources>,
    /// Whether nodes rebuild files in small parts, and compress these.
    pub(crate) has_parts: bool,
    /// Whether the senders send, and files grow.
    pub(crate) is_sending: Arc<AtomicBool>,
    /// Which nodes are to go.
    pub(crate) orders: Orders,
    /// Who is to lose power when it prints.
    pub(crate) prints: Prints,
}

impl Default for World {
    fn default() -> World {
        World {
            history: History::default(),
            numbers: Numbers::default(),
            sources: None,
            has_parts: false,
            is_sending: Arc::new(AtomicBool::new(true)),
            orders: Orders::default(),
            prints: Prints::default(),
        }
    }
}

/// A machine; clones are the same one.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) number: usize,
    pub(crate) disk: Disk,
    /// Nanoseconds that its clock is ahead of the true time.
    pub(crate) skew: Arc<AtomicI64>,
    /// Whether its disk is so full that nothing should be accepted.
    pub(crate) is_full: Arc<AtomicBool>,
    settings: Settings,
    world: World,
    folder: Arc<TempDir>,
}

impl Machine {
    /// A machine with an empty disk, whose node knows `initial` as the initial members.
    pub(crate) fn new(
        number: usize,
        own: IpAddr,
        initial: &[IpAddr],
        copies: usize,
        world: &World,
    ) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        Machine {
            number,
            disk: Disk::default(),
            skew: Arc::default(),
            is_full: Arc::default(),
            settings: settings(folder.path(), own, initial, copies, world),
            world: world.clone(),
            folder: Arc::new(folder),
        }
    }

    /// Where the node's peers reach it.
    pub(crate) fn peer_address(&self) -> String {
        self.settings.peer_address.to_string()
    }

    /// What was not synced is lost, all or in part.
    pub(crate) fn cut_power(&self) {
        torn::cut_power(&self.disk, self.folder.path());
    }

    /// Runs the node until it ends with an error: then its process does.
    pub(crate) async fn run(self) -> turmoil::Result {
        let node = Node::new(self.settings.clone(), self.surroundings());
        let listener = TcpListener::bind(("0.0.0.0", PEER_PORT)).await?;
        let off = CancellationToken::new();
        tokio::spawn(peers::serve(incoming(listener), node.standing(), off.clone()));
        for sender in self.senders(&node) {
            let is_sending = Arc::clone(&self.world.is_sending);
            tokio::spawn(async move {
                let over = until(|| !is_sending.load(Ordering::Relaxed));
                tokio::select! { () = sender.run() => {}, () = over => {} }
            });
        }
        if let Some(sources) = self.world.sources.clone() {
            for agent in self.agents(&node, &sources) {
                let is_sending = Arc::clone(&self.world.is_sending);
                tokio::spawn(agent.run(move || is_sending.load(Ordering::Relaxed)));
            }
            tokio::spawn(self.clone().read_files(node.answers(), sources));
        }
        tokio::spawn(self.clone().balance(node.answers()));
        tokio::spawn(self.world.orders.clone().carry_out(node.answers()));
        if let Err(error) = node.supervise(&off).await {
            let (number, is_expected) = (self.number, error.is_retryable());
            let error = error.to_string();
            let event = match is_expected {
                true => Event::Done { fault: format!("node {number} ends: {error}") },
                false => Event::Failed { node: number, error },
            };
            self.world.history.add(true_time(), event);
        }
        Ok(())
    }

    fn senders(&self, node: &Node) -> impl Iterator<Item = Sender> {
        let lives = fastrand::u64(..);
        (0..SENDERS).map(move |sender| Sender {
            node: self.number,
            intake: node.intake(),
            history: self.world.history.clone(),
            numbers: self.world.numbers.clone(),
            rng: fastrand::Rng::with_seed(lives.wrapping_add(sender)),
        })
    }

    fn agents(&self, node: &Node, sources: &Sources) -> impl Iterator<Item = Agent> {
        let lives = fastrand::u64(..);
        (0..AGENTS).map(move |agent| Agent {
            intake: node.intake(),
            history: self.world.history.clone(),
            sources: sources.clone(),
            rng: fastrand::Rng::with_seed(lives.wrapping_add(agent)),
        })
    }

    /// Notes what can be read of files here, and by way of this node, again and again.
    async fn read_files(self, node: Arc<dyn admin::Node>, sources: Sources) {
        for scope in [Scope::Node, Scope::Cluster].into_iter().cycle() {
            sleep(ASK_AGAIN).await;
            let (id, prefix, after, limit) = (None, String::new(), None, usize::MAX);
            let listing = Listing { scope, id, prefix, after, limit };
            // It may have just begun, or nobody knows of a file, or its owners do not answer.
            let Ok(found) = node.files(listing).await else { continue };
            for RebuiltFile { id, session, checkpointed_bytes, .. } in found.files {
                let file = File { id, session };
                let Some(content) = content(&*node, scope, &file).await else { continue };
                let (node, bytes) = (self.number, content.len() as u64);
                let is_prefix = sources.has(&file, &content);
                let checkpointed = (scope == Scope::Node).then_some(checkpointed_bytes);
                let read = Event::Read { node, file, bytes, checkpointed, is_prefix };
                self.world.history.add(true_time(), read);
            }
        }
    }

    /// Notes what the cluster's ledger says when nobody sends any more.
    async fn balance(self, node: Arc<dyn admin::Node>) {
        until(|| !self.world.is_sending.load(Ordering::Relaxed)).await;
        loop {
            sleep(ASK_AGAIN).await;
            if let Ok(ledger) = node.ledger(Scope::Cluster).await {
                self.world.history.add(true_time(), Event::Balanced { ledger });
            }
        }
    }

    fn surroundings(&self) -> Surroundings {
        let Machine { number, disk, skew, is_full, world, .. } = self.clone();
        let clock = Clock::new(move || {
            let skew = skew.load(Ordering::Relaxed);
            UnixNanos(true_time().0.saturating_add_signed(skew))
        });
        let (observed, of) = (world, disk.clone());
        let sink = move || {
            let (world, disk) = (observed.clone(), of.clone());
            Box::new(Observed { node: number, disk, world }) as _
        };
        Surroundings {
            clock,
            entropy: Entropy::of_simulation(fastrand_fill),
            peers: Peers::new(async |address: String| TcpStream::connect(address).await),
            store: Arc::new(move || Ok(Arc::new(Store::in_memory(&disk)?))),
            sink: Box::new(sink),
            free: Arc::new(move || Ok(if is_full.load(Ordering::Relaxed) { 0 } else { u64::MAX })),
        }
    }
}

fn fastrand_fill(bytes: &mut [u8]) {
    fastrand::fill(bytes);
}

/// Waits until a condition holds.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(ASK_AGAIN / 10).await;
    }
}

/// A file as a node tells it, if all of what it begins to tell comes.
async fn content(node: &dyn admin::Node, scope: Scope, file: &File) -> Option<Vec<u8>> {
    let content = node.file(scope, file.id.clone(), file.session).await.ok()?;
    let pieces = (content.read)(0..content.bytes).await.ok()?;
    let pieces: Vec<_> = pieces.try_collect().await.ok()?;
    Some(pieces.concat())
}

fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    })
}

fn settings(
    folder: &Path,
    own: IpAddr,
    initial: &[IpAddr],
    copies: usize,
    world: &World,
) -> Settings {
    let rebuilds = world.sources.is_some();
    let parts = if world.has_parts { ", partBytes: 1024, compression: Zstd" } else { "" };
    let files =
        format!("  - {{name: files, type: LogFiles, logFiles: {{checkpointSeconds: 4{parts}}}}}\n");
    let files = if rebuilds { &files } else { "" };
    let file = format!(
        "aggregations:
  - {{name: by-id, type: DistinctLogs, distinctLogs: {{attribute: {ID}, windowSeconds: 2}}}}
  - {{name: by-group, type: DistinctLogs, distinctLogs: {{attribute: {GROUP}, windowSeconds: 4}}}}
{files}"
    );
    // One that joins is in the list as well, as if a name stood for all.
    let members: BTreeSet<_> = initial.iter().chain([&own]).collect();
    let members: Vec<_> = members.into_iter().map(|ip| format!("{ip}:{PEER_PORT}")).collect();
    let own = format!("{own}:{PEER_PORT}");
    let folder = folder.to_str().unwrap();
    let arguments = [
        ["--config", "file"],
        ["--data-dir", folder],
        ["--peer-address", &own],
        ["--initial-members", &members.join(",")],
        ["--copies", &copies.to_string()],
        ["--stats-limit", "1000000"],
        // Two clocks may be off to either side.
        ["--clock-bound", "2s"],
    ];
    let arguments = ["sheaf-node"].into_iter().chain(arguments.as_flattened().iter().copied());
    let journal_limit = if rebuilds { JOURNAL_BYTES_WITH_FILES } else { JOURNAL_BYTES };
    match Settings::load(arguments.map(Into::into), [], |_: &Path| Ok(file)).unwrap() {
        // Of what is folded in some seconds, open windows are carried.
        Command::Run(settings) => Settings { journal_limit, ..*settings },
        Command::Print(text) => panic!("{text}"),
    }
}

/// Who is to lose power when it prints; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Prints(Arc<Mutex<Cuts>>);

#[derive(Default)]
struct Cuts {
    /// Whether whoever prints next is to lose power, and if the line is out by then.
    next: Option<bool>,
    /// The machines that have lost power so.
    cut: Vec<usize>,
}

impl Prints {
    pub(crate) fn cut_power(&self, next: Option<bool>) {
        self.0.lock().unwrap().next = next;
    }

    /// The machines that have lost power since this was last asked.
    pub(crate) fn take_cut(&self) -> Vec<usize> {
        mem::take(&mut self.0.lock().unwrap().cut)
    }

    /// Whether a machine that prints loses power now, and if the line is out by then.
    fn take(&self, node: usize) -> Option<bool> {
        let mut cuts = self.0.lock().unwrap();
        let next = cuts.next.take();
        cuts.cut.extend(next.map(|_| node));
        next
    }
}

/// A sink that notes what it gets.
struct Observed {
    node: usize,
    disk: Disk,
    world: World,
}

impl Sink for Observed {
    fn promise(&self) -> Promise {
        Promise::Repeatable
    }

    fn deliver(&mut self, key: &DeliveryKey, counts: &WindowCounts) -> Result<(), SinkError> {
        let DeliveryKey { aggregation, revision, .. } = *key;
        let (node, counts) = (self.node, Box::new(counts.clone()));
        let is_out = self.world.prints.take(node);
        if is_out.is_some() {
            let fault = format!("node {node} loses power as it prints");
            self.world.history.add(true_time(), Event::Done { fault });
            self.disk.crash();
        }
        if is_out != Some(false) {
            let delivered = Event::Delivered { node, aggregation, revision, counts };
            self.world.history.add(true_time(), delivered);
        }
        Ok(())
    }
}
