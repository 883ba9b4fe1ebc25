use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sheaf_node::event::chunk::{Chunk, Sequence};
use sheaf_node::intake::admission::{Admission, Busy, Permit, Why};
use sheaf_node::source::Limits;
use sheaf_node::source::chunks::{Collect, serve};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::parts::Part;
use crate::waiting::{PATIENCE, until};

/// The limit on a request in these tests.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 << 20;
/// The budget in these tests.
pub(crate) const BUDGET_BYTES: usize = 48 << 20;

/// A node that remembers chunks, and answers what it is told.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Shared>);

struct Shared {
    admission: Admission,
    taken: Mutex<Vec<Chunk>>,
    accepted: AtomicU64,
    unusable: AtomicU64,
    throttle: AtomicU32,
    /// Those with a larger `seq` find the node busy.
    last_seq: AtomicU64,
    /// Every file lacks this chunk, and no later one is taken.
    lacks: Mutex<Option<Sequence>>,
    leads: Mutex<bool>,
    gate: Semaphore,
}

impl Collect for Memory {
    fn admission(&self) -> &Admission {
        &self.0.admission
    }

    async fn collect(&self, chunk: Chunk, permit: Permit) -> Result<(), Busy> {
        assert!(permit.bytes() >= chunk.payload.len(), "{} are charged", permit.bytes());
        let seq = chunk.seq.number();
        if let Some(next) = self.0.lacks.lock().unwrap().filter(|next| *next < chunk.seq) {
            let Chunk { id, session, .. } = chunk;
            return Err(self.0.admission.refuse(Why::Gap { id, session, next }));
        }
        self.0.taken.lock().unwrap().push(chunk);
        if seq > self.0.last_seq.load(Ordering::Relaxed) {
            return Err(self.0.admission.refuse(Why::Full));
        }
        let _pass = self.0.gate.acquire().await.unwrap();
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn unusable(&self) {
        self.0.unusable.fetch_add(1, Ordering::Relaxed);
    }

    fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    fn throttle(&self) -> u32 {
        self.0.throttle.load(Ordering::Relaxed)
    }

    async fn set_throttle(&self, seconds: u32) -> Result<(), Busy> {
        if !*self.0.leads.lock().unwrap() {
            return Err(self.0.admission.refuse(Why::Full));
        }
        self.0.throttle.store(seconds, Ordering::Relaxed);
        Ok(())
    }
}

/// The server, on a port of its own.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    memory: Memory,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start() -> Node {
        Node::start_with(Node::limits()).await
    }

    pub(crate) fn limits() -> Limits {
        Limits { request_bytes_max: REQUEST_BYTES_MAX, ..Limits::default() }
    }

    pub(crate) async fn start_with(limits: Limits) -> Node {
        let memory = Memory(Arc::new(Shared {
            admission: Admission::new(BUDGET_BYTES),
            taken: Mutex::default(),
            accepted: AtomicU64::new(0),
            unusable: AtomicU64::new(0),
            throttle: AtomicU32::new(0),
            last_seq: AtomicU64::new(u64::MAX),
            lacks: Mutex::default(),
            leads: Mutex::new(true),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }));
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Node {
            address: listener.local_addr().unwrap(),
            server: tokio::spawn(serve(listener, memory.clone(), limits, shutdown.clone())),
            memory,
            shutdown,
        }
    }

    /// The chunks that came, in order.
    pub(crate) fn taken(&self) -> Vec<Part> {
        let taken = self.memory.0.taken.lock().unwrap();
        let part = |chunk: &Chunk| Part {
            id: String::leak(chunk.id.to_string()),
            session: chunk.session,
            seq: chunk.seq.number().try_into().unwrap(),
            payload: chunk.payload.clone(),
        };
        taken.iter().map(part).collect()
    }

    /// How many chunks came.
    pub(crate) fn count(&self) -> usize {
        self.memory.0.taken.lock().unwrap().len()
    }

    /// How many chunks were refused before the node got them.
    pub(crate) fn unusable(&self) -> u64 {
        self.memory.0.unusable.load(Ordering::Relaxed)
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.memory.0.admission
    }

    /// Has the node busy for chunks with a larger `seq`.
    pub(crate) fn take_up_to(&self, seq: u64) {
        self.memory.0.last_seq.store(seq, Ordering::Relaxed);
    }

    /// Every file lacks this chunk, and no later one is taken; or all are.
    pub(crate) fn lack(&self, seq: Option<i64>) {
        *self.memory.0.lacks.lock().unwrap() = seq.map(|seq| seq.try_into().unwrap());
    }

    /// Nobody decides on the throttle any more.
    pub(crate) fn lose_the_leader(&self) {
        *self.memory.0.leads.lock().unwrap() = false;
    }

    /// Holds up what came, until [`Node::release`].
    pub(crate) fn hold(&self) {
        self.memory.0.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn release(&self) {
        self.memory.0.gate.add_permits(1024);
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the server has returned.
    pub(crate) async fn ended(&mut self) {
        timeout(PATIENCE, &mut self.server).await.unwrap().unwrap();
    }

    /// Waits until nothing is charged any more.
    pub(crate) async fn budget_is_free(&self) {
        until("the budget is free", || self.admission().used() == 0).await;
    }
}
