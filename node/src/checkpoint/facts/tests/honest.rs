//! A cluster whose nodes tell the truth: a window that the facts call complete has to have
//! everything that was ever stamped within it, and every cut all that is stamped before it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::command::CarryAnswer;
use super::super::segments::SegmentState;
use super::super::windows::Completeness;
use super::*;

/// Windows are this many seconds long.
const LENGTH: u64 = 2;

/// What really happened. Times are in half seconds, so that they lie within and between
/// the seconds of cuts.
struct World {
    cluster: Cluster,
    now: u64,
    /// The stamps of each segment's entries. Those beyond its end never existed.
    stamps: BTreeMap<SegmentId, Vec<u64>>,
    /// The time that a segment's writer told of last: it stamps nothing before that.
    told: BTreeMap<SegmentId, u64>,
    /// How much of a segment could still be read when it was lost.
    readable: BTreeMap<SegmentId, u64>,
    /// For each window and slot, how many entries of each segment its checkpoint has.
    flushed: BTreeMap<(Window, Slot), BTreeMap<SegmentId, u64>>,
    /// Of these, the checkpoints that miss nothing.
    whole: BTreeSet<(Window, Slot)>,
}

#[derive(Clone, Debug)]
enum Step {
    Wait,
    Open { writer: u64 },
    Append { choice: usize, skew: u64 },
    BeginSeal { choice: usize },
    Seal { choice: usize, truncate: usize },
    Cut { silent: u8, late: u64 },
    Carry { slot: Slot },
    Flush { slot: Slot, ago: u64 },
    Forget { writer: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let choice = || 0_usize..4;
    prop_oneof![
        4 => Just(Step::Wait),
        3 => (2_u64..6).prop_map(|writer| Step::Open { writer }),
        9 => (choice(), 0_u64..3).prop_map(|(choice, skew)| Step::Append { choice, skew }),
        1 => choice().prop_map(|choice| Step::BeginSeal { choice }),
        1 => (choice(), 0_usize..3).prop_map(|(choice, truncate)| Step::Seal { choice, truncate }),
        6 => (prop_oneof![2 => Just(0), 1 => any::<u8>()], prop_oneof![2 => Just(0), 1 => 1_u64..4])
            .prop_map(|(silent, late)| Step::Cut { silent, late }),
        1 => (0_u8..2).prop_map(|slot| Step::Carry { slot }),
        9 => (0_u8..2, 0_u64..3).prop_map(|(slot, ago)| Step::Flush { slot, ago }),
        1 => (2_u64..6).prop_map(|writer| Step::Forget { writer }),
    ]
}

impl World {
    /// Node 1 owns both slots; nodes 2 to 5 keep journals, each on its own.
    fn new() -> World {
        let mut cluster = Cluster::of(5);
        cluster.place(0, &[1]);
        cluster.place(1, &[1]);
        World {
            cluster,
            now: 2,
            stamps: BTreeMap::new(),
            told: BTreeMap::new(),
            readable: BTreeMap::new(),
            flushed: BTreeMap::new(),
            whole: BTreeSet::new(),
        }
    }

    /// How many records an entry has for a slot.
    fn records(stamp: u64, slot: Slot) -> u64 {
        (stamp + u64::from(slot)) % 3
    }

    /// The extent of a segment's first entries.
    fn extent(entries: &[u64]) -> Extent {
        let records = |&stamp| World::records(stamp, 0) + World::records(stamp, 1);
        let (entries, records) = (entries.len() as u64, entries.iter().map(records).sum());
        Extent { entries, records, chunks: 0 }
    }

    /// What of a segment is stamped before a time.
    fn stamped_before(&self, id: SegmentId, time: u64) -> &[u64] {
        let entries = self.stamps.get(&id).map_or(&[][..], Vec::as_slice);
        &entries[..entries.partition_point(|&stamp| stamp < time)]
    }

    fn half_seconds(time: UnixNanos) -> u64 {
        time.0 / (SECOND / 2)
    }

    fn segment(&self, choice: usize) -> Option<(SegmentId, Segment)> {
        let known = self.cluster.facts.segments().iter().rev();
        known.map(|(&id, segment)| (id, segment.clone())).nth(choice)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait => self.now += 1,
            Step::Open { writer } => {
                let (writer, copies) = (node(writer), vec![node(writer)]);
                // Refused while its last segment is open, or after it was forgotten.
                let _ = self.cluster.facts.apply(Command::OpenSegment { writer, copies });
            }
            Step::Append { choice, skew } => self.append(choice, skew),
            Step::BeginSeal { choice } => {
                let Some((segment, _)) = self.segment(choice) else { return };
                let ceiling = at(self.now / 2 + 2);
                self.cluster.accept(Command::BeginSeal { segment, ceiling });
            }
            Step::Seal { choice, truncate } => self.seal(choice, truncate),
            Step::Cut { silent, late } => self.cut(silent, late),
            Step::Carry { slot } => {
                let carry =
                    self.cluster.carry_command(slot, self.cluster.facts.latest_cut().number);
                let answer = self.cluster.accept(carry);
                assert_ne!(answer, Applied::Carries([(slot, CarryAnswer::StaleEpoch)].into()));
            }
            Step::Flush { slot, ago } => self.flush(slot, ago),
            Step::Forget { writer } => self.forget(writer),
        }
    }

    /// A writer whose clock is half a second off at most appends while its lease lasts.
    fn append(&mut self, choice: usize, skew: u64) {
        let Some((id, segment)) = self.segment(choice) else { return };
        let told = self.told.get(&id).copied().unwrap_or(0);
        let entries = self.stamps.entry(id).or_default();
        let last = entries.last().copied().unwrap_or(0);
        let floor = World::half_seconds(segment.floor);
        let stamp = (self.now + skew - 1).max(told).max(last).max(floor);
        let under_lease = stamp < World::half_seconds(segment.ceiling).min(self.now + 3);
        if segment.end().is_none() && under_lease {
            entries.push(stamp);
        }
    }

    fn seal(&mut self, choice: usize, truncate: usize) {
        let Some((id, segment)) = self.segment(choice) else { return };
        if segment.state != SegmentState::Sealing {
            return;
        }
        let counted = self.cluster.facts.latest_cut().count(id).entries as usize;
        let entries = self.stamps.entry(id).or_default();
        entries.truncate(entries.len().saturating_sub(truncate).max(counted));
        let after = |last: &u64| UnixNanos(last * SECOND / 2 + 1);
        let until = entries.last().map_or(segment.floor, after);
        let (end, holders) = (World::extent(entries), [segment.writer].into());
        self.cluster.accept(Command::Seal { segment: id, end, until, holders });
    }

    /// Asks each node that is not silent how much of its segments is stamped before this
    /// second, or before one that has gone by.
    fn cut(&mut self, silent: u8, late: u64) {
        let second = (self.now / 2).saturating_sub(late);
        if at(second) <= self.cluster.facts.latest_cut().time {
            return;
        }
        let mut stamped = Vec::new();
        let segments = self.cluster.facts.segments().iter();
        for (&id, _) in segments.filter(|(id, segment)| {
            segment.nodes().next().is_some() && (silent >> ((segment.writer.0 + *id) % 8)) & 1 == 0
        }) {
            stamped.push((id, World::extent(self.stamped_before(id, 2 * second))));
            self.told.insert(id, 2 * second);
        }
        let number = self.cluster.facts.latest_cut().number + 1;
        let stamped = stamped.into_iter().collect();
        self.cluster.accept(Command::Cut { number, time: at(second), stamped });
    }

    /// How much of each segment a slot can have at the latest cut.
    fn folded(&self) -> BTreeMap<SegmentId, u64> {
        let latest = self.cluster.facts.latest_cut();
        let counts = self.stamps.iter().map(|(id, entries)| {
            let is_dropped =
                !latest.counts.contains_key(id) && !self.cluster.facts.segments().contains_key(id);
            let count = if is_dropped { entries.len() as u64 } else { latest.count(*id).entries };
            (*id, self.readable.get(id).map_or(count, |&readable| count.min(readable)))
        });
        counts.collect()
    }

    /// The stamps of what a slot can have at the latest cut.
    fn folded_stamps(&self) -> impl Iterator<Item = u64> {
        let folded = self.folded();
        folded
            .into_iter()
            .flat_map(|(id, count)| self.stamps[&id].iter().take(count as usize))
            .copied()
    }

    fn flush(&mut self, slot: Slot, ago: u64) {
        let newest = self.cluster.facts.latest_cut().time.0 / (LENGTH * SECOND);
        let Some(start) = newest.checked_sub(1 + ago) else { return };
        let window = window(start * LENGTH, (start + 1) * LENGTH);
        let within = self.folded_stamps().filter(|&stamp| World::window_of(stamp) == window);
        let found = within.map(|stamp| World::records(stamp, slot)).sum();
        let mut claim = self.cluster.claim_command(slot, window, 1);
        let Command::Claim { slots, .. } = &mut claim else { unreachable!() };
        slots.values_mut().for_each(|claim| claim.records = found);
        let folded = self.folded();
        if self.cluster.claim(claim) == ClaimAnswer::Accepted {
            self.cluster.complete(self.cluster.complete_command(slot));
            self.flushed.insert((window, slot), folded);
            let progress = self.cluster.facts.aggregations()[&0].progress(slot);
            if progress.flushed.is_some_and(|checkpoint| !checkpoint.incomplete) {
                self.whole.insert((window, slot));
            }
        }
    }

    fn window_of(stamp: u64) -> Window {
        Window::of(UnixNanos(stamp * SECOND / 2), LENGTH as u32)
    }

    fn forget(&mut self, writer: u64) {
        let mut alone = Vec::new();
        for (&id, segment) in self.cluster.facts.segments() {
            if segment.writer == node(writer) {
                alone.push((id, self.cluster.facts.trimmed(id)));
            }
        }
        if self.cluster.facts.apply(Command::Forget { node: node(writer) }).is_ok() {
            self.readable.extend(alone);
        }
    }

    /// Windows that are complete, after it was checked that they have everything.
    fn complete(&self) -> usize {
        let windows = self.flushed.keys().map(|(window, _)| *window);
        let is_complete =
            |window: &Window| self.cluster.facts.is_complete(0, *window) == Completeness::Complete;
        let mut complete = 0;
        for window in windows.filter(is_complete) {
            complete += 1;
            let within = World::half_seconds(window.start)..World::half_seconds(window.end);
            for ((id, entries), slot) in self.stamps.iter().flat_map(|s| [(s, 0), (s, 1)]) {
                let last = entries.iter().rposition(|stamp| within.contains(stamp));
                let needed = last.map_or(0, |last| last as u64 + 1);
                let has = self.flushed[&(window, slot)].get(id).copied().unwrap_or(0);
                assert!(has >= needed, "slot {slot}, {window}: {has} of {needed} of segment {id}");
            }
        }
        complete
    }

    /// A cut counts what is stamped before its time and nothing else, but for what it says
    /// that it misses and for what is lost.
    fn cuts_count_by_stamps(&self) {
        for cut in self.cluster.facts.cuts() {
            let is_here = |(id, _): &(&SegmentId, &Extent)| !self.readable.contains_key(*id);
            for (id, count) in cut.counts.iter().filter(is_here) {
                let before = |time| self.stamped_before(*id, World::half_seconds(time));
                let known = cut.missing.get(id).map_or(cut.time, |span| span.from);
                let counted = &before(UnixNanos(u64::MAX))[..count.entries as usize];
                assert!(counted.len() >= before(known).len(), "too little of segment {id}");
                assert!(counted.len() <= before(cut.time).len(), "too much of segment {id}");
                assert_eq!(*count, World::extent(counted));
            }
        }
    }

    /// Records that are below the latest cut were flushed, or their window was not yet.
    fn records_add_up(&self) {
        if !self.readable.is_empty() {
            return;
        }
        let unflushed = self.folded_stamps().flat_map(|stamp| [(stamp, 0), (stamp, 1)]);
        let unflushed = unflushed
            .filter(|&(stamp, slot)| !self.whole.contains(&(World::window_of(stamp), slot)))
            .map(|(stamp, slot)| World::records(stamp, slot));
        let balance = self.cluster.facts.balance(0).unwrap();
        assert_eq!(balance.unflushed(), unflushed.sum::<u64>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_complete_window_has_all_that_was_ever_stamped_within_it(
        steps in prop::collection::vec(step(), 1..150)
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.complete();
            world.cuts_count_by_stamps();
            world.records_add_up();
        }
    }
}
