//! What Sheaf's programs say to each other: names, ports, and the shapes of their answers.
//!
//! The node, the client and the operator depend on this crate and never on each other.

pub mod chunks; // how chunks of files are sent, over gRPC and HTTP
pub mod cluster; // members, roles and segments, as JSON carries them
pub mod files; // rebuilt files, as JSON carries them
pub mod names; // ports, paths, header and metadata keys
pub mod peer; // what nodes ask of each other, over gRPC
pub mod queue; // how full a node is, as JSON carries it
pub mod service; // what a node answers over gRPC
pub mod statistics; // windows, counts and the ledger, as JSON carries them
