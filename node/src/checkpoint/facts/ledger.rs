//! What was accepted against what went on from there. It has to balance in entries; in
//! records, or in chunks if the aggregation takes those, it says what was accepted, flushed
//! and lost. What is pending in records is not a fact: it is in the open windows.

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::facts::aggregations::{Aggregation, Takes};
use crate::checkpoint::facts::cuts::Cut;
use crate::journal::Extent;

/// An aggregation's totals since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// What is below the cuts, whatever of it the aggregation takes. Of an aggregation that has ended, below its last one: what
    /// that one missed comes on top.
    pub accepted: Extent,
    /// Of these, the entries that every slot has flushed or carried.
    pub carried: u64,
    /// What was given up with a forgotten node before every slot had carried it. What the
    /// node had accepted after the last cut comes on top.
    pub lost: Extent,
    /// Records, or chunks, in completed checkpoints, but for incomplete ones.
    pub flushed: u64,
    /// Distinct ones among them.
    pub distinct: u64,
}

/// An aggregation's account at the latest cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The totals.
    pub ledger: Ledger,
    /// Of what is accepted, what counts.
    pub takes: Takes,
    /// Entries below the cut that some slot has neither flushed nor carried, as the
    /// segments say that are still there.
    pub pending: u64,
}

impl Balance {
    /// Whether no entry is missing and none is there twice.
    pub fn holds(&self) -> bool {
        self.ledger.accepted.entries == self.ledger.carried + self.pending
    }

    /// Accepted records, or chunks, that no complete checkpoint has: those of open windows, of
    /// windows that miss something, and of what is lost.
    pub fn unflushed(&self) -> u64 {
        self.takes.count(self.ledger.accepted).saturating_sub(self.ledger.flushed)
    }
}

impl Facts {
    /// The account of an aggregation, if there is one with this number.
    pub fn balance(&self, aggregation: u32) -> Option<Balance> {
        let aggregation = self.aggregations.known.get(&aggregation)?;
        let Aggregation { ledger, takes, .. } = *aggregation;
        Some(Balance { ledger, takes, pending: self.pending(aggregation) })
    }

    pub(super) fn pending(&self, aggregation: &Aggregation) -> u64 {
        let resumed = self.resumed_from(aggregation);
        let end = aggregation.until.and_then(|until| self.cuts.get(until));
        let counts = end.unwrap_or(&self.cuts.latest).counts.iter();
        let present = counts.filter(|(id, _)| self.segments.known.contains_key(id));
        let pending = present.map(|(&id, &count)| {
            count.beyond(self.least_count(&resumed, id).unwrap_or(count)).entries
        });
        pending.sum()
    }

    /// Enters what a new cut counts more than the last one.
    pub(super) fn account(&mut self, cut: &Cut) {
        let last = &self.cuts.latest;
        let mut accepted = Extent::default();
        for (&id, count) in &cut.counts {
            accepted += count.beyond(last.count(id));
        }
        for aggregation in self.aggregations.known.values_mut() {
            let until = aggregation.until.unwrap_or(u64::MAX);
            if aggregation.since < cut.number && cut.number <= until {
                aggregation.ledger.accepted += accepted;
            }
        }
    }

    /// Enters what an aggregation has carried since `pending` entries were.
    pub(super) fn account_carried(&mut self, number: u32, pending: u64) {
        let Some(aggregation) = self.aggregations.known.get(&number) else { return };
        let carried = pending - self.pending(aggregation);
        if let Some(aggregation) = self.aggregations.known.get_mut(&number) {
            aggregation.ledger.carried += carried;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, extent, register, window};

    fn balance(cluster: &Cluster, aggregation: u32) -> (u64, u64, u64) {
        let balance = cluster.facts.balance(aggregation).unwrap();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(balance.ledger.accepted, extent(balance.ledger.accepted.entries));
        (balance.ledger.accepted.entries, balance.ledger.carried, balance.pending)
    }

    #[test]
    fn what_was_accepted_is_pending_until_every_slot_has_carried_it() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.cut(5, &[(segment, 50)]);
        assert_eq!(balance(&cluster, 0), (50, 0, 50));
        cluster.cut(10, &[(segment, 70)]);
        cluster.flush_slot(0, window(0, 10));
        assert_eq!(balance(&cluster, 0), (70, 0, 70));
        cluster.accept(cluster.carry_command(1, 2));
        assert_eq!(balance(&cluster, 0), (70, 50, 20));
        cluster.flush_slot(1, window(0, 10));
        assert_eq!(balance(&cluster, 0), (70, 70, 0));
    }

    #[test]
    fn records_are_accepted_by_cuts_and_flushed_by_checkpoints_that_miss_nothing() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(2, &[2]);
        let records = |cluster: &Cluster| {
            let balance = cluster.facts.balance(0).unwrap();
            let Ledger { accepted, flushed, distinct, .. } = balance.ledger;
            (accepted.records, flushed, distinct, balance.unflushed())
        };
        cluster.cut(9, &[(segment, 20)]);
        cluster.cut(10, &[]);
        cluster.flush_slot(0, window(0, 10));
        assert_eq!(records(&cluster), (60, 0, 0, 60));
        cluster.cut(11, &[(segment, 25)]);
        cluster.flush_slot(0, window(0, 10));
        assert_eq!(records(&cluster), (75, 20, 10, 55));
        cluster.claim(cluster.claim_command(1, window(0, 10), 4));
        assert_eq!(records(&cluster), (75, 20, 10, 55));
        cluster.complete(cluster.complete_command(1));
        assert_eq!(records(&cluster), (75, 28, 14, 47));
    }

    #[test]
    fn files_count_chunks_and_all_others_count_records() {
        let mut cluster = Cluster::of(1);
        let define = |kind| json!({ "type": kind });
        let definitions = [("by-foo", "DistinctLogs"), ("files", "LogFiles")];
        let definitions = definitions.map(|(name, kind)| (name.to_owned(), define(kind)));
        cluster.accept(Command::Register { definitions: definitions.into() });
        cluster.cut(5, &[]);
        let segment = cluster.open(1, &[1]);
        let stamped = [(segment, Extent { entries: 9, records: 20, chunks: 4 })].into();
        cluster.accept(Command::Cut { number: 3, time: at(6), stamped });
        let of = |number| {
            let accepted = cluster.facts.aggregations()[&number].accepted();
            (accepted, cluster.facts.balance(number).unwrap().unflushed())
        };
        assert_eq!((of(1), of(2)), ((20, 20), (4, 4)));
        let takes = |number: u32| {
            let json = serde_json::to_value(&cluster.facts.aggregations()[&number]).unwrap();
            json.get("takes").cloned()
        };
        assert_eq!((takes(1), takes(2)), (None, Some(json!("Chunks"))));
    }

    #[test]
    fn the_account_goes_on_when_a_segment_is_dropped() {
        let mut cluster = Cluster::of(1);
        let first = cluster.open(1, &[1]);
        cluster.seal(first, 5, 50, &[1]);
        let second = cluster.open(1, &[1]);
        cluster.cut(10, &[(second, 7)]);
        cluster.flush(window(0, 10));
        assert!(!cluster.facts.segments().contains_key(&first));
        cluster.cut(11, &[(second, 8)]);
        assert_eq!(balance(&cluster, 0), (58, 57, 1));
    }

    #[test]
    fn an_account_begins_and_ends_with_its_aggregation() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.accept(register(&["other"]));
        cluster.accept(Command::Aware { segment, below: 2, from: at(5) });
        cluster.cut(5, &[(segment, 50)]);
        assert_eq!((balance(&cluster, 0), balance(&cluster, 1)), ((50, 0, 50), (0, 0, 0)));
        cluster.cut(10, &[(segment, 70)]);
        assert_eq!((balance(&cluster, 0), balance(&cluster, 1)), ((50, 0, 50), (20, 0, 20)));
        cluster.flush(window(0, 10));
        assert_eq!(balance(&cluster, 0), (50, 50, 0));
    }

    #[test]
    fn an_account_holds_only_if_accepted_is_carried_and_pending() {
        let ledger = Ledger { accepted: extent(100), carried: 70, ..Ledger::default() };
        let balance = |pending| Balance { ledger, takes: Takes::Records, pending };
        assert!(balance(30).holds());
        assert!(!balance(29).holds());
        assert!(!balance(31).holds());
    }
}
