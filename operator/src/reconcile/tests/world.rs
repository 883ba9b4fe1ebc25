use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sheaf_proto::cluster::{Cluster, MemberState, Role};

use super::super::{ReconcileError, after_error, reconcile};
use crate::context::{Context, Memories, Turns};
use crate::decide::fleet::{is_gone, tests as fleet};
use crate::example::{self, nothing};
use crate::metrics::Metrics;
use crate::nodes::{Change, NodeError, Nodes};
use crate::owned::Owned;
use crate::permissions;
use crate::resource::LogAggregator;
use crate::scripted::{Asked, Server};
use crate::validate::Installation;
use crate::watches::{Scope, Stores, owned_kinds};

pub(super) const AGGREGATOR: &str = "/apis/sheaf.dev/v1alpha1/namespaces/shop/logaggregators/logs";
pub(super) const UID: &str = "5ea1c0de-0000-4000-8000-000000000001";
pub(super) const NAMESPACED: Reach = Reach::Namespace;
const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/logs";

/// What the operator may look at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Everything,
    Namespace,
}

/// A cluster of Kubernetes with one aggregator in it, as far as one scope goes.
pub(super) struct World {
    pub(super) server: Server,
    namespace: &'static str,
    pub(super) nodes: Arc<Scripted>,
    pub(super) scope: Reach,
    /// What was asked in the last round, and in all of them.
    pub(super) asked: Vec<Asked>,
    pub(super) all_asked: Vec<Asked>,
    /// When the operator looks again.
    pub(super) pause: Duration,
    pub(super) metrics: Arc<Metrics>,
    installation: Installation,
    memories: Option<Memories>,
    turns: Arc<Turns>,
    /// The StatefulSet that the watch has told of, if it lags.
    hidden: Option<Value>,
}

impl World {
    /// An aggregator that was just applied.
    pub(super) fn new(spec: Value) -> World {
        World::of("shop", spec)
    }

    /// An aggregator of another namespace, with the same operator, which looks after each of the
    /// two by itself.
    pub(super) fn beside(&self, namespace: &'static str) -> World {
        World {
            scope: self.scope,
            metrics: Arc::clone(&self.metrics),
            turns: Arc::clone(&self.turns),
            ..World::of(namespace, json!({"replicas": 3}))
        }
    }

    fn of(namespace: &'static str, spec: Value) -> World {
        let server = Server::default();
        let mut aggregator = serde_json::to_value(example::aggregator(spec)).unwrap();
        aggregator["metadata"]["namespace"] = json!(namespace);
        server.put(&in_namespace(AGGREGATOR, namespace), aggregator);
        World {
            server,
            namespace,
            nodes: Arc::default(),
            scope: Reach::Everything,
            asked: Vec::new(),
            all_asked: Vec::new(),
            pause: Duration::ZERO,
            metrics: Arc::default(),
            installation: nothing().installation,
            memories: Some(Memories::default()),
            turns: Arc::new(Turns::new(1)),
            hidden: None,
        }
    }

    /// An aggregator whose objects were built, and whose three nodes run and have formed a
    /// cluster.
    pub(super) async fn running(spec: Value) -> World {
        let mut world = World::new(spec);
        world.run().await;
        world
    }

    /// .. and of which nothing is to be done.
    pub(super) async fn settled(spec: Value) -> World {
        let mut world = World::running(spec).await;
        world.settle().await;
        world
    }

    /// One that runs where the kinds of the Prometheus operator are known.
    pub(super) async fn monitored(spec: Value) -> World {
        let mut world = World::new(spec);
        (world.installation.service_monitors, world.installation.prometheus_rules) = (true, true);
        world.run().await;
        world
    }

    /// Has the objects built, and three nodes run.
    pub(super) async fn run(&mut self) {
        self.round().await;
        self.new_revision("old");
        (0..3).for_each(|n| self.add_machine(n));
        (0..3).for_each(|n| self.add_pod(n, "old"));
    }

    fn path(&self, path: &str) -> String {
        in_namespace(path, self.namespace)
    }

    fn add_machine(&self, n: usize) {
        let (machine, zone) = (format!("machine-{n}"), ["a", "b", "c"][n]);
        let labels =
            json!({"kubernetes.io/hostname": machine, "topology.kubernetes.io/zone": zone});
        let node = json!({"metadata": {"name": machine, "labels": labels}, "spec": {}});
        self.server.put(&format!("/api/v1/nodes/{machine}"), node);
        let rule = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [machine]});
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [rule]}]});
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("v-{n}")},
            "spec": {"nodeAffinity": {"required": terms}},
        });
        self.server.put(&format!("/api/v1/persistentvolumes/v-{n}"), volume);
        let name = format!("data-logs-{n}");
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name, "namespace": self.namespace, "uid": format!("claim-{n}"),
                "labels": labels_of_pods(),
            },
            "spec": {
                "resources": {"requests": {"storage": "10Gi"}}, "volumeName": format!("v-{n}"),
            },
            "status": {"phase": "Bound"},
        });
        let path = format!("/api/v1/namespaces/shop/persistentvolumeclaims/{name}");
        self.server.put(&self.path(&path), claim);
    }

    /// Has a pod that is ready.
    pub(super) fn add_pod(&self, n: usize, revision: &str) {
        let mut labels = labels_of_pods();
        labels["controller-revision-hash"] = json!(revision);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("logs-{n}"), "namespace": self.namespace,
                "uid": format!("pod-{n}-{revision}"), "labels": labels,
            },
            "spec": {"nodeName": format!("machine-{n}"), "containers": []},
            "status": {
                "podIP": format!("10.0.0.{n}"), "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "node", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {}},
                }],
            },
        });
        self.server.put(&self.path(&pod_path(n)), pod);
        self.nodes.lock().silent.remove(&n);
    }

    fn change_pod(&self, n: usize, change: impl FnOnce(&mut Value)) {
        let mut pod = self.server.get(&self.path(&pod_path(n))).unwrap();
        change(&mut pod);
        self.server.put(&self.path(&pod_path(n)), pod);
    }

    /// The machine is deleted, its pod with it, and no other machine can take the new one. Others
    /// have taken over its slots.
    pub(super) fn lose_machine(&self, n: usize) {
        self.server.remove(&format!("/api/v1/nodes/machine-{n}"));
        self.nodes.silence(n);
        self.nodes.own(n as u64 + 1, 0);
        self.change_pod(n, |pod| {
            pod["spec"] = json!({"containers": []});
            let unscheduled =
                json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
            pod["status"] = json!({"conditions": [unscheduled]});
        });
    }

    /// The machine does not answer, so its pod is to go; nobody can say whether it has.
    pub(super) fn silence_machine(&self, n: usize) {
        self.nodes.silence(n);
        self.nodes.own(n as u64 + 1, 0);
        self.change_pod(n, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:00:00Z");
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
        });
    }

    /// Pods are to be of another revision.
    pub(super) fn new_revision(&self, revision: &str) {
        let mut stateful_set = self.server.get(&self.path(STATEFUL_SET)).unwrap();
        stateful_set["status"] = json!({
            "replicas": 3, "observedGeneration": 1, "updateRevision": revision,
        });
        self.server.put(&self.path(STATEFUL_SET), stateful_set);
    }

    /// The watch tells of no more changes of the StatefulSet.
    pub(super) fn hide_changes(&mut self) {
        self.hidden = self.server.get(&self.path(STATEFUL_SET));
    }

    pub(super) fn aggregator(&self) -> Value {
        self.server.get(&self.path(AGGREGATOR)).unwrap()
    }

    fn change_aggregator(&self, change: impl FnOnce(&mut Value)) {
        let mut aggregator = self.aggregator();
        change(&mut aggregator);
        self.server.put(&self.path(AGGREGATOR), aggregator);
    }

    pub(super) fn change_spec(&self, more: Value) {
        let spec = serde_json::to_value(example::aggregator(more).spec).unwrap();
        self.change_aggregator(|aggregator| aggregator["spec"] = spec);
    }

    pub(super) fn set_replicas(&self, replicas: u32) {
        self.change_aggregator(|aggregator| aggregator["spec"]["replicas"] = json!(replicas));
    }

    pub(super) fn annotate(&self, name: &str, value: &str) {
        let annotations = json!({name: value});
        self.change_aggregator(|it| it["metadata"]["annotations"] = annotations);
    }

    /// Whether a condition holds, and why.
    pub(super) fn condition(&self, kind: &str) -> (String, String) {
        let text = |name: &str| self.told(kind, name);
        (text("status"), text("reason"))
    }

    pub(super) fn message(&self, kind: &str) -> String {
        self.told(kind, "message")
    }

    fn told(&self, kind: &str, name: &str) -> String {
        let aggregator = self.aggregator();
        let conditions = aggregator["status"]["conditions"].as_array().unwrap().clone();
        let condition = conditions.into_iter().find(|it| it["type"] == kind).unwrap();
        condition[name].as_str().unwrap().to_owned()
    }

    /// The operator is killed and starts again.
    pub(super) fn forget(&mut self) {
        self.memories = Some(Memories::default());
        self.turns = Arc::new(Turns::new(1));
    }

    /// Rounds until nothing is asked any more.
    pub(super) async fn settle(&mut self) {
        for _ in 0..10 {
            if self.round().await.is_empty() {
                return;
            }
        }
        panic!("still asks: {:?}", World::shorts(&self.asked));
    }

    /// A round that ends well, and what was asked in it.
    pub(super) async fn round(&mut self) -> Vec<Asked> {
        self.try_round().await.unwrap();
        self.asked.clone()
    }

    /// A round that fails.
    pub(super) async fn failing_round(&mut self) -> ReconcileError {
        self.try_round().await.unwrap_err()
    }

    async fn try_round(&mut self) -> Result<(), ReconcileError> {
        let context = Arc::new(self.context());
        let aggregator: LogAggregator = serde_json::from_value(self.aggregator()).unwrap();
        let aggregator = Arc::new(aggregator);
        let done = reconcile(Arc::clone(&aggregator), Arc::clone(&context)).await;
        if let Err(error) = &done {
            after_error(aggregator, error, Arc::clone(&context));
        }
        self.memories = Some(Arc::into_inner(context).unwrap().memories);
        self.asked = self.server.asked();
        let permitted = match self.scope {
            Reach::Everything => permissions::everywhere(),
            Reach::Namespace => permissions::namespaced(),
        };
        let needed = permissions::needed(&self.asked);
        let missing: Vec<_> = needed.difference(&permitted).collect();
        assert!(missing.is_empty(), "the chart does not permit {missing:?}");
        self.all_asked.extend(self.asked.clone());
        let action = done?;
        let pauses = (1..=60).map(Duration::from_secs);
        let pause = pauses.into_iter().find(|pause| action == Action::requeue(*pause));
        self.pause = pause.unwrap_or(Duration::MAX);
        Ok(())
    }

    pub(super) fn recorder(&self) -> Recorder {
        let reporter = Reporter { controller: "sheaf-operator".into(), instance: None };
        Recorder::new(self.server.client(), reporter)
    }

    fn context(&mut self) -> Context {
        let client = self.server.client();
        Context {
            scope: match self.scope {
                Reach::Everything => Scope::Everywhere,
                Reach::Namespace => Scope::Namespace(self.namespace.to_owned()),
            },
            stores: self.stores(),
            nodes: Arc::clone(&self.nodes) as Arc<dyn Nodes>,
            recorder: self.recorder(),
            installation: self.installation.clone(),
            turns: Arc::clone(&self.turns),
            metrics: Arc::clone(&self.metrics),
            memories: self.memories.take().unwrap_or_default(),
            client,
        }
    }

    fn stores(&self) -> Stores {
        let of =
            |plural: &str| self.server.all(&format!("/namespaces/{}/{plural}/", self.namespace));
        let stateful_sets = self.hidden.clone().map_or_else(|| of("statefulsets"), |it| vec![it]);
        let everything = self.scope == Reach::Everything;
        Stores {
            aggregators: store(of("logaggregators")),
            stateful_sets: store(stateful_sets),
            pods: store(of("pods")),
            claims: store(of("persistentvolumeclaims")),
            config_maps: store(of("configmaps")),
            machines: everything.then(|| store(self.server.all("/api/v1/nodes/"))),
            owned: Arc::new(self.owned()),
        }
    }

    fn owned(&self) -> Owned {
        let owned = Owned::new(0);
        for kind in owned_kinds(&self.installation) {
            for object in self.server.all(&format!("/{}/", kind.plural)) {
                let metadata: ObjectMeta =
                    serde_json::from_value(object["metadata"].clone()).unwrap();
                if metadata.labels.is_none() {
                    continue;
                }
                // Of which kind it is written down is said, not asked.
                let object: PartialObjectMeta<Service> = metadata.into_response_partial();
                owned.notice(&kind.kind, &Event::Apply(object));
            }
        }
        owned
    }

    /// The changes that were asked for, in short.
    pub(super) fn changes(asked: &[Asked]) -> Vec<String> {
        asked.iter().filter(|asked| asked.is_change()).map(Asked::short).collect()
    }

    /// Everything that was asked, in short.
    pub(super) fn shorts(asked: &[Asked]) -> Vec<String> {
        asked.iter().map(Asked::short).collect()
    }
}

/// The same path in another namespace.
fn in_namespace(path: &str, namespace: &str) -> String {
    path.replace("/namespaces/shop/", &format!("/namespaces/{namespace}/"))
}

fn labels_of_pods() -> Value {
    json!({"app.kubernetes.io/name": "sheaf-node", "app.kubernetes.io/instance": "logs"})
}

fn pod_path(n: usize) -> String {
    format!("/api/v1/namespaces/shop/pods/logs-{n}")
}

fn store<K>(objects: Vec<Value>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&Event::InitDone);
    store
}

/// The nodes of three pods, whose addresses end with their ordinals. Member 1 leads.
#[derive(Default)]
pub(super) struct Scripted(Mutex<State>);

pub(super) struct State {
    cluster: Cluster,
    silent: BTreeSet<usize>,
    changes: Vec<Change>,
    refusal: Option<String>,
    unanswering: bool,
}

impl Default for State {
    fn default() -> State {
        let cluster = fleet::cluster();
        State {
            cluster,
            silent: BTreeSet::new(),
            changes: Vec::new(),
            refusal: None,
            unanswering: false,
        }
    }
}

impl Scripted {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The node does not answer.
    pub(super) fn silence(&self, n: usize) {
        self.lock().silent.insert(n);
    }

    /// All changes are refused.
    pub(super) fn refuse(&self, reason: &str) {
        self.lock().refusal = Some(reason.to_owned());
    }

    /// Another member leads.
    pub(super) fn elect(&self, member: u64) {
        let cluster = &mut self.lock().cluster;
        cluster.leader = Some(member);
        for known in &mut cluster.members {
            known.role = if known.id == member { Role::Leader } else { Role::Voter };
        }
    }

    /// Nobody answers who is asked to change anything.
    pub(super) fn stall(&self, stalls: bool) {
        self.lock().unanswering = stalls;
    }

    /// What was asked for since this was last called.
    pub(super) fn changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().changes)
    }

    /// A member owns so many slots; the first one has the others, and leads them.
    pub(super) fn own(&self, member: u64, slots: u64) {
        let cluster = &mut self.lock().cluster;
        let [first, others @ ..] = cluster.members.as_mut_slice() else { return };
        let other = others.iter_mut().find(|it| it.id == member).unwrap();
        first.slots += other.slots;
        (first.owned, other.owned) = (first.owned + other.owned - slots, slots);
        other.slots = 0;
    }

    pub(super) fn set_state(&self, member: u64, state: MemberState) {
        if is_gone(state) {
            self.own(member, 0);
        }
        let cluster = &mut self.lock().cluster;
        let known = cluster.members.iter_mut().find(|it| it.id == member).unwrap();
        known.state = state;
        if is_gone(state) {
            known.role = Role::None;
        }
    }

    /// Whoever drains is drained.
    pub(super) fn finish_draining(&self) {
        let members = self.lock().cluster.members.clone();
        for member in members.iter().filter(|it| it.state == MemberState::Draining) {
            self.set_state(member.id, MemberState::Drained);
        }
    }
}

impl Nodes for Scripted {
    fn cluster(&self, address: IpAddr) -> BoxFuture<'_, Result<Cluster, NodeError>> {
        let IpAddr::V4(four) = address else { panic!("{address}") };
        let n = usize::from(four.octets()[3]);
        let state = self.lock();
        let told = Cluster { node: Some(n as u64 + 1), ..state.cluster.clone() };
        let path = "/v1/cluster".to_owned();
        let silent = NodeError::Unanswered { address, path, reason: "silent".to_owned() };
        ready(if state.silent.contains(&n) { Err(silent) } else { Ok(told) }).boxed()
    }

    fn change<'a>(
        &'a self,
        address: IpAddr,
        change: Change,
        token: &'a str,
    ) -> BoxFuture<'a, Result<(), NodeError>> {
        assert_eq!(token.len(), 64);
        let mut state = self.lock();
        state.changes.push(change);
        let refusal = state.refusal.clone().map(NodeError::Refused);
        let path = "/v1/members".to_owned();
        let silence = NodeError::Unanswered { address, path, reason: "stalled".to_owned() };
        let error = refusal.or_else(|| state.unanswering.then_some(silence));
        ready(error.map_or(Ok(()), Err)).boxed()
    }
}
