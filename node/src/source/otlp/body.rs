//! A request's body: frames in, one contiguous and charged body out.
//!
//! A promised length costs nothing by itself. The budget is charged with twice
//! what has arrived, up to the promise, so that a thousand senders that promise
//! much and send little take little from the others.

use std::fmt::Display;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
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

/// The frames of one body, against the clock.
pub(super) struct Frames<B> {
    body: B,
    frame_wait: Duration,
    deadline: Instant,
}

impl<B> Frames<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    pub(super) fn new(body: B, limits: &Limits) -> Self {
        Frames { body, frame_wait: limits.frame_wait, deadline: Instant::now() + limits.body_wait }
    }

    /// The next bytes, never empty; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        // Frames without data do not put this off.
        let latest = self.deadline.min(Instant::now() + self.frame_wait);
        loop {
            let frame = match timeout_at(latest, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(Refusal::Broken(error.to_string())),
                Ok(None) => return Ok(None),
                Err(_) => return Err(Refusal::TooSlow),
            };
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
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
        let mut permit = admission.admit(end.min(2 * first.len())).await?;
        let mut arrived = first.len();
        let mut body = Arriving::One(first);
        while let Some(frame) = self.next().await? {
            arrived += frame.len();
            if arrived > end {
                return Err(overrun());
            }
            if arrived > permit.bytes() {
                permit.grow(end.min(2 * arrived) - permit.bytes()).await?;
            }
            body = body.append(frame, end.min(ROOM_PER_ARRIVED * arrived));
        }
        if let Some(promised) = promised.filter(|promised| *promised > arrived) {
            return Err(Refusal::Undecodable(format!(
                "the request ends after {arrived} of {promised} bytes"
            )));
        }
        permit.shrink_to(arrived);
        Ok(Held { bytes: body.into_bytes(), permit })
    }
}

enum Arriving {
    One(Bytes),
    Many(BytesMut),
}

impl Arriving {
    fn append(self, frame: Bytes, room: usize) -> Arriving {
        let mut buffer = match self {
            // Nothing came before, or a gRPC prefix alone.
            Arriving::One(first) if first.is_empty() => return Arriving::One(frame),
            Arriving::One(first) => {
                let mut buffer = BytesMut::with_capacity(room);
                buffer.put_slice(&first);
                buffer
            }
            Arriving::Many(buffer) => buffer,
        };
        if buffer.len() + frame.len() > buffer.capacity() {
            buffer.reserve(room - buffer.len());
        }
        buffer.put_slice(&frame);
        Arriving::Many(buffer)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Arriving::One(first) => first,
            Arriving::Many(buffer) => buffer.freeze(),
        }
    }
}

#[cfg(test)]
mod tests;
