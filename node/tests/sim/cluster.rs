//! A simulated cluster, from its forming to the end of all faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use sheaf_node::event::time::UnixNanos;
use turmoil::Sim;

use super::agents::Sources;
use super::checker::{Contradiction, contradictions};
use super::clock;
use super::faults::{CLOCK_BOUND, Changes, Choice, Fault};
use super::history::{Event, Happened};
use super::machine::{Machine, World};
use super::operator::{Act, Order};

/// When every simulation begins.
const EPOCH: Duration = Duration::from_secs(2_000_000_000);
const TICK: Duration = Duration::from_millis(5);
/// How long a message takes, when nothing is wrong.
const LATENCY_MAX: Duration = Duration::from_millis(15);
/// Bytes of messages that a connection holds.
const TCP_CAPACITY: usize = 1 << 16;
/// How long others are slow, and then away, before a machine goes.
const FALTERING: Duration = Duration::from_millis(300);
/// How long a write takes at most on a disk that is slow.
const SLOW_MAX: Duration = Duration::from_millis(400);
/// How long whoever watches over a process waits before it starts another one.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Before this nothing is done to the cluster.
const CALM: Duration = Duration::from_secs(4);
/// How long things are done to it.
const FAULTS: Duration = Duration::from_secs(16);
/// How long a machine has no power, or is cut off, for windows to be printed without what it has:
/// longer than it may stamp without word from a leader.
const LONG: Duration = Duration::from_secs(20);
/// Milliseconds after a whole second in which the most important things happen.
const AFTER_SECOND: u64 = 150;
/// How long senders go on when all faults are over.
const SENDING: Duration = Duration::from_secs(3);
/// By then, after that, all that was acknowledged has to be in windows.
const SETTLING_MAX: Duration = Duration::from_secs(60);
/// How long it has to stay so.
const QUIET: Duration = Duration::from_secs(3);
/// How often it is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a simulation goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    seed: u64,
    /// Nodes that form the cluster.
    founders: usize,
    /// On how many nodes each request is.
    copies: usize,
    /// Whether nodes come and go.
    changes: Changes,
    /// Whether one machine is absent for so long that windows are printed without it.
    is_long: bool,
    /// Whether files are rebuilt beside the counts.
    has_files: bool,
    /// Whether they are rebuilt in small parts, which are compressed.
    has_parts: bool,
}

impl Plan {
    /// What a seed stands for.
    pub(crate) fn of(seed: u64) -> Plan {
        let founders = if seed.is_multiple_of(5) { 1 } else { 3 };
        let changes = match seed % 4 {
            1 => Changes::Draining,
            3 if founders > 1 && seed % 8 == 7 => Changes::Emptying,
            3 if founders > 1 => Changes::Forgetting,
            _ => Changes::None,
        };
        let copies = if founders > 1 { [2, 1, 3][(seed % 3) as usize] } else { 1 };
        let is_long = founders > 1 && copies == 1 && changes == Changes::None;
        // Without files, journals are so small that open windows are carried all the time.
        let has_files = changes == Changes::None || !(seed / 8).is_multiple_of(3);
        let has_parts = matches!(seed % 16, 5 | 12 | 13);
        Plan { seed, founders, copies, changes, is_long, has_files, has_parts }
    }
}

/// A simulated cluster.
struct Cluster<'a> {
    sim: Sim<'a>,
    founders: Vec<IpAddr>,
    copies: usize,
    machines: Vec<Machine>,
    addresses: Vec<IpAddr>,
    /// Which machine is behind an address.
    homes: BTreeMap<IpAddr, Arc<Mutex<Machine>>>,
    world: World,
    /// What is to be undone, and when.
    undo: BinaryHeap<Reverse<(Duration, usize)>>,
    done: Vec<Fault>,
    /// The machines without a process, and when they start one.
    down: BTreeMap<usize, Duration>,
    /// The machines that there are.
    present: BTreeSet<usize>,
}

/// Runs a simulation until everything is settled, and returns what happened, and what of it
/// contradicts the promises.
pub(crate) fn run(plan: Plan) -> (Vec<Happened>, Vec<Contradiction>) {
    // What the nodes draw, they draw from here: all of them run in this thread.
    fastrand::seed(plan.seed);
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut cluster = Cluster::new(plan);
    cluster.run_for(CALM);
    let mut end = cluster.sim.elapsed() + FAULTS;
    if plan.is_long {
        let one = rng.usize(..plan.founders);
        let absence = if rng.bool() { Fault::Power(one) } else { Fault::Isolate(one) };
        cluster.inflict(absence, LONG);
        end += LONG / 2;
    }
    while cluster.sim.elapsed() < end {
        let fault = Fault::random(&cluster.choice(plan), &mut rng);
        let longest = 1 << rng.u32(8..13);
        let lasting = Duration::from_millis(rng.u64(50..longest));
        if let Fault::Destroy(node) | Fault::Empty(node) = fault
            && rng.u8(..4) > 0
        {
            cluster.falter(node, &mut rng);
        }
        cluster.inflict(fault, lasting);
        let pause = Duration::from_millis(rng.u64(100..2200));
        cluster.run_for(if rng.bool() { cluster.until_second(pause, &mut rng) } else { pause });
    }
    cluster.calm();
    cluster.run_for(SENDING);
    cluster.world.is_sending.store(false, Ordering::Relaxed);
    let found = cluster.settle();
    (cluster.world.history.all(), found)
}

impl Cluster<'_> {
    fn new(plan: Plan) -> Self {
        let sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(UNIX_EPOCH + EPOCH)
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(TCP_CAPACITY)
            .enable_random_order()
            .build();
        let founders = (0..plan.founders).map(|node| sim.lookup(format!("node-{node}"))).collect();
        let mut cluster = Cluster {
            sim,
            founders,
            copies: plan.copies,
            machines: Vec::new(),
            addresses: Vec::new(),
            homes: BTreeMap::new(),
            world: World {
                sources: plan.has_files.then(Sources::default),
                has_parts: plan.has_parts,
                ..World::default()
            },
            undo: BinaryHeap::new(),
            done: Vec::new(),
            down: BTreeMap::new(),
            present: BTreeSet::new(),
        };
        (0..plan.founders).for_each(|_| cluster.add_machine());
        cluster
    }

    /// A new machine, with an empty disk, starts its node.
    fn add_machine(&mut self) {
        let address = self.sim.lookup(format!("node-{}", self.machines.len()));
        let home = Arc::new(Mutex::new(self.machine_at(address)));
        self.homes.insert(address, Arc::clone(&home));
        self.sim.host(address, move || {
            let machine = home.lock().unwrap().clone();
            machine.run()
        });
    }

    /// A machine with an empty disk behind an address.
    fn machine_at(&mut self, address: IpAddr) -> Machine {
        let number = self.machines.len();
        let machine = Machine::new(number, address, &self.founders, self.copies, &self.world);
        self.addresses.push(address);
        self.machines.push(machine.clone());
        self.present.insert(number);
        machine
    }

    /// Puts a machine with an empty disk in the place of one that is gone, after a while.
    fn replace_machine(&mut self, gone: usize, after: Duration) {
        let address = self.addresses[gone];
        self.down.insert(self.machines.len(), self.sim.elapsed() + after);
        let machine = self.machine_at(address);
        *self.homes[&address].lock().unwrap() = machine;
    }

    /// What can be done to the cluster as it is.
    fn choice(&self, plan: Plan) -> Choice {
        let has_orders = !self.world.orders.is_empty();
        let present: Vec<_> = self.present.iter().copied().collect();
        let founders = self.founders.len();
        let guests = self.machines.len() - founders;
        Choice { present, founders, guests, changes: plan.changes, has_orders }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    /// A pause of about this length that ends soon after a whole second, when the cluster cuts,
    /// claims, completes and prints.
    fn until_second(&self, pause: Duration, rng: &mut fastrand::Rng) -> Duration {
        let end = self.sim.elapsed() + pause;
        let into_second = Duration::from_nanos(end.subsec_nanos().into());
        let after = Duration::from_millis(rng.u64(..AFTER_SECOND));
        pause.saturating_sub(into_second) + after
    }

    fn step(&mut self) {
        while let Some(&Reverse((time, fault))) = self.undo.peek()
            && time <= self.sim.elapsed()
        {
            self.undo.pop();
            self.undo(&self.done[fault].clone());
        }
        for node in self.world.prints.take_cut() {
            self.machines[node].cut_power();
            self.sim.crash(self.addresses[node]);
        }
        for left in self.world.orders.take_left() {
            self.remove_machine(left, false);
        }
        self.start_processes();
        clock::set(self.sim.elapsed());
        // A host returns an error only where it cannot listen; a panic goes through.
        self.sim.step().unwrap();
    }

    /// Starts what has ended, after a while.
    fn start_processes(&mut self) {
        for node in self.present.clone() {
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

    /// Takes a machine away for good, drained or with all that its node had.
    fn remove_machine(&mut self, node: usize, had_all: bool) {
        self.add(Event::Left { node, had_all });
        self.present.remove(&node);
        self.machines[node].disk.crash();
        self.sim.crash(self.addresses[node]);
    }

    /// Has the copies of what a machine writes differ, and be sealed, just before it goes: all
    /// others end while they write what it sent them, and begin anew.
    fn falter(&mut self, going: usize, rng: &mut fastrand::Rng) {
        let others: Vec<_> = self.present.iter().copied().filter(|&node| node != going).collect();
        others.iter().for_each(|&node| self.inflict(Fault::Slow(node), FALTERING));
        self.run_for(FALTERING);
        others.iter().for_each(|&node| self.inflict(Fault::Kill(node), FALTERING));
        self.run_for(FALTERING * 2 + FALTERING.mul_f64(2.0 * rng.f64()));
    }

    fn inflict(&mut self, fault: Fault, lasting: Duration) {
        self.note(format!("{fault}, for {lasting:?}"));
        match &fault {
            Fault::Power(node) | Fault::Kill(node) => {
                if matches!(fault, Fault::Power(_)) {
                    self.machines[*node].cut_power();
                }
                self.sim.crash(self.addresses[*node]);
                let until = self.sim.elapsed() + lasting;
                let down = self.down.entry(*node).or_insert(until);
                *down = until.max(*down);
            }
            Fault::Isolate(node) => {
                self.others(*node)
                    .for_each(|other| self.sim.partition(self.addresses[*node], other));
            }
            Fault::OneWay(from, to) => {
                self.sim.partition_oneway(self.addresses[*from], self.addresses[*to]);
            }
            Fault::Hold(one, other) => self.sim.hold(self.addresses[*one], self.addresses[*other]),
            Fault::Freeze(node) => {
                self.others(*node).for_each(|other| self.sim.hold(self.addresses[*node], other));
            }
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
            Fault::Slow(node) => self.machines[*node].disk.delay_writes(Some(SLOW_MAX)),
            Fault::Full(node) => self.machines[*node].is_full.store(true, Ordering::Relaxed),
            Fault::Print { is_out } => self.world.prints.cut_power(Some(*is_out)),
            Fault::Join => self.add_machine(),
            Fault::Drain(node) => self.order(Act::Drain, *node),
            Fault::Destroy(node) => {
                self.remove_machine(*node, true);
                self.order(Act::Forget, *node);
            }
            Fault::Empty(node) => {
                self.remove_machine(*node, true);
                self.order(Act::Forget, *node);
                self.replace_machine(*node, lasting);
            }
        }
        self.undo.push(Reverse((self.sim.elapsed() + lasting, self.done.len())));
        self.done.push(fault);
    }

    fn order(&self, act: Act, node: usize) {
        let address = self.machines[node].peer_address();
        self.world.orders.give(Order { act, node, address });
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
            Fault::Freeze(node) => {
                self.others(*node).for_each(|other| self.sim.release(self.addresses[*node], other));
            }
            Fault::Delay(one, other, _) => {
                let (one, other) = (self.addresses[*one], self.addresses[*other]);
                self.sim.set_link_max_message_latency(one, other, LATENCY_MAX);
            }
            // It stays wrong until it jumps again.
            Fault::Clock(..) => {}
            Fault::Broken(node) => self.machines[*node].disk.fail_writes(false),
            Fault::Slow(node) => self.machines[*node].disk.delay_writes(None),
            Fault::Full(node) => self.machines[*node].is_full.store(false, Ordering::Relaxed),
            // It waits for the next line.
            Fault::Print { .. } => {}
            // Nobody can take it back.
            Fault::Join | Fault::Drain(_) | Fault::Destroy(_) | Fault::Empty(_) => {}
        }
    }

    /// Undoes all that was done.
    fn calm(&mut self) {
        self.undo.clear();
        self.down.clear();
        self.world.prints.cut_power(None);
        for fault in self.done.clone() {
            self.undo(&fault);
        }
        self.note("all faults are over".to_owned());
    }

    /// Runs until nothing contradicts the promises, and stays so, and says what does if that
    /// takes too long.
    fn settle(&mut self) -> Vec<Contradiction> {
        let end = self.sim.elapsed() + SETTLING_MAX;
        while self.sim.elapsed() < end {
            self.run_for(LOOK_AGAIN);
            if self.contradictions().is_empty() {
                self.run_for(QUIET);
                // What a sender has kept sending may be accepted only now.
                if self.contradictions().is_empty() {
                    return Vec::new();
                }
            }
        }
        self.contradictions()
    }

    fn contradictions(&self) -> Vec<Contradiction> {
        let mut found = contradictions(&self.world.history.all(), CLOCK_BOUND, self.copies);
        let orders = self.world.orders.all();
        found.extend(orders.iter().map(|order| format!("stuck: {order}")));
        found
    }

    fn others(&self, node: usize) -> impl Iterator<Item = IpAddr> + use<> {
        let own = self.addresses[node];
        self.homes.clone().into_keys().filter(move |&other| other != own)
    }

    fn note(&self, fault: String) {
        self.add(Event::Done { fault });
    }

    fn add(&self, event: Event) {
        let at = UnixNanos(self.sim.since_epoch().as_nanos() as u64);
        self.world.history.add(at, event);
    }
}
