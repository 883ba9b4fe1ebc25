//! What a node is to the others at the moment: what it answers them from.

mod attached; // journals and results, lent until they are taken back

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::checkpoint::facts::SegmentId;
use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{Decision, ProposeError, Raft, Rpc};
use crate::cluster::departures;
use crate::cluster::formation::{Hello, State, Why};
use crate::cluster::peers::{
    Answers, Asked, Batches, CarriedParts, Chunks, Declined, FileParts, FilePiece, Holdings, Kept,
    Listed, Reply, Room, Stamped, Told, Wanted,
};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::{Clock, UnixNanos};
use crate::flush::gaps::Gaps;
use crate::flush::requests::Decided;
use attached::Attached;

/// What a node is to the others. It outlives the database that it is read from.
pub struct Standing {
    clock: Clock,
    now: RwLock<Now>,
    attached: Attached,
}

impl Default for Standing {
    /// By the machine's clock.
    fn default() -> Standing {
        Standing::new(Clock::system())
    }
}

#[derive(Default)]
enum Now {
    /// It has not read its volume yet.
    #[default]
    Starting,
    /// It belongs to no cluster.
    Waiting { birth: Birth, sees: BTreeSet<Birth>, why: Vec<Why> },
    /// It belongs to one, and takes part while there is a `raft`.
    Member { birth: Birth, identity: Arc<Identity>, raft: Option<Raft> },
}

impl Standing {
    /// It has not read its volume yet; it says what time it is by `clock`.
    pub fn new(clock: Clock) -> Standing {
        Standing { clock, now: RwLock::default(), attached: Attached::default() }
    }

    /// It belongs to no cluster: in its last round it saw these births, and waits for this.
    pub fn wait(&self, birth: &Birth, sees: BTreeSet<Birth>, why: Vec<Why>) {
        self.set(Now::Waiting { birth: birth.clone(), sees, why });
    }

    /// It is a member, and takes part through `raft`.
    pub fn take_part(&self, birth: Birth, identity: Arc<Identity>, raft: Raft) {
        self.set(Now::Member { birth, identity, raft: Some(raft) });
    }

    /// It takes no part at the moment.
    pub fn leave(&self) {
        if let Now::Member { raft, .. } = &mut *self.write() {
            *raft = None;
        }
    }

    /// Other members are answered from these journals and results from now on.
    pub fn attach(&self, holdings: Arc<dyn Holdings>) {
        self.attached.attach(holdings);
    }

    /// Other members get nothing more: streams break off, and when this returns, nothing
    /// of what was attached is in use.
    pub async fn detach(&self) {
        self.attached.detach().await;
    }

    /// Who it is, if it knows.
    pub fn hello(&self) -> Option<Hello> {
        match &*self.read() {
            Now::Starting => None,
            Now::Waiting { birth, sees, .. } => {
                Some(Hello { birth: birth.clone(), state: State::Waiting { sees: sees.clone() } })
            }
            Now::Member { birth, identity, .. } => {
                let Identity { cluster, node, founders, .. } = &**identity;
                let (cluster, node, founders) = (*cluster, *node, founders.clone());
                let state = State::Member { cluster, node, founders };
                Some(Hello { birth: birth.clone(), state })
            }
        }
    }

    /// What it waits for while it belongs to no cluster.
    pub fn waits_for(&self) -> Vec<Why> {
        match &*self.read() {
            Now::Waiting { why, .. } => why.clone(),
            Now::Starting | Now::Member { .. } => Vec::new(),
        }
    }

    /// Which member it is, and its part in the cluster.
    ///
    /// # Errors
    /// While it takes no part.
    pub fn member(&self) -> Result<(Arc<Identity>, Raft), Declined> {
        match &*self.read() {
            Now::Starting => Err(starting()),
            Now::Member { identity, raft: Some(raft), .. } => {
                Ok((Arc::clone(identity), raft.clone()))
            }
            Now::Waiting { .. } | Now::Member { raft: None, .. } => {
                let reason = "the node takes part in no cluster at the moment";
                Err(Declined::NotNow(reason.to_owned()))
            }
        }
    }

    fn set(&self, now: Now) {
        *self.write() = now;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Now> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Now> {
        self.now.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers for Standing {
    fn hello(&self) -> Result<Hello, Declined> {
        Standing::hello(self).ok_or_else(starting)
    }

    fn identity(&self) -> Result<Arc<Identity>, Declined> {
        Ok(self.member()?.0)
    }

    async fn join(&self, birth: Birth) -> Result<Reply<Identity>, Declined> {
        let (identity, raft) = self.member()?;
        // Founders gave themselves the first ids; whoever joined before those are facts
        // would get one of them.
        let known = raft.facts().borrow().members().len();
        if known < identity.founders.len() {
            let reason = "the founders' ids are no facts yet".to_owned();
            return Err(Declined::NotNow(reason));
        }
        let Birth { uuid, address, zone, .. } = birth;
        match reply(raft.propose(Command::Join { uuid, address, zone }).await)? {
            Reply::Done(Applied::Node(node)) => {
                Ok(Reply::Done(Identity { node, ..(*identity).clone() }))
            }
            Reply::Done(_) => Err(Declined::NotNow("the cluster gave another answer".to_owned())),
            Reply::NotLeader { leader } => Ok(Reply::NotLeader { leader }),
        }
    }

    async fn raft(&self, rpc: Rpc, body: Bytes) -> Result<Bytes, Declined> {
        Ok(self.member()?.1.answer(rpc, body).await)
    }

    async fn propose(&self, command: Command) -> Result<Reply<Decision>, Declined> {
        let (_, raft) = self.member()?;
        reply(departures::decide(&raft, command).await)
    }

    fn now(&self) -> UnixNanos {
        self.clock.now()
    }

    async fn stamped(
        &self,
        time: UnixNanos,
        lease: UnixNanos,
    ) -> Result<BTreeMap<SegmentId, Stamped>, Declined> {
        let lent = self.attached.borrow()?;
        lent.answer(lent.holdings.stamped(time, lease)).await
    }

    fn follow(&self, segment: SegmentId, from: u64, slots: SlotSet) -> Result<Batches, Declined> {
        let lent = self.attached.borrow()?;
        let batches = lent.holdings.follow(segment, from, slots)?;
        Ok(lent.stream(batches))
    }

    fn begin_copy(&self, segment: SegmentId) -> Result<(), Declined> {
        self.attached.borrow()?.holdings.begin_copy(segment)
    }

    async fn copy(
        &self,
        segment: SegmentId,
        first: u64,
        frames: Vec<Bytes>,
    ) -> Result<u64, Declined> {
        let lent = self.attached.borrow()?;
        lent.answer(lent.holdings.copy(segment, first, frames)).await
    }

    async fn fence(&self, segment: SegmentId) -> Result<Option<Stamped>, Declined> {
        let lent = self.attached.borrow()?;
        lent.answer(lent.holdings.fence(segment)).await
    }

    fn tables(&self, aggregation: u32, end: UnixNanos) -> Result<Vec<Listed>, Declined> {
        self.attached.borrow()?.holdings.tables(aggregation, end)
    }

    fn results(
        &self,
        aggregation: u32,
        end: UnixNanos,
        table: u64,
        slots: SlotSet,
    ) -> Result<Chunks, Declined> {
        let lent = self.attached.borrow()?;
        let chunks = lent.holdings.results(aggregation, end, table, slots)?;
        Ok(lent.stream(chunks))
    }

    fn decided(&self) -> Result<Arc<Decided>, Declined> {
        Ok(self.attached.borrow()?.holdings.decided())
    }

    async fn keep(&self, primary: NodeId, kept: Kept, chunks: Chunks) -> Result<(), Declined> {
        let lent = self.attached.borrow()?;
        lent.answer(lent.holdings.keep(primary, kept, chunks)).await
    }

    fn carried(&self, slots: SlotSet) -> Result<CarriedParts, Declined> {
        let lent = self.attached.borrow()?;
        let parts = lent.holdings.carried(slots)?;
        Ok(lent.stream(parts))
    }

    fn files(&self, asked: Asked) -> Result<FileParts, Declined> {
        let lent = self.attached.borrow()?;
        let parts = lent.holdings.files(asked)?;
        Ok(lent.stream(parts))
    }

    async fn list(&self, wanted: Wanted) -> Result<Told, Declined> {
        let lent = self.attached.borrow()?;
        lent.answer(lent.holdings.list(wanted)).await
    }

    fn read(&self, piece: FilePiece) -> Result<Chunks, Declined> {
        let lent = self.attached.borrow()?;
        let bytes = lent.holdings.read(piece)?;
        Ok(lent.stream(bytes))
    }

    fn gaps(&self) -> Result<Arc<Gaps>, Declined> {
        Ok(self.attached.borrow()?.holdings.gaps())
    }

    async fn room(&self) -> Result<Room, Declined> {
        let lent = self.attached.borrow()?;
        lent.answer(lent.holdings.room()).await
    }

    async fn live(&self, limit: u32) -> Result<Bytes, Declined> {
        let lent = self.attached.borrow()?;
        lent.answer(lent.holdings.live(limit)).await
    }
}

fn starting() -> Declined {
    Declined::NotNow("the node is starting".to_owned())
}

/// What is said of a proposal to whoever sent it.
fn reply<T>(proposed: Result<T, ProposeError>) -> Result<Reply<T>, Declined> {
    match proposed {
        Ok(done) => Ok(Reply::Done(done)),
        Err(ProposeError::NotLeader { leader }) => Ok(Reply::NotLeader { leader }),
        Err(error @ ProposeError::Refused(_)) => Err(Declined::Never(error.to_string())),
        Err(error) => Err(Declined::NotNow(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
