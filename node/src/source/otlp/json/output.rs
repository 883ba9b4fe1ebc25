//! Protobuf bytes, written front to back although lengths come first.

/// A protobuf message in the making.
///
/// A nested message is written before its length is known. One byte is kept for
/// the length; if that is too small, the place is noted and [`Output::finish`]
/// makes room at all such places in one pass from the end. So every byte is moved
/// at most once, however deep it is nested, and only messages of 128 bytes and
/// more cost a note.
pub(super) struct Output {
    bytes: Vec<u8>,
    /// Lengths that need more than their one byte, in order of `at`.
    long: Vec<LongLength>,
    /// By how many bytes the lengths noted so far will grow the output.
    growth: usize,
}

struct LongLength {
    /// Where in `bytes` its one byte stands.
    at: usize,
    /// The length itself, as it will be after `finish`.
    content: usize,
}

/// A nested message that is not finished; give it to [`Output::close`].
#[must_use]
pub(super) struct Open {
    at: usize,
    note: usize,
    growth: usize,
}

impl Output {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Output { bytes: Vec::with_capacity(bytes), long: Vec::new(), growth: 0 }
    }

    pub(super) fn put(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn put_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Lets `append` add content of a length that only it knows.
    pub(super) fn append<T>(&mut self, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let open = self.open();
        let result = append(&mut self.bytes);
        self.close(open);
        result
    }

    /// Begins length-delimited content; what is put until [`Output::close`] belongs to it.
    pub(super) fn open(&mut self) -> Open {
        let open = Open { at: self.bytes.len(), note: self.long.len(), growth: self.growth };
        // Noted at once, though most notes are taken back: this keeps them in order.
        self.long.push(LongLength { at: open.at, content: 0 });
        self.bytes.push(0);
        open
    }

    /// Ends the content that `open` began.
    pub(super) fn close(&mut self, open: Open) {
        let written = self.bytes.len() - (open.at + 1);
        let content = written + (self.growth - open.growth);
        if content < 0x80 {
            self.bytes[open.at] = content as u8;
            // No note follows its own: what nests inside is shorter still.
            self.long.truncate(open.note);
        } else {
            self.long[open.note].content = content;
            self.growth += varint_bytes(content) - 1;
        }
    }

    /// The finished message. Everything that was opened must be closed.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let mut from = self.bytes.len();
        self.bytes.resize(from + self.growth, 0);
        let mut to = self.bytes.len();
        for length in self.long.iter().rev() {
            let segment = length.at + 1..from;
            to -= segment.len();
            self.bytes.copy_within(segment, to);
            to -= varint_bytes(length.content);
            write_varint(&mut self.bytes[to..], length.content as u64);
            from = length.at;
        }
        debug_assert_eq!(from, to, "what precedes the first long length stays in place");
        self.bytes
    }
}

fn varint_bytes(value: usize) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

fn write_varint(bytes: &mut [u8], mut value: u64) {
    let mut at = 0;
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    bytes[at] = value as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nested content as it must come out, built the plain way: inside out.
    fn delimited(content: &[u8]) -> Vec<u8> {
        let mut output = Output::with_capacity(0);
        output.put_varint(content.len() as u64);
        output.put_slice(content);
        output.finish()
    }

    #[test]
    fn varints_take_seven_bits_to_a_byte() {
        for (value, bytes) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (1 << 21, 4)] {
            assert_eq!(varint_bytes(value), bytes, "{value}");
            assert_eq!(delimited(&vec![7; value]).len(), value + bytes, "{value}");
        }
        let mut output = Output::with_capacity(0);
        output.put_varint(u64::MAX);
        assert_eq!(output.finish().len(), 10);
    }

    #[test]
    fn a_length_is_right_on_both_sides_of_each_size_of_varint() {
        for size in [0, 1, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151, 2_097_152] {
            let content = vec![7; size];
            let mut output = Output::with_capacity(0);
            output.put(1);
            let open = output.open();
            output.put_slice(&content);
            output.close(open);
            output.put(2);
            assert_eq!(output.finish(), [&[1], &delimited(&content)[..], &[2]].concat(), "{size}");
        }
    }

    #[test]
    fn an_inner_length_that_grows_counts_in_the_outer_ones() {
        // Around here the inner length takes its second byte, which the outer counts.
        for size in 120..140 {
            let mut output = Output::with_capacity(0);
            let outer = output.open();
            let inner = output.open();
            output.put_slice(&vec![7; size]);
            output.close(inner);
            output.put(9);
            output.close(outer);
            let inner = delimited(&vec![7; size]);
            assert_eq!(output.finish(), delimited(&[&inner[..], &[9]].concat()), "{size}");
        }
    }

    #[test]
    fn short_and_long_siblings_keep_their_order() {
        let mut output = Output::with_capacity(0);
        let mut expected = Vec::new();
        for size in [3, 200, 0, 127, 128, 20_000, 5] {
            let content = vec![size as u8; size];
            let outer = output.open();
            output.append(|bytes| bytes.extend_from_slice(&content));
            output.close(outer);
            expected.extend(delimited(&delimited(&content)));
        }
        assert_eq!(output.finish(), expected);
    }
}
