//! What the command line says.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytesize::ByteSize;
use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use jiff::SignedDuration;

use super::{
    corpus::{Bodies, Corpus},
    encode::{Form, VALUES_MAX},
    plan::Plan,
};
use crate::endpoint::Endpoint;

const RECORDS: u64 = 1_000_000;
const BATCH_MAX: u64 = 1_000_000;
/// HTTP/2 has 24 bits for the length of a frame.
const FRAME_BYTES_MAX: u64 = (1 << 24) - 1;
const FRAME_BYTES_MIN: u64 = 1 << 10;

/// Sends logs to a node and tells how fast it took them.
///
/// The records are of about 350 bytes and look like those of a web shop: four
/// resources of two scopes per request, ten attributes over the levels. Exit
/// code 0: all were acknowledged; 1: not all; 2: wrong usage.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The nodes' addresses, several by commas or by repeating the flag; what one does not
    /// take or answer goes to the next [default: http://127.0.0.1:4317, or :4318 over HTTP]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) endpoint: Vec<Endpoint>,
    /// OTLP's transport; http means protobuf over HTTP/1.1
    #[arg(long, value_enum, default_value_t = Protocol::Grpc)]
    pub(crate) protocol: Protocol,
    /// How requests are compressed. Compressed requests are made beforehand, up to 64 MiB
    /// of them, and then repeat: in a longer run no new bodies appear
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
    /// Records to send [default: 1000000, or no end with --duration]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1 << 53))]
    pub(crate) records: Option<u64>,
    /// How long to send at most, like 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Records per request
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..=BATCH_MAX))]
    pub(crate) batch: u64,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) in_flight: usize,
    /// gRPC connections, which share the requests under way; over HTTP each of
    /// those has its own connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    pub(crate) connections: usize,
    /// Distinct bodies: a number like 5000 (the same ones all over again) or a share like
    /// 30% of the records (new ones all the time, which are repeated for a while)
    #[arg(long, value_name = "N|PERCENT%", default_value = "30%")]
    pub(crate) bodies: Bodies,
    /// Values that the attribute takes; low ones are more frequent
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=i64::from(VALUES_MAX)))]
    pub(crate) values: u32,
    /// The attribute's name
    #[arg(long, value_name = "NAME", default_value = "http.route", value_parser = attribute)]
    pub(crate) attribute: String,
    /// Percentage of the distinct bodies that come without the attribute
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) unknown_percent: u32,
    /// Another seed gives other bodies
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Records per second; 0: as fast as possible
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) rate: u64,
    /// The longest HTTP/2 frame to send, if the node allows it; grpc-go sends 16 KiB
    #[arg(long, value_name = "BYTES", default_value = "16KiB", value_parser = frame_size)]
    pub(crate) max_frame_size: usize,
    /// How long to wait for an answer before a request counts as lost
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// How long to send a request again while the node is busy or cannot be reached;
    /// then the run ends
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) retry_for: Duration,
    /// Write the exact counts that must come out to this file, as JSON: those of all
    /// acknowledged records, as if they had fallen into one window (unique: Body)
    #[arg(long, value_name = "FILE")]
    pub(crate) expect: Option<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// OTLP's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// gzip, at its usual level.
    Gzip,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Options {
    /// The contents of the records.
    pub(crate) fn corpus(&self) -> Corpus {
        Corpus {
            bodies: self.bodies,
            values: self.values,
            unknown_percent: self.unknown_percent,
            seed: self.seed,
        }
    }

    /// The form of the requests; their records happen now.
    pub(crate) fn form(&self) -> Form {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Form {
            attribute: self.attribute.clone(),
            values: self.values,
            grpc_prefix: self.protocol == Protocol::Grpc,
            time: u64::try_from(now.as_nanos()).unwrap_or(0),
        }
    }

    /// How the run is cut into requests.
    pub(crate) fn plan(&self) -> Plan {
        let endless = self.duration.map(|_| u64::MAX);
        let records = self.records.or(endless).unwrap_or(RECORDS);
        Plan { records, batch: self.batch, distinct_requests: u64::MAX }
    }
}

/// `30s`, `1m30s`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: SignedDuration = text.parse().map_err(|_| "a time like 30s or 5m is expected")?;
    Duration::try_from(span).map_err(|_| "a time cannot be negative".into())
}

fn attribute(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a name of ASCII letters, digits and signs is expected");
    }
    Ok(text.to_owned())
}

fn frame_size(text: &str) -> Result<usize, String> {
    let bytes = text.parse::<ByteSize>()?.as_u64();
    if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes) {
        return Err("1 KiB to 16 MiB less one byte are possible".into());
    }
    Ok(bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
    }

    #[test]
    fn frames_are_as_long_as_http2_can_have_them() {
        assert_eq!(frame_size("16KiB"), Ok(16_384));
        assert_eq!(frame_size("1MiB"), Ok(1 << 20));
        assert!(frame_size("100").is_err() && frame_size("16MiB").is_err());
    }
}
