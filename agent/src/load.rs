//! `sheaf load`: sends logs, as fast as the node takes them or at a chosen rate,
//! and tells what must come out.

mod answer; // what a node says, and what to do about it
mod corpus; // which body and value the n-th record has
mod delivery; // one request, until it is clear what became of it
mod encode; // requests with gaps, and how they are filled in
mod expect; // the counts that must come out
mod grpc; // OTLP over gRPC
mod http; // OTLP over HTTP
mod link; // either of them
mod options; // what the command line says
mod pacing; // when each request is due
mod plan; // how a run is cut into requests
mod progress; // how it is going
mod report; // what happened
mod request; // a request on its way, and what it is called
mod ring; // requests in memory, used again and again
mod run; // senders, side by side
#[cfg(test)]
mod scripted; // a node that answers what a test says

use std::{io, path::PathBuf};

use sheaf_proto::names::{OTLP_GRPC_PORT, OTLP_HTTP_PORT};

pub(crate) use self::options::Options;
use self::{
    corpus::Corpus,
    encode::Form,
    expect::Expected,
    options::{Compression, Output, Protocol},
    report::Summary,
    ring::Ring,
    run::{Finished, Senders},
};
use crate::output;

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The result could not be printed.
    #[error("print the result")]
    Print(#[source] io::Error),
    /// The expected counts could not be written.
    #[error("write {path}")]
    Expect {
        /// Where to.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Sends what the options say and prints what happened. `true`: every record was
/// acknowledged.
///
/// # Errors
/// If the result cannot be handed out. That records failed is a result.
pub(crate) async fn load(options: &Options) -> Result<bool, LoadError> {
    let summary = perform(options).await?;
    let text = match options.output {
        Output::Text => summary.to_text(),
        Output::Json => serde_json::to_string(&summary).map_err(|e| LoadError::Print(e.into()))?,
    };
    output::result(&text).map_err(LoadError::Print)?;
    Ok(summary.is_success())
}

async fn perform(options: &Options) -> Result<Summary, LoadError> {
    let corpus = options.corpus();
    let form = options.form();
    let mut ring = prepare(options, &corpus, &form);
    let plan = ring.plan();
    let Finished { tally, sent, took, cpu } = Senders::new(options, &mut ring).run(options).await;
    if let Some(path) = &options.expect {
        let expected = Expected::of(expect::Run {
            corpus: &corpus,
            form: &form,
            plan,
            sent,
            unacknowledged: tally.unacknowledged(),
            retried: tally.retried(),
            rejected: tally.rejected(),
        });
        let fail = |source| LoadError::Expect { path: path.clone(), source };
        expected.write(path).map_err(fail)?;
    }
    Ok(tally.summary(took, cpu))
}

fn prepare(options: &Options, corpus: &Corpus, form: &Form) -> Ring {
    let plan = options.plan();
    match options.compression {
        Compression::None => {
            Ring::uncompressed(corpus.clone(), form.clone(), plan, options.in_flight)
        }
        Compression::Gzip => {
            let ring = Ring::compressed(corpus.clone(), form.clone(), plan);
            let distinct = ring.plan().distinct_requests;
            if distinct != u64::MAX {
                output::note(&format!("compressed requests repeat after the first {distinct}"));
            }
            ring
        }
    }
}

fn default_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Grpc => OTLP_GRPC_PORT,
        Protocol::Http => OTLP_HTTP_PORT,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::{
        scripted::{Node, Reply},
        *,
    };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(node: &Node, more: &[&str]) -> Options {
        let line = [&["load", "--endpoint", node.address()], more].concat();
        Line::try_parse_from(line).unwrap().options
    }

    async fn expected(node: &Node, more: &[&str]) -> (Summary, Value) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("expected.json");
        let file = ["--expect", path.to_str().unwrap()];
        let summary = perform(&options(node, &[more, &file].concat())).await.unwrap();
        (summary, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
    }

    #[tokio::test]
    async fn what_is_expected_is_what_arrived_whatever_the_transport() {
        for transport in [&["--protocol", "grpc"], &["--protocol", "http"]] {
            for compression in [&["--compression", "none"], &["--compression", "gzip"]] {
                let node = Node::start(transport[1] == "http", []).await;
                let size = ["--records", "10500", "--unknown-percent", "10"];
                let more = [&transport[..], compression, &size].concat();
                let (summary, expected) = expected(&node, &more).await;
                assert!(summary.is_success());
                assert_eq!((summary.sent, summary.retries), (10_500, 0));
                assert_eq!(expected["records"], 10_500);
                assert_eq!(expected["distinct"], 3_150);
                let received = node.received();
                assert_eq!(received.len(), 11);
                assert_eq!(expected, scripted::recount("http.route", &received));
            }
        }
    }

    #[tokio::test]
    async fn refused_requests_are_not_expected_and_retried_ones_are_expected_once() {
        let replies = [Reply::Invalid, Reply::Busy(Some(1)), Reply::Taken];
        let node = Node::start(false, replies).await;
        let more = ["--records", "50", "--batch", "10", "--in-flight", "1", "--bodies", "100%"];
        let (summary, expected) = expected(&node, &more).await;
        assert!(!summary.is_success());
        assert_eq!((summary.sent, summary.acknowledged), (50, 40));
        assert_eq!((summary.failed, summary.retries), (10, 1));
        assert_eq!(summary.problems[0].reason, "INVALID_ARGUMENT: scripted");
        assert_eq!(expected["distinct"], 40);
        assert_eq!((&expected["retried"], &expected["unacknowledged"]), (&json!(1), &json!(1)));
        let mut received = node.received();
        received.remove(0);
        assert_eq!(expected["counts"], scripted::recount("http.route", &received)["counts"]);
    }

    #[tokio::test]
    async fn a_run_ends_when_a_request_cannot_be_delivered() {
        let node = Node::start(false, std::iter::repeat_n(Reply::Busy(Some(1)), 10_000)).await;
        let more =
            ["--records", "1000000", "--batch", "1", "--in-flight", "3", "--retry-for", "50ms"];
        let summary = perform(&options(&node, &more)).await.unwrap();
        assert_eq!((summary.sent, summary.acknowledged, summary.failed), (3, 0, 3));
    }

    #[tokio::test]
    async fn a_run_ends_after_its_time() {
        let node = Node::start(false, []).await;
        let more = ["--duration", "100ms", "--batch", "10", "--rate", "1000"];
        let summary = perform(&options(&node, &more)).await.unwrap();
        assert!(summary.is_success());
        assert!((10..=200).contains(&summary.sent), "{}", summary.sent);
    }
}
