//! The admin port, which tells: probes, metrics and statistics, over HTTP and gRPC. And the
//! control port, which changes the cluster.
//!
//! Both answer while the node starts and while it drains; what they tell comes
//! from a [`Node`], so that they work with any part of one.

mod answers; // each path of the admin port and its answer
mod control; // each path of the control port and what it does
mod files; // rebuilt files
mod guard; // whom the control port listens to

mod connections; // how many clients, and how slow they may be
mod grpc; // statistics as messages
mod process; // memory, CPU and files of this process
mod refusal; // an answer that says what is wrong

use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use sheaf_proto::cluster::{Cluster, Member};
use sheaf_proto::files::RebuiltFiles;
use sheaf_proto::queue::Queue;
use sheaf_proto::statistics::{Ledger, WindowCounts};
use tokio::net::TcpListener;

pub use answers::router;
use connections::Limits;
pub use guard::{Guard, TokenError};

/// What the admin port and the control port ask of the node.
pub trait Node: Send + Sync + 'static {
    /// Whether senders may come; `Err` says why not. Never tied to a peer.
    fn readiness(&self) -> Result<(), String>;

    /// The windows that closed in the last hour, newest first, at most `limit`: the very
    /// objects that went to stdout; or this node's part of each that has records.
    fn closed_windows(
        &self,
        scope: Scope,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Box<RawValue>>, AdminError>>;

    /// Each window of which no other line follows, as it is printed: first those of the last
    /// hour that ended later than `after`, or else from the next one on. Ends with an error.
    fn follow_windows(
        self: Arc<Self>,
        after: Option<Timestamp>,
    ) -> BoxStream<'static, Result<Box<RawValue>, AdminError>>;

    /// The open windows as far as they have got.
    fn current_windows(&self, scope: Scope)
    -> BoxFuture<'_, Result<Vec<WindowCounts>, AdminError>>;

    /// What came in against what went out.
    fn ledger(&self, scope: Scope) -> BoxFuture<'_, Result<Ledger, AdminError>>;

    /// How full the node is.
    fn queue(&self) -> Queue;

    /// The rebuilt files, or those on this node's disk.
    fn files(&self, listing: Listing) -> BoxFuture<'_, Result<RebuiltFiles, AdminError>>;

    /// The rebuilt file of an id and a session, whoever has it, or as it is on this node's disk.
    fn file(
        &self,
        scope: Scope,
        id: String,
        session: u64,
    ) -> BoxFuture<'_, Result<Content, AdminError>>;

    /// The cluster as the node knows it.
    fn cluster(&self) -> Cluster;

    /// Has a member of the cluster hand over everything that it has, and returns it as it is
    /// then: it goes on after the answer.
    fn drain(&self, member: u64) -> BoxFuture<'_, Result<Member, AdminError>>;

    /// Gives up a member that is silent, with what only it has, and returns it as it is then.
    /// Takes as long as the member may still accept requests.
    fn forget(&self, member: u64) -> BoxFuture<'_, Result<Member, AdminError>>;

    /// Works off so many bytes of requests in a second at most, or as many as it can.
    fn throttle(&self, bytes_per_second: Option<NonZeroU64>);

    /// Appends the node's metrics as OpenMetrics text, without the closing `# EOF`.
    fn metrics(&self, out: &mut String);
}

/// Which rebuilt files are listed, in the order of ids and sessions.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Whose.
    pub scope: Scope,
    /// Only those of this id, if one is given.
    pub id: Option<String>,
    /// What their ids begin with.
    pub prefix: String,
    /// The id and the session that they come after.
    pub after: Option<(String, u64)>,
    /// How many at most.
    pub limit: usize,
}

/// A rebuilt file, as it was when it was asked for.
pub struct Content {
    /// Its length.
    pub bytes: u64,
    /// How many bytes at its beginning cannot be read any more.
    pub removed: u64,
    /// The entity tag, in quotes: no other bytes of this id and session have it.
    pub tag: String,
    /// The id of a node that may have more of it, and does not answer.
    pub waits_for: Option<u64>,
    /// Reads a part of what is left of it.
    pub read: ReadPart,
}

/// Reads some of a file's bytes.
pub type ReadPart =
    Box<dyn FnOnce(Range<u64>) -> BoxFuture<'static, Result<Pieces, AdminError>> + Send>;
/// Bytes in their order, read as they are taken; an error cuts them off.
pub type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// Whose figures an answer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// What this node has received, and counted of the slots that it leads.
    Node,
    /// What all nodes have.
    #[default]
    Cluster,
}

/// Why the node has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such thing. Status 404.
    #[error("{0}")]
    Unknown(String),
    /// The cluster does not allow it, for this reason. Status 409.
    #[error("{0}")]
    Refused(String),
    /// Not now: it starts, drains, or has trouble with its disk. Status 503.
    #[error("{0}")]
    Unavailable(String),
    /// Something is broken. Status 500.
    #[error("{0}")]
    Internal(String),
}

/// Tells on `listener` until `shutdown` is done, then finishes what is under way, in a second
/// at most.
pub async fn serve(listener: TcpListener, node: Arc<dyn Node>, shutdown: impl Future) {
    let router = grpc::serve(router(Arc::clone(&node)), node);
    connections::serve(listener, router, Limits::ADMIN, shutdown).await;
}

/// Changes what those ask for on `listener` whom `guard` lets in; ends as [`serve`] does.
pub async fn serve_control(
    listener: TcpListener,
    node: Arc<dyn Node>,
    guard: Guard,
    shutdown: impl Future,
) {
    let router = control::router(node, guard);
    connections::serve(listener, router, Limits::ADMIN, shutdown).await;
}

#[cfg(test)]
mod example; // a node for tests
