//! Asks a node once or again and again, and prints what it answers.

use std::{io, time::Duration};

use clap::{Args, ValueEnum};
use sheaf_proto::names::ADMIN_PORT;

use crate::{
    endpoint::{Authority, Endpoint},
    output,
    query::QueryError,
    text,
    token::TokenError,
};

/// Whom to ask.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Whom {
    /// The address of the node's admin port [default: http://127.0.0.1:9464]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
}

/// Whom to ask, how often, and how to print.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Ask again every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    /// How to print; json prints the node's answers as they came
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    /// The node gave no answer that can be used.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// What the node wants to see is not there.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The result could not be printed.
    #[error("print the result")]
    Print(#[from] io::Error),
}

impl Whom {
    /// The node's admin port.
    pub(crate) fn authority(&self) -> Authority {
        self.endpoint.clone().unwrap_or_else(Endpoint::local).at(ADMIN_PORT)
    }
}

/// Prints what `ask` makes of the node's answers; with `--watch`, until it is interrupted.
///
/// # Errors
/// If the node does not answer at first, or with something else, or nothing can be printed.
pub(crate) async fn show(
    options: &Options,
    ask: impl AsyncFn(&Authority) -> Result<String, QueryError>,
) -> Result<(), ShowError> {
    let authority = options.whom.authority();
    let Some(seconds) = options.watch else {
        return Ok(output::result(&ask(&authority).await?)?);
    };
    output::screen(&ask(&authority).await?)?;
    loop {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        match ask(&authority).await {
            Ok(text) => output::screen(&text)?,
            // A node that restarts is worth waiting for.
            Err(error) => output::note(&text::error_line(&error)),
        }
    }
}
