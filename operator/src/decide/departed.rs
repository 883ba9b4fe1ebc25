//! Members that cannot come back: the machine that their volume is on is gone, or the volume is.
//!
//! A machine that is silent may come back, so nobody is given up for that. A member that is
//! given up takes with it what only it had, so the operator does that only when it had nothing;
//! else a person decides.

use sheaf_proto::cluster::Cluster;

use super::fleet::{Answers, Claim, Pod, Seat};

/// What becomes of a member that cannot come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Others have all that it had, or a person has decided: it is forgotten.
    Forget(Seat),
    /// Others are about to take over its slots.
    Await(Seat),
    /// Only it has some of the data.
    Ask(Seat),
}

/// The members that are in the cluster and cannot come back, by id.
pub fn lost(seats: &[Seat], claims: &[Claim], pods: &[Pod], answers: &Answers) -> Vec<Seat> {
    let is_lost = |seat: &&Seat| {
        if seat.is_gone() || answers.member_of(seat.ordinal) == Some(seat.member) {
            return false;
        }
        let is_ready = pods.iter().any(|pod| pod.ordinal == seat.ordinal && pod.ready);
        let is_succeeded = answers.member_of(seat.ordinal).is_some_and(|now| now > seat.member);
        match claim_of(seat, seats, claims) {
            Some(claim) => claim.lost && !is_ready,
            // Another volume, and so another member, has taken its place.
            None => is_succeeded,
        }
    };
    let mut lost: Vec<Seat> = seats.iter().filter(is_lost).copied().collect();
    lost.sort_by_key(|seat| seat.member);
    lost
}

/// What becomes of each member that cannot come back. `given_up` are those that a person has
/// decided to lose, `copies` on how many members everything is to be.
pub fn verdicts(lost: &[Seat], cluster: &Cluster, copies: u64, given_up: &[u64]) -> Vec<Verdict> {
    let verdict = |seat: &Seat| {
        let owned = cluster.members.iter().find(|member| member.id == seat.member);
        let owns = owned.is_some_and(|member| member.owned > 0);
        if given_up.contains(&seat.member) {
            Verdict::Forget(*seat)
        } else if has_segments_alone(seat.member, lost, cluster) {
            Verdict::Ask(*seat)
        } else if !owns {
            Verdict::Forget(*seat)
        } else if (lost.len() as u64) < copies {
            Verdict::Await(*seat)
        } else {
            Verdict::Ask(*seat)
        }
    };
    lost.iter().map(verdict).collect()
}

/// Whether a member has a segment that nobody has who may come back.
fn has_segments_alone(member: u64, lost: &[Seat], cluster: &Cluster) -> bool {
    let is_lost = |id: &u64| lost.iter().any(|seat| seat.member == *id);
    cluster
        .segments
        .iter()
        .any(|segment| segment.copies.contains(&member) && segment.copies.iter().all(is_lost))
}

/// The claim with a member's data: the one that is known to have it, or the one of its pod if it
/// is the newest member there.
fn claim_of<'a>(seat: &Seat, seats: &[Seat], claims: &'a [Claim]) -> Option<&'a Claim> {
    let known = claims.iter().find(|claim| claim.member == Some(seat.member));
    let newest =
        seats.iter().filter(|other| other.ordinal == seat.ordinal).map(|it| it.member).max();
    let unknown = |claim: &&Claim| claim.ordinal == seat.ordinal && claim.member.is_none();
    known.or_else(|| claims.iter().find(unknown).filter(|_| newest == Some(seat.member)))
}

#[cfg(test)]
mod tests {
    use sheaf_proto::cluster::{MemberState, SegmentState};

    use super::super::fleet::seats;
    use super::super::fleet::tests::{cluster, segment};
    use super::super::rolling::tests::pod;
    use super::super::storage::tests::claim;
    use super::*;

    /// Three members, of which the third one's machine is gone.
    struct World {
        cluster: Cluster,
        claims: Vec<Claim>,
        pods: Vec<Pod>,
        answers: Answers,
    }

    impl World {
        fn new() -> World {
            let mut cluster = cluster();
            (cluster.members[2].slots, cluster.members[2].owned) = (0, 0);
            let mut claims: Vec<Claim> = (0..3).map(|n| claim(n, Some(u64::from(n) + 1))).collect();
            claims[2].lost = true;
            let pods = (0..3).map(|n| pod(n, n < 2, false)).collect();
            let mut answers = Answers { by_ordinal: [(0, cluster.clone())].into() };
            answers.by_ordinal.insert(1, Cluster { node: Some(2), ..cluster.clone() });
            World { cluster, claims, pods, answers }
        }

        fn lost(&self) -> Vec<u64> {
            let lost = lost(&self.seats(), &self.claims, &self.pods, &self.answers);
            lost.iter().map(|seat| seat.member).collect()
        }

        fn seats(&self) -> Vec<Seat> {
            seats("logs", &self.cluster)
        }

        fn verdicts(&self, copies: u64, given_up: &[u64]) -> Vec<Verdict> {
            let lost = lost(&self.seats(), &self.claims, &self.pods, &self.answers);
            verdicts(&lost, &self.cluster, copies, given_up)
        }
    }

    #[test]
    fn a_member_is_lost_with_the_machine_of_its_volume() {
        assert_eq!(World::new().lost(), [3]);
    }

    #[test]
    fn a_member_that_is_silent_is_not_lost() {
        let mut world = World::new();
        world.claims[2].lost = false;
        assert_eq!(world.lost(), [0; 0]);
    }

    #[test]
    fn a_member_that_answers_or_is_ready_is_not_lost_whatever_is_told_of_machines() {
        let mut world = World::new();
        world.pods[2].ready = true;
        assert_eq!(world.lost(), [0; 0]);
        world.pods[2].ready = false;
        let answer = Cluster { node: Some(3), ..world.cluster.clone() };
        world.answers.by_ordinal.insert(2, answer);
        assert_eq!(world.lost(), [0; 0]);
    }

    #[test]
    fn a_member_that_has_left_is_not_lost() {
        let mut world = World::new();
        world.cluster.members[2].state = MemberState::Drained;
        assert_eq!(world.lost(), [0; 0]);
    }

    #[test]
    fn a_member_is_lost_when_another_one_has_taken_its_place() {
        let mut world = World::new();
        let mut newcomer = world.cluster.members[2].clone();
        newcomer.id = 7;
        world.cluster.members.push(newcomer);
        world.claims[2] = claim(2, None);
        assert_eq!(world.lost(), [0; 0], "nobody has said who is there");
        let answer = Cluster { node: Some(7), ..world.cluster.clone() };
        world.answers.by_ordinal.insert(2, answer);
        assert_eq!(world.lost(), [3]);
    }

    #[test]
    fn a_member_without_data_of_its_own_is_forgotten() {
        let world = World::new();
        let seat = world.seats()[2];
        assert_eq!(world.verdicts(2, &[]), [Verdict::Forget(seat)]);
    }

    #[test]
    fn others_take_over_its_slots_first() {
        let mut world = World::new();
        world.cluster.members[2].owned = 1;
        let seat = world.seats()[2];
        assert_eq!(world.verdicts(2, &[]), [Verdict::Await(seat)]);
    }

    #[test]
    fn a_person_decides_about_what_nobody_else_has() {
        let mut world = World::new();
        let seat = world.seats()[2];
        world.cluster.members[2].owned = 1;
        assert_eq!(world.verdicts(1, &[]), [Verdict::Ask(seat)], "one copy of slots");
        assert_eq!(world.verdicts(1, &[3]), [Verdict::Forget(seat)]);
        assert_eq!(world.verdicts(1, &[2]), [Verdict::Ask(seat)], "another member was given up");
        world.cluster.members[2].owned = 0;
        world.cluster.segments = vec![segment(4, 3, &[3], SegmentState::Sealed)];
        assert_eq!(world.verdicts(2, &[]), [Verdict::Ask(seat)], "the only copy of a segment");
        world.cluster.segments[0].copies.push(1);
        assert_eq!(world.verdicts(2, &[]), [Verdict::Forget(seat)]);
    }

    #[test]
    fn what_is_on_two_lost_members_alone_is_lost_with_both() {
        let mut world = World::new();
        world.claims[1].lost = true;
        world.pods[1].ready = false;
        world.answers.by_ordinal.remove(&1);
        world.cluster.segments = vec![segment(4, 3, &[2, 3], SegmentState::Sealed)];
        let [_, two, three] = world.seats()[..] else { panic!("three members") };
        assert_eq!(world.verdicts(3, &[]), [Verdict::Ask(two), Verdict::Ask(three)]);
    }
}
