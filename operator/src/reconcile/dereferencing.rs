//! What is seen of an aggregator: from what is watched, from the nodes, and what little has to be
//! read.

mod lost; // volumes on machines that are gone
mod pods; // pods and claims, as far as they are looked at

use std::net::IpAddr;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt as _};
use tracing::debug;

use super::ReconcileError;
use crate::build::{self, VolumesRecord};
use crate::context::Context;
use crate::decide::fleet::{Answers, Pod, Seen};
use crate::names::{GIVE_UP_ANNOTATION, Names, TOKEN_FILE};
use crate::owned::Key;
use crate::resource::LogAggregator;

/// The length of a token, in bytes before they are written as text.
const TOKEN_BYTES: usize = 32;

/// All that is seen of an aggregator, the StatefulSet as it was when it was last heard of.
pub(super) async fn dereference(
    aggregator: &LogAggregator,
    context: &Context,
) -> Result<Seen, ReconcileError> {
    let names = Names::of(&aggregator.name_any());
    let stateful_set = kept(&context.stores.stateful_sets, aggregator, &names.aggregator);
    let settings = kept(&context.stores.config_maps, aggregator, &names.aggregator);
    let record = kept(&context.stores.config_maps, aggregator, &names.volumes);
    let pods = pods::of(aggregator, context, stateful_set.as_deref());
    let claims = lost::claims(aggregator, context, &pods).await?;
    let mut seen = Seen {
        answers: ask(context, &pods).await,
        untold_zones: pods::untold_zones(aggregator, context, &pods),
        pods,
        claims,
        record: record.map(|it| VolumesRecord::try_from(&*it).map_err(|error| error.to_string())),
        founders: settings.and_then(|it| build::founders(&it)).and_then(|it| it.try_into().ok()),
        given_up: given_up(aggregator),
        ..Seen::default()
    };
    see(stateful_set.as_deref(), &mut seen);
    Ok(seen)
}

/// Looks at the StatefulSet as it is now.
///
/// # Errors
/// When the API server does not tell.
pub(super) async fn read_stateful_set(
    aggregator: &LogAggregator,
    context: &Context,
    seen: &mut Seen,
) -> Result<(), ReconcileError> {
    let api: Api<StatefulSet> = namespaced(aggregator, context);
    let found = api.get_opt(&aggregator.name_any()).await;
    let found = found.map_err(ReconcileError::api("read the StatefulSet"))?;
    see(found.as_ref(), seen);
    Ok(())
}

fn see(stateful_set: Option<&StatefulSet>, seen: &mut Seen) {
    let spec = stateful_set.and_then(|it| it.spec.as_ref());
    seen.replicas = spec.map(|spec| spec.replicas.unwrap_or(1).unsigned_abs());
    let template = spec.and_then(|spec| spec.volume_claim_templates.as_ref()?.first());
    seen.template_size = template.and_then(|template| {
        let requests = template.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        requests.get("storage").cloned()
    });
    seen.stateful_set = stateful_set.map(|it| it.metadata.clone());
}

/// The token for the nodes: the one that is there, or a new one.
///
/// # Errors
/// When the API server does not tell, or the system has no random numbers.
pub(super) async fn token(
    aggregator: &LogAggregator,
    context: &Context,
) -> Result<String, ReconcileError> {
    let name = Names::of(&aggregator.name_any()).control;
    let namespace = aggregator.namespace().unwrap_or_default();
    let key = Key { kind: Secret::kind(&()).into_owned(), namespace, name };
    let version = context.stores.owned.get(&key).map(|existing| existing.version);
    let known = context.memories.with(aggregator, |memory| memory.token.clone());
    if let Some((token, _)) = known.filter(|(_, of)| version.as_ref() == Some(of)) {
        return Ok(token);
    }
    let secrets: Api<Secret> = namespaced(aggregator, context);
    let secret = secrets.get_opt(&key.name).await;
    let secret = secret.map_err(ReconcileError::api("read the Secret with the token"))?;
    let version = secret.as_ref().and_then(|it| it.metadata.resource_version.clone());
    let token = secret.and_then(|it| it.data?.remove(TOKEN_FILE));
    let token = token.and_then(|token| String::from_utf8(token.0).ok());
    let token = match token.filter(|token| !token.is_empty()) {
        Some(token) => token,
        None => made_up()?,
    };
    let remembered = (token.clone(), version.unwrap_or_default());
    context.memories.with(aggregator, |memory| memory.token = Some(remembered));
    Ok(token)
}

fn made_up() -> Result<String, getrandom::Error> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Asks all nodes at once for their cluster.
async fn ask(context: &Context, pods: &[Pod]) -> Answers {
    let address = |pod: &Pod| Some((pod.ordinal, pod.address.filter(|_| pod.started)?));
    let asked =
        pods.iter().filter_map(address).map(|(ordinal, address): (u32, IpAddr)| async move {
            match context.nodes.cluster(address).await {
                Ok(told) => Some((ordinal, told)),
                Err(error) => {
                    debug!(%error, "a node does not tell of its cluster");
                    None
                }
            }
        });
    Answers { by_ordinal: join_all(asked).await.into_iter().flatten().collect() }
}

/// The members that a person gives up; what is no number is nobody's.
fn given_up(aggregator: &LogAggregator) -> Vec<u64> {
    let ids = aggregator.annotations().get(GIVE_UP_ANNOTATION);
    ids.iter().flat_map(|ids| ids.split(',')).filter_map(|id| id.trim().parse().ok()).collect()
}

/// An object of the aggregator's namespace, as it was last heard of.
fn kept<K>(store: &Store<K>, aggregator: &LogAggregator, name: &str) -> Option<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(&aggregator.namespace()?))
}

pub(super) fn namespaced<K>(aggregator: &LogAggregator, context: &Context) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(context.client.clone(), &aggregator.namespace().unwrap_or_default())
}
