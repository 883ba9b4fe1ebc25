//! A sender's ways to the nodes, over either protocol.

use super::{
    answer::{Answer, Lost},
    grpc, http,
    request::Request,
};

/// One way to each node; one link per sender. Connections are opened when they are needed, and
/// again after they broke.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    /// The first is the one that is used.
    ways: Vec<Way<'a>>,
}

/// A way to one node.
#[derive(Debug)]
pub(crate) enum Way<'a> {
    /// A stream on a connection that others use too.
    Grpc(&'a grpc::Channel),
    /// A connection of its own.
    Http(http::Connection),
}

impl<'a> Link<'a> {
    /// These ways, at least one; `sender` says which is used first.
    pub(crate) fn new(mut ways: Vec<Way<'a>>, sender: usize) -> Self {
        let first = sender % ways.len().max(1);
        ways.rotate_left(first);
        Link { ways }
    }

    /// Sends a request once and waits for the answer.
    ///
    /// # Errors
    /// `Lost` if there is no answer, for whatever reason.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<Answer, Lost> {
        match self.ways.first_mut() {
            Some(Way::Grpc(channel)) => channel.send(request).await,
            Some(Way::Http(connection)) => connection.send(request).await,
            None => Err(Lost("there is no node to send to".to_owned())),
        }
    }

    /// Goes on with the next node, if there are several.
    pub(crate) fn turn(&mut self) {
        if !self.ways.is_empty() {
            self.ways.rotate_left(1);
        }
    }
}
