//! What can be asked of the facts, and what they answer.
//!
//! Whoever proposes a command may lose the answer and propose it again, so each says
//! what a second time does.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::Digest;
use crate::checkpoint::facts::checkpoints::Checkpoint;
use crate::checkpoint::facts::windows::Printed;
use crate::checkpoint::facts::{SegmentId, Slot};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::event::time::{UnixNanos, Window};
use crate::journal::Extent;

/// One change of the facts: one entry of Raft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node asks to belong to the cluster, and gets its id.
    ///
    /// Again: the same id; the address and the zone are the newer ones.
    Join {
        /// What the node was born with: made when its volume was empty, and kept there.
        uuid: Uuid,
        /// Where its peers reach it, host and port.
        address: String,
        /// Where its machine stands, if that is known.
        zone: Option<String>,
    },
    /// A joining node has all that it needs, and may keep journals.
    ///
    /// Again: nothing changes.
    Activate {
        /// The node.
        node: NodeId,
    },
    /// A node is to leave: it takes nothing new.
    ///
    /// Again: nothing changes.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// A draining node has handed over everything, and never comes back.
    ///
    /// Again: nothing changes.
    Drained {
        /// The node.
        node: NodeId,
    },
    /// A node is given up for ever, and with it what only it had. That is recorded as lost.
    ///
    /// Again: nothing changes.
    Forget {
        /// The node.
        node: NodeId,
    },
    /// A node opens the next segment of its journal.
    ///
    /// Again: refused with the open segment's number. Nobody has appended to it, unless
    /// the node did; begin to seal it and open another.
    OpenSegment {
        /// The node that will append.
        writer: NodeId,
        /// Where each entry has to be durable before it is acknowledged, the writer
        /// included.
        copies: Vec<NodeId>,
    },
    /// A segment is to be sealed: its writer gets no more leases for it.
    ///
    /// Again: nothing changes; the first ceiling stays.
    BeginSeal {
        /// The segment.
        segment: SegmentId,
        /// No lease that the writer ever had lets it stamp at this time or later.
        ceiling: UnixNanos,
    },
    /// A segment ends: entries from `end` on do not exist and never did.
    ///
    /// Again with the same end and time: the holders are added. After the segment was
    /// trimmed it is refused as unknown.
    Seal {
        /// The segment.
        segment: SegmentId,
        /// All that it has: the least that a copy that was reached has.
        end: Extent,
        /// Nothing before the end is stamped at this time or later: the last entry's stamp
        /// and one nanosecond, or the floor of a segment that has none.
        until: UnixNanos,
        /// The copies that were reached. They refuse further entries, and have all
        /// entries before the end.
        holders: BTreeSet<NodeId>,
    },
    /// A node has made a sealed segment durable that it did not have.
    ///
    /// Again: nothing changes.
    Hold {
        /// The segment.
        segment: SegmentId,
        /// The node.
        node: NodeId,
    },
    /// The next cut.
    ///
    /// Again: refused as stale, as is any other leader's cut with this number. Whether
    /// it was this one shows in the facts.
    Cut {
        /// The last cut's number and one.
        number: u64,
        /// A whole second, later than the last cut's.
        time: UnixNanos,
        /// How much of each segment is stamped before the time. Of a segment that is not
        /// sealed its writer tells what is durable on all copies, or a seal could end
        /// below that; of one that is sealed any holder tells, and nobody has to when its
        /// ceiling is not past the time. Any other that is not named counts as missing.
        stamped: BTreeMap<SegmentId, Extent>,
    },
    /// Slots get other owners: all of these, or none.
    ///
    /// Again: nothing changes, for as long as nobody else has changed one of the slots.
    Place {
        /// What becomes of each slot.
        changes: BTreeMap<Slot, Change>,
    },
    /// A node has copied what the owners of some slots had before it got what is delivered, and
    /// their files, which it did not get: it is an owner as well. Each slot is judged on its own.
    ///
    /// Again: nothing changes.
    Filled {
        /// The node.
        node: NodeId,
        /// The epoch since which it gets what is delivered of each slot.
        slots: BTreeMap<Slot, u64>,
        /// Of each aggregation that rebuilds files, the number of each slot's checkpoint that it
        /// has: 0 before the first. A slot whose last one is newer stays as it is.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        files: BTreeMap<u32, BTreeMap<Slot, u64>>,
    },
    /// These definitions are to be the active ones from the next cut on, or if there are new
    /// ones, from the first on at whose time all entries have their sections. One that is
    /// active stays; one that changes ends, and begins again under a new number.
    ///
    /// Again: nothing changes.
    Register {
        /// The definitions, by name, in the shape of the settings.
        definitions: BTreeMap<String, serde_json::Value>,
    },
    /// The writer of a segment packs all aggregations that it knows.
    ///
    /// Again: nothing changes; what it said first stays.
    Aware {
        /// The segment.
        segment: SegmentId,
        /// It knows all aggregations with a lower number.
        below: u32,
        /// Every entry that is stamped then or later has their sections.
        from: UnixNanos,
    },
    /// The primary of some slots is about to hand a window out. Each slot is judged on
    /// its own.
    ///
    /// Again: [`ClaimAnswer::Again`] for each slot that was accepted.
    Claim {
        /// The primary.
        node: NodeId,
        /// The aggregation's number.
        aggregation: u32,
        /// The window.
        window: Window,
        /// The number of the cut up to which it was folded.
        cut: u64,
        /// What was found, for each of the node's slots, also for empty ones.
        slots: BTreeMap<Slot, SlotClaim>,
    },
    /// What was claimed was delivered, and the slots' owners have the results and the
    /// carry. Each slot is judged on its own.
    ///
    /// A slot whose claim was at the cut at the window's end goes on from there: whoever
    /// completes it has flushed or carried all that is below, older windows too.
    ///
    /// Again: [`CompleteAnswer::Again`].
    Complete {
        /// The primary.
        node: NodeId,
        /// The aggregation's number.
        aggregation: u32,
        /// Which claims.
        slots: BTreeMap<Slot, SlotNumber>,
        /// Whether the slots' owners keep something of open windows in place of journals.
        keeps: bool,
    },
    /// All owners of some slots have the carry at a cut: the journal before it is not
    /// needed for them. Each slot is judged on its own.
    ///
    /// A carry may go past an open claim if it holds what was claimed as well.
    ///
    /// Again: [`CarryAnswer::Again`].
    Carry {
        /// The primary.
        node: NodeId,
        /// The aggregation's number.
        aggregation: u32,
        /// The epoch of each slot.
        slots: BTreeMap<Slot, u64>,
        /// The number of the cut.
        cut: u64,
        /// Whether the slots' owners keep something of open windows in place of journals.
        keeps: bool,
    },
    /// A window is about to be printed. Only after this may anybody print it; whoever says
    /// so has printed every line that it said this of before.
    ///
    /// Again: nothing changes, and it may be printed again.
    Print {
        /// The aggregation's number.
        aggregation: u32,
        /// The window.
        window: Window,
        /// What will be printed.
        printed: Printed,
    },
    /// What came of a window in some slots is with nobody any more: whoever had it is gone.
    /// That is recorded as lost.
    ///
    /// Again: nothing changes.
    LoseResults {
        /// The aggregation's number.
        aggregation: u32,
        /// The window, which every slot was flushed for.
        window: Window,
        /// The slots.
        slots: SlotSet,
        /// Who was asked for it after that, and does not have it: all members but those that
        /// are gone.
        asked: BTreeSet<NodeId>,
    },
    /// All senders of chunks are asked to wait before they send more.
    ///
    /// Again: they are asked that again, whatever was asked in between.
    Throttle {
        /// How many seconds; 0 if they need not wait.
        seconds: u32,
    },
}

/// What is to become of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The epoch that the proposer knows: 0 for a slot that was never placed.
    pub epoch: u64,
    /// The new owners; the first is the primary.
    pub owners: Vec<NodeId>,
    /// The number of the cut up to which those that were no owners before have copied
    /// the slot's results and carry; 0 if there is nothing to copy.
    pub copied: u64,
    /// Who is to take the place of the owners once all of these have copied what the owners
    /// have; none if nobody has to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<NodeId>,
}

/// What was found in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotClaim {
    /// The slot's epoch.
    pub epoch: u64,
    /// The number of the last completed checkpoint and one.
    pub number: u64,
    /// Records of the window that were accepted and belong to the slot.
    pub records: u64,
    /// Distinct ones among them.
    pub distinct: u64,
    /// The digest of its results.
    pub digest: Digest,
}

/// Which claim of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotNumber {
    /// The slot's epoch.
    pub epoch: u64,
    /// The claim's number.
    pub number: u64,
}

/// What a command that was not refused has brought about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It is so now, or was so before.
    Done,
    /// The node's id.
    Node(NodeId),
    /// The number of the segment that was opened.
    Segment(SegmentId),
    /// What became of each slot's claim.
    Claims(BTreeMap<Slot, ClaimAnswer>),
    /// What became of each slot's completion.
    Completions(BTreeMap<Slot, CompleteAnswer>),
    /// What became of each slot's carry.
    Carries(BTreeMap<Slot, CarryAnswer>),
}

/// What became of a slot's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimAnswer {
    /// It is claimed: deliver it.
    Accepted,
    /// The same was claimed before: deliver it.
    Again,
    /// The node is not the slot's primary in this epoch: read the owners again.
    StaleEpoch,
    /// The slot's next checkpoint has another number.
    WrongNumber {
        /// The number.
        expected: u64,
    },
    /// Another window or cut is claimed under this number: reproduce that first.
    Resume(Checkpoint),
    /// The same window and cut were claimed with another result. Folding is not
    /// deterministic: the node has to halt.
    Diverged(Checkpoint),
    /// The cut is not kept, or is older than the slot's carry: fold up to a newer one.
    CutUnknown,
    /// The slot has a checkpoint for this window that misses nothing, or the window is too
    /// old to be claimed again.
    Flushed,
}

/// What became of a slot's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompleteAnswer {
    /// The checkpoint is complete.
    Completed,
    /// It was complete before.
    Again,
    /// The node is not the slot's primary in this epoch: read the owners again.
    StaleEpoch,
    /// Nothing is claimed under this number.
    NotClaimed,
}

/// What became of a slot's carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CarryAnswer {
    /// The slot goes on from this cut.
    Carried,
    /// It went on from this cut, or a newer one, before.
    Again,
    /// The node is not the slot's primary in this epoch: read the owners again.
    StaleEpoch,
    /// The cut is not kept: carry at a newer one.
    CutUnknown,
}
