use serde_json::json;

use crate::ledger;
use crate::load::Load;
use crate::release;
use crate::scene::{Scene, aggregator, and_always, play};

const NAMESPACE: &str = "scoped";

/// With the rights that it has then: every round that needs another one would fail.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_of_one_namespace_looks_after_that_and_no_other() {
    play(NAMESPACE, async |scene| {
        let beyond = Scene { client: scene.client.clone(), namespace: "beyond-scope".to_owned() };
        beyond.open().await;
        let only = format!("namespaces={{{NAMESPACE}}}");
        release::set(&["customMetrics.enabled=false", &only]).await;
        and_always(scales(scene, &beyond), release::undo).await;
        beyond.settled(3).await;
        beyond.close().await;
    });
}

async fn scales(scene: &Scene, beyond: &Scene) {
    beyond.apply(&aggregator(json!({}))).await.unwrap();
    scene.start(&aggregator(json!({}))).await;
    let load = Load::steady(scene).await;
    scene.scale(2).await;
    scene.settled(2).await;
    let sent = load.stop(scene).await;
    ledger::balances(scene, &[sent]).await;
    assert_eq!(beyond.aggregator().await.status, None, "nobody looks after it");
}
