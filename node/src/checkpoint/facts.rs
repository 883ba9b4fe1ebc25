//! The cluster's facts: all that Raft replicates, and nothing else.
//!
//! Facts are a state machine. [`Facts::apply`] takes one command after the other, and
//! nodes that applied the same commands have equal facts: there is no clock in here, no
//! I/O, no chance and no order of hashing. A command that is refused changes nothing.
//!
//! Events never pass through Raft. What does is small: who is there, which segments
//! there are, how much of each was stamped before a time, who owns which slot, and what
//! of a slot was handed out.

pub mod command; // what can be asked of the facts, and what they answer
pub mod refused; // why they may say no

mod results; // what no member has any more

pub mod forget; // what goes with a node that is given up
pub mod windows; // which windows are complete, and what was printed of them

pub mod checkpoints; // claim, complete, carry: how far a slot was flushed
pub mod ledger; // what was accepted against what was carried and what is pending

pub mod aggregations; // what is counted, from which cut to which
pub mod beginning; // when aggregations begin
pub mod cuts; // the cluster's clock
pub mod segments; // stretches of journals, and who has them
pub mod slots; // who owns what, in which epoch
pub mod throttle; // how long senders of chunks are asked to wait

pub mod members; // who belongs to the cluster

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::aggregations::{Aggregation, Aggregations};
use crate::checkpoint::facts::command::{Applied, Command};
use crate::checkpoint::facts::cuts::{Cut, Cuts};
use crate::checkpoint::facts::members::{Member, Members};
use crate::checkpoint::facts::refused::Refused;
use crate::checkpoint::facts::segments::{Segment, Segments};
use crate::checkpoint::facts::slots::Ownership;
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;

/// A shard of the key space.
pub type Slot = u8;
/// A segment's number; never used for a second segment.
pub type SegmentId = u64;

/// The version of everything in here. Facts of another version are not read.
const FORMAT: u32 = 1;

/// What all nodes of a cluster agree on from its first day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The number of slots, at most 256.
    pub slots: u16,
}

impl Settings {
    fn slots(self) -> SlotSet {
        SlotSet::all(self.slots)
    }
}

/// The facts. A snapshot of them is their JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    format: Format,
    settings: Settings,
    members: Members,
    segments: Segments,
    cuts: Cuts,
    slots: BTreeMap<Slot, Ownership>,
    aggregations: Aggregations,
    #[serde(default, skip_serializing_if = "throttle::is_none")]
    throttle_seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Format;

impl TryFrom<u32> for Format {
    type Error = String;

    fn try_from(found: u32) -> Result<Self, String> {
        match found {
            FORMAT => Ok(Format),
            _ => Err(format!(
                "facts of format {found} cannot be read by this version, which reads format \
                 {FORMAT}; start the version that wrote them"
            )),
        }
    }
}

impl From<Format> for u32 {
    fn from(_: Format) -> u32 {
        FORMAT
    }
}

impl Facts {
    /// The facts of a cluster in which nothing has happened. All its nodes begin with
    /// the same settings.
    pub fn new(settings: Settings) -> Facts {
        Facts {
            format: Format,
            settings,
            members: Members::default(),
            segments: Segments::default(),
            cuts: Cuts::default(),
            slots: BTreeMap::new(),
            aggregations: Aggregations::default(),
            throttle_seconds: 0,
        }
    }

    /// Applies the next command, and drops what nothing refers to any more.
    ///
    /// # Errors
    /// When the command contradicts the facts. Then they are as they were.
    pub fn apply(&mut self, command: Command) -> Result<Applied, Refused> {
        let applied = match command {
            Command::Join { uuid, address, zone } => self.join(uuid, address, zone),
            Command::Activate { node } => self.activate(node),
            Command::Drain { node } => self.drain(node),
            Command::Drained { node } => self.drained(node),
            Command::Forget { node } => self.forget(node),
            Command::OpenSegment { writer, copies } => self.open_segment(writer, copies),
            Command::BeginSeal { segment, ceiling } => self.begin_seal(segment, ceiling),
            Command::Seal { segment, end, until, holders } => {
                self.seal(segment, end, until, holders)
            }
            Command::Hold { segment, node } => self.hold(segment, node),
            Command::Cut { number, time, stamped } => self.next_cut(number, time, &stamped),
            Command::Place { changes } => self.place(changes),
            Command::Filled { node, slots, files } => self.filled(node, slots, &files),
            Command::Register { definitions } => self.register(definitions),
            Command::Aware { segment, below, from } => self.aware(segment, below, from),
            Command::Claim { node, aggregation, window, cut, slots } => {
                self.claim(node, aggregation, window, cut, slots)
            }
            Command::Complete { node, aggregation, slots, keeps } => {
                self.complete(node, aggregation, slots, keeps)
            }
            Command::Carry { node, aggregation, slots, cut, keeps } => {
                self.carry(node, aggregation, slots, cut, keeps)
            }
            Command::Print { aggregation, window, printed } => {
                self.print(aggregation, window, printed)
            }
            Command::LoseResults { aggregation, window, slots, asked } => {
                self.lose_results(aggregation, window, slots, &asked)
            }
            Command::Throttle { seconds } => self.throttle(seconds),
        }?;
        self.prune();
        Ok(applied)
    }

    /// What the cluster agreed on when it was formed.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// All nodes that there ever were, also those that are gone.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members.known
    }

    /// The segments that some slot may still ask for.
    pub fn segments(&self) -> &BTreeMap<SegmentId, Segment> {
        &self.segments.known
    }

    /// The slots that were ever placed, with their owners.
    pub fn slots(&self) -> &BTreeMap<Slot, Ownership> {
        &self.slots
    }

    /// The aggregations that are active, or ended and not forgotten yet, by number.
    pub fn aggregations(&self) -> &BTreeMap<u32, Aggregation> {
        &self.aggregations.known
    }

    /// Those of them that rebuild files from chunks.
    pub fn rebuilding(&self) -> impl DoubleEndedIterator<Item = (u32, &Aggregation)> {
        let known = self.aggregations.known.iter();
        known.filter(|(_, known)| known.takes_chunks()).map(|(&number, known)| (number, known))
    }

    /// All aggregations with a lower number are active, or have ended; nobody has a higher one.
    pub fn next_aggregation(&self) -> u32 {
        self.aggregations.next
    }

    /// The newest cut. Before the first one it is number 0, at time 0, and counts nothing.
    pub fn latest_cut(&self) -> &Cut {
        &self.cuts.latest
    }

    /// A cut by its number, if it is still kept.
    pub fn cut(&self, number: u64) -> Option<&Cut> {
        self.cuts.get(number)
    }

    /// The cuts that are still kept, the newest last.
    pub fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.cuts.older.values().chain([&self.cuts.latest])
    }

    /// Drops what is over: segments that every slot has carried, cuts that nothing refers
    /// to, windows older than an hour, aggregations that ended and were flushed.
    fn prune(&mut self) {
        self.prune_aggregations();
        self.prune_segments();
        self.prune_cuts();
    }
}

#[cfg(test)]
mod tests;
