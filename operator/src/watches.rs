//! What is watched: aggregators, what belongs to them, and machines; each trimmed to what is
//! looked at.

mod readable; // aggregators, if they can be read

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Config as ControllerConfig, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Predicate as _, WatchStreamExt as _, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::build::{prometheus_rule_resource, service_monitor_resource};
use crate::names::{INSTANCE_LABEL, OWNED_SELECTOR, PODS_SELECTOR};
use crate::owned::Owned;
use crate::resource::LogAggregator;
use crate::validate::Installation;

/// Aggregators that are reconciled at a time.
const CONCURRENCY: u16 = 8;
/// How long to wait for more news of an aggregator before it is reconciled.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Where aggregators are looked after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everywhere.
    Everywhere,
    /// In one namespace.
    Namespace(String),
}

impl Scope {
    /// Its namespace, if it is only one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Scope::Everywhere => None,
            Scope::Namespace(namespace) => Some(namespace),
        }
    }

    /// Whether a namespace belongs to it.
    pub fn has(&self, namespace: &str) -> bool {
        self.namespace().is_none_or(|own| own == namespace)
    }

    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Scope::Everywhere => Api::all(client.clone()),
            Scope::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    fn metadata(
        &self,
        client: &Client,
        kind: &ApiResource,
    ) -> Api<PartialObjectMeta<DynamicObject>> {
        match self {
            Scope::Everywhere => Api::all_with(client.clone(), kind),
            Scope::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        }
    }
}

/// What was seen, kept up to date while the streams are polled; cheap to clone.
#[derive(Clone)]
pub struct Stores {
    /// All aggregators.
    pub aggregators: Store<LogAggregator>,
    /// Their StatefulSets, without templates of pods.
    pub stateful_sets: Store<StatefulSet>,
    /// Their pods, without what is in them.
    pub pods: Store<Pod>,
    /// Their volumes.
    pub claims: Store<PersistentVolumeClaim>,
    /// Their settings, and the records of their volumes.
    pub config_maps: Store<ConfigMap>,
    /// All machines, by their labels and taints; unknown where only namespaces may be looked at.
    pub machines: Option<Store<Node>>,
    /// Everything else that was built for them.
    pub owned: Arc<Owned>,
}

impl Stores {
    /// Waits until everything was listed.
    ///
    /// # Errors
    /// When nothing is watched any more, because the operator stops.
    pub async fn listed(&self) -> Result<(), reflector::store::WriterDropped> {
        self.aggregators.wait_until_ready().await?;
        self.stateful_sets.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        if let Some(machines) = &self.machines {
            machines.wait_until_ready().await?;
        }
        self.owned.listed().await;
        Ok(())
    }
}

/// The kinds of which only metadata is kept.
pub fn owned_kinds(installation: &Installation) -> Vec<ApiResource> {
    let mut kinds = vec![
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
    ];
    kinds.extend(installation.service_monitors.then(service_monitor_resource));
    kinds.extend(installation.prometheus_rules.then(prometheus_rule_resource));
    kinds
}

/// Begins to watch; nothing is seen before the controller runs.
pub fn watch(
    client: &Client,
    scope: &Scope,
    installation: &Installation,
    recorder: &Recorder,
) -> (Stores, Controller<LogAggregator>) {
    let everything = watcher::Config::default();
    let pods = everything.clone().labels(PODS_SELECTOR);
    let built = everything.clone().labels(OWNED_SELECTOR);

    let (aggregators, writer) = reflector::store();
    let changed = predicates::generation.combine(predicates::annotations);
    let stream = readable::watch(scope.api(client), everything.clone(), recorder.clone())
        .modify(trim::<LogAggregator>)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(changed, Default::default());
    let mut controller = Controller::for_stream(stream, aggregators.clone())
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY).debounce(DEBOUNCE));

    let (stateful_sets, writer) = reflector::store();
    let stream = kept(scope.api(client), built.clone(), writer, trim_stateful_set);
    controller = controller.watches_stream(stream.touched_objects(), by_instance);
    let (pod_store, writer) = reflector::store();
    let stream = kept(scope.api(client), pods.clone(), writer, trim_pod);
    controller = controller.watches_stream(stream.touched_objects(), by_instance);
    let (claims, writer) = reflector::store();
    let stream = kept(scope.api(client), pods, writer, trim::<PersistentVolumeClaim>);
    controller = controller.watches_stream(stream.touched_objects(), by_instance);
    let (config_maps, writer) = reflector::store();
    let stream = kept(scope.api(client), built.clone(), writer, trim::<ConfigMap>);
    controller = controller.watches_stream(stream.touched_objects(), by_instance);

    let machines = (*scope == Scope::Everywhere).then(reflector::store);
    let machines = machines.map(|(store, writer)| {
        let stream = kept(Api::all(client.clone()), everything, writer, trim_machine);
        // What a machine's end means shows in its pods.
        (store, stream.touched_objects())
    });
    let (machines, stream) = machines.unzip();
    if let Some(stream) = stream {
        controller = controller.watches_stream(stream, |_| None);
    }

    let kinds = owned_kinds(installation);
    let owned = Arc::new(Owned::new(kinds.len()));
    let streams = kinds.into_iter().map(|kind| {
        noticed(scope.metadata(client, &kind), kind.kind, built.clone(), Arc::clone(&owned))
    });
    controller = controller.reconcile_on(stream::select_all(streams));
    let pods = pod_store;
    let stores = Stores { aggregators, stateful_sets, pods, claims, config_maps, machines, owned };
    (stores, controller)
}

/// A kind that is kept in a store, trimmed.
fn kept<K>(
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    trim: fn(&mut K),
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    watcher(api, config).default_backoff().modify(trim).reflect(writer)
}

/// A kind of which only metadata is kept: the aggregators that are concerned.
fn noticed(
    api: Api<PartialObjectMeta<DynamicObject>>,
    kind: String,
    config: watcher::Config,
    owned: Arc<Owned>,
) -> BoxStream<'static, ObjectRef<LogAggregator>> {
    let events = watcher(api, config).default_backoff();
    events
        .flat_map(move |event| {
            let concerned = match event {
                Ok(event) => owned.notice(&kind, &event),
                Err(error) => {
                    warn!(%error, kind, "a watch broke off");
                    Vec::new()
                }
            };
            stream::iter(concerned)
        })
        .boxed()
}

/// The aggregator that an object is for.
fn by_instance<K: Resource<DynamicType = ()>>(object: K) -> Option<ObjectRef<LogAggregator>> {
    let instance = object.labels().get(INSTANCE_LABEL)?;
    Some(ObjectRef::new(instance).within(&object.namespace()?))
}

fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn trim_stateful_set(stateful_set: &mut StatefulSet) {
    trim(stateful_set);
    if let Some(spec) = &mut stateful_set.spec {
        spec.template = Default::default();
    }
}

fn trim_pod(pod: &mut Pod) {
    trim(pod);
    if let Some(spec) = pod.spec.take() {
        let node_name = spec.node_name;
        pod.spec = Some(k8s_openapi::api::core::v1::PodSpec { node_name, ..Default::default() });
    }
    if let Some(status) = &mut pod.status {
        status.init_container_statuses = None;
        for container in status.container_statuses.iter_mut().flatten() {
            container.image = String::new();
            container.image_id = String::new();
            container.volume_mounts = None;
            container.resources = None;
        }
    }
}

fn trim_machine(machine: &mut Node) {
    trim(machine);
    machine.metadata.annotations = None;
    machine.status = None;
    if let Some(spec) = machine.spec.take() {
        let taints = spec.taints;
        machine.spec = Some(k8s_openapi::api::core::v1::NodeSpec { taints, ..Default::default() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_for_the_aggregator_that_its_label_names() {
        let labels = json!({"app.kubernetes.io/instance": "logs"});
        let metadata = json!({"name": "logs-0", "namespace": "shop", "labels": labels});
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        assert_eq!(by_instance(pod), Some(ObjectRef::new("logs").within("shop")));
        assert_eq!(by_instance(Pod::default()), None);
    }

    #[test]
    fn what_nobody_looks_at_is_not_kept() {
        let container =
            json!({"name": "node", "image": "x", "imageID": "y", "ready": true, "restartCount": 1});
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "logs-0", "managedFields": [{"manager": "x"}]},
            "spec": {"nodeName": "one", "containers": [{"name": "node"}]},
            "status": {"podIP": "10.0.0.1", "containerStatuses": [container]},
        }))
        .unwrap();
        trim_pod(&mut pod);
        let expected =
            json!({"name": "node", "image": "", "imageID": "", "ready": true, "restartCount": 1});
        assert_eq!(
            serde_json::to_value(&pod).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "logs-0"},
                "spec": {"nodeName": "one", "containers": []},
                "status": {"podIP": "10.0.0.1", "containerStatuses": [expected]},
            })
        );
        let mut machine: Node = serde_json::from_value(json!({
            "metadata": {"name": "one", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"podCIDR": "10.0.0.0/24", "taints": [{"key": "t", "effect": "NoExecute"}]},
            "status": {"images": [{"names": ["x"]}]},
        }))
        .unwrap();
        trim_machine(&mut machine);
        let taints = json!([{"key": "t", "effect": "NoExecute"}]);
        assert_eq!(
            serde_json::to_value(&machine).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "one", "labels": {"a": "b"}}, "spec": {"taints": taints},
            })
        );
    }
}
