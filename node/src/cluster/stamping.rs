//! Asks this node, and others, how much they have stamped.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::checkpoint::facts::SegmentId;
use crate::cluster::cutting::{AskStamped, Unanswered};
use crate::cluster::lending::Lending;
use crate::cluster::peers::{self, Holdings as _, PeerError};
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::journal::Stamped;

/// The ways to the journals of all members.
pub struct Stamping {
    /// This node.
    pub node: NodeId,
    /// Its own journal, and its copies of others'.
    pub own: Lending,
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
    ) -> BoxFuture<'a, Result<BTreeMap<SegmentId, Stamped>, Unanswered>> {
        if node == self.node {
            let unanswered = |reason: String| Unanswered { reason, is_gone: false };
            // Its answer waits for the segment's other copies, which may be gone.
            let told = timeout(within, self.own.stamped(time, lease));
            return async move {
                let told = told.await.map_err(|_| format!("no answer within {within:?}"));
                told.and_then(|told| told.map_err(|error| error.to_string())).map_err(unanswered)
            }
            .boxed();
        }
        let unanswered = |error: PeerError| {
            let is_gone = matches!(error, PeerError::Gone(_));
            Unanswered { reason: error.to_string(), is_gone }
        };
        let asked = self.members.other(node, address).stamped(time, lease, within);
        asked.map(move |told| told.map_err(unanswered)).boxed()
    }
}
