//! What the operator says about itself while it runs: `tracing` events to stderr.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use super::settings::LogFormat;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is one already.
    #[error("start the log: {0}")]
    Started(#[from] TryInitError),
}

/// Sends the events that pass the filter to stderr, for the rest of the process's life.
///
/// # Errors
/// When the filter cannot be read, or that was done before.
pub fn start(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(level)?;
    let events = fmt::Subscriber::builder().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => events.with_ansi(is_colourful()).finish().try_init()?,
        LogFormat::Json => events.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// Whether stderr shows colours, and the user (<https://no-color.org>) wants them.
fn is_colourful() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
