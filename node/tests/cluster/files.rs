//! Rebuilt files are on all owners of their slots: a node that dies takes nothing with it, and
//! whoever owns a slot later has its files. Any node lists and reads all of them.

use std::collections::VecDeque;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sheaf_proto::cluster::MemberState;
use sheaf_proto::files::{RebuiltFile, RebuiltFiles};

use super::leaving::ask_to;
use super::nodes::{Nodes, settled, view};
use crate::http::{Connection, escaped};
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
/// A file with large chunks.
const LARGE: &str = "large";
const LARGE_CHUNK: usize = 1 << 20;
/// What may wait behind its gap.
const WAITING_MAX: usize = 64 << 20;

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
        self.start_with(node, &[])
    }

    fn start_with(&self, node: usize, more: &[&str]) -> Process {
        let settings = self.nodes.volume(0).with_file_name("settings.yaml");
        let arguments = [&["--config", settings.to_str().unwrap()], more].concat();
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
        answer(self.rng.choice(nodes).unwrap(), part) == Some(200)
    }

    /// Sends a chunk again and again, until all nodes that run answer so.
    fn all_answer(&mut self, part: &Part, status: u16) {
        for node in self.running.iter_mut().flatten() {
            eventually("the same answer of all nodes", || {
                (answer(node, part) == Some(status)).then_some(())
            });
        }
    }

    /// What all nodes that run tell of the aggregation of files, added up.
    fn sum(&mut self, metric: &str) -> f64 {
        let line = format!("sheaf_{metric}{{aggregation=\"files\"}} ");
        let told = self.running.iter_mut().flatten().filter_map(|node| {
            let metrics = Connection::open(node.admin()?).ok()?.get("/metrics").ok()?.body;
            metrics.lines().find_map(|told| told.strip_prefix(&line)?.parse::<f64>().ok())
        });
        told.sum()
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
                let own = format!("{}?scope=node", path(id));
                assert!(admin.read(&own, None).unwrap() == *source, "{id:?} is another file");
            }
        }
    }

    /// Waits until each node that runs lists and reads all files, and compares.
    fn check_readers(&mut self) {
        let (sources, nodes) = (&self.sources, self.running.iter_mut().flatten());
        for node in nodes {
            let lengths = sources.iter().map(|source| source.len() as u64);
            let mut expected: Vec<_> = IDS.map(str::to_owned).into_iter().zip(lengths).collect();
            expected.sort();
            eventually("a list of all bytes", || {
                let listed = pages(node, "", 5)?;
                (listed == expected).then_some(())
            });
            let mut admin = Connection::open(node.admin().unwrap()).unwrap();
            for (id, source) in IDS.iter().zip(sources) {
                assert!(admin.read(&path(id), None).unwrap() == *source, "{id:?}");
                let half = source.len() / 2;
                let read = admin.read(&path(id), Some((10, half))).unwrap();
                assert!(read == source[10..=half], "{id:?}: another part");
                let (status, _) = admin.fetch(&path(id), Some((source.len(), 1 << 40))).unwrap();
                assert_eq!(status, 416, "{id:?}");
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

/// The status that a node answers to a chunk.
fn answer(node: &mut Process, part: &Part) -> Option<u16> {
    let mut connection = Connection::open(node.chunks()?).ok()?;
    Some(connection.send("POST", "/data", &part.encode()).ok()?.status)
}

/// A chunk of the file that has large ones.
fn large(seq: i64) -> Part {
    let mut payload = vec![0; LARGE_CHUNK];
    fastrand::Rng::with_seed(seq.cast_unsigned()).fill(&mut payload);
    Part { id: LARGE, session: SESSION, seq, payload: payload.into() }
}

/// Whether a node has so many bytes of a file in a checkpoint.
fn has(node: &mut Process, id: &str, bytes: usize) -> bool {
    node.must_be_alive();
    let list = list(node, &format!("scope=node&id={}", escaped(id)));
    let mut files = list.map(|list| list.files).unwrap_or_default().into_iter();
    let is_whole =
        |file: RebuiltFile| (file.checkpointed_bytes, file.bytes) == (bytes as u64, bytes as u64);
    files.any(is_whole)
}

/// What a node lists; `None` while it starts.
fn list(node: &mut Process, query: &str) -> Option<RebuiltFiles> {
    let mut admin = Connection::open(node.admin()?).ok()?;
    let answer = admin.get(&format!("/v1/files?{query}")).ok()?;
    assert!([200, 503].contains(&answer.status), "{}", answer.body);
    (answer.status == 200).then(|| serde_json::from_str(&answer.body).unwrap())
}

/// The ids and lengths of all files, so many at a time, if the list is complete.
fn pages(node: &mut Process, query: &str, limit: usize) -> Option<Vec<(String, u64)>> {
    let (mut files, mut next) = (Vec::new(), String::new());
    loop {
        let page = list(node, &format!("{query}&limit={limit}{next}"))?;
        if !page.complete {
            return None;
        }
        assert!(page.files.len() <= limit);
        files.extend(page.files.into_iter().map(|file| (file.id, file.bytes)));
        let Some(token) = page.next else { return Some(files) };
        next = format!("&continue={}", escaped(&token));
    }
}

fn path(id: &str) -> String {
    format!("/v1/files/{}/{SESSION}", escaped(id))
}

#[test]
fn any_node_lists_and_reads_all_files_also_when_one_dies() {
    let mut it = Rebuilding::begin(Nodes::new(3), 3);
    it.wait_for_owners(2);
    it.send(10);
    it.check_readers();
    let node = it.running[0].as_mut().unwrap();
    let mut admin = Connection::open(node.admin().unwrap()).unwrap();
    for (path, reason) in [
        ("/v1/files/nobody/7", "there is no file with the id nobody"),
        ("/v1/files/a/8", "a has no session 8"),
    ] {
        let answer = admin.get(path).unwrap();
        assert!((answer.status, answer.body.contains(reason)) == (404, true), "{answer:?}");
    }
    it.check(2);

    let killed = it.rng.usize(..3);
    drop(it.running[killed].take().unwrap().kill());
    let left = it.running.iter_mut().flatten().next().unwrap();
    // Another owner has what the last checkpoint has: before, while and after it leads.
    let mut admin = Connection::open(left.admin().unwrap()).unwrap();
    for (id, source) in IDS.iter().zip(&it.sources) {
        assert!(admin.read(&path(id), None).unwrap() == *source, "{id:?} of a dead node");
    }
    let all = list(left, "").unwrap();
    assert_eq!(all.files.len(), IDS.len());
    assert_eq!(all.complete, all.waits_for.is_none());
    it.send(5);
    it.check_readers();
}

#[test]
fn a_node_that_is_alone_says_for_whom_its_lists_wait() {
    let mut it = Rebuilding::begin(Nodes::new(3).without_copies(), 3);
    it.wait_for_owners(1);
    it.send(2);
    it.check_readers();
    let id = |node: usize| view(it.running[node].as_mut().unwrap()).unwrap().node;
    let mut dead: Vec<_> = [1, 2].into_iter().filter_map(id).collect();
    dead.sort();
    for node in [1, 2] {
        drop(it.running[node].take().unwrap().kill());
    }
    let left = it.running[0].as_mut().unwrap();
    let list = eventually("a list that waits", || list(left, "").filter(|list| !list.complete));
    let waits_for = list.waits_for.unwrap();
    assert_eq!(waits_for.nodes, dead);
    assert_eq!(waits_for.missing, waits_for.slots, "nobody else has them");
    let listed = |id: &str| list.files.iter().any(|file| file.id == id);
    let mut admin = Connection::open(left.admin().unwrap()).unwrap();
    for id in IDS {
        let (status, body) = admin.fetch(&path(id), None).unwrap();
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, if listed(id) { 200 } else { 503 }, "{id:?}: {body}");
    }
}

#[test]
fn a_file_that_grows_is_read_as_long_as_it_was_when_the_answer_began() {
    let mut it = Rebuilding::begin(Nodes::new(3), 3);
    it.wait_for_owners(2);
    it.send(1);
    let addresses: Vec<_> =
        it.running.iter_mut().flatten().map(|node| node.admin().unwrap()).collect();
    let is_over = AtomicBool::new(false);
    let read: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let readers = addresses.into_iter().map(|address| {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut read: Vec<Vec<u8>> = Vec::new();
                let mut admin = Connection::open(address).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((200, bytes)) = admin.fetch(&path(IDS[0]), None) else { continue };
                    // Of what the others have read only the longest is of interest.
                    if read.last().is_none_or(|last| last.len() < bytes.len()) {
                        read.push(bytes);
                    }
                }
                read
            })
        });
        let readers: Vec<_> = readers.collect();
        for _ in 0..20 {
            it.send(2);
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    assert!(read.len() > 6, "{} lengths were seen", read.len());
    for bytes in read {
        assert!(it.sources[0].starts_with(&bytes), "{} bytes are other ones", bytes.len());
    }
    it.check_readers();
}

#[test]
fn what_waits_behind_a_gap_is_bounded_until_the_chunk_comes_that_the_file_lacks() {
    let mut it = Rebuilding::begin(Nodes::new(3), 3);
    it.wait_for_owners(2);
    let mut refused = 2;
    while refused as usize * LARGE_CHUNK <= WAITING_MAX {
        eventually("a chunk that is taken", || it.is_taken(&large(refused)).then_some(()));
        refused += 1;
    }
    while it.is_taken(&large(refused)) {
        refused += 1;
        assert!(refused < 400, "all is taken");
    }
    it.all_answer(&large(refused), 503);
    // What may close the gap is taken, and so are other files.
    it.all_answer(&large(16), 200);
    for id in IDS {
        let payload = Bytes::from_static(b"x");
        it.all_answer(&Part { id, session: SESSION, seq: 2, payload }, 200);
    }
    let waiting = (refused as usize - 2) * LARGE_CHUNK + IDS.len();
    eventually("no payload in memory", || {
        let (all, held) = (it.sum("chunks_waiting_bytes"), it.sum("chunks_waiting_memory_bytes"));
        (all >= waiting as f64 && held == 0.0).then_some(())
    });

    let killed = it.rng.usize(..3);
    drop(it.running[killed].take().unwrap().kill());
    it.all_answer(&large(refused), 503);
    it.all_answer(&large(1), 200);
    it.all_answer(&large(refused), 200);
    let source: Vec<u8> = (1..=refused).flat_map(|seq| large(seq).payload).collect();
    for node in it.running.iter_mut().flatten() {
        eventually("all bytes in a checkpoint", || {
            let files = list(node, "")?.files;
            let file = files.iter().find(|file| file.id == LARGE)?;
            (file.checkpointed_bytes == source.len() as u64).then_some(())
        });
        let mut admin = Connection::open(node.admin().unwrap()).unwrap();
        assert!(admin.read(&path(LARGE), None).unwrap() == source, "another file");
    }
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
fn a_node_is_not_drained_while_another_has_no_room_for_its_files() {
    let mut it = Rebuilding::begin(Nodes::new(3), 3);
    it.wait_for_owners(2);
    it.send(5);
    it.check(2);
    let id = view(it.running[0].as_mut().unwrap()).unwrap().node.unwrap();
    drop(it.running[2].take().unwrap().kill());
    it.running[2] = Some(it.start_with(2, &["--disk-reserve", "1000TiB"]));
    eventually("a node that tells what it has", || {
        list(it.running[2].as_mut().unwrap(), "scope=node")
    });
    let (status, body) = ask_to("drain", id, it.running[1].as_mut().unwrap());
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("has room for 0") && body.contains("larger volumes"), "{body}");

    drop(it.running[2].take().unwrap().kill());
    it.running[2] = Some(it.start(2));
    settled(it.running[2].as_mut().unwrap(), 3);
    it.wait_for_owners(2);
    it.drain(0, 1);
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
