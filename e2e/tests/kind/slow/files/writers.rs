//! Pods that write numbered lines, one on every machine, and their logs there.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::Contents;
use crate::load::image;
use crate::machine::{kubectl, output};
use crate::scene::Scene;
use crate::{agents, machine};

/// The beginning of their names.
const NAME: &str = "writer-";
/// What each container of a pod does until it is told to stop; `say` prints a numbered line. The
/// loud one outgrows what the kubelet lets a log have (10 MiB), so that it is rotated once.
const CONTAINERS: [(&str, &str); 3] = [
    ("steady", "sleep 0.05; say steady"),
    (
        "bursts",
        r#"sleep 3; say "$(printf '%30000s')"; for i in {1..500}; do say $'\xff\xfe\x01 \r'; done"#,
    ),
    ("loud", "while ((number < 100000)); do say \"$line\"; done; sleep 1; say quiet"),
];
const BEGIN: &str = r#"number=0
printf -v line '%100s' loud
say() { number=$((number + 1)); echo "$number $1"; }
until [[ -e /work/stop ]]; do "#;
const END: &str = "; done; say end; exec sleep infinity";
const STOP: [&str; 2] = ["touch", "/work/stop"];

/// Writers that are under way.
pub(super) struct Writers {
    pods: Vec<Pod>,
}

impl Writers {
    /// Has them begin, and waits until they run.
    pub(super) async fn begin(scene: &Scene) -> Writers {
        let mut pods = Vec::new();
        for (number, machine) in agents::machines(scene).await.iter().enumerate() {
            let pod = serde_json::from_value(pod(number, machine)).unwrap();
            pods.push(scene.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap());
        }
        for pod in &pods {
            let name = pod.name_any();
            scene
                .eventually("writer that runs", async || {
                    let status = scene.api::<Pod>().get(&name).await.unwrap().status?;
                    (status.phase? == "Running").then_some(())
                })
                .await;
        }
        Writers { pods }
    }

    /// What their logs are called.
    pub(super) fn ids(&self) -> BTreeSet<String> {
        let of = |pod: &Pod| CONTAINERS.map(|(container, _)| id(pod, container));
        self.pods.iter().flat_map(of).collect()
    }

    /// Has them end, and reads what their machines have of them.
    pub(super) async fn end(self, scene: &Scene) -> Contents {
        let namespace = format!("--namespace={}", scene.namespace);
        for pod in &self.pods {
            let name = pod.name_any();
            let exec = ["exec", &namespace, &name, "--container=steady", "--"];
            kubectl(&[&exec[..], &STOP].concat()).await;
        }
        let mut contents = Contents::new();
        for pod in &self.pods {
            for (container, _) in CONTAINERS {
                let logs = logs(scene, pod, container).await;
                contents.insert(id(pod, container), logs);
            }
        }
        let is_rotated = |(id, logs): (&String, &Vec<Vec<u8>>)| {
            assert_eq!(logs.len(), if id.ends_with("/loud") { 2 } else { 1 }, "logs of {id}");
        };
        contents.iter().for_each(is_rotated);
        contents
    }
}

/// Whether a writer of the test wrote the file with this id.
pub(super) fn wrote(scene: &Scene, id: &str) -> bool {
    let mut parts = id.split('/').skip(1);
    let is_here = parts.next() == Some(&scene.namespace);
    is_here && parts.next().is_some_and(|pod| pod.starts_with(NAME))
}

fn id(pod: &Pod, container: &str) -> String {
    let namespace = pod.namespace().unwrap();
    format!("{}/{namespace}/{}/{container}", machine::machine(pod), pod.name_any())
}

/// The logs of a container on its machine, the oldest first, once the last line is there.
async fn logs(scene: &Scene, pod: &Pod, container: &str) -> Vec<Vec<u8>> {
    let (namespace, name, uid) = (&scene.namespace, pod.name_any(), pod.uid().unwrap());
    let folder = format!("/var/log/pods/{namespace}_{name}_{uid}/{container}");
    let machine = machine::machine(pod);
    scene
        .eventually("last line", async || {
            let last = output(machine, &["tail", "--lines=1", &format!("{folder}/0.log")]).await;
            last.ends_with(b" end\n").then_some(())
        })
        .await;
    let found = String::from_utf8(output(machine, &["find", &folder, "-type", "f"]).await).unwrap();
    // What was rotated is named after its time, and came before what is not.
    let mut paths: Vec<&str> = found.lines().collect();
    paths.sort_by_key(|path| (path.ends_with(".log"), *path));
    let mut logs = Vec::new();
    for path in paths {
        logs.push(output(machine, &["cat", path]).await);
    }
    logs
}

fn pod(number: usize, machine: &str) -> Value {
    let container = |(name, script): (&str, &str)| {
        json!({
            "name": name, "image": image(), "command": ["bash", "-c", format!("{BEGIN}{script}{END}")],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        })
    };
    json!({
        "metadata": {"name": format!("{NAME}{number}")},
        "spec": {
            "nodeName": machine, "restartPolicy": "Never",
            "containers": CONTAINERS.map(container),
            "volumes": [{"name": "work", "emptyDir": {}}],
            "enableServiceLinks": false, "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    })
}
