use serde_json::json;

use crate::load::Load;
use crate::rolling::{break_image, changed};
use crate::scene::{aggregator, play};
use crate::{failures, ledger, operator};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_that_is_killed_with_a_node_or_a_pod_goes_on_where_it_was() {
    play("killed-failing", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let members = scene.members().await;
        let load = Load::steady(scene).await;
        failures::kill(scene, async || operator::kill(scene).await).await;
        operator::acts(scene).await;
        scene.settled(3).await;
        failures::delete(scene, async || operator::lose(scene).await).await;
        operator::acts(scene).await;
        scene.settled(3).await;
        assert_eq!(scene.members().await, members);
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_that_is_lost_while_nodes_come_and_go_is_followed_by_one_that_goes_on_where_it_was() {
    play("killed-scaling", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let load = Load::steady(scene).await;
        scene.scale(5).await;
        scene.pods_become("pod more", |count| count > 3).await;
        operator::kill(scene).await;
        scene.settled(5).await;
        scene.scale(2).await;
        scene.pods_become("pod fewer", |count| count < 5).await;
        operator::lose(scene).await;
        scene.scale(5).await;
        scene.settled(5).await;
        scene.scale(2).await;
        scene.pods_become("pod fewer", |count| count < 5).await;
        operator::kill(scene).await;
        scene.settled(2).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_that_is_killed_while_pods_are_replaced_goes_on_where_it_was() {
    play("killed-rolling", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let before = scene.uids().await;
        let load = Load::steady(scene).await;
        scene.apply(&aggregator(changed())).await.unwrap();
        scene.replaced(&before, 1).await;
        operator::kill(scene).await;
        for count in 2..=3 {
            scene.replaced(&before, count).await;
        }
        scene.settled(3).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_that_is_killed_before_a_bad_image_is_repaired_repairs_it() {
    play("killed-repairing", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let load = Load::steady(scene).await;
        break_image(scene).await;
        operator::kill(scene).await;
        scene.apply(&aggregator(json!({}))).await.unwrap();
        scene.settled(3).await;
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}
