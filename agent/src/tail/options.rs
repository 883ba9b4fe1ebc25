//! What the command line says.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use clap::Args;
use jiff::SignedDuration;

use super::{IdFrom, Naming, Pattern};
use crate::endpoint::Endpoint;

/// Twice a file system's block.
const CHUNK_BYTES_MIN: u64 = 8 << 10;
const CHUNK_BYTES_MAX: u64 = 8 << 20;
const WINDOW_BYTES_MIN: u64 = 2 * CHUNK_BYTES_MAX;
/// A chunk has to find room, or what is renamed would never be read.
const SPOOL_BYTES_MIN: u64 = CHUNK_BYTES_MAX;

/// Follows files and sends them to a cluster, which rebuilds each byte for byte.
///
/// Files are read from their beginning. What is sent is noted in the state folder first, so that
/// the next start goes on where this one ended, however it ended. SIGTERM or Ctrl-C stops it.
/// Exit code 0: stopped, or with --once all was sent; 1: trouble, or a file had to be given up;
/// 2: wrong usage.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which files: paths or patterns with * ? [..] {a,b} and ** (quoted, so that the shell leaves
    /// them alone). They need not be there yet
    #[arg(value_name = "GLOB", required = true, value_parser = PatternParser)]
    pub(crate) files: Vec<Pattern>,
    /// The nodes' addresses, several by commas or by repeating the flag; what one does not take or
    /// answer goes to the next. The default port is 8080
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) to: Vec<Endpoint>,
    /// The folder in which it is noted what was sent; one agent at a time uses it
    #[arg(long, value_name = "DIR", default_value = "./sheaf-tail")]
    pub(crate) state: PathBuf,
    /// The first part of the files' ids [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) host_name: Option<String>,
    /// What the rest of an id is made of
    #[arg(long, value_enum, default_value_t = IdFrom::Path)]
    pub(crate) id_from: IdFrom,
    /// Send what the files have now, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// The most bytes of one chunk
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = chunk_size)]
    pub(crate) chunk_size: usize,
    /// How long bytes may wait for more to be sent with
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    pub(crate) chunk_interval: Duration,
    /// How long a file that was renamed, deleted or replaced must have been quiet before the next
    /// of its name begins
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) rotate_wait: Duration,
    /// How long a file that was deleted, or after which the next of its name began, is kept open for
    /// writers that are late
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    pub(crate) linger: Duration,
    /// How often all files are looked at, whatever the system tells; less often if that would take
    /// more than a hundredth of the time
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) poll: Duration,
    /// The memory for chunks under way; when it is full nothing is read
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = window_size)]
    pub(crate) window: usize,
    /// The disk space for what is left of files that are renamed or deleted
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = spool_size)]
    pub(crate) spool: u64,
    /// How long a stop may wait for answers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,
}

/// What the follower goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) files: Vec<Pattern>,
    pub(crate) naming: Naming,
    pub(crate) once: bool,
    pub(crate) chunk_size: usize,
    pub(crate) chunk_interval: Duration,
    pub(crate) rotate_wait: Duration,
    pub(crate) linger: Duration,
    pub(crate) poll: Duration,
    pub(crate) window: usize,
    pub(crate) spool: u64,
    pub(crate) drain_timeout: Duration,
    /// How many files may be open at once.
    pub(crate) open_files_max: usize,
}

impl Options {
    /// The follower's part, if so many files may be open.
    pub(crate) fn settings(&self, open_files_max: usize) -> Settings {
        let host = self.host_name.clone().unwrap_or_else(machine_name);
        Settings {
            files: self.files.clone(),
            naming: Naming::new(&host, self.id_from),
            once: self.once,
            chunk_size: self.chunk_size,
            chunk_interval: self.chunk_interval,
            rotate_wait: self.rotate_wait,
            linger: self.linger,
            poll: self.poll,
            window: self.window,
            spool: self.spool,
            drain_timeout: self.drain_timeout,
            open_files_max,
        }
    }
}

fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Paths need not be UTF-8.
#[derive(Debug, Clone)]
struct PatternParser;

impl clap::builder::TypedValueParser for PatternParser {
    type Value = Pattern;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Pattern, clap::Error> {
        Pattern::parse(Path::new(value)).map_err(|error| {
            let shown = OsString::from(value).to_string_lossy().into_owned();
            let text = format!("invalid pattern '{shown}': {error}\n");
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

/// `30s`, `1m30s`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: SignedDuration = text.parse().map_err(|_| "a time like 200ms or 30s is expected")?;
    Duration::try_from(span).map_err(|_| "a time cannot be negative".into())
}

fn bytes(text: &str) -> Result<u64, String> {
    Ok(text.parse::<ByteSize>()?.as_u64())
}

fn chunk_size(text: &str) -> Result<usize, String> {
    let bytes = bytes(text)?;
    if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes) {
        return Err("8 KiB to 8 MiB are possible".into());
    }
    Ok(bytes as usize)
}

fn window_size(text: &str) -> Result<usize, String> {
    let bytes = bytes(text)?;
    if bytes < WINDOW_BYTES_MIN {
        return Err("at least 16 MiB are needed".into());
    }
    usize::try_from(bytes).map_err(|error| error.to_string())
}

fn spool_size(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes < SPOOL_BYTES_MIN {
        return Err("at least 8 MiB are needed".into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(more: &[&str]) -> Result<Options, String> {
        let line = [&["tail"], more].concat();
        Line::try_parse_from(line).map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn files_and_nodes_are_lists() {
        let options = parsed(&["/a/*.log", "/b", "--to", "http://one,two:81"]).unwrap();
        assert_eq!((options.files.len(), options.to.len()), (2, 2));
    }

    #[test]
    fn a_bad_value_says_what_is_expected() {
        for (line, wanted) in [
            (&[][..], "<GLOB>"),
            (&["/a/["], "invalid pattern '/a/['"),
            (&["/a", "--chunk-size", "1GiB"], "8 KiB to 8 MiB are possible"),
            (&["/a", "--window", "1MiB"], "at least 16 MiB are needed"),
            (&["/a", "--spool", "0"], "at least 8 MiB are needed"),
            (&["/a", "--poll", "soon"], "a time like 200ms or 30s is expected"),
            (&["/a", "--to", "https://node"], "only http:// is supported"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
