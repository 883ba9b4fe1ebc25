//! Which requests of each session there were: stretches of sequence numbers, of which a
//! session that sends them in order has one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::entry::RequestId;
use crate::event::time::UnixNanos;

/// Stretches of one session; beyond these the lowest are forgotten. A client has far fewer
/// requests under way.
const SESSION_STRETCHES_MAX: usize = 1 << 10;
/// Stretches of all sessions; beyond these the sessions are forgotten that were silent for
/// the longest time. A session of one stretch takes about 200 bytes.
const STRETCHES_MAX: usize = 1 << 18;
const _: () = assert!(SESSION_STRETCHES_MAX <= STRETCHES_MAX);

/// Requests by session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<SessionId, Session>", into = "BTreeMap<SessionId, Session>")]
pub(super) struct Sessions {
    known: BTreeMap<SessionId, Session>,
    /// Stretches of all sessions.
    stretches: usize,
}

/// As text 32 hexadecimal digits, like the session of a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SessionId(u128);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    /// The time of the cut that counted the last of its requests.
    last: UnixNanos,
    seen: Stretches,
}

/// The first and the last of each stretch, in ascending order, with gaps in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Stretches(Vec<(u64, u64)>);

impl Sessions {
    /// Remembers a request that a cut of this time counts, and says whether it is new.
    pub(super) fn insert(&mut self, request: RequestId, time: UnixNanos) -> bool {
        let session = SessionId(u128::from_be_bytes(request.session));
        let session = self.known.entry(session).or_default();
        session.last = time;
        let before = session.seen.0.len();
        let is_new = session.seen.insert(request.sequence);
        self.stretches = self.stretches + session.seen.0.len() - before;
        is_new
    }

    /// Forgets sessions of which nothing was counted after `time`, and those that are too
    /// many. Nothing but what was inserted decides which.
    pub(super) fn forget(&mut self, time: UnixNanos) {
        self.known.retain(|_, session| session.last > time);
        self.stretches = self.known.values().map(|session| session.seen.0.len()).sum();
        if self.stretches <= STRETCHES_MAX {
            return;
        }
        let mut oldest: Vec<_> = self.known.iter().map(|(&id, known)| (known.last, id)).collect();
        oldest.sort_unstable();
        for (_, id) in oldest {
            if self.stretches <= STRETCHES_MAX {
                return;
            }
            let forgotten = self.known.remove(&id);
            self.stretches -= forgotten.map_or(0, |session| session.seen.0.len());
        }
    }
}

impl Stretches {
    /// Whether the number was not there before.
    fn insert(&mut self, number: u64) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= number);
        let before = after.checked_sub(1);
        let last = before.and_then(|before| Some(self.0.get(before)?.1));
        if last.is_some_and(|last| number <= last) {
            return false;
        }
        let joins_before = last.is_some_and(|last| last + 1 == number);
        let joins_after = self.0.get(after).is_some_and(|&(first, _)| number + 1 == first);
        match (before.filter(|_| joins_before), joins_after) {
            (Some(before), true) => {
                let (_, last) = self.0.remove(after);
                self.0[before].1 = last;
            }
            (Some(before), false) => self.0[before].1 = number,
            (None, true) => self.0[after].0 = number,
            (None, false) => self.0.insert(after, (number, number)),
        }
        if self.0.len() > SESSION_STRETCHES_MAX {
            self.0.remove(0);
        }
        true
    }
}

impl From<BTreeMap<SessionId, Session>> for Sessions {
    fn from(known: BTreeMap<SessionId, Session>) -> Sessions {
        let stretches = known.values().map(|session| session.seen.0.len()).sum();
        Sessions { known, stretches }
    }
}

impl From<Sessions> for BTreeMap<SessionId, Session> {
    fn from(sessions: Sessions) -> Self {
        sessions.known
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(SessionId).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::event::time::SECOND;

    fn request(session: u128, sequence: u64) -> RequestId {
        RequestId { session: session.to_be_bytes(), sequence }
    }

    fn at(second: u64) -> UnixNanos {
        UnixNanos(second * SECOND)
    }

    #[test]
    fn requests_in_order_are_one_stretch_and_a_gap_makes_two() {
        let mut sessions = Sessions::default();
        for sequence in [1, 2, 4, 3, 7] {
            assert!(sessions.insert(request(9, sequence), at(5)));
            assert!(!sessions.insert(request(9, sequence), at(6)));
        }
        let json = serde_json::to_string(&sessions).unwrap();
        let known = r#"{"last":6000000000,"seen":[[1,4],[7,7]]}"#;
        assert_eq!(json, format!(r#"{{"00000000000000000000000000000009":{known}}}"#));
        assert_eq!(serde_json::from_str::<Sessions>(&json).unwrap(), sessions);
    }

    #[test]
    fn the_ends_of_the_numbers_are_numbers_like_others() {
        let mut seen = Stretches::default();
        for number in [u64::MAX, 0, u64::MAX - 1, 1] {
            assert!(seen.insert(number));
            assert!(!seen.insert(number));
        }
        assert_eq!(seen.0, [(0, 1), (u64::MAX - 1, u64::MAX)]);
    }

    #[test]
    fn a_session_with_too_many_gaps_forgets_the_lowest_stretch() {
        let mut sessions = Sessions::default();
        for sequence in 1..=SESSION_STRETCHES_MAX as u64 + 1 {
            assert!(sessions.insert(request(9, 2 * sequence), at(5)));
        }
        assert_eq!(sessions.stretches, SESSION_STRETCHES_MAX);
        assert!(!sessions.insert(request(9, 4), at(5)));
        assert!(sessions.insert(request(9, 2), at(5)), "it was forgotten");
    }

    #[test]
    fn a_session_is_forgotten_when_it_was_silent_for_long() {
        let mut sessions = Sessions::default();
        sessions.insert(request(1, 1), at(5));
        sessions.insert(request(2, 1), at(6));
        sessions.forget(at(5));
        assert!(!sessions.insert(request(2, 1), at(7)));
        assert!(sessions.insert(request(1, 1), at(7)));
        assert_eq!(sessions.stretches, 2);
    }

    #[test]
    fn of_too_many_sessions_those_are_forgotten_that_were_silent_for_longest() {
        let mut sessions = Sessions::default();
        let last = STRETCHES_MAX as u128 + 1;
        for session in 0..=last {
            let second = if session == last { 4 } else { 5 };
            sessions.insert(request(session, 1), at(second));
        }
        sessions.forget(at(0));
        assert_eq!((sessions.stretches, sessions.known.len()), (STRETCHES_MAX, STRETCHES_MAX));
        assert!(sessions.insert(request(last, 1), at(6)));
        assert!(sessions.insert(request(0, 1), at(6)), "of equals, the lowest");
        assert!(!sessions.insert(request(1, 1), at(6)));
    }

    proptest! {
        #[test]
        fn stretches_have_what_a_set_has(numbers in prop::collection::vec(0_u64..40, 0..200)) {
            let (mut seen, mut set) = (Stretches::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(seen.insert(number), set.insert(number));
            }
            let listed = seen.0.iter().flat_map(|&(first, last)| first..=last);
            prop_assert!(listed.eq(set.iter().copied()));
            prop_assert!(seen.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
