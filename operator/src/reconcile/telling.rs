//! The status: how it is, and what is being done. It is written only when it has changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;
use sheaf_proto::cluster::{Cluster, Member as Known, MemberState as State, Role};

use super::dereferencing::namespaced;
use super::{ReconcileError, events};
use crate::context::Context;
use crate::decide::conditions::{Kind, Told};
use crate::decide::fleet::{Seen, is_gone, pod_at};
use crate::decide::{plan, settled};
use crate::names::{MANAGED_BY, Names, selector_text};
use crate::resource::{LogAggregator, LogAggregatorStatus, Member, MemberRole, MemberState};

/// Writes the status if it has changed, and tells events of what has changed in it. Without
/// anything seen, the rest of it stays as it is.
///
/// # Errors
/// When the API server does not take it.
pub(super) async fn tell(
    aggregator: &LogAggregator,
    context: &Context,
    seen: Option<&Seen>,
    told: &[Told; 4],
) -> Result<(), ReconcileError> {
    let before = aggregator.status.clone().unwrap_or_default();
    let mut status = match seen {
        Some(seen) => as_seen(aggregator, &before, seen),
        None => before.clone(),
    };
    status.observed_generation = aggregator.metadata.generation;
    status.conditions = conditions(aggregator, &before, told);
    if status == before {
        return Ok(());
    }
    let api: Api<LogAggregator> = namespaced(aggregator, context);
    let body = json!({
        "apiVersion": LogAggregator::api_version(&()),
        "kind": LogAggregator::kind(&()),
        "metadata": {"uid": aggregator.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGED_BY).force();
    let written = api.patch_status(&aggregator.name_any(), &parameters, &Patch::Apply(body)).await;
    match written {
        // It was deleted meanwhile, and perhaps made again.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
            return Ok(());
        }
        written => written.map(drop).map_err(ReconcileError::api("write the status"))?,
    }
    let reasons = before.conditions.iter();
    let reasons = reasons.map(|it| (it.type_.clone(), it.status == "True", it.reason.clone()));
    for event in events::of_changes(&reasons.collect::<Vec<_>>(), told) {
        events::tell(aggregator, context, event).await;
    }
    Ok(())
}

/// What is seen, but for the conditions. What nobody says at the moment stays as it was last said.
fn as_seen(
    aggregator: &LogAggregator,
    before: &LogAggregatorStatus,
    seen: &Seen,
) -> LogAggregatorStatus {
    let names = Names::of(&aggregator.name_any());
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let leader = plan::leader(&seen.answers).and_then(|leader| i32::try_from(leader).ok());
    let mut status = LogAggregatorStatus {
        replicas: count(seen.pods.len()),
        ready_replicas: count(seen.pods.iter().filter(|pod| pod.ready).count()),
        selector: selector_text(&names.aggregator),
        leader: leader.map(|leader| names.pod(leader)),
        complete: Some(false),
        ..before.clone()
    };
    if let Some(told) = seen.answers.newest() {
        status.cluster_id = told.cluster.map(|id| id.to_string());
    }
    if let Some(told) = seen.answers.leaders() {
        let slots = u64::from(aggregator.spec.slots.unsigned_abs());
        status.epoch = i64::try_from(told.epoch).ok();
        status.complete = Some(told.missing.is_empty() && settled::unled(told, slots) == 0);
        status.members = members(told);
    }
    status
}

fn members(told: &Cluster) -> Vec<Member> {
    told.members.iter().filter(|member| !is_gone(member.state)).map(member).collect()
}

fn member(known: &Known) -> Member {
    Member {
        id: i64::try_from(known.id).unwrap_or(i64::MAX),
        pod: pod_at(&known.address).unwrap_or_default().to_owned(),
        state: match known.state {
            State::Joining => MemberState::Joining,
            State::Active => MemberState::Active,
            State::Draining => MemberState::Draining,
            State::Drained | State::Forgotten => MemberState::Drained,
        },
        role: match known.role {
            Role::Leader => MemberRole::Leader,
            Role::Voter => MemberRole::Voter,
            Role::Learner => MemberRole::Learner,
            Role::None => MemberRole::None,
        },
        zone: known.zone.clone(),
        reachable: known.reachable.unwrap_or(false),
    }
}

/// The conditions, each with the time of its last change of mind.
fn conditions(
    aggregator: &LogAggregator,
    before: &LogAggregatorStatus,
    told: &[Told; 4],
) -> Vec<Condition> {
    let condition = |told: &Told| {
        let status = if told.holds { "True" } else { "False" };
        let kind = told.kind.as_str();
        let known = before.conditions.iter().find(|known| known.type_ == kind);
        let same = known.filter(|known| known.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: told.reason.to_owned(),
            message: told.message.clone(),
            last_transition_time: same
                .map_or_else(|| Time(Timestamp::now()), |same| same.last_transition_time.clone()),
            observed_generation: aggregator.metadata.generation,
        }
    };
    debug_assert!(told.iter().any(|told| told.kind == Kind::Ready));
    told.iter().map(condition).collect()
}
