//! Asks nodes: whichever answers, over one connection as long as it lasts.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout};

use crate::{backoff::Backoff, endpoint::Authority, output, text::printable};

/// How long a node may take to begin an answer: it may have to ask others.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long nothing may come before all is given up. Another node leads within some seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A list of 10,000 files with long ids has 20 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is nothing, or no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    /// No node answers.
    #[error("{0}")]
    Unanswered(String),
    /// There is no such file.
    #[error("{0}")]
    Unknown(String),
    /// What comes next was removed because of its age.
    #[error("{0}")]
    Removed(String),
    /// A node answers what cannot be used.
    #[error("{node} answers for {path}: {reason}")]
    Unusable {
        /// Which node.
        node: Authority,
        /// What was asked for.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What is asked for cannot be a pattern.
    #[error("{0}")]
    Pattern(#[from] globset::Error),
    /// Stdout is closed or full.
    #[error("print")]
    Print(#[source] io::Error),
    /// The file cannot be written.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not to be touched.
    #[error("{}: {reason}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl GetError {
    /// There is no file of this id, or not this session of it.
    pub(super) fn unknown(id: &str, session: Option<u64>) -> GetError {
        let id = printable(id);
        GetError::Unknown(match session {
            None => format!("there is no file with the id {id}: sheaf get lists those there are"),
            Some(session) => format!(
                "{id} has no session {session}: sheaf get --list '{id}' shows those that it has"
            ),
        })
    }

    /// This byte of a session was there when it was listed.
    pub(super) fn removed(id: &str, session: u64, at: u64) -> GetError {
        GetError::Removed(format!(
            "byte {at} of session {session} of {} was removed because of its age before it was \
             read: ask again for what is left",
            printable(id)
        ))
    }

    /// Whether nobody reads stdout any more.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, GetError::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The nodes, and what is known of them.
pub(super) struct Remote {
    nodes: Vec<Authority>,
    /// Which one is asked.
    at: usize,
    open: Option<SendRequest<Empty<Bytes>>>,
    /// When something last came, if anything did.
    progress: Option<Instant>,
    backoff: Backoff,
    is_told: bool,
}

/// An answer that can be used.
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    body: Incoming,
}

/// What is wrong with an answer.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Remote {
    /// One of these nodes is asked, and the next if it does not answer.
    pub(super) fn new(nodes: impl Iterator<Item = Authority>) -> Remote {
        let (nodes, backoff) = (nodes.collect(), Backoff::new());
        Remote { nodes, at: 0, open: None, progress: None, backoff, is_told: false }
    }

    fn node(&self) -> &Authority {
        &self.nodes[self.at % self.nodes.len()]
    }

    /// Something came: whatever goes wrong next has all the time again.
    pub(super) fn has_come(&mut self) {
        self.progress = Some(Instant::now());
        self.backoff = Backoff::new();
        self.is_told = false;
    }

    /// The answer to a `GET` of a path, and of this range of what is there.
    ///
    /// # Errors
    /// When no node gives one that can be used: at first each is asked once, later for a while.
    pub(super) async fn get(
        &mut self,
        path: &str,
        range: Option<&str>,
    ) -> Result<Answer, GetError> {
        let mut asked = 0;
        loop {
            let reason = match timeout(ANSWER_WITHIN, self.exchange(path, range)).await {
                Ok(Ok(answer)) if is_final(answer.head.status) => {
                    self.backoff = Backoff::new();
                    return Ok(answer);
                }
                Ok(Ok(answer)) => {
                    let status = answer.head.status;
                    if status == StatusCode::SERVICE_UNAVAILABLE {
                        // It is there, and may answer soon.
                        self.progress.get_or_insert_with(Instant::now);
                    }
                    reason(answer).await.unwrap_or_else(|| status.to_string())
                }
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
            };
            asked += 1;
            self.fails(&reason, asked)?;
            if asked.is_multiple_of(self.nodes.len()) {
                sleep(self.backoff.wait()).await;
            }
        }
    }

    /// The node that was asked is of no use at the moment.
    ///
    /// # Errors
    /// When all were asked, and nothing came for too long, or never.
    pub(super) fn fails(&mut self, reason: &str, asked: usize) -> Result<(), GetError> {
        let (node, reason) = (self.node().as_str(), printable(reason));
        let reason = if reason.contains(node) { reason } else { format!("{node}: {reason}") };
        self.open = None;
        self.at = (self.at + 1) % self.nodes.len();
        let is_over = self.progress.is_none_or(|last| last.elapsed() >= PATIENCE);
        if asked >= self.nodes.len() && is_over {
            return Err(GetError::Unanswered(reason));
        }
        if !self.is_told {
            output::note(&format!("sheaf: {reason}; trying again"));
            self.is_told = true;
        }
        Ok(())
    }

    async fn exchange(&mut self, path: &str, range: Option<&str>) -> Result<Answer, String> {
        let mut kept = self.open.take();
        if let Some(open) = &mut kept
            && open.ready().await.is_err()
        {
            kept = None;
        }
        let mut open = match kept {
            Some(open) => open,
            None => self.connect().await?,
        };
        let mut request = Request::get(path)
            .header(header::HOST, self.node().as_str())
            .header(header::USER_AGENT, concat!("sheaf/", env!("CARGO_PKG_VERSION")));
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let answer = open.send_request(request).await.map_err(|error| error.to_string())?;
        self.open = Some(open);
        let (head, body) = Response::into_parts(answer);
        Ok(Answer { head, body })
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let socket = self.node().connect().await.map_err(|error| error.to_string())?;
        let (open, driver) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| format!("greet: {error}"))?;
        // Its end shows in the requests' errors.
        tokio::spawn(driver);
        Ok(open)
    }

    /// What a node answers in JSON.
    ///
    /// # Errors
    /// As [`Remote::get`], and when it is not of that shape.
    pub(super) async fn ask<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, GetError> {
        for asked in 1.. {
            let answer = self.get(path, None).await?;
            let status = answer.head.status;
            if !status.is_success() {
                let refused = reason(answer).await;
                return Err(self.unusable(path, refused.unwrap_or_else(|| status.to_string())));
            }
            match answer.all().await {
                Ok(body) => {
                    self.has_come();
                    let read = serde_json::from_slice(&body);
                    return read.map_err(|error| self.unusable(path, error.to_string()));
                }
                Err(reason) => self.fails(&reason, asked)?,
            }
        }
        Err(self.unusable(path, "nothing".to_owned()))
    }

    /// An answer that no node gives.
    pub(super) fn unusable(&self, path: &str, reason: String) -> GetError {
        let (path, reason) = (path.to_owned(), printable(&reason));
        GetError::Unusable { node: self.node().clone(), path, reason }
    }
}

/// Whether another node, or the same one later, would answer no better.
fn is_final(status: StatusCode) -> bool {
    !status.is_server_error()
}

async fn reason(answer: Answer) -> Option<String> {
    let body = answer.all().await.ok()?;
    let Refusal { error } = serde_json::from_slice(&body).ok()?;
    Some(error)
}

impl Answer {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for a while.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| format!("nothing came for {PATIENCE:?}"))?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(bytes) = frame.map_err(|error| error.to_string())?.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    async fn all(self) -> Result<Bytes, String> {
        let all = timeout(PATIENCE, Limited::new(self.body, ANSWER_BYTES_MAX).collect()).await;
        let all = all.map_err(|_| format!("nothing came for {PATIENCE:?}"))?;
        Ok(all.map_err(|error| error.to_string())?.to_bytes())
    }
}
