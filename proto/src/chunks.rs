//! How chunks of files are sent, as generated from `proto/sheaf/v1/chunks.proto`.

// In generated code, and there is nothing else here, these two say nothing.
#![allow(missing_docs, unused_qualifications)]

include!(concat!(env!("OUT_DIR"), "/chunks/sheaf.v1.rs"));
