//! Several real nodes: how they become a cluster, and what becomes of it when they die.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "support/process.rs"]
mod process; // the real binary

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use http::{Connection, Form, Record};
use process::{Process, eventually};
use sheaf_proto::cluster::{Cluster, Member, MemberState, Role};
use sheaf_proto::statistics::{Ledger, WindowCounts};
use tempfile::TempDir;

/// Nodes with a folder and an address each, that are to form a cluster together.
struct Nodes {
    folder: TempDir,
    addresses: Vec<String>,
}

impl Nodes {
    /// So many nodes, of which none was started.
    fn new(count: usize) -> Nodes {
        // They are given back only when all are known, so that they differ.
        let listeners: Vec<_> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        Nodes { folder: tempfile::tempdir().unwrap(), addresses }
    }

    fn volume(&self, node: usize) -> PathBuf {
        self.folder.path().join(node.to_string())
    }

    /// Starts a node whose initial members are the first `members` ones and itself.
    fn start(&self, node: usize, members: usize) -> Process {
        self.start_with(node, members, &[])
    }

    fn start_with(&self, node: usize, members: usize, more: &[&str]) -> Process {
        let mut initial: Vec<&str> = self.addresses[..members].iter().map(String::as_str).collect();
        if node >= members {
            initial.push(&self.addresses[node]);
        }
        let initial = initial.join(",");
        let own = &self.addresses[node];
        let arguments = [&["--peer-listen", own, "--initial-members", &initial], more].concat();
        Process::start(&self.volume(node), &arguments, &[])
    }

    fn start_all(&self) -> Vec<Process> {
        self.start_all_with(&[])
    }

    fn start_all_with(&self, more: &[&str]) -> Vec<Process> {
        let count = self.addresses.len();
        (0..count).map(|node| self.start_with(node, count, more)).collect()
    }
}

fn cluster(node: &mut Process) -> Option<Cluster> {
    node.must_be_alive();
    let mut connection = Connection::open(node.admin()?).ok()?;
    let answer = connection.get("/v1/cluster").ok()?;
    Some(serde_json::from_str(&answer.body).unwrap())
}

/// Waits until a node knows a leader and so many active members.
fn settled(node: &mut Process, members: usize) -> Cluster {
    eventually("a leader and all members", || {
        let cluster = cluster(node)?;
        let active = cluster.members.iter().filter(|m| m.state == MemberState::Active).count();
        (cluster.leader.is_some() && active == members).then_some(cluster)
    })
}

fn uuids(cluster: &Cluster) -> Vec<String> {
    cluster.members.iter().map(|member| member.uuid.to_string()).collect()
}

#[test]
fn three_nodes_form_one_cluster_and_know_each_other() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all();
    let known: Vec<_> = running.iter_mut().map(|node| settled(node, 3)).collect();
    let ids: BTreeSet<_> = known.iter().map(|cluster| cluster.node).collect();
    assert_eq!(ids, BTreeSet::from([Some(1), Some(2), Some(3)]));
    for cluster in &known {
        assert_eq!(cluster.cluster, known[0].cluster);
        assert_eq!(uuids(cluster), uuids(&known[0]));
    }
    let voters = known[0].members.iter().filter(|m| matches!(m.role, Role::Leader | Role::Voter));
    assert_eq!(voters.count(), 3);
}

#[test]
fn nodes_wait_for_one_that_is_missing_and_say_for_whom() {
    let nodes = Nodes::new(3);
    let mut first = nodes.start(0, 3);
    let mut second = nodes.start(1, 3);
    let missing = &nodes.addresses[2];
    eventually("a node that waits for the third", || {
        let cluster = cluster(&mut first)?;
        assert!(!cluster.formed, "a cluster of two where three are to be");
        cluster.waiting.iter().any(|why| why.contains(missing)).then_some(())
    });
    let mut third = nodes.start(2, 3);
    for node in [&mut first, &mut second, &mut third] {
        settled(node, 3);
    }
}

#[test]
fn another_node_leads_when_the_leader_dies_and_the_dead_one_comes_back_as_itself() {
    let nodes = Nodes::new(3);
    let mut running: Vec<_> = nodes.start_all().into_iter().map(Some).collect();
    let before = settled(running[0].as_mut().unwrap(), 3);
    let leads = |node: &mut Process| settled(node, 3).node == before.leader;
    let position = running.iter_mut().position(|node| leads(node.as_mut().unwrap())).unwrap();
    running[position].take().unwrap().kill();

    let left = running.iter_mut().flatten().next().unwrap();
    eventually("another leader", || {
        cluster(left)?.leader.filter(|leader| Some(*leader) != before.leader)
    });
    let mut back = nodes.start(position, 3);
    let after = settled(&mut back, 3);
    assert_eq!((after.node, after.cluster), (before.leader, before.cluster));
    assert_eq!(uuids(&after), uuids(&before));
}

#[test]
fn a_cluster_that_was_killed_as_a_whole_goes_on() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all();
    let before = settled(&mut running[0], 3);
    running.into_iter().for_each(|node| drop(node.kill()));
    let mut running = nodes.start_all();
    for node in &mut running {
        let after = settled(node, 3);
        assert_eq!((after.cluster, uuids(&after)), (before.cluster, uuids(&before)));
        // What it remembers of the last leader counts for nothing until there is a new one.
        eventually("a new term", || (cluster(node)?.term > before.term).then_some(()));
    }
}

#[test]
fn an_empty_volume_joins_as_a_new_node_also_behind_an_old_address() {
    let nodes = Nodes::new(4);
    let mut running: Vec<_> = (0..3).map(|node| nodes.start(node, 3)).collect();
    let formed = settled(&mut running[0], 3);

    let mut fourth = nodes.start(3, 3);
    let joined = settled(&mut fourth, 4);
    assert_eq!((joined.cluster, joined.node), (formed.cluster, Some(4)));
    drop(fourth.kill());
    std::fs::remove_dir_all(nodes.volume(3)).unwrap();
    let mut emptied = nodes.start(3, 3);
    let joined = settled(&mut emptied, 5);
    assert_eq!((joined.cluster, joined.node), (formed.cluster, Some(5)));
    assert_ne!(joined.members[3].uuid, joined.members[4].uuid);
}

#[test]
fn a_node_that_waits_for_others_can_be_stopped() {
    let nodes = Nodes::new(2);
    let mut waiting = nodes.start(0, 2);
    eventually("a node that waits", || cluster(&mut waiting).filter(|c| !c.waiting.is_empty()));
    let ended = waiting.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

/// Asks a node to let a member go, and returns the answer's status and body.
fn ask_to(act: &str, member: u64, through: &mut Process) -> (u16, String) {
    let mut connection = Connection::open(through.admin().unwrap()).unwrap();
    let answer = connection.post(&format!("/v1/cluster/members/{member}/{act}")).unwrap();
    (answer.status, answer.body)
}

/// Sends requests with one record each to whichever nodes take them, until it is told to end.
fn load(nodes: &mut [Process], end: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let addresses: Vec<_> = nodes.iter_mut().map(|node| node.otlp_http().unwrap()).collect();
    let end = Arc::clone(end);
    std::thread::spawn(move || {
        let mut connections: Vec<Option<Connection>> = addresses.iter().map(|_| None).collect();
        let mut acknowledged = 0;
        for (turn, number) in (0..).zip(0_u64..) {
            if end.load(Ordering::Relaxed) {
                return acknowledged;
            }
            let at: usize = turn % addresses.len();
            let connection = connections[at].take();
            let connection = connection.map_or_else(|| Connection::open(addresses[at]), Ok);
            let record = Record { body: number.to_string(), attribute: Some(("foo", "x".into())) };
            let Ok(mut connection) = connection else { continue };
            // A request that is refused was not taken, and its record is left out.
            if let Ok(answer) = connection.export(Form::Protobuf, &[record]) {
                acknowledged += u64::from(answer.status == 200);
                connections[at] = Some(connection);
            }
        }
        acknowledged
    })
}

fn member(node: &mut Process, id: u64) -> Option<Member> {
    cluster(node)?.members.into_iter().find(|member| member.id == id)
}

#[test]
fn a_drained_node_hands_over_everything_and_can_be_stopped() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all_with(&["--attribute", "foo", "--window", "2s"]);
    let leader = settled(&mut running[0], 3).leader.unwrap();
    let owns = |node: &mut Process| member(node, leader).filter(|member| member.slots > 0);
    eventually("slots of the leader", || owns(&mut running[0]));
    let end = Arc::new(AtomicBool::new(false));
    let sender = load(&mut running, &end);
    eventually("printed windows", || (windows(&mut running[0])?.len() > 1).then_some(()));

    let at = running.iter_mut().position(|node| cluster(node).unwrap().node == Some(leader));
    let mut left = running.remove(at.unwrap());
    assert_eq!(ask_to("drain", 9, &mut running[0]).0, 404);
    let (status, body) = ask_to("drain", leader, &mut running[0]);
    assert_eq!(status, 202, "{body}");
    eventually("a drained node", || {
        member(&mut running[0], leader).filter(|member| member.state == MemberState::Drained)
    });
    let drained = member(&mut running[0], leader).unwrap();
    assert_eq!((drained.slots, drained.owned, drained.segments), (0, 0, 0));
    assert!(!matches!(drained.role, Role::Leader | Role::Voter), "{drained:?}");
    assert_eq!(ask_to("drain", leader, &mut running[1]).0, 202, "again");
    let ready = |node: &mut Process| {
        Connection::open(node.admin()?).and_then(|mut c| c.get("/readyz")).ok()
    };
    let says = eventually("a node that knows it", || {
        ready(&mut left).filter(|answer| answer.body.contains("no more"))
    });
    assert_eq!(says.status, 503);
    let ended = left.terminate();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);

    end.store(true, Ordering::Relaxed);
    let acknowledged = sender.join().unwrap();
    assert!(acknowledged > 0);
    let flushed = eventually("all windows", || {
        let windows = windows(&mut running[0])?;
        let records: u64 = windows.iter().map(|window| window.records).sum();
        (records == acknowledged).then_some(windows)
    });
    for window in &flushed {
        assert!(window.complete, "{window:?}");
        assert_eq!((window.distinct, window.unknown), (window.records, 0));
    }
    let mut connection = Connection::open(running[0].admin().unwrap()).unwrap();
    let ledger: Ledger = serde_json::from_str(&connection.get("/v1/ledger").unwrap().body).unwrap();
    assert!(ledger.balanced, "{ledger:?}");
    assert_eq!(ledger.aggregations[0].flushed, acknowledged);

    let mut back = nodes.start_with(at.unwrap(), 3, &["--attribute", "foo", "--window", "2s"]);
    let says = eventually("a node that takes nothing", || {
        ready(&mut back).filter(|answer| answer.body.contains("no more"))
    });
    assert_eq!(says.status, 503);
}

#[test]
fn a_forgotten_node_takes_what_only_it_had_and_the_windows_say_so() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all_with(&["--attribute", "foo", "--window", "2s"]);
    let leader = settled(&mut running[0], 3).leader;
    let owns_some = |node: &mut Process| {
        let cluster = cluster(node)?;
        cluster.members.iter().all(|member| member.slots > 0).then_some(cluster)
    };
    eventually("slots of all", || owns_some(&mut running[0]));
    let end = Arc::new(AtomicBool::new(false));
    let sender = load(&mut running, &end);
    eventually("printed windows", || (windows(&mut running[0])?.len() > 1).then_some(()));
    let at = running.iter_mut().position(|node| cluster(node).unwrap().node != leader).unwrap();
    let mut lost = running.remove(at);
    let node = cluster(&mut lost).unwrap().node.unwrap();
    let (status, body) = ask_to("forget", node, &mut running[0]);
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("answers"), "{body}");

    lost.kill();
    eventually("a node that can be forgotten", || {
        let mut connection = Connection::open(running[0].admin()?).ok()?;
        let path = format!("/v1/cluster/members/{node}/forget");
        connection.post(&path).ok().filter(|answer| answer.status == 202)
    });
    let forgotten = member(&mut running[0], node).unwrap();
    assert_eq!((forgotten.state, forgotten.owned), (MemberState::Forgotten, 0));
    let settled = eventually("a window that lost something, and a complete one after it", || {
        let windows = windows(&mut running[0])?;
        let settled = windows.iter().rposition(|window| window.settled)?;
        windows[..settled].iter().any(|window| window.complete).then(|| windows[settled].clone())
    });
    assert!(!settled.complete);
    assert!(settled.lost.iter().all(|lost| lost.node == node) && !settled.lost.is_empty());
    end.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    let ledger = eventually("a ledger that balances", || {
        let mut connection = Connection::open(running[0].admin()?).ok()?;
        let ledger: Ledger = serde_json::from_str(&connection.get("/v1/ledger").ok()?.body).ok()?;
        ledger.balanced.then_some(ledger)
    });
    assert_eq!(ledger.aggregations.len(), 1);
}

/// The windows that a node knows as printed.
fn windows(node: &mut Process) -> Option<Vec<WindowCounts>> {
    node.must_be_alive();
    let mut connection = Connection::open(node.admin()?).ok()?;
    serde_json::from_str(&connection.get("/v1/windows").ok()?.body).ok()
}
