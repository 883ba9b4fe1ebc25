//! Senders that do not know that the node is about to die. What they do not learn the end of
//! they send again under the same id, also in its next life.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use super::oracle::Request;
use crate::http::{Connection, Form, Record};

const SENDERS: usize = 4;
const RECORDS_PER_REQUEST_MAX: u64 = 8;
/// One in so many requests is sent again though it was acknowledged.
const AGAIN: u8 = 16;
/// The senders of all lives are one client.
const SESSION: &str = "0123456789abcdef0123456789abcdef";
/// From so many on, what is to be sent again comes before what is new: of a session with many
/// more gaps in its numbers a node forgets the oldest.
const UNSETTLED_MAX: usize = 256;
/// How long a sender that was refused, or found nobody, waits. It does not obey the
/// node: what it sends then has to be refused as well.
const PAUSE: Duration = Duration::from_millis(2);

/// What the senders see together while they send.
#[derive(Default)]
pub(crate) struct Seen {
    /// Records are numbered, so that no two are alike.
    records: AtomicU64,
    requests: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// What may have been taken or not.
    unsettled: Mutex<Vec<Request>>,
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

    /// The requests that nobody is going to send again.
    pub(crate) fn take_unsettled(&self) -> Vec<Request> {
        std::mem::take(&mut *self.unsettled.lock().unwrap())
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

    /// Sends what is unsettled, and else new requests, until the connection breaks.
    fn send_over(&mut self, mut connection: Connection) {
        while !self.is_stopped() {
            let mut request = self.unsettled().unwrap_or_else(|| self.next_request());
            let content: Vec<_> = request.records.clone().map(|n| self.record(n)).collect();
            let answer = connection.export_named(&request.id, self.form, &content);
            request.over = Timestamp::now();
            let status = answer.as_ref().ok().map(|answer| answer.status);
            request.acknowledged |= status == Some(200);
            let is_again = status != Some(200) || self.rng.u8(..AGAIN) == 0;
            if is_again && !self.is_stopped() {
                self.seen.unsettled.lock().unwrap().push(request);
            } else {
                self.requests.push(request);
            }
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

    /// Something that is to be sent again; some of it waits for a later window, or life.
    fn unsettled(&mut self) -> Option<Request> {
        let mut unsettled = self.seen.unsettled.lock().unwrap();
        let may_be_new = unsettled.len() < UNSETTLED_MAX && self.rng.bool();
        if unsettled.is_empty() || may_be_new {
            return None;
        }
        let any = self.rng.usize(..unsettled.len());
        Some(unsettled.swap_remove(any))
    }

    fn next_request(&mut self) -> Request {
        let count = self.rng.u64(1..=RECORDS_PER_REQUEST_MAX);
        let first = self.seen.records.fetch_add(count, Ordering::Relaxed);
        let sequence = self.seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let (id, now) = (format!("{SESSION}/{sequence}"), Timestamp::now());
        Request { id, records: first..first + count, sent: now, over: now, acknowledged: false }
    }

    /// A record whose id is its number, behind as many zeros as make it long.
    fn record(&self, number: u64) -> Record {
        let id = format!("{number:0>length$}", length = self.id_length);
        Record { body: format!("this is record {number}"), attribute: Some(("id", id)) }
    }
}
