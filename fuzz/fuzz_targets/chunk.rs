//! Whatever prost decodes as a `LogPart` is read as a chunk with the same content, or as one that
//! can never be taken. Whatever prost does not decode is no chunk.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use sheaf_node::event::chunk::{InvalidChunk, Sequence, StreamId};
use sheaf_node::source::chunks::part::{Unusable, decode};
use sheaf_proto::chunks::LogPart;

fuzz_target!(|input: &[u8]| {
    let message = Bytes::copy_from_slice(input);
    let read = decode(&message);
    let Ok(LogPart { id, session, seq, payload }) = LogPart::decode(message) else {
        assert!(matches!(read, Err(Unusable::Undecodable(_) | Unusable::NotUtf8)), "{read:?}");
        return;
    };
    let expected = StreamId::check(&id).and(Sequence::try_from(seq));
    match (read, expected) {
        (Ok(chunk), Ok(seq)) => {
            assert_eq!((chunk.id.as_str(), chunk.session, chunk.seq), (id.as_str(), session, seq));
            assert_eq!(chunk.payload, payload);
        }
        (Err(Unusable::Invalid(read)), Err::<_, InvalidChunk>(expected)) => {
            assert_eq!(read, expected);
        }
        (read, expected) => panic!("{read:?}, and not {expected:?}"),
    }
});
