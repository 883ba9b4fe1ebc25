//! `sheaf stats`: what a node has counted, as tables or as JSON.

mod view; // windows and the ledger as tables

use clap::{Args, ValueEnum};
use sheaf_proto::{
    names::{CURRENT_WINDOWS_PATH, LEDGER_PATH, WINDOWS_PATH},
    statistics::{Ledger, WindowCounts},
};

use crate::{
    endpoint::Authority,
    query::{self, QueryError},
    show::{self, Output, ShowError},
};

/// Shows what a node has counted: in the current windows so far, and in the last ones.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    show: show::Options,
    /// How many closed windows to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    windows: usize,
    /// How many values to show of each
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Show the ledger instead: what came in against what went out
    #[arg(long)]
    ledger: bool,
    /// Whose figures to show
    #[arg(long, value_enum, default_value_t)]
    scope: Scope,
}

/// Whose figures are shown.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Scope {
    /// Those of all nodes
    #[default]
    Cluster,
    /// What the node that is asked has
    Node,
}

impl Scope {
    /// Where a node is asked for them.
    fn of(self, path: &str) -> String {
        match self {
            Scope::Cluster => path.to_owned(),
            Scope::Node => format!("{path}?scope=node"),
        }
    }
}

/// Asks the node and prints its answers; with `--watch`, until it is interrupted.
///
/// # Errors
/// If the node does not answer at first, or with something else, or nothing can be printed.
pub(crate) async fn stats(options: &Options) -> Result<(), ShowError> {
    show::show(&options.show, async |authority| ask(authority, options).await).await
}

async fn ask(authority: &Authority, options: &Options) -> Result<String, QueryError> {
    if options.ledger {
        let body = query::get(authority, &options.scope.of(LEDGER_PATH)).await?;
        let ledger: Ledger = query::read(authority, LEDGER_PATH, &body)?;
        return Ok(match options.show.output {
            Output::Table => view::ledger(&ledger),
            Output::Json => body,
        });
    }
    let current = query::get(authority, &options.scope.of(CURRENT_WINDOWS_PATH)).await?;
    let closed = query::get(authority, &options.scope.of(WINDOWS_PATH)).await?;
    let open_windows: Vec<WindowCounts> = query::read(authority, CURRENT_WINDOWS_PATH, &current)?;
    let closed_windows: Vec<WindowCounts> = query::read(authority, WINDOWS_PATH, &closed)?;
    Ok(match options.show.output {
        Output::Table => {
            view::windows(&open_windows, &closed_windows, options.windows, options.top)
        }
        Output::Json => format!("{{\"current\":{},\"windows\":{}}}", current.trim(), closed.trim()),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::query::tests::Node;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// What `sheaf stats` prints, or its last words, if the node gives these answers.
    async fn print(answers: &[(&str, &str)], more: &[&str]) -> Result<String, String> {
        let node = Node::answering(answers).await;
        let line = [&["stats", "--endpoint", &node.address], more].concat();
        let options = Line::try_parse_from(line).unwrap().options;
        let printed = ask(&options.show.whom.authority(), &options).await;
        printed.map_err(|error| node.last_words(&error))
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
    async fn a_nodes_own_figures_are_asked_for_by_their_scope() {
        for (more, path) in [
            (&["--scope", "node"][..], "/v1/windows/current?scope=node"),
            (&["--scope", "node", "--ledger"], "/v1/ledger?scope=node"),
            (&["--scope", "cluster"], "/v1/windows/current"),
        ] {
            let words = print(&[("404 Not Found", "")], more).await.unwrap_err();
            assert_eq!(words, format!("sheaf: ask NODE for {path}: 404 Not Found"));
        }
        let missing = [("200 OK", "[]"), ("404 Not Found", "")];
        let words = print(&missing, &["--scope", "node"]).await.unwrap_err();
        assert_eq!(words, "sheaf: ask NODE for /v1/windows?scope=node: 404 Not Found");
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
}
