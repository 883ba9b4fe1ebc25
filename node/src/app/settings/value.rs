//! Values from text; each error says what to write instead.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::aggregation::definition::{Unique, WindowLength};
use crate::cluster::duties::Voters;
use crate::cluster::placement::Copies;

const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const AGE_MIN: Duration = Duration::from_secs(1);
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Clocks that are kept in step by NTP agree to a few milliseconds.
const CLOCK_BOUND_MIN: Duration = Duration::from_millis(10);
const CLOCK_BOUND_MAX: Duration = Duration::from_secs(5);
const ZONE_BYTES_MAX: usize = 63; // of a Kubernetes label

pub(super) fn window(text: &str) -> Result<WindowLength, String> {
    let length = duration(text)?;
    if length.subsec_nanos() != 0 {
        return Err("a window has whole seconds: write 10s, 1m or 1h".to_owned());
    }
    WindowLength::try_from(length.as_secs()).map_err(|error| error.to_string())
}

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout <= TIMEOUT_MAX => Ok(timeout),
        _ => Err("an hour is the most".to_owned()),
    }
}

pub(super) fn age(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        age if (AGE_MIN..=AGE_MAX).contains(&age) => Ok(age),
        _ => Err("write a duration from 1s to 7d (168h)".to_owned()),
    }
}

pub(super) fn clock_bound(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        bound if (CLOCK_BOUND_MIN..=CLOCK_BOUND_MAX).contains(&bound) => Ok(bound),
        _ => Err("write a duration from 10ms to 5s".to_owned()),
    }
}

/// A duration with units (`1m 30s`, `PT90S`), or a plain number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(SignedDuration::from_secs);
    seconds
        .or_else(|_| text.parse::<SignedDuration>())
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "write a duration with its unit: 10s, 1m or 1h".to_owned())
}

pub(super) fn unique(text: &str) -> Result<Unique, String> {
    [("body", Unique::Body), ("record", Unique::Record), ("none", Unique::None)]
        .into_iter()
        .find_map(|(name, unique)| text.eq_ignore_ascii_case(name).then_some(unique))
        .ok_or_else(|| "write Body, Record or None".to_owned())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port: 0.0.0.0:4317 or [::]:4317".to_owned())
}

pub(super) fn count(
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(count) if range.contains(&count) => Ok(count),
        _ => Err(format!("write a number from {} to {}", range.start(), range.end())),
    }
}

/// On how many nodes something is.
pub(super) fn copies(text: &str) -> Result<Copies, String> {
    let number = text.parse::<u8>().map_err(|error| error.to_string())?;
    Copies::try_from(number).map_err(|error| error.to_string())
}

/// How many members vote.
pub(super) fn voters(text: &str) -> Result<Voters, String> {
    let number = text.parse::<u8>().map_err(|error| error.to_string())?;
    Voters::try_from(number).map_err(|error| error.to_string())
}

/// The name of a zone, as Kubernetes has it in a label.
///
/// # Errors
/// When it is not one, and says what to write instead.
pub fn zone(text: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if (1..=ZONE_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("write at most {ZONE_BYTES_MAX} letters, digits, \"-\", \"_\" and \".\""))
    }
}

/// A number of bytes that fits in memory.
pub(super) fn memory(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<usize, String> + Clone {
    let size = size(range);
    move |text| {
        usize::try_from(size(text)?).map_err(|_| "more than this machine can address".to_owned())
    }
}

/// A number of bytes: `64MiB`, `1.5GB`, or without a unit.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| match text.parse::<ByteSize>() {
        Ok(ByteSize(size)) if range.contains(&size) => Ok(size),
        Ok(_) => Err(format!(
            "write a size from {} to {}",
            ByteSize(*range.start()).display().iec(),
            ByteSize(*range.end()).display().iec()
        )),
        Err(_) => Err("write a size with its unit: 512KiB, 64MiB or 1GiB".to_owned()),
    }
}

/// Which events the node's own log has, in the syntax of `tracing`'s `EnvFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter itself, which cannot be cloned. Raft's library tells more than people
    /// want to know, unless they ask for it by name.
    pub fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(format!("openraft=warn,{}", self.0)) // parsed before, so nothing is ignored
    }
}

pub(super) fn filter(text: &str) -> Result<LogFilter, String> {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    // `EnvFilter` takes a misspelt level for the name of a module, and then logs all of it.
    let is_clear = |directive: &str| directive.contains(['=', ':', '[']) || is_level(directive);
    if text.split(',').map(str::trim).all(is_clear) && EnvFilter::try_new(text).is_ok() {
        Ok(LogFilter(text.to_owned()))
    } else {
        Err("write off, error, warn, info, debug or trace, or such as warn,sheaf_node=debug"
            .to_owned())
    }
}
