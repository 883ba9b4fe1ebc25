//! Ports, paths and keys that more than one program has to know.

/// OTLP over gRPC (OTLP specification 1.11, "OTLP/gRPC Default Port").
pub const OTLP_GRPC_PORT: u16 = 4317;
/// OTLP over HTTP (OTLP specification 1.11, "OTLP/HTTP Default Port").
pub const OTLP_HTTP_PORT: u16 = 4318;
/// Chunks of files, over HTTP and gRPC.
pub const CHUNK_PORT: u16 = 8080;
/// Metrics, probes and statistics.
pub const ADMIN_PORT: u16 = 9464;
/// The other nodes of a cluster.
pub const PEER_PORT: u16 = 9465;
/// What changes a cluster.
pub const CONTROL_PORT: u16 = 9466;

/// Where OTLP/HTTP takes logs.
pub const OTLP_HTTP_LOGS_PATH: &str = "/v1/logs";
/// The fully qualified gRPC method that takes logs.
pub const OTLP_GRPC_LOGS_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// The gRPC service that takes logs, as the health service names it.
pub const OTLP_GRPC_LOGS_SERVICE: &str = "opentelemetry.proto.collector.logs.v1.LogsService";

/// The header, or gRPC metadata, by which a sender names a request, so that one that is sent
/// again is counted once: `SESSION/SEQUENCE`. The session is 32 hexadecimal digits, chosen at
/// random by each life of a sender; the sequence counts its requests in decimal, from 1.
pub const REQUEST_ID_HEADER: &str = "sheaf-request-id";

/// How full the node's queue was in the last minute, in percent: on `/metrics`, and of its pod in
/// `custom.metrics.k8s.io`.
pub const QUEUE_METRIC: &str = "sheaf_queue_used_percent";

/// Where a chunk of a file is taken: a `POST` of one `LogPart`.
pub const CHUNK_DATA_PATH: &str = "/data";
/// How long all senders of chunks are asked to wait, with `?seconds=`.
pub const CHUNK_THROTTLE_PATH: &str = "/throttle";
/// How many chunks the node has accepted.
pub const CHUNK_COUNT_PATH: &str = "/count";
/// The fully qualified gRPC method that takes chunks.
pub const CHUNK_GRPC_PATH: &str = "/sheaf.v1.Chunks/Send";
/// The longest id of a file, in bytes.
pub const CHUNK_ID_BYTES_MAX: usize = 1024;

/// The files that the cluster has rebuilt, and what each waits for; below it, `/ID/SESSION` is the
/// content of one, with the id percent-encoded.
pub const FILES_PATH: &str = "/v1/files";
/// How many files a list has at most, whatever is asked for.
pub const FILES_MAX: usize = 10_000;
/// The header that names, by its id, a node that may have more of a file than the answer, and does
/// not answer itself.
pub const FILE_WAITS_FOR_HEADER: &str = "sheaf-waits-for";

/// The closed windows of the last hour, newest first.
pub const WINDOWS_PATH: &str = "/v1/windows";
/// The open windows, as far as they have got.
pub const CURRENT_WINDOWS_PATH: &str = "/v1/windows/current";
/// What came in against what went out.
pub const LEDGER_PATH: &str = "/v1/ledger";
/// How full the node's queue is.
pub const QUEUE_PATH: &str = "/v1/queue";
/// Who belongs to the cluster, who leads it and where its journals are; on the control port too.
pub const CLUSTER_PATH: &str = "/v1/cluster";

/// How fast the node works off requests, on the control port: a `POST` with
/// `?bytes_per_second=` sets a limit until the process ends, a `DELETE` lifts it.
pub const THROTTLE_PATH: &str = "/v1/throttle";

/// Where a member is asked to leave, on the control port: a `POST` to what [`member_path`] says.
pub const MEMBERS_PATH: &str = "/v1/cluster/members";

/// Where a node asks its cluster to let a member go: by `drain`, or by
/// `forget`.
pub fn member_path(member: impl std::fmt::Display, act: &str) -> String {
    format!("{MEMBERS_PATH}/{member}/{act}")
}
