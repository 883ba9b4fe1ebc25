//! The cluster: who belongs to it, and who owns what.

pub mod placement; // which nodes own which slot
