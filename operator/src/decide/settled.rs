//! Whether the cluster could do without one more node: everything is counted up to now, and all
//! that is needed twice is there twice.

use std::fmt;

use sheaf_proto::cluster::{Cluster, Member, MemberState, SegmentState};

use super::fleet::{Answers, is_gone};

/// How many slots and copies there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redundancy {
    /// The number of slots.
    pub slots: u64,
    /// On how many members each slot and what is accepted are to be.
    pub copies: u64,
}

/// What is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// Nobody leads, or the leader does not answer.
    NoLeader,
    /// A member comes or goes.
    Moving(u64),
    /// The leader does not reach a member.
    Unreached(u64),
    /// Nobody counts so many slots.
    Unled(u64),
    /// So many slots are being copied.
    Copying(u64),
    /// So many copies of slots are missing.
    Short(u64),
    /// What a member accepts is on too few members.
    ShortSegment(u64),
    /// It is not known how much was accepted in so many segments.
    Missing(usize),
    /// The node in the pod of this ordinal has not counted up to now, or does not say.
    Behind(u32),
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsettled::NoLeader => f.write_str("no leader answers"),
            Unsettled::Moving(member) => write!(f, "node {member} joins or leaves"),
            Unsettled::Unreached(member) => write!(f, "the leader does not reach node {member}"),
            Unsettled::Unled(slots) => write!(f, "{slots} slots are counted by nobody"),
            Unsettled::Copying(slots) => write!(f, "{slots} slots are being copied"),
            Unsettled::Short(copies) => write!(f, "{copies} copies of slots are missing"),
            Unsettled::ShortSegment(segment) => write!(f, "segment {segment} lacks a copy"),
            Unsettled::Missing(segments) => write!(f, "{segments} segments are out of reach"),
            Unsettled::Behind(ordinal) => write!(f, "pod {ordinal} has not counted up to now"),
        }
    }
}

/// What keeps the cluster of so many pods from doing without one more node, if anything does.
pub fn unsettled(answers: &Answers, replicas: u32, wanted: Redundancy) -> Option<Unsettled> {
    let Some(cluster) = answers.leaders() else { return Some(Unsettled::NoLeader) };
    members_unsettled(cluster)
        .or_else(|| slots_unsettled(cluster, wanted))
        .or_else(|| segments_unsettled(cluster, wanted))
        .or_else(|| behind(answers, replicas).map(Unsettled::Behind))
}

/// The pod of the lowest ordinal that has not counted up to now.
pub fn behind(answers: &Answers, replicas: u32) -> Option<u32> {
    let unfolded = |ordinal: &u32| answers.by_ordinal.get(ordinal).and_then(|told| told.unfolded);
    (0..replicas).find(|ordinal| unfolded(ordinal) != Some(0))
}

/// How many slots nobody counts.
pub fn unled(cluster: &Cluster, slots: u64) -> u64 {
    slots.saturating_sub(living(cluster).map(|member| member.slots).sum())
}

fn living(cluster: &Cluster) -> impl Iterator<Item = &Member> {
    cluster.members.iter().filter(|member| !is_gone(member.state))
}

fn active(cluster: &Cluster) -> impl Iterator<Item = &Member> {
    cluster.members.iter().filter(|member| member.state == MemberState::Active)
}

fn members_unsettled(cluster: &Cluster) -> Option<Unsettled> {
    if let Some(moving) = living(cluster).find(|member| member.state != MemberState::Active) {
        return Some(Unsettled::Moving(moving.id));
    }
    let unreached = living(cluster).find(|member| member.reachable == Some(false));
    unreached.map(|member| Unsettled::Unreached(member.id))
}

fn slots_unsettled(cluster: &Cluster, wanted: Redundancy) -> Option<Unsettled> {
    let unled = unled(cluster, wanted.slots);
    let copying: u64 = living(cluster).map(|member| member.filling).sum();
    let owned: u64 = active(cluster).map(|member| member.owned).sum();
    let short = (wanted.slots * copies(cluster, wanted)).saturating_sub(owned);
    match (unled, copying, short) {
        (0, 0, 0) => None,
        (0, 0, short) => Some(Unsettled::Short(short)),
        (0, copying, _) => Some(Unsettled::Copying(copying)),
        (unled, _, _) => Some(Unsettled::Unled(unled)),
    }
}

/// Sealed segments may lack a copy: they are not copied again, because the journal is trimmed soon
/// after. What a node accepts now may not.
fn segments_unsettled(cluster: &Cluster, wanted: Redundancy) -> Option<Unsettled> {
    if !cluster.missing.is_empty() {
        return Some(Unsettled::Missing(cluster.missing.len()));
    }
    let copies = copies(cluster, wanted);
    let is_active = |id: &&u64| active(cluster).any(|member| member.id == **id);
    let lacks = |copied: &[u64]| (copied.iter().filter(is_active).count() as u64) < copies;
    let open = cluster.segments.iter().filter(|known| known.state != SegmentState::Sealed);
    let mut short = open.filter(|known| lacks(&known.copies));
    short.next().map(|known| Unsettled::ShortSegment(known.id))
}

/// On how many members anything can be.
fn copies(cluster: &Cluster, wanted: Redundancy) -> u64 {
    wanted.copies.min(active(cluster).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::super::fleet::tests::{cluster, segment};
    use super::*;

    const WANTED: Redundancy = Redundancy { slots: 256, copies: 2 };

    /// Three pods, of which the first one leads and says this.
    fn told(cluster: Cluster) -> Answers {
        let other = |node| Cluster { node: Some(node), ..cluster.clone() };
        Answers { by_ordinal: [(1, other(2)), (2, other(3)), (0, cluster)].into() }
    }

    fn now(cluster: Cluster) -> Option<Unsettled> {
        unsettled(&told(cluster), 3, WANTED)
    }

    #[test]
    fn a_cluster_is_settled_when_all_is_counted_and_copied() {
        assert_eq!(now(cluster()), None);
    }

    #[test]
    fn nothing_is_settled_without_a_leader() {
        let mut headless = cluster();
        headless.leader = None;
        assert_eq!(now(headless), Some(Unsettled::NoLeader));
    }

    #[test]
    fn a_member_that_comes_or_goes_unsettles_it() {
        for state in [MemberState::Joining, MemberState::Draining] {
            let mut cluster = cluster();
            cluster.members[2].state = state;
            assert_eq!(now(cluster), Some(Unsettled::Moving(3)));
        }
    }

    #[test]
    fn members_that_are_gone_do_not_count() {
        let mut cluster = cluster();
        let mut gone = cluster.members[2].clone();
        (gone.id, gone.state, gone.reachable) = (9, MemberState::Forgotten, Some(false));
        (gone.slots, gone.owned, gone.filling) = (0, 0, 7);
        cluster.members.push(gone);
        assert_eq!(now(cluster), None);
    }

    #[test]
    fn a_member_out_of_reach_unsettles_it() {
        let mut cluster = cluster();
        cluster.members[1].reachable = Some(false);
        assert_eq!(now(cluster), Some(Unsettled::Unreached(2)));
    }

    #[test]
    fn slots_that_nobody_counts_or_has_twice_unsettle_it() {
        let mut unled = cluster();
        unled.members[1].slots -= 3;
        assert_eq!(now(unled), Some(Unsettled::Unled(3)));
        let mut copying = cluster();
        copying.members[1].filling = 4;
        assert_eq!(now(copying), Some(Unsettled::Copying(4)));
        let mut short = cluster();
        short.members[1].owned -= 5;
        assert_eq!(now(short), Some(Unsettled::Short(5)));
    }

    #[test]
    fn there_are_no_more_copies_than_members() {
        let wanted = Redundancy { slots: 256, copies: 3 };
        let mut two = cluster();
        two.members.truncate(2);
        for (member, slots) in two.members.iter_mut().zip([200, 56]) {
            (member.slots, member.owned) = (slots, 256);
        }
        assert_eq!(unsettled(&told(two), 2, wanted), None);
    }

    #[test]
    fn what_is_accepted_now_has_to_be_on_enough_members() {
        let mut cluster = cluster();
        cluster.segments = vec![
            segment(4, 1, &[1], SegmentState::Sealed),
            segment(5, 1, &[1, 2], SegmentState::Open),
        ];
        assert_eq!(now(cluster.clone()), None, "what is sealed is not copied again");
        cluster.segments[1].copies = vec![1, 9];
        assert_eq!(now(cluster.clone()), Some(Unsettled::ShortSegment(5)));
        cluster.missing = vec![4, 5];
        assert_eq!(now(cluster), Some(Unsettled::Missing(2)));
    }

    #[test]
    fn every_node_has_to_have_counted_up_to_now() {
        let mut answers = told(cluster());
        answers.by_ordinal.get_mut(&2).unwrap().unfolded = Some(12);
        assert_eq!(unsettled(&answers, 3, WANTED), Some(Unsettled::Behind(2)));
        answers.by_ordinal.get_mut(&2).unwrap().unfolded = None;
        assert_eq!(unsettled(&answers, 3, WANTED), Some(Unsettled::Behind(2)));
        answers.by_ordinal.remove(&1);
        assert_eq!(unsettled(&answers, 3, WANTED), Some(Unsettled::Behind(1)));
    }
}
