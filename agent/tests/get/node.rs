//! A node that lists and serves files as a test says.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use sheaf_proto::files::{FilesWaitFor, RebuiltFile, RebuiltFiles};

/// It lists no more at a time, whatever is asked for.
const PAGE: usize = 2;

/// What a node has, and how it behaves.
#[derive(Default)]
pub(crate) struct State {
    /// By id and session.
    pub(crate) files: BTreeMap<(String, u64), Vec<u8>>,
    /// The chunk that a session waits for.
    pub(crate) gaps: BTreeMap<u64, u64>,
    /// How many bytes at its beginning a session lacks.
    pub(crate) removed: BTreeMap<u64, u64>,
    /// How many it is to lack once some of it was sent.
    pub(crate) removes: Option<u64>,
    /// It breaks off after so many bytes of a file.
    pub(crate) breaks_after: Option<usize>,
    /// It refuses so many requests for now.
    pub(crate) refuses: usize,
    /// The node that does not tell it of its files.
    pub(crate) waits_for: Option<u64>,
    /// How often it was asked for a list.
    pub(crate) lists: usize,
    /// The ranges of files that it was asked for.
    pub(crate) ranges: Vec<String>,
}

/// A node behind a real port.
pub(crate) struct Node {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Node {
    pub(crate) fn start() -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let node = Node { address, state: Arc::clone(&state) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                // Whoever asks may be gone before the answer.
                thread::spawn(move || answer(stream.unwrap(), &state));
            }
        });
        node
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts bytes behind a file.
    pub(crate) fn append(&self, id: &str, session: u64, bytes: impl AsRef<[u8]>) {
        let mut state = self.state();
        let file = state.files.entry((id.to_owned(), session)).or_default();
        file.extend_from_slice(bytes.as_ref());
    }
}

/// Answers one request of a connection, and closes it.
fn answer(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let target = lines.first()?.split(' ').nth(1)?.to_owned();
    let range = lines.iter().find_map(|line| Some(line.strip_prefix("range: bytes=")?.to_owned()));
    let mut state = state.lock().unwrap();
    let (head, body) = state.answer(&target, range.as_deref());
    let sent = state.breaks_after.unwrap_or(usize::MAX).min(body.len());
    drop(state);
    let length = body.len();
    let head = format!("HTTP/1.1 {head}content-length: {length}\r\nconnection: close\r\n\r\n");
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body[..sent]).ok()
}

impl State {
    /// Status and headers, each with its line end, and a body.
    fn answer(&mut self, target: &str, range: Option<&str>) -> (String, Vec<u8>) {
        if self.refuses > 0 {
            self.refuses -= 1;
            let reason = br#"{"error":"its owners do not answer"}"#;
            return ("503 Busy\r\nretry-after: 2\r\n".to_owned(), reason.to_vec());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let name = path.strip_prefix("/v1/files").unwrap().strip_prefix('/');
        let Some((id, session)) = name.map(|name| name.split_once('/').unwrap()) else {
            self.lists += 1;
            return ("200 OK\r\n".to_owned(), serde_json::to_vec(&self.list(query)).unwrap());
        };
        let range = range.unwrap();
        self.ranges.push(range.to_owned());
        let Some(bytes) = self.files.get(&(unescaped(id), session.parse().unwrap())) else {
            return ("404 Not Found\r\n".to_owned(), br#"{"error":"none"}"#.to_vec());
        };
        let (from, to) = range.split_once('-').unwrap();
        let (from, session): (usize, u64) = (from.parse().unwrap(), session.parse().unwrap());
        let removed = self.removed.get(&session).copied().unwrap_or(0);
        let to = to.parse().map_or(bytes.len(), |last: usize| bytes.len().min(last + 1));
        if from >= to {
            let head = format!("416 Beyond\r\ncontent-range: bytes */{}\r\n", bytes.len());
            return (head, Vec::new());
        }
        if from < removed as usize {
            return ("410 Gone\r\n".to_owned(), br#"{"error":"removed"}"#.to_vec());
        }
        if let Some(removed) = self.removes.take() {
            self.removed.insert(session, removed);
        }
        let (last, all) = (to - 1, bytes.len());
        let head = format!("206 Partial Content\r\ncontent-range: bytes {from}-{last}/{all}\r\n");
        (head, bytes[from..to].to_vec())
    }

    fn list(&self, query: &str) -> RebuiltFiles {
        let asked: BTreeMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name, unescaped(value)))
            .collect();
        let after = asked.get("continue").map(|next| {
            let (session, id) = next.split_once('/').unwrap();
            (id.to_owned(), session.parse().unwrap())
        });
        let limit = asked["limit"].parse::<usize>().unwrap().min(PAGE);
        let wanted = self.files.iter().filter(|(name, _)| {
            asked.get("id").is_none_or(|id| name.0 == *id)
                && asked.get("prefix").is_none_or(|prefix| name.0.starts_with(prefix))
                && after.as_ref().is_none_or(|after| *name > after)
        });
        let files = wanted.clone().take(limit).map(|((id, session), bytes)| RebuiltFile {
            id: id.clone(),
            session: *session,
            bytes: bytes.len() as u64,
            checkpointed_bytes: 0,
            waits_for: self.gaps.get(session).copied(),
            waiting: 0,
            contradicting: 0,
            removed_bytes: self.removed.get(session).copied().unwrap_or(0),
        });
        let files: Vec<_> = files.collect();
        let next = files.last().filter(|_| wanted.count() > limit);
        let next = next.map(|last| format!("{}/{}", last.session, last.id));
        let waits_for = self.waits_for.map(|node| FilesWaitFor {
            slots: "0-84".to_owned(),
            missing: String::new(),
            nodes: vec![node],
        });
        RebuiltFiles { complete: waits_for.is_none(), waits_for, files, next }
    }
}

fn unescaped(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}
