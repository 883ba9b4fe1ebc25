//! What a node knows of its part in Raft.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{LogIdOptionExt, RaftMetrics};

use super::{Term, TypeConfig};
use crate::event::node::NodeId;

/// A node's part in Raft at one moment, as the node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node itself.
    pub id: NodeId,
    /// The newest term that it knows.
    pub term: Term,
    /// Who leads in that term, if it knows.
    pub leader: Option<NodeId>,
    /// The index of the last entry in its log.
    pub last: Option<u64>,
    /// The index of the last entry in its facts.
    pub applied: Option<u64>,
    /// The index of the last entry in its newest snapshot.
    pub snapshot: Option<u64>,
    /// The index of the last entry that is gone from its log.
    pub purged: Option<u64>,
    /// The members that vote; while they change, those before and those after.
    pub voters: BTreeSet<NodeId>,
    /// The members that only learn.
    pub learners: BTreeSet<NodeId>,
    /// While it leads: the index of the last entry that each member has.
    pub replicated: BTreeMap<NodeId, Option<u64>>,
    /// Why it takes no part any more, if so.
    pub stopped: Option<String>,
}

impl Status {
    /// Whether the node leads, as far as it knows: a node that is cut off may believe so
    /// while the others have elected another.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.id)
    }
}

impl From<&RaftMetrics<TypeConfig>> for Status {
    fn from(metrics: &RaftMetrics<TypeConfig>) -> Status {
        let members = metrics.membership_config.membership();
        let replicated = metrics.replication.iter().flatten();
        Status {
            id: metrics.id,
            term: metrics.current_term,
            leader: metrics.current_leader,
            last: metrics.last_log_index,
            applied: metrics.last_applied.index(),
            snapshot: metrics.snapshot.index(),
            purged: metrics.purged.index(),
            voters: members.voter_ids().collect(),
            learners: members.learner_ids().collect(),
            replicated: replicated.map(|(id, matched)| (*id, matched.index())).collect(),
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }
}
