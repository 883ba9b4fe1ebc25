//! Files that grow, and agents that send them in chunks: those of one file by way of several
//! nodes, late, twice, and in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sheaf_node::event::chunk::{Chunk, Sequence, StreamId};
use sheaf_node::event::fingerprint::digest;
use sheaf_node::intake::Intake;
use tokio::time::sleep;

use super::history::{Event, File, History};
use super::machine::true_time;

/// Files that are written at the same time.
const FILES: u8 = 3;
/// One in so many chunks begins another session of its file.
const ROTATED: u8 = 24;
/// One in so many chunks that were acknowledged is sent again all the same.
const AGAIN: u8 = 8;
const CHUNK_BYTES_MAX: u128 = 200;

/// A chunk, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    file: File,
    seq: i64,
}

impl Piece {
    /// No two are alike, but for those that are empty.
    fn payload(&self) -> Bytes {
        let drawn = digest(format!("{self:?}").as_bytes());
        let bytes = format!("{} {}: {drawn:032x}\n", self.file, self.seq).into_bytes();
        let length = (drawn % CHUNK_BYTES_MAX) as usize;
        bytes.into_iter().cycle().take(length).collect()
    }

    fn chunk(&self) -> Chunk {
        let File { id, session } = self.file.clone();
        let seq = Sequence::try_from(self.seq).unwrap();
        Chunk { id: StreamId::try_from(id).unwrap(), session, seq, payload: self.payload() }
    }
}

/// The files as they are on the machines that they come from; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Sources(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    /// What was written so far.
    contents: BTreeMap<File, Vec<u8>>,
    /// The session that each file is in, and its last chunk.
    latest: BTreeMap<u8, (u64, i64)>,
    /// Chunks that were cut, and that nobody has acknowledged.
    unanswered: BTreeSet<Piece>,
    /// Chunks that were acknowledged, and are sent again.
    again: BTreeSet<Piece>,
}

impl Sources {
    /// Whether a file begins with these bytes.
    pub(crate) fn has(&self, file: &File, bytes: &[u8]) -> bool {
        let written = self.0.lock().unwrap();
        written.contents.get(file).is_some_and(|content| content.starts_with(bytes))
    }

    /// Cuts another chunk.
    fn cut(&self, rng: &mut fastrand::Rng) -> Piece {
        let written = &mut *self.0.lock().unwrap();
        let number = rng.u8(..FILES);
        let (session, last) = written.latest.entry(number).or_insert((1, 0));
        if *last > 0 && rng.u8(..ROTATED) == 0 {
            (*session, *last) = (*session + 1, 0);
        }
        *last += 1;
        let file = File { id: format!("host/{number}.log"), session: *session };
        let piece = Piece { file, seq: *last };
        let content = written.contents.entry(piece.file.clone()).or_default();
        content.extend_from_slice(&piece.payload());
        written.unanswered.insert(piece.clone());
        piece
    }

    /// A chunk that was cut before, and may be on its way; also one that was acknowledged, as
    /// long as the files grow.
    fn old(&self, grow: bool, rng: &mut fastrand::Rng) -> Option<Piece> {
        let mut written = self.0.lock().unwrap();
        if let Some(piece) = written.again.pop_first().filter(|_| grow) {
            return Some(piece);
        }
        let unanswered = written.unanswered.len();
        if unanswered == 0 {
            return None;
        }
        written.unanswered.iter().nth(rng.usize(..unanswered)).cloned()
    }

    fn acknowledged(&self, piece: Piece, is_repeated: bool) {
        let mut written = self.0.lock().unwrap();
        written.unanswered.remove(&piece);
        if is_repeated {
            written.again.insert(piece);
        }
    }
}

/// Who sends chunks to one node, one at a time.
pub(crate) struct Agent {
    pub(crate) intake: Intake,
    pub(crate) history: History,
    pub(crate) sources: Sources,
    pub(crate) rng: fastrand::Rng,
}

impl Agent {
    /// Sends until it is dropped; what was not sent before only as long as the files grow.
    pub(crate) async fn run(mut self, grow: impl Fn() -> bool) {
        loop {
            sleep(Duration::from_millis(self.rng.u64(5..1000))).await;
            let old = if self.rng.bool() { self.sources.old(grow(), &mut self.rng) } else { None };
            match old {
                Some(piece) => self.send(piece).await,
                None if grow() => {
                    let piece = self.sources.cut(&mut self.rng);
                    let (file, bytes) = (piece.file.clone(), piece.payload().len() as u64);
                    self.history.add(true_time(), Event::Cut { file, seq: piece.seq, bytes });
                    self.send(piece).await;
                }
                None => {}
            }
        }
    }

    async fn send(&mut self, piece: Piece) {
        let chunk = piece.chunk();
        let Ok(permit) = self.intake.admission().admit(chunk.payload.len()).await else { return };
        if self.intake.collect(chunk, permit).await.is_err() {
            return;
        }
        let (file, seq) = (piece.file.clone(), piece.seq);
        self.history.add(true_time(), Event::Collected { file, seq });
        self.sources.acknowledged(piece, self.rng.u8(..AGAIN) == 0);
    }
}
