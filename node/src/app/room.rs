//! How much disk there is left.

use std::path::Path;

use tracing::warn;

/// So far above the reserve a disk that was full has room again, so that a disk at its
/// reserve does not open and close the node every second.
const MARGIN_BYTES: u64 = 64 << 20;

/// Whether the disk of `folder` has more than `reserve` bytes free.
pub fn is_there_room(folder: &Path, reserve: u64, had_room: bool) -> bool {
    match rustix::fs::statvfs(folder) {
        Ok(disk) => is_enough(disk.f_bavail.saturating_mul(disk.f_frsize), reserve, had_room),
        Err(error) => {
            // A disk that does not answer is not a reason to refuse: the journal's next
            // write tells.
            warn!(%error, "the free space of the disk cannot be read");
            had_room
        }
    }
}

fn is_enough(free: u64, reserve: u64, had_room: bool) -> bool {
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
