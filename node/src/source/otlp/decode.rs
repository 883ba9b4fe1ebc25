//! Gzip and JSON: what arrived becomes one protobuf request, charged as it grows.

use bytes::Bytes;

use super::gzip::{Gunzip, GunzipError, Step};
use super::json;
use crate::intake::work::work;
use crate::source::body::Held;
use crate::source::refusal::Refusal;

/// What JSON's transcoder takes besides its input, as a multiple of it: output and scratch.
const JSON_WORKING_ROOM: usize = 2;
/// The most that a request is charged at a time, as a multiple of the limit on its size.
pub const BUDGET_PER_REQUEST: usize = 1 + JSON_WORKING_ROOM;

/// Inflates every member of a gzip body into at most `max` bytes.
pub(super) async fn gunzip(held: Held, max: usize) -> Result<Held, Refusal> {
    let Held { bytes: compressed, mut permit } = held;
    let mut gunzip = Gunzip::new(&compressed, max);
    let mut room = compressed.len();
    loop {
        match work(room, || gunzip.step()) {
            Ok(Step::NeedsRoom(more)) => {
                permit.grow(more).await?;
                room += more;
            }
            Ok(Step::Done(inflated)) => {
                drop(compressed);
                permit.shrink_to(inflated.len());
                return Ok(Held { bytes: Bytes::from(inflated), permit });
            }
            Err(GunzipError::TooLarge { limit }) => return Err(Refusal::TooLarge { max: limit }),
            Err(corrupt @ GunzipError::Corrupt { .. }) => {
                return Err(Refusal::Undecodable(corrupt.to_string()));
            }
        }
    }
}

/// Turns a JSON body into protobuf. `false` if it had keys, but none that OTLP knows.
pub(super) async fn transcode(held: Held) -> Result<(Held, bool), Refusal> {
    let Held { bytes: text, mut permit } = held;
    permit.grow(JSON_WORKING_ROOM * text.len()).await?;
    let transcoded = work(text.len(), || json::to_protobuf(&text))
        .map_err(|invalid| Refusal::Undecodable(invalid.to_string()))?;
    drop(text);
    permit.shrink_to(transcoded.request.len());
    Ok((Held { bytes: Bytes::from(transcoded.request), permit }, transcoded.known))
}
