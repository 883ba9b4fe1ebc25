//! The one list of settings, as flags; everything that knows clap's ways.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, Parser, ValueEnum};

use super::given::{Given, Origin};
use super::value::{self, LogFilter};
use crate::aggregation::definition::{Unique, WindowLength};
use crate::cluster::address::PeerAddress;
use crate::cluster::duties::Voters;
use crate::cluster::placement::Copies;
use crate::event::entry::REQUEST_BYTES_MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Counts distinct log records exactly, and prints the counts of every window to stdout.
///
/// Each setting is a flag, a variable (in brackets) and a key of the settings
/// file (the flag's name in camelCase: dataDir, otlpGrpcListen, ..). A flag is
/// stronger than a variable, a variable stronger than the file. An empty variable
/// counts as not set; several attributes or members in one variable are separated by commas.
#[derive(Debug, Parser)]
#[command(name = "sheaf-node", version, max_term_width = 100, args_override_self = true)]
pub(super) struct Flags {
    /// The settings file, in YAML
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// The folder of the journal and all other state; one node at a time uses it
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    pub(super) data_dir: PathBuf,

    /// An attribute whose values are counted apart; give it several times to count by several.
    /// It replaces the aggregations of the settings file
    #[arg(long, value_name = "KEY", default_value = "service.name", value_parser = NonEmptyStringValueParser::new())]
    pub(super) attribute: Vec<String>,

    /// The time that one count covers, in whole seconds, aligned to the clock: 10s, 1m, 1h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::window)]
    pub(super) window: WindowLength,

    /// What makes two records the same: their Body, the whole Record, or None to count every record
    #[arg(long, value_name = "WHAT", default_value = "Body", value_parser = value::unique)]
    pub(super) unique: Unique,

    /// Where OTLP over gRPC is taken
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:4317", value_parser = value::address)]
    pub(super) otlp_grpc_listen: SocketAddr,

    /// Where OTLP over HTTP is taken
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:4318", value_parser = value::address)]
    pub(super) otlp_http_listen: SocketAddr,

    /// Where chunks of files are taken, over HTTP and gRPC
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080", value_parser = value::address)]
    pub(super) chunk_http_listen: SocketAddr,

    /// Where metrics, probes and statistics are answered
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9464", value_parser = value::address)]
    pub(super) admin_listen: SocketAddr,

    /// Where the other nodes of the cluster connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9465", value_parser = value::address)]
    pub(super) peer_listen: SocketAddr,

    /// Where members are let go (drain, forget). Other machines are listened to with a token only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9466", value_parser = value::address)]
    pub(super) control_listen: SocketAddr,

    /// A file with the token that has to be sent to the control port; it is read again each time
    /// [default: none is needed]
    #[arg(long, value_name = "FILE")]
    pub(super) control_token_file: Option<PathBuf>,

    /// What other nodes are told to reach this one by
    /// [default: where it listens for them if that is one address, else this machine's host name]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) peer_address: Option<PeerAddress>,

    /// A member of those that form a new cluster together; give it several times, once for each
    /// and for this node too, or once with a DNS name that stands for all, and an initial count
    /// [default: this node alone]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(super) initial_members: Vec<PeerAddress>,

    /// How many addresses all initial members resolve to
    /// [default: as many as are given]
    #[arg(long, value_name = "COUNT", value_parser = value::count(1..=1000))]
    pub(super) initial_count: Option<usize>,

    /// What this machine may fail together with, such as a zone of a cloud
    /// [default: none]
    #[arg(long, value_name = "NAME", value_parser = value::zone)]
    pub(super) zone: Option<String>,

    /// A file with the zone, which may be empty or missing and be filled in later
    /// [default: none]
    #[arg(long, value_name = "FILE", conflicts_with = "zone")]
    pub(super) zone_file: Option<PathBuf>,

    /// On how many nodes what is accepted is durable before it is acknowledged: 1, 2 or 3
    /// [default: 2, or 1 if a node forms a cluster alone]
    #[arg(long, value_name = "NUMBER", value_parser = value::copies)]
    pub(super) copies: Option<Copies>,

    /// How many members vote at most: 1, 3 or 5. That of the node that leads counts
    #[arg(long, value_name = "NUMBER", default_value = "5", value_parser = value::voters)]
    pub(super) voters: Voters,

    /// How far a member's clock may be from the leader's; one that is further off takes nothing.
    /// That of the node that leads counts
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = value::clock_bound)]
    pub(super) clock_bound: Duration,

    /// How closed windows are printed: json, one line each, or text for people
    #[arg(long, value_name = "FORMAT", default_value = "json", hide_possible_values = true)]
    pub(super) stats_format: StatsFormat,

    /// The most values that one window lists; the others are summed
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = value::count(0..=1_000_000))]
    pub(super) stats_limit: usize,

    /// How the node's own log is written to stderr: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub(super) log_format: LogFormat,

    /// What the node's own log has: off, error, warn, info, debug or trace, or by part of the
    /// program: warn,sheaf_node=debug
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = value::filter)]
    pub(super) log_level: LogFilter,

    /// The largest request that is taken, before and after decompression
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = value::memory(KIB..=REQUEST_BYTES_MAX as u64))]
    pub(super) max_request_size: usize,

    /// The memory for all requests being worked on; holds at least three times the largest
    #[arg(long, value_name = "SIZE", default_value = "192MiB", value_parser = value::memory(2 * KIB..=TIB))]
    pub(super) queue_size: usize,

    /// The memory for open windows; what does not fit is sorted on disk, and counts stay exact
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = value::memory(MIB..=TIB))]
    pub(super) memory_limit: usize,

    /// The free disk space below which nothing is accepted until there is more again
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = value::size(0..=1024 * TIB))]
    pub(super) disk_reserve: u64,

    /// The size of the journal above which open windows are carried, so that it can be trimmed
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = value::size(MIB..=1024 * TIB))]
    pub(super) journal_limit: u64,

    /// How long a stopping node may take to finish what is in flight
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = value::timeout)]
    pub(super) drain_timeout: Duration,

    /// How old a sender's connection may become, give or take a fifth; it is closed then without
    /// losing a request, so that senders spread over all nodes
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = value::age)]
    pub(super) connection_max_age: Duration,

    /// The number of threads that serve requests
    /// [default: one for each CPU]
    #[arg(long, value_name = "COUNT", value_parser = value::count(1..=1024))]
    pub(super) threads: Option<usize>,
}

/// How closed windows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatsFormat {
    /// One JSON object on a line.
    Json,
    /// One value on a line, under the window's time.
    Text,
}

/// How the node's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One event on a line, for people.
    Text,
    /// One JSON object on a line.
    Json,
}

/// What a command line says.
pub(super) enum Parsed {
    Given(Given),
    /// `--help` or `--version`.
    Print(String),
}

/// The command, with each setting's default and variable in its help.
///
/// clap can name and read variables by itself, but only those of the process.
pub(super) fn command() -> Command {
    Flags::command().mut_args(|arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default = arg.get_default_values().first();
        let default = default.map(|value| format!("[default: {}] ", value.display()));
        let (default, variable) = (default.unwrap_or_default(), variable(&arg));
        arg.hide_default_value(true).help(format!("{help}\n{default}[env: {variable}]"))
    })
}

/// The variable that stands for a flag: `SHEAF_DATA_DIR` for `--data-dir`.
pub(super) fn variable(arg: &Arg) -> String {
    format!("SHEAF_{}", arg.get_id().as_str().to_ascii_uppercase())
}

/// The file's key that stands for a flag: `dataDir` for `--data-dir`.
pub(super) fn key(arg: &Arg) -> String {
    let mut key = String::new();
    let mut words = arg.get_id().as_str().split('_');
    key.extend(words.next());
    for word in words {
        let (first, rest) = word.split_at(1);
        key.extend([first.to_ascii_uppercase().as_str(), rest]);
    }
    key
}

/// Whether the setting is a list.
pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Reads a command line, the program's name first; an error is one line.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, String> {
    let command = command();
    let matches = match command.clone().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            return Ok(Parsed::Print(error.render().to_string()));
        }
        Err(error) => return Err(format!("{} (see --help)", one_line(&error))),
    };
    let mut given = Given::default();
    for arg in command.get_arguments() {
        if let Some(values) = values_on_command_line(&matches, arg.get_id().as_str()) {
            let origin = Origin::Flag(arg.get_id().as_str().replace('_', "-"));
            given.set(arg.get_id().as_str(), origin, values);
        }
    }
    Ok(Parsed::Given(given))
}

fn values_on_command_line(matches: &ArgMatches, id: &str) -> Option<Vec<OsString>> {
    if matches.value_source(id) != Some(ValueSource::CommandLine) {
        return None;
    }
    matches.get_raw(id).map(|values| values.map(OsString::from).collect())
}

/// Why a value does not fit a setting, in one line without the setting's name.
pub(super) fn check(id: &str, value: &OsString) -> Result<(), String> {
    let arguments = [OsString::from("sheaf-node"), flag(id, value)];
    let Err(error) = command().try_get_matches_from(arguments) else {
        return Ok(());
    };
    let line = one_line(&error);
    match error.get(ContextKind::InvalidArg) {
        Some(name) => Err(line.replace(&format!(" for '{name}'"), "")),
        None => Err(line),
    }
}

/// A setting in the form that a command line has it.
pub(super) fn flag(id: &str, value: &OsString) -> OsString {
    let mut flag = OsString::from(format!("--{}=", id.replace('_', "-")));
    flag.push(value);
    flag
}

/// clap's first paragraph, and its advice if it has any, without the usage.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(|lines| lines.trim().replace(['\n', '\r'], " "));
    let first = paragraphs.next().unwrap_or_default();
    let said = first.trim_start_matches("error: ").split_whitespace();
    let said = said.collect::<Vec<_>>().join(" ");
    match paragraphs.find_map(|lines| lines.strip_prefix("tip: ").map(str::to_owned)) {
        Some(advice) => format!("{said}; {advice}"),
        None => said,
    }
}
