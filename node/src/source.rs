//! Ways in: one protocol each, bytes to events and answers. Never touches the store.

pub mod otlp; // OpenTelemetry logs over gRPC and HTTP
