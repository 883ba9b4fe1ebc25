//! `sheaf`: the client side. Sends files and load to a cluster, reads what it rebuilt, shows what it
//! counted and what it consists of.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cluster; // `sheaf cluster`
mod get; // `sheaf get`
mod load; // `sheaf load`
mod stats; // `sheaf stats`
mod tail; // `sheaf tail`

mod show; // what `stats` and `cluster` share: asks once or again and again, and prints

mod backoff; // how long to wait when a node did not say
mod endpoint; // where a node listens
mod output; // stdout and stderr
mod query; // asks a node's admin port
mod status; // how a gRPC answer ends
mod table; // aligned columns
mod text; // how numbers, foreign texts and errors are written
mod token; // what a node's control port may want to see

use std::{error::Error, process::ExitCode};

use clap::{Parser, Subcommand};

/// The client side of Sheaf, which counts distinct logs and rebuilds log files.
#[derive(Debug, Parser)]
#[command(name = "sheaf", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(Box<load::Options>),
    Stats(stats::Options),
    Cluster(cluster::Options),
    Tail(tail::Options),
    Get(Box<get::Options>),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done: Result<bool, Box<dyn Error>> = match Cli::parse().command {
        Command::Load(options) => load::load(&options).await.map_err(Into::into),
        Command::Stats(options) => stats::stats(&options).await.map(|()| true).map_err(Into::into),
        Command::Cluster(options) => {
            cluster::cluster(&options).await.map(|()| true).map_err(Into::into)
        }
        Command::Tail(options) => tail::tail(&options).await.map_err(Into::into),
        Command::Get(options) => get::get(&options).await.map_err(Into::into),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::note(&text::error_line(&*error));
            ExitCode::FAILURE
        }
    }
}
