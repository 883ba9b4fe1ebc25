//! What a node is to the others at the moment: what it answers them from.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::identity::{Birth, Identity};
use crate::checkpoint::raft::{self, ProposeError, Raft};
use crate::cluster::formation::{Hello, State, Why};
use crate::event::node::NodeId;

/// What a node is to the others. It outlives the database that it is read from.
#[derive(Default)]
pub struct Standing {
    now: RwLock<Now>,
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

/// Why a node does not do what another asks.
#[derive(Debug, thiserror::Error)]
pub enum Declined {
    /// It does not know yet who it is.
    #[error("the node is starting")]
    Starting,
    /// It belongs to no cluster, or takes no part at the moment.
    #[error("the node takes part in no cluster at the moment")]
    NotMember,
    /// The other one is of another cluster.
    #[error("the node belongs to another cluster; check the address, or empty the volume")]
    OtherCluster,
    /// The other one has another fingerprint key, although the cluster's id is the same.
    #[error("the node has another fingerprint key; its volume belongs to another cluster")]
    OtherKey,
    /// The cluster could not decide.
    #[error("{0}")]
    Undecided(String),
    /// The cluster says no.
    #[error("{0}")]
    Refused(String),
}

impl Standing {
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
            Now::Starting => Err(Declined::Starting),
            Now::Member { identity, raft: Some(raft), .. } => {
                Ok((Arc::clone(identity), raft.clone()))
            }
            Now::Waiting { .. } | Now::Member { raft: None, .. } => Err(Declined::NotMember),
        }
    }

    /// Makes a node a member, and returns its id; or the leader, who can.
    ///
    /// # Errors
    /// When the cluster refuses, or could not decide.
    pub async fn take_in(
        raft: &Raft,
        birth: Birth,
    ) -> Result<Result<NodeId, Option<raft::Member>>, Declined> {
        let Birth { uuid, address, zone, .. } = birth;
        match raft.propose(Command::Join { uuid, address, zone }).await {
            Ok(Applied::Node(node)) => Ok(Ok(node)),
            Ok(_) => Err(Declined::Undecided("the cluster gave another answer".to_owned())),
            Err(ProposeError::NotLeader { leader }) => Ok(Err(leader)),
            Err(error @ ProposeError::Refused(_)) => Err(Declined::Refused(error.to_string())),
            Err(error) => Err(Declined::Undecided(error.to_string())),
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
