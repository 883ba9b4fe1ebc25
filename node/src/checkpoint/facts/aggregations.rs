//! What is counted. Entries name an aggregation by number, so a number means one
//! definition for ever; a definition that changes gets a new number.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::facts::beginning::Unaware;
use crate::checkpoint::facts::checkpoints::Progress;
use crate::checkpoint::facts::command::Applied;
use crate::checkpoint::facts::cuts::Cut;
use crate::checkpoint::facts::forget::Loss;
use crate::checkpoint::facts::ledger::Ledger;
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::windows::{WindowFact, is_expired};
use crate::checkpoint::facts::{Facts, SegmentId, Slot};
use crate::event::time::{UnixNanos, Window};
use crate::journal::Extent;

/// The `type` of the one definition that takes chunks.
const LOG_FILES: &str = "LogFiles";

/// What an aggregation takes of what was accepted, and so what its account is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Takes {
    /// Log records.
    #[default]
    Records,
    /// Chunks of files.
    Chunks,
}

impl Takes {
    /// What an aggregation of this definition takes. Nothing else of a definition matters to
    /// the facts.
    pub fn of_definition(definition: &Value) -> Takes {
        match definition.get("type").and_then(Value::as_str) {
            Some(LOG_FILES) => Takes::Chunks,
            _ => Takes::Records,
        }
    }

    /// How many of them there are.
    pub fn count(self, extent: Extent) -> u64 {
        match self {
            Takes::Records => extent.records,
            Takes::Chunks => extent.chunks,
        }
    }

    fn is_records(&self) -> bool {
        *self == Takes::Records
    }
}

/// An aggregation, and how far it was flushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregation {
    /// What people call it.
    pub name: String,
    /// What it counts, in the shape of the settings.
    pub definition: Value,
    /// What its account is kept in.
    #[serde(default, skip_serializing_if = "Takes::is_records")]
    pub takes: Takes,
    /// The number of the cut from which on it counts; put off while that is yet to come, if
    /// some entries would lack its sections.
    pub since: u64,
    /// The number of the cut with which it ends, if it does: it counts nothing that is
    /// stamped at that cut's time or later. What is stamped before, but missing in that
    /// cut, it still counts when a later cut does.
    pub until: Option<u64>,
    /// What came in and what went out.
    pub ledger: Ledger,
    /// How far each slot was flushed, once anything of it was claimed or carried.
    pub slots: BTreeMap<Slot, Progress>,
    /// The windows of the last hour of which something was flushed or printed, by their
    /// first instant.
    pub windows: BTreeMap<UnixNanos, WindowFact>,
    /// What was lost and may belong to a window of the last hour.
    pub losses: Vec<Loss>,
}

impl Aggregation {
    fn new(name: String, definition: Value, since: u64) -> Aggregation {
        Aggregation {
            name,
            takes: Takes::of_definition(&definition),
            definition,
            since,
            until: None,
            ledger: Ledger::default(),
            slots: BTreeMap::new(),
            windows: BTreeMap::new(),
            losses: Vec::new(),
        }
    }

    /// How many records, or chunks, are below the cuts, as [`Ledger::accepted`] says.
    pub fn accepted(&self) -> u64 {
        self.takes.count(self.ledger.accepted)
    }

    /// How many records, or chunks, are known to be lost, as [`Ledger::lost`] says.
    pub fn lost(&self) -> u64 {
        self.takes.count(self.ledger.lost)
    }

    /// Whether it rebuilds files from chunks: then a checkpoint has everything below its cut, and
    /// goes on from the one before.
    pub fn takes_chunks(&self) -> bool {
        self.takes == Takes::Chunks
    }

    /// Whether it goes on under another definition: files do not begin again.
    fn goes_on_as(&self, definition: &Value) -> bool {
        self.takes_chunks() && Takes::of_definition(definition) == Takes::Chunks
    }

    /// The number of the cut that a slot goes on from: what is below it was flushed or is
    /// carried.
    pub fn carried(&self, slot: Slot) -> u64 {
        self.slots.get(&slot).map_or(self.since, |progress| progress.carried)
    }

    /// The numbers of the cuts at which something is claimed.
    pub(super) fn claimed_at(&self) -> impl Iterator<Item = u64> {
        self.slots.values().filter_map(|progress| Some(progress.claimed?.cut))
    }
}

/// The aggregations and the next number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aggregations {
    pub(super) next: u32,
    pub(super) known: BTreeMap<u32, Aggregation>,
    /// The window whose line was recorded last, with its aggregation.
    pub(super) last_printed: Option<(u32, Window)>,
    /// Whom those that are to begin wait for.
    #[serde(default, skip_serializing_if = "Unaware::is_empty")]
    pub(super) unaware: Unaware,
}

impl Aggregations {
    pub(super) fn get(&self, number: u32) -> Result<&Aggregation, Refused> {
        self.known.get(&number).ok_or(Refused::NoAggregation { number })
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Result<&mut Aggregation, Refused> {
        self.known.get_mut(&number).ok_or(Refused::NoAggregation { number })
    }
}

impl Facts {
    pub(super) fn register(
        &mut self,
        mut definitions: BTreeMap<String, Value>,
    ) -> Result<Applied, Refused> {
        if let Some((name, _)) = definitions.iter().find(|(_, definition)| has_fraction(definition))
        {
            return Err(Refused::Fraction { name: name.clone() });
        }
        let next_cut = self.cuts.latest.number + 1;
        for active in self.aggregations.known.values_mut().filter(|known| known.until.is_none()) {
            match definitions.get(&active.name) {
                Some(same) if *same == active.definition => {
                    definitions.remove(&active.name);
                }
                Some(other) if active.goes_on_as(other) => {
                    active.definition = other.clone();
                    definitions.remove(&active.name);
                }
                _ => active.until = Some(next_cut),
            }
        }
        // One that ends with the cut from which it was to begin has counted nothing.
        self.aggregations.known.retain(|_, known| known.until != Some(known.since));
        if !definitions.is_empty() {
            self.wait_for_writers();
        }
        for (name, definition) in definitions {
            let begun = Aggregation::new(name, definition, next_cut);
            self.aggregations.known.insert(self.aggregations.next, begun);
            self.aggregations.next += 1;
        }
        Ok(Applied::Done)
    }

    /// The cuts from which an aggregation's slots would fold again, but for those that
    /// have all that they will ever need.
    pub(super) fn resumed_from(&self, aggregation: &Aggregation) -> BTreeSet<u64> {
        let carried = self.settings.slots().iter().map(|slot| aggregation.carried(slot));
        let unfinished = carried.filter(|&cut| !self.has_all(aggregation, cut));
        // One that begins with the next cut needs nothing of what is there.
        unfinished.map(|cut| cut.min(self.cuts.latest.number)).collect()
    }

    /// Whether an aggregation has ended, and the cut counts all that is its own.
    fn has_all(&self, aggregation: &Aggregation, cut: u64) -> bool {
        let until = aggregation.until.filter(|&until| until <= cut);
        let Some(end) = until.and_then(|until| self.cuts.get(until)) else { return false };
        let still_missing = |cut: &Cut| cut.missing.values().any(|span| span.from < end.time);
        // A cut from which a slot has to go on is always kept.
        !self.cuts.get(cut).is_some_and(still_missing)
    }

    /// The smallest count of a segment at these cuts.
    pub(super) fn least_count(&self, cuts: &BTreeSet<u64>, segment: SegmentId) -> Option<Extent> {
        let count = |&cut| self.cuts.get(cut).map_or(Extent::default(), |cut| cut.count(segment));
        cuts.iter().map(count).min_by_key(|extent| extent.entries)
    }

    pub(super) fn prune_aggregations(&mut self) {
        let now = self.cuts.latest.time;
        for aggregation in self.aggregations.known.values_mut() {
            aggregation.windows.retain(|_, window| !is_expired(window.end, now));
            aggregation.losses.retain(|loss| !is_expired(loss.stamps.until, now));
        }
        let known = self.aggregations.known.iter();
        let over: Vec<_> = known.filter(|(_, a)| self.is_over(a)).map(|(&n, _)| n).collect();
        self.aggregations.known.retain(|number, _| !over.contains(number));
    }

    /// Whether an aggregation has ended, was flushed to its end, and nobody asks for its
    /// windows any more.
    fn is_over(&self, aggregation: &Aggregation) -> bool {
        let Some(end) = aggregation.until.and_then(|until| self.cuts.get(until)) else {
            return false;
        };
        let flushed = |slot| {
            let Progress { carried, through, claimed, .. } = aggregation.progress(slot);
            claimed.is_none() && through >= end.time && self.has_all(aggregation, carried)
        };
        aggregation.windows.is_empty()
            && aggregation.losses.is_empty()
            && self.settings.slots().iter().all(flushed)
    }
}

/// A number with a fraction may not survive its way through JSON.
fn has_fraction(definition: &Value) -> bool {
    match definition {
        Value::Number(number) => number.is_f64(),
        Value::Array(elements) => elements.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::facts::command::Command;
    use crate::checkpoint::facts::tests::{Cluster, at, register, window};

    fn define(name: &str, definition: Value) -> Command {
        Command::Register { definitions: [(name.to_owned(), definition)].into() }
    }

    fn lives(cluster: &Cluster) -> Vec<(u32, &str, u64, Option<u64>)> {
        let known = cluster.facts.aggregations().iter();
        known.map(|(&number, a)| (number, a.name.as_str(), a.since, a.until)).collect()
    }

    #[test]
    fn a_changed_definition_gets_a_new_number_from_the_next_cut_on() {
        let mut cluster = Cluster::of(1);
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, None)]);
        let changed = define("by-foo", json!({ "attribute": "bar" }));
        cluster.accept(changed.clone());
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, Some(2)), (1, "by-foo", 2, None)]);
        cluster.repeat(changed);
    }

    #[test]
    fn files_go_on_under_another_definition_and_under_the_same_number() {
        let mut cluster = Cluster::of(1);
        let files = |member: Value| json!({ "type": "LogFiles", "logFiles": member });
        cluster.accept(define("files", files(json!({ "checkpointSeconds": 1 }))));
        cluster.cut(2, &[]);
        for member in [
            json!({ "checkpointSeconds": 2 }),
            json!({ "checkpointSeconds": 2, "retentionSeconds": 60 }),
            json!({ "checkpointSeconds": 2, "partBytes": 1 << 20 }),
            json!({ "checkpointSeconds": 2, "partBytes": 1 << 21, "compression": "Zstd" }),
            json!({ "checkpointSeconds": 2 }),
        ] {
            cluster.accept(define("files", files(member.clone())));
            assert_eq!(lives(&cluster), [(0, "by-foo", 1, Some(2)), (1, "files", 2, None)]);
            assert_eq!(cluster.facts.aggregations()[&1].definition, files(member.clone()));
            cluster.repeat(define("files", files(member)));
        }
        cluster.accept(define("files", json!({ "attribute": "foo" })));
        let expected = [(0, "by-foo", 1, Some(2)), (1, "files", 2, Some(3)), (2, "files", 3, None)];
        assert_eq!(lives(&cluster), expected, "another type is another aggregation");
    }

    #[test]
    fn what_was_to_begin_with_the_next_cut_goes_without_a_trace_but_its_number() {
        let mut cluster = Cluster::of(1);
        cluster.accept(register(&["by-foo", "a"]));
        cluster.accept(register(&["by-foo", "b"]));
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, None), (2, "b", 2, None)]);
        cluster.accept(register(&["by-foo", "c"]));
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, None), (3, "c", 2, None)]);
    }

    #[test]
    fn an_aggregation_needs_nothing_from_before_it_began() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.cut(10, &[(segment, 10)]);
        cluster.flush(window(0, 10));
        cluster.accept(register(&["by-foo", "late"]));
        cluster.accept(Command::Aware { segment, below: 2, from: at(11) });
        assert_eq!(cluster.facts.trimmed(segment), 10);
        cluster.cut(20, &[(segment, 20)]);
        cluster.flush(window(10, 20));
        assert_eq!(cluster.facts.trimmed(segment), 20);
        cluster.cut(30, &[(segment, 30)]);
        cluster.flush(window(20, 30));
        assert_eq!(cluster.facts.trimmed(segment), 20);
    }

    /// Carries everything up to the latest cut.
    fn carry(cluster: &mut Cluster) {
        let latest = cluster.facts.latest_cut().number;
        for slot in [0, 1] {
            cluster.accept(cluster.carry_command(slot, latest));
        }
    }

    #[test]
    fn an_ended_aggregation_stays_until_it_is_flushed_and_its_windows_are_old() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.accept(register(&[]));
        cluster.cut(5, &[(segment, 5)]);
        cluster.cut(10, &[(segment, 10)]);
        assert_eq!(cluster.facts.trimmed(segment), 0);
        cluster.flush(window(0, 10));
        cluster.cut(3609, &[(segment, 10)]);
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, Some(2))]);
        assert_eq!(cluster.facts.trimmed(segment), 10, "no longer for its sake");
        cluster.cut(3610, &[(segment, 10)]);
        assert_eq!(lives(&cluster), []);
        cluster.accept(register(&["by-foo"]));
        assert_eq!(lives(&cluster), [(1, "by-foo", 6, None)]);
    }

    #[test]
    fn an_ended_aggregation_still_needs_what_its_last_cut_missed() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.cut(5, &[(segment, 5)]);
        cluster.accept(register(&[]));
        cluster.cut(10, &[]);
        cluster.flush(window(0, 10));
        cluster.cut(20, &[(segment, 20)]);
        assert_eq!(cluster.facts.trimmed(segment), 5);
        cluster.flush(window(0, 10));
        carry(&mut cluster);
        cluster.cut(30, &[(segment, 30)]);
        assert_eq!(cluster.facts.trimmed(segment), 30);
    }

    #[test]
    fn an_ended_aggregation_is_flushed_to_the_time_of_its_last_cut() {
        let mut cluster = Cluster::of(1);
        let segment = cluster.open(1, &[1]);
        cluster.seal(segment, 12, 5, &[1]);
        cluster.accept(register(&[]));
        cluster.cut(11, &[(segment, 4)]);
        cluster.flush(window(0, 10));
        cluster.cut(9000, &[]);
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, Some(2))]);
        carry(&mut cluster);
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, Some(2))]);
        cluster.flush(window(10, 20));
        assert_eq!(lives(&cluster), []);
    }

    #[test]
    fn an_ended_aggregation_stays_while_something_of_it_is_missing() {
        let mut cluster = Cluster::of(2);
        let segment = cluster.open(2, &[2]);
        cluster.seal(segment, 12, 5, &[2]);
        cluster.accept(register(&[]));
        cluster.cut(10, &[]);
        cluster.flush(window(0, 10));
        let late = cluster.open(2, &[2]);
        cluster.cut(9000, &[]);
        assert_eq!(cluster.facts.latest_cut().missing.keys().collect::<Vec<_>>(), [&late]);
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, Some(2))]);
        for slot in [0, 1] {
            cluster.accept(cluster.carry_command(slot, 3));
        }
        assert_eq!(lives(&cluster), [], "what came later is not its own");
    }

    #[test]
    fn an_ended_aggregation_that_was_not_flushed_stays() {
        let mut cluster = Cluster::of(1);
        cluster.accept(register(&[]));
        cluster.cut(5, &[]);
        cluster.cut(9000, &[]);
        assert_eq!(lives(&cluster), [(0, "by-foo", 1, Some(2))]);
    }

    #[test]
    fn a_definition_has_whole_numbers_only() {
        let mut cluster = Cluster::of(1);
        let refused = cluster.refuse(define("a", json!({ "b": [{ "c": 1.5 }] })));
        assert_eq!(refused, Refused::Fraction { name: "a".to_owned() });
        cluster.accept(define("a", json!({ "b": [{ "c": 15 }, null, true, "1.5"] })));
    }
}
