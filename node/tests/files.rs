//! Files are rebuilt byte for byte, whenever the node dies and whatever of its disk a power cut
//! takes: real processes, chunks over HTTP in disorder and twice.
#![allow(clippy::unwrap_used)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "chunks/parts.rs"]
mod parts; // chunks as bytes
#[path = "crash/power.rs"]
mod power; // takes away what was not synced
#[path = "support/process.rs"]
mod process; // the real binary

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::{Connection, escaped};
use parts::Part;
use power::Power;
use process::{Process, eventually};
use sheaf_proto::files::{RebuiltFile, RebuiltFiles};

const IDS: [&str; 3] = ["host/var/log/app.log", "log1.log", "../größe\u{0}"];
const SESSION: u64 = 7;
/// A sender sends its chunks in an order that is random within so many.
const DISORDER: usize = 8;

/// A node's folders, and what chunks were acknowledged in all its lives.
struct Campaign {
    root: tempfile::TempDir,
    power: Power,
    rng: fastrand::Rng,
    node: Arc<Mutex<Option<SocketAddr>>>,
    acknowledged: Arc<AtomicU64>,
    /// How many may be by now: each life is to have some.
    allowed: Arc<AtomicU64>,
}

impl Campaign {
    /// Files are kept as these settings say.
    fn begin(member: &str) -> Campaign {
        let root = tempfile::tempdir().unwrap();
        set(root.path(), member);
        let power = Power::new(root.path());
        let (rng, node) = (fastrand::Rng::new(), Arc::default());
        let (acknowledged, allowed) = (Arc::default(), Arc::default());
        Campaign { root, power, rng, node, acknowledged, allowed }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn start(&self) -> Process {
        let settings = self.root.path().join("settings.yaml");
        let environment = self.power.watch(&self.folder());
        let level = "info,sheaf_node::flush=debug";
        let arguments = ["--config", settings.to_str().unwrap(), "--log-level", level];
        let mut node = Process::start(&self.folder(), &arguments, &environment);
        *self.node.lock().unwrap() = Some(node.chunks().unwrap());
        node
    }

    /// Whether a file below the data folder is called so, in the end.
    fn has(&self, end: &str) -> bool {
        names(&self.folder().join("files")).iter().any(|name| name.ends_with(end))
    }

    /// One life, until so many more chunks are acknowledged; then the power is cut.
    fn live(&mut self, chunks: u64) {
        let mut node = self.start();
        let until = self.acknowledged.load(Ordering::Relaxed) + chunks;
        self.allowed.store(until, Ordering::Relaxed);
        eventually("acknowledged chunks", || {
            node.must_be_alive();
            (self.acknowledged.load(Ordering::Relaxed) >= until).then_some(())
        });
        // Soon after a checkpoint, or between two.
        if self.rng.bool() {
            eventually("a checkpoint", || {
                node.must_be_alive();
                node.log().contains("files kept").then_some(())
            });
        }
        *self.node.lock().unwrap() = None;
        node.kill();
        self.power.cut(&self.folder(), &mut self.rng);
    }

    /// Sends a file's chunks, until all are acknowledged.
    fn send(&mut self, id: &'static str, source: &[u8]) -> JoinHandle<()> {
        let (node, acknowledged) = (Arc::clone(&self.node), Arc::clone(&self.acknowledged));
        let allowed = Arc::clone(&self.allowed);
        let mut rng = self.rng.fork();
        let parts = cut(id, source, &mut rng);
        thread::spawn(move || {
            let mut waiting = VecDeque::from(parts);
            let mut connection = None;
            while !waiting.is_empty() {
                let part = waiting[rng.usize(..waiting.len().min(DISORDER))].clone();
                if acknowledged.load(Ordering::Relaxed) >= allowed.load(Ordering::Relaxed) {
                    thread::yield_now();
                } else if is_taken(&node, &mut connection, &part) {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    // Now and then the answer gets lost.
                    if rng.u8(..) > 20 {
                        waiting.retain(|other| other.seq != part.seq);
                    }
                } else {
                    connection = None;
                    thread::yield_now();
                }
            }
        })
    }
}

/// Writes settings with the member of an aggregation of files.
fn set(root: &Path, member: &str) {
    let settings =
        format!("aggregations:\n  - {{name: files, type: LogFiles, logFiles: {member}}}\n");
    fs::write(root.join("settings.yaml"), settings).unwrap();
}

/// All files below a folder.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let below = entries.flat_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { names(&path) } else { vec![path.to_str().unwrap().to_owned()] }
    });
    below.collect()
}

/// Cuts a file into chunks, some of which are empty.
fn cut(id: &'static str, source: &[u8], rng: &mut fastrand::Rng) -> Vec<Part> {
    let (mut rest, mut parts) = (source, Vec::new());
    while !rest.is_empty() {
        let (payload, after) = rest.split_at(rng.usize(..=rest.len().min(20_000)));
        let (seq, payload) = (parts.len() as i64 + 1, Bytes::copy_from_slice(payload));
        parts.push(Part { id, session: SESSION, seq, payload });
        rest = after;
    }
    parts
}

fn is_taken(
    node: &Mutex<Option<SocketAddr>>,
    connection: &mut Option<Connection>,
    part: &Part,
) -> bool {
    if connection.is_none() {
        let Some(address) = *node.lock().unwrap() else { return false };
        *connection = Connection::open(address).ok();
    }
    let answer =
        connection.as_mut().and_then(|open| open.send("POST", "/data", &part.encode()).ok());
    answer.is_some_and(|answer| {
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        answer.status == 200
    })
}

/// Numbered lines, and bytes that are no text.
fn source(lines: u64, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in 0..lines {
        bytes.extend_from_slice(format!("{line} ").as_bytes());
        bytes.extend((0..rng.usize(..200)).map(|_| rng.u8(..)));
        bytes.push(b'\n');
    }
    bytes
}

/// What the node lists of an id.
fn listed(admin: &mut Connection, id: &str) -> Option<RebuiltFile> {
    let list: RebuiltFiles = serde_json::from_str(&admin.get("/v1/files").ok()?.body).ok()?;
    list.files.into_iter().find(|file| file.id == id)
}

fn path(id: &str) -> String {
    format!("/v1/files/{}/{SESSION}", escaped(id))
}

/// Cuts the power five times while files are sent, and checks that all of them are their sources.
/// Returns these.
fn power_cuts(campaign: &mut Campaign) -> [Vec<u8>; 3] {
    let mut rng = campaign.rng.fork();
    let sources = [4_000, 8_000, 500].map(|lines| source(lines, &mut rng));
    let senders: Vec<_> =
        IDS.iter().zip(&sources).map(|(id, source)| campaign.send(id, source)).collect();
    for _ in 0..5 {
        let chunks = rng.u64(1..25);
        campaign.live(chunks);
    }
    campaign.allowed.store(u64::MAX, Ordering::Relaxed);
    let mut node = campaign.start();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let mut admin = Connection::open(node.admin().unwrap()).unwrap();
    for (id, source) in IDS.iter().zip(&sources) {
        eventually("all bytes in a checkpoint", || {
            node.must_be_alive();
            let file = listed(&mut admin, id)?;
            (file.checkpointed_bytes == source.len() as u64).then_some(())
        });
        assert_eq!(listed(&mut admin, id).unwrap().contradicting, 0);
    }
    are_whole(&mut admin, &sources);
    node.terminate();
    sources
}

fn are_whole(admin: &mut Connection, sources: &[Vec<u8>]) {
    for (id, source) in IDS.iter().zip(sources) {
        let file = listed(admin, id).unwrap();
        assert_eq!((file.bytes, file.waits_for), (source.len() as u64, None));
        assert!(admin.read(&path(id), None).unwrap() == *source, "{id:?} is another file");
        let half = source.len() / 2;
        let read = admin.read(&path(id), Some((10, half))).unwrap();
        assert!(read == source[10..=half], "{id:?}: another part");
    }
}

#[test]
fn power_cuts_at_any_moment_leave_every_file_equal_to_its_source() {
    power_cuts(&mut Campaign::begin("{checkpointSeconds: 1}"));
}

#[test]
fn files_in_parts_outlive_power_cuts_too_until_they_are_old() {
    let parts = "checkpointSeconds: 1, partBytes: 65536, compression: Zstd";
    let mut campaign = Campaign::begin(&format!("{{{parts}}}"));
    let sources = power_cuts(&mut campaign);

    // A node looks at all files when it starts.
    let mut node = campaign.start();
    let last_full = |source: &[u8]| format!("{:015}.zst", (source.len() / 65_536 - 1) * 65_536);
    eventually("compressed parts", || {
        node.must_be_alive();
        sources
            .iter()
            .filter(|it| it.len() > 65_536)
            .all(|it| campaign.has(&last_full(it)))
            .then_some(())
    });
    are_whole(&mut Connection::open(node.admin().unwrap()).unwrap(), &sources);
    node.kill();

    set(campaign.root.path(), &format!("{{{parts}, retentionSeconds: 1}}"));
    let mut node = campaign.start();
    let mut admin = Connection::open(node.admin().unwrap()).unwrap();
    for (id, source) in IDS.iter().zip(&sources) {
        let bytes = source.len() as u64;
        eventually("removed bytes", || {
            node.must_be_alive();
            (listed(&mut admin, id)?.removed_bytes == bytes).then_some(())
        });
        let gone = admin.get(&path(id)).unwrap();
        assert!(gone.status == 410 && gone.body.contains(&bytes.to_string()), "{gone:?}");
    }
    assert!(!campaign.has(".zst"));
    node.terminate();
}

#[test]
fn other_bytes_for_a_place_are_in_no_file_and_are_told_of_wherever_one_looks() {
    let campaign = Campaign::begin("{checkpointSeconds: 1}");
    let mut node = campaign.start();
    let mut chunks = Connection::open(node.chunks().unwrap()).unwrap();
    for payload in ["one", "one", "ONE"] {
        let payload = Bytes::from_static(payload.as_bytes());
        let part = Part { id: IDS[0], session: SESSION, seq: 1, payload };
        let taken =
            || (chunks.send("POST", "/data", &part.encode()).ok()?.status == 200).then_some(());
        eventually("an answer", taken);
    }
    let mut admin = Connection::open(node.admin().unwrap()).unwrap();
    eventually("one that contradicts in the list", || {
        (listed(&mut admin, IDS[0])?.contradicting == 1).then_some(())
    });
    eventually("one in the metrics", || {
        let metrics = admin.get("/metrics").ok()?.body;
        metrics.contains("\nsheaf_chunks_contradicting_total 1\n").then_some(())
    });
    assert_eq!(admin.read(&path(IDS[0]), None).unwrap(), b"one");
    let told = node.log();
    let warning = told.lines().find(|line| line.contains("WARN") && line.contains(IDS[0]));
    assert!(warning.is_some_and(|warning| warning.contains("chunks=1")), "{told}");
    let ledger = admin.get("/v1/ledger").unwrap().body;
    assert!(ledger.contains(r#""flushed":3,"distinct":1,"duplicate":2"#), "{ledger}");
}
