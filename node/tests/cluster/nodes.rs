//! Nodes that are to be one cluster.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use sheaf_proto::cluster::{Cluster, MemberState};
use tempfile::TempDir;

use crate::http::{Answer, Connection};
use crate::process::{Process, eventually};

/// What all of them count.
const COUNTING: &[&str] = &["--attribute", "request", "--stats-limit", "1000000"];
/// So short that many windows end in a test.
const WINDOW: &[&str] = &["--window", "1s"];

/// Below those that the system gives to connections, and to who asks for any port: one of them
/// could take the port of a node that does not run at the moment.
const PORTS: Range<u16> = 12_000..30_000;

/// An address at which nobody listens, and that no other node of this process is given.
fn address() -> String {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    loop {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// Nodes with a folder and an address each, that are to form a cluster together.
pub(crate) struct Nodes {
    folder: TempDir,
    copies: &'static str,
    pub(crate) addresses: Vec<String>,
}

impl Nodes {
    /// So many nodes, of which none was started.
    pub(crate) fn new(count: usize) -> Nodes {
        let addresses = (0..count).map(|_| address()).collect();
        Nodes { folder: tempfile::tempdir().unwrap(), copies: "2", addresses }
    }

    /// Which acknowledge what is on one disk.
    pub(crate) fn without_copies(self) -> Nodes {
        Nodes { copies: "1", ..self }
    }

    pub(crate) fn volume(&self, node: usize) -> PathBuf {
        self.folder.path().join(node.to_string())
    }

    /// Starts a node whose initial members are the first `members` ones and itself.
    pub(crate) fn start(&self, node: usize, members: usize) -> Process {
        self.start_with(node, members, "")
    }

    /// As [`Nodes::start`], with these failpoints.
    pub(crate) fn start_with(&self, node: usize, members: usize, failpoints: &str) -> Process {
        self.start_set(node, members, WINDOW, failpoints)
    }

    /// As [`Nodes::start`], with more settings.
    pub(crate) fn start_counting(&self, node: usize, members: usize, more: &[&str]) -> Process {
        self.start_set(node, members, &[WINDOW, more].concat(), "")
    }

    /// As [`Nodes::start_with`], with these settings in place of the window's.
    pub(crate) fn start_set(
        &self,
        node: usize,
        members: usize,
        settings: &[&str],
        failpoints: &str,
    ) -> Process {
        self.start_bare(node, members, &[COUNTING, settings].concat(), failpoints)
    }

    /// As [`Nodes::start_with`], with nothing but these settings.
    pub(crate) fn start_bare(
        &self,
        node: usize,
        members: usize,
        settings: &[&str],
        failpoints: &str,
    ) -> Process {
        let mut initial: Vec<&str> = self.addresses[..members].iter().map(String::as_str).collect();
        if node >= members {
            initial.push(&self.addresses[node]);
        }
        let initial = initial.join(",");
        let own = &self.addresses[node];
        let copies = self.copies;
        let arguments = ["--peer-listen", own, "--initial-members", &initial, "--copies", copies];
        let environment = [("FAILPOINTS", failpoints.to_owned())];
        let arguments = [&arguments, settings].concat();
        Process::start(&self.volume(node), &arguments, &environment)
    }

    pub(crate) fn start_all(&self) -> Vec<Process> {
        let count = self.addresses.len();
        (0..count).map(|node| self.start(node, count)).collect()
    }
}

/// What a node knows of its cluster.
pub(crate) fn view(node: &mut Process) -> Option<Cluster> {
    node.must_be_alive();
    let mut connection = Connection::open(node.admin()?).ok()?;
    let answer = connection.get("/v1/cluster").ok()?;
    Some(serde_json::from_str(&answer.body).unwrap())
}

/// Whether a node is ready, in its words.
pub(crate) fn ready(node: &mut Process) -> Option<Answer> {
    Connection::open(node.admin()?).and_then(|mut connection| connection.get("/readyz")).ok()
}

/// Waits until a node knows a leader and so many active members.
pub(crate) fn settled(node: &mut Process, members: usize) -> Cluster {
    eventually("a leader and all members", || {
        let cluster = view(node)?;
        let active = cluster.members.iter().filter(|m| m.state == MemberState::Active).count();
        (cluster.leader.is_some() && active == members).then_some(cluster)
    })
}
