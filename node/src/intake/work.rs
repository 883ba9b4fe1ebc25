//! Work on a request that may take long.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Work on more bytes than this would hold up the other requests of a worker for
/// too long: it hands them to another one first.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// Runs work on so many `bytes`. If they are many, a worker of a runtime with several
/// first passes on its other tasks.
pub fn work<T>(bytes: usize, run: impl FnOnce() -> T) -> T {
    let large = bytes > INLINE_BYTES_MAX;
    if large && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        block_in_place(run)
    } else {
        run()
    }
}
