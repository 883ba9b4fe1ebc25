//! A namespace of a test's own, an aggregator in it, and waiting for what becomes of it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use http::Request;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sheaf_operator::names::PODS_SELECTOR;
use sheaf_operator::resource::LogAggregator;
use sheaf_proto::names::{ADMIN_PORT, LEDGER_PATH};
use sheaf_proto::statistics::Ledger;

use crate::evidence;
use crate::machine::machine;

/// What every aggregator of these tests is called.
pub(crate) const NAME: &str = "logs";
/// Nothing takes longer: a pod that is deleted has half a minute to end, and two processors are
/// shared by everything.
const WITHIN: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(250);

/// A namespace of the test's own.
pub(crate) struct Scene {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Runs a test in a namespace of its own, which is deleted when it succeeds. When it fails, what
/// the cluster says of it is collected, and the namespace stays.
pub(crate) fn play(namespace: &str, test: impl AsyncFnOnce(&Scene)) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::try_default().await.expect("a cluster: run `make e2e`");
        let scene = Scene { client, namespace: namespace.to_owned() };
        scene.open().await;
        match AssertUnwindSafe(test(&scene)).catch_unwind().await {
            Ok(()) => scene.close().await,
            Err(panic) => {
                evidence::collect(&scene.namespace).await;
                resume_unwind(panic);
            }
        }
    });
}

/// Three nodes that count by `http.route` in short windows; `more` is merged over its spec.
pub(crate) fn aggregator(more: Value) -> Value {
    let count = json!({"attribute": "http.route", "windowSeconds": 5});
    let mut spec = json!({
        "replicas": 3,
        "storage": {"size": "1Gi"},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "aggregations": [{"name": "by-route", "type": "DistinctLogs", "distinctLogs": count}],
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    named(NAME, spec)
}

/// An aggregator with exactly this spec.
pub(crate) fn named(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "sheaf.dev/v1alpha1", "kind": "LogAggregator",
        "metadata": {"name": name}, "spec": spec,
    })
}

impl Scene {
    /// The objects of a kind in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a manifest, as `kubectl apply --server-side` does.
    pub(crate) async fn apply(&self, manifest: &Value) -> Result<LogAggregator, kube::Error> {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let parameters = PatchParams::apply("a-person").force();
        self.api().patch(name, &parameters, &Patch::Apply(manifest)).await
    }

    /// Applies the aggregator, and waits until its nodes take logs.
    pub(crate) async fn start(&self, manifest: &Value) {
        let replicas = manifest["spec"]["replicas"].as_i64().unwrap();
        self.apply(manifest).await.unwrap();
        self.settled(replicas.try_into().unwrap()).await;
    }

    /// What `kubectl scale la/logs` does.
    pub(crate) async fn scale(&self, replicas: i32) {
        let change = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let api = self.api::<LogAggregator>();
        api.patch_scale(NAME, &PatchParams::default(), &change).await.unwrap();
    }

    /// Waits until the aggregator has so many nodes, and says that it is ready.
    pub(crate) async fn settled(&self, replicas: i32) {
        let what = format!("{replicas} nodes, ready");
        self.eventually(&what, async || {
            let aggregator = self.aggregator().await;
            let status = aggregator.status.as_ref()?;
            let is_current = status.observed_generation == aggregator.metadata.generation;
            let count = (status.replicas, status.ready_replicas);
            let done = is_current && count == (replicas, replicas) && is(&aggregator, "Ready");
            done.then_some(())
        })
        .await;
    }

    /// The aggregator as it is now.
    pub(crate) async fn aggregator(&self) -> LogAggregator {
        self.api().get(NAME).await.unwrap()
    }

    /// The nodes' pods, by name.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        let selected = ListParams::default().labels(PODS_SELECTOR);
        let mut pods = self.api::<Pod>().list(&selected).await.unwrap().items;
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }

    /// The uids of the nodes' pods, by name.
    pub(crate) async fn uids(&self) -> BTreeMap<String, String> {
        let pods = self.pods().await.into_iter();
        pods.map(|pod| (pod.name_any(), pod.uid().unwrap())).collect()
    }

    /// Waits until so many of these pods were replaced.
    pub(crate) async fn replaced(&self, before: &BTreeMap<String, String>, count: usize) {
        let what = format!("{count} pods replaced");
        self.eventually(&what, async || {
            let now = self.uids().await;
            let is_new = |name: &&String| now.get(*name).is_some_and(|it| *it != before[*name]);
            (before.keys().filter(is_new).count() >= count).then_some(())
        })
        .await;
    }

    /// The members' ids, with their pods.
    pub(crate) async fn members(&self) -> Vec<(i64, String)> {
        let status = self.aggregator().await.status.unwrap();
        status.members.into_iter().map(|member| (member.id, member.pod)).collect()
    }

    /// A pod whose machine may go: the one that a sender is connected to, if that can be, because
    /// the API server and the senders run on another.
    pub(crate) async fn expendable(&self) -> Pod {
        let may_go = |pod: &Pod| !machine(pod).ends_with("control-plane");
        let receiver = self.receiver().await;
        if may_go(&receiver) {
            eprintln!("{}: the sender's node goes", self.namespace);
            return receiver;
        }
        self.pods().await.into_iter().find(may_go).expect("a pod on a worker")
    }

    /// Waits until there are no more than so many pods, or no fewer.
    pub(crate) async fn pods_become(&self, what: &str, enough: impl Fn(usize) -> bool) {
        self.eventually(what, async || enough(self.pods().await.len()).then_some(())).await;
    }

    /// Asks a node, whichever the Service chooses, through the API server.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, kube::Error> {
        let namespace = &self.namespace;
        let proxy = format!("/api/v1/namespaces/{namespace}/services/{NAME}:admin/proxy{path}");
        self.client.request(Request::get(proxy).body(Vec::new()).unwrap()).await
    }

    /// Asks the node in this pod, through the API server.
    pub(crate) async fn ask_pod<T: DeserializeOwned>(
        &self,
        pod: &Pod,
        path: &str,
    ) -> Result<T, kube::Error> {
        let (namespace, name) = (&self.namespace, pod.name_any());
        let proxy = format!("/api/v1/namespaces/{namespace}/pods/{name}:{ADMIN_PORT}/proxy{path}");
        self.client.request(Request::get(proxy).body(Vec::new()).unwrap()).await
    }

    /// The pod that a sender with one connection is connected to.
    pub(crate) async fn receiver(&self) -> Pod {
        let path = format!("{LEDGER_PATH}?scope=node");
        self.eventually("pod that records come to", async || {
            for pod in self.pods().await {
                let ledger = self.ask_pod::<Ledger>(&pod, &path).await;
                if ledger.ok()?.received > 0 {
                    return Some(pod);
                }
            }
            None
        })
        .await
    }

    /// Waits until something is there, or fails.
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let end = Instant::now() + WITHIN;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < end, "{}: no {what} within {WITHIN:?}", self.namespace);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes the namespace.
    pub(crate) async fn open(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = json!({
            "metadata": {"name": self.namespace, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
            }},
        });
        let namespace = serde_json::from_value(namespace).unwrap();
        api.create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace that is not there");
    }

    /// Deletes it.
    pub(crate) async fn close(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

/// Does something, and then what has to be done also if it fails.
pub(crate) async fn and_always<T>(work: impl Future<Output = T>, then: impl AsyncFnOnce()) -> T {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    then().await;
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Whether a condition is True.
pub(crate) fn is(aggregator: &LogAggregator, condition: &str) -> bool {
    let conditions = aggregator.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|found| found.type_ == condition && found.status == "True")
}

/// The words in which the API server refused something.
pub(crate) fn refusal<T: Debug>(answer: Result<T, kube::Error>) -> String {
    match answer {
        Err(kube::Error::Api(status)) if status.is_invalid() || status.is_forbidden() => {
            status.message
        }
        other => panic!("not refused: {other:?}"),
    }
}
