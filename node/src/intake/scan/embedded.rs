//! Messages within messages, read where they lie.

use crate::intake::wire::{Field, Fields, Undecodable};

/// A message that is a field of another. A sender may give such a field several
/// times; the pieces are then one message, whose encoding is theirs in a row. They
/// are read one after the other and never copied together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Embedded<'r> {
    /// The one piece there is.
    Whole(&'r [u8]),
    /// Every field of this number in `parent` is a piece.
    Split { parent: &'r [u8], number: u32 },
}

impl<'r> Embedded<'r> {
    /// A message without fields.
    pub(super) const EMPTY: Embedded<'static> = Embedded::Whole(&[]);

    /// What `known` becomes when another `piece` of it is met in `parent`.
    pub(super) fn and(
        known: Option<Embedded<'r>>,
        piece: &'r [u8],
        parent: &'r [u8],
        number: u32,
    ) -> Embedded<'r> {
        match known {
            None => Embedded::Whole(piece),
            Some(_) => Embedded::Split { parent, number },
        }
    }

    /// Calls `visit` for each field of the message, in order.
    #[inline]
    pub(super) fn each_field<E: From<Undecodable>>(
        self,
        mut visit: impl FnMut(Field<'r>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Embedded::Whole(bytes) => {
                for field in Fields::of(bytes) {
                    visit(field?)?;
                }
            }
            Embedded::Split { parent, number } => {
                for piece in Fields::of(parent) {
                    let piece = piece?;
                    if piece.number != number {
                        continue;
                    }
                    for field in Fields::of(piece.delimited("a split message")?) {
                        visit(field?)?;
                    }
                }
            }
        }
        Ok(())
    }
}
