//! How far the members' clocks are from the leader's, as the leader measures it.
//!
//! Windows are cut by the leader's clock, and a node stamps by its own. So what a node accepts
//! is in the window between its sending and its acknowledgement as far as the two clocks
//! agree. A member whose clock is certainly further off than the bound gets no more leases,
//! and after the last one it takes nothing until its clock is right. If most of them seem to be
//! off, it is the leader's clock that is, and nobody is kept from stamping.
//!
//! The bound is that of the leader: what other members were told counts when they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::checkpoint::facts::Facts;
use crate::checkpoint::raft::{Raft, Status, Stopped, Term};
use crate::cluster::peers;
use crate::event::node::NodeId;
use crate::event::time::{Clock, UnixNanos};

/// How often clocks are compared.
const EVERY: Duration = Duration::from_secs(1);
/// How long a member may take to say what time it is. Half of it is how far the answer may
/// be wrong, which always speaks for the member.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// How far a member's clock is ahead of the leader's, in nanoseconds: certainly not less than
/// one, and not more than the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    least: i64,
    most: i64,
}

impl Offset {
    /// A member said what time it was there between two moments here.
    pub fn measured(sent: UnixNanos, told: UnixNanos, received: UnixNanos) -> Offset {
        let ahead_of = |here: UnixNanos| {
            let nanos = i128::from(told.0) - i128::from(here.0);
            nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64
        };
        Offset { least: ahead_of(received), most: ahead_of(sent) }
    }

    /// The middle, in nanoseconds.
    pub fn nanos(self) -> i64 {
        self.least.midpoint(self.most)
    }

    fn exceeds(self, bound: Duration) -> bool {
        let bound = i64::try_from(bound.as_nanos()).unwrap_or(i64::MAX);
        self.least > bound || self.most < -bound
    }
}

/// The members' clocks as the leader of a term has measured them.
#[derive(Clone, Debug, Default)]
struct Measured {
    term: Term,
    offsets: BTreeMap<NodeId, Offset>,
}

/// What is known of the members' clocks; cheap to clone.
#[derive(Clone)]
pub struct Clocks {
    bound: Duration,
    measured: watch::Sender<Measured>,
}

impl Clocks {
    /// Nothing is known yet. Clocks are right if they are no further off than `bound`.
    pub fn new(bound: Duration) -> Clocks {
        Clocks { bound, measured: watch::Sender::default() }
    }

    /// How far a clock may be off.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// How far the clocks of the other members are ahead of this node's, of those that have
    /// said so; nobody's, unless it leads.
    pub fn offsets(&self) -> BTreeMap<NodeId, Offset> {
        self.measured.borrow().offsets.clone()
    }

    /// Whether a member's clock is so far off, as the leader of a term has found, that it
    /// should not stamp.
    pub fn is_off(&self, term: Term, node: NodeId) -> bool {
        let measured = self.measured.borrow();
        measured.term == term && off(&measured.offsets, self.bound).contains(&node)
    }

    /// Takes note of what a leader has measured, and says what has changed.
    pub(super) fn note(&self, term: Term, offsets: BTreeMap<NodeId, Offset>) {
        let before = self.measured.send_replace(Measured { term, offsets: offsets.clone() });
        let (was, is) = (off(&before.offsets, self.bound), off(&offsets, self.bound));
        for node in is.difference(&was) {
            let ahead_ms = offsets.get(node).map(|offset| offset.nanos() / 1_000_000);
            warn!(%node, ahead_ms, bound = ?self.bound, "a member's clock is off: it gets no leases");
        }
        for node in was.difference(&is).filter(|node| offsets.contains_key(node)) {
            info!(%node, "a member's clock is right again");
        }
        let is_alone = is_outvoted(&offsets, self.bound);
        if is_alone && !is_outvoted(&before.offsets, self.bound) {
            let ahead_ms: Vec<_> = offsets.values().map(|o| o.nanos() / 1_000_000).collect();
            warn!(?ahead_ms, bound = ?self.bound, "this leader's clock is off from the others': look at it");
        }
    }
}

/// The members that are certainly off, if a majority of the clocks that are known agrees
/// with the leader's.
fn off(offsets: &BTreeMap<NodeId, Offset>, bound: Duration) -> BTreeSet<NodeId> {
    if is_outvoted(offsets, bound) {
        return BTreeSet::new();
    }
    exceeding(offsets, bound).collect()
}

/// Whether no majority of the clocks that are known agrees with the leader's.
fn is_outvoted(offsets: &BTreeMap<NodeId, Offset>, bound: Duration) -> bool {
    let clocks = offsets.len() + 1;
    2 * exceeding(offsets, bound).count() >= clocks
}

fn exceeding(
    offsets: &BTreeMap<NodeId, Offset>,
    bound: Duration,
) -> impl Iterator<Item = NodeId> + '_ {
    offsets.iter().filter(move |(_, offset)| offset.exceeds(bound)).map(|(&node, _)| node)
}

/// Compares clocks while this node leads.
pub struct Comparing {
    /// This node.
    pub node: NodeId,
    /// Its part in the cluster.
    pub raft: Raft,
    /// The ways to the other members.
    pub members: peers::Member,
    /// Its clock.
    pub clock: Clock,
    /// Who is told.
    pub clocks: Clocks,
}

impl Comparing {
    /// Compares again and again.
    ///
    /// # Errors
    /// When the node takes no part any more.
    pub async fn run(self) -> Result<(), Stopped> {
        let facts = self.raft.facts();
        loop {
            let term = self.raft.until(Status::leads).await?.term;
            let mut known = BTreeMap::new();
            while self.raft.leading() == Some(term) {
                let now = facts.borrow().clone();
                self.compare(&now, &mut known).await;
                self.clocks.note(term, known.clone());
                sleep(EVERY).await;
            }
            self.clocks.measured.send_replace(Measured::default());
        }
    }

    /// Brings up to date what is known of the members that are there. Of one that does not
    /// answer, the last word stands.
    async fn compare(&self, facts: &Facts, known: &mut BTreeMap<NodeId, Offset>) {
        let others: BTreeMap<_, _> =
            facts.staying().filter(|(node, _)| *node != self.node).collect();
        known.retain(|node, _| others.contains_key(node));
        let asked = others.into_iter().map(|(node, member)| async move {
            let (sent, began) = (self.clock.now(), Instant::now());
            let told = self.members.other(node, &member.address).clock(ANSWER_WAIT).await;
            // Of this node's own clock, which may be set meanwhile, one reading counts.
            let received = UnixNanos(sent.0 + began.elapsed().as_nanos() as u64);
            (node, told.map(|told| Offset::measured(sent, told, received)))
        });
        for (node, offset) in join_all(asked).await {
            match offset {
                Ok(offset) => drop(known.insert(node, offset)),
                Err(error) => debug!(%node, %error, "a member does not say what time it is"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::SECOND;

    const BOUND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> UnixNanos {
        UnixNanos(100 * SECOND + millis * 1_000_000)
    }

    /// Members whose clocks are ahead by so many milliseconds, to the millisecond.
    fn clocks(ahead: &[i64]) -> Clocks {
        let offset = |ahead: i64| Offset {
            least: ahead * 1_000_000 - 1_000_000,
            most: ahead * 1_000_000 + 1_000_000,
        };
        let offsets = (2..).map(NodeId).zip(ahead.iter().copied().map(offset)).collect();
        let clocks = Clocks::new(BOUND);
        clocks.note(7, offsets);
        clocks
    }

    fn are_off(ahead: &[i64]) -> Vec<u64> {
        let clocks = clocks(ahead);
        (2..9).filter(|&node| clocks.is_off(7, NodeId(node))).collect()
    }

    const NOBODY: [u64; 0] = [];

    #[test]
    fn an_answer_is_wrong_by_at_most_half_its_way() {
        let offset = Offset::measured(at(0), at(3_100), at(200));
        assert_eq!(offset, Offset { least: 2_900_000_000, most: 3_100_000_000 });
        assert_eq!(offset.nanos(), 3_000_000_000);
        let behind = Offset::measured(at(3_000), at(0), at(3_200));
        assert_eq!(behind.nanos(), -3_100_000_000);
        let absurd = Offset::measured(UnixNanos(u64::MAX), UnixNanos(0), UnixNanos(u64::MAX));
        assert_eq!(absurd.nanos(), i64::MIN);
    }

    #[test]
    fn a_slow_answer_speaks_for_the_member() {
        assert!(!Offset::measured(at(0), at(1_400), at(400)).exceeds(BOUND));
        assert!(Offset::measured(at(0), at(1_401), at(400)).exceeds(BOUND));
        assert!(!Offset::measured(at(1_000), at(0), at(1_400)).exceeds(BOUND));
        assert!(Offset::measured(at(1_001), at(0), at(1_400)).exceeds(BOUND));
    }

    #[test]
    fn a_clock_is_off_ahead_and_behind_if_most_others_agree_with_the_leader() {
        assert_eq!(are_off(&[0, 900]), NOBODY);
        assert_eq!(are_off(&[0, 3_000]), [3]);
        assert_eq!(are_off(&[-3_000, 10]), [2]);
        assert_eq!(are_off(&[3_000, 0, -3_000, 0]), [2, 4]);
    }

    #[test]
    fn nobody_is_off_when_it_may_be_the_leader_that_is() {
        assert_eq!(are_off(&[3_000]), NOBODY, "one against one");
        assert_eq!(are_off(&[3_000, 3_000]), NOBODY);
        assert_eq!(are_off(&[3_000, 3_000, 0]), NOBODY);
        assert_eq!(are_off(&[-3_000, -3_000, -3_000, 0]), NOBODY);
    }

    #[test]
    fn what_an_earlier_leader_found_keeps_nobody_from_stamping() {
        let clocks = clocks(&[0, 3_000]);
        assert!(clocks.is_off(7, NodeId(3)) && !clocks.is_off(8, NodeId(3)));
    }
}
