//! Slots dealt out to members within bounds, by few moves.
//!
//! A member at its bound can still take a slot if it passes another one on, to a member
//! that may do the same, and so on. Each time the shortest such chain is looked for. So
//! few slots move, and a bound is missed only where no chain, hence nothing, can keep it.

use std::cmp::Reverse;
use std::ops::Range;

use crate::cluster::placement::members::Members;
use crate::event::fingerprint::SLOTS;

/// Owners of each slot; members go by their place in the sorted list of them.
pub(super) type Owners = Vec<Vec<usize>>;

/// What an assignment starts from and what it has to keep.
pub(super) struct Rules<'a> {
    /// To whom slots are dealt out.
    pub(super) members: &'a Members,
    /// Whoever has a slot's data.
    pub(super) holders: &'a Owners,
    /// Whoever should be left where it is.
    pub(super) kept: &'a Owners,
    /// Owners of each slot; there are at least as many members.
    pub(super) wanted: usize,
    /// The most of a slot's owners in one zone; members suffice for that.
    pub(super) per_zone: usize,
    /// How many of a slot's first owners must stay.
    pub(super) fixed: usize,
}

/// Owners on their way to keeping the rules.
pub(super) struct Assignment<'a> {
    rules: Rules<'a>,
    owners: Owners,
    load: Vec<usize>,
    /// A member with fewer slots is given more: nine tenths of its fair share.
    low: usize,
    /// A member with more slots passes some on: a tenth above its fair share.
    high: usize,
}

/// A slot goes from one member to another.
struct Step {
    slot: usize,
    from: usize,
    to: usize,
}

/// A member that a search has reached, from which earlier visit and through which slot.
struct Visit {
    member: usize,
    by: Option<(usize, usize)>,
}

impl<'a> Assignment<'a> {
    /// Changes `owners` until they keep the rules.
    pub(super) fn settle(owners: Owners, rules: Rules<'a>) -> Owners {
        let members = rules.members.count();
        let mut load = vec![0; members];
        for &member in owners.iter().flatten() {
            load[member] += 1;
        }
        let low = 9 * SLOTS * rules.wanted / (10 * members);
        let high = (11 * SLOTS * rules.wanted).div_ceil(10 * members);
        let mut assignment = Assignment { rules, owners, load, low, high };
        (0..SLOTS).for_each(|slot| assignment.trim(slot));
        for slot in 0..SLOTS {
            while let Some((member, steps)) = assignment.addition(slot) {
                assignment.owners[slot].push(member);
                assignment.load[member] += 1;
                assignment.apply(steps);
            }
        }
        // From here on each step makes loads more even, so there is an end to them.
        while let Some(steps) = assignment.relief() {
            assignment.apply(steps);
        }
        while let Some(steps) = assignment.supply() {
            assignment.apply(steps);
        }
        assignment.owners
    }

    /// Takes away owners that are too many, at all or for their zone: the last in line first.
    fn trim(&mut self, slot: usize) {
        let fixed = self.rules.fixed;
        while let Some(at) = (fixed..self.owners[slot].len()).rfind(|&at| self.is_surplus(slot, at))
        {
            let surplus = self.owners[slot].remove(at);
            self.load[surplus] -= 1;
        }
    }

    /// Where zones are crowded, only those who crowd them.
    fn is_surplus(&self, slot: usize, at: usize) -> bool {
        let owners = &self.owners[slot];
        let crowds = |&owner: &usize| {
            let neighbours =
                owners.iter().filter(|&&it| self.rules.members.are_neighbours(it, owner));
            neighbours.count() > self.rules.per_zone
        };
        if owners.iter().any(crowds) {
            crowds(&owners[at])
        } else {
            owners.len() > self.rules.wanted
        }
    }

    /// A further owner, if the slot wants one, and the steps that make room for it. Room is
    /// lacking only where zones leave no other owner, and zones come before the bound.
    fn addition(&self, slot: usize) -> Option<(usize, Vec<Step>)> {
        if self.owners[slot].len() >= self.rules.wanted {
            return None;
        }
        let mut able: Vec<usize> =
            self.members().filter(|&member| self.fits(slot, member, None)).collect();
        able.sort_by_key(|&member| {
            (self.has_enough(member), self.rules.members.rank(slot, member))
        });
        let way = self.way(&able, |member| self.load[member] < self.high);
        way.or_else(|| Some((*able.first()?, Vec::new())))
    }

    /// Steps that take a slot off a member above the bound. Where zones keep slots there,
    /// they even out those who have them.
    fn relief(&self) -> Option<Vec<Step>> {
        let mut above: Vec<usize> =
            self.members().filter(|&member| self.load[member] > self.high).collect();
        above.sort_by_key(|&member| Reverse(self.load[member]));
        above.into_iter().find_map(|member| {
            [self.high, self.load[member] - 1]
                .into_iter()
                .find_map(|limit| self.way(&[member], |other| self.load[other] < limit))
                .map(|(_, steps)| steps)
        })
    }

    /// Steps that give a slot to a member that has too little, from one that has more.
    fn supply(&self) -> Option<Vec<Step>> {
        let mut below: Vec<usize> =
            self.members().filter(|&member| !self.has_enough(member)).collect();
        below.sort_by_key(|&member| self.load[member]);
        below.into_iter().find_map(|member| {
            let mut givers: Vec<usize> =
                self.members().filter(|&giver| self.load[giver] > self.load[member] + 1).collect();
            givers.sort_by_key(|&giver| Reverse(self.load[giver]));
            self.way(&givers, |other| other == member).map(|(_, steps)| steps)
        })
    }

    /// The shortest chain from one of `starts` to a member that is an end: where it starts,
    /// and its steps. Of equally short ones the first, in the order of `starts` and then
    /// of [`Self::takers`].
    ///
    /// Each step keeps the rules for itself. All of them together do too: two steps of a
    /// shortest chain never bring members of one zone into one slot, because a single step
    /// from the first one's giver to the last one's taker would be shorter.
    fn way(&self, starts: &[usize], is_end: impl Fn(usize) -> bool) -> Option<(usize, Vec<Step>)> {
        if let Some(&end) = starts.iter().find(|&&start| is_end(start)) {
            return Some((end, Vec::new()));
        }
        let mut seen = vec![false; self.load.len()];
        starts.iter().for_each(|&start| seen[start] = true);
        let mut visits: Vec<_> = starts.iter().map(|&member| Visit { member, by: None }).collect();
        let mut at = 0;
        while at < visits.len() {
            for (slot, member) in self.takers(visits[at].member, &seen) {
                seen[member] = true;
                visits.push(Visit { member, by: Some((at, slot)) });
                if is_end(member) {
                    return Some(steps_to(visits.len() - 1, &visits));
                }
            }
            at += 1;
        }
        None
    }

    /// Members not yet seen that could take a slot from `giver`, each with the slot whose
    /// move costs least; the best first. Where costs are equal the ring decides.
    fn takers(&self, giver: usize, seen: &[bool]) -> Vec<(usize, usize)> {
        let fixed = self.rules.fixed;
        let has = |&slot: &usize| self.owners[slot].iter().skip(fixed).any(|&it| it == giver);
        let slots: Vec<usize> = (0..SLOTS).filter(has).collect();
        let price = |slot: usize, taker: usize| {
            (self.cost(slot, giver, taker), self.rules.members.rank(slot, taker), slot)
        };
        let cheapest = |taker: usize| {
            let fitting = slots.iter().filter(|&&slot| self.fits(slot, taker, Some(giver)));
            fitting.map(|&slot| price(slot, taker)).min()
        };
        let mut takers: Vec<_> = self
            .members()
            .filter(|&taker| !seen[taker])
            .filter_map(|taker| Some((self.has_enough(taker), cheapest(taker)?, taker)))
            .collect();
        takers.sort_unstable();
        takers.into_iter().map(|(_, (.., slot), taker)| (slot, taker)).collect()
    }

    /// Nothing if the slot moves anyway and goes to somebody who has its data.
    fn cost(&self, slot: usize, giver: usize, taker: usize) -> usize {
        let moves = self.rules.kept[slot].contains(&giver);
        let copies = !self.rules.holders[slot].contains(&taker);
        usize::from(moves) + usize::from(copies)
    }

    /// Whether `member` may own the slot once `giver` does not.
    fn fits(&self, slot: usize, member: usize, giver: Option<usize>) -> bool {
        let mut others = 0;
        for &owner in &self.owners[slot] {
            if owner == member {
                return false;
            }
            let is_neighbour = self.rules.members.are_neighbours(owner, member);
            others += usize::from(is_neighbour && Some(owner) != giver);
        }
        others < self.rules.per_zone
    }

    fn has_enough(&self, member: usize) -> bool {
        self.load[member] >= self.low
    }

    fn members(&self) -> Range<usize> {
        0..self.load.len()
    }

    fn apply(&mut self, steps: Vec<Step>) {
        for Step { slot, from, to } in steps {
            self.owners[slot].retain(|&member| member != from);
            self.owners[slot].push(to);
            self.load[from] -= 1;
            self.load[to] += 1;
        }
    }
}

fn steps_to(end: usize, visits: &[Visit]) -> (usize, Vec<Step>) {
    let mut steps = Vec::new();
    let mut visit = &visits[end];
    while let Some((earlier, slot)) = visit.by {
        let earlier = &visits[earlier];
        steps.push(Step { slot, from: earlier.member, to: visit.member });
        visit = earlier;
    }
    (visit.member, steps)
}
