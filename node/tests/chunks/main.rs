//! The port for chunks over real sockets, against a node that only remembers: each rule of
//! docs/protocol.md about what is taken, what is refused, and how it is answered.
#![allow(clippy::unwrap_used)]

mod connections; // slowness, age, drain, shutdown
mod http; // the older protocol, to the byte
mod node; // the server under test, and the node behind it
mod parts; // chunks as bytes
mod stream; // many chunks, read ahead and answered in order

#[path = "../support/sender.rs"]
mod sender; // HTTP/1.1 and HTTP/2 clients that send what they are told, frame by frame
#[path = "../support/waiting.rs"]
mod waiting; // for conditions
