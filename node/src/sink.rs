//! Ways out. A sink says what it can promise, and the documentation repeats it.

pub mod stdout; // one line, or one block of text, per window

use sheaf_proto::statistics::WindowCounts;
use uuid::Uuid;

use crate::event::time::UnixNanos;

/// What makes a delivery recognisable: the same key always comes with the same content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryKey {
    /// The cluster.
    pub cluster: Uuid,
    /// The aggregation's number.
    pub aggregation: u32,
    /// The window's first instant.
    pub start: UnixNanos,
    /// The revision, from 1.
    pub revision: u32,
}

/// How often a delivery takes effect when the node dies at the wrong moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Once: the sink recognises a repeated delivery by its key.
    Transactional,
    /// At least once, with the same key and the same content.
    Repeatable,
}

/// Why a delivery did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink will never take anything again.
    #[error("deliver window {window}: {source}")]
    Closed {
        /// The window's first instant.
        window: UnixNanos,
        /// What the system said.
        source: std::io::Error,
    },
    /// The window cannot be written in the sink's format.
    #[error("write window {window} as JSON: {source}")]
    Format {
        /// The window's first instant.
        window: UnixNanos,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A way out.
pub trait Sink: Send + Sync {
    /// What the sink can promise.
    fn promise(&self) -> Promise;

    /// Hands a window out. `Ok` means that the sink has it.
    ///
    /// # Errors
    /// When the window did not arrive, or may not have.
    fn deliver(&mut self, key: &DeliveryKey, counts: &WindowCounts) -> Result<(), SinkError>;
}
