//! What is done to the operator.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::failures::restarts;
use crate::machine;
use crate::release::{self, NAMESPACE};
use crate::scene::{Scene, and_always};

const NAME: &str = "sheaf-operator";
const SELECTOR: &str = "app.kubernetes.io/component=operator";
/// How many the chart runs.
const REPLICAS: i32 = 2;

/// The operator, as a process.
pub(crate) const PROGRAM: &str = "sheaf-operator";

/// Kills all operators that run, without a chance to say good-bye, and waits until that is known.
/// They start again, the later the more often they were killed.
pub(crate) async fn kill(scene: &Scene) {
    let killed = running(scene).await;
    for pod in &killed {
        machine::kill(pod, PROGRAM).await;
    }
    let api = Api::<Pod>::namespaced(scene.client.clone(), NAMESPACE);
    for pod in &killed {
        scene
            .eventually("operator that is known to be dead", async || {
                let now = api.get(&pod.name_any()).await.unwrap();
                (!is_ready(&now) || restarts(&now) > restarts(pod)).then_some(())
            })
            .await;
    }
}

/// Kills all operators that run, and takes their pods away: those that come wait until the lease
/// runs out.
pub(crate) async fn lose(scene: &Scene) {
    let api = Api::<Pod>::namespaced(scene.client.clone(), NAMESPACE);
    let at_once = DeleteParams::default().grace_period(0);
    for pod in running(scene).await {
        machine::kill(&pod, PROGRAM).await;
        api.delete(&pod.name_any(), &at_once).await.unwrap();
    }
}

/// As [`lose`], and waits until another one acts.
pub(crate) async fn replace(scene: &Scene) {
    lose(scene).await;
    acts(scene).await;
}

/// Waits until an operator acts.
pub(crate) async fn acts(scene: &Scene) {
    let api = Api::<Lease>::namespaced(scene.client.clone(), NAMESPACE);
    scene
        .eventually("operator that acts", async || {
            let holder = api.get(NAME).await.unwrap().spec?.holder_identity?;
            let pods = pods(scene).await;
            pods.iter().any(|pod| is_ready(pod) && pod.name_any() == holder).then_some(())
        })
        .await;
}

/// Has something done while there is no operator, nor the API that it serves: as long as nobody
/// answered for that, no namespace could be deleted.
pub(crate) async fn without(scene: &Scene, work: impl AsyncFnOnce()) {
    release::set(&["customMetrics.enabled=false"]).await;
    scale(scene, 0).await;
    let restore = async || {
        scale(scene, REPLICAS).await;
        release::set(&["customMetrics.enabled=true"]).await;
    };
    and_always(work(), restore).await;
}

/// The operators' pods.
pub(crate) async fn pods(scene: &Scene) -> Vec<Pod> {
    let api = Api::<Pod>::namespaced(scene.client.clone(), NAMESPACE);
    api.list(&ListParams::default().labels(SELECTOR)).await.unwrap().items
}

/// Those of them that run, as soon as one does.
async fn running(scene: &Scene) -> Vec<Pod> {
    scene
        .eventually("operator that runs", async || {
            let mut pods = pods(scene).await;
            pods.retain(is_ready);
            (!pods.is_empty()).then_some(pods)
        })
        .await
}

/// A pod whose machine is off is not.
fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions.any(|it| it.type_ == "Ready" && it.status == "True")
}

async fn scale(scene: &Scene, replicas: i32) {
    let api = Api::<Deployment>::namespaced(scene.client.clone(), NAMESPACE);
    let change = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    api.patch_scale(NAME, &PatchParams::default(), &change).await.unwrap();
    let what = format!("{replicas} operators");
    scene
        .eventually(&what, async || {
            let status = api.get(NAME).await.unwrap().status?;
            let ready = status.ready_replicas.unwrap_or(0);
            let all = pods(scene).await.len();
            (ready == replicas && all == replicas as usize).then_some(())
        })
        .await;
}
