//! One round: everything that was seen goes in, everything that is to be done comes out.

use super::conditions::{self, Cluster, Rolling, Round};
use super::departed::{self, Verdict};
use super::fleet::{Answers, Claim, Pod, Seat, Seen, seats};
use super::replicas;
use super::retained::{self, Asked, Mismatch};
use super::rolling::{self, Circumstances, Roll};
use super::scaling::{self, Members, Step};
use super::settled::{self, Redundancy};
use super::storage;
use crate::validate::{ValidAggregator, quantity};

/// What an aggregator asks for, as far as it is decided about here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// How many slots.
    pub slots: i32,
    /// On how many members everything is to be.
    pub copies: u64,
    /// The size of each volume.
    pub bytes: u64,
    /// Whether everything stays as it is.
    pub paused: bool,
}

/// Something to do, beyond having the objects as they were built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// To tell a pod its zone.
    TellZone {
        /// The pod.
        pod: Pod,
        /// The zone of its machine.
        zone: String,
    },
    /// To write down whose data is on a volume.
    Mark {
        /// The claim.
        claim: Claim,
        /// The member.
        member: u64,
    },
    /// To ask the cluster to drain a member.
    Drain {
        /// Its id.
        member: u64,
    },
    /// To ask the cluster to forget a member.
    Forget {
        /// Its id.
        member: u64,
    },
    /// To delete a volume that holds nothing.
    DeleteClaim(Claim),
    /// To delete a pod whose volume is deleted.
    Displace(Pod),
    /// To delete a pod so that it comes back as its new version.
    Renew(Pod),
    /// To have a volume grow.
    Resize(Claim),
    /// To delete the StatefulSet without its pods, so that it is built with larger volumes.
    ReplaceStatefulSet,
}

/// What is to be done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many replicas the StatefulSet gets.
    pub replicas: u32,
    /// The step towards the wanted number.
    pub step: Step,
    /// The cluster, as soon as it is known that there is one.
    pub cluster_id: Option<String>,
    /// What is to be done, in this order.
    pub acts: Vec<Act>,
    departed: Vec<Verdict>,
    grows: bool,
    waits: Option<String>,
}

impl Wanted {
    /// What a valid aggregator asks for.
    pub fn of(valid: &ValidAggregator) -> Wanted {
        Wanted {
            name: valid.names.aggregator.clone(),
            replicas: valid.replicas.unsigned_abs(),
            slots: valid.slots,
            copies: u64::from(valid.copies.unsigned_abs()),
            bytes: valid.volume.bytes,
            paused: valid.paused,
        }
    }
}

/// With how many members the cluster began, as far as the settings that are there count: those of
/// a cluster that never was, and of which no pod is left, do not.
pub fn founders(seen: &Seen) -> Option<u32> {
    match members(seen, &[]) {
        Members::Unformed { founders } => founders,
        Members::Unknown | Members::Known(_) => seen.founders,
    }
}

/// Decides on a round. An aggregator that has no turn does not begin to roll.
///
/// # Errors
/// When the volumes that are there are another cluster's.
pub fn plan(wanted: &Wanted, seen: &Seen, has_turn: bool) -> Result<Plan, Mismatch> {
    let cluster_id = cluster_id(&seen.answers);
    let asked = Asked { slots: wanted.slots, bytes: wanted.bytes };
    if let Some(Err(why)) = &seen.record {
        return Err(Mismatch::Unreadable(why.clone()));
    }
    let record = seen.record.as_ref().and_then(|record| record.as_ref().ok());
    retained::guard(record, !seen.claims.is_empty(), cluster_id.as_deref(), asked)?;

    let seats = seen.answers.leaders().map(|told| seats(&wanted.name, told)).unwrap_or_default();
    let members = members(seen, &seats);
    let mut plan = Plan {
        replicas: 0,
        step: Step::Set(0),
        cluster_id,
        acts: Vec::new(),
        departed: departed(wanted, seen, &seats),
        grows: false,
        waits: None,
    };
    plan.mark(seen);
    plan.scale(wanted, seen, members);
    plan.forget();
    plan.clear(wanted, seen, members);
    plan.grow(wanted, seen);
    if plan.departed.is_empty() {
        plan.roll(wanted, seen, has_turn);
    }
    Ok(plan)
}

/// The members as far as anybody knows them.
fn members<'a>(seen: &Seen, seats: &'a [Seat]) -> Members<'a> {
    if seen.answers.leaders().is_some() {
        return Members::Known(seats);
    }
    let is_recorded = seen.record.is_some() || seen.answers.newest().is_some();
    let is_unheard = |pod: &Pod| !seen.answers.by_ordinal.contains_key(&pod.ordinal);
    if is_recorded || seen.pods.iter().any(|pod| pod.started && is_unheard(pod)) {
        return Members::Unknown;
    }
    Members::Unformed { founders: seen.founders.filter(|_| !seen.pods.is_empty()) }
}

fn cluster_id(answers: &Answers) -> Option<String> {
    Some(answers.newest()?.cluster?.to_string())
}

fn departed(wanted: &Wanted, seen: &Seen, seats: &[Seat]) -> Vec<Verdict> {
    let Some(cluster) = seen.answers.leaders() else { return Vec::new() };
    let lost = departed::lost(seats, &seen.claims, &seen.pods, &seen.answers);
    departed::verdicts(&lost, cluster, wanted.copies, &seen.given_up)
}

impl Plan {
    /// Writes down who is where before anybody goes, so that it is known afterwards.
    fn mark(&mut self, seen: &Seen) {
        for (pod, zone) in &seen.untold_zones {
            self.acts.push(Act::TellZone { pod: pod.clone(), zone: zone.clone() });
        }
        for claim in seen.claims.iter().filter(|claim| !claim.terminating) {
            let pod = seen.pods.iter().find(|pod| pod.ordinal == claim.ordinal);
            let member = pod.filter(|pod| !pod.terminating);
            let member = member.and_then(|pod| seen.answers.member_of(pod.ordinal));
            if let Some(member) = member.filter(|member| claim.member != Some(*member)) {
                self.acts.push(Act::Mark { claim: claim.clone(), member });
            }
        }
    }

    fn scale(&mut self, wanted: &Wanted, seen: &Seen, members: Members<'_>) {
        let Some(now) = seen.replicas else {
            let claims = seen.claims.iter().map(|claim| claim.ordinal);
            let left = claims.chain(seen.pods.iter().map(|pod| pod.ordinal));
            self.replicas = replicas::first(wanted.replicas, left);
            self.step = Step::Set(self.replicas);
            return;
        };
        let spent = spent(wanted, seen, members);
        let clear = storage::clear_up_to(wanted.replicas, now, &spent);
        self.step = scaling::step(clear, now, members);
        self.replicas = self.step.replicas(now);
        match self.step {
            Step::Drain { member } if self.acts.iter().all(|act| !act.marks(member)) => {
                self.acts.push(Act::Drain { member });
            }
            _ => {}
        }
    }

    fn forget(&mut self) {
        let forgotten = self.departed.iter().find_map(|verdict| match verdict {
            Verdict::Forget(seat) => Some(seat.member),
            Verdict::Await(_) | Verdict::Ask(_) => None,
        });
        // One after the other: what the rest can do without changes with each.
        self.acts.extend(forgotten.map(|member| Act::Forget { member }));
    }

    /// Deletes volumes that hold nothing, and the pods on them.
    fn clear(&mut self, wanted: &Wanted, seen: &Seen, members: Members<'_>) {
        let spent = spent(wanted, seen, members);
        let displaced = storage::displaced(&seen.pods, &spent);
        let deleted = spent.iter().filter(|claim| !claim.terminating);
        self.acts.extend(deleted.map(|claim| Act::DeleteClaim((*claim).clone())));
        self.acts.extend(displaced.into_iter().map(|pod| Act::Displace(pod.clone())));
    }

    fn grow(&mut self, wanted: &Wanted, seen: &Seen) {
        let template = seen.template_size.as_ref().and_then(|size| quantity::bytes(&size.0));
        let Some(template) = template else { return };
        let too_small = storage::too_small(&seen.claims, wanted.bytes);
        self.grows = template < wanted.bytes;
        if !self.grows {
            return;
        }
        if too_small.is_empty() {
            self.acts.push(Act::ReplaceStatefulSet);
        }
        self.acts.extend(too_small.into_iter().map(|claim| Act::Resize(claim.clone())));
    }

    fn roll(&mut self, wanted: &Wanted, seen: &Seen, has_turn: bool) {
        let redundancy = Redundancy { slots: wanted.slots as u64, copies: wanted.copies };
        // A node that is to go and runs hands over what it has; a new version of it would only
        // begin again with that.
        let is_leaving = |pod: &Pod| {
            pod.ordinal >= wanted.replicas && seen.answers.by_ordinal.contains_key(&pod.ordinal)
        };
        let known = |pod: &Pod| Pod { outdated: pod.outdated && !is_leaving(pod), ..pod.clone() };
        let pods: Vec<Pod> = seen.pods.iter().map(known).collect();
        let now = Circumstances {
            pods: &pods,
            replicas: self.replicas,
            leader: leader(&seen.answers),
            unsettled: settled::unsettled(&seen.answers, self.replicas, redundancy),
            has_turn,
        };
        match rolling::roll(&now) {
            Roll::Done => {}
            Roll::Delete(pod) => self.acts.push(Act::Renew(pod.clone())),
            Roll::Wait(wait) => self.waits = Some(wait.to_string()),
        }
    }

    /// What is told of the round: which pods were seen, and what the cluster refused.
    pub fn round<'a>(&'a self, wanted: &Wanted, seen: &'a Seen) -> Round<'a> {
        let displaced = self.acts.iter().find_map(|act| match act {
            Act::Displace(pod) => Some(pod.name.as_str()),
            _ => None,
        });
        let renewed = self.acts.iter().find_map(|act| match act {
            Act::Renew(pod) => Some(Rolling::Replaces(&pod.name)),
            _ => None,
        });
        let ready = seen.pods.iter().filter(|pod| pod.ready).count();
        Round {
            paused: wanted.paused,
            wanted: wanted.replicas,
            replicas: seen.replicas.unwrap_or(self.replicas),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            cluster: self.cluster(wanted, seen),
            step: self.step,
            untaken_step: None,
            departed: &self.departed,
            unforgotten: None,
            refused_growth: None,
            displaced,
            rolling: renewed.or(self.waits.as_deref().map(Rolling::Waits)),
            grows: self.grows,
        }
    }

    fn cluster<'a>(&self, wanted: &Wanted, seen: &'a Seen) -> Cluster<'a> {
        let Some(told) = seen.answers.leaders() else {
            if seen.record.is_some() {
                return Cluster::Leaderless;
            }
            let mut waiting = seen.answers.by_ordinal.values().flat_map(|told| &told.waiting);
            return Cluster::Forming(waiting.next().map(String::as_str));
        };
        conditions::cluster(told, wanted.slots as u64)
    }
}

impl Act {
    fn marks(&self, id: u64) -> bool {
        matches!(self, Act::Mark { member, .. } if *member == id)
    }
}

fn spent<'a>(wanted: &Wanted, seen: &'a Seen, members: Members<'_>) -> Vec<&'a Claim> {
    match (members, seen.replicas) {
        (Members::Known(seats), Some(now)) => {
            storage::spent(&seen.claims, &seen.pods, seats, now, wanted.replicas)
        }
        // Nobody can say what is on them.
        _ => Vec::new(),
    }
}

/// The number of the pod whose node leads.
pub fn leader(answers: &Answers) -> Option<u32> {
    let leader = answers.leaders()?.node;
    let told = answers.by_ordinal.iter().find(|(_, told)| told.node == leader);
    told.map(|(&ordinal, _)| ordinal)
}

#[cfg(test)]
mod tests;
