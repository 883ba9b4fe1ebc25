//! What readers are told of rebuilt files.

use sheaf_proto::files::RebuiltFile;
use sheaf_proto::peer::{self, list_request};

use super::{Malformed, number, slots, to_number, to_slots};
use crate::checkpoint::Digest;
use crate::cluster::peers::{FilePiece, Told};
use crate::event::chunk::StreamId;
use crate::flush::files::{Named, Shown, Wanted};

pub(in crate::cluster::peers) fn to_list_request(
    caller: Option<peer::Caller>,
    wanted: &Wanted,
) -> peer::ListRequest {
    let Wanted { aggregation, slots, named, after, limit } = wanted;
    let named = match named {
        Named::Prefix(prefix) => list_request::Named::Prefix(prefix.clone()),
        Named::Hash(hash) => list_request::Named::Hash(to_number(*hash)),
    };
    let after = after.clone().map(|(id, session)| peer::FilePlace { id, session });
    peer::ListRequest {
        caller,
        aggregation: *aggregation,
        slots: to_slots(*slots),
        named: Some(named),
        after,
        limit: u32::try_from(*limit).unwrap_or(u32::MAX),
    }
}

/// Who asks, and for what.
pub(in crate::cluster::peers) fn wanted(
    message: peer::ListRequest,
) -> Result<(Option<peer::Caller>, Wanted), Malformed> {
    let peer::ListRequest { caller, aggregation, slots, named, after, limit } = message;
    let named = match named.ok_or(Malformed("named"))? {
        list_request::Named::Prefix(prefix) => Named::Prefix(prefix),
        list_request::Named::Hash(hash) => Named::Hash(number(&hash, "hash")?),
    };
    let after = after.map(|peer::FilePlace { id, session }| (id, session));
    let (slots, limit) = (self::slots(&slots)?, limit as usize);
    Ok((caller, Wanted { aggregation, slots, named, after, limit }))
}

pub(in crate::cluster::peers) fn to_told(told: Told) -> peer::ListResponse {
    let Told { slots, led, files } = told;
    let files = files.into_iter().map(|Shown { file, digest }| peer::ListedFile {
        id: file.id,
        session: file.session,
        bytes: file.bytes,
        digest: to_number(digest.0),
        checkpointed_bytes: file.checkpointed_bytes,
        waits_for: file.waits_for,
        waiting: file.waiting,
        contradicting: file.contradicting,
        removed: file.removed_bytes,
    });
    peer::ListResponse { slots: to_slots(slots), led: to_slots(led), files: files.collect() }
}

pub(in crate::cluster::peers) fn told(message: peer::ListResponse) -> Result<Told, Malformed> {
    let files = message.files.into_iter().map(|listed| {
        let digest = Digest(number(&listed.digest, "files.digest")?);
        let file = RebuiltFile {
            id: listed.id,
            session: listed.session,
            bytes: listed.bytes,
            checkpointed_bytes: listed.checkpointed_bytes,
            waits_for: listed.waits_for,
            waiting: listed.waiting,
            contradicting: listed.contradicting,
            removed_bytes: listed.removed,
        };
        Ok(Shown { file, digest })
    });
    let files = files.collect::<Result<_, Malformed>>()?;
    Ok(Told { slots: slots(&message.slots)?, led: slots(&message.led)?, files })
}

pub(in crate::cluster::peers) fn to_read_request(
    caller: Option<peer::Caller>,
    piece: &FilePiece,
) -> peer::ReadRequest {
    let FilePiece { aggregation, id, session, part } = piece;
    let (id, from, to) = (id.as_str().to_owned(), part.start, part.end);
    peer::ReadRequest { caller, aggregation: *aggregation, id, session: *session, from, to }
}

/// Who asks, and for what.
pub(in crate::cluster::peers) fn piece(
    message: peer::ReadRequest,
) -> Result<(Option<peer::Caller>, FilePiece), Malformed> {
    let peer::ReadRequest { caller, aggregation, id, session, from, to } = message;
    let id = StreamId::try_from(id).map_err(|_| Malformed("id"))?;
    Ok((caller, FilePiece { aggregation, id, session, part: from..to }))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::event::slots::SlotSet;

    fn of(slots: &str) -> SlotSet {
        slots.parse().unwrap()
    }

    fn for_two() -> Wanted {
        let (named, after) = (Named::Hash(1), Some(("a".to_owned(), 7)));
        Wanted { aggregation: 3, slots: of("0-7"), named, after, limit: 2 }
    }

    fn one_file() -> Told {
        let file = RebuiltFile {
            id: "b".to_owned(),
            session: 8,
            bytes: 300,
            checkpointed_bytes: 5,
            waits_for: Some(4),
            waiting: 2,
            contradicting: 1,
            removed_bytes: 3,
        };
        let files = vec![Shown { file, digest: Digest(1) }];
        Told { slots: of("0-7"), led: of("8"), files }
    }

    fn some_bytes() -> FilePiece {
        let id = "a".to_owned().try_into().unwrap();
        FilePiece { aggregation: 3, id, session: 7, part: 1..300 }
    }

    #[test]
    fn what_readers_ask_for_and_are_told_is_understood() {
        let by_prefix = Wanted { named: Named::Prefix("ab".to_owned()), after: None, ..for_two() };
        for asked in [for_two(), by_prefix] {
            let sent = to_list_request(None, &asked).encode_to_vec();
            let read = wanted(peer::ListRequest::decode(&sent[..]).unwrap());
            assert_eq!(read.map(|(_, wanted)| wanted), Ok(asked));
        }
        let sent = to_told(one_file()).encode_to_vec();
        assert_eq!(told(peer::ListResponse::decode(&sent[..]).unwrap()), Ok(one_file()));
        let sent = to_read_request(None, &some_bytes()).encode_to_vec();
        let read = piece(peer::ReadRequest::decode(&sent[..]).unwrap());
        assert_eq!(read.map(|(_, piece)| piece), Ok(some_bytes()));
    }

    #[test]
    fn the_bytes_of_lists_are_fixed() {
        let one = [&[16][..], &[0; 15], &[1]].concat();
        let slots = |first: u8, second: u8| [&[32, first, second][..], &[0; 30]].concat();
        let request = to_list_request(None, &for_two()).encode_to_vec();
        let after = [0x32, 5, 0x0a, 1, b'a', 0x10, 7, 0x38, 2];
        let head = [&[0x10, 3, 0x1a][..], &slots(255, 0), &[0x2a], &one].concat();
        assert_eq!(request, [&head[..], &after].concat());
        let file = [
            &[0x0a, 1, b'b', 0x10, 8, 0x18, 0xac, 2, 0x22][..],
            &one,
            &[0x28, 5, 0x30, 4, 0x38, 2, 0x40, 1, 0x48, 3],
        ];
        let file = file.concat();
        let response = to_told(one_file()).encode_to_vec();
        let head = [&[0x0a][..], &slots(255, 0), &[0x12], &slots(0, 1)].concat();
        assert_eq!(response, [&head[..], &[0x1a, file.len() as u8], &file].concat());
        let request = to_read_request(None, &some_bytes()).encode_to_vec();
        assert_eq!(request, [0x10, 3, 0x1a, 1, b'a', 0x20, 7, 0x28, 1, 0x30, 0xac, 2]);
    }

    #[test]
    fn what_no_reader_asks_for_is_malformed() {
        let unnamed = peer::ListRequest { named: None, ..to_list_request(None, &for_two()) };
        assert_eq!(wanted(unnamed).map(drop), Err(Malformed("named")));
        let nobody =
            peer::ReadRequest { id: String::new(), ..to_read_request(None, &some_bytes()) };
        assert_eq!(piece(nobody).map(drop), Err(Malformed("id")));
    }
}
