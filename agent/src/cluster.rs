//! `sheaf cluster`: who belongs to a node's cluster, as tables or as JSON; and who is to leave.

mod leave; // `sheaf cluster drain` and `forget`
mod view; // members and segments as tables

use clap::{Args, Subcommand};
use sheaf_proto::{cluster::Cluster, names::CLUSTER_PATH};

use crate::{
    endpoint::Authority,
    query::{self, QueryError},
    show::{self, Output, ShowError},
};

/// Shows the cluster that a node belongs to: who leads it, its members and who owns what.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    leave: Option<Leave>,
    #[command(flatten)]
    show: show::Options,
    /// Show the segments of all journals too, with the nodes that have them
    #[arg(long)]
    segments: bool,
}

#[derive(Debug, Subcommand)]
enum Leave {
    Drain(leave::Drain),
    Forget(leave::Forget),
}

/// Asks the node and prints its answer; with `--watch`, until it is interrupted.
///
/// # Errors
/// If the node does not answer at first, or with something else, or does not do what it is
/// to do, or nothing can be printed.
pub(crate) async fn cluster(options: &Options) -> Result<(), ShowError> {
    match &options.leave {
        None => show::show(&options.show, async |authority| ask(authority, options).await).await,
        Some(Leave::Drain(options)) => leave::drain(options).await,
        Some(Leave::Forget(options)) => leave::forget(options).await,
    }
}

async fn ask(authority: &Authority, options: &Options) -> Result<String, QueryError> {
    let body = query::get(authority, CLUSTER_PATH).await?;
    let cluster: Cluster = query::read(authority, CLUSTER_PATH, &body)?;
    Ok(match options.show.output {
        Output::Table => view::cluster(&cluster, options.segments),
        Output::Json => body,
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

    /// What `sheaf cluster` prints, or its last words, if the node gives this answer.
    async fn print(status: &str, body: &str, more: &[&str]) -> Result<String, String> {
        let node = Node::answering(&[(status, body)]).await;
        let line = [&["cluster", "--endpoint", &node.address], more].concat();
        let options = Line::try_parse_from(line).unwrap().options;
        let printed = ask(&options.show.whom.authority(), &options).await;
        printed.map_err(|error| node.last_words(&error))
    }

    const CLUSTER: &str = r#"{"cluster":"5ea1c0de-0000-4000-8000-000000000000","node":1,
        "formed":true,"leader":1,"term":1,"epoch":1,"members":[],"segments":[], "new":2}"#;

    #[tokio::test]
    async fn json_is_what_the_node_answered() {
        assert_eq!(print("200 OK", CLUSTER, &["-o", "json"]).await.unwrap(), CLUSTER);
    }

    #[tokio::test]
    async fn segments_are_shown_when_asked_for() {
        let printed = print("200 OK", CLUSTER, &[]).await.unwrap();
        assert!(printed.starts_with("cluster 5ea1c0de-"), "{printed}");
        assert!(!printed.contains("segment"), "{printed}");
        let printed = print("200 OK", CLUSTER, &["--segments"]).await.unwrap();
        assert!(printed.contains("  segment  "), "{printed}");
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_in_one_line() {
        let wrong = print("200 OK", "[]", &[]).await.unwrap_err();
        assert!(wrong.starts_with("sheaf: read /v1/cluster from NODE: "), "{wrong}");
        let wrong = print("404 Not Found", "", &[]).await.unwrap_err();
        assert_eq!(wrong, "sheaf: ask NODE for /v1/cluster: 404 Not Found");
    }
}
