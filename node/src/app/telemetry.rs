//! What the node says about itself while it runs: `tracing` events to stderr.
//! Stdout belongs to the statistics.

use std::io::{self, IsTerminal};

use tracing_subscriber::fmt;
use tracing_subscriber::util::TryInitError;

use super::settings::{LogFilter, LogFormat};

/// Sends the events that pass the filter to stderr, for the rest of the
/// process's life. Fails if that was done before.
pub fn start(format: LogFormat, filter: &LogFilter) -> Result<(), TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let events =
        fmt::Subscriber::builder().with_env_filter(filter.to_env_filter()).with_writer(io::stderr);
    match format {
        LogFormat::Text => events.with_ansi(is_colourful()).finish().try_init(),
        LogFormat::Json => events.json().flatten_event(true).finish().try_init(),
    }
}

/// Whether stderr shows colours, and the user (<https://no-color.org>) wants them.
fn is_colourful() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
