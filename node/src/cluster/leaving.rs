//! How a node leaves the cluster that drains it: it appends nothing more, hands over what
//! only it has, and says so.
//!
//! The leader moves its slots, and takes its lead and its vote. Its entries are followed by
//! others until nobody needs them. Its results are copied by those who own the slots now.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, pending};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::raft::Raft;
use crate::cluster::opening::leaves;
use crate::cluster::peers;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::Window;
use crate::flush::feed::{Consensus, Disagreement};
use crate::flush::results::Results;
use crate::store::StoreError;

/// How long a member may take to say which results it has.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long to rest before the node looks again whether it has handed over everything.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why a node does not get away.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster does not agree, or this node takes no part any more.
    #[error(transparent)]
    Consensus(#[from] Disagreement),
}

/// A node on its way out.
pub struct Leaving {
    /// This node.
    pub node: NodeId,
    /// Who votes.
    pub raft: Raft,
    /// Where it says that its journal has ended, and that it has handed over everything.
    pub consensus: Arc<dyn Consensus>,
    /// Its results.
    pub results: Results,
    /// The ways to the other members.
    pub members: peers::Member,
}

/// A window of an aggregation.
pub type Counted = (u32, Window);

impl Leaving {
    /// Waits until the cluster wants the node to leave.
    pub async fn asked(&self) {
        let (mut facts, node) = (self.consensus.facts(), self.node);
        if facts.wait_for(|facts| leaves(facts, node)).await.is_err() {
            // The node takes no part any more, and is about to end or begin again.
            pending::<()>().await;
        }
    }

    /// Hands over everything; whoever keeps a segment open has sealed the journal by then, or
    /// is about to. A node that is gone rests for ever.
    ///
    /// # Errors
    /// When the database fails, or the node takes no part any more.
    pub async fn run(self) -> Result<(), LeaveError> {
        let mut facts = self.consensus.facts();
        let (mut handed_over, mut said) = (BTreeSet::new(), String::new());
        loop {
            let now = facts.borrow_and_update().clone();
            let state = now.members().get(&self.node).map(|own| own.state);
            if let Some(state) = state.filter(|state| state.is_gone()) {
                info!(%state, "this node has left its cluster, and can be stopped");
                return pending().await;
            }
            match self.keeps(&now, &mut handed_over).await? {
                Some(what) if what != said => {
                    info!("this node is being drained: {what}");
                    said = what;
                }
                Some(_) => {}
                None => self.say_drained().await?,
            }
            next(&mut facts).await;
        }
    }

    /// What the node still has and others need, for people.
    async fn keeps(
        &self,
        facts: &Facts,
        handed_over: &mut BTreeSet<Counted>,
    ) -> Result<Option<String>, StoreError> {
        if let Err(refused) = facts.check_drained(self.node) {
            return Ok(Some(refused.to_string()));
        }
        if self.raft.status().voters.contains(&self.node) {
            return Ok(Some("it votes".to_owned()));
        }
        for counted in flushed_windows(facts) {
            if handed_over.contains(&counted) {
                continue;
            }
            if !self.others_have(facts, counted).await? {
                let (_, window) = counted;
                return Ok(Some(format!("nobody else has its results of {window}")));
            }
            handed_over.insert(counted);
        }
        Ok(None)
    }

    /// Whether members that stay have all results of a window that this node has.
    async fn others_have(
        &self,
        facts: &Facts,
        (number, window): Counted,
    ) -> Result<bool, StoreError> {
        let own = self.results.find(number, window.end)?;
        let own: SlotSet = own.iter().flat_map(|result| result.slots.iter()).collect();
        if own.is_empty() {
            return Ok(true);
        }
        let stay = facts.members().iter().filter(|(_, other)| other.state == MemberState::Active);
        let asked = stay.map(|(&node, other)| {
            self.members.other(node, &other.address).tables(number, window.end, ANSWER_WAIT)
        });
        let mut theirs = SlotSet::default();
        for listed in join_all(asked).await {
            match listed {
                Ok(tables) => {
                    theirs = tables.iter().fold(theirs, |all, table| all.union(&table.slots));
                }
                Err(error) => debug!(%error, "a member does not say which results it has"),
            }
        }
        Ok(own.iter().all(|slot| theirs.contains(slot)))
    }

    async fn say_drained(&self) -> Result<(), LeaveError> {
        match self.consensus.propose(Command::Drained { node: self.node }).await {
            Err(Disagreement::Refused(refused)) => {
                debug!(%refused, "this node is not drained yet");
                Ok(())
            }
            said => Ok(said.map(drop)?),
        }
    }
}

/// The windows of the last hour of which something was flushed.
pub fn flushed_windows(facts: &Facts) -> impl Iterator<Item = Counted> {
    facts.aggregations().iter().flat_map(|(&number, aggregation)| {
        let windows = aggregation.windows.iter();
        windows.map(move |(&start, fact)| (number, Window { start, end: fact.end }))
    })
}

/// Waits for news, and not less than a while.
pub async fn next(facts: &mut watch::Receiver<Arc<Facts>>) {
    if facts.changed().await.is_err() {
        // The node takes no part any more, and is about to end or begin again.
        pending::<()>().await;
    }
    sleep(LOOK_AGAIN).await;
}
