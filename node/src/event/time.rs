//! Time as journals stamp it.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch, as OTLP counts them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// The last whole second at or before this instant.
    pub fn whole_second(self) -> UnixNanos {
        UnixNanos(self.0 - self.0 % SECOND)
    }

    /// The instant as people and JSON write it.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for UnixNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().fmt(f)
    }
}

/// A half-open interval of whole seconds, aligned to the clock: `start <= stamp < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first instant that belongs to the window.
    pub start: UnixNanos,
    /// The first instant that does not.
    pub end: UnixNanos,
}

impl Window {
    /// The window of `seconds` seconds that `stamp` falls into.
    pub fn of(stamp: UnixNanos, seconds: u32) -> Window {
        let length = u64::from(seconds.max(1)) * SECOND;
        let start = stamp.0 - stamp.0 % length;
        Window { start: UnixNanos(start), end: UnixNanos(start.saturating_add(length)) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.start, self.end)
    }
}

/// Where the time comes from; tests drive one of their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixNanos + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
        })
    }

    /// A clock that reads `now`.
    pub fn new(now: impl Fn() -> UnixNanos + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> UnixNanos {
        (self.0)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_half_open_and_aligned_to_the_clock() {
        let window = Window::of(UnixNanos(25 * SECOND), 10);
        assert_eq!(window, Window { start: UnixNanos(20 * SECOND), end: UnixNanos(30 * SECOND) });
        assert_eq!(Window::of(window.start, 10), window);
        assert_eq!(Window::of(UnixNanos(window.end.0 - 1), 10), window);
        assert_ne!(Window::of(window.end, 10), window);
    }
}
