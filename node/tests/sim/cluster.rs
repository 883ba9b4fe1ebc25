//! A simulated cluster, from its forming to the end of all faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use sheaf_node::event::time::UnixNanos;
use turmoil::Sim;

use super::faults::Fault;
use super::history::{Event, Happened, History};
use super::machine::{Machine, World};
use super::senders::Numbers;

/// When every simulation begins.
const EPOCH: Duration = Duration::from_secs(2_000_000_000);
const TICK: Duration = Duration::from_millis(5);
/// How long a message takes, when nothing is wrong.
const LATENCY_MAX: Duration = Duration::from_millis(15);
/// Bytes of messages that a connection holds.
const TCP_CAPACITY: usize = 1 << 16;
/// How long whoever watches over a process waits before it starts another one.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Before this nothing is done to the cluster.
const CALM: Duration = Duration::from_secs(4);

/// How a simulation goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Nodes that form the cluster.
    pub(crate) nodes: usize,
    /// How long there are faults.
    pub(crate) faults: Duration,
    /// After that long without faults, all that was acknowledged is in windows.
    pub(crate) settling: Duration,
}

impl Plan {
    /// What a seed stands for.
    pub(crate) fn of(seed: u64) -> Plan {
        let nodes = if seed.is_multiple_of(5) { 1 } else { 3 };
        let (faults, settling) = (Duration::from_secs(30), Duration::from_secs(40));
        Plan { seed, nodes, faults, settling }
    }
}

/// A simulated cluster.
struct Cluster<'a> {
    sim: Sim<'a>,
    machines: Vec<Machine>,
    addresses: Vec<IpAddr>,
    history: History,
    is_sending: Arc<AtomicBool>,
    /// What is to be undone, and when.
    undo: BinaryHeap<Reverse<(Duration, usize)>>,
    done: Vec<Fault>,
    /// The machines without a process, and when they start one.
    down: BTreeMap<usize, Duration>,
}

/// Runs a simulation to its end.
pub(crate) fn run(plan: Plan) -> Vec<Happened> {
    // What the nodes draw, they draw from here: all of them run in this thread.
    fastrand::seed(plan.seed);
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut cluster = Cluster::new(plan);
    let mut next = CALM;
    while cluster.sim.elapsed() < CALM + plan.faults {
        if cluster.sim.elapsed() >= next {
            let fault = Fault::random(cluster.machines.len(), &mut rng);
            let longest = 1 << rng.u32(8..14);
            let lasting = Duration::from_millis(rng.u64(50..longest));
            cluster.inflict(fault, lasting);
            next += Duration::from_millis(rng.u64(200..4000));
        }
        cluster.step();
    }
    cluster.calm();
    let stop_sending = cluster.sim.elapsed() + plan.settling / 4;
    let end = cluster.sim.elapsed() + plan.settling;
    while cluster.sim.elapsed() < end {
        if cluster.sim.elapsed() >= stop_sending {
            cluster.is_sending.store(false, Ordering::Relaxed);
        }
        cluster.step();
    }
    cluster.history.take()
}

impl Cluster<'_> {
    fn new(plan: Plan) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(UNIX_EPOCH + EPOCH)
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(TCP_CAPACITY)
            .enable_random_order()
            .build();
        let history = History::default();
        let is_sending = Arc::new(AtomicBool::new(true));
        let numbers = Numbers::default();
        let world =
            World { history: history.clone(), numbers, is_sending: Arc::clone(&is_sending) };
        let addresses: Vec<_> =
            (0..plan.nodes).map(|node| sim.lookup(format!("node-{node}"))).collect();
        let machines: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(node, &own)| Machine::new(node, own, &addresses, &world))
            .collect();
        for (address, machine) in addresses.iter().zip(&machines) {
            let machine = machine.clone();
            sim.host(*address, move || machine.clone().run());
        }
        let (undo, done, down) = (BinaryHeap::new(), Vec::new(), BTreeMap::new());
        Cluster { sim, machines, addresses, history, is_sending, undo, done, down }
    }

    fn step(&mut self) {
        while let Some(&Reverse((time, fault))) = self.undo.peek()
            && time <= self.sim.elapsed()
        {
            self.undo.pop();
            self.undo(&self.done[fault].clone());
        }
        self.start_processes();
        // A host returns an error only where it cannot listen; a panic goes through.
        self.sim.step().unwrap();
    }

    /// Starts what has ended, after a while.
    fn start_processes(&mut self) {
        for node in 0..self.machines.len() {
            if self.sim.is_host_running(self.addresses[node]) {
                continue;
            }
            let now = self.sim.elapsed();
            if now >= *self.down.entry(node).or_insert(now + RESTART_AFTER) {
                self.down.remove(&node);
                self.note(format!("node {node} starts"));
                self.sim.bounce(self.addresses[node]);
            }
        }
    }

    fn inflict(&mut self, fault: Fault, lasting: Duration) {
        self.note(format!("{fault}, for {lasting:?}"));
        match &fault {
            Fault::Power(node) | Fault::Kill(node) => {
                if matches!(fault, Fault::Power(_)) {
                    self.machines[*node].disk.crash();
                }
                self.sim.crash(self.addresses[*node]);
                self.down.insert(*node, self.sim.elapsed() + lasting);
            }
            Fault::Isolate(node) => {
                self.others(*node)
                    .for_each(|other| self.sim.partition(self.addresses[*node], other));
            }
            Fault::OneWay(from, to) => {
                self.sim.partition_oneway(self.addresses[*from], self.addresses[*to]);
            }
            Fault::Hold(one, other) => self.sim.hold(self.addresses[*one], self.addresses[*other]),
            Fault::Delay(one, other, by) => {
                self.sim.set_link_max_message_latency(
                    self.addresses[*one],
                    self.addresses[*other],
                    *by,
                );
            }
            Fault::Clock(node, by) => {
                self.machines[*node].skew.store(by * 1_000_000, Ordering::Relaxed);
            }
            Fault::Broken(node) => self.machines[*node].disk.fail_writes(true),
            Fault::Full(node) => self.machines[*node].is_full.store(true, Ordering::Relaxed),
        }
        self.undo.push(Reverse((self.sim.elapsed() + lasting, self.done.len())));
        self.done.push(fault);
    }

    /// Two faults of a kind end together: with the first of them.
    fn undo(&mut self, fault: &Fault) {
        match fault {
            // A process that has ended is started again in any case.
            Fault::Power(_) | Fault::Kill(_) => {}
            Fault::Isolate(node) => {
                let own = self.addresses[*node];
                self.others(*node).for_each(|other| self.sim.repair(own, other));
            }
            Fault::OneWay(from, to) => {
                self.sim.repair_oneway(self.addresses[*from], self.addresses[*to]);
            }
            Fault::Hold(one, other) => {
                self.sim.release(self.addresses[*one], self.addresses[*other]);
            }
            Fault::Delay(one, other, _) => {
                let (one, other) = (self.addresses[*one], self.addresses[*other]);
                self.sim.set_link_max_message_latency(one, other, LATENCY_MAX);
            }
            // It stays wrong until it jumps again.
            Fault::Clock(..) => {}
            Fault::Broken(node) => self.machines[*node].disk.fail_writes(false),
            Fault::Full(node) => self.machines[*node].is_full.store(false, Ordering::Relaxed),
        }
    }

    /// Undoes all that was done.
    fn calm(&mut self) {
        self.undo.clear();
        self.down.clear();
        for fault in self.done.clone() {
            self.undo(&fault);
        }
        self.note("all faults are over".to_owned());
    }

    fn others(&self, node: usize) -> impl Iterator<Item = IpAddr> + use<> {
        let own = self.addresses[node];
        self.addresses.clone().into_iter().filter(move |&other| other != own)
    }

    fn note(&self, fault: String) {
        let at = UnixNanos(self.sim.since_epoch().as_nanos() as u64);
        self.history.add(at, Event::Done { fault });
    }
}
