//! What came of windows is on all owners of a slot: a node that dies for good takes nothing with
//! it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sheaf_proto::statistics::WindowCounts;

use super::nodes::{Nodes, settled, view};
use crate::http::{Connection, Form, Record};
use crate::process::{Process, eventually};

const WINDOW: Duration = Duration::from_secs(5);
const SETTINGS: &[&str] = &["--window", "5s", "--copies", "2"];
const SLOTS: u64 = 256;
/// A node that is dead may have stamped something for this long, as far as the next leader knows;
/// windows after that do not wait for its journal.
const LEASE: Duration = Duration::from_secs(20);

/// Nodes of which each slot has two owners, and the first one leads. That one dies when it has
/// agreed on its first line.
struct Owned {
    nodes: Nodes,
    running: Vec<Option<Process>>,
    last_death: Instant,
}

impl Owned {
    fn begin() -> Owned {
        let nodes = Nodes::new(3);
        let running = (0..3).map(|_| None).collect();
        let mut owned = Owned { nodes, running, last_death: Instant::now() };
        owned.start_with(0, "print-before-deliver=return");
        (1..3).for_each(|node| owned.start_with(node, ""));
        let first = owned.id(0);
        loop {
            let leader = eventually("a leader", || view(owned.node(0))?.leader);
            if leader == first {
                return owned;
            }
            let other = (1..3).find(|&node| owned.id(node) == leader).unwrap();
            owned.kill(other);
            eventually("another leader", || {
                view(owned.node(0))?.leader.filter(|now| *now != leader)
            });
            owned.start_with(other, "");
            owned.id(other);
        }
    }

    fn start_with(&mut self, node: usize, failpoints: &str) {
        let process = self.nodes.start_set(node, 3, SETTINGS, failpoints);
        self.running[node] = Some(process);
    }

    /// Ends a node by SIGKILL, and returns what it has printed.
    fn kill(&mut self, node: usize) -> String {
        self.last_death = Instant::now();
        self.running[node].take().unwrap().kill().stdout
    }

    fn node(&mut self, node: usize) -> &mut Process {
        self.running[node].as_mut().unwrap()
    }

    /// The id of a node, once it is a member.
    fn id(&mut self, node: usize) -> u64 {
        settled(self.node(node), 3).node.unwrap()
    }

    /// Waits until each slot has two owners, all of them on nodes that run.
    fn wait_for_owners(&mut self) {
        let running: Vec<_> = (0..3).filter(|&node| self.running[node].is_some()).collect();
        let ids: Vec<_> = running.iter().map(|&node| self.id(node)).collect();
        eventually("two owners of each slot", || {
            let members = view(self.node(running[0]))?.members;
            let owned = members.iter().filter(|member| ids.contains(&member.id));
            let owned: u64 = owned.map(|member| member.owned).sum();
            let is_over = members.iter().all(|member| member.filling == 0);
            (is_over && owned == 2 * SLOTS).then_some(())
        });
    }

    /// Sends 100 records to each node that runs, all in one window. No two are the same.
    fn send(&mut self, what: &str) -> u64 {
        eventually("the beginning of a window", || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let begins = now.as_millis() % WINDOW.as_millis() < 1000;
            (begins && self.last_death.elapsed() > LEASE).then_some(())
        });
        let mut sent = 0;
        for (number, node) in self.running.iter_mut().enumerate() {
            let Some(node) = node else { continue };
            let records = (0..100).map(|record| Record {
                body: format!("{what} {number} {record}"),
                attribute: Some(("request", format!("{what} {}", record % 10))),
            });
            let records: Vec<_> = records.collect();
            eventually("an acknowledgement", || {
                let mut connection = Connection::open(node.otlp_http()?).ok()?;
                let answer = connection.export(Form::Protobuf, &records).ok()?;
                (answer.status == 200).then_some(())
            });
            sent += 100;
        }
        sent
    }

    /// Waits until a node has printed the window with so many records, and all of them count.
    fn wait_for_line(&self, what: &str, sent: u64) {
        let value = format!("{what} 0");
        let is_of = |line: &WindowCounts| line.counts.iter().any(|count| count.value == *value);
        let line = eventually("the line of a window", || {
            let printed = self.running.iter().flatten().map(Process::printed);
            let printed: Vec<_> = printed.collect();
            let lines = printed.iter().flat_map(|printed| printed.lines());
            let mut lines = lines.filter_map(|line| serde_json::from_str(line).ok());
            lines.find(is_of)
        });
        assert!(line.complete && line.revision == 1, "{line:?}");
        assert_eq!((line.records, line.distinct), (sent, sent), "{line:?}");
        let counted: u64 = line.counts.iter().map(|count| count.count).sum();
        assert_eq!(counted, sent);
    }
}

#[test]
fn windows_that_were_complete_when_a_node_died_for_good_are_printed_by_the_others() {
    let mut owned = Owned::begin();
    owned.wait_for_owners();
    let sent = owned.send("first");
    eventually("the death of the leader", || owned.node(0).is_over().then_some(()));
    assert_eq!(owned.kill(0), "", "it died before it printed anything");
    owned.wait_for_line("first", sent);

    owned.wait_for_owners();
    let sent = owned.send("second");
    owned.wait_for_line("second", sent);

    // What it missed it copies before anybody counts on it.
    owned.start_with(0, "");
    owned.wait_for_owners();
    owned.kill(1);
    owned.wait_for_owners();
    let sent = owned.send("third");
    owned.wait_for_line("third", sent);
}
