use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::load::Load;
use crate::scene::{Scene, aggregator, play};
use crate::{ledger, machine, operator};

/// Nobody says that a machine is off: who sends to it learns nothing, also for a while after.
const IMPATIENT: [&str; 2] = ["--timeout", "5s"];

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_machine_that_is_turned_off_under_load_costs_nothing_and_comes_back_with_what_it_had() {
    play("turned-off", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let members = scene.members().await;
        let load = Load::steady_with(scene, &IMPATIENT).await;
        let away = scene.expendable().await;
        let machine = machine::machine(&away).to_owned();
        machine::stop(&machine).await;
        scene
            .eventually("machine that is not ready", async || {
                (!is_ready(scene, &machine).await).then_some(())
            })
            .await;
        scene
            .eventually("aggregator that does without it", async || {
                let status = scene.aggregator().await.status?;
                (status.ready_replicas == 2 && status.complete == Some(true)).then_some(())
            })
            .await;
        operator::replace(scene).await;
        let waits = scene.api::<Pod>().get(&away.name_any()).await.unwrap();
        assert_eq!(waits.uid(), away.uid(), "nothing is given up because it is silent");
        machine::start(&machine).await;
        scene
            .eventually("machine that is ready", async || {
                is_ready(scene, &machine).await.then_some(())
            })
            .await;
        scene.settled(3).await;
        assert_eq!(scene.members().await, members);
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

async fn is_ready(scene: &Scene, machine: &str) -> bool {
    let node = Api::<Node>::all(scene.client.clone()).get(machine).await.unwrap();
    let conditions = node.status.unwrap().conditions.unwrap();
    conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True")
}
