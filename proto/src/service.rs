//! What a node answers over gRPC on its admin port, as generated from
//! `proto/sheaf/v1/statistics.proto`.

// In generated code, and there is nothing else here but one constant, these two say nothing.
#![allow(missing_docs, unused_qualifications)]

include!(concat!(env!("OUT_DIR"), "/statistics/sheaf.v1.rs"));

/// The file that this is generated from, and those that it imports: an encoded
/// `google.protobuf.FileDescriptorSet`, for clients that ask by reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/statistics/descriptor.bin"));
