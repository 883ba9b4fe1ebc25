//! What people are told about a run, on stderr.

use std::path::Path;

use jiff::{Timestamp, Unit};

use crate::{output, text::printable};

/// Tells something, with the time.
pub(crate) fn tell(text: &str) {
    let now = Timestamp::now();
    let now = now.round(Unit::Second).unwrap_or(now);
    output::note(&format!("{now} {}", printable(text)));
}

/// Tells something about a file.
pub(crate) fn tell_of(path: &Path, text: &str) {
    tell(&format!("{}: {text}", path.display()));
}
