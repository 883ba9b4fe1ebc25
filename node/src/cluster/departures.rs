//! Who may leave the cluster, beyond what the facts know: whom the leader reaches.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::raft::{Decision, ProposeError, Raft, Status};
use crate::cluster::leases::LEASE;
use crate::cluster::proposals::{ProposalError, Proposals};
use crate::event::node::NodeId;

/// How long a member that is there may take to answer its leader.
pub const SILENCE: Duration = Duration::from_secs(2);
/// How long a decision may take.
const DECISION_WAIT: Duration = Duration::from_secs(10);
/// How long a silent member may still have a lease, and more.
const LEASE_WAIT: Duration = Duration::from_secs(30);
/// How long to rest before the cluster is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

const _: () = assert!(LEASE_WAIT.as_secs() > 2 * LEASE.as_secs());

/// Asks the cluster to let members go; cheap to clone.
#[derive(Clone)]
pub struct Departures {
    proposals: Proposals,
}

impl Departures {
    /// Asks through `proposals`.
    pub fn new(proposals: Proposals) -> Departures {
        Departures { proposals }
    }

    /// Has a member hand over everything that it has. Asking again changes nothing.
    ///
    /// # Errors
    /// When the others could not do without it, or nobody decides.
    pub async fn drain(&self, node: NodeId) -> Result<(), ProposalError> {
        self.proposals.propose(Command::Drain { node }, DECISION_WAIT).await.map(drop)
    }

    /// Gives a member up, once it cannot append any more. Asking again changes nothing.
    ///
    /// # Errors
    /// When the member answers, or the others could not do without it, or nobody decides.
    pub async fn forget(&self, node: NodeId) -> Result<(), ProposalError> {
        let deadline = Instant::now() + LEASE_WAIT;
        loop {
            let command = Command::Forget { node };
            match self.proposals.propose(command, DECISION_WAIT).await {
                Err(ProposalError::Refused(
                    Refused::StillAppending { .. } | Refused::LeaseRuns { .. },
                )) if Instant::now() < deadline => sleep(AGAIN_AFTER).await,
                decided => return decided.map(drop),
            }
        }
    }
}

/// Has the cluster decide on a command, as its leader: as [`Raft::decide`], unless somebody
/// would leave who cannot.
///
/// # Errors
/// As [`Raft::decide`].
pub async fn decide(raft: &Raft, command: Command) -> Result<Decision, ProposeError> {
    let status = raft.status();
    if status.leads() {
        let facts = raft.facts().borrow().clone();
        let answers = |id| raft.silent_for(id).is_some_and(|silence| silence < SILENCE);
        if let Some(refused) = objection(&command, &facts, &status, answers) {
            let index = status.applied.unwrap_or_default();
            return Ok(Decision { index, outcome: Err(refused) });
        }
    }
    raft.decide(command).await
}

/// Why somebody cannot leave although the facts would allow it.
fn objection(
    command: &Command,
    facts: &Facts,
    status: &Status,
    answers: impl Fn(NodeId) -> bool,
) -> Option<Refused> {
    let state = |node: &NodeId| facts.members().get(node).map(|member| member.state);
    match *command {
        Command::Drain { node } if state(&node).is_some_and(MemberState::may_own) => {
            no_majority_left(node, status, answers)
        }
        Command::Drained { node } if status.voters.contains(&node) => {
            Some(Refused::StillVotes { node })
        }
        Command::Forget { node }
            if answers(node) && !state(&node).is_some_and(MemberState::is_gone) =>
        {
            Some(Refused::StillAnswers { node })
        }
        _ => None,
    }
}

fn no_majority_left(
    node: NodeId,
    status: &Status,
    answers: impl Fn(NodeId) -> bool,
) -> Option<Refused> {
    let voters: BTreeSet<_> = status.voters.iter().filter(|&&voter| voter != node).collect();
    let reached = voters.iter().filter(|&&&voter| answers(voter)).count();
    let voters = voters.len();
    (reached <= voters / 2 && voters > 0).then_some(Refused::NoMajorityLeft {
        node,
        reached,
        voters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::Settings;
    use crate::cluster::example::join;

    const NODE: NodeId = NodeId(3);

    /// Three active members.
    fn facts() -> Facts {
        let mut facts = Facts::new(Settings { slots: 256 });
        for number in 1..=3 {
            facts.apply(join(number)).unwrap();
            facts.apply(Command::Activate { node: NodeId(number.into()) }).unwrap();
        }
        facts
    }

    /// What node 1 knows as the leader.
    fn status(voters: &[u64]) -> Status {
        Status {
            id: NodeId(1),
            term: 1,
            leader: Some(NodeId(1)),
            last: None,
            applied: None,
            snapshot: None,
            purged: None,
            voters: voters.iter().copied().map(NodeId).collect(),
            learners: BTreeSet::new(),
            replicated: std::collections::BTreeMap::new(),
            stopped: None,
        }
    }

    fn drain(voters: &[u64], answer: &[u64]) -> Option<Refused> {
        let answers = |id: NodeId| answer.contains(&id.0);
        objection(&Command::Drain { node: NODE }, &facts(), &status(voters), answers)
    }

    #[test]
    fn a_node_is_drained_only_if_the_others_are_a_majority_without_it() {
        assert_eq!(drain(&[1, 2, 3], &[1, 2]), None);
        let refused = Refused::NoMajorityLeft { node: NODE, reached: 1, voters: 2 };
        assert_eq!(drain(&[1, 2, 3], &[1, 3]), Some(refused));
        assert_eq!(drain(&[1, 2, 3, 4, 5], &[1, 2, 4]), None);
        let refused = Refused::NoMajorityLeft { node: NODE, reached: 2, voters: 4 };
        assert_eq!(drain(&[1, 2, 3, 4, 5], &[1, 2, 3]), Some(refused));
        assert_eq!(drain(&[1, 2], &[1, 2]), None, "it does not vote");
    }

    #[test]
    fn a_node_that_is_drained_already_needs_no_majority_again() {
        let mut facts = facts();
        let command = Command::Drain { node: NODE };
        facts.apply(command.clone()).unwrap();
        assert_eq!(objection(&command, &facts, &status(&[1, 2, 3]), |_| false), None);
        let stranger = Command::Drain { node: NodeId(9) };
        assert_eq!(objection(&stranger, &facts, &status(&[1, 2, 3]), |_| false), None);
    }

    #[test]
    fn a_node_is_not_drained_while_it_votes() {
        let command = Command::Drained { node: NODE };
        let objection = |voters| objection(&command, &facts(), &status(voters), |_| true);
        assert_eq!(objection(&[1, 2, 3]), Some(Refused::StillVotes { node: NODE }));
        assert_eq!(objection(&[1, 2]), None);
    }

    #[test]
    fn only_a_silent_node_is_forgotten() {
        let mut facts = facts();
        let command = Command::Forget { node: NODE };
        let silent = |node: NodeId| node != NODE;
        assert_eq!(objection(&command, &facts, &status(&[1, 2, 3]), silent), None);
        let refused = objection(&command, &facts, &status(&[1, 2, 3]), |_| true);
        assert_eq!(refused, Some(Refused::StillAnswers { node: NODE }));
        facts.apply(command.clone()).unwrap();
        let again = objection(&command, &facts, &status(&[1, 2]), |_| true);
        assert_eq!(again, None, "it came back, and hears that it is forgotten");
    }
}
