//! Agents on every machine, as the chart runs them.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use sheaf_proto::names::CHUNK_PORT;

use crate::machine;
use crate::release;
use crate::scene::{NAME, Scene};

const NAMESPACE: &str = "sheaf-agent";
const SELECTOR: &str = "app.kubernetes.io/component=agent";
const STATE: &str = "/var/lib/sheaf-tail-e2e";

/// The agent, as a process.
pub(crate) const PROGRAM: &str = "sheaf";

/// Has an agent on every machine send to the aggregator of the test. They know of nothing that was
/// sent before.
pub(crate) async fn start(scene: &Scene) {
    for machine in machines(scene).await {
        machine::output(&machine, &["rm", "-rf", STATE]).await;
    }
    let to = format!("agent.to={{http://{NAME}.{}.svc:{CHUNK_PORT}}}", scene.namespace);
    let state = format!("agent.stateDir={STATE}");
    release::set(&["agent.enabled=true", &to, &state]).await;
    ready(scene).await;
}

/// Takes them away again.
pub(crate) async fn stop(scene: &Scene) {
    release::set(&["agent.enabled=false"]).await;
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    scene
        .eventually("end of the agents' namespace", async || {
            namespaces.get_opt(NAMESPACE).await.unwrap().is_none().then_some(())
        })
        .await;
}

/// Waits until there is one on every machine.
pub(crate) async fn ready(scene: &Scene) {
    let count = machines(scene).await.len();
    let api = Api::<DaemonSet>::namespaced(scene.client.clone(), NAMESPACE);
    scene
        .eventually("agent on every machine", async || {
            let status = api.list(&ListParams::default()).await.unwrap().items.pop()?.status?;
            (usize::try_from(status.number_ready) == Ok(count)).then_some(())
        })
        .await;
}

/// The agents' pods.
pub(crate) async fn pods(scene: &Scene) -> Vec<Pod> {
    let api = Api::<Pod>::namespaced(scene.client.clone(), NAMESPACE);
    api.list(&ListParams::default().labels(SELECTOR)).await.unwrap().items
}

/// The names of all machines.
pub(crate) async fn machines(scene: &Scene) -> Vec<String> {
    let nodes = Api::<Node>::all(scene.client.clone()).list(&ListParams::default()).await.unwrap();
    nodes.iter().map(|node| node.name_any()).collect()
}
