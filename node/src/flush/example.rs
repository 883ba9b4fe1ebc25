//! A cluster in which tests fold and flush: its facts, and entries with records.

pub(crate) mod node; // nodes that fold and flush, as tasks

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::checkpoint::Digest;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::command::{Applied, Change, Command, SlotClaim, SlotNumber};
use crate::checkpoint::facts::{Facts, SegmentId, Settings};
use crate::checkpoint::raft::Stopped;
use crate::event::entry::distinct::Dictionary;
use crate::event::entry::part::Splitter;
use crate::event::entry::{Entry, EntryWriter};
use crate::event::fingerprint::SLOTS;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::{SECOND, UnixNanos, Window};
use crate::flush::carried::CarriedWindows;
use crate::flush::feed::{Batch, Consensus, Disagreement, Part};
use crate::flush::files::{Asked, Files, FilesError};
use crate::flush::requests::{Decided, Requests};
use crate::flush::sharing::{KeptFiles, NotKept, Others, Sharing};
use crate::journal::{Extent, FRAME_BYTES, frame};

pub(crate) fn at(second: u64) -> UnixNanos {
    UnixNanos(second * SECOND)
}

pub(crate) fn window(start: u64, end: u64) -> Window {
    Window { start: at(start), end: at(end) }
}

pub(crate) fn slots(text: &str) -> SlotSet {
    text.parse().unwrap()
}

/// So many entries, with one record each.
pub(crate) fn extent(entries: u64) -> Extent {
    Extent { entries, records: entries, chunks: 0 }
}

pub(crate) fn definition(name: &str, seconds: u64) -> Value {
    let settings = json!({ "attribute": "foo", "unique": "Body", "windowSeconds": seconds });
    json!({ "name": name, "type": "DistinctLogs", "distinctLogs": settings })
}

/// Windows of these names and lengths are to be counted from the next cut on.
pub(crate) fn register(definitions: &[(&str, u64)]) -> Command {
    let definitions = definitions.iter();
    let definitions = definitions.map(|&(name, len)| (name.to_owned(), definition(name, len)));
    Command::Register { definitions: definitions.collect() }
}

/// The facts of a cluster that agrees at once to whatever they allow.
pub(crate) struct Cluster {
    facts: watch::Sender<Arc<Facts>>,
    script: Mutex<Script>,
}

/// What is lost when a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Command,
    Answer,
}

/// Whether a command is of a kind.
type Kind = fn(&Command) -> bool;

#[derive(Default)]
struct Script {
    /// What others have applied just before the next command of a kind.
    first: Vec<(Kind, Command)>,
    /// With which command the node that proposes them ends.
    end: Option<(usize, Lost)>,
    proposed: Vec<Command>,
}

impl Script {
    /// What comes before a command, and what of it is lost.
    fn next(&mut self, command: &Command) -> (Vec<Command>, Option<Lost>) {
        self.proposed.push(command.clone());
        let lost = self.end.and_then(|(end, lost)| match self.proposed.len().cmp(&end) {
            Ordering::Less => None,
            Ordering::Equal => Some(lost),
            Ordering::Greater => Some(Lost::Command),
        });
        if lost == Some(Lost::Command) {
            return (Vec::new(), lost);
        }
        let first = self.first.extract_if(.., |(is_kind, _)| is_kind(command));
        (first.map(|(_, first)| first).collect(), lost)
    }
}

impl Cluster {
    /// So many active nodes. The first one is the primary of all slots; what is counted is
    /// aggregation 0, in windows of ten seconds, from cut 1 at second 1 on.
    pub(crate) fn of(nodes: u64) -> Arc<Cluster> {
        let facts = Arc::new(Facts::new(Settings { slots: SLOTS as u16 }));
        let cluster = Cluster { facts: watch::Sender::new(facts), script: Mutex::default() };
        for node in 1..=nodes {
            cluster.join(node, &format!("node-{node}:9465"));
            cluster.apply(Command::Activate { node: NodeId(node) });
        }
        cluster.place("0-255", 1);
        cluster.apply(register(&[("by-foo", 10)]));
        cluster.cut(1, &[]);
        Arc::new(cluster)
    }

    pub(crate) fn now(&self) -> Arc<Facts> {
        self.facts.borrow().clone()
    }

    #[track_caller]
    pub(crate) fn apply(&self, command: Command) -> Applied {
        let mut facts = Facts::clone(&self.now());
        let applied = facts.apply(command).unwrap();
        self.facts.send_replace(Arc::new(facts));
        applied
    }

    /// A node joins, or moves to another address.
    #[track_caller]
    pub(crate) fn join(&self, node: u64, address: &str) {
        let (uuid, address) = (Uuid::from_u128(node.into()), address.to_owned());
        self.apply(Command::Join { uuid, address, zone: None });
    }

    #[track_caller]
    pub(crate) fn open(&self, writer: u64) -> SegmentId {
        let writer = NodeId(writer);
        match self.apply(Command::OpenSegment { writer, copies: vec![writer] }) {
            Applied::Segment(segment) => segment,
            other => panic!("{other:?}"),
        }
    }

    /// The writer of a segment has packed all aggregations from the beginning.
    #[track_caller]
    pub(crate) fn aware(&self, segment: SegmentId) {
        let below = self.now().next_aggregation();
        self.apply(Command::Aware { segment, below, from: at(0) });
    }

    /// Seals a segment of so many entries, the last of which is stamped before a second.
    #[track_caller]
    pub(crate) fn seal(&self, segment: SegmentId, entries: u64, second: u64) {
        let (until, holders) = (at(second), [self.now().segments()[&segment].writer].into());
        self.apply(Command::BeginSeal { segment, ceiling: until });
        self.apply(Command::Seal { segment, end: extent(entries), until, holders });
    }

    /// Commits the next cut, and returns its number.
    #[track_caller]
    pub(crate) fn cut(&self, second: u64, stamped: &[(SegmentId, u64)]) -> u64 {
        let number = self.now().latest_cut().number + 1;
        let stamped = stamped.iter().map(|&(segment, entries)| (segment, extent(entries)));
        self.apply(Command::Cut { number, time: at(second), stamped: stamped.collect() });
        number
    }

    pub(crate) fn place_command(&self, slots: &str, node: u64) -> Command {
        let facts = self.now();
        let change = |slot| {
            let epoch = facts.slots().get(&slot).map_or(0, |ownership| ownership.epoch);
            let copied = facts.latest_cut().number;
            (slot, Change { epoch, owners: vec![NodeId(node)], copied, wanted: Vec::new() })
        };
        Command::Place { changes: self::slots(slots).iter().map(change).collect() }
    }

    #[track_caller]
    pub(crate) fn place(&self, slots: &str, node: u64) {
        self.apply(self.place_command(slots, node));
    }

    /// Has these slots owned by several nodes, of which the first is the primary.
    #[track_caller]
    pub(crate) fn own(&self, slots: &str, owners: &[u64]) {
        let Command::Place { mut changes } = self.place_command(slots, 0) else { return };
        for change in changes.values_mut() {
            change.owners = owners.iter().copied().map(NodeId).collect();
        }
        self.apply(Command::Place { changes });
    }

    /// Claims that each of these slots, which are a node's, has nothing of a window.
    #[track_caller]
    pub(crate) fn claim(&self, node: u64, slots: &str, window: Window, cut: u64) -> Applied {
        let facts = self.now();
        let claim = |slot| {
            let number = facts.aggregations()[&0].progress(slot).number() + 1;
            let (epoch, records, distinct) = (facts.slots()[&slot].epoch, 0, 0);
            (slot, SlotClaim { epoch, number, records, distinct, digest: Digest(0) })
        };
        let slots = self::slots(slots).iter().map(claim).collect();
        self.apply(Command::Claim { node: NodeId(node), aggregation: 0, window, cut, slots })
    }

    /// Completes what these slots have claimed.
    #[track_caller]
    pub(crate) fn complete(&self, node: u64, slots: &str) -> Applied {
        let facts = self.now();
        let complete = |slot| {
            let number = facts.aggregations()[&0].progress(slot).number() + 1;
            (slot, SlotNumber { epoch: facts.slots()[&slot].epoch, number })
        };
        let slots = self::slots(slots).iter().map(complete).collect();
        self.apply(Command::Complete { node: NodeId(node), aggregation: 0, slots, keeps: false })
    }

    /// Claims and completes that there is nothing of a window.
    #[track_caller]
    pub(crate) fn flush(&self, node: u64, slots: &str, window: Window, cut: u64) {
        self.claim(node, slots, window, cut);
        self.complete(node, slots);
    }

    /// Rebuilds files as well from the next cut on, as aggregation 1.
    #[track_caller]
    pub(crate) fn register_files(&self) {
        let files = json!({ "name": "files", "type": "LogFiles", "logFiles": {} });
        let definitions =
            [("by-foo".to_owned(), definition("by-foo", 10)), ("files".to_owned(), files)];
        self.apply(Command::Register { definitions: definitions.into() });
    }

    /// Claims and completes a checkpoint of these slots' files at the latest cut.
    #[track_caller]
    pub(crate) fn checkpoint_files(&self, node: u64, slots: &str) {
        let complete = self.claim_files(node, slots);
        self.apply(complete);
    }

    /// Claims such a checkpoint, and returns what completes it.
    #[track_caller]
    pub(crate) fn claim_files(&self, node: u64, slots: &str) -> Command {
        let (facts, node, aggregation) = (self.now(), NodeId(node), 1);
        let (number, end) = (facts.latest_cut().number, facts.latest_cut().time);
        let window = Window { start: UnixNanos(end.0 - SECOND), end };
        let next = |slot| facts.aggregations()[&aggregation].progress(slot).number() + 1;
        let epoch = |slot| facts.slots()[&slot].epoch;
        let slots = self::slots(slots);
        let claim = |slot| SlotClaim {
            epoch: epoch(slot),
            number: next(slot),
            records: 0,
            distinct: 0,
            digest: Digest(0),
        };
        let claims = slots.iter().map(|slot| (slot, claim(slot))).collect();
        self.apply(Command::Claim { node, aggregation, window, cut: number, slots: claims });
        let number = |slot| SlotNumber { epoch: epoch(slot), number: next(slot) };
        let slots = slots.iter().map(|slot| (slot, number(slot))).collect();
        Command::Complete { node, aggregation, slots, keeps: false }
    }

    /// Has `first` applied just before the next command of a kind is.
    pub(crate) fn before(&self, is_kind: Kind, first: Command) {
        self.script.lock().unwrap().first.push((is_kind, first));
    }

    /// Ends the node that proposes with its command number `count`, from 1; a node that ends
    /// proposes nothing more.
    pub(crate) fn end_at(&self, count: usize, lost: Lost) {
        self.script.lock().unwrap().end = Some((count, lost));
    }

    /// Lets a node propose as much as it likes again.
    pub(crate) fn go_on(&self) {
        self.script.lock().unwrap().end = None;
    }

    /// What was proposed so far.
    pub(crate) fn proposed(&self) -> Vec<Command> {
        self.script.lock().unwrap().proposed.clone()
    }

    fn decide(&self, command: Command) -> Result<Applied, Disagreement> {
        let stopped = || Stopped { reason: "the node has ended".to_owned() };
        let (first, is_lost) = self.script.lock().unwrap().next(&command);
        if is_lost == Some(Lost::Command) {
            return Err(stopped().into());
        }
        let mut facts = Facts::clone(&self.now());
        // Whether the others get through is their business.
        first.into_iter().for_each(|command| drop(facts.apply(command)));
        self.facts.send_replace(Arc::new(facts.clone()));
        let applied = facts.apply(command)?;
        self.facts.send_replace(Arc::new(facts));
        if is_lost.is_some() { Err(stopped().into()) } else { Ok(applied) }
    }
}

impl Consensus for Cluster {
    fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.facts.subscribe()
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, Disagreement>> {
        ready(()).map(move |()| self.decide(command)).boxed()
    }
}

/// A node's part where no slot has another owner.
pub(crate) fn alone(node: NodeId, cluster: &Arc<Cluster>, carried: CarriedWindows) -> Sharing {
    Sharing::new(node, Arc::clone(cluster) as _, Arc::new(Nobody), carried)
}

struct Nobody;

impl Others for Nobody {
    fn keep_results(
        &self,
        node: NodeId,
        _: (u32, Window),
        _: SlotSet,
    ) -> BoxFuture<'_, Result<(), NotKept>> {
        panic!("node {node} owns nothing");
    }

    fn keep_carry<'a>(&'a self, node: NodeId, _: &'a Carry) -> BoxFuture<'a, Result<(), NotKept>> {
        panic!("node {node} owns nothing");
    }

    fn keep_files<'a>(
        &'a self,
        node: NodeId,
        _: &'a KeptFiles,
        _: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        panic!("node {node} owns nothing");
    }
}

/// Has one node's files copied to another's, as far as they are asked for.
pub(crate) fn copy_files(from: &Files, to: &Files, asked: Asked) -> Result<(), FilesError> {
    let mut incoming = to.receive(&asked, |_| true);
    from.lend(asked)?.try_for_each(|part| incoming.take(part?))?;
    incoming.finish().map(drop)
}

/// A packed entry with these records: the slot of each, and its body.
pub(crate) fn entry(aggregation: u32, records: &[(u8, u64)]) -> Bytes {
    packed(EntryWriter::new(None), &[(aggregation, records)])
}

/// As [`entry`], with room for the journal's frame.
pub(crate) fn framed(aggregation: u32, records: &[(u8, u64)]) -> Vec<u8> {
    let writer = EntryWriter::with_prefix(FRAME_BYTES, None);
    let mut framed = packed(writer, &[(aggregation, records)]).to_vec();
    frame::checksum_content(&mut framed);
    framed
}

/// What of each aggregation is packed into an entry.
pub(crate) fn packed(mut entry: EntryWriter, sections: &[(u32, &[(u8, u64)])]) -> Bytes {
    // The string "a".
    let value = [2, 1, 0, 0, 0, 0, 0, 0, b'a'];
    let dictionary = Dictionary { hashes: &[7], ends: &[9], bytes: &value };
    let mut count = 0;
    for &(aggregation, records) in sections {
        let key = |&(slot, body): &(u8, u64)| u128::from(slot) << 120 | u128::from(body) << 1 | 1;
        let keys: Vec<u128> = records.iter().map(key).collect();
        entry.distinct_keys(aggregation, dictionary, &keys, &vec![0; keys.len()]);
        count = count.max(records.len());
    }
    entry.finish(count as u32).into()
}

/// What nodes have appended, by segment.
#[derive(Clone, Default)]
pub(crate) struct Appended(BTreeMap<SegmentId, Vec<(UnixNanos, Bytes)>>);

impl Appended {
    pub(crate) fn push(&mut self, segment: SegmentId, stamp: UnixNanos, entry: Bytes) {
        self.0.entry(segment).or_default().push((stamp, entry));
    }

    /// How many entries each segment has.
    pub(crate) fn counts(&self) -> Vec<(SegmentId, u64)> {
        self.0.iter().map(|(&segment, entries)| (segment, entries.len() as u64)).collect()
    }

    /// What of a segment's entries from `from` on belongs to some slots, at most `count`
    /// entries.
    pub(crate) fn batch(
        &self,
        segment: SegmentId,
        from: u64,
        count: usize,
        slots: &SlotSet,
    ) -> Batch {
        let entries = self.0.get(&segment).map_or(&[][..], Vec::as_slice);
        let mut batch = Batch { next: from, parts: Vec::new() };
        for (stamp, entry) in entries.iter().skip(from as usize).take(count) {
            let part = Splitter::default().part(&Entry::parse(entry).unwrap(), slots).unwrap();
            let (index, stamp) = (batch.next, *stamp);
            batch.parts.extend(part.map(|part| Part { index, stamp, entry: part.into() }));
            batch.next += 1;
        }
        batch
    }

    /// What is decided by someone who has learned all ids.
    pub(crate) fn decided(&self, facts: &Facts) -> Arc<Decided> {
        let mut requests = Requests::new(Arc::default());
        for (segment, _) in self.counts() {
            let ids = self.batch(segment, 0, usize::MAX, &SlotSet::default());
            requests.take(segment, &ids).unwrap();
        }
        // Tests also count entries that nobody has appended, and cut seldom.
        requests.pass_gaps(facts);
        requests.decide(facts);
        Arc::clone(requests.decided())
    }

    /// All entries with their stamps.
    pub(crate) fn all(&self) -> impl Iterator<Item = &(UnixNanos, Bytes)> {
        self.0.values().flatten()
    }
}
