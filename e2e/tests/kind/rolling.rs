use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sheaf_proto::names::LEDGER_PATH;
use sheaf_proto::statistics::Ledger;

use crate::ledger;
use crate::load::Load;
use crate::scene::{Scene, aggregator, play};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn other_pods_and_settings_come_one_by_one_under_load_and_nothing_is_lost() {
    play("rolled", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let (before, members) = (scene.uids().await, scene.members().await);
        let load = Load::steady(scene).await;
        scene.apply(&aggregator(changed())).await.unwrap();
        for count in 1..=3 {
            scene.replaced(&before, count).await;
        }
        scene.settled(3).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
        assert!(scene.pods().await.iter().all(has_note));
        assert_eq!(scene.members().await, members, "all came back on their volumes");
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_image_that_there_is_not_stops_one_pod_and_is_repaired_under_load() {
    play("bad-image", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let before = scene.uids().await;
        let load = Load::steady(scene).await;
        break_image(scene).await;
        scene.apply(&aggregator(json!({}))).await.unwrap();
        scene.settled(3).await;
        let after = scene.uids().await;
        let stayed = before.iter().filter(|(name, uid)| after.get(*name) == Some(uid)).count();
        assert_eq!(stayed, 2, "the others were never touched");
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_aggregation_that_is_new_counts_without_a_restart() {
    play("reloaded", async |scene| {
        let mut manifest = aggregator(json!({}));
        scene.start(&manifest).await;
        let before = scene.uids().await;
        let count = json!({"attribute": "service.name", "unique": "None", "windowSeconds": 5});
        let more = json!({"name": "by-service", "type": "DistinctLogs", "distinctLogs": count});
        manifest["spec"]["aggregations"].as_array_mut().unwrap().push(more);
        scene.apply(&manifest).await.unwrap();
        let load = Load::steady(scene).await;
        scene
            .eventually("records that the new one has counted", async || {
                let ledger: Ledger = scene.ask(LEDGER_PATH).await.ok()?;
                let mut accounts = ledger.aggregations.iter();
                let new = accounts.find(|account| account.aggregation == "by-service")?;
                (new.flushed > 0).then_some(())
            })
            .await;
        let sent = load.stop(scene).await;
        scene.settled(3).await;
        assert_eq!(scene.uids().await, before);
        ledger::balances_of(scene, "by-route", &[sent]).await;
    });
}

/// Other pods, and by their memory other settings of the nodes.
pub(crate) fn changed() -> Value {
    json!({
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}},
        "podTemplate": {"metadata": {"annotations": {"example.com/note": "another one"}}},
    })
}

/// Waits until a pod cannot start for want of its image, while all others take logs.
pub(crate) async fn break_image(scene: &Scene) {
    let bad = json!({"image": "sheaf:there-is-none", "imagePullPolicy": "IfNotPresent"});
    scene.apply(&aggregator(bad)).await.unwrap();
    scene
        .eventually("pod without an image", async || {
            scene.pods().await.iter().any(lacks_image).then_some(())
        })
        .await;
    let ready = scene.aggregator().await.status.unwrap().ready_replicas;
    assert_eq!(ready, 2);
}

fn has_note(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref().unwrap();
    annotations.get("example.com/note").is_some_and(|note| note == "another one")
}

fn lacks_image(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| &status.container_statuses).flatten();
    let mut waiting =
        statuses.filter_map(|it| it.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    waiting.any(|reason| ["ErrImagePull", "ImagePullBackOff"].contains(&reason))
}
