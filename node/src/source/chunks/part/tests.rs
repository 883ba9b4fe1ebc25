use proptest::prelude::*;
use prost::Message as _;
use sheaf_proto::chunks::LogPart;

use super::*;

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// One field, as the wire format has it.
fn delimited(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    varint(number << 3 | 2, &mut field);
    varint(bytes.len() as u64, &mut field);
    [&field, bytes].concat()
}

fn fixed64(number: u64, value: u64) -> Vec<u8> {
    let mut field = Vec::new();
    varint(number << 3 | 1, &mut field);
    [&field[..], &value.to_le_bytes()].concat()
}

fn integer(number: u64, value: i64) -> Vec<u8> {
    let mut field = Vec::new();
    varint(number << 3, &mut field);
    varint(value.cast_unsigned(), &mut field);
    field
}

fn read(fields: &[Vec<u8>]) -> Result<Chunk, Unusable> {
    decode(&fields.concat().into())
}

fn chunk(id: &str, session: u64, seq: i64, payload: &'static [u8]) -> Chunk {
    let (id, seq) = (id.to_owned().try_into().unwrap(), seq.try_into().unwrap());
    Chunk { id, session, seq, payload: payload.into() }
}

#[test]
fn a_message_that_another_implementation_wrote_is_read() {
    // Python's protobuf 6, of LogPart(id="host/log1.log", session=1763801234567, seq=300, payload=b"a\n\0\xff").
    let written =
        b"\x0a\x0dhost/log1.log\x11\x87\xfc\xbe\xaa\x9a\x01\0\0\x18\xac\x02\x22\x04a\n\0\xff";
    let expected = chunk("host/log1.log", 1_763_801_234_567, 300, b"a\n\0\xff");
    assert_eq!(decode(&Bytes::from_static(written)), Ok(expected));
}

#[test]
fn fields_come_in_any_order_and_those_that_are_not_there_are_empty() {
    let fields = [integer(3, 7), delimited(4, b"x"), fixed64(2, 1 << 63), delimited(1, b"a")];
    assert_eq!(read(&fields), Ok(chunk("a", 1 << 63, 7, b"x")));
    assert_eq!(read(&[integer(3, 1), delimited(1, b"a")]), Ok(chunk("a", 0, 1, b"")));
    assert_eq!(
        read(&[integer(3, 1), delimited(1, b"a"), delimited(4, b"")]),
        Ok(chunk("a", 0, 1, b""))
    );
}

#[test]
fn of_a_field_that_comes_again_the_last_one_counts() {
    let first = [delimited(1, b"a"), fixed64(2, 1), integer(3, 1), delimited(4, b"long")].concat();
    let second = [delimited(4, b"x"), integer(3, 2), fixed64(2, 2), delimited(1, b"b")].concat();
    assert_eq!(read(&[first, second]), Ok(chunk("b", 2, 2, b"x")));
}

#[test]
fn unknown_fields_are_skipped() {
    let known = [delimited(1, b"a"), integer(3, 1)].concat();
    let group = [&[0x2b], &delimited(1, b"inside")[..], &[0x2c]].concat();
    let float = [0x35, 0, 0, 0x80, 0x3f].to_vec();
    let unknown = [delimited(15, b"?"), fixed64(16, 1), integer(536_870_911, -1), group, float];
    assert_eq!(
        read(&[unknown.concat(), known.clone(), unknown.concat()]),
        Ok(chunk("a", 0, 1, b""))
    );
    assert_eq!(read(&[known, vec![0x0c]]), Err(Undecodable::GroupEnd.into()));
}

#[test]
fn what_can_never_be_taken_is_told_apart_from_what_is_no_message() {
    let with_seq = |seq| read(&[delimited(1, b"a"), integer(3, seq)]);
    assert_eq!(with_seq(i64::MAX).unwrap().seq.number(), i64::MAX as u64);
    for seq in [0, -1, i64::MIN] {
        assert_eq!(with_seq(seq), Err(InvalidChunk::Sequence(seq).into()));
    }
    assert_eq!(read(&[]), Err(InvalidChunk::NoId.into()));
    assert_eq!(read(&[delimited(1, b"a")]), Err(InvalidChunk::Sequence(0).into()));
    let id = [b'a'; 1025];
    assert_eq!(
        read(&[delimited(1, &id), integer(3, 1)]),
        Err(InvalidChunk::IdTooLong(1025).into())
    );
    assert_eq!(read(&[delimited(1, b"\xff"), integer(3, 1)]), Err(Unusable::NotUtf8));
    assert_eq!(
        read(&[delimited(1, b"\xff"), delimited(1, b"a"), integer(3, 1)]),
        Err(Unusable::NotUtf8)
    );
    for (fields, number) in
        [(integer(1, 1), 1), (integer(2, 1), 2), (fixed64(3, 1), 3), (integer(4, 1), 4)]
    {
        let wrong = Undecodable::WireType { message: LOG_PART, field: number };
        assert_eq!(read(&[fields]), Err(wrong.into()));
    }
    for garbage in [&b"GET / HTTP/1.1"[..], b"\x0a\x05a", b"\x18\x80", b"{\"id\":\"a\"}"] {
        assert!(matches!(decode(&Bytes::from_static(garbage)), Err(Unusable::Undecodable(_))));
    }
}

#[test]
fn a_payload_is_a_slice_of_the_message() {
    let message =
        Bytes::from([delimited(1, b"a"), integer(3, 1), delimited(4, &[7; 1000])].concat());
    let payload = decode(&message).unwrap().payload;
    assert_eq!(payload.as_ptr(), message[message.len() - 1000..].as_ptr());
}

/// A field, well made or not.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        "[a-zä]{0,20}".prop_map(|id| delimited(1, id.as_bytes())),
        any::<u64>().prop_map(|session| fixed64(2, session)),
        any::<i64>().prop_map(|seq| integer(3, seq)),
        (0..9_i64).prop_map(|seq| integer(3, seq)),
        (1..9_u64, bytes.clone()).prop_map(|(number, bytes)| delimited(number, &bytes)),
        (1..9_u64, any::<i64>()).prop_map(|(number, value)| integer(number, value)),
        bytes,
    ]
}

proptest! {
    #[test]
    fn what_is_read_is_what_prost_reads(fields in prop::collection::vec(field(), 0..8)) {
        let message = Bytes::from(fields.concat());
        match (decode(&message), LogPart::decode(message.clone())) {
            (Ok(chunk), Ok(part)) => {
                prop_assert_eq!(chunk.id.as_str(), &part.id);
                prop_assert_eq!(chunk.session, part.session);
                prop_assert_eq!(chunk.seq.number(), part.seq.cast_unsigned());
                prop_assert_eq!(chunk.payload, part.payload);
            }
            (Err(Unusable::Invalid(InvalidChunk::NoId)), Ok(part)) => prop_assert_eq!(part.id, ""),
            (Err(Unusable::Invalid(InvalidChunk::Sequence(seq))), Ok(part)) => {
                prop_assert_eq!(seq, part.seq);
            }
            (Err(Unusable::Undecodable(_) | Unusable::NotUtf8), Err(_)) => {}
            (ours, theirs) => panic!("{ours:?}, but {:?}", theirs.map(|part| part.encode_to_vec())),
        }
    }
}
