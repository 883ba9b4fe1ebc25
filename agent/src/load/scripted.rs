//! For tests: a node that answers what a test says, in the test's own process.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use libdeflater::Decompressor;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value::Value as Any,
};
use prost::Message;
use serde_json::{Value, json};
use sheaf_proto::names::REQUEST_ID_HEADER;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::answer::tests::retry_info;
use crate::endpoint::{Authority, Endpoint};

/// What the node does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Takes it.
    Taken,
    /// Takes it, but for so many records.
    Partly(u8),
    /// Asks to come back, perhaps after so many milliseconds (seconds over HTTP).
    Busy(Option<u64>),
    /// Says that it is too much, perhaps for so many milliseconds. gRPC alone.
    Exhausted(Option<u64>),
    /// Says that it cannot be read.
    Invalid,
    /// Closes the connection.
    Closed,
    /// Never answers.
    Silence,
}

/// Listens on a free port until it is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    address: String,
    state: Arc<Mutex<State>>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Reply>,
    received: Vec<Vec<u8>>,
    ids: Vec<String>,
    frames: Vec<usize>,
    connections: usize,
}

type Shared = Arc<Mutex<State>>;

impl Node {
    /// Answers the requests in the order of their arrival, and takes what comes after that.
    pub(crate) async fn start(http: bool, script: impl IntoIterator<Item = Reply>) -> Self {
        let state = State { script: script.into_iter().collect(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = state.clone();
        let listener = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                lock(&shared).connections += 1;
                if http {
                    tokio::spawn(serve_http(socket, shared.clone()));
                } else {
                    tokio::spawn(serve_grpc(socket, shared.clone()));
                }
            }
        });
        Node { address, state, listener }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn authority(&self) -> Authority {
        self.address.parse::<Endpoint>().unwrap().at(0)
    }

    /// The contents of the requests so far, uncompressed and without prefix.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.state).received.clone()
    }

    /// What the requests so far were called.
    pub(crate) fn ids(&self) -> Vec<String> {
        lock(&self.state).ids.clone()
    }

    /// The lengths of the last request's frames.
    pub(crate) fn frames(&self) -> Vec<usize> {
        lock(&self.state).frames.clone()
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// Refuses connections from now on.
    pub(crate) fn stop(self) {}
}

impl Drop for Node {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

/// Notes a request and says what to do with it.
fn receive(state: &Shared, id: String, content: &[u8], gzip: bool) -> Reply {
    let mut state = lock(state);
    state.ids.push(id);
    state.received.push(if gzip { gunzip(content) } else { content.to_vec() });
    state.script.pop_front().unwrap_or(Reply::Taken)
}

fn id(headers: &HeaderMap) -> String {
    headers[REQUEST_ID_HEADER].to_str().unwrap().to_owned()
}

/// One gzip member of at most 4 MiB.
pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut content = vec![0; 1 << 22];
    let size = Decompressor::new().gzip_decompress(bytes, &mut content).unwrap();
    content.truncate(size);
    content
}

async fn serve_grpc(socket: TcpStream, state: Shared) {
    let mut builder = h2::server::Builder::new();
    builder.max_frame_size(1 << 20).initial_window_size(1 << 24);
    builder.initial_connection_window_size(1 << 24);
    let mut connection = builder.handshake::<_, Bytes>(socket).await.unwrap();
    let (close, mut closed) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        tokio::select! {
            Some(Ok((request, respond))) = connection.accept() => {
                tokio::spawn(answer_grpc(request, respond, state.clone(), close.clone()));
            }
            _ = closed.recv() => return,
            else => return,
        }
    }
}

async fn answer_grpc(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: Shared,
    close: tokio::sync::mpsc::Sender<()>,
) {
    let gzip = request.headers().contains_key("grpc-encoding");
    let id = id(request.headers());
    let mut body = request.into_body();
    let (mut content, mut frames) = (Vec::new(), Vec::new());
    while let Some(Ok(frame)) = body.data().await {
        body.flow_control().release_capacity(frame.len()).unwrap();
        frames.push(frame.len());
        content.extend_from_slice(&frame);
    }
    assert_eq!(content[0], u8::from(gzip));
    let length = (&content[1..]).get_u32() as usize;
    assert_eq!(length, content.len() - 5);
    lock(&state).frames = frames;
    let reply = receive(&state, id, &content[5..], gzip);
    let (code, message, details) = match reply {
        Reply::Taken => (0, vec![], None),
        Reply::Partly(records) => (0, partly(records), None),
        Reply::Busy(after) => (14, vec![], after),
        Reply::Exhausted(after) => (8, vec![], after),
        Reply::Invalid => (3, vec![], None),
        Reply::Closed => {
            close.send(()).await.unwrap();
            // The stream is not to be reset before the connection is gone.
            return std::future::pending().await;
        }
        Reply::Silence => return std::future::pending().await,
    };
    let mut status = HeaderMap::new();
    status.insert("grpc-status", code.into());
    status.insert("grpc-message", HeaderValue::from_static("scripted"));
    if let Some(after) = details {
        status.insert("grpc-status-details-bin", retry_info(after).parse().unwrap());
    }
    let mut head = Response::new(());
    if code != 0 {
        // As tonic does: an error has headers alone.
        *head.headers_mut() = status;
        respond.send_response(head, true).unwrap();
        return;
    }
    let mut body = respond.send_response(head, false).unwrap();
    let prefix = [0, 0, 0, 0, message.len() as u8];
    body.send_data([&prefix[..], &message].concat().into(), false).unwrap();
    body.send_trailers(status).unwrap();
}

async fn serve_http(socket: TcpStream, state: Shared) {
    let service = service_fn(|request| answer_http(request, state.clone()));
    let connection = hyper::server::conn::http1::Builder::new();
    // Ends with an error where the script says so.
    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
}

async fn answer_http(
    request: Request<Incoming>,
    state: Shared,
) -> Result<Response<Full<Bytes>>, &'static str> {
    assert_eq!(request.uri().path(), "/v1/logs");
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/x-protobuf");
    let gzip = request.headers().contains_key(header::CONTENT_ENCODING);
    let id = id(request.headers());
    let content = request.into_body().collect().await.unwrap().to_bytes();
    let failed = [&[0x12, 8][..], b"scripted"].concat();
    let (status, body, after) = match receive(&state, id, &content, gzip) {
        Reply::Taken => (StatusCode::OK, vec![], None),
        Reply::Partly(records) => (StatusCode::OK, partly(records), None),
        Reply::Busy(after) => (StatusCode::SERVICE_UNAVAILABLE, failed, after),
        Reply::Invalid => (StatusCode::BAD_REQUEST, failed, None),
        Reply::Closed => return Err("scripted"),
        Reply::Exhausted(_) => panic!("gRPC alone has it"),
        Reply::Silence => std::future::pending::<Result<_, Infallible>>().await.unwrap(),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    if let Some(after) = after {
        let seconds = after.div_ceil(1_000);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// An `ExportLogsServiceResponse` with a partial success.
fn partly(rejected: u8) -> Vec<u8> {
    [&[0x0a, 12, 0x08, rejected, 0x12, 8][..], b"scripted"].concat()
}

/// Counts decoded requests in the plainest way, in the form of `sheaf load --expect`.
pub(crate) fn recount(attribute: &str, requests: &[Vec<u8>]) -> Value {
    let mut records = 0;
    let mut per_value: HashMap<Option<String>, HashSet<String>> = HashMap::new();
    for (body, value) in requests.iter().flat_map(|request| decode(attribute, request)) {
        records += 1;
        per_value.entry(value).or_default().insert(body);
    }
    let unknown = per_value.remove(&None).unwrap_or_default().len();
    let mut counts: Vec<(String, usize)> =
        per_value.into_iter().map(|(value, bodies)| (value.unwrap(), bodies.len())).collect();
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let distinct = unknown + counts.iter().map(|(_, count)| count).sum::<usize>();
    let counts: Vec<Value> =
        counts.iter().map(|(value, count)| json!({"value": value, "count": count})).collect();
    json!({
        "attribute": attribute, "records": records, "distinct": distinct, "unknown": unknown,
        "retried": 0, "rejected": 0, "unacknowledged": 0, "counts": counts,
    })
}

/// Body and, if it has the attribute, value of each record.
fn decode(attribute: &str, request: &[u8]) -> Vec<(String, Option<String>)> {
    let text = |value: Option<Any>| match value {
        Some(Any::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    let request = ExportLogsServiceRequest::decode(request).unwrap();
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    let records = scopes.flat_map(|scope| scope.log_records);
    records
        .map(|record| {
            let found = record.attributes.into_iter().find(|found| found.key == attribute);
            let value = found.map(|found| text(found.value.unwrap().value));
            (text(record.body.unwrap().value), value)
        })
        .collect()
}
