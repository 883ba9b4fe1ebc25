//! Senders to all nodes, that do not know which of them is about to die.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use jiff::Timestamp;

use crate::http::{Connection, Form, Record};

const DISTINCT_MAX: u64 = 6;
const REPEATED_MAX: u64 = 3;
/// One in so many requests goes to a second node as well.
const TWINS: u8 = 4;
/// How long a sender rests after each request: the nodes share the machine with others.
const PAUSE: Duration = Duration::from_millis(3);

/// A request, and what its sender knows of it. All of its records have its number as their
/// value, and no other request has, but for its twin at another node.
pub(crate) struct Request {
    pub(crate) number: u64,
    /// Its records, of which some say the same.
    pub(crate) records: u64,
    /// Those that differ.
    pub(crate) distinct: u64,
    /// When its sender began to send it.
    pub(crate) sent: Timestamp,
    /// When its sender got an answer or gave up.
    pub(crate) over: Timestamp,
    /// Whether the answer was that it is durable.
    pub(crate) acknowledged: bool,
}

/// A node as the senders see it.
#[derive(Default)]
struct Target {
    /// Where it takes requests, once it does.
    address: Mutex<Option<SocketAddr>>,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Shared {
    targets: Vec<Target>,
    numbers: AtomicU64,
    stop: AtomicBool,
}

/// A thread for each node, that sends until it is stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Request>>>,
}

impl Load {
    /// Senders to so many nodes, of which none is reached yet.
    pub(crate) fn start(nodes: usize) -> Load {
        let targets = (0..nodes).map(|_| Target::default()).collect();
        let shared = Arc::new(Shared { targets, ..Shared::default() });
        let start = |node| {
            let (shared, requests) = (Arc::clone(&shared), Vec::new());
            let sender = Sender { node, shared, requests, rng: fastrand::Rng::new() };
            std::thread::spawn(move || sender.run())
        };
        let threads = (0..nodes).map(start).collect();
        Load { shared, threads }
    }

    /// A node takes requests here from now on.
    pub(crate) fn reaches(&self, node: usize, address: SocketAddr) {
        *self.shared.targets[node].address.lock().unwrap() = Some(address);
    }

    /// The requests that a node has acknowledged so far.
    pub(crate) fn acknowledged(&self, node: usize) -> u64 {
        self.shared.targets[node].acknowledged.load(Ordering::Relaxed)
    }

    /// The requests that a node has asked to send again later.
    pub(crate) fn refused(&self, node: usize) -> u64 {
        self.shared.targets[node].refused.load(Ordering::Relaxed)
    }

    /// What was sent; nothing is on its way any more.
    pub(crate) fn stop(&mut self) -> Vec<Request> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).flat_map(|thread| thread.join().unwrap()).collect()
    }
}

struct Sender {
    node: usize,
    shared: Arc<Shared>,
    requests: Vec<Request>,
    rng: fastrand::Rng,
}

impl Sender {
    fn run(mut self) -> Vec<Request> {
        let mut own = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
            let (distinct, repeated) =
                (self.rng.u64(1..=DISTINCT_MAX), self.rng.u64(..=REPEATED_MAX));
            let content = content(number, distinct, repeated);
            self.send(&mut own, self.node, number, distinct, &content);
            if self.rng.u8(..TWINS) == 0 {
                let other = self.rng.usize(..self.shared.targets.len());
                self.send(&mut None, other, number, distinct, &content);
            }
            sleep(PAUSE);
        }
        self.requests
    }

    /// Sends once, over a connection that is kept while it works.
    fn send(
        &mut self,
        connection: &mut Option<Connection>,
        node: usize,
        number: u64,
        distinct: u64,
        content: &[Record],
    ) {
        let target = &self.shared.targets[node];
        let Some(address) = *target.address.lock().unwrap() else { return };
        let Some(mut open) = connection.take().or_else(|| Connection::open(address).ok()) else {
            return;
        };
        let sent = Timestamp::now();
        let answer = open.export(Form::Protobuf, content);
        let over = Timestamp::now();
        let acknowledged = answer.as_ref().is_ok_and(|answer| answer.status == 200);
        let records = content.len() as u64;
        self.requests.push(Request { number, records, distinct, sent, over, acknowledged });
        if acknowledged {
            target.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if let Ok(answer) = answer {
            target.refused.fetch_add(u64::from(answer.status == 503), Ordering::Relaxed);
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            *connection = Some(open);
        }
    }
}

fn content(number: u64, distinct: u64, repeated: u64) -> Vec<Record> {
    let bodies = (0..distinct).chain((0..repeated).map(|n| n % distinct));
    let record = |body| Record {
        body: format!("body {body}"),
        attribute: Some(("request", number.to_string())),
    };
    bodies.map(record).collect()
}
