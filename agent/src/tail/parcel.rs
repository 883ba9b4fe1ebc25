//! A chunk as it goes over the wire: a gRPC message in two parts, so that a large payload is not
//! copied.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use sheaf_proto::chunks::LogPart;

use super::{
    mailbox::{Answer, Verdict},
    session::Key,
};

/// `LogPart.payload`.
const PAYLOAD_TAG: u32 = 4;
const GRPC_PREFIX_BYTES: usize = 5;

/// About how much memory a parcel takes beside its payload: its head, bytes before the payload
/// that were read with it, and what HTTP/2 keeps.
const OVERHEAD_BYTES: usize = 3 << 10;

/// A chunk on its way.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) key: Key,
    pub(crate) seq: u64,
    /// The message up to the payload, gRPC's prefix included.
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

impl Parcel {
    /// Chunk `seq` of a session of this id and number.
    pub(crate) fn new(key: Key, id: &str, session: u64, seq: u64, payload: Bytes) -> Parcel {
        let part = LogPart {
            id: id.to_owned(),
            session,
            // Nobody cuts that many.
            seq: i64::try_from(seq).unwrap_or(i64::MAX),
            payload: Bytes::new(),
        };
        let mut head = BytesMut::with_capacity(GRPC_PREFIX_BYTES + id.len() + 40);
        head.put_bytes(0, GRPC_PREFIX_BYTES);
        let mut fields = part.encode_to_vec();
        encode_key(PAYLOAD_TAG, WireType::LengthDelimited, &mut fields);
        encode_varint(payload.len() as u64, &mut fields);
        head.put_slice(&fields);
        let length = (fields.len() + payload.len()) as u32;
        head[1..GRPC_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        Parcel { key, seq, head: head.freeze(), payload }
    }

    /// What a node said to it.
    pub(crate) fn answered(&self, verdict: Verdict) -> Answer {
        Answer { key: self.key, seq: self.seq, weight: self.weight(), verdict }
    }

    /// About how much memory it takes.
    pub(crate) fn weight(&self) -> usize {
        self.payload.len() + OVERHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_is_a_grpc_message() {
        for payload in [&b""[..], b"one\n", &[7; 300]] {
            let payload = Bytes::copy_from_slice(payload);
            let parcel = Parcel::new(1, "host/log", 1 << 40, 300, payload.clone());
            let bytes = [&parcel.head[..], &parcel.payload].concat();
            let (prefix, message) = bytes.split_at(5);
            assert_eq!(prefix[0], 0);
            assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
            let part = LogPart::decode(message).unwrap();
            assert_eq!((&part.id[..], part.session, part.seq), ("host/log", 1 << 40, 300));
            assert_eq!(part.payload, payload);
        }
    }
}
