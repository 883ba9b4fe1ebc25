use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use kube::{Api, Config, ResourceExt as _};
use serde_json::json;

use crate::load::Load;
use crate::machine::{kubectl, machine};
use crate::scene::{Scene, aggregator, play};
use crate::{ledger, operator};

/// Nobody but the nodes has to leave, so that what a test observes with stays where it is.
const NODES_ONLY: [&str; 4] = [
    "--pod-selector=app.kubernetes.io/name=sheaf-node",
    "--ignore-daemonsets",
    "--delete-emptydir-data",
    "--timeout=120s",
];

/// The volumes of kind are folders of machines, so a pod waits for its machine.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_machine_that_is_drained_under_load_takes_one_node_away_and_gives_it_back_whoever_operates() {
    play("drained", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let members = scene.members().await;
        let load = Load::steady(scene).await;
        let away = scene.expendable().await;
        let machine = machine(&away).to_owned();
        kubectl(&[&["drain", &machine], &NODES_ONLY[..]].concat()).await;
        scene
            .eventually("pod that waits for its machine", async || {
                let pod = scene.api::<Pod>().get_opt(&away.name_any()).await.unwrap()?;
                let is_new = pod.uid() != away.uid();
                (is_new && pod.status?.phase? == "Pending").then_some(())
            })
            .await;
        assert_eq!(evict_another(scene, &away).await, Err(429), "one may be away at a time");
        operator::replace(scene).await;
        kubectl(&["uncordon", &machine]).await;
        scene.settled(3).await;
        assert_eq!(scene.members().await, members);
        let sent = load.stop(scene).await;
        ledger::balances(scene, &[sent]).await;
    });
}

/// Has another pod evicted; the code of the refusal otherwise.
async fn evict_another(scene: &Scene, away: &Pod) -> Result<(), u16> {
    let pods = scene.pods().await;
    let other = pods.iter().find(|pod| pod.name_any() != away.name_any()).unwrap();
    // Who is refused is to ask again, which a client does by itself.
    let mut config = Config::infer().await.unwrap();
    config.default_retry = false;
    let api: Api<Pod> = Api::namespaced(config.try_into().unwrap(), &scene.namespace);
    let evicted = api.evict(&other.name_any(), &EvictParams::default()).await;
    match evicted {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(error) => panic!("{error}"),
    }
}
