//! Chunks one after the other: read as far ahead as there is room, and answered in order.
//!
//! The chunks of a stream are on their way to the disk together, so that one sync may make many
//! durable, and one receipt may tell of them.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http_body::{Body, Frame};
use prost::Message as _;
use sheaf_proto::chunks::{self, Receipt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::part::{self, Unusable};
use super::{Collect, throttle};
use crate::event::chunk::{Chunk, InvalidChunk};
use crate::intake::admission::{Permit, Why};
use crate::source::Limits;
use crate::source::grpc::{self, Messages};
use crate::source::refusal::Refusal;

/// How much of one stream may be on its way at a time: enough to keep a disk busy, and little
/// enough that it takes several fast senders to fill the queue.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// What a chunk takes beside its message while it is on its way.
const CHUNK_BYTES: usize = 512;
/// How many chunks of one stream may be on their way at a time, or wait for one before them.
const CHUNKS_AHEAD_MAX: usize = AHEAD_BYTES_MAX / CHUNK_BYTES;
/// How many chunks one receipt tells of at most.
const CHUNKS_PER_RECEIPT_MAX: usize = 256;

// A permit of the semaphore is counted in 32 bits.
const _: () = assert!(AHEAD_BYTES_MAX <= u32::MAX as usize);

/// What became of a chunk; an error ends the stream.
type Outcome = Result<Answer, Refusal>;

enum Answer {
    Durable,
    /// It can never be taken, for this reason.
    Refused(String),
}

/// A chunk that has arrived.
struct Arrived {
    chunk: Result<Chunk, InvalidChunk>,
    permit: Permit,
    room: Room,
}

/// What a chunk takes until it is answered.
struct Room {
    _ahead: OwnedSemaphorePermit,
    _beside: Permit,
}

/// One stream.
pub(super) struct Sending<C, B> {
    collector: C,
    messages: Messages<B>,
    request_bytes_max: usize,
    receipt_wait: Duration,
    ahead: Arc<Semaphore>,
    ending: CancellationToken,
}

impl<C, B> Sending<C, B>
where
    C: Collect,
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Display,
{
    /// Takes the chunks in `messages` until the connection is `ending`.
    pub(super) fn new(
        collector: C,
        limits: &Limits,
        messages: Messages<B>,
        ending: CancellationToken,
    ) -> Self {
        Sending {
            collector,
            messages,
            request_bytes_max: limits.request_bytes_max,
            receipt_wait: limits.frame_wait,
            ahead: Arc::new(Semaphore::new(AHEAD_BYTES_MAX)),
            ending,
        }
    }

    /// Answers all chunks, and says how the stream ends. Gives up when nobody listens.
    pub(super) async fn answer(self, to_sender: mpsc::Sender<Frame<Bytes>>) {
        let (collector, receipt_wait) = (self.collector.clone(), self.receipt_wait);
        let mut outcomes = pin!(self.outcomes().ready_chunks(CHUNKS_PER_RECEIPT_MAX));
        let (mut answered, mut end) = (0, Status::ok(""));
        while end.code() == tonic::Code::Ok {
            let outcomes = tokio::select! {
                outcomes = outcomes.next() => outcomes,
                () = to_sender.closed() => return,
            };
            let Some(outcomes) = outcomes else { break };
            let mut receipt = Receipt { answered, ..Receipt::default() };
            for outcome in outcomes {
                match outcome {
                    Ok(answer) => note(&mut receipt, answer),
                    Err(refusal) => {
                        end = refusal.to_status();
                        break;
                    }
                }
            }
            if receipt.answered > answered {
                answered = receipt.answered;
                receipt.throttle_seconds = throttle::seconds(&collector);
                let receipt = Frame::data(grpc::framed(&receipt.encode_to_vec()));
                if to_sender.send_timeout(receipt, receipt_wait).await.is_err() {
                    return;
                }
            }
        }
        let trailers = Frame::trailers(grpc::trailers(&end));
        // Nobody waits for it any more, or does not take it in time.
        let _ = to_sender.send_timeout(trailers, receipt_wait).await;
    }

    /// What becomes of each chunk, in order.
    fn outcomes(self) -> impl Stream<Item = Outcome> {
        let collector = self.collector.clone();
        let arriving = stream::try_unfold(self, async |mut sending| {
            Ok(sending.next().await?.map(|arrived| (arrived, sending)))
        });
        let outcomes = arriving.map(move |arrived| settle(collector.clone(), arrived));
        outcomes.buffered(CHUNKS_AHEAD_MAX)
    }

    /// The next chunk; `None` when there are no more.
    async fn next(&mut self) -> Result<Option<Arrived>, Refusal> {
        let ending = self.ending.clone();
        match ending.run_until_cancelled(self.read()).await {
            Some(read) => read,
            None => Err(self.ended()),
        }
    }

    async fn read(&mut self) -> Result<Option<Arrived>, Refusal> {
        let Some(prefix) = self.messages.prefix().await? else { return Ok(None) };
        if prefix.compressed {
            return Err(grpc::unannounced_compression());
        }
        if prefix.length > self.request_bytes_max {
            return Err(Refusal::TooLarge { max: self.request_bytes_max });
        }
        let room = self.room(prefix.length).await?;
        let held = self.messages.message(prefix.length, self.collector.admission()).await?;
        let chunk = match part::decode(&held.bytes) {
            Ok(chunk) => Ok(chunk),
            Err(unusable) => {
                self.collector.unusable();
                match unusable {
                    Unusable::Invalid(invalid) => Err(invalid),
                    Unusable::Undecodable(_) | Unusable::NotUtf8 => {
                        return Err(Refusal::Undecodable(unusable.to_string()));
                    }
                }
            }
        };
        Ok(Some(Arrived { chunk, permit: held.permit, room }))
    }

    /// Waits until so large a chunk may be on its way beside the others of this stream. One that
    /// is larger than all of them together may be goes alone.
    async fn room(&self, length: usize) -> Result<Room, Refusal> {
        let bytes = AHEAD_BYTES_MAX.min(length + CHUNK_BYTES) as u32;
        let ahead = Arc::clone(&self.ahead).acquire_many_owned(bytes).await;
        let beside = self.collector.admission().admit(CHUNK_BYTES).await?;
        // Nobody closes the semaphore.
        Ok(Room { _ahead: ahead.map_err(|_| Refusal::Old)?, _beside: beside })
    }

    /// Why the connection takes no more.
    fn ended(&self) -> Refusal {
        let admission = self.collector.admission();
        match admission.closed() {
            Some(closed) => Refusal::Busy(admission.refuse(Why::Closed(closed))),
            None => Refusal::Old,
        }
    }
}

/// Has a chunk made durable.
async fn settle(collector: impl Collect, arrived: Result<Arrived, Refusal>) -> Outcome {
    let Arrived { chunk, permit, room: _room } = arrived?;
    let chunk = match chunk {
        Ok(chunk) => chunk,
        Err(invalid) => return Ok(Answer::Refused(invalid.to_string())),
    };
    collector.collect(chunk, permit).await?;
    Ok(Answer::Durable)
}

/// The receipt tells of one chunk more.
fn note(receipt: &mut Receipt, answer: Answer) {
    receipt.answered += 1;
    if let Answer::Refused(reason) = answer {
        receipt.refused.push(chunks::Refusal { number: receipt.answered, reason });
    }
}
