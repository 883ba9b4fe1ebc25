//! Which pod is replaced by its new version next.
//!
//! A pod that is not ready has nothing to lose, so an outdated one goes first: what does not
//! run could not be repaired otherwise. One that takes logs goes only while the cluster could do
//! without it, and the leader goes last, so that the lead moves once.

use std::fmt;

use super::fleet::Pod;
use super::settled::Unsettled;

/// What holds for all pods of an aggregator.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// All pods there are, in any order.
    pub pods: &'a [Pod],
    /// How many there should be.
    pub replicas: u32,
    /// The number of the pod whose node leads, if that is known.
    pub leader: Option<u32>,
    /// What keeps the cluster from doing without one more node.
    pub unsettled: Option<Unsettled>,
    /// Whether this aggregator may roll now, or has to wait for others.
    pub has_turn: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll<'a> {
    /// Nothing: all pods are of the newest version.
    Done,
    /// This pod is deleted, and comes back as the new version.
    Delete(&'a Pod),
    /// Later.
    Wait(Wait<'a>),
}

/// What an aggregator with outdated pods waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait<'a> {
    /// Fewer pods are there than should be.
    Missing,
    /// A pod is on its way out, or is not ready yet.
    Pod(&'a str),
    /// The cluster could not do without one more node.
    Cluster(Unsettled),
    /// Another aggregator rolls.
    Turn,
}

impl fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Missing => f.write_str("a pod is missing"),
            Wait::Pod(pod) => write!(f, "{pod} is not ready"),
            Wait::Cluster(unsettled) => unsettled.fmt(f),
            Wait::Turn => f.write_str("another LogAggregator is rolling"),
        }
    }
}

/// The next step of a rolling update.
pub fn roll<'a>(now: &Circumstances<'a>) -> Roll<'a> {
    let is_candidate = |pod: &&'a Pod| pod.outdated && !pod.terminating;
    let mut outdated: Vec<&Pod> = now.pods.iter().filter(is_candidate).collect();
    if !now.pods.iter().any(|pod| pod.outdated) {
        return Roll::Done;
    }
    outdated.sort_by_key(|pod| (pod.ready, now.leader == Some(pod.ordinal), !pod.ordinal));
    if let Some(terminating) = now.pods.iter().find(|pod| pod.terminating) {
        return Roll::Wait(Wait::Pod(&terminating.name));
    }
    let Some(next) = outdated.first().copied() else { return Roll::Done };
    if !next.ready {
        return Roll::Delete(next);
    }
    match objection(now) {
        Some(wait) => Roll::Wait(wait),
        None => Roll::Delete(next),
    }
}

/// What keeps a pod that takes logs from being deleted.
fn objection<'a>(now: &Circumstances<'a>) -> Option<Wait<'a>> {
    if !now.has_turn {
        return Some(Wait::Turn);
    }
    if (now.pods.len() as u64) < u64::from(now.replicas) {
        return Some(Wait::Missing);
    }
    let unready = now.pods.iter().find(|pod| !pod.ready);
    unready.map(|pod| Wait::Pod(&pod.name)).or_else(|| now.unsettled.map(Wait::Cluster))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn pod(ordinal: u32, ready: bool, outdated: bool) -> Pod {
        Pod {
            name: format!("logs-{ordinal}"),
            uid: format!("uid-{ordinal}"),
            ordinal,
            address: None,
            started: true,
            ready,
            terminating: false,
            unschedulable: false,
            outdated,
        }
    }

    fn all(outdated: [bool; 3]) -> Vec<Pod> {
        outdated
            .into_iter()
            .zip(0..)
            .map(|(outdated, number)| pod(number, true, outdated))
            .collect()
    }

    fn calm(pods: &[Pod]) -> Circumstances<'_> {
        let replicas = 3;
        Circumstances { pods, replicas, leader: Some(1), unsettled: None, has_turn: true }
    }

    #[test]
    fn nothing_rolls_that_is_up_to_date() {
        assert_eq!(roll(&calm(&all([false; 3]))), Roll::Done);
    }

    #[test]
    fn the_highest_ordinal_goes_first_and_the_leader_last() {
        let pods = all([true; 3]);
        assert_eq!(roll(&calm(&pods)), Roll::Delete(&pods[2]));
        let pods = all([true, true, false]);
        assert_eq!(roll(&calm(&pods)), Roll::Delete(&pods[0]));
        let pods = all([false, true, false]);
        assert_eq!(roll(&calm(&pods)), Roll::Delete(&pods[1]));
    }

    #[test]
    fn an_outdated_pod_that_is_not_ready_goes_before_all_others_whatever_else_holds() {
        let mut pods = all([true; 3]);
        pods[0].ready = false;
        let unsettled = Some(Unsettled::NoLeader);
        let now = Circumstances { unsettled, has_turn: false, ..calm(&pods) };
        assert_eq!(roll(&now), Roll::Delete(&pods[0]));
    }

    #[test]
    fn a_new_pod_has_to_be_ready_before_the_next_one_goes() {
        let mut pods = all([true, true, false]);
        pods[2].ready = false;
        assert_eq!(roll(&calm(&pods)), Roll::Wait(Wait::Pod("logs-2")));
        pods[2].ready = true;
        pods[2].terminating = true;
        assert_eq!(roll(&calm(&pods)), Roll::Wait(Wait::Pod("logs-2")));
        pods.pop();
        assert_eq!(roll(&calm(&pods)), Roll::Wait(Wait::Missing));
    }

    #[test]
    fn one_pod_goes_at_a_time_also_of_those_that_are_not_ready() {
        let mut pods = all([true; 3]);
        (pods[0].ready, pods[1].ready) = (false, false);
        pods[1].terminating = true;
        assert_eq!(roll(&calm(&pods)), Roll::Wait(Wait::Pod("logs-1")));
    }

    #[test]
    fn a_ready_pod_stays_while_the_cluster_needs_it() {
        let pods = all([true; 3]);
        let now = Circumstances { unsettled: Some(Unsettled::Copying(7)), ..calm(&pods) };
        assert_eq!(roll(&now), Roll::Wait(Wait::Cluster(Unsettled::Copying(7))));
    }

    #[test]
    fn one_aggregator_rolls_at_a_time() {
        let pods = all([true; 3]);
        let now = Circumstances { has_turn: false, ..calm(&pods) };
        assert_eq!(roll(&now), Roll::Wait(Wait::Turn));
    }

    proptest! {
        #[test]
        fn a_ready_pod_goes_only_if_all_others_are_ready(
            flags in prop::collection::vec(any::<(bool, bool, bool)>(), 1..7),
            leader in prop::option::of(0u32..7),
            settled in any::<bool>(),
            has_turn in any::<bool>(),
        ) {
            let pods: Vec<Pod> = flags.iter().zip(0..).map(|(&(ready, outdated, terminating), n)| {
                Pod { terminating, ..pod(n, ready, outdated) }
            }).collect();
            let unsettled = (!settled).then_some(Unsettled::NoLeader);
            let replicas = pods.len() as u32;
            let now = Circumstances { pods: &pods, replicas, leader, unsettled, has_turn };
            let is_leaders = |pod: &Pod| leader == Some(pod.ordinal);
            match roll(&now) {
                Roll::Delete(gone) => {
                    prop_assert!(gone.outdated && !gone.terminating);
                    prop_assert!(!pods.iter().any(|pod| pod.terminating));
                    if gone.ready {
                        prop_assert!(settled && has_turn && pods.iter().all(|pod| pod.ready));
                        let others = pods.iter().filter(|pod| pod.outdated).count();
                        prop_assert!(!is_leaders(gone) || others == 1);
                    }
                }
                Roll::Done => prop_assert!(!pods.iter().any(|pod| pod.outdated)),
                Roll::Wait(_) => prop_assert!(pods.iter().any(|pod| pod.outdated)),
            }
        }
    }
}
