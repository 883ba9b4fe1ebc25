//! Which body and which value the n-th record of a run has: pure functions, so
//! that what was sent can be counted afterwards without having been kept.
//!
//! A body has one value: the number of distinct bodies is therefore the number
//! of distinct (value, body) pairs, which is what a node counts.

use std::{num::ParseFloatError, str::FromStr};

/// A repeated body is one of this many that came before it, as a log repeats
/// what it said a moment ago.
const REMEMBERED: u64 = 2_000;
const MILLION: u64 = 1_000_000;

/// How many distinct bodies there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// This many, repeated in turn for as long as the run lasts.
    Pool(u64),
    /// This many of a million records say something new; the others repeat what
    /// one of the last 2,000 distinct bodies said. New ones appear while the run lasts.
    Share(u64),
}

/// Why a text is not a number of bodies.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum InvalidBodies {
    /// Neither `5000` nor `30%`.
    #[error("a number like 5000 or a share like 30% is expected")]
    Malformed,
    /// Nothing, or more than everything.
    #[error("at least 1 body, or a share of 0.0001% to 100%, is expected")]
    OutOfRange,
}

impl From<ParseFloatError> for InvalidBodies {
    fn from(_: ParseFloatError) -> Self {
        InvalidBodies::Malformed
    }
}

impl FromStr for Bodies {
    type Err = InvalidBodies;

    fn from_str(text: &str) -> Result<Self, InvalidBodies> {
        if let Some(percent) = text.strip_suffix('%') {
            let millionths = (percent.trim().parse::<f64>()? * 10_000.0).round();
            if !(1.0..=MILLION as f64).contains(&millionths) {
                return Err(InvalidBodies::OutOfRange);
            }
            return Ok(Bodies::Share(millionths as u64));
        }
        match text.parse() {
            Ok(0) => Err(InvalidBodies::OutOfRange),
            Ok(count) => Ok(Bodies::Pool(count)),
            Err(_) => Err(InvalidBodies::Malformed),
        }
    }
}

/// The contents of a run, record by record.
#[derive(Debug, Clone)]
pub(crate) struct Corpus {
    /// How many distinct bodies there are.
    pub(crate) bodies: Bodies,
    /// How many values the attribute takes.
    pub(crate) values: u32,
    /// How many of a hundred bodies lack the attribute.
    pub(crate) unknown_percent: u32,
    /// Another seed gives other bodies; the values stay.
    pub(crate) seed: u64,
}

impl Corpus {
    /// The number of the body that a record has; numbers begin at 0 and leave none out.
    pub(crate) fn body(&self, record: u64) -> u64 {
        match self.bodies {
            Bodies::Pool(size) => record % size,
            Bodies::Share(share) => {
                let before = begun(record, share);
                if begun(record + 1, share) > before {
                    return before;
                }
                before - 1 - below(mix(record), before.min(REMEMBERED))
            }
        }
    }

    /// The value that goes with a body, as a number below `values`; `None`: it
    /// lacks the attribute. Every value appears once there are bodies enough;
    /// low numbers are more frequent, so that counts differ.
    pub(crate) fn value(&self, body: u64) -> Option<u32> {
        let chance = mix(body ^ 0x5bea_f000);
        if self.unknown_percent > 0 && below(chance << 32, 100) < u64::from(self.unknown_percent) {
            return None;
        }
        if body < u64::from(self.values) {
            return Some(body as u32);
        }
        let (one, other) = (chance >> 32, mix(chance) >> 32);
        Some(((one.min(other) * u64::from(self.values)) >> 32) as u32)
    }

    /// What tells a body from all others: one to one with its number.
    pub(crate) fn id(&self, body: u64) -> u64 {
        mix(body ^ self.seed)
    }
}

/// How many new bodies the first `records` records brought; the very first is new.
fn begun(records: u64, share: u64) -> u64 {
    (u128::from(records) * u128::from(share)).div_ceil(u128::from(MILLION)) as u64
}

/// A number below `bound` (at most 2^32), from the upper half of random bits.
fn below(bits: u64, bound: u64) -> u64 {
    ((bits >> 32) * bound) >> 32
}

/// Steele, Lea and Flood's SplitMix64 finalizer: a bijection that looks random.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn corpus(bodies: Bodies) -> Corpus {
        Corpus { bodies, values: 40, unknown_percent: 0, seed: 7 }
    }

    #[test]
    fn a_share_brings_exactly_that_many_new_bodies() {
        for (share, records, distinct) in
            [(300_000, 10_000, 3_000), (1_000_000, 500, 500), (1, 10, 1), (333_333, 10, 4)]
        {
            let corpus = corpus(Bodies::Share(share));
            let seen: HashSet<u64> = (0..records).map(|n| corpus.body(n)).collect();
            assert_eq!(seen.len() as u64, distinct);
            assert!(seen.iter().all(|&body| body < distinct));
        }
    }

    #[test]
    fn a_pool_is_repeated_in_turn() {
        let corpus = corpus(Bodies::Pool(3));
        let bodies: Vec<u64> = (0..7).map(|n| corpus.body(n)).collect();
        assert_eq!(bodies, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn every_value_appears_and_low_numbers_are_more_frequent() {
        let corpus = corpus(Bodies::Pool(100_000));
        let mut counts = [0_u32; 40];
        for body in 0..100_000 {
            counts[corpus.value(body).unwrap() as usize] += 1;
        }
        assert!(counts[0] > 4_000 && counts[0] > 10 * counts[39]);
        assert!(counts[39] > 0);
    }

    #[test]
    fn bodies_without_the_attribute_are_as_frequent_as_asked() {
        let corpus = Corpus { unknown_percent: 10, ..corpus(Bodies::Pool(1)) };
        let lacking = (0..100_000).filter(|&body| corpus.value(body).is_none()).count();
        assert!((9_700..10_300).contains(&lacking), "{lacking}");
        let all = Corpus { unknown_percent: 100, ..corpus };
        assert!((0..1_000).all(|body| all.value(body).is_none()));
    }

    #[test]
    fn numbers_and_shares_of_bodies_are_read() {
        assert_eq!("5000".parse(), Ok(Bodies::Pool(5_000)));
        assert_eq!("30%".parse(), Ok(Bodies::Share(300_000)));
        assert_eq!("0.5 %".parse(), Ok(Bodies::Share(5_000)));
        assert_eq!("0".parse::<Bodies>(), Err(InvalidBodies::OutOfRange));
        assert_eq!("101%".parse::<Bodies>(), Err(InvalidBodies::OutOfRange));
        assert_eq!("many".parse::<Bodies>(), Err(InvalidBodies::Malformed));
        assert_eq!("NaN%".parse::<Bodies>(), Err(InvalidBodies::OutOfRange));
    }
}
