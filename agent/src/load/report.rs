//! What happened during a run: counted as it goes, summed up at its end.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::delivery::{Delivery, Outcome};
use crate::text::grouped;

/// Reasons differ in few places; beyond this many they are summed up as one.
const REASONS_MAX: usize = 10;
/// An hour; what took longer counts as an hour.
const LATENCY_MAX_MICROS: u64 = 3_600_000_000;
const OTHER_REASONS: &str = "other reasons";

/// What has happened so far. Records are counted once their request has ended.
#[derive(Debug)]
pub(crate) struct Tally {
    acknowledged: u64,
    acknowledged_bytes: u64,
    rejected: u64,
    failed: u64,
    retries: u64,
    retried: u64,
    latency: Histogram<u64>,
    last_acknowledged: Option<Duration>,
    longest_gap: Duration,
    problems: Vec<Problem>,
    open: BTreeSet<u64>,
    unacknowledged: Vec<u64>,
}

/// Something that went wrong, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// What the node said, or what happened to the connection.
    pub(crate) reason: String,
    /// The number of requests.
    pub(crate) requests: u64,
}

/// The latency of the acknowledged requests, from their first sending to their
/// acknowledgement, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// The median.
    pub p50: f64,
    /// Nine of ten were faster.
    pub p90: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// The slowest.
    pub(crate) max: f64,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Records in all requests that were sent.
    pub(crate) sent: u64,
    /// Records that the node took.
    pub(crate) acknowledged: u64,
    /// Records that the node refused within requests that it took.
    pub(crate) rejected: u64,
    /// Records in requests that the node refused or that could not be delivered.
    pub(crate) failed: u64,
    /// How often a request was sent again.
    pub(crate) retries: u64,
    /// From the first sending to the last answer.
    pub(crate) seconds: f64,
    /// Acknowledged records per second.
    pub(crate) records_per_second: f64,
    /// Acknowledged bytes per second as they were sent, in millions.
    pub(crate) megabytes_per_second: f64,
    /// How long acknowledgements took.
    pub(crate) latency_ms: Latency,
    /// The longest time between two acknowledgements that followed each other, in milliseconds.
    pub(crate) longest_gap_ms: f64,
    /// This process' share of one core: near 1, the generator was the limit.
    pub(crate) generator_cpu: f64,
    /// What went wrong.
    pub(crate) problems: Vec<Problem>,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let latency = Histogram::new_with_max(LATENCY_MAX_MICROS, 3)
            .expect("an hour to three digits is within what a histogram offers");
        Tally {
            acknowledged: 0,
            acknowledged_bytes: 0,
            rejected: 0,
            failed: 0,
            retries: 0,
            retried: 0,
            latency,
            last_acknowledged: None,
            longest_gap: Duration::ZERO,
            problems: Vec::new(),
            open: BTreeSet::new(),
            unacknowledged: Vec::new(),
        }
    }

    /// A request is about to be sent.
    pub(crate) fn begin(&mut self, request: u64) {
        self.open.insert(request);
    }

    /// A request was acknowledged so long after the run began.
    pub(crate) fn hear(&mut self, at: Duration) {
        let gap = at.saturating_sub(self.last_acknowledged.unwrap_or(at));
        self.longest_gap = self.longest_gap.max(gap);
        self.last_acknowledged = Some(at);
    }

    /// A request of so many records and bytes has ended.
    pub(crate) fn end(
        &mut self,
        request: u64,
        records: u64,
        bytes: u64,
        took: Duration,
        delivery: Delivery,
    ) {
        self.open.remove(&request);
        self.retries += delivery.retries;
        self.retried += u64::from(delivery.retries > 0);
        match delivery.outcome {
            Outcome::Acknowledged { rejected, message } => {
                let rejected = rejected.min(records);
                self.acknowledged += records - rejected;
                self.acknowledged_bytes += bytes;
                self.rejected += rejected;
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
                if !message.is_empty() {
                    self.problem(&message);
                }
            }
            Outcome::Refused { reason } | Outcome::GivenUp { reason } => {
                self.fail(request, records, &reason);
            }
        }
    }

    /// The run ends now: requests without an answer have failed.
    pub(crate) fn abandon(&mut self, records_in: impl Fn(u64) -> u64) {
        for request in std::mem::take(&mut self.open) {
            self.fail(request, records_in(request), "interrupted");
        }
    }

    fn fail(&mut self, request: u64, records: u64, reason: &str) {
        self.failed += records;
        self.unacknowledged.push(request);
        self.problem(reason);
    }

    fn problem(&mut self, reason: &str) {
        let full = self.problems.len() >= REASONS_MAX;
        let known = self.problems.iter_mut().find(|problem| problem.reason == reason);
        match known {
            Some(problem) => problem.requests += 1,
            None if full && reason != OTHER_REASONS => self.problem(OTHER_REASONS),
            None => self.problems.push(Problem { reason: reason.to_owned(), requests: 1 }),
        }
    }

    /// Records that the node took.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How often a request was sent again.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }

    /// The number of requests that were sent more than once.
    pub(crate) fn retried(&self) -> u64 {
        self.retried
    }

    /// Records that the node refused within requests that it took.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The requests that were sent and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> &[u64] {
        &self.unacknowledged
    }

    /// Of the acknowledgements so far.
    pub(crate) fn latency(&self) -> Latency {
        let max = self.latency.max();
        let at = |quantile| self.latency.value_at_quantile(quantile).min(max) as f64 / 1_000.0;
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: max as f64 / 1_000.0 }
    }

    /// Sums up a run that took so long and this much of a processor's time.
    pub(crate) fn summary(&self, took: Duration, cpu: Duration) -> Summary {
        let seconds = took.as_secs_f64().max(1e-9);
        Summary {
            sent: self.acknowledged + self.rejected + self.failed,
            acknowledged: self.acknowledged,
            rejected: self.rejected,
            failed: self.failed,
            retries: self.retries,
            seconds,
            records_per_second: self.acknowledged as f64 / seconds,
            megabytes_per_second: self.acknowledged_bytes as f64 / seconds / 1e6,
            latency_ms: self.latency(),
            longest_gap_ms: self.longest_gap.as_secs_f64() * 1_000.0,
            generator_cpu: cpu.as_secs_f64() / seconds,
            problems: self.problems.clone(),
        }
    }
}

impl Summary {
    /// Whether the node took every record.
    pub(crate) fn is_success(&self) -> bool {
        self.acknowledged == self.sent
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "{} records acknowledged in {:.2} s: {} records/s, {:.1} MB/s\n\
             sent {}, rejected {}, failed {}; {} retries\n",
            grouped(self.acknowledged),
            self.seconds,
            grouped(self.records_per_second as u64),
            self.megabytes_per_second,
            grouped(self.sent),
            grouped(self.rejected),
            grouped(self.failed),
            grouped(self.retries),
        );
        if self.acknowledged > 0 {
            let Latency { p50, p90, p99, max } = self.latency_ms;
            let line =
                format!("p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
            let gap = self.longest_gap_ms;
            let _ = writeln!(text, "latency {line}; longest gap {gap:.2} ms");
        }
        let _ = write!(text, "the generator used {:.0}% of one core", self.generator_cpu * 100.0);
        for Problem { reason, requests } in &self.problems {
            let plural = if *requests == 1 { "" } else { "s" };
            let _ = write!(text, "\n{} request{plural}: {reason}", grouped(*requests));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(4);

    fn ended(retries: u64, outcome: Outcome) -> Delivery {
        Delivery { retries, outcome }
    }

    fn taken(rejected: u64) -> Outcome {
        Outcome::Acknowledged { rejected, message: String::new() }
    }

    fn refused(reason: &str) -> Outcome {
        Outcome::Refused { reason: reason.into() }
    }

    #[test]
    fn every_record_is_acknowledged_rejected_or_failed() {
        let mut tally = Tally::new();
        (0..5).for_each(|request| tally.begin(request));
        tally.end(0, 100, 9, TOOK, ended(0, taken(0)));
        tally.end(1, 100, 9, TOOK, ended(2, taken(30)));
        tally.end(2, 100, 9, TOOK, ended(0, refused("INVALID_ARGUMENT")));
        tally.end(3, 100, 9, TOOK, ended(1, Outcome::GivenUp { reason: "closed".into() }));
        tally.abandon(|_| 50);
        let summary = tally.summary(Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!((summary.sent, summary.acknowledged), (450, 170));
        assert_eq!((summary.rejected, summary.failed), (30, 250));
        assert_eq!((tally.retries(), tally.retried()), (3, 2));
        assert_eq!(tally.unacknowledged(), [2, 3, 4]);
        assert_eq!(summary.records_per_second, 85.0);
        assert_eq!(summary.generator_cpu, 0.5);
        assert!(!summary.is_success());
    }

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let mut tally = Tally::new();
        for request in 1..=100 {
            let took = Duration::from_millis(request);
            tally.end(request, 1, 1, took, ended(0, taken(0)));
        }
        let Latency { p50, p90, p99, max } = tally.latency();
        for (found, wanted) in [(p50, 50.0), (p90, 90.0), (p99, 99.0), (max, 100.0)] {
            assert!((found - wanted).abs() <= wanted / 500.0, "{found} for {wanted}");
        }
    }

    #[test]
    fn the_longest_gap_is_between_acknowledgements() {
        let mut tally = Tally::new();
        let gap = |tally: &Tally| tally.summary(TOOK, TOOK).longest_gap_ms;
        tally.hear(Duration::from_millis(700));
        assert_eq!(gap(&tally), 0.0, "what came before the first is the start");
        for at in [710, 960, 1_000] {
            tally.hear(Duration::from_millis(at));
        }
        assert_eq!(gap(&tally), 250.0);
    }

    #[test]
    fn many_different_reasons_are_summed_up() {
        let mut tally = Tally::new();
        for request in 0..30 {
            tally.end(request, 1, 1, TOOK, ended(0, refused(&format!("reason {request}"))));
        }
        assert_eq!(tally.problems.len(), REASONS_MAX + 1);
        assert_eq!(tally.problems[REASONS_MAX].requests, 20);
    }
}
