//! What is done to a cluster: drawn from a seed, and undone before the end.

use std::fmt;
use std::time::Duration;

/// How far a clock may be from the true time.
pub(crate) const CLOCK_BOUND: Duration = Duration::from_millis(800);

/// Something that happens to a cluster, to be undone after a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power of a machine is cut: what was not synced is lost.
    Power(usize),
    /// A node's process is killed; its disk has all that was written.
    Kill(usize),
    /// A machine reaches no other, and is not reached.
    Isolate(usize),
    /// What the first sends to the second is lost.
    OneWay(usize, usize),
    /// What two machines send each other waits.
    Hold(usize, usize),
    /// What a machine sends, and what is sent to it, waits: to the others it is as if it were
    /// paused.
    Freeze(usize),
    /// Messages between two machines take up to so long.
    Delay(usize, usize, Duration),
    /// A machine's clock jumps: so many milliseconds ahead of the true time.
    Clock(usize, i64),
    /// A disk takes no writes.
    Broken(usize),
    /// A disk is nearly full.
    Full(usize),
    /// A disk takes long for each write.
    Slow(usize),
    /// The power of the machine that prints next is cut, before the line is out or after.
    Print { is_out: bool },
    /// Another machine comes, whose node joins.
    Join,
    /// A node is to hand over what it has; then its machine goes.
    Drain(usize),
    /// A machine is gone, with all that is on it, and its node is to be forgotten.
    Destroy(usize),
    /// A machine gets an empty disk, and its node is to be forgotten: another begins there.
    Empty(usize),
}

/// How members change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Not at all.
    None,
    /// They join, and are drained.
    Draining,
    /// They join, and one is lost.
    Forgetting,
    /// They join, and one is lost with its disk, behind whose address another begins.
    Emptying,
}

/// What can be done.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// The machines that there are.
    pub(crate) present: Vec<usize>,
    /// How many there were at first.
    pub(crate) founders: usize,
    /// How many have come.
    pub(crate) guests: usize,
    pub(crate) changes: Changes,
    /// Whether a node is about to leave.
    pub(crate) has_orders: bool,
}

/// How many machines come, at most.
const GUESTS_MAX: usize = 2;

impl Choice {
    /// A change of members, if there is to be one.
    fn change(&self, rng: &mut fastrand::Rng) -> Option<Fault> {
        let is_changing = self.changes != Changes::None && rng.u8(..4) == 0;
        let may_join = self.guests < GUESTS_MAX;
        let may_leave = self.present.len() > 1 && !self.has_orders;
        if !is_changing {
            return None;
        }
        let one = self.present[rng.usize(..self.present.len())];
        // As long as none has come, none may be lost.
        let is_to_come = self.guests == 0 && self.changes != Changes::Draining;
        match (rng.bool() || is_to_come, self.changes) {
            (true, _) => may_join.then_some(Fault::Join),
            (false, Changes::Draining) => may_leave.then_some(Fault::Drain(one)),
            // As long as no other has left, the rest has a majority.
            (false, Changes::Forgetting) => {
                let is_first = self.guests >= 1 && may_leave;
                is_first.then_some(Fault::Destroy(one))
            }
            // Behind an address there are two at most, or who is to be forgotten is not clear.
            (false, Changes::Emptying) => {
                let is_first = self.guests >= 1 && may_leave && one < self.founders;
                is_first.then_some(Fault::Empty(one))
            }
            (false, Changes::None) => None,
        }
    }
}

impl Fault {
    /// Something that can be done.
    pub(crate) fn random(choice: &Choice, rng: &mut fastrand::Rng) -> Fault {
        if let Some(change) = choice.change(rng) {
            return change;
        }
        let present = &choice.present;
        let place = rng.usize(..present.len());
        let one = present[place];
        let other = present[(place + rng.usize(1..present.len().max(2))) % present.len()];
        let bound = CLOCK_BOUND.as_millis() as i64;
        match rng.u8(..if present.len() > 1 { 16 } else { 9 }) {
            0 | 1 => Fault::Power(one),
            2 => Fault::Kill(one),
            3 => Fault::Clock(one, rng.i64(-bound..=bound)),
            4 => Fault::Broken(one),
            5 => Fault::Full(one),
            6 => Fault::Slow(one),
            7 | 8 => Fault::Print { is_out: rng.bool() },
            9 | 10 => Fault::Isolate(one),
            11 => Fault::OneWay(one, other),
            12 | 13 => Fault::Hold(one, other),
            14 => Fault::Freeze(one),
            _ => Fault::Delay(one, other, Duration::from_millis(rng.u64(20..400))),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Power(node) => write!(f, "the power of node {node} is cut"),
            Fault::Kill(node) => write!(f, "node {node} is killed"),
            Fault::Isolate(node) => write!(f, "node {node} is cut off"),
            Fault::OneWay(from, to) => write!(f, "what {from} sends to {to} is lost"),
            Fault::Hold(one, other) => write!(f, "what {one} and {other} send each other waits"),
            Fault::Freeze(node) => write!(f, "node {node} neither sends nor gets anything"),
            Fault::Delay(one, other, by) => write!(f, "between {one} and {other} it takes {by:?}"),
            Fault::Clock(node, by) => write!(f, "the clock of node {node} is ahead by {by} ms"),
            Fault::Broken(node) => write!(f, "the disk of node {node} takes no writes"),
            Fault::Full(node) => write!(f, "the disk of node {node} is full"),
            Fault::Slow(node) => write!(f, "the disk of node {node} is slow"),
            Fault::Print { is_out: true } => f.write_str("who prints next loses power after that"),
            Fault::Print { is_out: false } => f.write_str("who prints next loses power before"),
            Fault::Join => f.write_str("another node comes"),
            Fault::Drain(node) => write!(f, "node {node} is to be drained"),
            Fault::Destroy(node) => write!(f, "node {node} is gone, and to be forgotten"),
            Fault::Empty(node) => write!(f, "node {node} loses its disk, and is to be forgotten"),
        }
    }
}
