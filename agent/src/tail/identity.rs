//! Which file it is: told by what the file system says and by bytes that were read before.

use siphasher::sip128::SipHasher13;

/// How many bytes a fingerprint covers at most.
pub(crate) const FINGERPRINT_BYTES: usize = 1024;

/// What the file system knows a file by. The number of a deleted file is given to another, so the
/// time of its birth belongs to it, where the file system tells one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) device: u64,
    pub(crate) number: u64,
    /// Nanoseconds since 1970.
    pub(crate) born: Option<i64>,
}

/// Up to 1 KiB of a file: how many bytes, and a hash of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) length: u16,
    pub(crate) hash: u128,
}

/// How far a file was read, and what it had there: enough to find out whether it still does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Where the next byte to read stands.
    pub(crate) offset: u64,
    /// The file's first bytes, all that were read up to 1 KiB.
    pub(crate) head: Fingerprint,
    /// The last bytes before `offset`.
    pub(crate) tail: Fingerprint,
}

/// What was found where a trace leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) inode: Inode,
    pub(crate) size: u64,
    /// As many of the first bytes as the trace has.
    pub(crate) head: Fingerprint,
    /// As many bytes before the trace's offset as the trace has.
    pub(crate) tail: Fingerprint,
}

/// What a file is to one that was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// The same incarnation: read on.
    Same,
    /// The same place on disk, with other bytes: it was truncated, and perhaps grew again.
    Rewritten,
    /// Another place on disk with the same bytes.
    Copy,
    /// Another file.
    Other,
}

impl Inode {
    /// What no two files have at the same time.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.device, self.number)
    }

    /// Whether both are the same, as far as the file system tells.
    pub(crate) fn is(&self, other: &Inode) -> bool {
        let births_differ = self.born.zip(other.born).is_some_and(|(one, two)| one != two);
        self.place() == other.place() && !births_differ
    }
}

impl Fingerprint {
    /// Of the first bytes.
    pub(crate) fn of_head(bytes: &[u8]) -> Fingerprint {
        Fingerprint::of(&bytes[..bytes.len().min(FINGERPRINT_BYTES)])
    }

    /// Of the last bytes.
    pub(crate) fn of_tail(bytes: &[u8]) -> Fingerprint {
        Fingerprint::of(&bytes[bytes.len().saturating_sub(FINGERPRINT_BYTES)..])
    }

    fn of(bytes: &[u8]) -> Fingerprint {
        if bytes.is_empty() {
            return Fingerprint::default();
        }
        let hash = SipHasher13::new().hash(bytes).as_u128();
        Fingerprint { length: bytes.len() as u16, hash }
    }

    /// How many bytes it covers.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.length)
    }
}

impl Trace {
    /// Whether nothing is known of the bytes: empty files are all alike, and none is another.
    pub(crate) fn is_blank(&self) -> bool {
        self.head.length == 0
    }

    /// What a file with this evidence is to the one with this trace and inode.
    pub(crate) fn compare(&self, inode: &Inode, evidence: &Evidence) -> Likeness {
        let same_bytes = !self.is_blank()
            && evidence.size >= self.offset
            && (evidence.head, evidence.tail) == (self.head, self.tail);
        match (inode.is(&evidence.inode), same_bytes) {
            (_, _) if self.is_blank() => Likeness::Other,
            (true, true) => Likeness::Same,
            (true, false) => Likeness::Rewritten,
            (false, true) if inode.place() != evidence.inode.place() => Likeness::Copy,
            (false, _) => Likeness::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: Inode = Inode { device: 1, number: 2, born: Some(3) };

    fn read(bytes: &[u8]) -> Trace {
        let (head, tail) = (Fingerprint::of_head(bytes), Fingerprint::of_tail(bytes));
        Trace { offset: bytes.len() as u64, head, tail }
    }

    /// A file with these bytes, as the trace leads to it.
    fn found(trace: &Trace, inode: Inode, bytes: &[u8]) -> Evidence {
        let end = bytes.len().min(trace.offset as usize);
        let head = Fingerprint::of_head(&bytes[..end.min(trace.head.len())]);
        let tail = Fingerprint::of_tail(&bytes[end.saturating_sub(trace.tail.len())..end]);
        Evidence { inode, size: bytes.len() as u64, head, tail }
    }

    fn likeness(before: &[u8], inode: Inode, after: &[u8]) -> Likeness {
        let trace = read(before);
        trace.compare(&INODE, &found(&trace, inode, after))
    }

    #[test]
    fn a_file_stays_the_same_while_it_grows() {
        assert_eq!(likeness(b"one\n", INODE, b"one\n"), Likeness::Same);
        assert_eq!(likeness(b"one\n", INODE, b"one\ntwo\n"), Likeness::Same);
    }

    #[test]
    fn a_file_that_is_shorter_or_has_other_bytes_was_rewritten() {
        assert_eq!(likeness(b"one\ntwo\n", INODE, b"one\n"), Likeness::Rewritten);
        assert_eq!(likeness(b"one\ntwo\n", INODE, b""), Likeness::Rewritten);
        assert_eq!(likeness(b"one\n", INODE, b"other\n"), Likeness::Rewritten);
        let banner = vec![b'='; 2_000];
        let [one, two] = [b"one\n", b"two\n"].map(|line| [&banner[..], line].concat());
        assert_eq!(likeness(&one, INODE, &[&two[..], b"more"].concat()), Likeness::Rewritten);
    }

    #[test]
    fn a_reused_inode_is_another_file_whatever_its_banner() {
        let reused = Inode { born: Some(4), ..INODE };
        assert_eq!(likeness(b"banner\n", reused, b"banner\n"), Likeness::Other);
        let untold = Inode { born: None, ..INODE };
        assert_eq!(likeness(b"banner\n", untold, b"banner\n"), Likeness::Same);
        assert_eq!(likeness(b"banner\none\n", untold, b"banner\n"), Likeness::Rewritten);
    }

    #[test]
    fn a_copy_has_the_same_bytes_elsewhere() {
        let elsewhere = Inode { number: 9, ..INODE };
        assert_eq!(likeness(b"one\n", elsewhere, b"one\ntwo\n"), Likeness::Copy);
        assert_eq!(likeness(b"one\n", elsewhere, b"one"), Likeness::Other);
        assert_eq!(likeness(b"one\n", elsewhere, b"two\n"), Likeness::Other);
    }

    #[test]
    fn empty_files_are_never_the_same() {
        assert_eq!(likeness(b"", INODE, b""), Likeness::Other);
        assert_eq!(likeness(b"", INODE, b"one\n"), Likeness::Other);
        assert_eq!(likeness(b"", Inode { number: 9, ..INODE }, b""), Likeness::Other);
    }
}
