//! Nodes that reach each other over streams in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::ready;
use futures::stream::{self, Stream};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{born, identity};
use crate::checkpoint::facts::SegmentId;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{Decision, Rpc};
use crate::cluster::formation::Hello;
use crate::cluster::peers::{
    Answers, Asked, Batches, CarriedParts, Chunks, Declined, FileParts, FilePiece, Holdings, Kept,
    Listed, Member, Peers, Reply, Room, Stamped, Told, Wanted, serve,
};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::{Clock, UnixNanos};
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;

/// Who is where.
#[derive(Default)]
pub(in crate::cluster) struct Mesh {
    doors: Mutex<BTreeMap<String, mpsc::UnboundedSender<io::Result<DuplexStream>>>>,
}

impl Mesh {
    fn connect(&self, address: &str) -> io::Result<DuplexStream> {
        let nobody = || io::Error::other(format!("nobody is at {address}"));
        let (here, there) = duplex(1 << 16);
        let doors = self.doors.lock().unwrap();
        doors.get(address).ok_or_else(nobody)?.send(Ok(there)).map_err(|_| nobody())?;
        Ok(here)
    }

    pub(in crate::cluster) fn peers(self: &Arc<Mesh>) -> Peers {
        let mesh = Arc::clone(self);
        Peers::new(move |address: String| ready(mesh.connect(&address)))
    }

    /// Node 1, which asks the others.
    pub(in crate::cluster) fn member(self: &Arc<Mesh>) -> Member {
        Member::new(self.peers(), &identity(1))
    }

    /// Who comes to a node, as long as its door is open.
    pub(in crate::cluster) fn open(
        &self,
        number: u8,
    ) -> impl Stream<Item = io::Result<DuplexStream>> + use<> {
        let (door, visitors) = mpsc::unbounded_channel();
        self.doors.lock().unwrap().insert(born(number).address, door);
        stream::unfold(visitors, async |mut visitors| Some((visitors.recv().await?, visitors)))
    }

    pub(in crate::cluster) fn close(&self, number: u8) {
        self.doors.lock().unwrap().remove(&born(number).address);
    }

    /// Answers what members ask of a node's journals and results.
    pub(in crate::cluster) fn lend(&self, number: u8, holdings: Arc<dyn Holdings>) -> Lender {
        let off = CancellationToken::new();
        let answers = Arc::new(Lent { number, holdings });
        tokio::spawn(serve(self.open(number), answers, off.clone()));
        Lender(off)
    }
}

/// A node that lends until it is dropped.
pub(in crate::cluster) struct Lender(CancellationToken);

impl Drop for Lender {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

struct Lent {
    number: u8,
    holdings: Arc<dyn Holdings>,
}

fn other<T>() -> Result<T, Declined> {
    Err(Declined::NotNow("this node only lends".to_owned()))
}

impl Answers for Lent {
    fn hello(&self) -> Result<Hello, Declined> {
        other()
    }

    fn identity(&self) -> Result<Arc<Identity>, Declined> {
        Ok(Arc::new(identity(self.number)))
    }

    fn now(&self) -> UnixNanos {
        Clock::system().now()
    }

    async fn join(&self, _: Birth) -> Result<Reply<Identity>, Declined> {
        other()
    }

    async fn raft(&self, _: Rpc, _: Bytes) -> Result<Bytes, Declined> {
        other()
    }

    async fn propose(&self, _: Command) -> Result<Reply<Decision>, Declined> {
        other()
    }

    async fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> Result<BTreeMap<SegmentId, Stamped>, Declined> {
        self.holdings.stamped(time, lease).await
    }

    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined> {
        self.holdings.follow(segment, from, slots)
    }

    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined> {
        self.holdings.begin_copy(segment)
    }

    async fn copy(
        &self,
        segment: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> Result<u64, Declined> {
        self.holdings.copy(segment, first, frames).await
    }

    async fn fence(&self, segment: SegmentId) -> Result<Option<Stamped>, Declined> {
        self.holdings.fence(segment).await
    }

    fn tables(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<Listed>, Declined> {
        self.holdings.tables(aggregation, end)
    }

    fn results(
        &self,
        aggregation: u32,
        end: UnixNanos,
        table: u64,
        slots: SlotSet,
    ) -> Result<Chunks, Declined> {
        self.holdings.results(aggregation, end, table, slots)
    }

    async fn keep(&self, primary: NodeId, kept: Kept, chunks: Chunks) -> Result<(), Declined> {
        self.holdings.keep(primary, kept, chunks).await
    }

    fn carried(&self, slots: SlotSet) -> Result<CarriedParts, Declined> {
        self.holdings.carried(slots)
    }

    fn files(&self, asked: Asked) -> Result<FileParts, Declined> {
        self.holdings.files(asked)
    }

    fn decided(&self) -> Result<Arc<Decided>, Declined> {
        Ok(self.holdings.decided())
    }

    async fn list(&self, wanted: Wanted) -> Result<Told, Declined> {
        self.holdings.list(wanted).await
    }

    fn read(&self, piece: FilePiece) -> Result<Chunks, Declined> {
        self.holdings.read(piece)
    }

    fn gaps(&self) -> Result<Arc<Gaps>, Declined> {
        Ok(self.holdings.gaps())
    }

    async fn room(&self) -> Result<Room, Declined> {
        self.holdings.room().await
    }

    async fn live(&self, limit: u32) -> Result<Bytes, Declined> {
        self.holdings.live(limit).await
    }
}
