//! How much disk there is left.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// So far above the reserve a disk that was full has room again, so that a disk at its
/// reserve does not open and close the node every second.
const MARGIN_BYTES: u64 = 64 << 20;

/// Tells how many bytes of a disk are free.
pub type Free = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// The bytes of the disk of `folder` that are free.
///
/// # Errors
/// When the disk does not answer.
pub fn free(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether so many `free` bytes are more than `reserve`, and clearly more if there was no
/// room before.
pub fn is_enough(free: u64, reserve: u64, had_room: bool) -> bool {
    let margin = if had_room { 0 } else { MARGIN_BYTES };
    free > reserve.saturating_add(margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_room_again_only_well_above_the_reserve() {
        assert!(is_enough(1001, 1000, true));
        assert!(!is_enough(1000, 1000, true));
        assert!(!is_enough(1000 + MARGIN_BYTES, 1000, false));
        assert!(is_enough(1001 + MARGIN_BYTES, 1000, false));
    }
}
