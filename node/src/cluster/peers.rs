//! What nodes ask of each other: `sheaf.v1.Peer`, over gRPC.
//!
//! Anybody may ask a node who it is. What members ask of each other names the cluster and
//! proves by a digest that both have its fingerprint key, so that nodes of two clusters
//! never mix.

mod client; // asks
mod server; // answers
mod wire; // messages <-> what they mean

pub use client::{Member, PeerError, Peers};
pub use server::serve;

/// The longest message: a snapshot of all facts is one.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
