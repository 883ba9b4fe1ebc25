use serde_json::json;

use crate::ledger;
use crate::load::Load;
use crate::scene::{aggregator, play};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn three_nodes_become_five_and_then_two_under_load_and_nothing_is_lost() {
    play("three-five-two", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let load = Load::steady(scene).await;
        scene.scale(5).await;
        scene.settled(5).await;
        scene.scale(2).await;
        scene.settled(2).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn five_nodes_that_become_two_become_five_again_half_way() {
    play("five-two-five", async |scene| {
        scene.start(&aggregator(json!({"replicas": 5}))).await;
        let load = Load::steady(scene).await;
        scene.scale(2).await;
        scene.pods_become("pod fewer", |count| count < 5).await;
        scene.scale(5).await;
        scene.settled(5).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}
