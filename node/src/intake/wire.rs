//! Protobuf's wire format: a message is a sequence of fields, read in place.

/// Groups within groups deeper than this are refused, as they are by other decoders.
const GROUP_DEPTH_MAX: usize = 100;

/// The bytes are not a message of the expected type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// A field or its length runs past the end of the message.
    #[error("a field runs past the end of its message")]
    Truncated,
    /// A varint has more than 64 bits.
    #[error("a varint has more than 64 bits")]
    Varint,
    /// A field's number is 0, or it has more than 29 bits.
    #[error("a field has a number that no field can have")]
    FieldNumber,
    /// A field's wire type is 6 or 7.
    #[error("a field has a wire type that does not exist")]
    UnknownWireType,
    /// A known field has the wire type of another type.
    #[error("field {field} of {message} has the wrong wire type")]
    WireType {
        /// The name of the message's type.
        message: &'static str,
        /// The field's number.
        field: u32,
    },
    /// A group ends that was not open, or is not the innermost.
    #[error("a group ends that is not open")]
    GroupEnd,
    /// Groups are nested too deep.
    #[error("groups are nested deeper than {GROUP_DEPTH_MAX}")]
    GroupDepth,
}

/// One field of a message, as it is encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// The field's number; never 0.
    pub number: u32,
    /// What it carries.
    pub content: Content<'a>,
}

/// What a field carries, by wire type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Content<'a> {
    /// Any integer, truth value or enum.
    Varint(u64),
    /// Eight bytes, little-endian.
    Fixed64(u64),
    /// A string, bytes, or a message.
    Delimited(&'a [u8]),
    /// A group; what is in it was skipped.
    Group,
    /// Four bytes, little-endian.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The content of a string, bytes or message field.
    #[inline(always)]
    pub fn delimited(self, message: &'static str) -> Result<&'a [u8], Undecodable> {
        match self.content {
            Content::Delimited(bytes) => Ok(bytes),
            _ => Err(self.wrong_type(message)),
        }
    }

    /// The content of an integer, truth value or enum field.
    pub fn varint(self, message: &'static str) -> Result<u64, Undecodable> {
        match self.content {
            Content::Varint(value) => Ok(value),
            _ => Err(self.wrong_type(message)),
        }
    }

    /// The content of a `fixed64` or `double` field.
    pub fn fixed64(self, message: &'static str) -> Result<u64, Undecodable> {
        match self.content {
            Content::Fixed64(value) => Ok(value),
            _ => Err(self.wrong_type(message)),
        }
    }

    /// The content of a `fixed32` field.
    pub fn fixed32(self, message: &'static str) -> Result<u32, Undecodable> {
        match self.content {
            Content::Fixed32(value) => Ok(value),
            _ => Err(self.wrong_type(message)),
        }
    }

    #[cold]
    fn wrong_type(self, message: &'static str) -> Undecodable {
        Undecodable::WireType { message, field: self.number }
    }
}

/// The fields of a message, in the order of the bytes. Ends after the first error.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of the message that `bytes` encode.
    pub fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Field<'a>, Undecodable> {
        let (number, wire_type) = self.read_key()?;
        let content = match wire_type {
            0 => Content::Varint(read_varint(&mut self.rest)?),
            1 => Content::Fixed64(u64::from_le_bytes(self.read_chunk()?)),
            2 => Content::Delimited(read_delimited(&mut self.rest)?),
            3 => self.skip_group(number, 1).map(|()| Content::Group)?,
            4 => return Err(Undecodable::GroupEnd),
            5 => Content::Fixed32(u32::from_le_bytes(self.read_chunk()?)),
            _ => return Err(Undecodable::UnknownWireType),
        };
        Ok(Field { number, content })
    }

    /// A field's number and wire type.
    #[inline(always)]
    fn read_key(&mut self) -> Result<(u32, u8), Undecodable> {
        let key =
            u32::try_from(read_varint(&mut self.rest)?).map_err(|_| Undecodable::FieldNumber)?;
        match key >> 3 {
            0 => Err(Undecodable::FieldNumber),
            number => Ok((number, key as u8 & 7)),
        }
    }

    #[inline(always)]
    fn read_chunk<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(Undecodable::Truncated)?;
        self.rest = rest;
        Ok(*chunk)
    }

    /// Skips the rest of a group, up to its end. The recursion is as deep as the
    /// groups are, at most [`GROUP_DEPTH_MAX`].
    #[cold]
    fn skip_group(&mut self, group: u32, depth: usize) -> Result<(), Undecodable> {
        if depth > GROUP_DEPTH_MAX {
            return Err(Undecodable::GroupDepth);
        }
        loop {
            let (number, wire_type) = self.read_key()?;
            match wire_type {
                0 => drop(read_varint(&mut self.rest)?),
                1 => drop(self.read_chunk::<8>()?),
                2 => drop(read_delimited(&mut self.rest)?),
                3 => self.skip_group(number, depth + 1)?,
                4 if number == group => return Ok(()),
                4 => return Err(Undecodable::GroupEnd),
                5 => drop(self.read_chunk::<4>()?),
                _ => return Err(Undecodable::UnknownWireType),
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Undecodable>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes a varint, padded or not, off the front of `rest`.
#[inline(always)]
pub fn read_varint(rest: &mut &[u8]) -> Result<u64, Undecodable> {
    match **rest {
        [first, ref after @ ..] if first < 0x80 => {
            *rest = after;
            Ok(first.into())
        }
        [first, second, ref after @ ..] if second < 0x80 => {
            *rest = after;
            Ok(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        _ => read_long_varint(rest),
    }
}

fn read_long_varint(rest: &mut &[u8]) -> Result<u64, Undecodable> {
    let mut value = 0;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            // The tenth byte has room for one bit.
            if index == 9 && byte > 1 {
                return Err(Undecodable::Varint);
            }
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 { Undecodable::Truncated } else { Undecodable::Varint })
}

/// Takes a length and as many bytes off the front of `rest`.
#[inline(always)]
pub fn read_delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Undecodable> {
    let len = usize::try_from(read_varint(rest)?).map_err(|_| Undecodable::Truncated)?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(Undecodable::Truncated)?;
    *rest = after;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(bytes: &[u8]) -> Result<Field<'_>, Undecodable> {
        let mut fields = Fields::of(bytes);
        let field = fields.next().unwrap();
        assert_eq!(fields.next(), None, "{bytes:02x?} has a second field");
        field
    }

    fn content(bytes: &[u8]) -> Content<'_> {
        only(bytes).unwrap().content
    }

    #[test]
    fn every_wire_type_is_read() {
        assert_eq!(content(&[0x08, 0x96, 0x01]), Content::Varint(150));
        assert_eq!(content(&[0x09, 1, 0, 0, 0, 0, 0, 0, 1]), Content::Fixed64(1 << 56 | 1));
        assert_eq!(content(&[0x0a, 2, b'h', b'i']), Content::Delimited(b"hi"));
        assert_eq!(content(&[0x0b, 0x10, 0x01, 0x1b, 0x1c, 0x0c]), Content::Group);
        assert_eq!(content(&[0x0d, 1, 0, 0, 1]), Content::Fixed32(1 << 24 | 1));
    }

    #[test]
    fn varints_may_be_padded_to_ten_bytes() {
        for padding in 0..10 {
            let mut bytes = vec![0x08, 0x85];
            bytes.extend(vec![0x80; padding]);
            bytes.push(0);
            let expected =
                if bytes.len() <= 11 { Ok(Content::Varint(5)) } else { Err(Undecodable::Varint) };
            assert_eq!(only(&bytes).map(|field| field.content), expected);
        }
        let max = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(content(&max), Content::Varint(u64::MAX));
        let more = [&[0x08][..], &[0xff; 9], &[0x02]].concat();
        assert_eq!(only(&more), Err(Undecodable::Varint));
    }

    #[test]
    fn the_end_of_the_bytes_is_noticed_anywhere() {
        let bytes: [&[u8]; 8] = [
            &[0x80],
            &[0x08],
            &[0x08, 0x80],
            &[0x09, 0, 0, 0, 0, 0, 0, 0],
            &[0x0a],
            &[0x0a, 2, 0],
            &[0x0d, 0, 0, 0],
            &[0x0b, 0x10, 0x00],
        ];
        for bytes in bytes {
            assert_eq!(only(bytes), Err(Undecodable::Truncated), "{bytes:02x?}");
        }
        let huge = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(only(&huge), Err(Undecodable::Truncated));
    }

    #[test]
    fn numbers_and_types_that_no_field_has_are_refused() {
        assert_eq!(only(&[0x00, 0x00]), Err(Undecodable::FieldNumber));
        assert_eq!(only(&[0x80, 0x80, 0x80, 0x80, 0x10, 0x00]), Err(Undecodable::FieldNumber));
        assert_eq!(only(&[0x0e]), Err(Undecodable::UnknownWireType));
        assert_eq!(only(&[0x0f]), Err(Undecodable::UnknownWireType));
        assert_eq!(only(&[0x0b, 0x0e]), Err(Undecodable::UnknownWireType));
    }

    #[test]
    fn groups_end_where_they_began_and_nest_to_a_limit() {
        assert_eq!(only(&[0x0c]), Err(Undecodable::GroupEnd));
        assert_eq!(only(&[0x0b, 0x14]), Err(Undecodable::GroupEnd));
        let nested = |depth| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        assert_eq!(content(&nested(GROUP_DEPTH_MAX)), Content::Group);
        assert_eq!(only(&nested(GROUP_DEPTH_MAX + 1)), Err(Undecodable::GroupDepth));
        assert_eq!(only(&vec![0x0b; 1 << 20]), Err(Undecodable::GroupDepth));
    }

    #[test]
    fn a_wrong_wire_type_names_the_field() {
        let field = only(&[0x08, 1]).unwrap();
        let error = field.delimited("LogRecord").unwrap_err();
        assert_eq!(error.to_string(), "field 1 of LogRecord has the wrong wire type");
    }
}
