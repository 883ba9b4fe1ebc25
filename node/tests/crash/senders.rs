//! Senders that do not know that the node is about to die.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::oracle::Request;
use crate::http::{Connection, Form, Record};

const SENDERS: usize = 4;
const RECORDS_PER_REQUEST_MAX: u64 = 8;
/// How long a sender that was refused, or found nobody, waits. It does not obey the
/// node: what it sends then has to be refused as well.
const PAUSE: Duration = Duration::from_millis(2);

/// What the senders see together while they send.
#[derive(Default)]
pub(crate) struct Seen {
    /// Records are numbered, so that no two are alike.
    records: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

impl Seen {
    /// Records that were sent so far: the next one's number.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Requests that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Requests that were answered with "come back" so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Threads that send until they are stopped.
pub(crate) struct Senders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Request>>>,
}

impl Senders {
    pub(crate) fn start(
        to: SocketAddr,
        id_length: usize,
        seen: &Arc<Seen>,
        rng: &mut fastrand::Rng,
    ) -> Senders {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number| {
            let form = if number % 2 == 0 { Form::Protobuf } else { Form::Json };
            let (seen, stop) = (Arc::clone(seen), Arc::clone(&stop));
            let sender =
                Sender { to, form, id_length, seen, stop, rng: rng.fork(), requests: Vec::new() };
            std::thread::spawn(move || sender.run())
        };
        let threads = (0..SENDERS).map(start).collect();
        Senders { stop, threads }
    }

    /// What was sent; nothing is on its way any more.
    pub(crate) fn stop(self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

struct Sender {
    to: SocketAddr,
    form: Form,
    id_length: usize,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    rng: fastrand::Rng,
    requests: Vec<Request>,
}

impl Sender {
    fn run(mut self) -> Vec<Request> {
        while !self.is_stopped() {
            match Connection::open(self.to) {
                Ok(connection) => self.send_over(connection),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        self.requests
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sends new requests until the connection breaks. None is sent again.
    fn send_over(&mut self, mut connection: Connection) {
        while !self.is_stopped() {
            let records = self.next_records();
            let content: Vec<_> = records.clone().map(|number| self.record(number)).collect();
            let sent = Timestamp::now();
            let answer = connection.export(self.form, &content);
            let over = Timestamp::now();
            let status = answer.as_ref().ok().map(|answer| answer.status);
            self.requests.push(Request { records, sent, over, acknowledged: status == Some(200) });
            match answer {
                Ok(answer) if answer.status == 200 => {
                    self.seen.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    self.seen.refused.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
                Err(_) => return,
            }
        }
    }

    fn next_records(&mut self) -> Range<u64> {
        let count = self.rng.u64(1..=RECORDS_PER_REQUEST_MAX);
        let first = self.seen.records.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }

    /// A record whose id is its number, behind as many zeros as make it long.
    fn record(&self, number: u64) -> Record {
        let id = format!("{number:0>length$}", length = self.id_length);
        Record { body: format!("this is record {number}"), attribute: Some(("id", id)) }
    }
}
