//! Real agents follow what writers write and rotate, and real nodes rebuild it, while agents, nodes
//! and connections die, and chunks come twice and in another order.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/http.rs"]
mod http; // requests over one plain connection
#[path = "cluster/nodes.rs"]
mod nodes; // their folders and addresses
#[path = "chunks/parts.rs"]
mod parts; // chunks as bytes
#[path = "support/process.rs"]
mod process; // the real binary
mod tail {
    pub(crate) mod agents; // `sheaf tail`
    pub(crate) mod cutting; // connections that do not last
    pub(crate) mod directory; // where nodes are reached, and what they have
    pub(crate) mod shuffling; // chunks that come twice and in another order
    pub(crate) mod writers; // files that are written and rotated
}

use std::fs;
use std::time::{Duration, Instant};

use nodes::{Nodes, settled};
use process::{Process, eventually};
use tail::agents::Agents;
use tail::cutting::Cutter;
use tail::directory::{Directory, Place};
use tail::shuffling::Shuffler;
use tail::writers::{Manner, Rotation, Writer, Written};

const SETTINGS: &str = "\
aggregations:
  - {name: files, type: LogFiles, logFiles: {checkpointSeconds: 1}}
";
const NODES: usize = 3;
/// How long the cluster may take for what it is behind.
pub(crate) const CATCHES_UP: Duration = Duration::from_secs(180);
/// Milliseconds that pass until the next one dies, and until it lives again.
const LIFE: std::ops::Range<u64> = 50..1_500;
const DEATH: std::ops::Range<u64> = 0..500;

/// Three nodes, of which at most one is dead.
struct Cluster {
    nodes: Nodes,
    running: Vec<Option<Process>>,
    directory: Directory,
}

impl Cluster {
    fn form() -> Cluster {
        let nodes = Nodes::new(NODES);
        fs::write(nodes.volume(0).with_file_name("settings.yaml"), SETTINGS).unwrap();
        let running = Vec::from_iter((0..NODES).map(|_| None));
        let mut it = Cluster { nodes, running, directory: Directory::default() };
        (0..NODES).for_each(|node| it.start(node));
        settled(it.running[0].as_mut().unwrap(), NODES);
        it
    }

    fn start(&mut self, node: usize) {
        let settings = self.nodes.volume(0).with_file_name("settings.yaml");
        let arguments = ["--config", settings.to_str().unwrap()];
        let mut process = self.nodes.start_bare(node, NODES, &arguments, "");
        let place = Place { chunks: process.chunks().unwrap(), admin: process.admin().unwrap() };
        self.directory.enter(node, place);
        self.running[node] = Some(process);
    }

    fn kill(&mut self, node: usize) {
        self.directory.remove(node);
        drop(self.running[node].take().unwrap().kill());
    }
}

pub(crate) fn pause(milliseconds: std::ops::Range<u64>) {
    let over = Instant::now() + Duration::from_millis(fastrand::u64(milliseconds));
    eventually("the end of a pause", || (Instant::now() >= over).then_some(()));
}

/// `TAIL_SECONDS=300` makes it long.
#[test]
fn whatever_is_written_is_rebuilt_however_often_agents_nodes_and_connections_die() {
    let seconds = std::env::var("TAIL_SECONDS").map_or(10, |seconds| seconds.parse().unwrap());
    let mut cluster = Cluster::form();
    let directory = cluster.directory.clone();
    let cutters = Vec::from_iter((0..NODES).map(|node| Cutter::start(directory.clone(), node)));
    let shuffler = Shuffler::start(directory.clone());
    let cut = cutters.iter().map(Cutter::url).collect::<Vec<_>>().join(",");
    let mut agents = [Agents::new("cut", &cut), Agents::new("shuffled", &shuffler.url())];
    let of = |agents: &Agents, name, manner, rotation| Writer {
        name,
        manner,
        rotation,
        place: agents.place(name),
        directory: directory.clone(),
    };
    let writers = [
        of(&agents[0], "fast.log", Manner::Fast, Rotation::Rename),
        of(&agents[0], "slow.log", Manner::Slow, Rotation::Copy),
        of(&agents[0], "bursts.log", Manner::Bursts, Rotation::Delete),
        of(&agents[1], "fast.log", Manner::Fast, Rotation::Copy),
        of(&agents[1], "slow.log", Manner::Slow, Rotation::Delete),
        of(&agents[1], "bursts.log", Manner::Bursts, Rotation::Rename),
    ];
    agents.iter_mut().for_each(Agents::start);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut dead_agents, mut dead_nodes) = (0, 0);
    let written: Vec<Written> = std::thread::scope(|scope| {
        let writers = writers.map(|writer| scope.spawn(move || writer.write(until)));
        while writers.iter().any(|writer| !writer.is_finished()) {
            pause(LIFE);
            if fastrand::bool() {
                let agent = &mut agents[fastrand::usize(..2)];
                agent.kill();
                pause(DEATH);
                agent.start();
                dead_agents += 1;
            } else {
                let node = fastrand::usize(..NODES);
                cluster.kill(node);
                pause(DEATH);
                cluster.start(node);
                dead_nodes += 1;
            }
        }
        writers.map(|writer| writer.join().unwrap()).into()
    });
    for file in &written {
        file.must_be_rebuilt(&directory);
        eprintln!("{}: {} incarnations, {} lines", file.id, file.sources.len(), file.lines);
    }
    let cuts: usize = cutters.iter().map(Cutter::cuts).sum();
    let (disordered, repeated) = shuffler.figures();
    eprintln!(
        "dead: {dead_agents} agents, {dead_nodes} nodes, {cuts} connections; \
         {disordered} chunks before earlier ones, {repeated} twice"
    );
    for happened in [dead_agents, dead_nodes, cuts, disordered, repeated] {
        assert!(happened > 0, "nothing of that kind has happened");
    }
    agents.iter_mut().for_each(Agents::stop);
}
