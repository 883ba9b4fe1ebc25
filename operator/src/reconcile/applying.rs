//! Objects as they were built, by server-side apply: what others have set in them stays, and what
//! they have changed of what was built is put back. What has not changed is not sent again.

use std::hash::Hasher as _;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use siphasher::sip::SipHasher13;

use super::dereferencing::namespaced;
use super::{Decided, ReconcileError};
use crate::build::{VolumesRecord, prometheus_rule_resource, service_monitor_resource};
use crate::context::{Applied, Context};
use crate::decide::fleet::Seen;
use crate::names::MANAGED_BY;
use crate::owned::{Existing, Key};
use crate::resource::{LogAggregator, WhenDeleted};

/// An object that is to be there.
struct Wish {
    resource: ApiResource,
    body: Value,
    ownership: Ownership,
}

/// How an object shows that it is the aggregator's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// The aggregator controls it.
    Controlled,
    /// It says so: it may outlive the aggregator.
    Labelled,
}

/// Has everything as it was built, and seeds a number of replicas that was left out.
///
/// # Errors
/// When the API server does not do something, or an object belongs to somebody else.
pub(super) async fn apply(
    aggregator: &LogAggregator,
    context: &Context,
    decided: &Decided,
    seen: &Seen,
) -> Result<(), ReconcileError> {
    if aggregator.spec.replicas.is_none() {
        seed(aggregator, context, decided.valid.replicas).await?;
    }
    for wish in wishes(decided, seen)? {
        grant(aggregator, context, &wish, seen).await?;
    }
    if decided.objects.autoscaler.is_none() {
        remove_autoscaler(aggregator, context).await?;
    }
    Ok(())
}

/// Whether a StatefulSet is another than the one that was applied last, or has changed since.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn is_due(
    aggregator: &LogAggregator,
    context: &Context,
    wanted: &StatefulSet,
) -> Result<bool, ReconcileError> {
    let key = key(aggregator, &StatefulSet::kind(&()), &aggregator.name_any());
    let existing = existing(context, &key);
    Ok(!is_applied(
        aggregator,
        context,
        &key,
        existing.as_ref(),
        hash(&serde_json::to_value(wanted)?),
    ))
}

/// Writes down how many replicas there are where that was left out, if nobody else has meanwhile.
async fn seed(
    aggregator: &LogAggregator,
    context: &Context,
    replicas: i32,
) -> Result<(), ReconcileError> {
    let version = aggregator.metadata.resource_version.as_deref();
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
    let api: Api<LogAggregator> = namespaced(aggregator, context);
    let parameters =
        PatchParams { field_manager: Some(MANAGED_BY.into()), ..PatchParams::default() };
    let seeded = api.patch(&aggregator.name_any(), &parameters, &Patch::Merge(patch)).await;
    seeded.map(drop).map_err(ReconcileError::api("seed spec.replicas"))
}

/// Everything that is to be there, what pods need before the pods.
fn wishes(decided: &Decided, seen: &Seen) -> Result<Vec<Wish>, ReconcileError> {
    let objects = &decided.objects;
    let mut wishes = Vec::new();
    wishes.extend(record(decided)?);
    wishes.push(wish(&objects.service_account)?);
    wishes.push(wish(&objects.control)?);
    wishes.push(wish(&objects.settings)?);
    wishes.push(wish(&objects.nodes)?);
    wishes.push(wish(&objects.service)?);
    wishes.push(wish(&objects.network_policy)?);
    wishes.push(wish(&objects.disruption_budget)?);
    let is_going = |metadata: &_| is_terminating(metadata);
    if !seen.stateful_set.as_ref().is_some_and(is_going) {
        wishes.push(wish(&objects.stateful_set)?);
    }
    wishes.extend(objects.autoscaler.as_ref().map(wish).transpose()?);
    let monitor = (&objects.service_monitor, service_monitor_resource());
    let rule = (&objects.prometheus_rule, prometheus_rule_resource());
    for (object, resource) in [monitor, rule] {
        let Some(object) = object else { continue };
        let body = serde_json::to_value(object)?;
        wishes.push(Wish { resource, body, ownership: Ownership::Controlled });
    }
    Ok(wishes)
}

fn is_terminating(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

fn wish<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Wish, ReconcileError> {
    let body = serde_json::to_value(object)?;
    let resource = ApiResource::erase::<K>(&());
    Ok(Wish { resource, body, ownership: Ownership::Controlled })
}

/// What stays with the volumes, once there is a cluster; or goes with them, if they go.
fn record(decided: &Decided) -> Result<Option<Wish>, ReconcileError> {
    let Some(cluster) = decided.plan.cluster_id.clone() else { return Ok(None) };
    let mut object = VolumesRecord::of(&decided.valid, cluster).config_map(&decided.valid);
    if decided.valid.volume.when_deleted == WhenDeleted::Delete {
        object.metadata.owner_references = Some(vec![decided.valid.owner.clone()]);
    }
    Ok(Some(Wish { ownership: Ownership::Labelled, ..wish(&object)? }))
}

/// Has one object as it is wished for, if it is the aggregator's.
async fn grant(
    aggregator: &LogAggregator,
    context: &Context,
    wish: &Wish,
    seen: &Seen,
) -> Result<(), ReconcileError> {
    let name = wish.body["metadata"]["name"].as_str().unwrap_or_default();
    let key = key(aggregator, &wish.resource.kind, name);
    let hash = hash(&wish.body);
    let known = existing(context, &key);
    if is_applied(aggregator, context, &key, known.as_ref(), hash) {
        return Ok(());
    }
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &key.namespace, &wish.resource);
    let what = || format!("{} {name}", wish.resource.kind);
    let existing = match known {
        Some(known) => Some(known),
        None => {
            let found = api.get_metadata_opt(name).await;
            let found = found.map_err(ReconcileError::api(format!("look for {}", what())))?;
            found.map(|found| Existing::of(&key.kind, &found.metadata))
        }
    };
    if existing.as_ref().is_some_and(|it| !is_own(aggregator, it, wish.ownership)) {
        return Err(ReconcileError::NameConflict { kind: key.kind, name: key.name });
    }
    let body = body(wish, existing.as_ref(), seen);
    let parameters = PatchParams::apply(MANAGED_BY);
    // What is new is nobody's; if somebody was faster, it is theirs.
    let parameters = if existing.is_some() { parameters.force() } else { parameters };
    let applied = api.patch(name, &parameters, &Patch::Apply(&body)).await;
    let applied = applied.map_err(ReconcileError::api(format!("apply {}", what())))?;
    let version = Existing::of(&key.kind, &applied.metadata).version;
    context.memories.with(aggregator, |memory| {
        memory.applied.insert(key, Applied { hash, version });
    });
    Ok(())
}

/// What is sent: the wish, for this very object, and a StatefulSet only as it was read.
fn body(wish: &Wish, existing: Option<&Existing>, seen: &Seen) -> Value {
    let mut body = wish.body.clone();
    if let Some(existing) = existing {
        body["metadata"]["uid"] = json!(existing.uid);
    }
    if wish.resource.kind != StatefulSet::kind(&()) {
        return body;
    }
    if let Some(version) = seen.stateful_set.as_ref().and_then(|it| it.resource_version.as_ref()) {
        body["metadata"]["resourceVersion"] = json!(version);
    }
    if let Some(Quantity(size)) = &seen.template_size {
        // It cannot change; larger volumes need another StatefulSet.
        let template = &mut body["spec"]["volumeClaimTemplates"][0];
        template["spec"]["resources"]["requests"]["storage"] = json!(size);
    }
    body
}

fn is_own(aggregator: &LogAggregator, existing: &Existing, ownership: Ownership) -> bool {
    match ownership {
        Ownership::Controlled => existing.owner.is_some() && existing.owner == aggregator.uid(),
        Ownership::Labelled => existing.instance.as_deref() == aggregator.metadata.name.as_deref(),
    }
}

fn is_applied(
    aggregator: &LogAggregator,
    context: &Context,
    key: &Key,
    existing: Option<&Existing>,
    hash: u64,
) -> bool {
    let applied = context.memories.with(aggregator, |memory| memory.applied.get(key).cloned());
    match (applied, existing) {
        (Some(applied), Some(existing)) => {
            applied.hash == hash && applied.version == existing.version
        }
        _ => false,
    }
}

fn key(aggregator: &LogAggregator, kind: &str, name: &str) -> Key {
    let namespace = aggregator.namespace().unwrap_or_default();
    Key { kind: kind.to_owned(), namespace, name: name.to_owned() }
}

/// An object, as it was last heard of.
fn existing(context: &Context, key: &Key) -> Option<Existing> {
    if key.kind == StatefulSet::kind(&()) {
        stored(&context.stores.stateful_sets, key)
    } else if key.kind == ConfigMap::kind(&()) {
        stored(&context.stores.config_maps, key)
    } else {
        context.stores.owned.get(key)
    }
}

fn stored<K>(store: &Store<K>, key: &Key) -> Option<Existing>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let object = store.get(&ObjectRef::new(&key.name).within(&key.namespace))?;
    Some(Existing::of(&key.kind, object.meta()))
}

fn hash(body: &Value) -> u64 {
    let mut hasher = SipHasher13::new();
    // Members are sorted by name, so that the same content is the same text.
    hasher.write(body.to_string().as_bytes());
    hasher.finish()
}

/// Removes the autoscaler of an aggregator that asks for none any more.
async fn remove_autoscaler(
    aggregator: &LogAggregator,
    context: &Context,
) -> Result<(), ReconcileError> {
    let kind = HorizontalPodAutoscaler::kind(&());
    let key = key(aggregator, &kind, &aggregator.name_any());
    let own = existing(context, &key);
    let Some(own) = own.filter(|it| is_own(aggregator, it, Ownership::Controlled)) else {
        return Ok(());
    };
    let api: Api<HorizontalPodAutoscaler> = namespaced(aggregator, context);
    let preconditions = Preconditions { uid: Some(own.uid), resource_version: None };
    let parameters = DeleteParams::default().preconditions(preconditions);
    match api.delete(&key.name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        deleted => deleted.map(drop).map_err(ReconcileError::api("delete the autoscaler")),
    }
}
