//! A sender's way to the node, over either protocol.

use bytes::Bytes;

use super::{
    answer::{Answer, Lost},
    grpc, http,
};

/// One per sender. Connections are opened when they are needed, and again after they broke.
#[derive(Debug)]
pub(crate) enum Link<'a> {
    /// A stream on a connection that others use too.
    Grpc(&'a grpc::Channel),
    /// A connection of its own.
    Http(http::Connection),
}

impl Link<'_> {
    /// Sends a request once and waits for the answer.
    ///
    /// # Errors
    /// `Lost` if there is no answer, for whatever reason.
    pub(crate) async fn send(&mut self, request: Bytes) -> Result<Answer, Lost> {
        match self {
            Link::Grpc(channel) => channel.send(request).await,
            Link::Http(connection) => connection.send(request).await,
        }
    }
}
