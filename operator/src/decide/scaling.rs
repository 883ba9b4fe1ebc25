//! How many pods there are next, and who has to leave before there are fewer.
//!
//! Up at once; down one pod at a time, the highest ordinal first, and only when its member is
//! drained. Raft alone remembers how far that is: whoever decides next, with no memory of
//! its own, goes on from there.

use super::fleet::Seat;
use sheaf_proto::cluster::MemberState;

/// What is known of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members<'a> {
    /// There is no cluster, and never was one: no pod has anything to lose.
    Unformed {
        /// With how many members the pods that are there mean to form one, if there are any.
        founders: Option<u32>,
    },
    /// There may be one, but nobody who leads it answers.
    Unknown,
    /// The members, as the leader knows them.
    Known(&'a [Seat]),
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The StatefulSet has, or gets, so many replicas. If these are the ones wanted, that is all.
    Set(u32),
    /// This member is asked to hand over what it has.
    Drain {
        /// Its id.
        member: u64,
    },
    /// This member is handing over what it has.
    Await {
        /// Its id.
        member: u64,
    },
    /// Another number is wanted, but nobody can say what the members hold, or take new ones in.
    Blind,
}

impl Step {
    /// How many replicas the StatefulSet has after this step if it has `now` before.
    pub fn replicas(self, now: u32) -> u32 {
        match self {
            Step::Set(replicas) => replicas,
            Step::Drain { .. } | Step::Await { .. } | Step::Blind => now,
        }
    }
}

/// The next step from `now` replicas towards `target`.
///
/// A member that drains goes on to be drained when the target changes back, because a node
/// does not return from that; no other is asked to leave, and its place is taken anew.
pub fn step(target: u32, now: u32, members: Members<'_>) -> Step {
    let seats = match members {
        Members::Unformed { founders } => return begin(target, founders),
        Members::Unknown if target == now => return Step::Set(now),
        Members::Unknown => return Step::Blind,
        Members::Known(seats) => seats,
    };
    let living = || seats.iter().filter(|seat| !seat.is_gone());
    let occupied = living().map(|seat| seat.ordinal + 1).max().unwrap_or(0);
    if occupied > now || target >= now {
        // Somebody took pods away from under their members, or more are wanted.
        return Step::Set(occupied.max(target.max(now)));
    }
    if let Some(leaving) = living().find(|seat| seat.state == MemberState::Draining) {
        return Step::Await { member: leaving.member };
    }
    let top = |seat: &&Seat| seat.ordinal + 1 == now;
    if let Some(last) = living().filter(top).max_by_key(|seat| seat.member) {
        return Step::Drain { member: last.member };
    }
    match seats.iter().filter(top).find(|seat| seat.votes) {
        Some(voter) => Step::Await { member: voter.member },
        None => Step::Set(now - 1),
    }
}

/// Nodes form a cluster when all of them mean the same number, so another one is for other nodes:
/// those that are there go first.
fn begin(target: u32, founders: Option<u32>) -> Step {
    match founders {
        Some(founders) if founders != target => Step::Set(0),
        Some(_) | None => Step::Set(target),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fleet::tests::seat;
    use super::*;
    use MemberState::{Active, Drained, Draining, Forgotten, Joining};

    /// The members 1, 2, .. in these states, each at its own pod, from ordinal 0.
    fn members(states: &[MemberState]) -> Vec<Seat> {
        let numbered = states.iter().zip(0..);
        numbered.map(|(&state, ordinal)| seat(u64::from(ordinal) + 1, ordinal, state)).collect()
    }

    fn next(target: u32, now: u32, states: &[MemberState]) -> Step {
        step(target, now, Members::Known(&members(states)))
    }

    #[test]
    fn more_pods_come_at_once() {
        assert_eq!(next(5, 3, &[Active; 3]), Step::Set(5));
    }

    #[test]
    fn enough_pods_stay() {
        assert_eq!(next(3, 3, &[Active; 3]), Step::Set(3));
    }

    #[test]
    fn the_last_member_is_drained_before_there_is_one_pod_fewer() {
        assert_eq!(next(2, 4, &[Active; 4]), Step::Drain { member: 4 });
        assert_eq!(next(2, 4, &[Active, Active, Active, Draining]), Step::Await { member: 4 });
        assert_eq!(next(2, 4, &[Active, Active, Active, Drained]), Step::Set(3));
        assert_eq!(next(2, 3, &[Active, Active, Active, Drained]), Step::Drain { member: 3 });
    }

    #[test]
    fn a_member_that_joins_leaves_like_any_other() {
        assert_eq!(next(3, 4, &[Active, Active, Active, Joining]), Step::Drain { member: 4 });
    }

    #[test]
    fn a_pod_without_a_member_goes_at_once() {
        assert_eq!(next(3, 4, &[Active; 3]), Step::Set(3));
        assert_eq!(next(3, 5, &[Active; 3]), Step::Set(4));
    }

    #[test]
    fn a_pod_stays_while_its_member_still_votes() {
        let mut members = members(&[Active, Active, Active, Drained]);
        members[3].votes = true;
        assert_eq!(step(3, 4, Members::Known(&members)), Step::Await { member: 4 });
    }

    #[test]
    fn one_member_leaves_at_a_time() {
        let states = [Active, Draining, Active, Active];
        assert_eq!(next(2, 4, &states), Step::Await { member: 2 });
    }

    #[test]
    fn the_pod_of_a_forgotten_member_goes_at_once() {
        assert_eq!(next(2, 3, &[Active, Active, Forgotten]), Step::Set(2));
    }

    #[test]
    fn when_the_target_changes_back_nobody_else_is_asked_to_leave() {
        let states = [Active, Active, Active, Active, Draining];
        assert_eq!(next(2, 5, &states), Step::Await { member: 5 });
        assert_eq!(next(5, 5, &states), Step::Set(5));
        assert_eq!(next(5, 4, &[Active, Active, Active, Draining, Drained]), Step::Set(5));
    }

    #[test]
    fn pods_that_were_taken_from_under_their_members_come_back() {
        assert_eq!(next(2, 2, &[Active; 4]), Step::Set(4));
        assert_eq!(next(5, 2, &[Active; 4]), Step::Set(5));
    }

    #[test]
    fn nobody_comes_or_goes_while_nobody_knows_the_members() {
        assert_eq!(step(2, 3, Members::Unknown), Step::Blind);
        assert_eq!(step(5, 3, Members::Unknown), Step::Blind);
        assert_eq!(step(2, 3, Members::Unknown).replicas(3), 3);
        assert_eq!(step(3, 3, Members::Unknown), Step::Set(3));
    }

    #[test]
    fn nodes_that_would_form_a_cluster_of_another_size_make_way() {
        let step = |target, now, founders| step(target, now, Members::Unformed { founders });
        assert_eq!(step(3, 3, Some(3)), Step::Set(3));
        assert_eq!(step(3, 5, Some(5)), Step::Set(0));
        assert_eq!(step(5, 3, Some(3)), Step::Set(0));
        assert_eq!(step(5, 0, None), Step::Set(5));
    }

    #[test]
    fn of_two_members_at_one_pod_the_newer_one_is_there_to_be_drained() {
        let both = [seat(1, 0, Active), seat(2, 1, Active), seat(7, 1, Active)];
        assert_eq!(step(1, 2, Members::Known(&both)), Step::Drain { member: 7 });
    }

    /// A cluster and its StatefulSet, driven by `step` alone.
    #[derive(Debug)]
    struct World {
        replicas: u32,
        seats: Vec<Seat>,
        ids: u64,
    }

    impl World {
        fn living(&self) -> impl Iterator<Item = &Seat> {
            self.seats.iter().filter(|seat| !seat.is_gone())
        }

        /// Nodes join and hand over as far as `luck` lets them; a place whose member has gone is
        /// taken anew while its pod is wanted.
        fn pass(&mut self, luck: u64, target: u32) {
            for ordinal in 0..self.replicas {
                let taken = self.living().any(|seat| seat.ordinal == ordinal);
                let known = self.seats.iter().any(|seat| seat.ordinal == ordinal);
                let lucky = luck >> (ordinal % 8) & 1 == 1;
                if lucky && !taken && (!known || ordinal < target) {
                    self.ids += 1;
                    self.seats.push(seat(self.ids, ordinal, Joining));
                }
            }
            for seat in &mut self.seats {
                let lucky = luck >> (seat.member % 8 + 8) & 1 == 1;
                seat.state = match seat.state {
                    Joining if lucky => Active,
                    Draining if lucky => Drained,
                    other => other,
                };
                seat.votes = !seat.is_gone();
            }
        }

        fn act(&mut self, step: Step) {
            let before = self.replicas;
            self.replicas = step.replicas(before);
            if let Step::Drain { member } = step {
                let is_asked = |seat: &&mut Seat| seat.member == member;
                self.seats.iter_mut().find(is_asked).unwrap().state = Draining;
            }
            let pulled = self.living().find(|seat| seat.ordinal >= self.replicas);
            assert_eq!(pulled, None, "a pod went before its member");
            let leaving = self.living().filter(|seat| seat.state == Draining).count();
            assert!(leaving <= 1, "{leaving} leave at once");
            assert!(self.replicas + 1 >= before, "more than one pod went at once");
        }
    }

    proptest! {
        /// Whoever decides remembers nothing, so this is also an operator that is killed between
        /// any two steps.
        #[test]
        fn no_pod_goes_before_its_member_and_the_last_target_is_reached(
            targets in prop::collection::vec((1u32..8, 1usize..6), 1..6),
            luck in prop::collection::vec(any::<u64>(), 64),
        ) {
            let mut world = World { replicas: 3, seats: Vec::new(), ids: 0 };
            let mut luck = luck.into_iter().cycle();
            let last = targets[targets.len() - 1].0;
            let patience = targets.into_iter().chain([(last, 40)]);
            for (target, rounds) in patience {
                for _ in 0..rounds {
                    world.pass(luck.next().unwrap_or_default(), target);
                    let step = step(target, world.replicas, Members::Known(&world.seats));
                    world.act(step);
                }
            }
            for _ in 0..40 {
                world.pass(u64::MAX, last);
                let step = step(last, world.replicas, Members::Known(&world.seats));
                world.act(step);
            }
            prop_assert_eq!(world.replicas, last);
            let mut taken: Vec<_> = world.living().map(|seat| seat.ordinal).collect();
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..last).collect::<Vec<_>>());
        }
    }
}
