//! What nodes ask of each other: `sheaf.v1.Peer`, over gRPC.
//!
//! Anybody may ask a node who it is, or to be taken in. What members ask of each other
//! names the cluster and proves by a digest that both have its fingerprint key, so that
//! nodes of two clusters never mix.

mod client; // asks
mod server; // answers
mod wire; // messages <-> what they mean

use std::time::Duration;

use crate::checkpoint::raft;

pub use client::{Member, PeerError, Peers};
pub use server::{Answers, Declined, accept, serve};

/// The longest message: a snapshot of all facts is one.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// After this long without a word the other side is asked whether it is still there ..
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// .. and this long it has to answer, or the connection is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What comes of asking for something that only the leader does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// The node leads, and has done it.
    Done(T),
    /// It does not lead: ask the leader, or, if none is named, another member.
    NotLeader {
        /// Who leads, if the node knows.
        leader: Option<raft::Member>,
    },
}

#[cfg(test)]
mod tests;
