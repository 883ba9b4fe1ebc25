//! How many seconds senders are asked to wait before their next chunk.

use form_urlencoded::parse;

use crate::intake::admission::Admission;
use crate::source::chunks::Collect;
use crate::source::refusal::Refusal;

/// The longest that senders can be asked to wait, in seconds.
const SECONDS_MAX: i64 = 3600;
/// A queue that is no fuller than this, in percent, does not ask anybody to wait ..
const CALM_PERCENT: usize = 50;
/// .. and one that is asks for a second more with every so many percent.
const PERCENT_PER_SECOND: usize = 10;

/// What came to `/throttle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To ask senders to wait so many seconds.
    Set(u32),
    /// To know what they are asked.
    Read,
}

impl Wish {
    /// Reads the query of a request.
    pub(super) fn parse(query: &str) -> Result<Wish, Refusal> {
        let mut given = parse(query.as_bytes()).filter(|(name, _)| name == "seconds");
        match (given.next().and_then(|(_, seconds)| seconds.parse().ok()), given.next()) {
            (Some(..0), None) => Ok(Wish::Read),
            (Some(seconds @ 0..=SECONDS_MAX), None) => Ok(Wish::Set(seconds as u32)),
            _ => Err(Refusal::Undecodable(format!(
                "say ?seconds=N: a whole number up to {SECONDS_MAX} sets how long senders are \
                 asked to wait, and one below 0 asks for it"
            ))),
        }
    }
}

/// What senders are asked at the moment: by everybody's wish, or because this node's queue fills.
pub(super) fn seconds(collector: &impl Collect) -> u32 {
    let admission: &Admission = collector.admission();
    let used = 100 * admission.used() / admission.capacity().max(1);
    collector.throttle().max(by_queue(used))
}

/// What a node asks for whose queue is full to so many percent.
fn by_queue(percent: usize) -> u32 {
    percent.min(100).saturating_sub(CALM_PERCENT).div_ceil(PERCENT_PER_SECOND) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_up_to_an_hour_sets_and_one_below_zero_reads() {
        let said = |query| Wish::parse(query).unwrap();
        for (query, seconds) in [("seconds=0", 0), ("seconds=7", 7), ("a=b&seconds=3600&c", 3600)] {
            assert_eq!(said(query), Wish::Set(seconds));
        }
        for query in ["seconds=-1", "seconds=-9223372036854775808", "seconds=%2d7"] {
            assert_eq!(said(query), Wish::Read);
        }
        for query in [
            "",
            "seconds",
            "seconds=",
            "seconds=x",
            "seconds=1.5",
            "seconds=0x1",
            "seconds=+1",
            "seconds=3601",
            "seconds=99999999999999999999",
            "seconds=1&seconds=2",
            "Seconds=1",
        ] {
            let refused = Wish::parse(query).unwrap_err().to_string();
            assert!(refused.starts_with("say ?seconds=N: "), "{query}: {refused}");
        }
    }

    #[test]
    fn a_queue_asks_for_more_the_fuller_it_is_and_for_nothing_up_to_half() {
        let asked = [0, 50, 51, 60, 61, 75, 90, 91, 100, 250].map(by_queue);
        assert_eq!(asked, [0, 0, 1, 1, 2, 3, 4, 5, 5, 5]);
    }
}
