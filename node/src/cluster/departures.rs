//! Who may leave the cluster, beyond what the facts know: whom the leader reaches, and what room
//! others have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::raft::{Decision, ProposeError, Raft, Status};
use crate::cluster::leases::LEASE;
use crate::cluster::lending::Lending;
use crate::cluster::peers::{self, Holdings as _, Room};
use crate::cluster::proposals::{ProposalError, Proposals};
use crate::event::node::NodeId;

/// How long a member that is there may take to answer its leader.
pub const SILENCE: Duration = Duration::from_secs(2);
/// How long a decision may take.
const DECISION_WAIT: Duration = Duration::from_secs(10);
/// How long a silent member may still have a lease, and more.
const LEASE_WAIT: Duration = Duration::from_secs(30);
/// How long a member may take to look at all of its files.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long to rest before the cluster is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

const _: () = assert!(LEASE_WAIT.as_secs() > 2 * LEASE.as_secs());

/// Asks the cluster to let members go; cheap to clone.
#[derive(Clone)]
pub struct Departures {
    /// Who is asked.
    pub proposals: Proposals,
    /// This node's files ..
    pub lending: Lending,
    /// .. and the ways to the other members.
    pub members: peers::Member,
}

impl Departures {
    /// Has a member hand over everything that it has. Asking again changes nothing.
    ///
    /// # Errors
    /// When the others could not do without it or hold what it has, or nobody decides.
    pub async fn drain(&self, node: NodeId) -> Result<(), ProposalError> {
        if let Some(refused) = self.lacks_room(node).await {
            return Err(ProposalError::Refused(refused));
        }
        self.proposals.propose(Command::Drain { node }, DECISION_WAIT).await.map(drop)
    }

    /// Why the others could not hold a member's files, if any are rebuilt, and as far as they say how
    /// much room they have.
    async fn lacks_room(&self, node: NodeId) -> Option<Refused> {
        let facts = self.lending.facts.borrow().clone();
        facts.rebuilding().next()?;
        let stay = facts.members().iter().filter(|(_, member)| member.state.may_own());
        let asked = stay.map(async |(&id, member)| match self.room(id, &member.address).await {
            Ok(room) => (id, Some(room)),
            Err(error) => {
                debug!(node = %id, %error, "a member does not say what room it has");
                (id, None)
            }
        });
        no_room(node, &join_all(asked).await.into_iter().collect())
    }

    async fn room(&self, node: NodeId, address: &str) -> Result<Room, String> {
        if node == self.lending.keeping.node {
            return self.lending.room().await.map_err(|declined| declined.to_string());
        }
        let told = self.members.other(node, address).room(ROOM_WAIT).await;
        told.map_err(|error| error.to_string())
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

/// Whether a member's files are too many for one of the others, which get as much each: its slots
/// are spread over all. Who does not say what room it has, has it.
fn no_room(node: NodeId, rooms: &BTreeMap<NodeId, Option<Room>>) -> Option<Refused> {
    let taken = rooms.get(&node).copied().flatten()?.taken;
    let others = rooms.iter().filter(|&(&other, _)| other != node);
    let share = taken.div_ceil((rooms.len() as u64 - 1).max(1));
    let left = others.filter_map(|(&other, room)| room.map(|room| (room.left, other)));
    let (left, full) = left.min()?;
    (left < share).then_some(Refused::NoRoom { node, share, full, left })
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
            replicated: BTreeMap::new(),
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
    fn a_node_is_drained_only_if_each_other_has_room_for_its_share_of_the_files() {
        let rooms = |left: [Option<u64>; 2]| {
            let others = left.map(|left| left.map(|left| Room { taken: 100, left }));
            let all = [others[0], others[1], Some(Room { taken: 81, left: 0 })];
            let all = all.into_iter().enumerate().map(|(at, room)| (NodeId(at as u64 + 1), room));
            no_room(NODE, &all.collect())
        };
        assert_eq!(rooms([Some(41), Some(41)]), None);
        let refused = Refused::NoRoom { node: NODE, share: 41, full: NodeId(2), left: 40 };
        assert_eq!(rooms([Some(900), Some(40)]), Some(refused.clone()));
        assert_eq!(rooms([None, Some(40)]), Some(refused));
        assert_eq!(rooms([None, None]), None, "nobody says");
        assert_eq!(no_room(NodeId(9), &BTreeMap::new()), None, "the facts tell");
        let silent = [(NODE, None), (NodeId(1), Some(Room::default()))];
        assert_eq!(no_room(NODE, &silent.into()), None);
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
