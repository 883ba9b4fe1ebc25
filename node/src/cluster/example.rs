//! Nodes for tests, by number.

pub(super) mod mesh; // nodes that reach each other

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use uuid::Uuid;

use crate::checkpoint::facts::command::Command;
use crate::checkpoint::identity::{Birth, Contribution, Identity};
use crate::checkpoint::raft::{self, Rpc, Transport, TransportError};
use crate::cluster::fetching::Fetching;
use crate::cluster::keeping::Keeping;
use crate::cluster::pace::Pace;
use crate::cluster::peers::Member;
use crate::event::fingerprint::FingerprintKey;
use crate::event::node::NodeId;
use crate::flush::example::Cluster;
use crate::flush::example::node::Node;
use crate::flush::feed::Consensus as _;
use crate::flush::results::Results;
use mesh::Mesh;

/// The cluster that they belong to.
pub(super) const CLUSTER: Uuid = Uuid::from_u128(1);

/// A node on the day its volume was new. The zone of odd ones is not known.
pub(super) fn born(number: u8) -> Birth {
    Birth {
        uuid: Uuid::from_u128(number.into()),
        contribution: Contribution([number; 16]),
        address: format!("node-{number}:9465"),
        zone: number.is_multiple_of(2).then(|| format!("zone-{number}")),
    }
}

/// A member of the cluster, which nodes 1 and 2 have formed.
pub(super) fn identity(number: u8) -> Identity {
    Identity {
        cluster: CLUSTER,
        node: NodeId(number.into()),
        fingerprint_key: FingerprintKey([7; 16]),
        founders: BTreeSet::from([born(1), born(2)]),
    }
}

/// A member as Raft knows it.
pub(super) fn member(number: u8) -> raft::Member {
    raft::Member { id: NodeId(number.into()), address: born(number).address }
}

/// The node asks to belong to the cluster.
pub(super) fn join(number: u8) -> Command {
    let Birth { uuid, address, zone, .. } = born(number);
    Command::Join { uuid, address, zone }
}

/// What a node keeps for others.
pub(super) fn keeping(node: &Node, cluster: &Cluster) -> Keeping {
    keeping_from(node, cluster, &Arc::default())
}

/// The same, where it can ask the others.
pub(super) fn keeping_from(node: &Node, cluster: &Cluster, mesh: &Arc<Mesh>) -> Keeping {
    let results = Results::new(Arc::clone(&node.store));
    let (files, members) = (node.files(), Member::new(mesh.peers(), &identity(node.id as u8)));
    let fetching = Fetching { files, members, pace: Pace::default() };
    let (id, carried, facts) = (NodeId(node.id), node.carried(), cluster.facts());
    Keeping { node: id, results, carried, fetching, facts }
}

/// A way to nobody.
pub(super) struct Nowhere;

impl Transport for Nowhere {
    fn call<'a>(
        &'a self,
        _: NodeId,
        _: &'a str,
        _: Rpc,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        ready(Err(TransportError("nobody is there".to_owned()))).boxed()
    }
}
