//! A file that is read: what the file system says about it, and its next bytes.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use bytes::{Bytes, BytesMut};
use rustix::{
    fs::{AtFlags, CWD, FileType, OFlags, SeekFrom, Statx, StatxFlags, seek, statx},
    io::Errno,
};

use super::identity::{Evidence, FINGERPRINT_BYTES, Fingerprint, Inode, Trace};

/// Where a hole ends the file system rounds down to a block.
const BLOCK_BYTES: u64 = 4096;

/// What the file system says about a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) inode: Inode,
    pub(crate) size: u64,
    /// How much of it is on disk, or will be.
    allocated: u64,
    /// How many names it has; without one it is deleted.
    pub(crate) links: u32,
    /// When it was written to, in nanoseconds since 1970.
    pub(crate) modified: i64,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Source(File);

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing yet.
    Nothing,
    /// What was read before is not there any more.
    Rewritten,
    /// The edge of a hole.
    Passed(Trace),
    /// Bytes, which begin at the offset; the trace has them too.
    Bytes { offset: u64, payload: Bytes, trace: Trace },
}

impl Facts {
    /// Of what a path leads to; nothing if that is no regular file.
    ///
    /// # Errors
    /// If there is nothing, or it may not be looked at.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Facts>> {
        Ok(Facts::from(&statx(CWD, path, AtFlags::empty(), wanted())?))
    }

    fn from(found: &Statx) -> Option<Facts> {
        if FileType::from_raw_mode(found.stx_mode.into()) != FileType::RegularFile {
            return None;
        }
        let nanoseconds = |seconds: i64, more: u32| {
            seconds.saturating_mul(1_000_000_000).saturating_add(more.into())
        };
        let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = nanoseconds(found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
        let inode = Inode {
            device: u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
            number: found.stx_ino,
            born: has_birth.then_some(born),
        };
        Some(Facts {
            inode,
            size: found.stx_size,
            allocated: found.stx_blocks.saturating_mul(512),
            links: found.stx_nlink,
            modified: nanoseconds(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        })
    }

    /// Whether it may have holes.
    fn is_sparse(&self) -> bool {
        self.allocated < self.size
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME
}

impl Source {
    /// Opens what a path leads to; nothing if that is no regular file.
    ///
    /// # Errors
    /// If there is nothing, or it may not be read.
    pub(crate) fn open(path: &Path) -> io::Result<Option<(Source, Facts)>> {
        // A pipe must not hold anybody up.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        let source = Source(OpenOptions::new().read(true).custom_flags(flags).open(path)?);
        Ok(source.facts()?.map(|facts| (source, facts)))
    }

    /// What the file system says about it.
    ///
    /// # Errors
    /// If the file system is in trouble.
    pub(crate) fn facts(&self) -> io::Result<Option<Facts>> {
        Ok(Facts::from(&statx(&self.0, "", AtFlags::EMPTY_PATH, wanted())?))
    }

    /// What there is where a trace leads.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn evidence(&self, trace: &Trace, facts: &Facts) -> io::Result<Evidence> {
        let head = self.stretch(0, trace.head.len())?;
        let tail = self.stretch(before(trace), trace.tail.len())?;
        let (head, tail) = (Fingerprint::of_head(&head), Fingerprint::of_tail(&tail));
        Ok(Evidence { inode: facts.inode, size: facts.size, head, tail })
    }

    /// Whether the first bytes and those that were read last are there still.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn has_kept(&self, trace: &Trace) -> io::Result<bool> {
        let tail = self.stretch(before(trace), trace.tail.len())?;
        Ok(Fingerprint::of_tail(&tail) == trace.tail && self.grown(trace, 0)?.is_some())
    }

    /// The trace of a file that has to wait, of which nothing was read: with its first bytes, by
    /// which it is known again. Nothing if what is known of it is not there any more.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn glimpse(&self, trace: &Trace, facts: &Facts) -> io::Result<Option<Trace>> {
        if facts.size < trace.offset || !self.has_kept(trace)? {
            return Ok(None);
        }
        let is_unread = trace.offset == 0;
        let wanted = if is_unread { facts.size.min(FINGERPRINT_BYTES as u64) as usize } else { 0 };
        Ok(self.grown(trace, wanted)?.map(|head| Trace { head, ..*trace }))
    }

    /// The next bytes behind the trace, at most `limit`. A hole is passed over as soon as something
    /// follows on it, together with the zeros at its edges, in the blocks where it begins and ends:
    /// file systems have holes of whole blocks, and a writer leaves one from anywhere to anywhere.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn next(&self, trace: &Trace, facts: &Facts, limit: usize) -> io::Result<Next> {
        if facts.size < trace.offset {
            return Ok(Next::Rewritten);
        }
        let Some((start, end)) = self.data(trace.offset, facts)? else {
            return Ok(if self.has_kept(trace)? { Next::Nothing } else { Next::Rewritten });
        };
        let is_before_hole = end < facts.size;
        let length = length(start, end, is_before_hole, limit);
        let (mut bytes, from) = if start == trace.offset {
            let known = trace.tail.len();
            let bytes = self.stretch(before(trace), known + length)?;
            if bytes.len() < known || Fingerprint::of_tail(&bytes[..known]) != trace.tail {
                return Ok(Next::Rewritten);
            }
            (bytes, known)
        } else if self.has_kept(trace)? {
            let bytes = self.stretch(start, length)?;
            let zeros = zeros_after_hole(start, &bytes);
            (bytes, zeros)
        } else {
            return Ok(Next::Rewritten);
        };
        let begins = if start == trace.offset { start - from as u64 } else { start };
        let reached = begins + bytes.len() as u64;
        if is_before_hole && reached == end {
            bytes.truncate(bytes.len() - zeros_before_hole(end, &bytes[from..]));
        }
        let (offset, ends) = (begins + from as u64, begins + bytes.len() as u64);
        if bytes.len() == from {
            let passes = ends < reached && self.data(reached, facts)?.is_some();
            let tail = Fingerprint::default();
            let trace = Trace { offset: reached, head: trace.head, tail };
            return Ok(if passes { Next::Passed(trace) } else { Next::Nothing });
        }
        let tail = Fingerprint::of_tail(&bytes);
        let payload = bytes.split_off(from).freeze();
        let trace = Trace { offset: ends, head: trace.head, tail };
        let wanted = ends.min(FINGERPRINT_BYTES as u64) as usize;
        match self.grown(&trace, wanted)? {
            Some(head) => Ok(Next::Bytes { offset, payload, trace: Trace { head, ..trace } }),
            None => Ok(Next::Rewritten),
        }
    }

    /// Fills the buffer with what stands there.
    ///
    /// # Errors
    /// If it is not there, or cannot be read.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    /// The head of a trace, with as many bytes as are `wanted` or more; nothing if the file has
    /// others now. That is compared each time: the same lines may follow on another banner.
    fn grown(&self, trace: &Trace, wanted: usize) -> io::Result<Option<Fingerprint>> {
        let wanted = wanted.max(trace.head.len());
        let bytes = self.stretch(0, wanted)?;
        let is_same =
            bytes.len() == wanted && Fingerprint::of_head(&bytes[..trace.head.len()]) == trace.head;
        Ok(is_same.then(|| Fingerprint::of_head(&bytes)))
    }

    /// Where the first data behind an offset begins and ends; nothing if there is none.
    fn data(&self, offset: u64, facts: &Facts) -> io::Result<Option<(u64, u64)>> {
        if offset >= facts.size {
            return Ok(None);
        }
        if !facts.is_sparse() {
            return Ok(Some((offset, facts.size)));
        }
        let start = match seek(&self.0, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // The file system knows of no holes.
            Err(Errno::INVAL) => return Ok(Some((offset, facts.size))),
            Err(error) => return Err(error.into()),
        };
        let end = match seek(&self.0, SeekFrom::Hole(start)) {
            Ok(end) => end,
            // It was truncated in between.
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some((start, end)))
    }

    /// What stands there, as far as the file goes.
    fn stretch(&self, offset: u64, length: usize) -> io::Result<BytesMut> {
        let mut bytes = BytesMut::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match self.0.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Where the bytes begin that the trace's tail has.
fn before(trace: &Trace) -> u64 {
    trace.offset.saturating_sub(trace.tail.len() as u64)
}

/// How much to read of the data from `start` to `end`. The last block before a hole is read as a
/// whole, so that what is passed over does not depend on where chunks end.
fn length(start: u64, end: u64, is_before_hole: bool, limit: usize) -> usize {
    let all = usize::try_from(end - start).unwrap_or(usize::MAX);
    let to_last_block = all.saturating_sub(BLOCK_BYTES as usize);
    if is_before_hole && limit < all && (1..limit).contains(&to_last_block) {
        return to_last_block;
    }
    all.min(limit)
}

/// How many zeros stand at the end of the block where a hole begins at `end`.
fn zeros_before_hole(end: u64, bytes: &[u8]) -> usize {
    let block = ((end - 1) % BLOCK_BYTES + 1) as usize;
    bytes.iter().rev().take(block).take_while(|byte| **byte == 0).count()
}

/// How many zeros stand before the first other byte in the block where a hole ends at `start`;
/// 0 if that block has no other byte.
fn zeros_after_hole(start: u64, bytes: &[u8]) -> usize {
    let block = (BLOCK_BYTES - start % BLOCK_BYTES) as usize;
    bytes.iter().take(block).position(|byte| *byte != 0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Sample {
        _folder: tempfile::TempDir,
        file: File,
        source: Source,
        trace: Trace,
    }

    impl Sample {
        fn new(bytes: &[u8]) -> Sample {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            fs::write(&path, bytes).unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let (source, _) = Source::open(&path).unwrap().unwrap();
            Sample { _folder: folder, file, source, trace: Trace::default() }
        }

        fn next(&mut self, limit: usize) -> Next {
            let facts = self.source.facts().unwrap().unwrap();
            let next = self.source.next(&self.trace, &facts, limit).unwrap();
            if let Next::Bytes { trace, .. } | Next::Passed(trace) = &next {
                self.trace = *trace;
            }
            next
        }

        /// What is read until there is nothing more, and where each piece began.
        fn rest(&mut self, limit: usize) -> Vec<(u64, Bytes)> {
            let mut pieces = Vec::new();
            loop {
                match self.next(limit) {
                    Next::Bytes { offset, payload, .. } => pieces.push((offset, payload)),
                    Next::Passed(_) => {}
                    Next::Nothing | Next::Rewritten => return pieces,
                }
            }
        }
    }

    #[test]
    fn a_file_is_read_piece_by_piece() {
        let content: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut sample = Sample::new(&content[..30_000]);
        let pieces = sample.rest(7_000);
        assert_eq!(
            pieces.iter().map(|piece| piece.0).collect::<Vec<_>>(),
            [0, 7_000, 14_000, 21_000, 28_000]
        );
        sample.file.write_all_at(&content[30_000..], 30_000).unwrap();
        let all = [pieces, sample.rest(1 << 20)].concat();
        let all: Vec<u8> = all.iter().flat_map(|piece| piece.1.to_vec()).collect();
        assert!(all == content);
        assert_eq!(sample.trace.head, Fingerprint::of_head(&content));
        assert_eq!(sample.trace.tail, Fingerprint::of_tail(&content));
    }

    #[test]
    fn the_head_grows_with_the_file() {
        let mut sample = Sample::new(b"");
        let content: Vec<u8> = (0..3_000_u32).map(|n| (n % 251) as u8).collect();
        for end in [1, 100, 1_000, 1_024, 1_025, 3_000] {
            let from = sample.trace.offset as usize;
            sample.file.write_all_at(&content[from..end], from as u64).unwrap();
            sample.rest(1 << 20);
            assert_eq!(sample.trace.head, Fingerprint::of_head(&content[..end]));
        }
    }

    #[test]
    fn a_file_that_was_truncated_and_grew_again_is_noticed() {
        let mut sample = Sample::new(b"one\ntwo\n");
        sample.rest(1 << 20);
        assert!(matches!(sample.next(1 << 20), Next::Nothing));
        sample.file.set_len(0).unwrap();
        assert!(matches!(sample.next(1 << 20), Next::Rewritten));
        for regrown in [&b"one\nTWO\n"[..], b"one\nTWO\nthree\n"] {
            sample.file.write_all_at(regrown, 0).unwrap();
            assert!(matches!(sample.next(1 << 20), Next::Rewritten));
        }
    }

    #[test]
    fn another_banner_is_noticed_whatever_lines_follow_on_it() {
        let [first, second] = ["=", "#"].map(|mark| mark.repeat(2_000) + &"tick\n".repeat(1_000));
        let longer = format!("{second}tick\n");
        for regrown in [&second, &longer] {
            let mut sample = Sample::new(first.as_bytes());
            sample.rest(1 << 20);
            sample.file.set_len(0).unwrap();
            sample.file.write_all_at(regrown.as_bytes(), 0).unwrap();
            assert!(matches!(sample.next(1 << 20), Next::Rewritten), "{}", regrown.len());
        }
    }

    #[test]
    fn a_file_that_waits_is_known_by_its_first_bytes() {
        let mut sample = Sample::new(b"one\n");
        let glimpse = |sample: &Sample| {
            let facts = sample.source.facts().unwrap().unwrap();
            sample.source.glimpse(&sample.trace, &facts).unwrap()
        };
        sample.trace = glimpse(&sample).unwrap();
        let (offset, head) = (0, Fingerprint::of_head(b"one\n"));
        assert_eq!(sample.trace, Trace { offset, head, ..Trace::default() });
        sample.file.write_all_at(b"two\n", 4).unwrap();
        let grown = glimpse(&sample).unwrap();
        assert_eq!(grown.head, Fingerprint::of_head(b"one\ntwo\n"));
        sample.file.write_all_at(b"ONE\n", 0).unwrap();
        assert_eq!(glimpse(&sample), None);
        assert!(matches!(sample.next(1 << 20), Next::Rewritten));
    }

    #[test]
    fn a_hole_is_passed_over_once_something_follows_on_it() {
        let mut sample = Sample::new(b"");
        sample.file.set_len(1 << 20).unwrap();
        assert!(matches!(sample.next(1 << 20), Next::Nothing));
        let (first, second) = ((1 << 20) + 5_000, 1 << 22);
        sample.file.write_all_at(b"one\n", first).unwrap();
        sample.file.write_all_at(b"two\n", second).unwrap();
        let wanted = [(first, Bytes::from("one\n")), (second, Bytes::from("two\n"))];
        assert_eq!(sample.rest(1 << 20), wanted);
        sample.file.set_len(1 << 23).unwrap();
        assert!(matches!(sample.next(1 << 20), Next::Nothing));
        sample.file.set_len(0).unwrap();
        sample.file.write_all_at(b"new\n", second + 100).unwrap();
        assert!(matches!(sample.next(1 << 20), Next::Rewritten));
    }

    #[test]
    fn what_is_passed_over_does_not_depend_on_when_it_is_read_or_how_chunks_are_cut() {
        let lines = vec![b'x'; 20_000];
        let write = |file: &File, at| file.write_all_at(&lines, at).unwrap();
        for limit in [8_192, 10_000, 1 << 20] {
            let mut sample = Sample::new(b"");
            write(&sample.file, 0);
            let early = sample.rest(limit);
            write(&sample.file, 100_000);
            let late = [early, sample.rest(limit)].concat();
            sample.trace = Trace::default();
            let at_once = sample.rest(limit);
            let bytes = |pieces: &[(u64, Bytes)]| -> Vec<u8> {
                pieces.iter().flat_map(|piece| piece.1.to_vec()).collect()
            };
            assert_eq!(bytes(&late).len(), 40_000);
            assert!(bytes(&late) == bytes(&at_once));
        }
    }

    #[test]
    fn zeros_that_were_written_are_read() {
        let mut sample = Sample::new(&[0; 10_000]);
        sample.file.write_all_at(b"x", 10_000).unwrap();
        let pieces = sample.rest(1 << 20);
        assert_eq!(pieces.len(), 1);
        assert_eq!((pieces[0].0, pieces[0].1.len()), (0, 10_001));
    }

    #[test]
    fn a_folder_is_no_file_to_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Source::open(folder.path()).unwrap().is_none());
        assert!(Facts::at(folder.path()).unwrap().is_none());
    }
}
