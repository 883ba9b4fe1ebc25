//! Asks this node, and others, how much they have stamped.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tracing::debug;

use crate::checkpoint::facts::SegmentId;
use crate::cluster::cutting::AskStamped;
use crate::cluster::opening::AskCopies;
use crate::cluster::peers;
use crate::event::node::NodeId;
use crate::event::time::UnixNanos;
use crate::journal::{Journal, Stamped};

/// How long a member may take to answer for its copies.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// The ways to the journals of all members.
#[derive(Clone)]
pub struct Stamping {
    /// This node.
    pub node: NodeId,
    /// Its own journal, once it is open.
    pub journal: Option<Journal>,
    /// The ways to the others.
    pub members: peers::Member,
}

impl AskCopies for Stamping {
    fn is_there<'a>(&'a self, address: &'a str) -> BoxFuture<'a, bool> {
        self.members.is_there(address, ANSWER_WAIT).boxed()
    }

    fn fence<'a>(
        &'a self,
        node: NodeId,
        address: &'a str,
        segment: SegmentId,
    ) -> BoxFuture<'a, Option<Stamped>> {
        let asked = self.members.fence(address, segment, ANSWER_WAIT);
        let fenced = asked.map(move |fenced| match fenced {
            Ok(reached) => reached,
            Err(error) => {
                debug!(%node, segment, %error, "a copy is not reached");
                None
            }
        });
        fenced.boxed()
    }
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
        if let Some(journal) = self.journal.as_ref().filter(|_| node == self.node) {
            let own = journal.stamped(time, lease);
            return own.map(|told| told.map_err(|error| error.to_string())).boxed();
        }
        let asked = self.members.stamped(address, time, lease, within);
        asked.map(|told| told.map_err(|error| error.to_string())).boxed()
    }

    fn as_copies(&self) -> &dyn AskCopies {
        self
    }
}
