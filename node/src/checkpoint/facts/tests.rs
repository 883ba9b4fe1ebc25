//! A cluster to try commands on, and what holds for all of them together.

use serde_json::json;

use super::command::{Change, ClaimAnswer, CompleteAnswer, SlotClaim, SlotNumber};
use super::windows::{Outcome, Printed};
use super::*;
use crate::checkpoint::Digest;
use crate::event::time::{SECOND, UnixNanos, Window};
use crate::journal::Extent;
use uuid::Uuid;

mod honest; // complete windows have everything
mod random; // invariants under random commands

pub(super) const SETTINGS: Settings = Settings { slots: 2 };

/// Facts with two slots, and short ways to say commands.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) facts: Facts,
}

pub(super) fn node(id: u64) -> NodeId {
    NodeId(id)
}

pub(super) fn nodes<C: FromIterator<NodeId>>(ids: &[u64]) -> C {
    ids.iter().copied().map(NodeId).collect()
}

pub(super) fn at(second: u64) -> UnixNanos {
    UnixNanos(second * SECOND)
}

pub(super) fn window(start: u64, end: u64) -> Window {
    Window { start: at(start), end: at(end) }
}

pub(super) fn join(uuid: u128) -> Command {
    let (uuid, address) = (Uuid::from_u128(uuid), format!("node-{uuid}:4316"));
    Command::Join { uuid, address, zone: None }
}

pub(super) fn cut(number: u64, second: u64, stamped: &[(SegmentId, u64)]) -> Command {
    let stamped = stamped.iter().map(|&(id, entries)| (id, extent(entries)));
    Command::Cut { number, time: at(second), stamped: stamped.collect() }
}

/// So many entries, with three records each.
pub(super) fn extent(entries: u64) -> Extent {
    Extent { entries, records: 3 * entries, chunks: 0 }
}

pub(super) fn seal(segment: SegmentId, end: u64, until: u64, holders: &[u64]) -> Command {
    Command::Seal { segment, end: extent(end), until: at(until), holders: nodes(holders) }
}

pub(super) fn register(names: &[&str]) -> Command {
    let definition = |name: &&str| ((*name).to_owned(), json!({ "attribute": "foo" }));
    Command::Register { definitions: names.iter().map(definition).collect() }
}

impl Cluster {
    /// A cluster with this many active nodes, of which nodes 1 and 2 own both slots, or
    /// node 1 alone. It counts one aggregation, number 0, from cut 1 at second 1 on.
    pub(super) fn of(count: u64) -> Cluster {
        let mut cluster = Cluster { facts: Facts::new(SETTINGS) };
        for id in 1..=count {
            cluster.accept(join(id.into()));
            cluster.accept(Command::Activate { node: node(id) });
        }
        for slot in [0, 1] {
            cluster.place(slot, if count == 1 { &[1] } else { &[1, 2] });
        }
        cluster.accept(register(&["by-foo"]));
        cluster.cut(1, &[]);
        cluster
    }

    #[track_caller]
    pub(super) fn accept(&mut self, command: Command) -> Applied {
        self.facts.apply(command).unwrap()
    }

    /// Applies a command that has to be refused, and so must not change anything.
    #[track_caller]
    pub(super) fn refuse(&mut self, command: Command) -> Refused {
        let before = self.facts.clone();
        let refused = self.facts.apply(command).unwrap_err();
        assert_eq!(self.facts, before, "refused, but changed something: {refused}");
        refused
    }

    /// Applies a command that is said again, and so must not change anything.
    #[track_caller]
    pub(super) fn repeat(&mut self, command: Command) -> Applied {
        let before = self.facts.clone();
        let applied = self.accept(command);
        assert_eq!(self.facts, before, "changed something the second time");
        applied
    }

    #[track_caller]
    pub(super) fn open(&mut self, writer: u64, copies: &[u64]) -> SegmentId {
        let (writer, copies) = (node(writer), nodes(copies));
        match self.accept(Command::OpenSegment { writer, copies }) {
            Applied::Segment(segment) => segment,
            other => panic!("{other:?}"),
        }
    }

    /// Seals a segment with stamps up to the second `until`.
    #[track_caller]
    pub(super) fn seal(&mut self, segment: SegmentId, until: u64, end: u64, holders: &[u64]) {
        self.accept(Command::BeginSeal { segment, ceiling: at(until) });
        self.accept(seal(segment, end, until, holders));
    }

    /// Commits the next cut and returns its number.
    #[track_caller]
    pub(super) fn cut(&mut self, second: u64, stamped: &[(SegmentId, u64)]) -> u64 {
        let number = self.facts.latest_cut().number + 1;
        self.accept(cut(number, second, stamped));
        number
    }

    pub(super) fn place_command(&self, slot: Slot, owners: &[u64], copied: u64) -> Command {
        let epoch = self.facts.slots().get(&slot).map_or(0, |ownership| ownership.epoch);
        let change = Change { epoch, owners: nodes(owners), copied, wanted: Vec::new() };
        Command::Place { changes: [(slot, change)].into() }
    }

    #[track_caller]
    pub(super) fn place(&mut self, slot: Slot, owners: &[u64]) {
        let copied = self.facts.latest_cut().number;
        self.accept(self.place_command(slot, owners, copied));
    }

    /// What the slot's primary would claim of a window at the latest cut: every distinct
    /// record came in twice.
    pub(super) fn claim_command(&self, slot: Slot, window: Window, distinct: u64) -> Command {
        let Ownership { epoch, owners, .. } = &self.facts.slots()[&slot];
        let number = self.facts.aggregations()[&0].progress(slot).number() + 1;
        let digest = Digest(distinct.into());
        let claim = SlotClaim { epoch: *epoch, number, records: 2 * distinct, distinct, digest };
        let cut = self.facts.latest_cut().number;
        let slots = [(slot, claim)].into();
        Command::Claim { node: owners[0], aggregation: 0, window, cut, slots }
    }

    #[track_caller]
    pub(super) fn claim(&mut self, command: Command) -> ClaimAnswer {
        match self.accept(command) {
            Applied::Claims(answers) => answers.into_values().next().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// What the slot's primary says when it has delivered its claim.
    pub(super) fn complete_command(&self, slot: Slot) -> Command {
        let Ownership { epoch, owners, .. } = &self.facts.slots()[&slot];
        let progress = self.facts.aggregations()[&0].progress(slot);
        let number = progress.claimed.map_or(progress.number(), |claimed| claimed.number);
        let slots = [(slot, SlotNumber { epoch: *epoch, number })].into();
        Command::Complete { node: owners[0], aggregation: 0, slots, keeps: false }
    }

    #[track_caller]
    pub(super) fn complete(&mut self, command: Command) -> CompleteAnswer {
        match self.accept(command) {
            Applied::Completions(answers) => answers.into_values().next().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Claims and completes a window in one slot, at the latest cut.
    #[track_caller]
    pub(super) fn flush_slot(&mut self, slot: Slot, window: Window) {
        let claim = self.claim_command(slot, window, 10);
        assert_eq!(self.claim(claim), ClaimAnswer::Accepted);
        assert_eq!(self.complete(self.complete_command(slot)), CompleteAnswer::Completed);
    }

    /// Claims and completes a window in all slots, at the latest cut.
    #[track_caller]
    pub(super) fn flush(&mut self, window: Window) {
        for slot in [0, 1] {
            self.flush_slot(slot, window);
        }
    }

    pub(super) fn carry_command(&self, slot: Slot, cut: u64) -> Command {
        let Ownership { epoch, owners, .. } = &self.facts.slots()[&slot];
        let (node, slots) = (owners[0], [(slot, *epoch)].into());
        Command::Carry { node, aggregation: 0, slots, cut, keeps: true }
    }

    pub(super) fn print_command(&self, window: Window, revision: u32, line: u128) -> Command {
        let outcome = self.facts.is_complete(0, window).outcome();
        let printed = Printed { revision, digest: Digest(line), outcome };
        Command::Print { aggregation: 0, window, printed }
    }
}

#[test]
fn facts_are_the_json_that_earlier_versions_wrote() {
    let mut cluster = Cluster::of(3);
    let [lost, sealed, open] = [3, 1, 2].map(|writer| cluster.open(writer, &[writer]));
    cluster.cut(10, &[(lost, 4), (sealed, 2)]);
    cluster.flush_slot(0, window(0, 10));
    cluster.claim(cluster.claim_command(1, window(0, 10), 7));
    cluster.accept(cluster.print_command(window(0, 10), 1, 9));
    cluster.seal(sealed, 12, 3, &[1]);
    cluster.accept(Command::BeginSeal { segment: lost, ceiling: at(10) });
    cluster.accept(Command::Forget { node: node(3) });
    let empty = cluster.open(1, &[1, 2]);
    cluster.seal(empty, 12, 0, &[2]);
    let json = serde_json::to_string_pretty(&cluster.facts).unwrap();
    assert_eq!(cluster.facts.segments()[&open].end(), None);
    assert_eq!(json, include_str!("tests/facts.json").trim_end());
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), cluster.facts);
}

#[test]
fn commands_in_the_log_are_read_as_they_were_written() {
    for line in include_str!("tests/commands.jsonl").lines() {
        let command: Command = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&command).unwrap(), line);
    }
}

#[test]
fn refusals_are_read_as_another_node_wrote_them() {
    for line in include_str!("tests/refused.jsonl").lines() {
        let refused: Refused = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&refused).unwrap(), line);
    }
}

#[test]
fn facts_do_not_grow_with_time() {
    let mut cluster = Cluster::of(2);
    let mut bytes = Vec::new();
    for hour in 0..3 {
        for second in (hour * 3600 + 10..=hour * 3600 + 3600).step_by(10) {
            let segment = cluster.open(1, &[1, 2]);
            cluster.cut(second, &[(segment, second)]);
            cluster.flush(window(second - 10, second));
            cluster.accept(cluster.print_command(window(second - 10, second), 1, 1));
            cluster.seal(segment, second + 1, second + 1, &[1, 2]);
        }
        bytes.push(serde_json::to_vec(&cluster.facts).unwrap().len());
    }
    assert!(bytes[2] < bytes[1] + bytes[1] / 100, "{bytes:?}");
}

#[test]
fn facts_of_another_format_are_not_read() {
    let mut json = serde_json::to_value(Facts::new(SETTINGS)).unwrap();
    json["format"] = 2.into();
    let error = serde_json::from_value::<Facts>(json).unwrap_err().to_string();
    assert!(error.contains("start the version that wrote them"), "{error}");
}
