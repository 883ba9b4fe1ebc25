//! The only place that writes to stdout and stderr: results go to stdout,
//! everything about the run itself to stderr.

use std::io::{self, IsTerminal, Write};

/// Writes a result and a line end.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn result(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes bytes as they are.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Replaces what the terminal shows; elsewhere it is `result`.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn screen(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() {
        return result(&format!("\x1b[2J\x1b[H{text}"));
    }
    result(text)
}

/// Tells the person at the terminal something. Nobody may be listening.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
