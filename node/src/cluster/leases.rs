//! Who may stamp until when, as the leader knows it.
//!
//! A node appends only what it stamps before its lease is over, in its own time. The leader
//! renews leases each second; they outlive an election. So when a node is silent, it is known
//! what it cannot have stamped: the ceiling of its segment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::checkpoint::raft::Term;
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;

/// How long a lease is.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long a node may be silent before its segment is sealed.
const SILENCE: Duration = Duration::from_secs(4);

/// How long it is found that nobody listens at a node's address before that counts as silence:
/// so that it was asked twice.
pub const ABSENCE: Duration = Duration::from_millis(500);

// A pause that is not sealed costs no acknowledgement either.
const _: () = assert!(2 * SILENCE.as_nanos() < LEASE.as_nanos());
const _: () = assert!(ABSENCE.as_nanos() < SILENCE.as_nanos());

/// The lease of a segment that was opened after a cut at this time, until another is given.
pub fn first(floor: UnixNanos) -> UnixNanos {
    after(floor, LEASE)
}

/// The members that have been silent for too long, as the leader of a term knows it.
pub type Silent = (Term, BTreeSet<NodeId>);

/// What one leader has allowed.
#[derive(Debug)]
pub struct Leases {
    /// When it began to lead.
    began: UnixNanos,
    /// What earlier leaders allowed ended by then.
    earlier: UnixNanos,
    granted: BTreeMap<NodeId, UnixNanos>,
    heard: BTreeMap<NodeId, UnixNanos>,
    /// Where nobody was found the last time, and since when that is so.
    gone: BTreeMap<NodeId, UnixNanos>,
}

impl Leases {
    /// Nothing yet: the node begins to lead. The clock of an earlier leader may be ahead by
    /// `clock_bound`.
    pub fn begin(now: UnixNanos, clock_bound: Duration) -> Leases {
        let earlier = after(now, LEASE + clock_bound);
        let (granted, heard, gone) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Leases { began: now, earlier, granted, heard, gone }
    }

    /// The lease that a node is offered. It may have it, whether it answers or not.
    pub fn grant(&mut self, node: NodeId, now: UnixNanos) -> UnixNanos {
        let lease = after(now, LEASE);
        let granted = self.granted.entry(node).or_default();
        *granted = lease.max(*granted);
        *granted
    }

    /// The last lease that a node was offered: it gets no longer one.
    pub fn keep(&self, node: NodeId) -> UnixNanos {
        self.granted.get(&node).copied().unwrap_or_default()
    }

    /// A node has answered.
    pub fn hear(&mut self, node: NodeId, now: UnixNanos) {
        self.heard.insert(node, now);
        self.gone.remove(&node);
    }

    /// A node has not answered; perhaps because nobody listens at its address.
    pub fn miss(&mut self, node: NodeId, is_gone: bool, now: UnixNanos) {
        if is_gone {
            self.gone.entry(node).or_insert(now);
        } else {
            self.gone.remove(&node);
        }
    }

    /// Whether nobody listens at a node's address, and that has yet to be found again.
    pub fn is_in_doubt(&self, node: NodeId, now: UnixNanos) -> bool {
        self.gone.contains_key(&node) && !self.is_silent(node, now)
    }

    /// Whether a node has been silent for too long.
    pub fn is_silent(&self, node: NodeId, now: UnixNanos) -> bool {
        let heard = self.heard.get(&node).copied().unwrap_or(self.began).max(self.began);
        let is_gone = self.gone.get(&node).is_some_and(|&since| after(since, ABSENCE) <= now);
        is_gone || after(heard, SILENCE) < now
    }

    /// A time at which a node has stamped nothing in a segment with this floor, nor later:
    /// neither this leader nor an earlier one has allowed it more.
    pub fn ceiling(&self, node: NodeId, floor: UnixNanos) -> UnixNanos {
        let granted = self.granted.get(&node).copied().unwrap_or_default();
        granted.max(self.earlier).max(first(floor))
    }
}

fn after(time: UnixNanos, duration: Duration) -> UnixNanos {
    UnixNanos(time.0.saturating_add(duration.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::SECOND;

    const NODE: NodeId = NodeId(2);

    const CLOCK_BOUND: Duration = Duration::from_secs(2);

    fn at(second: u64) -> UnixNanos {
        UnixNanos(second * SECOND)
    }

    #[test]
    fn a_ceiling_is_past_all_that_any_leader_allowed() {
        let mut leases = Leases::begin(at(100), CLOCK_BOUND);
        assert_eq!(leases.ceiling(NODE, at(50)), at(112), "an earlier leader's");
        assert_eq!(leases.ceiling(NODE, at(105)), at(115), "the first one of the segment");
        assert_eq!(leases.grant(NODE, at(120)), at(130));
        assert_eq!(leases.ceiling(NODE, at(50)), at(130));
        assert_eq!(leases.grant(NODE, at(90)), at(130), "a clock that went back takes nothing");
        assert_eq!(leases.keep(NODE), at(130), "no more than before");
        assert_eq!(leases.ceiling(NodeId(3), at(50)), at(112));
        assert_eq!(leases.keep(NodeId(3)), at(0));
    }

    #[test]
    fn a_node_is_silent_when_it_has_not_answered_this_leader_for_a_while() {
        let mut leases = Leases::begin(at(100), CLOCK_BOUND);
        assert!(!leases.is_silent(NODE, at(104)));
        assert!(leases.is_silent(NODE, at(105)));
        leases.hear(NODE, at(105));
        assert!(!leases.is_silent(NODE, at(109)));
        assert!(leases.is_silent(NODE, at(110)));
    }

    #[test]
    fn a_node_that_is_not_there_is_waited_for_a_shorter_time_and_one_that_is_back_is_not() {
        let mut leases = Leases::begin(at(100), CLOCK_BOUND);
        [NODE, NodeId(3)].into_iter().for_each(|node| leases.hear(node, at(105)));
        leases.miss(NODE, true, at(106));
        let again = after(at(106), ABSENCE);
        let before = UnixNanos(again.0 - 1);
        assert!(!leases.is_silent(NODE, before) && leases.is_in_doubt(NODE, before));
        leases.miss(NODE, true, again);
        assert!(leases.is_silent(NODE, again) && !leases.is_in_doubt(NODE, again));
        assert!(!leases.is_silent(NodeId(3), again) && !leases.is_in_doubt(NodeId(3), again));
        leases.miss(NODE, false, at(107));
        assert!(!leases.is_silent(NODE, at(109)), "somebody listens there again");
        leases.miss(NODE, true, at(108));
        leases.hear(NODE, at(108));
        assert!(!leases.is_silent(NODE, at(112)) && !leases.is_in_doubt(NODE, at(112)));
        assert_eq!(leases.ceiling(NODE, at(50)), at(112), "what it may stamp is as it was");
    }
}
