//! `sheaf stats`: what a node has counted, as tables or as JSON.

mod query; // asks the node
mod table; // aligned columns
mod view; // windows and the ledger as tables

use std::{io, time::Duration};

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use sheaf_proto::{
    names::{ADMIN_PORT, CURRENT_WINDOWS_PATH, LEDGER_PATH, WINDOWS_PATH},
    statistics::{Ledger, WindowCounts},
};

use self::query::QueryError;
use crate::{
    endpoint::{Authority, Endpoint},
    output, text,
};

/// Shows what a node has counted: in the current windows so far, and in the last ones.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The address of the node's admin port [default: http://127.0.0.1:9464]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// How many closed windows to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    windows: usize,
    /// How many values to show of each
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Show the ledger instead: what came in against what went out
    #[arg(long)]
    ledger: bool,
    /// Ask again every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    /// How to print; json prints the node's answers as they came
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatsError {
    /// The node did not answer.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The node answered something else.
    #[error("read {path} from {authority}")]
    Unreadable {
        /// Which node.
        authority: Authority,
        /// What was asked for.
        path: &'static str,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
    /// The result could not be printed.
    #[error("print the result")]
    Print(#[from] io::Error),
}

/// Asks the node and prints its answers; with `--watch`, until it is interrupted.
///
/// # Errors
/// If the node does not answer at first, or with something else, or nothing can be printed.
pub(crate) async fn stats(options: &Options) -> Result<(), StatsError> {
    let authority = options.endpoint.clone().unwrap_or_else(Endpoint::local).at(ADMIN_PORT);
    let Some(seconds) = options.watch else {
        return Ok(output::result(&ask(&authority, options).await?)?);
    };
    output::screen(&ask(&authority, options).await?)?;
    loop {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        match ask(&authority, options).await {
            Ok(text) => output::screen(&text)?,
            // A node that restarts is worth waiting for.
            Err(error) => output::note(&text::error_line(&error)),
        }
    }
}

async fn ask(authority: &Authority, options: &Options) -> Result<String, StatsError> {
    if options.ledger {
        let body = query::get(authority, LEDGER_PATH).await?;
        let ledger: Ledger = read(authority, LEDGER_PATH, &body)?;
        return Ok(match options.output {
            Output::Table => view::ledger(&ledger),
            Output::Json => body,
        });
    }
    let current = query::get(authority, CURRENT_WINDOWS_PATH).await?;
    let closed = query::get(authority, WINDOWS_PATH).await?;
    let open_windows: Vec<WindowCounts> = read(authority, CURRENT_WINDOWS_PATH, &current)?;
    let closed_windows: Vec<WindowCounts> = read(authority, WINDOWS_PATH, &closed)?;
    Ok(match options.output {
        Output::Table => {
            view::windows(&open_windows, &closed_windows, options.windows, options.top)
        }
        Output::Json => format!("{{\"current\":{},\"windows\":{}}}", current.trim(), closed.trim()),
    })
}

fn read<T: DeserializeOwned>(
    authority: &Authority,
    path: &'static str,
    body: &str,
) -> Result<T, StatsError> {
    serde_json::from_str(body).map_err(|source| {
        let authority = authority.clone();
        StatsError::Unreadable { authority, path, source }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// What `sheaf stats` prints, or its last words, if the node gives these
    /// answers (status line and body), one per connection.
    async fn print(answers: &[(&str, &str)], more: &[&str]) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let answers: Vec<String> = answers
            .iter()
            .map(|(status, body)| {
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            })
            .collect();
        let node = tokio::spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 1024]).await.unwrap();
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let line = [&["stats", "--endpoint", &endpoint], more].concat();
        let options = Line::try_parse_from(line).unwrap().options;
        let authority = options.endpoint.clone().unwrap().at(ADMIN_PORT);
        let printed = ask(&authority, &options).await;
        node.abort();
        printed.map_err(|error| text::error_line(&error).replace(&endpoint, "NODE"))
    }

    const LEDGER: &str =
        r#"{"received":1,"accepted":1, "rejected":{},"aggregations":[],"balanced":true,"new":2}"#;

    #[tokio::test]
    async fn json_is_what_the_node_answered() {
        let windows = [("200 OK", "[]"), ("200 OK", "[ ]\n")];
        let printed = print(&windows, &["-o", "json"]).await;
        assert_eq!(printed.unwrap(), r#"{"current":[],"windows":[ ]}"#);
        let printed = print(&[("200 OK", LEDGER)], &["--ledger", "-o", "json"]).await;
        assert_eq!(printed.unwrap(), LEDGER);
    }

    #[tokio::test]
    async fn tables_are_the_default() {
        let printed = print(&[("200 OK", "[]"), ("200 OK", "[]")], &[]).await;
        assert_eq!(printed.unwrap(), "no windows yet");
        let printed = print(&[("200 OK", LEDGER)], &["--ledger"]).await.unwrap();
        assert!(printed.starts_with("ledger: balanced\n"), "{printed}");
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_in_one_line() {
        let wrong = print(&[("200 OK", "<html>")], &[]).await.unwrap_err();
        assert_eq!(wrong.lines().count(), 1);
        let wrong = print(&[("200 OK", "[]"), ("200 OK", "{}")], &[]).await.unwrap_err();
        assert!(wrong.starts_with("sheaf: read /v1/windows from NODE: "), "{wrong}");
        let wrong = print(&[("404 Not Found", "")], &[]).await.unwrap_err();
        assert_eq!(wrong, "sheaf: ask NODE for /v1/windows/current: 404 Not Found");
        let wrong = print(&[], &[]).await.unwrap_err();
        assert_eq!(wrong.lines().count(), 1);
    }

    #[tokio::test]
    async fn an_unreachable_node_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let authority = address.parse::<Endpoint>().unwrap().at(ADMIN_PORT);
        let error = query::get(&authority, WINDOWS_PATH).await.unwrap_err();
        let wanted = format!("sheaf: connect to {address}: Connection refused");
        assert!(text::error_line(&error).starts_with(&wanted));
    }
}
