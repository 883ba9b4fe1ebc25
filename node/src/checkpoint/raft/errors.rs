//! Why a node does not take part, or a proposal has no effect.

use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, InitializeError, LinearizableReadError,
};

use super::record::RecordError;
use super::{Member, TypeConfig};
use crate::checkpoint::facts::refused::Refused;

/// Why a node does not take part.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database failed, or holds a record that cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What the database holds does not fit together.
    #[error("start Raft: {reason}")]
    Raft {
        /// What was found.
        reason: String,
    },
}

/// Why a proposal did not take effect, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead and has kept nothing of it: ask the leader, or, if none
    /// is named, another member.
    #[error("this node does not lead; {}", ask(.leader.as_ref()))]
    NotLeader {
        /// Who leads or is about to, if this node knows.
        leader: Option<Member>,
    },
    /// No majority answered in time, or the node lost the lead meanwhile: it may have
    /// taken effect, or may yet.
    #[error("nobody knows yet whether it takes effect: no majority has answered")]
    Undecided,
    /// The facts do not allow the command. This was decided by the cluster and is final.
    #[error(transparent)]
    Refused(Refused),
    /// The members, or the one that leads, cannot be changed like this now.
    #[error("{reason}")]
    Membership {
        /// What stands in the way.
        reason: String,
    },
    /// This node takes no part any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

fn ask(leader: Option<&Member>) -> String {
    match leader {
        Some(Member { id, address }) => format!("ask node {id} at {address}"),
        None => "ask another".to_owned(),
    }
}

/// This node takes no part any more: it was shut down, or its database failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Raft has stopped on this node: {reason}")]
pub struct Stopped {
    /// What ended it.
    pub reason: String,
}

impl From<Fatal<TypeConfig>> for Stopped {
    fn from(error: Fatal<TypeConfig>) -> Stopped {
        Stopped { reason: error.to_string() }
    }
}

impl From<ForwardToLeader<TypeConfig>> for ProposeError {
    fn from(forward: ForwardToLeader<TypeConfig>) -> ProposeError {
        let leader = forward.leader_id.zip(forward.leader_node);
        let leader = leader.map(|(id, address)| Member { id, address });
        ProposeError::NotLeader { leader }
    }
}

impl From<ClientWriteError<TypeConfig>> for ProposeError {
    fn from(error: ClientWriteError<TypeConfig>) -> ProposeError {
        match error {
            ClientWriteError::ForwardToLeader(forward) => forward.into(),
            ClientWriteError::LogEntryDiscarded(_) => ProposeError::Undecided,
            ClientWriteError::ChangeMembershipError(error) => {
                ProposeError::Membership { reason: error.to_string() }
            }
            ClientWriteError::PreconditionFailed(error) => {
                ProposeError::Membership { reason: error.to_string() }
            }
        }
    }
}

impl From<LinearizableReadError<TypeConfig>> for ProposeError {
    fn from(error: LinearizableReadError<TypeConfig>) -> ProposeError {
        match error {
            LinearizableReadError::ForwardToLeader(forward) => forward.into(),
            LinearizableReadError::QuorumNotEnough(_) => ProposeError::Undecided,
        }
    }
}

impl From<InitializeError<TypeConfig>> for ProposeError {
    fn from(error: InitializeError<TypeConfig>) -> ProposeError {
        ProposeError::Membership { reason: error.to_string() }
    }
}
