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
    /// Messages between two machines take up to so long.
    Delay(usize, usize, Duration),
    /// A machine's clock jumps: so many milliseconds ahead of the true time.
    Clock(usize, i64),
    /// A disk takes no writes.
    Broken(usize),
    /// A disk is nearly full.
    Full(usize),
}

impl Fault {
    /// A fault among the first `machines`.
    pub(crate) fn random(machines: usize, rng: &mut fastrand::Rng) -> Fault {
        let one = rng.usize(..machines);
        let other = (one + rng.usize(1..machines.max(2))) % machines;
        let bound = CLOCK_BOUND.as_millis() as i64;
        match rng.u8(..if machines > 1 { 12 } else { 6 }) {
            0 | 1 => Fault::Power(one),
            2 => Fault::Kill(one),
            3 => Fault::Clock(one, rng.i64(-bound..=bound)),
            4 => Fault::Broken(one),
            5 => Fault::Full(one),
            6 | 7 => Fault::Isolate(one),
            8 => Fault::OneWay(one, other),
            9 | 10 => Fault::Hold(one, other),
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
            Fault::Delay(one, other, by) => write!(f, "between {one} and {other} it takes {by:?}"),
            Fault::Clock(node, by) => write!(f, "the clock of node {node} is ahead by {by} ms"),
            Fault::Broken(node) => write!(f, "the disk of node {node} takes no writes"),
            Fault::Full(node) => write!(f, "the disk of node {node} is full"),
        }
    }
}
