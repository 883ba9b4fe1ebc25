//! Which slots can be folded together, and from where.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::Group;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::Facts;
use crate::event::slots::SlotSet;
use crate::event::time::SECOND;

/// Groups are not joined if more than this of the journal is to be folded again for it, in
/// nanoseconds.
const AGAIN_MAX: u64 = 5 * SECOND;

/// Where a slot begins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SlotBeginning {
    /// The cut that it goes on from, and the one at which files are claimed, in each aggregation.
    cuts: Vec<(u64, Option<u64>)>,
    /// Which carries it has.
    carries: BTreeSet<usize>,
}

/// The slots that can be folded together: those that go on from the same cuts, of whose open
/// windows the same was carried, and of whose files a checkpoint is claimed at the same cut.
pub fn alike(facts: &Facts, slots: &SlotSet, carries: &[Carry]) -> Vec<SlotSet> {
    let mut alike: BTreeMap<SlotBeginning, Vec<u8>> = BTreeMap::new();
    for slot in slots.iter() {
        let from = facts.aggregations().values().map(|known| {
            let claimed = known.progress(slot).claimed.filter(|_| known.takes_chunks());
            (known.carried(slot), claimed.map(|claim| claim.cut))
        });
        let kept = carries.iter().enumerate().filter(|(_, carry)| carry.slots.contains(slot));
        let kept = kept.map(|(place, _)| place).collect();
        let beginning = SlotBeginning { cuts: from.collect(), carries: kept };
        alike.entry(beginning).or_default().push(slot);
    }
    alike.into_values().map(SlotSet::from_iter).collect()
}

/// From which cuts a group could as well begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    pub(super) slots: SlotSet,
    /// By aggregation, the numbers of the oldest and the newest.
    pub(super) cuts: BTreeMap<u32, RangeInclusive<u64>>,
}

impl Beginning {
    /// The slots.
    pub fn slots(&self) -> SlotSet {
        self.slots
    }

    /// The newest cuts that it may begin from.
    pub fn newest(&self) -> BTreeMap<u32, u64> {
        self.cuts.iter().map(|(&number, cuts)| (number, *cuts.end())).collect()
    }

    /// From where both could begin as one, if there are such cuts.
    fn with(&self, other: &Beginning) -> Option<Beginning> {
        if !self.cuts.keys().eq(other.cuts.keys()) {
            return None;
        }
        let both = self.cuts.iter().zip(other.cuts.values()).map(|((&number, one), other)| {
            let cuts = *one.start().max(other.start())..=*one.end().min(other.end());
            (!cuts.is_empty()).then_some((number, cuts))
        });
        let cuts = both.collect::<Option<_>>()?;
        Some(Beginning { slots: self.slots.union(&other.slots), cuts })
    }

    /// Whether little is to be folded again.
    fn is_recent(&self, facts: &Facts) -> bool {
        let now = facts.latest_cut().time.0;
        let is_recent = |number| {
            let cut = facts.cut(number);
            cut.is_some_and(|cut| cut.time.0.saturating_add(AGAIN_MAX) >= now)
        };
        self.cuts.values().all(|cuts| is_recent(*cuts.end()))
    }
}

impl Group {
    /// From which cuts the group could begin anew without any other result, if it could: nothing
    /// of it is on its way out, and nothing carried. Where nothing is open, that is any cut that
    /// it has reached.
    pub fn beginning(&self, facts: &Facts) -> Option<Beginning> {
        let reached = self.newest_reached(facts)?;
        let cuts = facts.aggregations().iter().map(|(&number, known)| {
            let is_claimed = self.slots.iter().any(|slot| known.progress(slot).claimed.is_some());
            let newest = self.slots.iter().map(|slot| known.carried(slot)).max()?;
            let is_same = self.slots.iter().all(|slot| known.carried(slot) == newest);
            let (all, this) = (newest..=reached.max(newest), newest..=newest);
            let cuts = match (self.accounts.get(&number), self.shelves.get(&number)) {
                (Some(account), _) if account.is_idle() => all,
                (Some(account), _) if account.closing.is_empty() && is_same => this,
                // What is read of a file beyond its checkpoint would be gone for a while.
                (None, Some(shelf)) if shelf.is_idle() => all,
                _ => return None,
            };
            (!is_claimed).then_some((number, cuts))
        });
        let cuts = cuts.collect::<Option<_>>()?;
        Some(Beginning { slots: self.slots, cuts })
    }
}

/// Of groups, by number, those that could be folded as one from the same recent cuts.
pub fn joint(
    facts: &Facts,
    groups: impl Iterator<Item = (u64, Beginning)>,
) -> Vec<(Vec<u64>, Beginning)> {
    let mut joint: Vec<(Vec<u64>, Beginning)> = Vec::new();
    for (number, beginning) in groups.filter(|(_, beginning)| beginning.is_recent(facts)) {
        let found =
            joint.iter_mut().find_map(|(numbers, all)| Some((numbers, all.with(&beginning)?, all)));
        match found {
            Some((numbers, with, all)) => {
                numbers.push(number);
                *all = with;
            }
            None => joint.push((vec![number], beginning)),
        }
    }
    joint.retain(|(numbers, _)| numbers.len() > 1);
    joint
}
