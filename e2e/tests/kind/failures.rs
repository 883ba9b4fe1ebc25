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
        let victim = scene.receiver().await;
        machine::kill(&victim, "sheaf-node").await;
        scene
            .eventually("restarted node", async || restarted(scene, &victim.name_any()).await)
            .await;
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
        delete(scene, &scene.receiver().await).await;
        scene.settled(3).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
        assert_eq!(scene.members().await, before);
    });
}

async fn delete(scene: &Scene, pod: &Pod) {
    scene.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    scene
        .eventually("pod in its place", async || {
            let found = scene.api::<Pod>().get_opt(&pod.name_any()).await.unwrap()?;
            (found.metadata.uid != pod.metadata.uid).then_some(())
        })
        .await;
}

async fn restarted(scene: &Scene, name: &str) -> Option<()> {
    let pod = scene.api::<Pod>().get(name).await.unwrap();
    let containers = pod.status?.container_statuses?;
    containers.iter().any(|container| container.restart_count > 0).then_some(())
}
