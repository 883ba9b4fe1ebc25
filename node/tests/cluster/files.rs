//! Rebuilt files are on all owners of their slots: a node that dies takes nothing with it, and
//! whoever owns a slot later has its files.

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sheaf_proto::cluster::MemberState;

use super::leaving::ask_to;
use super::nodes::{Nodes, settled, view};
use crate::http::Connection;
use crate::parts::Part;
use crate::process::{Process, eventually, eventually_within};

const SETTINGS: &str = "\
aggregations:
  - {name: files, type: LogFiles, logFiles: {checkpointSeconds: 1}}
";
const SLOTS: u64 = 256;
const SESSION: u64 = 7;
const IDS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "host/k.log", "../l"];
/// Slots without new files keep the journals for a minute.
const DRAINING: Duration = Duration::from_secs(120);
/// Chunks are sent in an order that is random within so many.
const DISORDER: usize = 8;

/// Nodes, and what was sent to them.
struct Rebuilding {
    nodes: Nodes,
    running: Vec<Option<Process>>,
    rng: fastrand::Rng,
    sources: Vec<Vec<u8>>,
    /// Chunks of each file.
    sent: [i64; IDS.len()],
}

impl Rebuilding {
    fn begin(nodes: Nodes, count: usize) -> Rebuilding {
        fs::write(nodes.volume(0).with_file_name("settings.yaml"), SETTINGS).unwrap();
        let (rng, sources) = (fastrand::Rng::new(), vec![Vec::new(); IDS.len()]);
        let (running, sent) = (Vec::new(), [0; IDS.len()]);
        let mut it = Rebuilding { nodes, running, rng, sources, sent };
        for node in 0..count {
            let started = it.start(node);
            it.running.push(Some(started));
        }
        settled(it.running[0].as_mut().unwrap(), count);
        it
    }

    fn start(&self, node: usize) -> Process {
        let settings = self.nodes.volume(0).with_file_name("settings.yaml");
        let arguments = ["--config", settings.to_str().unwrap()];
        self.nodes.start_bare(node, 3, &arguments, "")
    }

    /// Sends so many chunks of each file, some twice, to all nodes that run.
    fn send(&mut self, chunks: usize) {
        let mut waiting: Vec<_> = IDS.iter().map(|id| (*id, VecDeque::new())).collect();
        for (file, (id, parts)) in waiting.iter_mut().enumerate() {
            for _ in 0..chunks {
                self.sent[file] += 1;
                let payload: Vec<u8> =
                    (0..self.rng.usize(..20_000)).map(|_| self.rng.u8(..)).collect();
                self.sources[file].extend_from_slice(&payload);
                let (seq, payload) = (self.sent[file], Bytes::from(payload));
                parts.push_back(Part { id, session: SESSION, seq, payload });
            }
        }
        while let Some((_, parts)) = self.rng.choice(waiting.iter_mut()) {
            let at = self.rng.usize(..parts.len().min(DISORDER));
            let is_taken = self.is_taken(&parts[at]);
            // Now and then the answer gets lost.
            if is_taken && self.rng.u8(..) > 20 {
                parts.remove(at);
            }
            waiting.retain(|(_, parts)| !parts.is_empty());
        }
    }

    fn is_taken(&mut self, part: &Part) -> bool {
        let nodes: Vec<_> = self.running.iter_mut().flatten().collect();
        let node = self.rng.choice(nodes).unwrap();
        let connection = Connection::open(node.chunks().unwrap());
        let answer = connection.and_then(|mut open| open.send("POST", "/data", &part.encode()));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until so many nodes have all of each file in a checkpoint, and compares.
    fn check(&mut self, copies: usize) {
        for (id, source) in IDS.iter().zip(&self.sources) {
            let owners = eventually("all bytes on all owners", || {
                let nodes = self.running.iter_mut().enumerate();
                let has_all = |(at, node): (usize, &mut Option<Process>)| {
                    has(node.as_mut()?, id, source.len()).then_some(at)
                };
                let owners: Vec<_> = nodes.filter_map(has_all).collect();
                (owners.len() >= copies).then_some(owners)
            });
            for owner in owners {
                let owner = self.running[owner].as_mut().unwrap();
                let mut admin = Connection::open(owner.admin().unwrap()).unwrap();
                let read = admin.read(&path(id), None).unwrap();
                assert!(read == *source, "{id:?} is another file");
            }
        }
    }

    /// Waits until so many nodes own each slot.
    fn wait_for_owners(&mut self, copies: u64) {
        let running: Vec<_> =
            self.running.iter_mut().flatten().filter_map(|node| view(node)?.node).collect();
        eventually("owners of each slot", || {
            let members = view(self.running.iter_mut().flatten().next()?)?.members;
            let owned = members.iter().filter(|member| running.contains(&member.id));
            let owned: u64 = owned.map(|member| member.owned).sum();
            let is_over = members.iter().all(|member| member.filling == 0);
            (is_over && owned == copies * SLOTS).then_some(())
        });
    }

    /// Has a node drained, and ends it.
    fn drain(&mut self, node: usize, through: usize) {
        let mut leaving = self.running[node].take().unwrap();
        let id = view(&mut leaving).unwrap().node.unwrap();
        let through = self.running[through].as_mut().unwrap();
        let (status, body) = ask_to("drain", id, through);
        assert_eq!(status, 202, "{body}");
        eventually_within(DRAINING, "a drained node", || {
            let members = view(through)?.members;
            let is_drained = |state| state == MemberState::Drained;
            members.into_iter().find(|member| member.id == id && is_drained(member.state))
        });
        leaving.terminate();
    }
}

/// Whether a node has so many bytes of a file in a checkpoint.
fn has(node: &mut Process, id: &str, bytes: usize) -> bool {
    node.must_be_alive();
    let mut listed = || {
        let mut admin = Connection::open(node.admin()?).ok()?;
        let list: Vec<Value> = serde_json::from_str(&admin.get("/v1/files").ok()?.body).ok()?;
        list.into_iter().find(|file| file["id"] == id)
    };
    listed().is_some_and(|file| file["checkpointed_bytes"] == bytes && file["bytes"] == bytes)
}

fn path(id: &str) -> String {
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("/v1/files/{escaped}/{SESSION}")
}

#[test]
fn files_outlive_their_primaries_and_go_where_their_slots_go() {
    let mut it = Rebuilding::begin(Nodes::new(4), 3);
    it.wait_for_owners(2);
    it.send(10);
    let killed = it.rng.usize(..3);
    drop(it.running[killed].take().unwrap().kill());
    it.send(5);
    it.wait_for_owners(2);
    it.check(2);

    let back = it.start(killed);
    it.running[killed] = Some(back);
    let fourth = it.start(3);
    it.running.push(Some(fourth));
    it.send(5);
    settled(it.running[3].as_mut().unwrap(), 4);
    it.wait_for_owners(2);
    it.check(2);
    it.drain((killed + 1) % 3, 3);
    it.send(2);
    it.check(2);
}

#[test]
fn a_lone_copy_is_handed_over_before_its_node_leaves() {
    let mut it = Rebuilding::begin(Nodes::new(3).without_copies(), 3);
    it.wait_for_owners(1);
    it.send(5);
    it.check(1);
    it.drain(1, 0);
    it.send(2);
    it.check(1);
}
