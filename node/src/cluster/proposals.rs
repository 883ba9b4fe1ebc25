//! Commands to the leader, wherever it is.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::raft::{
    self, DECISION_WAIT, Decision, ProposeError, Raft, Status, Stopped, Term,
};
use crate::cluster::cutting::Lead;
use crate::cluster::departures;
use crate::cluster::peers::{Member, PeerError, Reply};
use crate::flush::feed::{Consensus, Disagreement};

/// How long a leader may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(7);
/// How long a decision may take before somebody is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to rest before a command is proposed again, unless another leads earlier.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

// The leader itself says when nothing was decided.
const _: () = assert!(ANSWER_WAIT.as_millis() > DECISION_WAIT.as_millis());

/// Why a command did not take effect, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// The facts do not allow it. This was decided by the cluster and is final; the facts
    /// on this node are those that it was decided by, or newer.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Time is over: it may have taken effect, or may yet.
    #[error("nobody knows after {within:?} whether it takes effect: {reason}")]
    Undecided {
        /// How much time there was.
        within: Duration,
        /// What came of the last attempt.
        reason: String,
    },
    /// This node takes no part any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Has the cluster apply commands, from any member; cheap to clone.
#[derive(Clone)]
pub struct Proposals {
    raft: Raft,
    member: Member,
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum Setback {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The next one may do better.
    #[error("{0}")]
    Again(String),
}

impl From<PeerError> for Setback {
    fn from(error: PeerError) -> Setback {
        Setback::Again(error.to_string())
    }
}

impl Proposals {
    /// Proposes as the member that takes part through `raft`, and asks others as `member`.
    pub fn new(raft: Raft, member: Member) -> Proposals {
        Proposals { raft, member }
    }

    /// The facts on this node, and word of each change; see [`Raft::facts`].
    pub fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.raft.facts()
    }

    /// Has the cluster apply `command`, and returns what it did. This node's facts contain
    /// it by then, whoever leads. While nobody leads it waits. What was not decided it
    /// proposes again, so the command may be applied twice: each says what that does.
    ///
    /// # Errors
    /// As [`ProposalError`] says.
    pub async fn propose(
        &self,
        command: Command,
        within: Duration,
    ) -> Result<Applied, ProposalError> {
        let mut reason = "nobody was asked".to_owned();
        let deciding = async {
            let decision = self.decide(&command, &mut reason).await?;
            reason = format!("this node has not heard of entry {}", decision.index);
            self.raft.until_applied(decision.index).await?;
            Ok(decision.outcome?)
        };
        match timeout(within, deciding).await {
            Ok(decided) => decided,
            Err(_) => Err(ProposalError::Undecided { within, reason }),
        }
    }

    /// Tries again and again; `reason` says what came of the last attempt.
    async fn decide(&self, command: &Command, reason: &mut String) -> Result<Decision, Stopped> {
        loop {
            let before = self.raft.status();
            match self.attempt(command, &before).await {
                Ok(decision) => return Ok(decision),
                Err(Setback::Stopped(stopped)) => return Err(stopped),
                Err(Setback::Again(setback)) => *reason = setback,
            }
            let news = self.raft.until(|now| is_news(now, &before));
            if let Ok(Err(stopped)) = timeout(AGAIN_AFTER, news).await {
                return Err(stopped);
            }
        }
    }

    /// Asks the leader that this node knows, or the one that it names.
    async fn attempt(&self, command: &Command, before: &Status) -> Result<Decision, Setback> {
        let nobody = || Setback::Again("nobody leads at the moment".to_owned());
        let mut leader = self.raft.leader().ok_or_else(nobody)?;
        // Whoever was asked may know better; the one that it names leads, or nobody knows.
        for _ in 0..2 {
            match self.ask(&leader, command, before).await? {
                Reply::Done(decision) => return Ok(decision),
                Reply::NotLeader { leader: Some(named) } if named != leader => leader = named,
                Reply::NotLeader { .. } => break,
            }
        }
        Err(nobody())
    }

    async fn ask(
        &self,
        leader: &raft::Member,
        command: &Command,
        before: &Status,
    ) -> Result<Reply<Decision>, Setback> {
        if leader.id == before.id {
            return match departures::decide(&self.raft, command.clone()).await {
                Ok(decision) => Ok(Reply::Done(decision)),
                Err(ProposeError::NotLeader { leader }) => Ok(Reply::NotLeader { leader }),
                Err(ProposeError::Stopped(stopped)) => Err(stopped.into()),
                Err(error) => Err(Setback::Again(error.to_string())),
            };
        }
        // A leader that died does not answer; another is elected long before it is missed.
        let other = self.raft.until(|now| is_news(now, before) && now.leader != Some(leader.id));
        let asked = self.member.other(leader.id, &leader.address);
        tokio::select! {
            reply = asked.propose(command, ANSWER_WAIT) => Ok(reply?),
            other = other => {
                other?;
                Err(Setback::Again(format!("node {} leads no more", leader.id)))
            }
        }
    }
}

impl Consensus for Proposals {
    fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        Proposals::facts(self)
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, Disagreement>> {
        let deciding = async move {
            loop {
                match Proposals::propose(self, command.clone(), PATIENCE).await {
                    Ok(applied) => return Ok(applied),
                    Err(ProposalError::Refused(refused)) => return Err(refused.into()),
                    Err(ProposalError::Stopped(stopped)) => return Err(stopped.into()),
                    Err(error @ ProposalError::Undecided { .. }) => {
                        warn!(%error, "the cluster does not decide; this node asks again");
                    }
                }
            }
        };
        deciding.boxed()
    }
}

impl Lead for Proposals {
    fn confirm(&self) -> BoxFuture<'_, Result<Option<Term>, Disagreement>> {
        self.raft.read_index().map(as_leader).boxed()
    }

    fn propose_in(
        &self,
        term: Term,
        command: Command,
    ) -> BoxFuture<'_, Result<Option<Applied>, Disagreement>> {
        self.raft.propose_in(term, command).map(as_leader).boxed()
    }
}

/// What came of something that only a leader does.
fn as_leader<T>(done: Result<T, ProposeError>) -> Result<Option<T>, Disagreement> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(ProposeError::Refused(refused)) => Err(refused.into()),
        Err(ProposeError::Stopped(stopped)) => Err(stopped.into()),
        Err(error) => {
            debug!(%error, "this node does not lead, as far as it can tell");
            Ok(None)
        }
    }
}

/// Whether another leads, or the same in another term.
fn is_news(now: &Status, before: &Status) -> bool {
    now.leader.is_some() && (now.leader, now.term) != (before.leader, before.term)
}

#[cfg(test)]
mod tests;
