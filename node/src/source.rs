//! Ways in: one protocol each, bytes to events and answers. Never touches the store.

pub mod chunks; // stretches of files over HTTP and gRPC
pub mod otlp; // OpenTelemetry logs over gRPC and HTTP

mod grpc; // gRPC's messages and statuses

mod body; // frames -> contiguous, charged bodies
mod refusal; // what went wrong -> gRPC status, HTTP status, google.rpc.Status
mod server; // connections: how many, how long, how they end
mod socket; // one connection's reads

use std::time::Duration;

pub use server::CONNECTION_BYTES_MAX;

/// How much a sender may ask of a server, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one request, both as it comes and decompressed.
    pub request_bytes_max: usize,
    /// Connections that one server serves at a time; more wait to be accepted.
    /// Besides the admission's budget, a connection may hold unread up to
    /// [`CONNECTION_BYTES_MAX`], if its sender really sends that much.
    pub connections_max: usize,
    /// How long a connection may take to open and a request's head to arrive;
    /// over HTTP/1.1 also how long a connection is kept without a request.
    pub head_wait: Duration,
    /// How long a body may pause between two frames.
    pub frame_wait: Duration,
    /// How long a body may take altogether.
    pub body_wait: Duration,
    /// After this long, give or take a fifth, a connection is closed without losing a request,
    /// so that senders spread anew.
    pub connection_age: Duration,
    /// How long requests in flight may take to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes_max: 64 << 20,
            connections_max: 2048,
            head_wait: Duration::from_secs(60),
            frame_wait: Duration::from_secs(10),
            body_wait: Duration::from_secs(60),
            connection_age: Duration::from_secs(5 * 60),
            drain: Duration::from_secs(20),
        }
    }
}
