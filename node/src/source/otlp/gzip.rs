//! Gzip bodies, inflated whole: every member, within a limit, charged before it grows.
//!
//! libdeflate inflates a member in one call and needs room for all of it. How much
//! that is, only the body's last four bytes hint at, and they cannot be trusted.
//! So [`Gunzip`] asks for room step by step, and its caller charges the node's
//! budget for each step before the memory is taken.

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::mem;
use std::ptr::NonNull;

use libdeflate_sys as sys;

/// Deflate's best case: 258 bytes of output for two bits of input.
const DEFLATE_RATIO_MAX: usize = 1032;

/// The least room that is asked for after a hint has proved too small.
const GROWTH_BYTES_MIN: usize = 4096;

/// A gzip body on its way to being inflated.
///
/// ```ignore
/// let mut gunzip = Gunzip::new(&body, limit);
/// let inflated = loop {
///     match gunzip.step()? {
///         Step::NeedsRoom(bytes) => permit.grow(bytes).await?,
///         Step::Done(inflated) => break inflated,
///     }
/// };
/// ```
pub struct Gunzip<'a> {
    /// The members that are still to be inflated.
    rest: &'a [u8],
    /// Which member is next, counted from 1.
    member: usize,
    /// The members inflated so far. Its capacity is at most `room`.
    output: Vec<u8>,
    /// How many bytes of output the caller has been asked to charge.
    room: usize,
    /// The most bytes of output that are allowed.
    limit: usize,
}

/// What [`Gunzip::step`] came to.
#[derive(Debug)]
pub enum Step {
    /// So many bytes more will be taken by the next call of [`Gunzip::step`]:
    /// charge them first, or drop the `Gunzip`. While members that are inflated
    /// already move to the larger memory, they are there twice.
    NeedsRoom(usize),
    /// Every member is inflated. The memory is as large as the content.
    Done(Vec<u8>),
}

/// Why a body was not inflated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GunzipError {
    /// Not gzip, cut short, followed by something else, or of another checksum.
    #[error("member {member} of the gzip body is corrupt or cut short")]
    Corrupt {
        /// Which member, counted from 1.
        member: usize,
    },
    /// More output than is allowed.
    #[error("the gzip body inflates to more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes of output.
        limit: usize,
    },
}

impl<'a> Gunzip<'a> {
    /// Prepares to inflate `compressed` into at most `limit` bytes; takes no memory yet.
    pub fn new(compressed: &'a [u8], limit: usize) -> Self {
        Gunzip { rest: compressed, member: 1, output: Vec::new(), room: 0, limit }
    }

    /// Inflates on, as far as the room goes that was asked for before.
    ///
    /// Members that are inflated stay; one that did not fit is inflated again when
    /// there is more room. Room at least doubles (up to the limit), so that all
    /// repetitions together cost about one pass more. Not to be called again after
    /// [`Step::Done`] or an error.
    pub fn step(&mut self) -> Result<Step, GunzipError> {
        if self.member == 1 && self.room == 0 {
            self.room = self.hint();
            if self.room > 0 {
                return Ok(Step::NeedsRoom(self.room));
            }
        }
        self.take_room();
        loop {
            match inflate_member(self.rest, &mut self.output) {
                Inflated::Member { bytes } => {
                    self.rest = &self.rest[bytes..];
                    if self.rest.is_empty() {
                        self.output.shrink_to_fit();
                        return Ok(Step::Done(mem::take(&mut self.output)));
                    }
                    self.member += 1;
                }
                Inflated::NeedsRoom if self.room >= self.limit => {
                    return Err(GunzipError::TooLarge { limit: self.limit });
                }
                Inflated::NeedsRoom => return Ok(Step::NeedsRoom(self.ask_for_more())),
                Inflated::Corrupt => {
                    return Err(GunzipError::Corrupt { member: self.member });
                }
            }
        }
    }

    /// Raises `room` and answers by how much.
    fn ask_for_more(&mut self) -> usize {
        let before = self.room;
        let hinted = self.output.len().saturating_add(self.hint());
        self.room = hinted.max(before.saturating_mul(2)).max(GROWTH_BYTES_MIN).min(self.limit);
        self.room - before
    }

    /// Makes the capacity what was asked for.
    fn take_room(&mut self) {
        if self.output.is_empty() {
            // Not `reserve`: it could hold the old and the new memory at once.
            self.output = Vec::new();
        }
        self.output.reserve_exact(self.room - self.output.len());
    }

    /// How many bytes the rest may inflate to, for what it says itself: right for an
    /// honest body of one member, a guess for all others.
    fn hint(&self) -> usize {
        let Some((_, size)) = self.rest.split_last_chunk::<4>() else {
            return 0;
        };
        let plausible = self.rest.len().saturating_mul(DEFLATE_RATIO_MAX);
        (u32::from_le_bytes(*size) as usize).min(plausible).min(self.limit)
    }
}

/// What became of one member.
enum Inflated {
    /// It is appended to the output, and was so many bytes long.
    Member { bytes: usize },
    /// It does not fit. The output is as it was.
    NeedsRoom,
    /// It is not a gzip member, or its checksum is wrong. The output is as it was.
    Corrupt,
}

/// Appends the member at the beginning of `compressed` to `output`, within the
/// capacity that `output` has.
fn inflate_member(compressed: &[u8], output: &mut Vec<u8>) -> Inflated {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let room = output.spare_capacity_mut();
        let (mut read, mut written) = (0, 0);
        // SAFETY: the decompressor is alive and this thread's alone. `compressed` is
        // readable and `room` writable for the lengths given, they do not overlap,
        // and `room` need not be initialised, as libdeflate reads back only what it
        // has written itself. Both results are valid to write to.
        let result = unsafe {
            sys::libdeflate_gzip_decompress_ex(
                decompressor.0.as_ptr(),
                compressed.as_ptr().cast(),
                compressed.len(),
                room.as_mut_ptr().cast(),
                room.len(),
                &mut read,
                &mut written,
            )
        };
        match result {
            sys::libdeflate_result_LIBDEFLATE_SUCCESS => {
                assert!(read > 0 && read <= compressed.len() && written <= room.len());
                // SAFETY: libdeflate has initialised the first `written` bytes of the
                // spare capacity, and `written` is not more than there is of it.
                unsafe { output.set_len(output.len() + written) };
                Inflated::Member { bytes: read }
            }
            sys::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE => Inflated::NeedsRoom,
            _ => Inflated::Corrupt,
        }
    })
}

thread_local! {
    /// One for each thread: 11 KB of tables that are worth reusing.
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// A decompressor of libdeflate's, freed when its thread ends.
struct Decompressor(NonNull<sys::libdeflate_decompressor>);

impl Decompressor {
    fn new() -> Self {
        // SAFETY: the function has no preconditions.
        let decompressor = unsafe { sys::libdeflate_alloc_decompressor() };
        match NonNull::new(decompressor) {
            Some(decompressor) => Decompressor(decompressor),
            None => alloc::handle_alloc_error(Layout::new::<[u8; 11 << 10]>()),
        }
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: it came from `libdeflate_alloc_decompressor` and is freed only here.
        unsafe { sys::libdeflate_free_decompressor(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests;
