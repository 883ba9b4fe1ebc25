//! A node whose answers are fixed, behind a real port.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;

/// What a node answers.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) hello: Result<Hello, Declined>,
    pub(super) identity: Result<Identity, Declined>,
    pub(super) join: Result<Reply<Identity>, Declined>,
    pub(super) propose: Result<Reply<Decision>, Declined>,
    /// It never answers Raft's calls.
    pub(super) silent: bool,
    /// It answers Raft's calls when it is told to.
    pub(super) gate: Option<Arc<Notify>>,
    /// How much it has stamped of its segments.
    pub(super) stamped: Result<BTreeMap<SegmentId, Stamped>, Declined>,
    /// How far its copies got.
    pub(super) fenced: Result<Option<Stamped>, Declined>,
    /// Whether it takes copies.
    pub(super) copies: Result<(), Declined>,
    /// The stream that whoever follows a segment from this index on gets.
    pub(super) follow: Arc<dyn Fn(u64) -> Result<Batches, Declined> + Send + Sync>,
    /// The table or the file that it has.
    pub(super) results: Arc<dyn Fn() -> Result<Chunks, Declined> + Send + Sync>,
    /// Its count tables.
    pub(super) tables: Result<Vec<Listed>, Declined>,
    /// Whether it keeps what it is sent.
    pub(super) keep: Result<(), Declined>,
    /// What it carries.
    pub(super) carried: [CarriedPart; 2],
    /// Its files.
    pub(super) list: Result<Told, Declined>,
    /// Of which files it wants only what closes their gaps.
    pub(super) gaps: Result<Gaps, Declined>,
    /// What room it has for files.
    pub(super) room: Result<Room, Declined>,
    /// What it has at the moment.
    pub(super) live: Result<Bytes, Declined>,
    /// What it was asked, apart from hellos.
    pub(super) heard: watch::Sender<Vec<String>>,
}

impl Script {
    /// Node 1 of the cluster, which does not lead.
    pub(super) fn member() -> Script {
        Script {
            hello: Ok(Hello { birth: born(1), state: State::Waiting { sees: BTreeSet::new() } }),
            identity: Ok(identity(1)),
            join: Ok(Reply::NotLeader { leader: None }),
            propose: Ok(Reply::NotLeader { leader: None }),
            stamped: Ok(BTreeMap::new()),
            fenced: Ok(None),
            copies: Ok(()),
            follow: Arc::new(|_| Ok(stream::empty().boxed())),
            results: Arc::new(|| Ok(stream::empty().boxed())),
            tables: Ok(Vec::new()),
            keep: Ok(()),
            carried: [b"one", b"two"].map(|chunk| CarriedPart::Chunk(Bytes::from_static(chunk))),
            list: Ok(Told::default()),
            gaps: Ok(Gaps::default()),
            room: Ok(Room::default()),
            live: Ok(Bytes::new()),
            silent: false,
            gate: None,
            heard: watch::Sender::default(),
        }
    }

    fn hear(&self, what: String) {
        self.heard.send_modify(|heard| heard.push(what));
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Answers for Script {
    fn hello(&self) -> Result<Hello, Declined> {
        self.hello.clone()
    }

    fn identity(&self) -> Result<Arc<Identity>, Declined> {
        self.identity.clone().map(Arc::new)
    }

    async fn join(&self, birth: Birth) -> Result<Reply<Identity>, Declined> {
        self.hear(format!("join {}", birth.address));
        self.join.clone()
    }

    /// The body in capitals.
    async fn raft(&self, rpc: Rpc, body: Bytes) -> Result<Bytes, Declined> {
        self.hear(format!("{rpc:?} {}", text(&body.slice(..body.len().min(10)))));
        if self.silent {
            std::future::pending::<()>().await;
        }
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        Ok(body.to_ascii_uppercase().into())
    }

    async fn propose(&self, command: Command) -> Result<Reply<Decision>, Declined> {
        self.hear(format!("propose {command:?}"));
        self.propose.clone()
    }

    fn now(&self) -> UnixNanos {
        self.hear("clock".to_owned());
        UnixNanos(5)
    }

    async fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> Result<BTreeMap<SegmentId, Stamped>, Declined> {
        self.hear(format!("stamped {time} lease {lease}"));
        self.stamped.clone()
    }

    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined> {
        self.hear(format!("follow {segment} from {from} for {slots}"));
        (self.follow)(from)
    }

    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined> {
        self.hear(format!("begin a copy of {segment}"));
        self.copies.clone()
    }

    async fn copy(
        &self,
        segment: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> Result<u64, Declined> {
        for (index, frame) in (first..).zip(&frames) {
            // Frames of these tests consist of their number.
            let is_whole = frame.iter().all(|byte| u64::from(*byte) == index);
            self.hear(format!("copy {segment} {index}: {} {is_whole}", frame.len()));
        }
        Ok(first + frames.len() as u64)
    }

    async fn fence(&self, segment: SegmentId) -> Result<Option<Stamped>, Declined> {
        self.hear(format!("fence {segment}"));
        self.fenced.clone()
    }

    fn tables(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<Listed>, Declined> {
        self.hear(format!("tables {aggregation} until {end}"));
        self.tables.clone()
    }

    fn results(
        &self,
        aggregation: u32,
        end: UnixNanos,
        table: u64,
        slots: SlotSet,
    ) -> Result<Chunks, Declined> {
        self.hear(format!("results {aggregation} until {end}, table {table}, for {slots}"));
        (self.results)()
    }

    fn decided(&self) -> Result<Arc<Decided>, Declined> {
        self.hear("decided".to_owned());
        Ok(Arc::new(Decided::at_cut(5)))
    }

    async fn keep(&self, primary: NodeId, kept: Kept, chunks: Chunks) -> Result<(), Declined> {
        let chunks: Vec<_> = chunks.try_collect().await?;
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        self.hear(format!("keep {kept:?} of node {primary}, {bytes} bytes"));
        self.keep.clone()
    }

    fn carried(&self, slots: SlotSet) -> Result<CarriedParts, Declined> {
        self.hear(format!("carried {slots}"));
        Ok(stream::iter(self.carried.clone().map(Ok)).boxed())
    }

    fn files(&self, asked: Asked) -> Result<FileParts, Declined> {
        self.hear(format!("files of {:?}", asked.checkpoints));
        Ok(stream::iter([Ok(FilePart::Bytes(Bytes::from_static(b"file")))]).boxed())
    }

    async fn list(&self, wanted: Wanted) -> Result<Told, Declined> {
        self.hear(format!("list {} after {:?}", wanted.slots, wanted.after));
        self.list.clone()
    }

    fn read(&self, piece: FilePiece) -> Result<Chunks, Declined> {
        self.hear(format!("read {:?} of {} {}", piece.part, piece.id, piece.session));
        (self.results)()
    }

    fn gaps(&self) -> Result<Arc<Gaps>, Declined> {
        self.hear("gaps".to_owned());
        self.gaps.clone().map(Arc::new)
    }

    async fn room(&self) -> Result<Room, Declined> {
        self.hear("room".to_owned());
        self.room.clone()
    }

    async fn live(&self, limit: u32) -> Result<Bytes, Declined> {
        self.hear(format!("live {limit}"));
        self.live.clone()
    }
}

/// A node that runs, on threads of its own so that it can die.
pub(super) struct Node {
    pub(super) address: String,
    pub(super) shutdown: CancellationToken,
    heard: watch::Receiver<Vec<String>>,
    serving: JoinHandle<()>,
    runtime: Option<Runtime>,
}

impl Node {
    pub(super) fn start(script: Script) -> Node {
        Node::start_at("127.0.0.1:0", script)
    }

    pub(super) fn start_at(address: &str, script: Script) -> Node {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let (heard, stop) = (script.heard.subscribe(), shutdown.clone());
        let serving = runtime.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let incoming = accept(TcpListener::from_std(listener).unwrap());
            serve(incoming, Arc::new(script), stop).await;
        });
        Node { address, shutdown, heard, serving, runtime: Some(runtime) }
    }

    /// What it was asked, apart from hellos.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.borrow().clone()
    }

    /// Waits until it was asked so often.
    pub(super) async fn has_heard(&mut self, count: usize) {
        let waited = timeout(DEADLINE, self.heard.wait_for(|heard| heard.len() == count)).await;
        waited.expect("it was asked").unwrap();
    }

    /// Stops it as it stops by itself.
    pub(super) async fn stop(&mut self) {
        self.shutdown.cancel();
        timeout(DEADLINE, &mut self.serving).await.expect("it stopped").unwrap();
    }

    /// Ends it without a word.
    pub(super) async fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
