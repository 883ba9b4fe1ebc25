//! What the parts report, as OpenMetrics text.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sheaf_proto::names::QUEUE_METRIC;

use crate::checkpoint::facts::Facts;
use crate::checkpoint::raft;
use crate::cluster::clocks::Clocks;
use crate::cluster::{printing, tidying};
use crate::flush::delivery::{self, FlushFigures};
use crate::flush::files::Tidied;
use crate::flush::folding;
use crate::flush::group::OpenFigures;
use crate::intake::Intake;
use crate::journal::{self, CommitFigures};

/// What OpenMetrics text ends with, once.
const CLOSING_LINE: &str = "# EOF\n";

type Labels = [(&'static str, String); 1];

/// Every metric of the node, but the process's own.
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    records: Family<Labels, Counter>,
    chunks: Counter,
    throttle: Gauge,
    queue_depth: Gauge,
    queue_capacity: Gauge,
    queue_used: Gauge<f64, AtomicU64>,
    open: Open,
    clock_offsets: Family<Labels, Gauge<f64, AtomicU64>>,
    clock_bound: Gauge<f64, AtomicU64>,
    raft_last: Gauge,
    commits: Commits,
    flushes: Flushes,
    tidied: Tidying,
}

#[derive(Clone, Default)]
struct Open {
    records: Family<Labels, Gauge>,
    memory: Family<Labels, Gauge>,
    files: Family<Labels, Gauge>,
    chunks: Family<Labels, Gauge>,
    chunk_bytes: Family<Labels, Gauge>,
    chunk_memory: Family<Labels, Gauge>,
}

#[derive(Clone)]
struct Commits {
    entries: Histogram,
    bytes: Histogram,
    seconds: Histogram,
}

#[derive(Clone)]
struct Flushes {
    distinct: Histogram,
    spills: Counter,
    contradicting: Counter,
    unbalanced: Counter,
}

#[derive(Clone, Default)]
struct Tidying {
    removed: Counter,
    compressed: Counter,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("sheaf");
        let metrics = Metrics {
            requests: Family::default(),
            records: Family::default(),
            chunks: Counter::default(),
            throttle: Gauge::default(),
            queue_depth: Gauge::default(),
            queue_capacity: Gauge::default(),
            queue_used: Gauge::default(),
            open: Open::default(),
            clock_offsets: Family::default(),
            clock_bound: Gauge::default(),
            raft_last: Gauge::default(),
            commits: Commits {
                entries: Histogram::new(exponential_buckets(1.0, 4.0, 7)),
                bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 8)),
                seconds: Histogram::new(exponential_buckets(0.000_125, 2.0, 14)),
            },
            flushes: Flushes {
                distinct: Histogram::new(exponential_buckets(1.0, 10.0, 9)),
                spills: Counter::default(),
                contradicting: Counter::default(),
                unbalanced: Counter::default(),
            },
            tidied: Tidying::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry);
        Metrics { registry, ..metrics }
    }

    fn register(&self, to: &mut Registry) {
        to.register(
            "requests",
            "Requests since the start, by outcome: accepted, unusable or busy",
            self.requests.clone(),
        );
        to.register(
            "records",
            "Records, by outcome: accepted since the start, or the reason why they were rejected",
            self.records.clone(),
        );
        to.register(
            "chunks",
            "Chunks of files that were accepted since the start",
            self.chunks.clone(),
        );
        to.register_with_unit(
            "chunk_throttle",
            "How long the cluster asks senders of chunks to wait, as it was told",
            Unit::Seconds,
            self.throttle.clone(),
        );
        to.register_with_unit(
            "queue_depth",
            "What the requests that are on their way take of the queue",
            Unit::Bytes,
            self.queue_depth.clone(),
        );
        to.register_with_unit(
            "queue_capacity",
            "What the queue holds at most",
            Unit::Bytes,
            self.queue_capacity.clone(),
        );
        // The registry puts its prefix before the name, and the unit behind it.
        to.register_with_unit(
            QUEUE_METRIC.trim_start_matches("sheaf_").trim_end_matches("_percent"),
            "The queue's mean use over the last minute, where a second in which a request was \
             refused for lack of room counts as full",
            Unit::Other("percent".to_owned()),
            self.queue_used.clone(),
        );
        to.register(
            "open_window_records",
            "Records in the open windows, by aggregation",
            self.open.records.clone(),
        );
        to.register_with_unit(
            "open_window_memory",
            "Memory that the open windows take, by aggregation",
            Unit::Bytes,
            self.open.memory.clone(),
        );
        to.register(
            "files_waiting",
            "Files that lack a chunk while later ones are there, by aggregation",
            self.open.files.clone(),
        );
        to.register(
            "chunks_waiting",
            "Chunks that wait for one before them, by aggregation",
            self.open.chunks.clone(),
        );
        to.register_with_unit(
            "chunks_waiting",
            "What is in these, by aggregation",
            Unit::Bytes,
            self.open.chunk_bytes.clone(),
        );
        to.register_with_unit(
            "chunks_waiting_memory",
            "What of it is in memory, by aggregation",
            Unit::Bytes,
            self.open.chunk_memory.clone(),
        );
        to.register_with_unit(
            "clock_offset",
            "How far a member's clock is ahead of the leader's, by node; only the leader tells",
            Unit::Seconds,
            self.clock_offsets.clone(),
        );
        to.register_with_unit(
            "clock_bound",
            "How far a member's clock may be from the leader's, as this node is set",
            Unit::Seconds,
            self.clock_bound.clone(),
        );
        to.register(
            "raft_last_index",
            "The index of the last entry in this node's copy of Raft's log",
            self.raft_last.clone(),
        );
        to.register(
            "commit_entries",
            "Requests that were made durable with one sync",
            self.commits.entries.clone(),
        );
        to.register_with_unit(
            "commit_size",
            "Bytes that were made durable with one sync",
            Unit::Bytes,
            self.commits.bytes.clone(),
        );
        to.register_with_unit(
            "commit_duration",
            "Time from a write's beginning to its sync's end",
            Unit::Seconds,
            self.commits.seconds.clone(),
        );
        to.register(
            "window_distinct_records",
            "Distinct records in this node's part of a window that was flushed",
            self.flushes.distinct.clone(),
        );
        to.register(
            "window_spills",
            "Times that a part of a window was moved to disk",
            self.flushes.spills.clone(),
        );
        to.register(
            "chunks_contradicting",
            "Chunks of this node's slots whose places in a file have others, with other bytes",
            self.flushes.contradicting.clone(),
        );
        to.register_with_unit(
            "files_removed",
            "Bytes of rebuilt files that this node removed because of their age",
            Unit::Bytes,
            self.tidied.removed.clone(),
        );
        to.register_with_unit(
            "files_compressed",
            "Bytes of rebuilt files that this node has compressed",
            Unit::Bytes,
            self.tidied.compressed.clone(),
        );
        to.register(
            "ledger_imbalances",
            "Lines after which the ledger did not balance; anything but 0 is a bug",
            self.flushes.unbalanced.clone(),
        );
    }

    /// Reports the journal's commits here.
    pub fn commit_observer(&self) -> journal::Observer {
        let Commits { entries, bytes, seconds } = self.commits.clone();
        Box::new(move |commit: CommitFigures| {
            entries.observe(commit.entries as f64);
            bytes.observe(commit.bytes as f64);
            seconds.observe(commit.took.as_secs_f64());
        })
    }

    /// Reports flushed windows here.
    pub fn flush_observer(&self) -> delivery::Observer {
        let flushes = self.flushes.clone();
        Box::new(move |flush: FlushFigures| match flush {
            FlushFigures::Window { distinct, spills } => {
                flushes.distinct.observe(distinct as f64);
                flushes.spills.inc_by(spills);
            }
            FlushFigures::Files { contradicting } => {
                flushes.contradicting.inc_by(contradicting);
            }
        })
    }

    /// Reports here what was removed and compressed of rebuilt files.
    pub fn tidy_observer(&self) -> tidying::Observer {
        let Tidying { removed, compressed } = self.tidied.clone();
        Box::new(move |tidied: Tidied| {
            removed.inc_by(tidied.removed);
            compressed.inc_by(tidied.compressed);
        })
    }

    /// Reports here whether the ledger balanced when a line was printed.
    pub fn line_observer(&self) -> printing::Observer {
        let unbalanced = self.flushes.unbalanced.clone();
        Box::new(move |balanced| {
            unbalanced.inc_by(u64::from(!balanced));
        })
    }

    /// Takes over what the intake has counted.
    pub fn read_intake(&self, intake: &Intake) {
        let admission = intake.admission();
        let received = intake.received();
        self.queue_depth.set(signed(admission.used() as u64));
        self.queue_capacity.set(signed(admission.capacity() as u64));
        self.queue_used.set(admission.used_percent());
        let requests = [
            ("accepted", received.requests()),
            ("unusable", received.unusable()),
            ("busy", admission.refused()),
        ];
        for (outcome, count) in requests {
            follow(&self.requests, outcome, count);
        }
        self.chunks.inner().store(received.chunks(), Ordering::Relaxed);
        follow(&self.records, "accepted", received.accepted());
        for (reason, count) in received.rejected() {
            follow(&self.records, &reason, count);
        }
    }

    /// Takes over how long Raft's log is.
    pub fn read_raft(&self, status: &raft::Status) {
        self.raft_last.set(signed(status.last.unwrap_or(0)));
    }

    /// Takes over what the cluster has agreed on.
    pub fn read_facts(&self, facts: &Facts) {
        self.throttle.set(facts.throttle_seconds().into());
    }

    /// Takes over what is known of the members' clocks.
    pub fn read_clocks(&self, clocks: &Clocks) {
        self.clock_bound.set(clocks.bound().as_secs_f64());
        self.clock_offsets.clear();
        for (node, offset) in clocks.offsets() {
            let gauge = self.clock_offsets.get_or_create(&[("node", node.to_string())]);
            gauge.set(offset.nanos() as f64 / 1e9);
        }
    }

    /// Reports here how large what is open is.
    pub fn open_observer(&self) -> folding::Observer {
        let Open { records, memory, files, chunks, chunk_bytes, chunk_memory } = self.open.clone();
        let all =
            [&records, &memory, &files, &chunks, &chunk_bytes, &chunk_memory].map(Family::clone);
        Box::new(move |open: &OpenFigures| {
            // What has no slots here any more must not stay as it was.
            all.iter().for_each(Family::clear);
            for (aggregation, figures) in &open.windows {
                set(&records, "aggregation", aggregation, figures.records);
                set(&memory, "aggregation", aggregation, figures.memory_bytes as u64);
            }
            for (aggregation, figures) in &open.files {
                set(&files, "aggregation", aggregation, figures.files);
                set(&chunks, "aggregation", aggregation, figures.chunks);
                set(&chunk_bytes, "aggregation", aggregation, figures.bytes);
                set(&chunk_memory, "aggregation", aggregation, figures.memory_bytes);
            }
        })
    }

    /// Appends every metric to `out`, without OpenMetrics' closing line.
    pub fn write(&self, out: &mut String) {
        // Writing to a string does not fail.
        if encode(out, &self.registry).is_ok() {
            out.truncate(out.trim_end_matches(CLOSING_LINE).len());
        }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Brings a counter up to what was counted elsewhere.
fn follow(family: &Family<Labels, Counter>, outcome: &str, count: u64) {
    let counter = family.get_or_create(&[("outcome", outcome.to_owned())]);
    counter.inner().store(count, Ordering::Relaxed);
}

fn set(family: &Family<Labels, Gauge>, label: &'static str, value: &str, to: u64) {
    family.get_or_create(&[(label, value.to_owned())]).set(signed(to));
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
