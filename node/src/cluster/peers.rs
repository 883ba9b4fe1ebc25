//! What nodes ask of each other: `sheaf.v1.Peer`, over gRPC.
//!
//! Anybody may ask a node who it is, or to be taken in. What members ask of each other
//! names the cluster and proves by a digest that both have its fingerprint key, so that
//! nodes of two clusters never mix.
//!
//! Streams have a connection of their own beside that of all other calls. A stream that
//! nobody reads fills its window and waits; a connection whose window is full of such
//! streams answers nothing more, and no election may wait for that. Nor may one stream
//! wait for another, so a connection has room for the windows of all its streams.

mod client; // asks anybody
mod holdings; // what members may ask of journals and results
mod member; // asks as a member
mod server; // answers
mod wire; // messages <-> what they mean

use std::time::Duration;

use crate::checkpoint::raft;

pub use client::{PeerError, Peers};
pub use holdings::{
    Asked, Batch, Batches, CarriedPart, CarriedParts, Chunks, FilePart, FileParts, FilePiece,
    Holdings, Kept, Listed, Part, Room, Stamped, Told, Wanted,
};
pub use member::{Carried, Durable, Followed, Member, Received, Sent};
pub use server::{Answers, Declined, accept, serve};

/// The longest message: a snapshot of all facts is one. Only what a single entry makes
/// longer may be, for it was accepted.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What streams send goes in messages of up to this many bytes, where it can be divided.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Bytes that one stream may be ahead of its reader.
const STREAM_WINDOW: u32 = 1 << 20;
/// Calls and streams that one connection carries at a time; others wait.
const STREAMS_MAX: u32 = 128;
/// Bytes that all streams of a connection may be ahead of their readers.
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// After this long without a word the other side is asked whether it is still there ..
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// .. and this long it has to answer, or the connection is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

// While one message is read, there is another.
const _: () = assert!(2 * CHUNK_BYTES_MAX <= STREAM_WINDOW as usize);

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
