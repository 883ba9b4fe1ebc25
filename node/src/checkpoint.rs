//! The facts that cannot be derived again: those that the cluster agrees on, and the few
//! that are a node's own.

pub mod facts; // what Raft replicates
pub mod raft; // alone names `openraft`

pub mod carries; // what a node keeps of open windows in place of the journal
pub mod identity; // cluster id, node id, fingerprint key
pub mod printed; // the lines of the last hour
pub mod registered; // what the cluster heard of this node's settings
pub mod rejected; // what was refused for good

use std::fmt;

use serde::{Deserialize, Serialize};

/// A hash over results, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Digest).map_err(serde::de::Error::custom)
    }
}
