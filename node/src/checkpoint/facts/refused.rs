//! Why a command was refused. Nothing was changed by it.
//!
//! Whoever proposes to another node gets the refusal as JSON; a golden file has one of each.

use serde::{Deserialize, Serialize};

use crate::checkpoint::facts::members::MemberState;
use crate::checkpoint::facts::{SegmentId, Slot};
use crate::event::node::NodeId;
use crate::event::time::{UnixNanos, Window};
use crate::journal::Extent;

/// Why a command contradicts the facts, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    // Members
    /// Nobody has this id.
    #[error("node {node} is not a member; it has to join first")]
    NoNode {
        /// The node.
        node: NodeId,
    },
    /// The member is out of the cluster for ever.
    #[error("node {node} is {state} and cannot come back; empty its volume to join as a new node")]
    Gone {
        /// The node.
        node: NodeId,
        /// Its state.
        state: MemberState,
    },
    /// The member is on its way out, or gone.
    #[error("node {node} is {state} and takes nothing new; choose another node")]
    Leaving {
        /// The node.
        node: NodeId,
        /// Its state.
        state: MemberState,
    },
    /// Only active members keep journals.
    #[error("node {node} is {state}; choose active nodes for a segment")]
    NotActive {
        /// The node.
        node: NodeId,
        /// Its state.
        state: MemberState,
    },
    /// The member was not asked to leave.
    #[error("node {node} is {state}; drain it first")]
    NotDraining {
        /// The node.
        node: NodeId,
        /// Its state.
        state: MemberState,
    },
    /// The others could not hold what there is.
    #[error(
        "without node {node} there would be {left} active nodes, and {needed} are needed to own \
         each slot; add a node, or place the slots on fewer, first"
    )]
    TooFewLeft {
        /// The node.
        node: NodeId,
        /// Active nodes that would be left.
        left: usize,
        /// Active nodes that are needed.
        needed: usize,
    },
    /// The member owns a slot.
    #[error("node {node} owns slot {slot}; place the slot on others first")]
    StillOwner {
        /// The node.
        node: NodeId,
        /// The slot.
        slot: Slot,
    },
    /// The member has a segment that too few others have.
    #[error(
        "node {node} has segment {segment}; seal it, and let enough others copy it or wait until \
         it is trimmed, first"
    )]
    StillCopy {
        /// The node.
        node: NodeId,
        /// The segment.
        segment: SegmentId,
    },
    /// The member is a copy of a segment that is open.
    #[error("node {node} is a copy of segment {segment}, which is open; begin to seal it first")]
    StillAppending {
        /// The node.
        node: NodeId,
        /// The segment.
        segment: SegmentId,
    },
    /// The member may still acknowledge what would be lost.
    #[error("node {node} may have a lease until {until}; wait for a cut at that time")]
    LeaseRuns {
        /// The node.
        node: NodeId,
        /// The end of the lease.
        until: UnixNanos,
    },
    // What the leader knows, and the facts do not.
    /// The others could not decide anything.
    #[error(
        "without node {node} the leader would reach {reached} of {voters} voters, which is no \
         majority; bring the others back first"
    )]
    NoMajorityLeft {
        /// The node.
        node: NodeId,
        /// The voters that would be reached.
        reached: usize,
        /// The voters that there would be.
        voters: usize,
    },
    /// A disk could not hold what there is.
    #[error(
        "without node {node} each other one would get about {share} bytes of rebuilt files, and \
         node {full} has room for {left}; add a node or larger volumes, or let files go sooner \
         (retentionSeconds), first"
    )]
    NoRoom {
        /// The node.
        node: NodeId,
        /// Bytes that each other node would get.
        share: u64,
        /// A node that has no room for them.
        full: NodeId,
        /// Bytes that it has room for.
        left: u64,
    },
    /// The member still has a vote.
    #[error("node {node} votes; wait until it does not")]
    StillVotes {
        /// The node.
        node: NodeId,
    },
    /// Nobody has to be given up who is there.
    #[error("node {node} answers; drain it, or stop it before it is forgotten")]
    StillAnswers {
        /// The node.
        node: NodeId,
    },

    // Segments
    /// No such segment, or no more.
    #[error("segment {segment} was trimmed, or never opened; read the segments again")]
    NoSegment {
        /// The segment.
        segment: SegmentId,
    },
    /// The list of copies is not one.
    #[error("the copies of a segment have to name its writer, node {writer}, and no node twice")]
    WrongCopies {
        /// The writer.
        writer: NodeId,
    },
    /// A writer appends to one segment at a time.
    #[error("node {writer} has segment {segment}, which is open; begin to seal it first")]
    StillOpen {
        /// The writer.
        writer: NodeId,
        /// Its segment.
        segment: SegmentId,
    },
    /// The segment may still grow.
    #[error("segment {segment} is open; begin to seal it, so that it does not grow, first")]
    NotSealing {
        /// The segment.
        segment: SegmentId,
    },
    /// The segment's end is not known yet.
    #[error("segment {segment} is not sealed; seal it first")]
    NotSealed {
        /// The segment.
        segment: SegmentId,
    },
    /// An end is fixed once and for all.
    #[error("segment {segment} ends after {end}, stamped before {until}; truncate to that")]
    OtherEnd {
        /// The segment.
        segment: SegmentId,
        /// All that it has.
        end: Extent,
        /// Nothing in it is stamped at this time or later.
        until: UnixNanos,
    },
    /// Entries that were counted cannot be cut off.
    #[error(
        "segment {segment} cannot end after {end}: a cut counts {counted}; reach a copy that has \
         them"
    )]
    BelowCut {
        /// The segment.
        segment: SegmentId,
        /// The end that was proposed.
        end: Extent,
        /// What the latest cut counts.
        counted: Extent,
    },
    /// Entries that no cut has counted are stamped after what it counts, and under a lease.
    #[error(
        "the last of segment {segment} cannot be stamped just before {until}: what no cut counts \
         is stamped from {known} on and before {ceiling}; ask its copies again"
    )]
    OtherStamps {
        /// The segment.
        segment: SegmentId,
        /// The time that was proposed.
        until: UnixNanos,
        /// What is stamped before this is counted.
        known: UnixNanos,
        /// What the last lease allowed.
        ceiling: UnixNanos,
    },
    /// The list of holders is not one.
    #[error("the holders of segment {segment} have to be some of its copies, and members")]
    WrongHolders {
        /// The segment.
        segment: SegmentId,
    },
    /// All nodes that had the segment were forgotten.
    #[error("segment {segment} is recorded as lost; remove what there is of it")]
    Lost {
        /// The segment.
        segment: SegmentId,
    },

    // Cuts
    /// Another cut has this number.
    #[error("the latest cut is number {latest}; read it, and number the next one after it")]
    StaleCut {
        /// Its number.
        latest: u64,
    },
    /// Time does not go back.
    #[error("the latest cut is at {latest}; the next one has to be later")]
    EarlierCut {
        /// Its time.
        latest: UnixNanos,
    },
    /// What a cut counted stays counted.
    #[error("segment {segment} has {counted} below the last cut; ask its copies again")]
    CountFellBack {
        /// The segment.
        segment: SegmentId,
        /// What the latest cut counts.
        counted: Extent,
    },
    /// What lies beyond a segment's end does not exist.
    #[error("segment {segment} is sealed and ends after {end}; count no more than that")]
    PastEnd {
        /// The segment.
        segment: SegmentId,
        /// All that it has.
        end: Extent,
    },

    // Slots
    /// There are not so many slots.
    #[error("slot {slot} does not exist; the number of slots never changes")]
    NoSlot {
        /// The slot.
        slot: Slot,
    },
    /// Somebody else changed the owners.
    #[error("slot {slot} is in epoch {epoch}; read its owners again")]
    OtherEpoch {
        /// The slot.
        slot: Slot,
        /// Its epoch.
        epoch: u64,
    },
    /// The list of owners is not one.
    #[error("slot {slot} has to have owners, and no node twice")]
    WrongOwners {
        /// The slot.
        slot: Slot,
    },
    /// The new owner would not have what was trimmed.
    #[error(
        "node {node} has to copy the results and the carry of slot {slot} up to cut {carried} \
         before it can own it"
    )]
    NotCopied {
        /// The slot.
        slot: Slot,
        /// The node.
        node: NodeId,
        /// The number of the cut.
        carried: u64,
    },

    // Aggregations and windows
    /// No such aggregation, or no more.
    #[error("aggregation {number} ended, or was never registered; read the list again")]
    NoAggregation {
        /// The aggregation's number.
        number: u32,
    },
    /// Definitions have whole numbers.
    #[error("the definition of {name:?} has a number with a fraction; use whole numbers")]
    Fraction {
        /// The aggregation's name.
        name: String,
    },
    /// The window is empty, or another one begins with it.
    #[error("{window} is not a window of this aggregation; read its definition again")]
    WrongWindow {
        /// The window.
        window: Window,
    },
    /// The cut is too early for the window.
    #[error("window {window} has not ended at {time}; wait for a cut at its end")]
    NotEnded {
        /// The window.
        window: Window,
        /// The time of the cut.
        time: UnixNanos,
    },
    /// What was printed of the window is not known any more.
    #[error("window {window} ended more than an hour ago; print nothing more of it")]
    Expired {
        /// The window.
        window: Window,
    },
    /// The last line was printed.
    #[error("window {window} was printed and is settled; print nothing more of it")]
    Settled {
        /// The window.
        window: Window,
    },
    /// Another line was printed meanwhile.
    #[error("the next line of window {window} is revision {expected}; read what was printed")]
    OtherRevision {
        /// The window.
        window: Window,
        /// The next revision.
        expected: u32,
    },
    /// The line says something else than the checkpoints do.
    #[error("window {window} is not in the state that the line tells; read its checkpoints again")]
    OtherOutcome {
        /// The window.
        window: Window,
    },
    /// What is not there may yet come.
    #[error("window {window} was not flushed for every slot; wait until it is")]
    NotFlushed {
        /// The window.
        window: Window,
    },
    /// A member may have what nobody else has.
    #[error("node {node} may have it; ask all members that are not gone")]
    NotAsked {
        /// The node.
        node: NodeId,
    },
}
