//! Named places where a test makes the node die or a write fail.
//!
//! Without the feature `failpoints` they cost nothing. With it, the variable
//! `FAILPOINTS` says what happens where: `journal-before-acknowledge=5*off->return`
//! passes five times, then kills.
//!
//! At a place whose name begins with `planted-` the code does something wrong: such bugs
//! are planted there for the simulation to find (docs/simulation.md).

#[cfg(feature = "failpoints")]
pub use enabled::{from_environment, is_to_fail, may_die};

/// Dies here as by `kill -9`, if a test says so.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn may_die(_place: &'static str) {}

/// Whether a test says that what stands here has to fail.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn is_to_fail(_place: &'static str) -> bool {
    false
}

#[cfg(feature = "failpoints")]
mod enabled {
    use rustix::process::{Signal, getpid, kill_process};

    /// Reads `FAILPOINTS`, which is in force until the answer is dropped.
    pub fn from_environment() -> fail::FailScenario<'static> {
        fail::FailScenario::setup()
    }

    /// Dies here as by `kill -9`, if a test says so.
    pub fn may_die(place: &'static str) {
        if is_to_fail(place) {
            let killed = kill_process(getpid(), Signal::KILL);
            // Nothing of this process may run on, whatever the signal did.
            tracing::error!(?killed, "this process should be dead");
            std::process::abort();
        }
    }

    /// Whether a test says that what stands here has to fail.
    pub fn is_to_fail(place: &'static str) -> bool {
        fail::fail_point!(place, |_| true);
        false
    }
}
