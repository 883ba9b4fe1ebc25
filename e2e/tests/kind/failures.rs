use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;

use crate::load::Load;
use crate::scene::{Scene, aggregator, play};
use crate::{ledger, machine};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_node_that_is_killed_under_load_comes_back_with_what_it_had() {
    play("killed", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let load = Load::steady(scene).await;
        kill(scene, async || ()).await;
        scene.settled(3).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_pod_that_is_deleted_under_load_comes_back_as_the_same_member() {
    play("deleted", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let before = scene.members().await;
        let load = Load::steady(scene).await;
        delete(scene, async || ()).await;
        scene.settled(3).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
        assert_eq!(scene.members().await, before);
    });
}

/// Kills a node that a sender is connected to, and waits until it runs again.
pub(crate) async fn kill(scene: &Scene, meanwhile: impl AsyncFnOnce()) {
    let victim = scene.receiver().await;
    let before = restarts(&victim);
    machine::kill(&victim, "sheaf-node").await;
    meanwhile().await;
    scene
        .eventually("restarted node", async || {
            let pod = scene.api::<Pod>().get(&victim.name_any()).await.unwrap();
            (restarts(&pod) > before).then_some(())
        })
        .await;
}

/// Deletes the pod of a node that a sender is connected to, and waits until there is another one.
pub(crate) async fn delete(scene: &Scene, meanwhile: impl AsyncFnOnce()) {
    let pod = scene.receiver().await;
    scene.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    meanwhile().await;
    scene
        .eventually("pod in its place", async || {
            let found = scene.api::<Pod>().get_opt(&pod.name_any()).await.unwrap()?;
            (found.metadata.uid != pod.metadata.uid).then_some(())
        })
        .await;
}

/// How often the containers of a pod started again.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| &status.container_statuses).flatten();
    statuses.map(|container| container.restart_count).sum()
}
