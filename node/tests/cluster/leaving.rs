//! A node that is let go hands over everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use sheaf_proto::cluster::{Member, MemberState, Role};
use sheaf_proto::statistics::{Ledger, WindowCounts};

use super::nodes::{Nodes, ready, settled, view};
use crate::http::{Connection, Form, Record};
use crate::process::{Process, eventually};

/// Asks a node to let a member go, and returns the answer's status and body.
pub(super) fn ask_to(act: &str, member: u64, through: &mut Process) -> (u16, String) {
    let mut connection = Connection::open(through.control().unwrap()).unwrap();
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
            let record =
                Record { body: number.to_string(), attribute: Some(("request", "x".into())) };
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
    view(node)?.members.into_iter().find(|member| member.id == id)
}

#[test]
fn a_drained_node_hands_over_everything_and_can_be_stopped() {
    let nodes = Nodes::new(3);
    let mut running = nodes.start_all();
    let leader = settled(&mut running[0], 3).leader.unwrap();
    let owns = |node: &mut Process| member(node, leader).filter(|member| member.slots > 0);
    eventually("slots of the leader", || owns(&mut running[0]));
    let end = Arc::new(AtomicBool::new(false));
    let sender = load(&mut running, &end);
    eventually("printed windows", || (windows(&mut running[0])?.len() > 1).then_some(()));

    let at = running.iter_mut().position(|node| view(node).unwrap().node == Some(leader));
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

    let mut back = nodes.start(at.unwrap(), 3);
    let says = eventually("a node that takes nothing", || {
        ready(&mut back).filter(|answer| answer.body.contains("no more"))
    });
    assert_eq!(says.status, 503);
}

#[test]
fn a_forgotten_node_takes_what_only_it_had_and_the_windows_say_so() {
    let nodes = Nodes::new(3).without_copies();
    let mut running = nodes.start_all();
    let leader = settled(&mut running[0], 3).leader;
    let owns_some = |node: &mut Process| {
        let cluster = view(node)?;
        cluster.members.iter().all(|member| member.slots > 0).then_some(cluster)
    };
    eventually("slots of all", || owns_some(&mut running[0]));
    let end = Arc::new(AtomicBool::new(false));
    let sender = load(&mut running, &end);
    eventually("printed windows", || (windows(&mut running[0])?.len() > 1).then_some(()));
    let at = running.iter_mut().position(|node| view(node).unwrap().node != leader).unwrap();
    let mut lost = running.remove(at);
    let node = view(&mut lost).unwrap().node.unwrap();
    let (status, body) = ask_to("forget", node, &mut running[0]);
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("answers"), "{body}");

    lost.kill();
    eventually("a node that can be forgotten", || {
        let mut connection = Connection::open(running[0].control()?).ok()?;
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
    assert!(
        settled.lost.iter().all(|lost| lost.node.is_none_or(|lost| lost == node))
            && !settled.lost.is_empty()
    );
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
