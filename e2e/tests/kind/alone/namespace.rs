use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::operator;
use crate::scene::{Scene, aggregator, play};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_namespace_that_is_deleted_while_there_is_no_operator_leaves_nothing() {
    play("abandoned", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        assert_eq!(volumes(scene).await, 3);
        operator::without(scene, async || {
            let namespaces: Api<Namespace> = Api::all(scene.client.clone());
            namespaces.delete(&scene.namespace, &DeleteParams::default()).await.unwrap();
            scene
                .eventually("end of the namespace", async || {
                    let found = namespaces.get_opt(&scene.namespace).await.unwrap();
                    found.is_none().then_some(())
                })
                .await;
            // Their class says that they go with their claims.
            scene
                .eventually("end of all volumes", async || {
                    (volumes(scene).await == 0).then_some(())
                })
                .await;
        })
        .await;
        scene.open().await;
    });
}

/// How many volumes belong to claims of the namespace.
async fn volumes(scene: &Scene) -> usize {
    let api: Api<PersistentVolume> = Api::all(scene.client.clone());
    let all = api.list(&ListParams::default()).await.unwrap();
    let claims = all.items.into_iter().filter_map(|volume| volume.spec?.claim_ref?.namespace);
    claims.filter(|namespace| *namespace == scene.namespace).count()
}
