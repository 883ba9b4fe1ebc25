//! The system's clock, which libraries read as well: in a simulation it is the simulation's.
//!
//! h2, for one, forgets a stream a second after it was reset. What streams there are, and in
//! which order they break with their connection, would depend on how busy the machine is.

use std::cell::Cell;
use std::ffi::c_int;
use std::time::Duration;

thread_local! {
    static SIMULATED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// What time it is in this thread from now on.
pub(crate) fn set(time: Duration) {
    SIMULATED.set(Some(time));
}

/// Takes the place of the C library's, for all that this process links.
// SAFETY: it does what the C library's does, in its signature.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let Some(simulated) = SIMULATED.get() else {
        // SAFETY: the caller's pointer is passed on as it is.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int };
    };
    let (tv_sec, tv_nsec) = (simulated.as_secs() as i64, simulated.subsec_nanos().into());
    // SAFETY: the caller has it point to a place for the time.
    unsafe { time.write(libc::timespec { tv_sec, tv_nsec }) };
    0
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_simulates_reads_the_simulated_time() {
        let simulated = thread::spawn(|| {
            set(Duration::from_secs(7));
            let before = Instant::now();
            set(Duration::from_millis(9500));
            before.elapsed()
        });
        assert_eq!(simulated.join().unwrap(), Duration::from_millis(2500));
        let real = Instant::now();
        while real.elapsed().is_zero() {}
    }
}
