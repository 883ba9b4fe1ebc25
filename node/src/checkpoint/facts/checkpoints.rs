//! How far each slot was flushed: claim, deliver, complete; and carry.
//!
//! A claim says what is about to be handed out, so that whoever resumes it can tell
//! whether it came to the same result. Its number is the key under which sinks know it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Digest;
use crate::checkpoint::facts::aggregations::Aggregation;
use crate::checkpoint::facts::command::{
    Applied, CarryAnswer, ClaimAnswer, CompleteAnswer, SlotClaim, SlotNumber,
};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::windows::is_expired;
use crate::checkpoint::facts::{Facts, Settings, Slot};
use crate::event::node::NodeId;
use crate::event::time::{UnixNanos, Window};

/// What a slot hands out of a window: a claim, until it is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Counts the slot's checkpoints, from 1.
    pub number: u64,
    /// The window.
    pub window: Window,
    /// The number of the cut up to which it was folded.
    pub cut: u64,
    /// Records of the window that were accepted and belong to the slot.
    pub records: u64,
    /// Distinct ones among them.
    pub distinct: u64,
    /// The digest of its results.
    pub digest: Digest,
    /// Whether the cut misses something that the window may have. Then the window has to
    /// be claimed again, at a cut that does not.
    pub incomplete: bool,
}

/// How far a slot of an aggregation was flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The number of the cut that the slot goes on from: what is below it was flushed or
    /// is carried.
    pub carried: u64,
    /// The end of the newest window that was flushed.
    pub through: UnixNanos,
    /// Distinct records in all its checkpoints, but for incomplete ones.
    pub distinct: u64,
    /// The last completed checkpoint.
    pub flushed: Option<Checkpoint>,
    /// What is being delivered.
    pub claimed: Option<Checkpoint>,
    /// Whether the slot's owners keep something of open windows in place of journals.
    pub keeps: bool,
}

impl Progress {
    fn from_cut(carried: u64) -> Progress {
        let through = UnixNanos(0);
        Progress { carried, through, distinct: 0, flushed: None, claimed: None, keeps: false }
    }

    /// The number of the last completed checkpoint; 0 before the first.
    pub fn number(&self) -> u64 {
        self.flushed.map_or(0, |checkpoint| checkpoint.number)
    }
}

impl Facts {
    pub(super) fn claim(
        &mut self,
        node: NodeId,
        aggregation: u32,
        window: Window,
        cut: u64,
        slots: BTreeMap<Slot, SlotClaim>,
    ) -> Result<Applied, Refused> {
        self.aggregations.get(aggregation)?.check_window(window)?;
        if let Some(cut) = self.cuts.get(cut).filter(|cut| cut.time < window.end) {
            return Err(Refused::NotEnded { window, time: cut.time });
        }
        let mut answers = BTreeMap::new();
        for (slot, SlotClaim { epoch, number, records, distinct, digest }) in slots {
            let incomplete = false;
            let claim = Checkpoint { number, window, cut, records, distinct, digest, incomplete };
            let answer = if self.is_primary(slot, node, epoch) {
                self.claim_slot(aggregation, slot, claim)?
            } else {
                ClaimAnswer::StaleEpoch
            };
            answers.insert(slot, answer);
        }
        Ok(Applied::Claims(answers))
    }

    fn claim_slot(
        &mut self,
        aggregation: u32,
        slot: Slot,
        claim: Checkpoint,
    ) -> Result<ClaimAnswer, Refused> {
        let aggregation = self.aggregations.get_mut(aggregation)?;
        let progress = aggregation.progress(slot);
        let expected = progress.number() + 1;
        if claim.number != expected {
            return Ok(ClaimAnswer::WrongNumber { expected });
        }
        if let Some(claimed) = progress.claimed {
            let answer = claimed.answer_to(&claim);
            let has_lost = aggregation.has_lost(claim.window);
            if !matches!(answer, ClaimAnswer::Diverged(_)) || !has_lost {
                return Ok(answer);
            }
            // What was claimed before it was lost nobody can fold again.
            let claimed = Some(Checkpoint { incomplete: claimed.incomplete, ..claim });
            aggregation.slots.insert(slot, Progress { claimed, ..progress });
            return Ok(ClaimAnswer::Accepted);
        }
        let Some(cut) = self.cuts.get(claim.cut).filter(|cut| cut.number >= progress.carried)
        else {
            return Ok(ClaimAnswer::CutUnknown);
        };
        if !aggregation.waits_for(slot, claim.window, self.cuts.latest.time) {
            return Ok(ClaimAnswer::Flushed);
        }
        // What a cut misses of files a later checkpoint has.
        let incomplete =
            !aggregation.takes_chunks() && cut.missing_of(claim.window).next().is_some();
        let claimed = Some(Checkpoint { incomplete, ..claim });
        aggregation.slots.insert(slot, Progress { claimed, ..progress });
        Ok(ClaimAnswer::Accepted)
    }

    pub(super) fn complete(
        &mut self,
        node: NodeId,
        number: u32,
        slots: BTreeMap<Slot, SlotNumber>,
        keeps: bool,
    ) -> Result<Applied, Refused> {
        let pending = self.pending(self.aggregations.get(number)?);
        let (settings, now) = (self.settings, self.cuts.latest.time);
        let mut answers = BTreeMap::new();
        for (slot, completed) in slots {
            let is_primary = self.is_primary(slot, node, completed.epoch);
            let aggregation = self.aggregations.get_mut(number)?;
            let progress = aggregation.progress(slot);
            let is_claimed = progress.claimed.is_some_and(|c| c.number == completed.number);
            let answer = if completed.number <= progress.number() {
                CompleteAnswer::Again
            } else if !is_primary {
                CompleteAnswer::StaleEpoch
            } else if !is_claimed {
                CompleteAnswer::NotClaimed
            } else {
                let cut = progress.claimed.and_then(|claimed| self.cuts.get(claimed.cut));
                let cut = cut.map(|cut| cut.time);
                aggregation.finish(slot, cut, settings, now);
                aggregation.keep(slot, keeps);
                CompleteAnswer::Completed
            };
            answers.insert(slot, answer);
        }
        self.account_carried(number, pending);
        Ok(Applied::Completions(answers))
    }

    pub(super) fn carry(
        &mut self,
        node: NodeId,
        number: u32,
        slots: BTreeMap<Slot, u64>,
        cut: u64,
        keeps: bool,
    ) -> Result<Applied, Refused> {
        let pending = self.pending(self.aggregations.get(number)?);
        let mut answers = BTreeMap::new();
        for (slot, epoch) in slots {
            let is_primary = self.is_primary(slot, node, epoch);
            let aggregation = self.aggregations.get_mut(number)?;
            let progress = aggregation.progress(slot);
            let answer = if cut <= progress.carried {
                CarryAnswer::Again
            } else if !is_primary {
                CarryAnswer::StaleEpoch
            } else if self.cuts.get(cut).is_none() {
                CarryAnswer::CutUnknown
            } else {
                aggregation.slots.insert(slot, Progress { carried: cut, keeps, ..progress });
                CarryAnswer::Carried
            };
            answers.insert(slot, answer);
        }
        self.account_carried(number, pending);
        Ok(Applied::Carries(answers))
    }
}

impl Checkpoint {
    /// What somebody hears who claims under the same number.
    fn answer_to(&self, claim: &Checkpoint) -> ClaimAnswer {
        if (self.window, self.cut) != (claim.window, claim.cut) {
            ClaimAnswer::Resume(*self)
        } else if self.found() != claim.found() {
            ClaimAnswer::Diverged(*self)
        } else {
            ClaimAnswer::Again
        }
    }

    /// What has to be the same whoever folds up to the cut.
    fn found(&self) -> (u64, u64, Digest) {
        (self.records, self.distinct, self.digest)
    }
}

impl Aggregation {
    /// How far a slot is; at the beginning if nothing of it was claimed or carried.
    pub fn progress(&self, slot: Slot) -> Progress {
        self.slots.get(&slot).copied().unwrap_or(Progress::from_cut(self.since))
    }

    /// Whether something is lost that a checkpoint may have had. One of files has all that came
    /// since the last one.
    fn has_lost(&self, window: Window) -> bool {
        self.losses_of(window).next().is_some() || (self.takes_chunks() && !self.losses.is_empty())
    }

    fn keep(&mut self, slot: Slot, keeps: bool) {
        let progress = self.progress(slot);
        self.slots.insert(slot, Progress { keeps, ..progress });
    }

    /// Makes a slot's claim its last checkpoint. The slot goes on from the claim's cut, whose
    /// time this is, if that is the window's end: a later one has something of the next window.
    pub(super) fn finish(
        &mut self,
        slot: Slot,
        cut: Option<UnixNanos>,
        settings: Settings,
        now: UnixNanos,
    ) {
        let mut progress = self.progress(slot);
        let Some(checkpoint) = progress.claimed.take() else { return };
        let Checkpoint { window, records, distinct, incomplete, .. } = checkpoint;
        if cut == Some(window.end) {
            progress.carried = progress.carried.max(checkpoint.cut);
        }
        progress.through = progress.through.max(window.end);
        progress.flushed = Some(checkpoint);
        if !incomplete {
            progress.distinct += distinct;
            self.ledger.flushed += records;
            self.ledger.distinct += distinct;
        }
        if !self.takes_chunks() && !is_expired(window.end, now) {
            self.flush_window(slot, &checkpoint, settings);
        }
        self.slots.insert(slot, progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, node, window};

    const WINDOW: Window = Window { start: UnixNanos(0), end: UnixNanos(10_000_000_000) };

    /// A cluster with a cut at the end of [`WINDOW`].
    fn cluster() -> Cluster {
        let mut cluster = Cluster::of(2);
        cluster.cut(10, &[]);
        cluster
    }

    fn claimed(cluster: &Cluster) -> Checkpoint {
        cluster.facts.aggregations()[&0].progress(0).claimed.unwrap()
    }

    #[test]
    fn a_claim_is_accepted_once_and_recognised_again() {
        let mut cluster = cluster();
        let claim = cluster.claim_command(0, WINDOW, 5);
        assert_eq!(cluster.claim(claim.clone()), ClaimAnswer::Accepted);
        assert_eq!(cluster.repeat(claim), Applied::Claims([(0, ClaimAnswer::Again)].into()));
    }

    #[test]
    fn each_slot_of_a_claim_is_judged_on_its_own() {
        let mut cluster = cluster();
        let (records, distinct, digest) = (0, 0, Digest(0));
        let slot = |epoch, number| SlotClaim { epoch, number, records, distinct, digest };
        let slots = [(0, slot(1, 1)), (1, slot(7, 1)), (9, slot(1, 1))].into();
        let (node, aggregation) = (node(1), 0);
        let claim = Command::Claim { node, aggregation, window: WINDOW, cut: 2, slots };
        let stale = ClaimAnswer::StaleEpoch;
        let answers = [(0, ClaimAnswer::Accepted), (1, stale), (9, stale)].into();
        assert_eq!(cluster.accept(claim), Applied::Claims(answers));
    }

    #[test]
    fn only_the_primary_claims_and_completes() {
        let mut cluster = cluster();
        let claim = cluster.claim_command(0, WINDOW, 5);
        cluster.claim(claim.clone());
        let complete = cluster.complete_command(0);
        cluster.place(0, &[2, 1]);
        assert_eq!(cluster.claim(claim), ClaimAnswer::StaleEpoch);
        assert_eq!(cluster.complete(complete), CompleteAnswer::StaleEpoch);
        assert_eq!(cluster.complete(cluster.complete_command(0)), CompleteAnswer::Completed);
    }

    #[test]
    fn a_new_primary_resumes_the_claim_of_the_old_one() {
        let mut cluster = cluster();
        cluster.claim(cluster.claim_command(0, WINDOW, 5));
        cluster.place(0, &[2]);
        let resumed = cluster.claim_command(0, WINDOW, 5);
        cluster.cut(11, &[]);
        let later = cluster.claim_command(0, WINDOW, 5);
        assert_eq!(cluster.claim(later), ClaimAnswer::Resume(claimed(&cluster)));
        let other = cluster.claim_command(0, window(0, 5), 5);
        assert_eq!(cluster.claim(other), ClaimAnswer::Resume(claimed(&cluster)));
        assert_eq!(cluster.claim(resumed), ClaimAnswer::Again);
    }

    #[test]
    fn another_result_for_the_same_cut_is_a_divergence() {
        let mut cluster = cluster();
        cluster.claim(cluster.claim_command(0, WINDOW, 5));
        let differ: [fn(&mut SlotClaim); 3] = [
            |claim| claim.records += 1,
            |claim| claim.distinct += 1,
            |claim| claim.digest = Digest(6),
        ];
        for differ in differ {
            let mut claim = cluster.claim_command(0, WINDOW, 5);
            let Command::Claim { slots, .. } = &mut claim else { unreachable!() };
            slots.values_mut().for_each(differ);
            assert_eq!(cluster.claim(claim), ClaimAnswer::Diverged(claimed(&cluster)));
        }
        assert_eq!((claimed(&cluster).records, claimed(&cluster).distinct), (10, 5));
    }

    #[test]
    fn checkpoints_of_a_slot_are_numbered_without_gaps() {
        let mut cluster = cluster();
        cluster.flush_slot(0, WINDOW);
        cluster.cut(20, &[]);
        let claim = cluster.claim_command(0, window(10, 20), 5);
        for number in [0, 1, 3] {
            let Command::Claim { node, aggregation, window, cut, mut slots } = claim.clone() else {
                unreachable!()
            };
            slots.entry(0).and_modify(|slot| slot.number = number);
            let claim = Command::Claim { node, aggregation, window, cut, slots };
            assert_eq!(cluster.claim(claim), ClaimAnswer::WrongNumber { expected: 2 });
        }
        assert_eq!(cluster.claim(claim), ClaimAnswer::Accepted);
    }

    #[test]
    fn a_claim_is_made_at_a_cut_that_others_can_fold_up_to() {
        let mut cluster = cluster();
        let old = cluster.claim_command(0, WINDOW, 5);
        cluster.cut(11, &[]);
        cluster.accept(cluster.carry_command(0, 3));
        assert_eq!(cluster.claim(old), ClaimAnswer::CutUnknown, "the journal may be gone");
        let Command::Claim { node, aggregation, window, slots, .. } =
            cluster.claim_command(0, WINDOW, 5)
        else {
            unreachable!()
        };
        let future = Command::Claim { node, aggregation, window, cut: 9, slots };
        assert_eq!(cluster.claim(future), ClaimAnswer::CutUnknown);
    }

    #[test]
    fn a_window_is_claimed_when_it_has_ended() {
        let mut cluster = cluster();
        let open = window(5, 11);
        let refused = cluster.refuse(cluster.claim_command(0, open, 5));
        assert_eq!(refused, Refused::NotEnded { window: open, time: at(10) });
        let empty = window(5, 5);
        let refused = cluster.refuse(cluster.claim_command(0, empty, 5));
        assert_eq!(refused, Refused::WrongWindow { window: empty });
    }

    #[test]
    fn a_window_is_flushed_once_per_slot() {
        let mut cluster = cluster();
        cluster.flush_slot(0, WINDOW);
        let claim = cluster.claim_command(0, WINDOW, 10);
        assert_eq!(cluster.claim(claim), ClaimAnswer::Flushed);
        cluster.cut(9000, &[]);
        let claim = cluster.claim_command(0, WINDOW, 10);
        assert_eq!(cluster.claim(claim), ClaimAnswer::Flushed, "also when it is forgotten");
        let claim = cluster.claim_command(0, window(10, 20), 10);
        assert_eq!(cluster.claim(claim), ClaimAnswer::Accepted);
    }

    #[test]
    fn a_completion_counts_once_whoever_repeats_it() {
        let mut cluster = cluster();
        cluster.claim(cluster.claim_command(0, WINDOW, 5));
        let complete = cluster.complete_command(0);
        assert_eq!(cluster.complete(complete.clone()), CompleteAnswer::Completed);
        cluster.place(0, &[2]);
        let again = Applied::Completions([(0, CompleteAnswer::Again)].into());
        assert_eq!(cluster.repeat(complete), again);
        let progress = cluster.facts.aggregations()[&0].progress(0);
        assert_eq!((progress.number(), progress.distinct, progress.claimed), (1, 5, None));
        assert_eq!((progress.carried, progress.through), (2, at(10)));
    }

    #[test]
    fn what_was_not_claimed_cannot_be_completed() {
        let mut cluster = cluster();
        let slots = [(0, SlotNumber { epoch: 1, number: 1 })].into();
        let complete = Command::Complete { node: node(1), aggregation: 0, slots, keeps: false };
        assert_eq!(cluster.complete(complete), CompleteAnswer::NotClaimed);
    }

    #[test]
    fn a_claim_that_misses_something_is_marked_and_made_again() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(2, &[2]);
        cluster.cut(10, &[]);
        cluster.flush_slot(0, WINDOW);
        let progress = cluster.facts.aggregations()[&0].progress(0);
        assert!(progress.flushed.unwrap().incomplete);
        assert_eq!(progress.distinct, 0, "it will be counted when it is whole");
        cluster.cut(11, &[(segment, 3)]);
        cluster.flush_slot(0, WINDOW);
        let progress = cluster.facts.aggregations()[&0].progress(0);
        assert!(!progress.flushed.unwrap().incomplete);
        assert_eq!((progress.number(), progress.distinct), (2, 10));
    }

    #[test]
    fn a_carry_goes_on_and_never_back() {
        let mut cluster = cluster();
        let carry = cluster.carry_command(0, 2);
        let answer = |answer| Applied::Carries([(0, answer)].into());
        assert_eq!(cluster.accept(carry.clone()), answer(CarryAnswer::Carried));
        assert_eq!(cluster.repeat(carry), answer(CarryAnswer::Again));
        assert_eq!(cluster.repeat(cluster.carry_command(0, 1)), answer(CarryAnswer::Again));
        assert_eq!(cluster.repeat(cluster.carry_command(0, 9)), answer(CarryAnswer::CutUnknown));
        let stale = cluster.carry_command(1, 2);
        cluster.place(1, &[2]);
        let stale = cluster.repeat(stale);
        assert_eq!(stale, Applied::Carries([(1, CarryAnswer::StaleEpoch)].into()));
    }

    #[test]
    fn a_slot_goes_on_from_the_cut_at_its_windows_end_and_from_no_later_one() {
        let mut cluster = cluster();
        let at_end = cluster.facts.latest_cut().number;
        cluster.flush_slot(0, WINDOW);
        assert_eq!(cluster.facts.aggregations()[&0].carried(0), at_end);
        cluster.cut(21, &[]);
        cluster.flush_slot(0, window(10, 20));
        assert_eq!(cluster.facts.aggregations()[&0].carried(0), at_end);
    }

    #[test]
    fn whether_something_is_kept_of_a_slot_is_what_was_said_last() {
        let mut cluster = cluster();
        let keeps = |cluster: &Cluster| cluster.facts.aggregations()[&0].progress(0).keeps;
        assert!(!keeps(&cluster));
        cluster.accept(cluster.carry_command(0, 2));
        assert!(keeps(&cluster));
        cluster.flush_slot(0, WINDOW);
        assert!(!keeps(&cluster));
    }

    #[test]
    fn a_claim_outlives_a_carry_beyond_its_cut() {
        let mut cluster = cluster();
        let claim = cluster.claim_command(0, WINDOW, 5);
        cluster.claim(claim.clone());
        let cut = cluster.cut(11, &[]);
        cluster.accept(cluster.carry_command(0, cut));
        assert_eq!(cluster.claim(claim), ClaimAnswer::Again);
        cluster.complete(cluster.complete_command(0));
        assert_eq!(cluster.facts.aggregations()[&0].carried(0), cut);
    }

    #[test]
    fn an_unknown_aggregation_is_refused() {
        let mut cluster = cluster();
        let (node, aggregation) = (node(1), 7);
        let unknown = Refused::NoAggregation { number: 7 };
        let slots = BTreeMap::new();
        let complete = Command::Complete { node, aggregation, slots, keeps: false };
        assert_eq!(cluster.refuse(complete), unknown);
        let slots = BTreeMap::new();
        let carry = Command::Carry { node, aggregation, slots, cut: 1, keeps: false };
        assert_eq!(cluster.refuse(carry), unknown);
        let (window, slots) = (WINDOW, BTreeMap::new());
        let claim = Command::Claim { node, aggregation, window, cut: 1, slots };
        assert_eq!(cluster.refuse(claim), unknown);
    }

    /// What a primary says of aggregation 0, said of aggregation 1.
    fn of_files(command: Command) -> Command {
        let aggregation = 1;
        match command {
            Command::Claim { node, window, cut, slots, .. } => {
                Command::Claim { node, aggregation, window, cut, slots }
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_checkpoint_of_files_lacks_nothing_that_its_cut_misses_and_the_slot_goes_on_from_there() {
        let mut cluster = Cluster::of(2);
        let by_foo = cluster.facts.aggregations()[&0].definition.clone();
        let files = serde_json::json!({ "type": "LogFiles" });
        let definitions = [("by-foo".to_owned(), by_foo), ("files".to_owned(), files)].into();
        cluster.accept(Command::Register { definitions });
        cluster.cut(8, &[]);
        let segment = cluster.open(2, &[2]);
        cluster.cut(9, &[(segment, 20)]);
        let cut = cluster.cut(10, &[]);
        assert_eq!(cluster.facts.latest_cut().missing_of(window(9, 10)).count(), 1);
        let claim = of_files(cluster.claim_command(0, window(9, 10), 5));
        assert_eq!(cluster.claim(claim), ClaimAnswer::Accepted);
        let (node, epoch) = (node(1), cluster.facts.slots()[&0].epoch);
        let slots = [(0, SlotNumber { epoch, number: 1 })].into();
        let complete = Command::Complete { node, aggregation: 1, slots, keeps: false };
        assert_eq!(cluster.complete(complete), CompleteAnswer::Completed);
        let known = &cluster.facts.aggregations()[&1];
        assert_eq!((known.carried(0), known.progress(0).through), (cut, at(10)));
        assert_eq!((known.ledger.flushed, known.ledger.distinct), (10, 5));
        assert!(known.windows.is_empty(), "nobody waits for the other slots");
    }
}
