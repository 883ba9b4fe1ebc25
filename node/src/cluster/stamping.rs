//! Asks this node, and others, how much they have stamped.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::checkpoint::facts::SegmentId;
use crate::cluster::cutting::AskStamped;
use crate::cluster::peers;
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::journal::{Journal, Stamped};

/// The ways to the journals of all members.
pub struct Stamping {
    /// This node.
    pub node: NodeId,
    /// Its own journal.
    pub journal: Journal,
    /// The ways to the others.
    pub members: peers::Member,
}

impl AskStamped for Stamping {
    fn stamped<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        time: UnixNanos,
        lease: UnixNanos,
        within: Duration,
    ) -> BoxFuture<'a, Result<BTreeMap<SegmentId, Stamped>, String>> {
        if node == self.node {
            let own = self.journal.stamped(time, lease);
            return own.map(|told| told.map_err(|error| error.to_string())).boxed();
        }
        let asked = self.members.stamped(address, time, lease, within);
        asked.map(|told| told.map_err(|error| error.to_string())).boxed()
    }
}
