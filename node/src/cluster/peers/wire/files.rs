//! What is told of rebuilt files.

use std::collections::BTreeMap;

use sheaf_proto::peer::{self, files_response};

use super::holdings::{records, to_records};
use super::{Malformed, number, to_number};
use crate::aggregation::log_files::session::{Held, Reached};
use crate::checkpoint::Digest;
use crate::cluster::peers::{Asked, FilePart};
use crate::event::chunk::Sequence;
use crate::flush::files::{FileKey, Known};
use crate::flush::sharing::KeptFiles;

pub(super) fn sequence(number: u64, field: &'static str) -> Result<Sequence, Malformed> {
    let number = i64::try_from(number).map_err(|_| Malformed(field))?;
    Sequence::try_from(number).map_err(|_| Malformed(field))
}

fn to_name(key: &FileKey) -> Option<peer::FileName> {
    Some(peer::FileName { hash: to_number(key.hash), session: key.session })
}

fn name(message: Option<peer::FileName>, aggregation: u32) -> Result<FileKey, Malformed> {
    let peer::FileName { hash, session } = message.ok_or(Malformed("file"))?;
    Ok(FileKey { aggregation, hash: number(&hash, "file.hash")?, session })
}

pub(super) fn to_kept_files(kept: &KeptFiles) -> peer::KeptFiles {
    let KeptFiles { aggregation, checkpoints, files } = kept;
    let files = files.iter().filter_map(to_name).collect();
    peer::KeptFiles { aggregation: *aggregation, checkpoints: to_records(checkpoints), files }
}

pub(super) fn kept_files(message: peer::KeptFiles) -> Result<KeptFiles, Malformed> {
    let peer::KeptFiles { aggregation, checkpoints, files } = message;
    let files = files.into_iter().map(|file| name(Some(file), aggregation));
    let (checkpoints, files) = (records(checkpoints)?, files.collect::<Result<_, _>>()?);
    Ok(KeptFiles { aggregation, checkpoints, files })
}

pub(in crate::cluster::peers) fn to_files_request(
    caller: Option<peer::Caller>,
    asked: &Asked,
) -> peer::FilesRequest {
    let Asked { aggregation, checkpoints, known, only_known } = asked;
    let known = known.iter().map(|(key, Known { reached, waiting })| peer::KnownFile {
        file: to_name(key),
        next: reached.next.number(),
        length: reached.length,
        digest: to_number(reached.digest.0),
        waiting: waiting.iter().map(|seq| seq.number()).collect(),
    });
    peer::FilesRequest {
        caller,
        aggregation: *aggregation,
        checkpoints: to_records(checkpoints),
        known: known.collect(),
        only_known: *only_known,
    }
}

/// Who asks, and for what.
pub(in crate::cluster::peers) fn asked(
    message: peer::FilesRequest,
) -> Result<(Option<peer::Caller>, Asked), Malformed> {
    let peer::FilesRequest { caller, aggregation, checkpoints, known, only_known } = message;
    let known = known.into_iter().map(|known| {
        let peer::KnownFile { file, next, length, digest, waiting } = known;
        let (next, digest) = (sequence(next, "known.next")?, number(&digest, "known.digest")?);
        let waiting = waiting.into_iter().map(|seq| sequence(seq, "known.waiting"));
        let waiting = waiting.collect::<Result<_, _>>()?;
        let reached = Reached { next, length, digest: Digest(digest) };
        Ok((name(file, aggregation)?, Known { reached, waiting }))
    });
    let known: BTreeMap<_, _> = known.collect::<Result<_, Malformed>>()?;
    let checkpoints = records(checkpoints)?;
    Ok((caller, Asked { aggregation, checkpoints, known, only_known }))
}

pub(in crate::cluster::peers) fn to_file_part(
    part: FilePart,
) -> Result<peer::FilesResponse, Malformed> {
    use files_response::Part;
    let part = match part {
        FilePart::Begin { key, kept, continues } => {
            let kept = serde_json::to_vec(&kept).map_err(|_| Malformed("begin.kept"))?.into();
            Part::Begin(peer::FileBegin { file: to_name(&key), kept, continues })
        }
        FilePart::Fingerprints(chunks) => Part::Fingerprints(chunks),
        FilePart::Gone(begin) => Part::Gone(begin),
        FilePart::Bytes(bytes) => Part::Bytes(bytes),
        FilePart::Waiting(seq, Held { fingerprint, payload }) => {
            let (seq, fingerprint) = (seq.number(), to_number(fingerprint));
            Part::Waiting(peer::WaitingChunk { seq, fingerprint, payload })
        }
    };
    Ok(peer::FilesResponse { part: Some(part) })
}

pub(in crate::cluster::peers) fn file_part(
    message: peer::FilesResponse,
    aggregation: u32,
) -> Result<FilePart, Malformed> {
    use files_response::Part;
    match message.part.ok_or(Malformed("part"))? {
        Part::Begin(peer::FileBegin { file, kept, continues }) => {
            let kept = serde_json::from_slice(&kept).map_err(|_| Malformed("begin.kept"))?;
            Ok(FilePart::Begin { key: name(file, aggregation)?, kept, continues })
        }
        Part::Fingerprints(chunks) if !chunks.len().is_multiple_of(16) => {
            Err(Malformed("fingerprints"))
        }
        Part::Fingerprints(chunks) => Ok(FilePart::Fingerprints(chunks)),
        Part::Gone(begin) => Ok(FilePart::Gone(begin)),
        Part::Bytes(bytes) => Ok(FilePart::Bytes(bytes)),
        Part::Waiting(peer::WaitingChunk { seq, fingerprint, payload }) => {
            let fingerprint = number(&fingerprint, "waiting.fingerprint")?;
            let seq = sequence(seq, "waiting.seq")?;
            Ok(FilePart::Waiting(seq, Held { fingerprint, payload }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::flush::files::{Kept, Version};

    const KEY: FileKey = FileKey { aggregation: 3, hash: 255 << 120, session: 7 };

    fn seq(number: i64) -> Sequence {
        Sequence::try_from(number).unwrap()
    }

    fn for_all() -> Asked {
        let reached = Reached { next: seq(2), length: 300, digest: Digest(1) };
        let known = [(KEY, Known { reached, waiting: BTreeSet::from([seq(4)]) })].into();
        let checkpoints = [(255, 5)].into();
        Asked { aggregation: 3, checkpoints, known, only_known: true }
    }

    fn parts() -> [FilePart; 5] {
        let (id, now) = ("a".to_owned().try_into().unwrap(), Version::default());
        let held = Held { fingerprint: 9, payload: Bytes::from_static(b"x") };
        [
            FilePart::Begin {
                key: KEY,
                kept: Kept { id, now, before: None }.into(),
                continues: true,
            },
            FilePart::Fingerprints(Bytes::from_static(&[1; 16])),
            FilePart::Bytes(Bytes::from_static(b"ab")),
            FilePart::Waiting(seq(4), held),
            FilePart::Gone(300),
        ]
    }

    #[test]
    fn what_is_asked_for_and_what_is_sent_are_understood() {
        let sent = to_files_request(None, &for_all()).encode_to_vec();
        let read = peer::FilesRequest::decode(&sent[..]).unwrap();
        assert_eq!(asked(read).map(|(_, asked)| asked), Ok(for_all()));
        for part in parts() {
            let sent = to_file_part(part.clone()).unwrap().encode_to_vec();
            let read = peer::FilesResponse::decode(&sent[..]).unwrap();
            assert_eq!(file_part(read, 3), Ok(part));
        }
    }

    #[test]
    fn the_bytes_of_files_are_fixed() {
        let one = [&[0; 15][..], &[1]].concat();
        let file = [&[0x0a, 20, 0x0a, 16, 0xff][..], &[0; 15], &[0x10, 7]].concat();
        let known = [&[0x10, 2, 0x18, 0xac, 2, 0x22, 16][..], &one, &[0x2a, 1, 4]].concat();
        let known = [&[0x22, 48][..], &file, &known].concat();
        let head = [0x10, 3, 0x1a, 5, 0x08, 0xff, 1, 0x10, 5];
        let request = to_files_request(None, &for_all()).encode_to_vec();
        assert_eq!(request, [&head[..], &known, &[0x28, 1]].concat());
        let sent = parts().map(|part| to_file_part(part).unwrap().encode_to_vec());
        let kept = br#"{"id":"a","now":{"checkpoint":0,"reached":{"next":1,"length":0,"digest":"00000000000000000000000000000000"},"contradicting":0}}"#;
        let begin = [&file[..], &[0x12, kept.len() as u8], kept, &[0x18, 1]].concat();
        assert_eq!(sent[0], [&[0x0a, begin.len() as u8, 1][..], &begin].concat());
        assert_eq!(sent[1], [&[0x12, 16][..], &[1; 16]].concat());
        assert_eq!(sent[2], b"\x1a\x02ab");
        let nine = [&[0; 15][..], &[9]].concat();
        assert_eq!(sent[3], [&[0x22, 23, 0x08, 4, 0x12, 16][..], &nine, b"\x1a\x01x"].concat());
        assert_eq!(sent[4], [0x28, 0xac, 2]);
    }

    #[test]
    fn what_no_owner_sends_is_malformed() {
        assert_eq!(file_part(peer::FilesResponse::default(), 3), Err(Malformed("part")));
        let half = files_response::Part::Fingerprints(Bytes::from_static(&[1; 8]));
        let half = peer::FilesResponse { part: Some(half) };
        assert_eq!(file_part(half, 3), Err(Malformed("fingerprints")));
        let mut request = to_files_request(None, &for_all());
        request.known[0].next = 0;
        assert_eq!(asked(request).map(drop), Err(Malformed("known.next")));
    }
}
