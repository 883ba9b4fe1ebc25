//! Senders that run in the cluster: `sheaf load`, in a Job.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{ListParams, LogParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};
use sheaf_proto::names::OTLP_GRPC_PORT;
use sheaf_proto::statistics::ValueCount;

use crate::machine::kubectl;
use crate::scene::{NAME, Scene};

/// Sends, prints the result and then what must have been counted, each on a line.
const SCRIPT: &str = r#"sheaf load "$@" --output json --expect /work/expected.json &
echo $! >/work/pid; wait $!; code=$?
cat /work/expected.json; exit $code"#;
/// Has it wait for the answers that are due, and end.
const STOP: &str = "kill -INT $(cat /work/pid)";
/// 20 requests a second, without an end; each is sent again until somebody takes it.
const STEADY: [&str; 8] =
    ["--rate", "2000", "--batch", "100", "--duration", "30m", "--retry-for", "3m"];

/// The label of the machine to which nothing is done: the API server runs there.
const SAFE: &str = "node-role.kubernetes.io/control-plane";

/// A run that is under way.
pub(crate) struct Load {
    name: String,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) summary: Summary,
    pub(crate) expected: Expected,
}

/// What `sheaf load` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    pub(crate) retries: u64,
    pub(crate) latency_ms: Value,
    pub(crate) longest_gap_ms: f64,
}

/// The counts that must come out.
#[derive(Debug, Deserialize)]
pub(crate) struct Expected {
    pub(crate) distinct: u64,
    pub(crate) counts: Vec<ValueCount>,
}

impl Load {
    /// Begins to send steadily, until it is stopped.
    pub(crate) async fn steady(scene: &Scene) -> Load {
        Load::steady_with(scene, &[]).await
    }

    /// Begins to send steadily and with this, until it is stopped.
    pub(crate) async fn steady_with(scene: &Scene, more: &[&str]) -> Load {
        Load::begin(scene, &[&STEADY, more].concat()).await
    }

    /// Begins to send this way. All bodies differ, so that counts of windows may be added.
    pub(crate) async fn begin(scene: &Scene, arguments: &[&str]) -> Load {
        let endpoint = format!("http://{NAME}:{OTLP_GRPC_PORT}");
        let fixed = ["sender", "--endpoint", &endpoint, "--bodies", "100%"];
        let arguments = [&fixed, arguments].concat();
        let container = json!({
            "name": "load", "image": image(), "command": ["bash", "-c", SCRIPT], "args": arguments,
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        });
        let pod = json!({
            "containers": [container], "restartPolicy": "Never", "nodeSelector": {SAFE: ""},
            "volumes": [{"name": "work", "emptyDir": {}}],
            "enableServiceLinks": false, "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        });
        let job = json!({
            "metadata": {"generateName": "load-"},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}},
        });
        let job: Job = serde_json::from_value(job).unwrap();
        let job = scene.api::<Job>().create(&PostParams::default(), &job).await.unwrap();
        let load = Load { name: job.name_any() };
        scene.eventually("sender that runs", async || load.started(scene).await).await;
        load
    }

    /// Ends it, and waits for the end.
    pub(crate) async fn stop(self, scene: &Scene) -> Sent {
        let pod = self.pod(scene).await.unwrap().name_any();
        let namespace = format!("--namespace={}", scene.namespace);
        kubectl(&["exec", &namespace, &pod, "--", "bash", "-c", STOP]).await;
        self.end(scene).await
    }

    /// Waits for the end of it.
    pub(crate) async fn end(self, scene: &Scene) -> Sent {
        scene.eventually("end of the senders", async || self.finished(scene).await).await;
        let pod = self.pod(scene).await.unwrap();
        let pods = scene.api::<Pod>();
        let said = pods.logs(&pod.name_any(), &LogParams::default()).await.unwrap();
        let mut lines = said.lines().filter(|line| line.starts_with('{'));
        let mut line = || lines.next().unwrap_or_else(|| panic!("the sender says {said}"));
        let summary = serde_json::from_str(line()).unwrap();
        let expected = serde_json::from_str(line()).unwrap();
        Sent { summary, expected }
    }

    async fn pod(&self, scene: &Scene) -> Option<Pod> {
        let selected = ListParams::default().labels(&format!("job-name={}", self.name));
        scene.api::<Pod>().list(&selected).await.unwrap().items.pop()
    }

    async fn started(&self, scene: &Scene) -> Option<()> {
        let phase = self.pod(scene).await?.status?.phase?;
        (phase != "Pending").then_some(())
    }

    async fn finished(&self, scene: &Scene) -> Option<()> {
        let status = scene.api::<Job>().get(&self.name).await.unwrap().status?;
        let ended = status.succeeded.unwrap_or(0) + status.failed.unwrap_or(0);
        (ended > 0).then_some(())
    }
}

/// The image of everything.
pub(crate) fn image() -> String {
    std::env::var("IMAGE").unwrap_or_else(|_| "sheaf:dev".to_owned())
}
