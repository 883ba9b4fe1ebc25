use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::load::Load;
use crate::scene::{Scene, aggregator, play};
use crate::{ledger, machine};

const STEADY: [&str; 6] = ["--rate", "2000", "--duration", "30s", "--retry-for", "120s"];

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_node_that_is_killed_under_load_comes_back_with_what_it_had() {
    play("killed", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let load = Load::begin(scene, &STEADY).await;
        let victim = scene.pods().await.remove(1);
        machine::kill(&victim).await;
        scene
            .eventually("restarted node", async || restarted(scene, &victim.name_any()).await)
            .await;
        let sent = load.end(scene).await;
        scene.settled(3).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_pod_that_is_deleted_under_load_comes_back_as_the_same_member() {
    play("deleted", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let before = members(scene).await;
        let load = Load::begin(scene, &STEADY).await;
        delete(scene, &scene.pods().await.remove(0)).await;
        let sent = load.end(scene).await;
        scene.settled(3).await;
        ledger::balances(scene, &[sent]).await;
        assert_eq!(members(scene).await, before);
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_that_is_killed_while_nodes_are_drained_goes_on_where_it_was() {
    play("operator-killed", async |scene| {
        scene.start(&aggregator(json!({"replicas": 4}))).await;
        let load = Load::begin(scene, &[&STEADY[..2], &["--duration", "60s"]].concat()).await;
        scene.scale(2).await;
        scene.pods_become("pod fewer", |count| count < 4).await;
        kill_operators(scene).await;
        scene.settled(2).await;
        let sent = load.end(scene).await;
        ledger::balances(scene, &[sent]).await;
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

/// The members' ids, with their pods.
async fn members(scene: &Scene) -> Vec<(i64, String)> {
    let status = scene.aggregator().await.status.unwrap();
    status.members.into_iter().map(|member| (member.id, member.pod)).collect()
}

/// Without a chance to say good-bye.
async fn kill_operators(scene: &Scene) {
    let api: Api<Pod> = Api::namespaced(scene.client.clone(), "sheaf-system");
    let operators = ListParams::default().labels("app.kubernetes.io/component=operator");
    let at_once = DeleteParams::default().grace_period(0);
    for pod in api.list(&operators).await.unwrap() {
        api.delete(&pod.name_any(), &at_once).await.unwrap();
    }
}
