//! A node that takes chunks as a test says, and rebuilds files as the protocol has it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use sheaf_proto::{
    chunks::{LogPart, Receipt, Refusal},
    names::CHUNK_GRPC_PATH,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the node does with the next chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes and answers each.
    Takes,
    /// Takes them, and does not answer until the mood is another.
    TakesSilently,
    /// Neither takes nor answers.
    Silent,
    /// Ends the stream with UNAVAILABLE, perhaps with a RetryInfo of so many milliseconds.
    Unavailable(Option<u64>),
    /// Takes each, and closes the connection after about one in so many, answered or not.
    Cuts(u32),
    /// Answers each with a wish for so many seconds of silence.
    Throttles(u32),
    /// Refuses what begins with an `x`.
    Refuses,
    /// Ends the stream with RESOURCE_EXHAUSTED at a message of more bytes.
    TakesUpTo(usize),
}

/// Listens on a port of its own until the test ends.
#[derive(Debug)]
pub(crate) struct Node {
    address: SocketAddr,
    state: Shared,
    mood: watch::Sender<Mood>,
}

type Shared = Arc<Mutex<State>>;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<(String, u64), Assembly>,
    received: usize,
    streams: usize,
    repeated: usize,
    /// What no agent may do.
    offences: Vec<String>,
}

/// A file that is put together.
#[derive(Debug, Default)]
struct Assembly {
    /// As far as no chunk is missing.
    bytes: Vec<u8>,
    /// What comes behind a gap.
    waiting: BTreeMap<i64, Bytes>,
    /// What each chunk had.
    checksums: BTreeMap<i64, u32>,
    /// The last chunk of `bytes`.
    last: i64,
    /// How many chunks of all files had come with its first and with its latest.
    came: Option<(usize, usize)>,
}

impl Assembly {
    /// Takes a chunk. `Some(true)`: it came before; `Some(false)`: with other bytes.
    fn take(&mut self, seq: i64, payload: Bytes) -> Option<bool> {
        let checksum = crc32fast::hash(&payload);
        if let Some(before) = self.checksums.insert(seq, checksum) {
            return Some(before == checksum);
        }
        self.waiting.insert(seq, payload);
        while let Some(payload) = self.waiting.remove(&(self.last + 1)) {
            self.bytes.extend_from_slice(&payload);
            self.last += 1;
        }
        None
    }
}

impl Node {
    /// Begins to listen.
    pub(crate) fn start(mood: Mood) -> Node {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Shared::default();
        let (mood, moods) = watch::channel(mood);
        let shared = state.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while moods.has_changed().is_ok() {
                    let accepted = tokio::time::timeout(Duration::from_secs(1), listener.accept());
                    if let Ok(Ok((socket, _))) = accepted.await {
                        tokio::spawn(serve(socket, shared.clone(), moods.clone()));
                    }
                }
            });
        });
        Node { address, state, mood }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has another mood from now on.
    pub(crate) fn be(&self, mood: Mood) {
        self.mood.send(mood).unwrap();
    }

    /// The files of an id, the oldest session first, each as far as no chunk is missing.
    pub(crate) fn look<T>(&self, id: &str, look: impl FnOnce(&[&[u8]]) -> T) -> T {
        let state = lock(&self.state);
        assert_eq!(state.offences, [""; 0]);
        let sessions = state.files.iter().filter(|((it, _), _)| it == id);
        look(&sessions.map(|(_, file)| &file.bytes[..]).collect::<Vec<_>>())
    }

    /// Whether each session of the id had come before the next began.
    pub(crate) fn is_in_order(&self, id: &str) -> bool {
        let state = lock(&self.state);
        let sessions = state.files.iter().filter(|((it, _), _)| it == id);
        let came: Vec<_> = sessions.filter_map(|(_, file)| file.came).collect();
        came.is_sorted_by(|(_, latest), (first, _)| latest < first)
    }

    /// All ids.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            lock(&self.state).files.keys().map(|(id, _)| id.clone()).collect();
        ids.dedup();
        ids
    }

    /// The chunks that came, those that came again too.
    pub(crate) fn received(&self) -> usize {
        lock(&self.state).received
    }

    /// The chunks that came again.
    pub(crate) fn repeated(&self) -> usize {
        lock(&self.state).repeated
    }

    /// The streams that were begun.
    pub(crate) fn streams(&self) -> usize {
        lock(&self.state).streams
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

impl State {
    fn take(&mut self, part: LogPart) {
        self.received += 1;
        let key = (part.id, part.session);
        if part.seq < 1 || key.0.is_empty() {
            self.offences.push(format!("{key:?} has a chunk {}", part.seq));
        }
        let file = self.files.entry(key.clone()).or_default();
        file.came = Some((file.came.map_or(self.received, |(first, _)| first), self.received));
        match file.take(part.seq, part.payload) {
            Some(true) => self.repeated += 1,
            Some(false) => self.offences.push(format!("{key:?} has two chunks {}", part.seq)),
            None => {}
        }
    }
}

async fn serve(socket: TcpStream, state: Shared, moods: watch::Receiver<Mood>) {
    let mut builder = Builder::new();
    builder.max_frame_size(1 << 20).initial_window_size(1 << 24);
    builder.initial_connection_window_size(1 << 24);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    let (close, mut closed) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        tokio::select! {
            Some(Ok((request, respond))) = connection.accept() => {
                let stream = Chunks::new(request, respond, state.clone(), moods.clone());
                let close = close.clone();
                tokio::spawn(async move {
                    if stream.serve().await.is_none() {
                        let _ = close.send(()).await;
                    }
                });
            }
            _ = closed.recv() => return,
            else => return,
        }
    }
}

/// One stream of chunks.
struct Chunks {
    body: RecvStream,
    answers: SendStream<Bytes>,
    received: BytesMut,
    parts: VecDeque<LogPart>,
    state: Shared,
    moods: watch::Receiver<Mood>,
    answered: u64,
}

impl Chunks {
    fn new(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        state: Shared,
        moods: watch::Receiver<Mood>,
    ) -> Chunks {
        assert_eq!(request.uri().path(), CHUNK_GRPC_PATH);
        assert_eq!(request.headers()["content-type"], "application/grpc");
        lock(&state).streams += 1;
        let answers = respond.send_response(Response::new(()), false).unwrap();
        let (received, parts) = (BytesMut::new(), VecDeque::new());
        Chunks { body: request.into_body(), answers, received, parts, state, moods, answered: 0 }
    }

    /// `None`: the connection is to be closed.
    async fn serve(mut self) -> Option<()> {
        let mut held_back = 0;
        loop {
            let mood = *self.moods.borrow_and_update();
            if mood != Mood::TakesSilently && held_back > 0 {
                self.answer(std::mem::take(&mut held_back), 0, vec![])?;
            }
            if let Mood::Unavailable(after) = mood {
                self.end("14", "scripted", after);
                return Some(());
            }
            if mood == Mood::Silent || self.parts.is_empty() {
                tokio::select! {
                    changed = self.moods.changed() => changed.ok()?,
                    data = self.body.data() => self.read(data?.ok()?),
                }
                continue;
            }
            let part = self.parts.pop_front()?;
            if let Mood::TakesUpTo(max) = mood
                && part.encoded_len() > max
            {
                self.end("8", &format!("the request is larger than {max} bytes"), None);
                return Some(());
            }
            let refused = mood == Mood::Refuses && part.payload.starts_with(b"x");
            if !refused {
                lock(&self.state).take(part);
            }
            match mood {
                Mood::TakesSilently => held_back += 1,
                Mood::Cuts(often) if fastrand::u32(..often) == 0 => {
                    if fastrand::bool() {
                        self.answer(1, 0, vec![])?;
                        tokio::task::yield_now().await;
                    }
                    return None;
                }
                Mood::Throttles(seconds) => self.answer(1, seconds, vec![])?,
                _ if refused => {
                    let reason = "it begins with an x".to_owned();
                    self.answer(1, 0, vec![Refusal { number: self.answered + 1, reason }])?;
                }
                _ => self.answer(1, 0, vec![])?,
            }
        }
    }

    fn read(&mut self, data: Bytes) {
        self.body.flow_control().release_capacity(data.len()).unwrap();
        self.received.extend_from_slice(&data);
        while let Some(length) = self.received.get(1..5).map(|mut length| length.get_u32()) {
            let end = 5 + length as usize;
            if self.received.len() < end {
                return;
            }
            let message = self.received.split_to(end).split_off(5);
            self.parts.push_back(LogPart::decode(message).unwrap());
        }
    }

    fn answer(&mut self, count: u64, throttle_seconds: u32, refused: Vec<Refusal>) -> Option<()> {
        self.answered += count;
        let receipt = Receipt { answered: self.answered, throttle_seconds, refused };
        let message = receipt.encode_to_vec();
        let prefix = [&[0][..], &(message.len() as u32).to_be_bytes()].concat();
        self.answers.send_data([prefix, message].concat().into(), false).ok()
    }

    fn end(&mut self, code: &'static str, message: &str, after: Option<u64>) {
        let mut status = HeaderMap::new();
        status.insert("grpc-status", HeaderValue::from_static(code));
        status.insert("grpc-message", message.parse().unwrap());
        if let Some(after) = after {
            let details = STANDARD.encode(retry_info(after));
            status.insert("grpc-status-details-bin", details.parse().unwrap());
        }
        let _ = self.answers.send_trailers(status);
    }
}

/// A google.rpc.Status with a RetryInfo of so many milliseconds, below 1,000.
fn retry_info(milliseconds: u64) -> Vec<u8> {
    const TYPE_URL: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut delay = vec![0x10];
    prost::encoding::encode_varint(milliseconds * 1_000_000, &mut delay);
    let info = [&[0x0a, delay.len() as u8], &delay[..]].concat();
    let any = [&[0x0a, TYPE_URL.len() as u8], TYPE_URL, &[0x12, info.len() as u8], &info].concat();
    [&[0x08, 14, 0x1a, any.len() as u8], &any[..]].concat()
}
