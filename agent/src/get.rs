//! `sheaf get`: lists, reads and follows the files that a cluster rebuilds.

mod catalog; // which files there are
mod reading; // the bytes of one, and where the last lines begin
mod remote; // asks one node after the other
mod sink; // where bytes go

use std::{path::PathBuf, time::Duration};

use clap::Args;
use sheaf_proto::{files::RebuiltFile, names::ADMIN_PORT};
use tokio::time::{Instant, sleep};

use self::{
    catalog::{Pattern, is_newer},
    reading::Place,
    remote::{GetError, PATIENCE, Remote},
    sink::Sink,
};
use crate::{endpoint::Endpoint, output, text::printable};

/// How often a file that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A session of which nothing came for so many looks is left for the next ..
const QUIET_LOOKS: u32 = 4;
/// .. or for so many if it waits for a chunk: the gap may never close.
const GAP_LOOKS: u32 = 20;

const _: () = assert!(QUIET_LOOKS < GAP_LOOKS);

/// Lists, reads and follows the files that a cluster rebuilds.
///
/// Without an id it lists the files. With one it writes the newest session of it to stdout, byte for
/// byte. What breaks off goes on where it was, from another node if there are several.
/// Exit code 0: all of it was read; 1: trouble, or the list lacks something; 2: wrong usage.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The id of a file; with --list, a pattern for ids with * ? [..] {a,b} and ** (quoted)
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// List the files whose ids match; without an id, all
    #[arg(short, long, conflicts_with_all = ["session", "all", "follow", "tail", "bytes", "output"])]
    list: bool,
    /// List in JSON, as /v1/files answers: an object for each 10,000 files
    #[arg(long, conflicts_with_all = ["session", "all", "follow", "tail", "bytes", "output"])]
    json: bool,
    /// Read this session [default: the newest one of the id]
    #[arg(short, long, value_name = "N", requires = "id")]
    session: Option<u64>,
    /// Read all sessions of the id, one after the other, the oldest first
    #[arg(long, requires = "id", conflicts_with_all = ["session", "tail", "bytes", "resume"])]
    all: bool,
    /// Go on with what comes, and with the next session when one has begun; wait for the id if there
    /// is none yet
    #[arg(short, long, requires = "id")]
    follow: bool,
    /// Begin with the last so many lines
    #[arg(short = 'n', long, value_name = "N", requires = "id")]
    tail: Option<u64>,
    /// Begin with the last so many bytes
    #[arg(short = 'c', long, value_name = "N", requires = "id", conflicts_with = "tail")]
    bytes: Option<u64>,
    /// Write to a file in place of stdout; one that is there already is left alone
    #[arg(short, long, value_name = "FILE", requires = "id")]
    output: Option<PathBuf>,
    /// Go on behind what the file has, if that is how the session begins
    #[arg(long, requires = "output", conflicts_with_all = ["tail", "bytes"])]
    resume: bool,
    /// Replace the file
    #[arg(long, requires = "output", conflicts_with = "resume")]
    force: bool,
    /// The addresses of the nodes' admin ports, several by commas or by repeating the flag; what one
    /// does not answer the next is asked. The default port is 9464
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:9464"
    )]
    endpoint: Vec<Endpoint>,
}

/// Lists files, or reads one. `true`: nothing is missing.
///
/// # Errors
/// If no node answers, there is no such file, or it cannot be written.
pub(crate) async fn get(options: &Options) -> Result<bool, GetError> {
    let mut remote = Remote::new(options.endpoint.iter().map(|node| node.at(ADMIN_PORT)));
    match &options.id {
        Some(id) if !options.list && !options.json => {
            let read = read(options, id, &mut remote).await;
            // Whoever reads stdout has seen enough.
            read.or_else(|error| if error.is_closed() { Ok(()) } else { Err(error) })?;
            Ok(true)
        }
        pattern => {
            let pattern = pattern.as_deref().map(Pattern::parse).transpose()?;
            catalog::print(&mut remote, pattern.as_ref(), options.json).await
        }
    }
}

async fn read(options: &Options, id: &str, remote: &mut Remote) -> Result<(), GetError> {
    let mut sink = Sink::open(options.output.as_deref(), options.resume, options.force)?;
    let mut sessions = chosen(options, id, remote).await?.into_iter();
    let Some(mut file) = sessions.next() else { return Ok(()) };
    let mut place = begin(options, &file, remote, &mut sink).await?;
    loop {
        if options.all {
            note(&format!("{id}, session {}", file.session));
        }
        place.pass_removed(&file);
        match reading::copy(remote, &mut place, file.bytes, &mut sink).await {
            // Whoever follows goes on with what is left, and with the sessions behind.
            Err(GetError::Removed(_)) if options.follow => break,
            copied => copied?,
        }
        let Some(next) = sessions.next() else { break };
        (place, file) = (Place::new(&next, 0), next);
    }
    if options.follow {
        follow(remote, place, &mut sink).await?;
    }
    sink.finish()
}

/// The sessions that are to be read, the oldest first.
async fn chosen(
    options: &Options,
    id: &str,
    remote: &mut Remote,
) -> Result<Vec<RebuiltFile>, GetError> {
    let (begun, mut is_told) = (Instant::now(), false);
    loop {
        let list = catalog::sessions(remote, id).await?;
        let found = match options.session {
            _ if options.all => list.files,
            Some(session) => list.files.into_iter().filter(|it| it.session == session).collect(),
            None => list.files.into_iter().next_back().into_iter().collect(),
        };
        if !found.is_empty() {
            return Ok(found);
        }
        // Who does not answer may have it, and another node leads soon.
        if !options.follow && (list.complete || begun.elapsed() >= PATIENCE) {
            return Err(GetError::unknown(id, options.session));
        }
        if !is_told {
            note(&format!("there is no file with the id {id} yet: waiting"));
            is_told = true;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Where reading begins in the first session, whatever of it was removed.
async fn begin(
    options: &Options,
    file: &RebuiltFile,
    remote: &mut Remote,
    sink: &mut Sink,
) -> Result<Place, GetError> {
    let from = match (options.tail, options.bytes) {
        (Some(lines), _) => reading::last_lines(remote, file, lines).await?,
        (None, Some(bytes)) => file.bytes.saturating_sub(bytes),
        (None, None) if options.resume => reading::behind(remote, file, sink).await?,
        (None, None) => 0,
    };
    Ok(Place::new(file, from))
}

/// Goes on with what comes, until nobody listens.
async fn follow(remote: &mut Remote, mut place: Place, sink: &mut Sink) -> Result<(), GetError> {
    let mut quiet = 0;
    loop {
        let list = catalog::from_session(remote, &place.id, place.session).await?;
        let now = list.iter().find(|file| file.session == place.session);
        let next = list.iter().find(|file| is_newer(file, &place));
        if let Some(file) = now {
            place.pass_removed(file);
        }
        if let Some(file) = now.filter(|file| file.bytes > place.at) {
            quiet = 0;
            match reading::copy(remote, &mut place, file.bytes, sink).await {
                // The next look tells how far.
                Err(GetError::Removed(_)) => sleep(LOOK_EVERY).await,
                copied => copied?,
            }
            continue;
        }
        quiet += 1;
        let gap = now.and_then(|file| file.waits_for);
        let enough = if gap.is_some() { GAP_LOOKS } else { QUIET_LOOKS };
        if let Some(next) = next.filter(|_| quiet >= enough) {
            if let Some(chunk) = gap {
                let session = place.session;
                note(&format!("session {session} still waits for its chunk {chunk}"));
            }
            note(&format!("{} goes on with session {}", next.id, next.session));
            (place, quiet) = (Place::new(next, 0), 0);
            continue;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn note(text: &str) {
    output::note(&format!("sheaf: {}", printable(text)));
}
