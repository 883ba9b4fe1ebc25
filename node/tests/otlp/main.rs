//! OTLP over real sockets, against an intake that only remembers: each rule of
//! the specification about what is taken, what is refused, and with which code.
#![allow(clippy::unwrap_used)]

mod bodies; // requests as bytes
mod connections; // silence, slowness, liars, age, shutdown
mod grpc;
mod health;
mod http;
mod node; // the servers under test, and the intake behind them
#[path = "../support/sender.rs"]
mod sender; // HTTP/1.1 and HTTP/2 clients that send what they are told, frame by frame
#[path = "../support/waiting.rs"]
mod waiting; // for conditions
