//! What the node says about itself while it runs: `tracing` events to stderr.
//! Stdout belongs to the statistics.

use std::io::{self, IsTerminal};
#[cfg(test)]
use std::sync::{Arc, Mutex};

use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{EnvFilter, fmt, reload};

use super::settings::{LogFilter, LogFormat};

/// The node's own log, whose filter may change.
pub struct Log(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Log {
    /// Has the log have the events that pass another filter.
    ///
    /// # Errors
    /// When there is no log any more.
    pub fn set(&self, filter: &LogFilter) -> Result<(), reload::Error> {
        (self.0)(filter.to_env_filter())
    }

    /// One that only notes its filters, for tests.
    #[cfg(test)]
    pub(super) fn told(filters: Arc<Mutex<Vec<String>>>) -> Log {
        Log(Box::new(move |filter| {
            filters.lock().unwrap().push(filter.to_string());
            Ok(())
        }))
    }
}

/// Sends the events that pass the filter to stderr, for the rest of the
/// process's life. Fails if that was done before.
pub fn start(format: LogFormat, filter: &LogFilter) -> Result<Log, TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let events =
        fmt::Subscriber::builder().with_env_filter(filter.to_env_filter()).with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            let events = events.with_ansi(is_colourful()).with_filter_reloading();
            let handle = events.reload_handle();
            events.finish().try_init()?;
            Ok(Log(Box::new(move |filter| handle.reload(filter))))
        }
        LogFormat::Json => {
            let events = events.json().flatten_event(true).with_filter_reloading();
            let handle = events.reload_handle();
            events.finish().try_init()?;
            Ok(Log(Box::new(move |filter| handle.reload(filter))))
        }
    }
}

/// Whether stderr shows colours, and the user (<https://no-color.org>) wants them.
fn is_colourful() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
