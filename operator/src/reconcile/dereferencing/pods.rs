//! Pods, as far as they are looked at.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as Object};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::context::Context;
use crate::decide::fleet::{self, Pod};
use crate::names::{INSTANCE_LABEL, ZONE_ANNOTATION};
use crate::resource::LogAggregator;

const REVISION_LABEL: &str = "controller-revision-hash";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The pods of an aggregator.
pub(super) fn of(
    aggregator: &LogAggregator,
    context: &Context,
    stateful_set: Option<&StatefulSet>,
) -> Vec<Pod> {
    let (name, namespace) = (aggregator.name_any(), aggregator.namespace());
    let revision = stateful_set.and_then(revision);
    let is_own = |pod: &Object| {
        pod.namespace() == namespace && pod.labels().get(INSTANCE_LABEL) == Some(&name)
    };
    let own = context.stores.pods.state_filter(is_own);
    own.iter().filter_map(|pod| seen(&name, pod, revision)).collect()
}

/// The revision that pods are to be of, if the StatefulSet's controller has looked at its newest
/// template.
fn revision(stateful_set: &StatefulSet) -> Option<&str> {
    let status = stateful_set.status.as_ref()?;
    let is_current = status.observed_generation >= stateful_set.metadata.generation;
    status.update_revision.as_deref().filter(|revision| is_current && !revision.is_empty())
}

fn seen(aggregator: &str, pod: &Object, revision: Option<&str>) -> Option<Pod> {
    let name = pod.name_any();
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let condition = |kind: &str| conditions.iter().copied().flatten().find(|it| it.type_ == kind);
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let own = pod.labels().get(REVISION_LABEL).map(String::as_str);
    let unscheduled = condition("PodScheduled").filter(|it| it.status == "False");
    Some(Pod {
        ordinal: fleet::ordinal(aggregator, &name)?,
        uid: pod.uid()?,
        address: status.and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
        started: containers.into_iter().flatten().any(has_started),
        ready: condition("Ready").is_some_and(|it| it.status == "True"),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        unschedulable: unscheduled.is_some_and(|it| it.reason.as_deref() == Some("Unschedulable")),
        outdated: own.zip(revision).is_some_and(|(own, newest)| own != newest),
        name,
    })
}

fn has_started(container: &ContainerStatus) -> bool {
    let is_running = container.state.as_ref().is_some_and(|state| state.running.is_some());
    is_running || container.restart_count > 0 || container.started == Some(true)
}

/// The pods that were not told the zone of their machine, with the zone.
pub(super) fn untold_zones(
    aggregator: &LogAggregator,
    context: &Context,
    pods: &[Pod],
) -> Vec<(Pod, String)> {
    let Some(machines) = &context.stores.machines else { return Vec::new() };
    let namespace = aggregator.namespace().unwrap_or_default();
    let untold = |pod: &Pod| {
        let object = context.stores.pods.get(&ObjectRef::new(&pod.name).within(&namespace))?;
        let machine = machines.get(&ObjectRef::new(object.spec.as_ref()?.node_name.as_ref()?))?;
        let zone = machine.labels().get(ZONE_LABEL)?;
        let is_told = object.annotations().get(ZONE_ANNOTATION) == Some(zone);
        (!is_told && !pod.terminating).then(|| (pod.clone(), zone.clone()))
    };
    pods.iter().filter_map(untold).collect()
}
