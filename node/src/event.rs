//! What flows through a node, and its bytes.

pub mod chunk; // a stretch of a file's bytes
pub mod entry; // one accepted request, packed: the bytes that the journal keeps
pub mod fingerprint; // keyed hashes of content, and the slot they choose
pub mod node; // what a node is called within its cluster
pub mod slots; // sets of slots
pub mod time; // stamps, windows, the clock
pub mod value; // the canonical, typed encoding of OTLP values
