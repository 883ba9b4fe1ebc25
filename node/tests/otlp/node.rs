use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;
use sheaf_node::intake::admission::{Admission, Permit};
use sheaf_node::intake::wire::Undecodable;
use sheaf_node::intake::{Exported, IntakeError, Request};
use sheaf_node::source::Limits;
use sheaf_node::source::otlp::{BUDGET_PER_REQUEST, Export, serve_grpc, serve_http};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::waiting::{PATIENCE, until};

/// The limit on a request in these tests.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The budget in these tests.
pub(crate) const BUDGET_BYTES: usize = 4 << 20;
const _: () = assert!(BUDGET_PER_REQUEST * REQUEST_BYTES_MAX <= BUDGET_BYTES);

/// An intake that decodes with prost, remembers, and answers what it is told.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Shared>);

struct Shared {
    admission: Admission,
    taken: Mutex<Vec<Bytes>>,
    ids: Mutex<Vec<Option<String>>>,
    unusable: AtomicU64,
    answer: Mutex<Exported>,
    gate: Semaphore,
}

impl Export for Memory {
    fn admission(&self) -> &Admission {
        &self.0.admission
    }

    async fn export(&self, request: Request, permit: Permit) -> Result<Exported, IntakeError> {
        let Request { body: request, id } = request;
        assert!(
            permit.bytes() >= request.len(),
            "{} bytes are charged as {}",
            request.len(),
            permit.bytes()
        );
        ExportLogsServiceRequest::decode(request.clone())
            .map_err(|_| IntakeError::Undecodable(Undecodable::Truncated))?;
        self.0.taken.lock().unwrap().push(request);
        self.0.ids.lock().unwrap().push(id.map(|id| id.to_string()));
        let _pass = self.0.gate.acquire().await.unwrap();
        Ok(self.0.answer.lock().unwrap().clone())
    }

    fn unusable(&self) {
        self.0.unusable.fetch_add(1, Ordering::Relaxed);
    }
}

/// Both servers, on ports of their own.
pub(crate) struct Node {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) ready: watch::Sender<bool>,
    intake: Memory,
    shutdown: CancellationToken,
    servers: Vec<JoinHandle<()>>,
}

impl Node {
    pub(crate) async fn start() -> Node {
        Node::start_with(Node::limits()).await
    }

    pub(crate) fn limits() -> Limits {
        Limits { request_bytes_max: REQUEST_BYTES_MAX, ..Limits::default() }
    }

    pub(crate) async fn start_with(limits: Limits) -> Node {
        let shared = Shared {
            admission: Admission::new(BUDGET_BYTES),
            taken: Mutex::default(),
            ids: Mutex::default(),
            unusable: AtomicU64::new(0),
            answer: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        };
        let intake = Memory(Arc::new(shared));
        let (ready, readiness) = watch::channel(true);
        let shutdown = CancellationToken::new();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Node {
            grpc: grpc.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
            ready,
            servers: vec![
                tokio::spawn(serve_grpc(grpc, intake.clone(), limits, readiness, shutdown.clone())),
                tokio::spawn(serve_http(http, intake.clone(), limits, shutdown.clone())),
            ],
            intake,
            shutdown,
        }
    }

    /// What the intake was given, in order.
    pub(crate) fn taken(&self) -> Vec<Bytes> {
        self.intake.0.taken.lock().unwrap().clone()
    }

    /// What the senders called it, in order.
    pub(crate) fn ids(&self) -> Vec<Option<String>> {
        self.intake.0.ids.lock().unwrap().clone()
    }

    /// How many requests were refused before the intake got them.
    pub(crate) fn unusable(&self) -> u64 {
        self.intake.0.unusable.load(Ordering::Relaxed)
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.intake.0.admission
    }

    /// What the intake says from now on.
    pub(crate) fn answer(&self, rejected: u64, message: &str) {
        *self.intake.0.answer.lock().unwrap() =
            Exported { rejected, message: Some(message.into()) };
    }

    /// Holds up what the intake was given, until [`Node::release`].
    pub(crate) fn hold(&self) {
        self.intake.0.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn release(&self) {
        self.intake.0.gate.add_permits(1024);
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// Waits until both servers have returned.
    pub(crate) async fn ended(&mut self) {
        for server in &mut self.servers {
            timeout(PATIENCE, server).await.unwrap().unwrap();
        }
    }

    /// Waits until nothing is charged any more.
    pub(crate) async fn budget_is_free(&self) {
        until("the budget is free", || self.admission().used() == 0).await;
    }
}
