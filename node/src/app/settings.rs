//! What a node is told: by flag, by environment, by settings file, and by
//! default, in that order of strength.
//!
//! One list of flags names every setting, its default and its parser; a variable
//! or a line of the file is read as if it were that flag. So each source is
//! checked, even where a stronger one overrules it.

mod file; // the YAML file, with its line numbers
mod flags; // the one list of settings
mod given; // who said what, and who wins
mod value; // durations, sizes and the like from text

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use bytesize::ByteSize;
use rustix::system::uname;

use crate::aggregation::definition::{
    AggregationName, Definition, DistinctLogs, InvalidDefinition, Kind,
};
use crate::cluster::address::PeerAddress;
use crate::cluster::duties::Voters;
use crate::cluster::initial::{InitialMembers, InvalidInitialMembers};
use crate::cluster::placement::Copies;
use crate::source::otlp::BUDGET_PER_REQUEST;
use file::Document;
use flags::Flags;
use given::Given;

pub use flags::{LogFormat, StatsFormat};
pub use given::Origin;
pub use value::{LogFilter, zone};

/// The settings of a node; every value is valid, and valid beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file that some of them come from.
    pub config: Option<PathBuf>,
    /// The folder of the journal and all other state.
    pub data_dir: PathBuf,
    /// What is counted; never empty, and no two of one name.
    pub aggregations: Vec<Definition>,
    /// Where OTLP over gRPC is taken.
    pub otlp_grpc_listen: SocketAddr,
    /// Where OTLP over HTTP is taken.
    pub otlp_http_listen: SocketAddr,
    /// Where chunks of files are taken, over HTTP and gRPC.
    pub chunk_http_listen: SocketAddr,
    /// Where metrics, probes and statistics are answered.
    pub admin_listen: SocketAddr,
    /// Where other nodes of the cluster connect.
    pub peer_listen: SocketAddr,
    /// Where members are let go; without a token file only this machine reaches it.
    pub control_listen: SocketAddr,
    /// The file with the token that has to be sent there.
    pub control_token_file: Option<PathBuf>,
    /// What other nodes are told to reach this one by. Its port is 0 where that of
    /// `peer_listen` is, and then it is known once the node listens.
    pub peer_address: PeerAddress,
    /// Who forms a new cluster, this node among them.
    pub initial_members: InitialMembers,
    /// What this machine may fail together with, if it is known.
    pub zone: ZoneSource,
    /// On how many nodes each accepted request is durable before it is acknowledged.
    pub copies: Copies,
    /// How many members vote at most.
    pub voters: Voters,
    /// How far a member's clock may be from the leader's.
    pub clock_bound: Duration,
    /// How closed windows are printed.
    pub stats_format: StatsFormat,
    /// The most values that one window lists; the others are summed.
    pub stats_limit: usize,
    /// How the node's own log is written.
    pub log_format: LogFormat,
    /// Which events the node's own log has.
    pub log_level: LogFilter,
    /// The most bytes of one request, compressed or not.
    pub max_request_size: usize,
    /// The most bytes of requests being worked on; holds the largest request [`BUDGET_PER_REQUEST`] times.
    pub queue_size: usize,
    /// The most bytes of memory for open windows before they spill to disk.
    pub memory_limit: usize,
    /// The bytes of free disk space below which nothing is accepted.
    pub disk_reserve: u64,
    /// The bytes of journal above which open windows are carried and it is trimmed.
    pub journal_limit: u64,
    /// How long a stopping node may take to finish what is in flight.
    pub drain_timeout: Duration,
    /// How old a sender's connection may become, give or take a fifth.
    pub connection_max_age: Duration,
    /// The number of threads that serve requests; at least one.
    pub threads: usize,
}

/// Where it is said what a machine may fail together with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneSource {
    /// In the settings themselves, or nowhere; never empty.
    Settings(Option<String>),
    /// In this file, perhaps only later.
    File(PathBuf),
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// To run a node.
    Run(Box<Settings>),
    /// To print this text (`--help`, `--version`) to stdout and be done.
    Print(String),
}

/// Why a node does not start: one line that names the source. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A flag is unknown or has a bad value.
    #[error("{0}")]
    Usage(String),
    /// A variable or a key of the file is unknown or has a bad value.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The variable, or the file and line.
        origin: Origin,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// The settings file is not what it should be.
    #[error("{}{}: {reason}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where the parser knows it.
        line: Option<u64>,
        /// What is wrong.
        reason: String,
    },
    /// The settings file cannot be read.
    #[error("settings file {}: {source}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A setting shapes a count that is already written out in the file.
    #[error(
        "{origin} does not change the aggregations of {}: set windowSeconds or unique there, \
         or replace them with --attribute",
        file.display()
    )]
    Overruled {
        /// The setting.
        origin: Origin,
        /// The file with the aggregations.
        file: PathBuf,
    },
    /// The aggregations do not fit together.
    #[error(transparent)]
    Aggregations(#[from] InvalidDefinition),
    /// There is no address to tell other nodes.
    #[error(
        "this machine's host name, \"{name}\", is none that other nodes could look up: \
         say with peer-address what they reach this one by"
    )]
    HostName {
        /// The host name.
        name: String,
    },
    /// No cluster could be formed.
    #[error(transparent)]
    InitialMembers(#[from] InvalidInitialMembers),
    /// Everybody could change the cluster.
    #[error(
        "control-listen is {listen}, which other machines reach: say with control-token-file \
         what they have to send"
    )]
    Unguarded {
        /// The address.
        listen: SocketAddr,
    },
    /// The largest request could never be admitted.
    #[error(
        "queue-size is {}, but has to be at least {}: a request of max-request-size ({}) \
         takes {BUDGET_PER_REQUEST} times its size while it is decoded",
        ByteSize(*queue as u64).display().iec(),
        ByteSize((*request * BUDGET_PER_REQUEST) as u64).display().iec(),
        ByteSize(*request as u64).display().iec()
    )]
    QueueTooSmall {
        /// `queue-size` in bytes.
        queue: usize,
        /// `max-request-size` in bytes.
        request: usize,
    },
}

impl SettingsError {
    /// What the process ends with.
    pub const EXIT_CODE: u8 = 2;
}

impl Settings {
    /// The settings of a node that listens for its peers at `bound`: the system may have
    /// chosen the port. Only a node that forms a cluster of its own may leave that to it.
    pub fn with_peer_port(mut self, bound: SocketAddr) -> Settings {
        if self.peer_address.port() == 0 {
            self.peer_address = self.peer_address.with_port(bound.port());
            self.initial_members = InitialMembers::alone(self.peer_address.clone());
        }
        self
    }

    /// Settings from a command line (the program's name first), the environment,
    /// and the file that one of them names, which `read_file` reads.
    pub fn load(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Command, SettingsError> {
        let from_flags = match flags::parse(arguments).map_err(SettingsError::Usage)? {
            flags::Parsed::Given(given) => given,
            flags::Parsed::Print(text) => return Ok(Command::Print(text)),
        };
        let mut given = given::from_environment(environment)?;
        given.overrule_with(from_flags);
        let file = match given.path("config") {
            Some(path) => Some(read(path, read_file)?),
            None => None,
        };
        resolve(given, file).map(|settings| Command::Run(Box::new(settings)))
    }
}

fn read(
    path: PathBuf,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Document, SettingsError> {
    match read_file(&path) {
        Ok(text) => Document::parse(path, &text),
        Err(source) => Err(SettingsError::ReadFile { path, source }),
    }
}

/// Lays the stronger sources over the file and checks what concerns several settings.
fn resolve(stronger: Given, file: Option<Document>) -> Result<Settings, SettingsError> {
    let mut given = Given::default();
    let mut listed = None;
    if let Some(document) = file {
        listed = listed_aggregations(&stronger, &document)?;
        given = document.settings;
    }
    given.overrule_with(stronger);
    let flags = given.flags().map_err(SettingsError::Usage)?;
    let aggregations = listed.unwrap_or_else(|| counts_by_attribute(&flags));
    Definition::check_list(&aggregations)?;
    check_queue(&flags)?;
    check_control(&flags)?;
    let peer_address = peer_address(&flags, &host_name())?;
    let initial_members =
        InitialMembers::new(flags.initial_members, flags.initial_count, &peer_address)?;
    Ok(Settings {
        config: flags.config,
        data_dir: flags.data_dir,
        aggregations,
        otlp_grpc_listen: flags.otlp_grpc_listen,
        otlp_http_listen: flags.otlp_http_listen,
        chunk_http_listen: flags.chunk_http_listen,
        admin_listen: flags.admin_listen,
        peer_listen: flags.peer_listen,
        control_listen: flags.control_listen,
        control_token_file: flags.control_token_file,
        peer_address,
        copies: flags.copies.unwrap_or_else(|| default_copies(&initial_members)),
        initial_members,
        zone: flags.zone_file.map_or(ZoneSource::Settings(flags.zone), ZoneSource::File),
        voters: flags.voters,
        clock_bound: flags.clock_bound,
        stats_format: flags.stats_format,
        stats_limit: flags.stats_limit,
        log_format: flags.log_format,
        log_level: flags.log_level,
        max_request_size: flags.max_request_size,
        queue_size: flags.queue_size,
        memory_limit: flags.memory_limit,
        disk_reserve: flags.disk_reserve,
        journal_limit: flags.journal_limit,
        drain_timeout: flags.drain_timeout,
        connection_max_age: flags.connection_max_age,
        threads: flags.threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
    })
}

/// Two disks, where there is a second node from the start.
fn default_copies(initial: &InitialMembers) -> Copies {
    if initial.count() > 1 { Copies::TWO } else { Copies::ONE }
}

/// The file's list, unless a stronger `attribute` replaces it as a whole.
///
/// A window or a uniqueness alone would leave open which aggregation it means,
/// and in the file itself would contradict the list: both are refused.
fn listed_aggregations(
    stronger: &Given,
    document: &Document,
) -> Result<Option<Vec<Definition>>, SettingsError> {
    if stronger.has("attribute") {
        return Ok(None);
    }
    let Some(list) = &document.aggregations else {
        return Ok(None);
    };
    let shorthand = ["attribute", "window", "unique"];
    let overruled = shorthand
        .iter()
        .find_map(|id| stronger.origin(id).or_else(|| document.settings.origin(id)));
    match overruled {
        Some(origin) => {
            Err(SettingsError::Overruled { origin: origin.clone(), file: document.path.clone() })
        }
        None => Ok(Some(list.clone())),
    }
}

/// What `attribute`, `window` and `unique` are short for.
fn counts_by_attribute(flags: &Flags) -> Vec<Definition> {
    let definition = |attribute: &String| Definition {
        name: AggregationName::by_attribute(attribute),
        kind: Kind::DistinctLogs(DistinctLogs {
            attribute: attribute.clone(),
            unique: flags.unique,
            window: flags.window,
        }),
    };
    flags.attribute.iter().map(definition).collect()
}

fn check_queue(flags: &Flags) -> Result<(), SettingsError> {
    let (queue, request) = (flags.queue_size, flags.max_request_size);
    if queue / BUDGET_PER_REQUEST < request {
        return Err(SettingsError::QueueTooSmall { queue, request });
    }
    Ok(())
}

fn check_control(flags: &Flags) -> Result<(), SettingsError> {
    let listen = flags.control_listen;
    if flags.control_token_file.is_none() && !listen.ip().to_canonical().is_loopback() {
        return Err(SettingsError::Unguarded { listen });
    }
    Ok(())
}

/// What was said, or else where the node listens, or if that is no single address, the
/// name of the machine.
fn peer_address(flags: &Flags, host_name: &str) -> Result<PeerAddress, SettingsError> {
    if let Some(address) = &flags.peer_address {
        return Ok(address.clone());
    }
    PeerAddress::try_from(flags.peer_listen).or_else(|_| {
        PeerAddress::named(host_name, flags.peer_listen.port())
            .map_err(|_| SettingsError::HostName { name: host_name.to_owned() })
    })
}

fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
