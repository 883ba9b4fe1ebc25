//! Chunks as bytes.
#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::Bytes;

/// A chunk to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: &'static str,
    pub(crate) session: u64,
    pub(crate) seq: i64,
    pub(crate) payload: Bytes,
}

/// A chunk of session 7 of a file.
pub(crate) fn part(seq: i64, payload: impl Into<Bytes>) -> Part {
    Part { id: "log1.log", session: 7, seq, payload: payload.into() }
}

impl Part {
    /// As a `LogPart`, written by hand.
    pub(crate) fn encode(&self) -> Bytes {
        let mut message = vec![0x0a];
        varint(self.id.len() as u64, &mut message);
        message.extend_from_slice(self.id.as_bytes());
        message.push(0x11);
        message.extend_from_slice(&self.session.to_le_bytes());
        message.push(0x18);
        varint(self.seq.cast_unsigned(), &mut message);
        message.push(0x22);
        varint(self.payload.len() as u64, &mut message);
        message.extend_from_slice(&self.payload);
        message.into()
    }

    /// As a gRPC message, behind its prefix.
    pub(crate) fn message(&self) -> Bytes {
        message(0, &self.encode())
    }
}

/// A gRPC message behind its prefix.
pub(crate) fn message(flag: u8, bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], bytes].concat().into()
}

/// A field that claims to be longer than what follows.
pub(crate) const UNDECODABLE: &[u8] = &[0x0a, 0x7f, 0x01];

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
