use std::{path::PathBuf, time::Duration};

use clap::Args;
use sheaf_proto::{
    cluster::{Cluster, Member, MemberState},
    names::{CLUSTER_PATH, CONTROL_PORT, member_path},
};

use super::view;
use crate::{
    endpoint::{Authority, Endpoint},
    output,
    query::{self, QueryError},
    show::ShowError,
    text,
    token::{Token, TokenError},
};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Through which node, and by what right.
#[derive(Debug, Args)]
#[group(skip)]
struct Through {
    /// The address of a node's control port [default: http://127.0.0.1:9466]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// A file with the token that the node wants to see
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A node's control port, and what is sent along.
struct Control {
    authority: Authority,
    token: Option<Token>,
}

/// Moves everything off a node, which can be stopped then and never comes back.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The node's number, as `sheaf cluster` shows it
    node: u64,
    #[command(flatten)]
    through: Through,
    /// Show how far it is until it is done
    #[arg(long)]
    wait: bool,
}

/// Gives up a node that will not come back. What only it has is lost, and recorded as lost.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The node's number, as `sheaf cluster` shows it
    node: u64,
    #[command(flatten)]
    through: Through,
    /// Confirm that what only this node has may be lost
    #[arg(long, required = true)]
    yes: bool,
}

/// Has a node drained; with `--wait`, until it is.
///
/// # Errors
/// If the cluster refuses, or the node that is asked does not answer, or nothing can be printed.
pub(super) async fn drain(options: &Drain) -> Result<(), ShowError> {
    let control = options.through.control()?;
    let mut member = control.ask(options.node, "drain").await?;
    if !options.wait {
        return Ok(output::result(&view::leaving(&member))?);
    }
    let mut shown = String::new();
    while member.state == MemberState::Draining {
        let now = view::leaving(&member);
        if now != shown {
            output::note(&now);
            shown = now;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        match control.look(options.node).await {
            Ok(Some(seen)) => member = seen,
            // A node that restarts knows it again.
            Ok(None) => {}
            Err(error) => output::note(&text::error_line(&error)),
        }
    }
    Ok(output::result(&view::leaving(&member))?)
}

/// Has a node forgotten.
///
/// # Errors
/// As [`drain`].
pub(super) async fn forget(options: &Forget) -> Result<(), ShowError> {
    let member = options.through.control()?.ask(options.node, "forget").await?;
    Ok(output::result(&view::leaving(&member))?)
}

impl Through {
    fn control(&self) -> Result<Control, TokenError> {
        let authority = self.endpoint.clone().unwrap_or_else(Endpoint::local).at(CONTROL_PORT);
        let token = self.token_file.as_ref().map(Token::read).transpose()?;
        Ok(Control { authority, token })
    }
}

impl Control {
    async fn ask(&self, node: u64, act: &str) -> Result<Member, QueryError> {
        let path = member_path(node, act);
        let body = query::post_with(&self.authority, self.token.as_ref(), &path).await?;
        query::read(&self.authority, &path, &body)
    }

    async fn look(&self, node: u64) -> Result<Option<Member>, QueryError> {
        let body = query::get_with(&self.authority, self.token.as_ref(), CLUSTER_PATH).await?;
        let cluster: Cluster = query::read(&self.authority, CLUSTER_PATH, &body)?;
        Ok(cluster.members.into_iter().find(|member| member.id == node))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::query::tests::Node;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: super::super::Options,
    }

    fn parse(arguments: &[&str]) -> Result<super::super::Options, clap::Error> {
        Line::try_parse_from([&["cluster"], arguments].concat()).map(|line| line.options)
    }

    /// What comes of it if the node gives these answers.
    async fn run(arguments: &[&str], answers: &[(&str, &str)]) -> Result<(), String> {
        let node = Node::answering(answers).await;
        run_with(&node, arguments).await
    }

    async fn run_with(node: &Node, arguments: &[&str]) -> Result<(), String> {
        let options = parse(&[arguments, &["--endpoint", &node.address]].concat()).unwrap();
        match super::super::cluster(&options).await {
            Ok(()) => Ok(()),
            Err(ShowError::Query(error)) => Err(node.last_words(&error)),
            Err(ShowError::Token(error)) => Err(text::error_line(&error)),
            Err(ShowError::Print(error)) => panic!("{error}"),
        }
    }

    const DRAINED: &str = r#"{"id":3,"uuid":"5ea1c0de-0000-4000-8000-000000000003","address":"a:1",
        "state":"drained","role":"learner","slots":0,"owned":0,"segments":0}"#;

    #[tokio::test]
    async fn drain_waits_until_the_node_is_drained() {
        let draining = DRAINED.replace("drained", "draining");
        let cluster = cluster_of(DRAINED);
        let answers = [("202 Accepted", draining.as_str()), ("200 OK", &cluster)];
        assert_eq!(run(&["drain", "3", "--wait"], &answers).await, Ok(()));
        assert_eq!(run(&["drain", "3"], &answers[..1]).await, Ok(()));
    }

    fn cluster_of(member: &str) -> String {
        format!(
            r#"{{"cluster":null,"node":1,"formed":true,"leader":1,"term":1,"epoch":1,
                "members":[{member}],"segments":[]}}"#
        )
    }

    #[tokio::test]
    async fn the_token_goes_with_every_question() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, " 0123456789abcdef\n").unwrap();
        let arguments = ["drain", "3", "--wait", "--token-file", file.to_str().unwrap()];
        let (draining, cluster) = (DRAINED.replace("drained", "draining"), cluster_of(DRAINED));
        let answers = [("202 Accepted", draining.as_str()), ("200 OK", &cluster)];
        let token = "\r\nauthorization: Bearer 0123456789abcdef\r\n";
        let node = Node::answering_to(token, &answers).await;
        assert_eq!(run_with(&node, &arguments).await, Ok(()));
        let node = Node::answering_to(token, &answers).await;
        assert!(run_with(&node, &arguments[..3]).await.is_err());
    }

    #[tokio::test]
    async fn a_file_without_a_token_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let path = file.to_str().unwrap();
        let said = run(&["drain", "3", "--token-file", path], &[]).await.unwrap_err();
        assert_eq!(
            said,
            format!("sheaf: read the token file {path}: No such file or directory (os error 2)")
        );
        for text in ["", "two words", "größe"] {
            std::fs::write(&file, text).unwrap();
            let said = run(&["drain", "3", "--token-file", path], &[]).await.unwrap_err();
            assert_eq!(said, format!("sheaf: read the token file {path}: it has no token"));
        }
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let refusal = ("409 Conflict", r#"{"error":"too few would be left\u001b"}"#);
        let said = run(&["drain", "3"], &[refusal]).await;
        assert_eq!(said, Err(r"sheaf: NODE refuses: too few would be left\u{1b}".to_owned()));
        let said = run(&["forget", "3", "--yes"], &[("500 Internal Server Error", "")]).await;
        let words = "sheaf: ask NODE for /v1/cluster/members/3/forget: 500 Internal Server Error";
        assert_eq!(said, Err(words.to_owned()));
    }

    #[test]
    fn nobody_is_forgotten_by_mistake() {
        assert!(parse(&["forget", "3"]).unwrap_err().to_string().contains("--yes"));
        assert!(parse(&["forget", "3", "--yes"]).is_ok());
        assert!(parse(&["drain"]).is_err());
        assert!(parse(&["--segments", "drain", "3"]).is_err());
    }
}
