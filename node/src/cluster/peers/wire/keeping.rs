//! What is kept of slots that others lead.

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use sheaf_proto::peer::{self, carried_response, keep_begin, keep_request};
use tonic::Streaming;

use super::files::{kept_files, to_kept_files};
use super::holdings::{records, slots, to_records, to_slots};
use super::{Declined, Malformed};
use crate::checkpoint::carries::Carry;
use crate::cluster::peers::{CarriedPart, Chunks, Kept};
use crate::event::time::{UnixNanos, Window};

fn to_request(part: keep_request::Part) -> peer::KeepRequest {
    peer::KeepRequest { part: Some(part) }
}

pub(in crate::cluster::peers) fn to_begin(
    caller: Option<peer::Caller>,
    kept: &Kept,
) -> Result<peer::KeepRequest, Malformed> {
    let kept = match kept {
        Kept::Table { aggregation, window: Window { start, end }, slots, summary, records } => {
            let summary = summary.as_ref().map(serde_json::to_vec).transpose();
            keep_begin::Kept::Table(peer::KeptTable {
                aggregation: *aggregation,
                start: start.0,
                end: end.0,
                slots: to_slots(*slots),
                summary: summary.map_err(|_| Malformed("table.summary"))?.map(Bytes::from),
                records: to_records(records),
            })
        }
        Kept::Carry(carry) => keep_begin::Kept::Carry(to_json(carry)?),
        Kept::Files(files) => keep_begin::Kept::Files(to_kept_files(files)),
    };
    Ok(to_request(keep_request::Part::Begin(peer::KeepBegin { caller, kept: Some(kept) })))
}

pub(in crate::cluster::peers) fn to_chunk(chunk: Bytes) -> peer::KeepRequest {
    to_request(keep_request::Part::Chunk(chunk))
}

pub(in crate::cluster::peers) fn to_end() -> peer::KeepRequest {
    to_request(keep_request::Part::End(peer::KeepEnd {}))
}

/// Who wants something to be kept, and what, as the first message says.
pub(in crate::cluster::peers) fn kept(
    message: Option<peer::KeepRequest>,
) -> Result<(Option<peer::Caller>, Kept), Malformed> {
    let Some(keep_request::Part::Begin(begin)) = message.and_then(|message| message.part) else {
        return Err(Malformed("begin"));
    };
    let kept = match begin.kept.ok_or(Malformed("begin.kept"))? {
        keep_begin::Kept::Table(peer::KeptTable {
            aggregation,
            start,
            end,
            slots: set,
            summary,
            records: of,
        }) => {
            let summary = summary.map(|summary| serde_json::from_slice(&summary)).transpose();
            let summary = summary.map_err(|_| Malformed("table.summary"))?;
            let window = Window { start: UnixNanos(start), end: UnixNanos(end) };
            let (slots, records) = (slots(&set)?, records(of)?);
            Kept::Table { aggregation, window, slots, summary, records }
        }
        keep_begin::Kept::Carry(carry) => Kept::Carry(json(&carry)?),
        keep_begin::Kept::Files(files) => Kept::Files(kept_files(files)?),
    };
    Ok((begin.caller, kept))
}

/// The chunks that follow the first message, to the one that says that nothing is missing.
pub(in crate::cluster::peers) fn chunks(messages: Streaming<peer::KeepRequest>) -> Chunks {
    let chunks = stream::unfold(Some(messages), async |messages| {
        let mut messages = messages?;
        let next = messages.message().await.map(|next| next.and_then(|next| next.part));
        match next {
            Ok(Some(keep_request::Part::Chunk(chunk))) => Some((Ok(chunk), Some(messages))),
            Ok(Some(keep_request::Part::End(_))) => None,
            Ok(Some(keep_request::Part::Begin(_))) => {
                Some((Err(Declined::Never(Malformed("begin").to_string())), None))
            }
            Ok(None) => Some((Err(Declined::NotNow("the chunks are cut off".to_owned())), None)),
            Err(status) => Some((Err(Declined::NotNow(status.message().to_owned())), None)),
        }
    });
    chunks.boxed()
}

pub(in crate::cluster::peers) fn to_carried(
    part: CarriedPart,
) -> Result<peer::CarriedResponse, Malformed> {
    let part = match part {
        CarriedPart::Carry(carry) => carried_response::Part::Carry(to_json(&carry)?),
        CarriedPart::Chunk(chunk) => carried_response::Part::Chunk(chunk),
    };
    Ok(peer::CarriedResponse { part: Some(part) })
}

pub(in crate::cluster::peers) fn carried(
    message: peer::CarriedResponse,
) -> Result<CarriedPart, Malformed> {
    match message.part.ok_or(Malformed("part"))? {
        carried_response::Part::Carry(carry) => Ok(CarriedPart::Carry(json(&carry)?)),
        carried_response::Part::Chunk(chunk) => Ok(CarriedPart::Chunk(chunk)),
    }
}

fn to_json(carry: &Carry) -> Result<Bytes, Malformed> {
    Ok(serde_json::to_vec(carry).map_err(|_| Malformed("carry"))?.into())
}

fn json(carry: &[u8]) -> Result<Carry, Malformed> {
    serde_json::from_slice(carry).map_err(|_| Malformed("carry"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::flush::files::FileKey;
    use crate::flush::sharing::KeptFiles;

    fn carry() -> Carry {
        Carry {
            aggregation: 3,
            window: Window { start: UnixNanos(0), end: UnixNanos(10) },
            slots: [255].into_iter().collect(),
            next: BTreeMap::from([(1, 5)]),
            state: json!({}),
        }
    }

    fn table() -> Kept {
        let window = Window { start: UnixNanos(1), end: UnixNanos(2) };
        let (slots, records) = ([255].into_iter().collect(), BTreeMap::from([(255, 5)]));
        Kept::Table { aggregation: 3, window, slots, summary: None, records }
    }

    fn files() -> Kept {
        let file = FileKey { aggregation: 3, hash: 255 << 120, session: 7 };
        let (checkpoints, files) = (BTreeMap::from([(255, 5)]), vec![file]);
        Kept::Files(KeptFiles { aggregation: 3, checkpoints, files })
    }

    fn read(message: Option<peer::KeepRequest>) -> Result<Kept, Malformed> {
        kept(message).map(|(_, kept)| kept)
    }

    #[test]
    fn what_is_to_be_kept_is_understood() {
        for sent in [table(), Kept::Carry(carry()), files()] {
            let message = to_begin(None, &sent).unwrap();
            let message = peer::KeepRequest::decode(&message.encode_to_vec()[..]).unwrap();
            assert_eq!(read(Some(message)), Ok(sent));
        }
        for sent in [CarriedPart::Carry(carry()), CarriedPart::Chunk(Bytes::from_static(b"a"))] {
            assert_eq!(carried(to_carried(sent.clone()).unwrap()), Ok(sent));
        }
    }

    #[test]
    fn a_message_that_does_not_say_what_is_kept_is_malformed() {
        assert_eq!(read(None), Err(Malformed("begin")));
        assert_eq!(read(Some(to_end())), Err(Malformed("begin")));
        let begin = peer::KeepBegin { caller: None, kept: None };
        let begin = to_request(keep_request::Part::Begin(begin));
        assert_eq!(read(Some(begin)), Err(Malformed("begin.kept")));
        assert_eq!(carried(peer::CarriedResponse::default()), Err(Malformed("part")));
    }

    #[test]
    fn the_bytes_of_what_is_kept_are_fixed() {
        let number = |tag, byte| [tag, byte, 0, 0, 0, 0, 0, 0, 0];
        let slots = [&[0x22, 32][..], &[0; 31], &[0x80]].concat();
        let records = [0x32, 5, 0x08, 0xff, 1, 0x10, 5];
        let of = [&[0x08, 3][..], &number(0x11, 1), &number(0x19, 2), &slots, &records].concat();
        let head = [0x0a, of.len() as u8 + 2, 0x12, of.len() as u8];
        let table = to_begin(None, &table()).unwrap().encode_to_vec();
        assert_eq!(table, [&head[..], &of].concat());
        let of = [0x08, 3, 0x12, 5, 0x08, 0xff, 1, 0x10, 5, 0x1a, 20, 0x0a, 16, 0xff];
        let of = [&of[..], &[0; 15], &[0x10, 7]].concat();
        let head = [0x0a, of.len() as u8 + 2, 0x22, of.len() as u8];
        let files = to_begin(None, &files()).unwrap().encode_to_vec();
        assert_eq!(files, [&head[..], &of].concat());
        let json = br#"{"aggregation":3,"window":{"start":0,"end":10},"slots":"255","next":{"1":5},"state":{}}"#;
        let length = json.len() as u8;
        let carry_sent = to_begin(None, &Kept::Carry(carry())).unwrap().encode_to_vec();
        assert_eq!(carry_sent, [&[0x0a, length + 2, 0x1a, length][..], json].concat());
        assert_eq!(to_chunk(Bytes::from_static(b"ab")).encode_to_vec(), *b"\x12\x02ab");
        assert_eq!(to_end().encode_to_vec(), [0x1a, 0]);
        let told = to_carried(CarriedPart::Carry(carry())).unwrap().encode_to_vec();
        assert_eq!(told, [&[0x0a, length][..], json].concat());
        let told = to_carried(CarriedPart::Chunk(Bytes::from_static(b"ab"))).unwrap();
        assert_eq!(told.encode_to_vec(), *b"\x12\x02ab");
    }
}
