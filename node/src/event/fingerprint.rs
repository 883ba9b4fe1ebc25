//! Keyed 128-bit hashes of content, and the slot that they choose.
//!
//! Counts claim to be exact, so two values must not share a fingerprint by chance
//! or by design: SipHash-1-3 with 128 bits, under a key that belongs to the
//! cluster's identity (docs/adr/0002-fingerprints.md).

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::event::value::{Tag, header, string_header};

/// The number of shards of the key space; it never changes.
pub const SLOTS: usize = 256;

// A slot is one byte of the key.
const _: () = assert!(SLOTS == 1 << u8::BITS);

/// The secret under which a cluster hashes; all its nodes share it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FingerprintKey(pub [u8; 16]);

/// A digest of bytes that anybody can make again. It tells apart what was not made to be
/// mistaken for each other.
pub fn digest(bytes: &[u8]) -> u128 {
    SipHasher13::new().hash(bytes).as_u128()
}

impl FingerprintKey {
    /// Tells whether two nodes have the same key without giving it away.
    pub fn digest(&self) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(b"sheaf handshake");
        hasher.finish128().as_u128()
    }

    /// The fingerprint of a string, the same as [`Self::canonical`] of its canonical
    /// bytes, which need not be built for it.
    pub fn string(&self, content: &[u8]) -> u128 {
        self.hash(string_header(content.len()), content)
    }

    /// The fingerprint of canonical bytes.
    pub fn canonical(&self, bytes: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(bytes);
        hasher.finish128().as_u128()
    }

    /// The hash of an attribute's value, from its canonical bytes: another function
    /// than the fingerprint, so that the two can be combined into one key.
    pub fn value(&self, bytes: &[u8]) -> u128 {
        self.hash(header(Tag::ValueHash, 0), bytes)
    }

    /// The hash of a header word and what follows it.
    fn hash(&self, header: u64, content: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        // A word at once: the same as its bytes, and faster.
        hasher.write_u64(header);
        hasher.write(content);
        hasher.finish128().as_u128()
    }
}

/// Does not show the key: whoever knows it can make counts collide.
impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

/// The key of an event: its fingerprint, taken together with the hash of the value
/// that it is counted under. The two come from separate domains, hence are
/// independent, even where the value is also the content.
pub fn event_key(value_hash: u128, fingerprint: u128) -> u128 {
    value_hash ^ fingerprint
}

/// The slot of an event's key: its top byte. Fixed, because stored keys are sorted by it.
pub fn slot_of(key: u128) -> u8 {
    let [top, ..] = key.to_be_bytes();
    top
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::value::{put_bool, put_bytes, put_double, put_header, put_int, put_string};

    /// The key of SipHash's own published vectors: 00 01 .. 0f.
    fn key() -> FingerprintKey {
        FingerprintKey(std::array::from_fn(|index| index as u8))
    }

    /// The expected numbers were computed by a separate implementation of SipHash-1-3-128.
    #[test]
    fn fingerprints_are_fixed_for_every_type() {
        let check = |expected: u128, put: &dyn Fn(&mut Vec<u8>)| {
            let mut canonical = Vec::new();
            put(&mut canonical);
            assert_eq!(key().canonical(&canonical), expected, "{canonical:02x?}");
        };
        check(0x25fbf3e33e8ff111e2b3f81d9780e3df, &|out| put_header(Tag::Absent, 0, out));
        check(0xebcbf88d728736017c2f445a304629bd, &|out| put_header(Tag::Empty, 0, out));
        check(0xa0533088ad5563f544d4515fb260258f, &|out| put_string(b"", out));
        check(0xc04cdc9f81c5a52a608c661ba3a22f6b, &|out| put_string(b"hello", out));
        check(0xce230c633e767ec32377861e5a4c8e20, &|out| put_bool(true, out));
        check(0x0f0c114ec45051a44d99216d6f27d384, &|out| put_bool(false, out));
        check(0xd66565afad1878de9472ef0a03d4abe2, &|out| put_int(1, out));
        check(0x381e7b0a7a65ecc6ab1a87fbcf6c40a2, &|out| put_int(-1, out));
        check(0x57e536c66406aae1f691a0a849e52135, &|out| put_string(b"1", out));
        check(0x4cb9410d197cc3797d36297e47faa364, &|out| put_double(-0.0, out));
        check(0xb5720106abd5812a1cbd8a923739322d, &|out| put_double(1.5, out));
        check(0x9a12c8637f7a97cf6b34d22be10417c2, &|out| put_double(-f64::NAN, out));
        check(0xd2e89b0dda3226ae59669a0e0d016789, &|out| put_double(f64::INFINITY, out));
        check(0xf3f987f6bccea02470d525f6f093fcc9, &|out| put_bytes(&[0, 255], out));
        check(0x9c23cdc7244fae3cca4154b93be3bee0, &|out| put_bytes(b"hello", out));
        check(0x5d345523e6f5bcdc30710c403b904d5f, &|out| put_header(Tag::Array, 0, out));
        check(0x3f0fb573b724b603700654c5f7970c09, &|out| put_header(Tag::Map, 0, out));
    }

    #[test]
    fn a_string_hashes_like_its_canonical_bytes() {
        for len in 0..40 {
            let content = vec![b'x'; len];
            let mut canonical = Vec::new();
            put_string(&content, &mut canonical);
            assert_eq!(key().string(&content), key().canonical(&canonical), "{len} bytes");
        }
    }

    #[test]
    fn the_hash_of_a_value_is_fixed_and_is_not_its_fingerprint() {
        let mut canonical = Vec::new();
        put_string(b"hello", &mut canonical);
        assert_eq!(key().value(&canonical), 0xabadb6db9d104b77d4add82c3cec7860);
        assert_ne!(key().value(&canonical), key().canonical(&canonical));
    }

    #[test]
    fn the_slot_is_the_top_byte() {
        assert_eq!(slot_of(0xab << 120), 0xab);
        assert_eq!(slot_of(u128::MAX >> 8), 0);
    }

    #[test]
    fn the_key_is_never_printed() {
        assert_eq!(format!("{:?}", key()), "FingerprintKey(..)");
    }
}
