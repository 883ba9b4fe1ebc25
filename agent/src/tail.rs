//! `sheaf tail`: follows files and sends them to a cluster, which rebuilds each byte for byte.
//!
//! One thread follows the files and alone writes down what was cut; what it hands over is on disk
//! already. The main thread sends.

mod follower; // files -> chunks: finds, reads, cuts, writes down, hands over
mod sender; // chunks -> a node -> answers

mod options; // what the command line says
mod state; // what is known, on disk
mod watch; // what the system tells of changes

mod mailbox; // what the follower hears
mod naming; // what a file is called in the cluster
mod parcel; // a chunk as it goes over the wire
mod pattern; // which files are followed
mod report; // what people are told
mod session; // what is known, and how it changes
mod source; // a file that is read

mod identity; // which file it is

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sheaf_proto::names::CHUNK_PORT;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::spawn_blocking,
};

pub(crate) use self::options::Options;
use self::{
    follower::{FollowError, Follower},
    mailbox::Mailbox,
    naming::{IdFrom, Naming},
    options::Settings,
    pattern::Pattern,
    report::tell,
    sender::Sender,
    state::{State, StateError},
    watch::Watch,
};

/// Why files are followed no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TailError {
    /// What was known cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system is in trouble.
    #[error("prepare")]
    Prepare(#[source] io::Error),
    /// The files cannot be followed any more.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// This program has a mistake.
    #[error("follow the files")]
    Broken(#[from] tokio::task::JoinError),
}

/// Follows the files until it is told to stop, or with `--once` until they are sent. `true`: no
/// file had to be given up.
///
/// # Errors
/// If the state folder cannot be used.
pub(crate) async fn tail(options: &Options) -> Result<bool, TailError> {
    let signals = signals().map_err(TailError::Prepare)?;
    let state = State::open(&options.state)?;
    let open_files_max = raise_open_files();
    let mailbox = Mailbox::new().map_err(TailError::Prepare)?;
    let (parcels, to_send) = mpsc::unbounded_channel();
    let nodes = options.to.iter().map(|node| node.at(CHUNK_PORT));
    let sender = tokio::spawn(Sender::new(nodes, to_send, mailbox.clone()).run());
    let follower = Follower::new(options.settings(open_files_max), state, mailbox.clone(), parcels);
    let following = spawn_blocking(move || follower.run());
    let stopping = tokio::spawn(stop_when_told(signals, mailbox));
    let done = following.await?;
    sender.abort();
    stopping.abort();
    Ok(done?)
}

/// SIGTERM and SIGINT, which from now on end the process only as it says.
fn signals() -> io::Result<[Signal; 2]> {
    Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?])
}

/// Waits for a signal; at the second the process ends at once.
async fn stop_when_told([mut terminate, mut interrupt]: [Signal; 2], mailbox: Mailbox) {
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    told().await;
    tell("stopping: waiting for what was sent to be answered; once more to end now");
    mailbox.stop();
    told().await;
    std::process::exit(1);
}

/// How many files may be open, after asking for as many as possible.
fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
