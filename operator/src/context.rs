//! What every reconcile has at hand, and the little that is remembered between two of them. All
//! of it can be lost: what counts is in the API server and in Raft.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt as _};

use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::owned::Key;
use crate::resource::LogAggregator;
use crate::validate::Installation;
use crate::watches::{Scope, Stores};

/// The first pause after a failure ..
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// .. which doubles with each, up to this one.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What every reconcile of a scope has at hand.
pub struct Context {
    /// Where aggregators are looked after; other contexts have other places.
    pub scope: Scope,
    /// The way to the API server.
    pub client: Client,
    /// What was seen there.
    pub stores: Stores,
    /// The ways to the nodes.
    pub nodes: Arc<dyn Nodes>,
    /// Tells events.
    pub recorder: Recorder,
    /// How the operator was installed.
    pub installation: Installation,
    /// Who may roll, wherever it is.
    pub turns: Arc<Turns>,
    /// What the operator tells of itself.
    pub metrics: Arc<Metrics>,
    /// What is remembered of each aggregator of the scope.
    pub memories: Memories,
}

/// What is remembered of an aggregator.
#[derive(Debug, Default)]
pub struct Memory {
    /// What was applied last, of each object.
    pub applied: HashMap<Key, Applied>,
    /// The token for the nodes, and the version of the Secret that it is from.
    pub token: Option<(String, String)>,
    /// How often it has failed since it last succeeded.
    pub failures: u32,
    /// How often its nodes were asked for something in a row, and did not answer.
    pub silences: u32,
}

/// What was applied, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// A hash of what was asked for.
    pub hash: u64,
    /// The version of the object that has it.
    pub version: String,
}

/// What is remembered of all aggregators, by their uid.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<String, Memory>>);

impl Memories {
    /// Looks into what is remembered of an aggregator, or changes it.
    pub fn with<T>(&self, aggregator: &LogAggregator, look: impl FnOnce(&mut Memory) -> T) -> T {
        let uid = aggregator.uid().unwrap_or_default();
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look(memories.entry(uid).or_default())
    }

    /// Forgets all aggregators but these, if there are more than a few others.
    pub fn forget_all_but(&self, living: &[Arc<LogAggregator>]) {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memories.len() <= 2 * living.len() + 16 {
            return;
        }
        let living: BTreeSet<_> = living.iter().filter_map(|living| living.uid()).collect();
        memories.retain(|uid, _| living.contains(uid));
    }

    /// How long to wait after another failure.
    pub fn failed(&self, aggregator: &LogAggregator) -> (u32, Duration) {
        self.with(aggregator, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            (memory.failures, backoff(memory.failures))
        })
    }

    /// How long to wait if nodes did not answer again; they do if it `is` not so.
    pub fn silent(&self, aggregator: &LogAggregator, is: bool) -> Option<Duration> {
        self.with(aggregator, |memory| {
            memory.silences = if is { memory.silences.saturating_add(1) } else { 0 };
            is.then(|| backoff(memory.silences))
        })
    }

    /// The next failure is the first one again.
    pub fn succeeded(&self, aggregator: &LogAggregator) {
        self.with(aggregator, |memory| memory.failures = 0);
    }
}

/// How long to wait after so many times in a row.
fn backoff(times: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << times.saturating_sub(1).min(16)).min(BACKOFF_MAX)
}

/// Who may roll: so many aggregators at a time.
#[derive(Debug)]
pub struct Turns {
    max: usize,
    rolling: Mutex<BTreeSet<(String, String)>>,
}

impl Turns {
    /// So many at a time.
    pub fn new(max: usize) -> Turns {
        Turns { max, rolling: Mutex::default() }
    }

    /// Whether an aggregator may roll that wants to, or goes on to. One that does not want to any
    /// more makes way.
    pub fn take(&self, aggregator: &ObjectRef<LogAggregator>, wants: bool) -> bool {
        let key = (aggregator.namespace.clone().unwrap_or_default(), aggregator.name.clone());
        let mut rolling = self.rolling.lock().unwrap_or_else(PoisonError::into_inner);
        if !wants {
            rolling.remove(&key);
            return false;
        }
        if rolling.len() < self.max {
            rolling.insert(key.clone());
        }
        rolling.contains(&key)
    }

    /// Whether an aggregator has begun to roll and has not ended.
    pub fn has(&self, aggregator: &ObjectRef<LogAggregator>) -> bool {
        let key = (aggregator.namespace.clone().unwrap_or_default(), aggregator.name.clone());
        self.rolling.lock().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }

    /// Those of a scope make way that are gone: all of them that live are given.
    pub fn forget_all_but(&self, scope: &Scope, living: &[Arc<LogAggregator>]) {
        let mut rolling = self.rolling.lock().unwrap_or_else(PoisonError::into_inner);
        rolling.retain(|(namespace, name)| {
            let is_it = |it: &Arc<LogAggregator>| {
                it.name_any() == *name && it.namespace().as_ref() == Some(namespace)
            };
            !scope.has(namespace) || living.iter().any(is_it)
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::example::aggregator;

    fn named(name: &str) -> ObjectRef<LogAggregator> {
        ObjectRef::new(name).within("shop")
    }

    #[test]
    fn one_aggregator_rolls_at_a_time_until_it_is_done() {
        let turns = Turns::new(1);
        assert!(turns.take(&named("a"), true));
        assert!(!turns.take(&named("b"), true));
        assert!(turns.take(&named("a"), true), "it goes on");
        assert!(!turns.take(&named("a"), false));
        assert!(turns.take(&named("b"), true));
        assert!(turns.has(&named("b")) && !turns.has(&named("a")));
    }

    #[test]
    fn an_aggregator_that_is_deleted_makes_way() {
        let turns = Turns::new(1);
        assert!(turns.take(&named("a"), true));
        let living = [Arc::new(aggregator(json!({})))];
        turns.forget_all_but(&Scope::Everywhere, &living);
        assert!(turns.take(&named("logs"), true));
        turns.forget_all_but(&Scope::Everywhere, &living);
        assert!(turns.has(&named("logs")));
    }

    #[test]
    fn who_looks_after_one_namespace_says_nothing_about_the_others() {
        let turns = Turns::new(1);
        assert!(turns.take(&named("a"), true));
        turns.forget_all_but(&Scope::Namespace("stall".to_owned()), &[]);
        assert!(turns.has(&named("a")));
        turns.forget_all_but(&Scope::Namespace("shop".to_owned()), &[]);
        assert!(!turns.has(&named("a")));
    }

    #[test]
    fn pauses_after_failures_double_up_to_a_bound() {
        let memories = Memories::default();
        let logs = aggregator(json!({}));
        let pauses: Vec<_> = (0..8).map(|_| memories.failed(&logs).1.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        memories.succeeded(&logs);
        assert_eq!(memories.failed(&logs), (1, BACKOFF_MIN));
        for _ in 0..100 {
            memories.failed(&logs);
        }
        assert_eq!(memories.failed(&logs).1, BACKOFF_MAX);
    }

    #[test]
    fn pauses_after_silence_double_until_somebody_answers() {
        let memories = Memories::default();
        let logs = aggregator(json!({}));
        let pauses = |count: usize| {
            let pause = |_| memories.silent(&logs, true).unwrap().as_secs();
            (0..count).map(pause).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), [1, 2, 4, 8, 16, 32, 60]);
        assert_eq!(memories.silent(&logs, false), None);
        assert_eq!(pauses(2), [1, 2]);
    }

    #[test]
    fn what_is_deleted_is_forgotten_after_a_while() {
        let memories = Memories::default();
        let named = |uid: usize| {
            let mut aggregator = aggregator(json!({}));
            aggregator.metadata.uid = Some(uid.to_string());
            aggregator
        };
        (0..17).for_each(|uid| _ = memories.failed(&named(uid)));
        memories.forget_all_but(&[Arc::new(named(16))]);
        assert_eq!(memories.failed(&named(0)).0, 2, "still few");
        memories.failed(&named(17));
        memories.failed(&named(18));
        memories.forget_all_but(&[Arc::new(named(16))]);
        assert_eq!(memories.failed(&named(16)).0, 2);
        assert_eq!(memories.failed(&named(0)).0, 1);
    }
}
