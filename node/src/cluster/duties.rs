//! What the leader has to see to among the members: decided from the facts and from
//! Raft's own list of members, acted on elsewhere.

use std::collections::BTreeSet;
use std::fmt;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::command::Command;
use crate::checkpoint::facts::members::{Member, MemberState};
use crate::checkpoint::identity::Birth;
use crate::checkpoint::raft::{self, Status};
use crate::cluster::formation::Founding;
use crate::cluster::owners;
use crate::cluster::placement::Copies;
use crate::event::node::NodeId;

/// How many members vote at most: an odd number, so that a majority is well defined. More than
/// five would make each decision slower and none safer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voters(u8);

/// Not a number of voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1, 3 or 5 members vote, not {0}")]
pub struct InvalidVoters(u8);

impl Voters {
    /// As many as there may be.
    pub const FIVE: Voters = Voters(5);
}

impl TryFrom<u8> for Voters {
    type Error = InvalidVoters;

    fn try_from(count: u8) -> Result<Voters, InvalidVoters> {
        match count {
            1 | 3 | 5 => Ok(Voters(count)),
            _ => Err(InvalidVoters(count)),
        }
    }
}

/// A log that is this close to the leader's has caught up: the rest follows at once.
const ENTRIES_BEHIND_MAX: u64 = 50;

/// Something that the leader has to do. Each can be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// To propose a command.
    Propose(Command),
    /// To send the facts to a member that does not get them yet.
    Teach(raft::Member),
    /// To hand the lead on to this member.
    HandOn(NodeId),
    /// To let these members vote, and no others.
    LetVote(BTreeSet<NodeId>),
    /// To send nothing more to a member that is gone.
    Dismiss(NodeId),
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duty::Propose(Command::Place { changes }) => {
                write!(f, "new owners for {} slots", changes.len())
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// What the leader has to do next, if anything. When it is done, there may be more. The
/// members in `silent` do not answer any more; each slot is to have so many owners, and so many
/// members are to vote.
pub fn next(
    founding: &Founding,
    facts: &Facts,
    status: &Status,
    silent: &BTreeSet<NodeId>,
    copies: Copies,
    voters: Voters,
) -> Option<Duty> {
    first_join(founding, facts)
        .or_else(|| teach(facts, status))
        .or_else(|| hand_on(facts, status))
        .or_else(|| let_vote(facts, status, voters))
        .or_else(|| activate(facts, status))
        .or_else(|| place(founding, facts, silent, copies))
        .or_else(|| dismiss(facts, status))
}

/// Founders got their ids before there were facts: in order, they get the same ones again.
fn first_join(founding: &Founding, facts: &Facts) -> Option<Duty> {
    let (_, founder) = founding.members().find(|(id, _)| !facts.members().contains_key(id))?;
    let Birth { uuid, address, zone, .. } = founder.clone();
    Some(Duty::Propose(Command::Join { uuid, address, zone }))
}

fn teach(facts: &Facts, status: &Status) -> Option<Duty> {
    let is_taught = |id: &NodeId| status.voters.contains(id) || status.learners.contains(id);
    let (id, member) = facts.staying().find(|(id, _)| !is_taught(id))?;
    Some(Duty::Teach(raft::Member { id, address: member.address.clone() }))
}

/// A leader that is drained lets another voter lead, and loses its vote then.
fn hand_on(facts: &Facts, status: &Status) -> Option<Duty> {
    let may = |id: &&NodeId| may_vote(**id, facts) && has_caught_up(**id, status);
    let is_over = !may_vote(status.id, facts);
    status.voters.iter().find(may).filter(|_| is_over).map(|&to| Duty::HandOn(to))
}

/// The voters are the members with the lowest ids of those that stay; one that votes
/// keeps its vote, so that nobody's coming takes another's away. A leader votes while it
/// leads.
fn let_vote(facts: &Facts, status: &Status, most: Voters) -> Option<Duty> {
    let may = |&(id, _): &(NodeId, &Member)| {
        id == status.id || may_vote(id, facts) && has_caught_up(id, status)
    };
    let mut candidates: Vec<NodeId> = facts.staying().filter(may).map(|(id, _)| id).collect();
    candidates.sort_by_key(|id| (*id != status.id, !status.voters.contains(id), *id));
    candidates.truncate(voters_of(candidates.len(), most));
    let voters: BTreeSet<NodeId> = candidates.into_iter().collect();
    // A voter that does not answer keeps its vote: it is not for silence to take it.
    let silent = |id: &NodeId| !has_caught_up(*id, status) && facts.stays(*id);
    let loses = status.voters.iter().any(|id| !voters.contains(id) && silent(id));
    (!voters.is_empty() && !loses && voters != status.voters).then_some(Duty::LetVote(voters))
}

/// An odd number, for an even one bears no more failures than the odd one below it; but
/// two, so that the facts outlive the loss of either.
fn voters_of(members: usize, most: Voters) -> usize {
    match members.min(most.0.into()) {
        4 => 3,
        others => others,
    }
}

fn activate(facts: &Facts, status: &Status) -> Option<Duty> {
    let is_due = |&(id, member): &(NodeId, &Member)| {
        member.state == MemberState::Joining && has_caught_up(id, status)
    };
    facts.staying().find(is_due).map(|(node, _)| Duty::Propose(Command::Activate { node }))
}

/// All founders are there when the first slots are placed: to move them would only take time.
fn place(
    founding: &Founding,
    facts: &Facts,
    silent: &BTreeSet<NodeId>,
    copies: Copies,
) -> Option<Duty> {
    let mut founders = founding.members();
    let is_active = |id| facts.members().get(&id).is_some_and(|m| m.state == MemberState::Active);
    if facts.slots().is_empty() && !founders.all(|(id, _)| is_active(id)) {
        return None;
    }
    owners::next(facts, silent, copies).map(Duty::Propose)
}

/// A member that is gone is to hear that it is; when it hears nothing any more, nobody
/// needs to tell it anything.
fn dismiss(facts: &Facts, status: &Status) -> Option<Duty> {
    let gone = |id: &&NodeId| !facts.stays(**id) && !has_caught_up(**id, status);
    status.learners.iter().find(gone).map(|id| Duty::Dismiss(*id))
}

fn may_vote(id: NodeId, facts: &Facts) -> bool {
    facts.stays(id)
        && facts.members().get(&id).is_some_and(|member| member.state != MemberState::Draining)
}

fn has_caught_up(id: NodeId, status: &Status) -> bool {
    let replicated = status.replicated.get(&id).copied().flatten();
    let far_enough = status.last.unwrap_or(0).saturating_sub(ENTRIES_BEHIND_MAX);
    id == status.id || replicated.is_some_and(|index| index >= far_enough)
}

/// The voters that a cluster begins with: the founders with the lowest ids, as many as there
/// may be. Each founder has to find the same ones, also if their settings differ; the leader
/// takes votes away that are too many.
pub fn first_voters(founding: &Founding) -> Vec<raft::Member> {
    let count = voters_of(founding.founders().len(), Voters::FIVE);
    let member =
        |(id, founder): (NodeId, &Birth)| raft::Member { id, address: founder.address.clone() };
    founding.members().take(count).map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::Settings;
    use crate::cluster::example::{born, join, member};

    fn founding(members: u8) -> Founding {
        Founding::of((1..=members).map(born).collect())
    }

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    /// Facts with so many active members.
    fn active(members: u8) -> Facts {
        let mut facts = Facts::new(Settings { slots: 256 });
        for number in 1..=members {
            facts.apply(join(number)).unwrap();
            facts.apply(Command::Activate { node: NodeId(number.into()) }).unwrap();
        }
        facts
    }

    /// What is due when all slots are where they are to be.
    fn next(founding: &Founding, facts: &Facts, status: &Status) -> Option<Duty> {
        let mut facts = facts.clone();
        if let Some(place) = owners::next(&facts, &BTreeSet::new(), Copies::ONE) {
            facts.apply(place).unwrap();
        }
        super::next(founding, &facts, status, &BTreeSet::new(), Copies::ONE, Voters::FIVE)
    }

    /// What node 1 knows as the leader when all others have caught up.
    fn leads(voters: &[u64], learners: &[u64]) -> Status {
        let others = voters.iter().chain(learners).filter(|id| **id != 1);
        Status {
            id: NodeId(1),
            term: 1,
            leader: Some(NodeId(1)),
            last: Some(1000),
            applied: Some(1000),
            snapshot: None,
            purged: None,
            voters: nodes(voters),
            learners: nodes(learners),
            replicated: others.map(|id| (NodeId(*id), Some(1000))).collect(),
            stopped: None,
        }
    }

    #[test]
    fn founders_join_in_the_order_of_their_ids_and_get_the_same_ids() {
        let mut facts = Facts::new(Settings { slots: 256 });
        for number in 1..=3 {
            let duty = next(&founding(3), &facts, &leads(&[1, 2, 3], &[]));
            assert_eq!(duty, Some(Duty::Propose(join(number))));
            facts.apply(join(number)).unwrap();
        }
        assert_eq!(facts.members()[&NodeId(2)].uuid, born(2).uuid);
    }

    #[test]
    fn a_member_is_active_once_it_has_caught_up() {
        let mut facts = active(2);
        facts.apply(join(3)).unwrap();
        let first = next(&founding(2), &facts, &leads(&[1, 2], &[]));
        assert_eq!(first, Some(Duty::Teach(member(3))));

        let mut status = leads(&[1, 2], &[3]);
        status.replicated.insert(NodeId(3), Some(900));
        assert_eq!(next(&founding(2), &facts, &status), None);
        status.replicated.insert(NodeId(3), Some(990));
        let duty = next(&founding(2), &facts, &status);
        assert_eq!(duty, Some(Duty::LetVote(nodes(&[1, 2, 3]))));
        let duty = next(&founding(2), &facts, &leads(&[1, 2, 3], &[]));
        assert_eq!(duty, Some(Duty::Propose(Command::Activate { node: NodeId(3) })));
        facts.apply(Command::Activate { node: NodeId(3) }).unwrap();
        assert_eq!(next(&founding(2), &facts, &leads(&[1, 2, 3], &[])), None);
    }

    #[test]
    fn slots_are_placed_once_all_founders_are_there() {
        let mut facts = active(2);
        facts.apply(join(3)).unwrap();
        let mut status = leads(&[1, 2, 3], &[]);
        status.replicated.insert(NodeId(3), Some(1));
        let next = |facts: &Facts| {
            super::next(&founding(3), facts, &status, &BTreeSet::new(), Copies::ONE, Voters::FIVE)
        };
        assert_eq!(next(&facts), None);
        facts.apply(Command::Activate { node: NodeId(3) }).unwrap();
        let duty = next(&facts).unwrap();
        assert_eq!(duty.to_string(), "new owners for 256 slots");
    }

    #[test]
    fn five_vote_at_most_and_nobody_loses_a_vote_to_a_newcomer() {
        let done = |members, voters: &[u64], learners: &[u64]| {
            next(&founding(1), &active(members), &leads(voters, learners))
        };
        assert_eq!(done(4, &[1, 2, 3], &[4]), None);
        assert_eq!(done(5, &[1, 2, 3], &[4, 5]), Some(Duty::LetVote(nodes(&[1, 2, 3, 4, 5]))));
        assert_eq!(done(7, &[1, 4, 5, 6, 7], &[2, 3]), None);
    }

    #[test]
    fn fewer_vote_where_the_leader_is_told_so() {
        let facts = active(5);
        let done = |most, voters: &[u64], learners: &[u64]| {
            let mut facts = facts.clone();
            facts.apply(owners::next(&facts, &BTreeSet::new(), Copies::ONE).unwrap()).unwrap();
            let (status, most) = (leads(voters, learners), Voters::try_from(most).unwrap());
            super::next(&founding(3), &facts, &status, &BTreeSet::new(), Copies::ONE, most)
        };
        assert_eq!(done(3, &[1, 2, 3], &[4, 5]), None);
        assert_eq!(done(3, &[1, 2, 3, 4, 5], &[]), Some(Duty::LetVote(nodes(&[1, 2, 3]))));
        assert_eq!(done(1, &[1, 2, 3], &[4, 5]), Some(Duty::LetVote(nodes(&[1]))));
        assert_eq!(done(5, &[1, 2, 3], &[4, 5]), Some(Duty::LetVote(nodes(&[1, 2, 3, 4, 5]))));
    }

    #[test]
    fn one_three_or_five_vote() {
        for count in 0..=255 {
            assert_eq!(Voters::try_from(count).is_ok(), [1, 3, 5].contains(&count), "{count}");
        }
    }

    #[test]
    fn a_voter_that_is_silent_keeps_its_vote() {
        let mut status = leads(&[1, 2, 3], &[4]);
        status.replicated.insert(NodeId(3), Some(1));
        assert_eq!(next(&founding(3), &active(4), &status), None);
    }

    #[test]
    fn a_leader_that_is_drained_hands_the_lead_on_before_it_loses_its_vote() {
        let mut facts = active(4);
        facts.apply(Command::Drain { node: NodeId(1) }).unwrap();
        let mut status = leads(&[1, 2, 3], &[4]);
        status.replicated.insert(NodeId(2), Some(1));
        assert_eq!(next(&founding(3), &facts, &status), Some(Duty::HandOn(NodeId(3))));
        let led_by_another = Status { id: NodeId(3), ..leads(&[1, 2, 3], &[4]) };
        let replicated = [1, 2, 4].map(|id| (NodeId(id), Some(1000))).into();
        let led_by_another = Status { replicated, ..led_by_another };
        let duty = next(&founding(3), &facts, &led_by_another);
        assert_eq!(duty, Some(Duty::LetVote(nodes(&[2, 3, 4]))));
    }

    #[test]
    fn a_leader_that_is_drained_votes_until_there_is_another_voter() {
        let mut facts = active(2);
        facts.apply(Command::Drain { node: NodeId(1) }).unwrap();
        let duty = next(&founding(1), &facts, &leads(&[1], &[2]));
        assert_eq!(duty, Some(Duty::LetVote(nodes(&[1, 2]))));
        let duty = next(&founding(1), &facts, &leads(&[1, 2], &[]));
        assert_eq!(duty, Some(Duty::HandOn(NodeId(2))));
    }

    #[test]
    fn a_leader_keeps_its_vote_when_fewer_vote() {
        let mut facts = active(5);
        facts.apply(Command::Forget { node: NodeId(2) }).unwrap();
        let replicated = [1, 3, 4].map(|id| (NodeId(id), Some(1000))).into();
        let status = Status { id: NodeId(5), replicated, ..leads(&[1, 2, 3, 4, 5], &[]) };
        let duty = next(&founding(3), &facts, &status);
        assert_eq!(duty, Some(Duty::LetVote(nodes(&[1, 3, 5]))));
    }

    #[test]
    fn a_member_that_is_gone_hears_of_it_and_is_dismissed_when_it_is_silent() {
        let mut facts = active(4);
        facts.apply(Command::Forget { node: NodeId(3) }).unwrap();
        let mut status = leads(&[1, 2, 3], &[4]);
        status.replicated.insert(NodeId(3), Some(1));
        let duty = next(&founding(3), &facts, &status);
        assert_eq!(duty, Some(Duty::LetVote(nodes(&[1, 2, 4]))));
        let mut status = leads(&[1, 2, 4], &[3]);
        assert_eq!(next(&founding(3), &facts, &status), None);
        status.replicated.insert(NodeId(3), Some(1));
        let duty = next(&founding(3), &facts, &status);
        assert_eq!(duty, Some(Duty::Dismiss(NodeId(3))));
    }

    #[test]
    fn a_cluster_begins_with_an_odd_number_of_voters_or_two() {
        let voters = |members| first_voters(&founding(members)).len();
        assert_eq!([1, 2, 3, 4, 5, 6].map(voters), [1, 2, 3, 3, 5, 5]);
        assert_eq!(first_voters(&founding(2)), [member(1), member(2)]);
    }
}
