//! What the nodes of a cluster ask of each other, as generated from
//! `proto/sheaf/v1/peer.proto`.
//!
//! No message can be printed: a birth and a join's answer hold secrets.

// In generated code, and there is nothing else here, these two say nothing.
#![allow(missing_docs, unused_qualifications)]

include!(concat!(env!("OUT_DIR"), "/peer/sheaf.v1.rs"));
