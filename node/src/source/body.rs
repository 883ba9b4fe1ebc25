//! A request's body: frames in, one contiguous and charged body out, or one message after the other.
//!
//! A promised length costs nothing by itself. The budget is charged with twice
//! what has arrived, up to the promise, so that a thousand senders that promise
//! much and send little take little from the others.

use std::fmt::Display;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::EXPECT;
use http::{Request, Version};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::Limits;
use super::refusal::Refusal;
use crate::intake::admission::{Admission, Permit};

/// Room is reserved for this many times what has arrived, up to the promise:
/// a body of 16 KiB frames moves once on its way to half a MiB. Untouched room
/// is address space, not memory, and is not charged.
const ROOM_PER_ARRIVED: usize = 32;

/// A request's bytes, and the permit that they are charged to.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) permit: Permit,
}

/// `Content-Length` in bytes, if the request has one.
pub(super) fn promised(request: &Request<impl Body>) -> Option<usize> {
    let promised = request.body().size_hint().exact();
    promised.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Whether the sender goes on sending the body whatever it is answered.
pub(super) fn keeps_sending<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_2 && !request.headers().contains_key(EXPECT)
}

/// The frames of one body, against the clock.
pub(super) struct Frames<B> {
    body: B,
    frame_wait: Duration,
    body_wait: Duration,
    deadline: Instant,
}

impl<B> Frames<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    pub(super) fn new(body: B, limits: &Limits) -> Self {
        let Limits { frame_wait, body_wait, .. } = *limits;
        Frames { body, frame_wait, body_wait, deadline: Instant::now() + body_wait }
    }

    /// The next bytes, never empty; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        // Frames without data do not put this off.
        let latest = self.deadline.min(Instant::now() + self.frame_wait);
        timeout_at(latest, self.data()).await.map_err(|_| Refusal::TooSlow)?
    }

    /// As [`Frames::next`], but waits for as long as it takes: nothing is under way.
    pub(super) async fn next_in_peace(&mut self) -> Result<Option<Bytes>, Refusal> {
        self.data().await
    }

    /// What follows may take as long as a body may.
    pub(super) fn begin(&mut self) {
        self.deadline = Instant::now() + self.body_wait;
    }

    async fn data(&mut self) -> Result<Option<Bytes>, Refusal> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Refusal::Broken(error.to_string()))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Everything is here: nothing is left to be thrown away.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Reads and forgets up to `bytes`, so that a sender still busy sending gets to read the answer.
    pub(super) async fn discard(mut self, mut bytes: usize) {
        while let Ok(Some(frame)) = self.next().await {
            bytes = bytes.saturating_sub(frame.len());
            if bytes == 0 {
                return;
            }
        }
    }

    /// Collects the rest of the body behind `first`, charging it to
    /// `admission` before it is buffered. A body of one frame is not copied.
    pub(super) async fn collect(
        &mut self,
        first: Bytes,
        promised: Option<usize>,
        max: usize,
        admission: &Admission,
    ) -> Result<Held, Refusal> {
        if promised.is_some_and(|promised| promised > max) {
            return Err(Refusal::TooLarge { max });
        }
        let end = promised.unwrap_or(max);
        let overrun = || match promised {
            Some(promised) => {
                Refusal::Undecodable(format!("more follows the {promised} bytes of the request"))
            }
            None => Refusal::TooLarge { max },
        };
        if first.len() > end {
            return Err(overrun());
        }
        let mut arriving = Arriving::begin(first, end, admission).await?;
        while let Some(frame) = self.next().await? {
            if arriving.bytes + frame.len() > end {
                return Err(overrun());
            }
            arriving.append(frame).await?;
        }
        if let Some(promised) = promised.filter(|promised| *promised > arriving.bytes) {
            return Err(ends_early(arriving.bytes, promised));
        }
        Ok(arriving.finish())
    }

    /// Collects `length` bytes, those of `first` before all others, charging them to
    /// `admission` before they are buffered; and returns what came behind them. What is within
    /// one frame is not copied.
    pub(super) async fn take(
        &mut self,
        mut first: Bytes,
        length: usize,
        admission: &Admission,
    ) -> Result<(Held, Bytes), Refusal> {
        let mut rest = first.split_off(first.len().min(length));
        let mut arriving = Arriving::begin(first, length, admission).await?;
        while arriving.bytes < length {
            let frame = self.next().await?;
            let mut frame = frame.ok_or_else(|| ends_early(arriving.bytes, length))?;
            rest = frame.split_off(frame.len().min(length - arriving.bytes));
            arriving.append(frame).await?;
        }
        Ok((arriving.finish(), rest))
    }
}

fn ends_early(arrived: usize, promised: usize) -> Refusal {
    Refusal::Undecodable(format!("the request ends after {arrived} of {promised} bytes"))
}

/// What has arrived of a body that has `end` bytes at most.
struct Arriving {
    permit: Permit,
    pieces: Pieces,
    bytes: usize,
    end: usize,
}

impl Arriving {
    async fn begin(first: Bytes, end: usize, admission: &Admission) -> Result<Arriving, Refusal> {
        let permit = admission.admit(end.min(2 * first.len())).await?;
        Ok(Arriving { permit, bytes: first.len(), pieces: Pieces::One(first), end })
    }

    async fn append(&mut self, frame: Bytes) -> Result<(), Refusal> {
        self.bytes += frame.len();
        if self.bytes > self.permit.bytes() {
            let charged = self.end.min(2 * self.bytes);
            self.permit.grow(charged - self.permit.bytes()).await?;
        }
        self.pieces.append(frame, self.end.min(ROOM_PER_ARRIVED * self.bytes));
        Ok(())
    }

    fn finish(mut self) -> Held {
        self.permit.shrink_to(self.bytes);
        Held { bytes: self.pieces.into_bytes(), permit: self.permit }
    }
}

enum Pieces {
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    fn append(&mut self, frame: Bytes, room: usize) {
        match self {
            // Nothing came before, or a gRPC prefix alone.
            Pieces::One(first) if first.is_empty() => *first = frame,
            Pieces::One(first) => {
                let mut buffer = BytesMut::with_capacity(room);
                buffer.put_slice(first);
                buffer.put_slice(&frame);
                *self = Pieces::Many(buffer);
            }
            Pieces::Many(buffer) => {
                if buffer.len() + frame.len() > buffer.capacity() {
                    buffer.reserve(room - buffer.len());
                }
                buffer.put_slice(&frame);
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Pieces::One(first) => first,
            Pieces::Many(buffer) => buffer.freeze(),
        }
    }
}

#[cfg(test)]
mod tests;
