//! Stands in for the crate of the same name, of which openraft keeps a few histograms. The
//! original prepares tables of 25 MB for all precisions that it knows, which is more than
//! all else of an idle node.
//!
//! It has what openraft uses, with one precision: a value's number of bits. It can go as
//! soon as the original prepares only what is used.

use std::fmt;
use std::marker::PhantomData;

const BUCKETS: usize = u64::BITS as usize + 1;

/// How many values there were of each number of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// A histogram without values.
    #[allow(clippy::new_without_default, reason = "the original has no default either")]
    pub fn new() -> Self {
        Histogram { counts: [0; BUCKETS], slots: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += times;
    }

    /// The number of values, and what so many of a thousand do not exceed: the largest
    /// value with as many bits.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.counts.iter().sum(),
            p0_1: self.reached_by(1),
            p1: self.reached_by(10),
            p5: self.reached_by(50),
            p10: self.reached_by(100),
            p50: self.reached_by(500),
            p90: self.reached_by(900),
            p99: self.reached_by(990),
            p99_9: self.reached_by(999),
        }
    }

    fn reached_by(&self, thousandths: u64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen * 1000 >= total * thousandths
        });
        let bits = reached.filter(|_| total > 0).unwrap_or(0) as u32;
        u64::MAX.checked_shr(u64::BITS - bits).unwrap_or(0)
    }
}

/// What is told of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// The number of values.
    pub samples: u64,
    /// What one of 1000 does not exceed.
    pub p0_1: u64,
    /// What one of 100 does not exceed.
    pub p1: u64,
    /// What one of 20 does not exceed.
    pub p5: u64,
    /// What one of 10 does not exceed.
    pub p10: u64,
    /// What half of them do not exceed.
    pub p50: u64,
    /// What nine of ten do not exceed.
    pub p90: u64,
    /// What 99 of 100 do not exceed.
    pub p99: u64,
    /// What 999 of 1000 do not exceed.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PercentileStats { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}")
    }
}

/// Histograms by name, a line each.
#[derive(Debug, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    /// A chart without histograms.
    pub fn new() -> Self {
        AsciiChart::default()
    }

    /// Adds a histogram.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_largest_values_of_as_many_bits() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        for value in [0, 0, 5, 1000, u64::MAX] {
            histogram.record(value);
        }
        let PercentileStats { samples, p50, p90, .. } = histogram.percentile_stats();
        assert_eq!((samples, p50, p90), (5, 7, u64::MAX));
        assert!(AsciiChart::new().add("a", histogram).to_string().starts_with("a: 5 values"));
    }
}
