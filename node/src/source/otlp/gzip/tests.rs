use libdeflater::{CompressionLvl, Compressor};

use super::*;

const LIMIT: usize = 1 << 20;

fn member(content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut bytes = vec![0; compressor.gzip_compress_bound(content.len())];
    let size = compressor.gzip_compress(content, &mut bytes).unwrap();
    bytes.truncate(size);
    bytes
}

/// Like log lines: compressible, but not a run of one byte.
fn lines(bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes + 32);
    for line in 0.. {
        if content.len() >= bytes {
            break;
        }
        content.extend_from_slice(format!("line {} ok\n", line * 7919 % 10_007).as_bytes());
    }
    content.truncate(bytes);
    content
}

fn lie_about_size(mut compressed: Vec<u8>, size: u32) -> Vec<u8> {
    let at = compressed.len() - 4;
    compressed[at..].copy_from_slice(&size.to_le_bytes());
    compressed
}

/// What came out, and the room that was charged for it, step by step.
fn gunzip(compressed: &[u8], limit: usize) -> (Result<Vec<u8>, GunzipError>, Vec<usize>) {
    let mut gunzip = Gunzip::new(compressed, limit);
    let mut charged = Vec::new();
    loop {
        let before = gunzip.output.capacity();
        assert!(before <= charged.iter().sum(), "memory is charged first");
        match gunzip.step() {
            Ok(Step::NeedsRoom(bytes)) => {
                assert!(bytes > 0);
                charged.push(bytes);
            }
            Ok(Step::Done(inflated)) => {
                assert_eq!(inflated.capacity(), inflated.len());
                return (Ok(inflated), charged);
            }
            Err(refused) => return (Err(refused), charged),
        }
        assert!(charged.iter().sum::<usize>() <= limit);
    }
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, GunzipError> {
    gunzip(compressed, LIMIT).0
}

#[test]
fn one_member_is_charged_exactly_and_once() {
    for size in [1, 100, 4096, 300_000, LIMIT] {
        let content = lines(size);
        let (inflated, charged) = gunzip(&member(&content), LIMIT);
        assert_eq!(inflated, Ok(content));
        assert_eq!(charged, [size]);
    }
}

#[test]
fn an_empty_member_needs_no_room() {
    assert_eq!(gunzip(&member(b""), LIMIT), (Ok(Vec::new()), vec![]));
    assert_eq!(gunzip(&member(b""), 0), (Ok(Vec::new()), vec![]));
}

#[test]
fn every_member_is_read_whatever_their_sizes() {
    let sizes = [10, 0, 70_000, 1, 0, 300_000, 5, 100, 0];
    let contents: Vec<_> = sizes.into_iter().map(lines).collect();
    let members: Vec<_> = contents.iter().map(|content| member(content)).collect();
    assert_eq!(inflate(&members.concat()), Ok(contents.concat()));

    let reversed: Vec<_> = members.into_iter().rev().collect();
    let contents: Vec<_> = contents.into_iter().rev().collect();
    assert_eq!(inflate(&reversed.concat()), Ok(contents.concat()));
}

#[test]
fn room_for_many_members_is_asked_for_a_few_times_only() {
    let content = lines(100);
    let (inflated, charged) = gunzip(&member(&content).repeat(10_000), LIMIT);
    assert_eq!(inflated, Ok(content.repeat(10_000)));
    assert!(charged.len() < 12, "{charged:?}");
}

#[test]
fn members_with_every_optional_header_are_read() {
    let plain = member(b"content");
    // FHCRC, FEXTRA, FNAME and FCOMMENT, and the fields that they announce.
    let mut full = plain.clone();
    full[3] = 0x1e;
    full.splice(10..10, *b"\x03\x00abcname\0comment\0\x00\x00");
    assert_eq!(inflate(&[full, plain].concat()), Ok(b"contentcontent".to_vec()));
}

#[test]
fn what_is_not_gzip_is_corrupt() {
    let zlib = b"\x78\x9c\x03\x00\x00\x00\x00\x01";
    for bytes in [&b""[..], b"\x1f", b"plain text, and more of it", zlib] {
        assert_eq!(inflate(bytes), Err(GunzipError::Corrupt { member: 1 }));
    }
}

#[test]
fn garbage_after_a_member_is_corrupt_and_says_which() {
    for garbage in [&b"\0"[..], b"x", &[0; 512], b"\x1f\x8b\x08"] {
        let compressed = [&member(b"one")[..], &member(b"two"), garbage].concat();
        assert_eq!(inflate(&compressed), Err(GunzipError::Corrupt { member: 3 }));
    }
}

#[test]
fn a_body_cut_short_anywhere_but_between_members_is_corrupt() {
    let first = member(&lines(1000));
    let compressed = [&first[..], &member(&lines(2000))].concat();
    for end in 0..compressed.len() {
        match inflate(&compressed[..end]) {
            Ok(inflated) => assert_eq!((end, inflated.len()), (first.len(), 1000)),
            Err(refused) => {
                let member = 1 + usize::from(end > first.len());
                assert_eq!(refused, GunzipError::Corrupt { member }, "cut at {end}");
            }
        }
    }
}

#[test]
fn a_flipped_bit_gives_an_error_or_the_same_content() {
    let content = [lines(500), lines(300)].concat();
    let mut compressed = [member(&lines(500)), member(&lines(300))].concat();
    let mut refused = 0;
    for bit in 0..compressed.len() * 8 {
        compressed[bit / 8] ^= 1 << (bit % 8);
        match inflate(&compressed) {
            Ok(inflated) => assert_eq!(inflated, content, "bit {bit}"),
            Err(_) => refused += 1,
        }
        compressed[bit / 8] ^= 1 << (bit % 8);
    }
    // Time, flags and system of the two headers are all that may differ.
    assert!(compressed.len() * 8 - refused <= 2 * 7 * 8);
}

#[test]
fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let content = lines(10_000);
    let split = [member(&content[..6000]), member(&content[6000..]), member(b"")].concat();
    for compressed in [member(&content), split] {
        assert_eq!(gunzip(&compressed, 10_000).0, Ok(content.clone()));
        assert_eq!(gunzip(&compressed, 9999).0, Err(GunzipError::TooLarge { limit: 9999 }));
        assert_eq!(gunzip(&compressed, 0).0, Err(GunzipError::TooLarge { limit: 0 }));
    }
}

#[test]
fn a_bomb_is_refused_at_the_limit() {
    let bomb = member(&vec![0; 64 << 20]);
    assert!(bomb.len() < 70_000);
    for compressed in [
        bomb.clone(),
        lie_about_size(bomb.clone(), 0),
        bomb.repeat(20),
        member(&vec![0; LIMIT / 4]).repeat(5),
    ] {
        let (inflated, charged) = gunzip(&compressed, LIMIT);
        assert_eq!(inflated, Err(GunzipError::TooLarge { limit: LIMIT }));
        assert_eq!(charged.iter().sum::<usize>(), LIMIT);
    }
}

#[test]
fn a_member_that_lies_about_its_size_is_corrupt() {
    let honest = member(&lines(5000));
    for size in [0, 1, 4999, 5001, 1 << 20, u32::MAX] {
        assert_eq!(
            inflate(&lie_about_size(honest.clone(), size)),
            Err(GunzipError::Corrupt { member: 1 }),
            "{size}"
        );
    }
}

#[test]
fn a_small_body_cannot_charge_more_than_deflate_could_give() {
    let lie = lie_about_size(member(b"small"), u32::MAX);
    let (_, charged) = gunzip(&lie, 1 << 30);
    assert!(charged.iter().sum::<usize>() <= lie.len() * DEFLATE_RATIO_MAX);
}
