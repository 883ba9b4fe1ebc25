use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sheaf_operator::resource::LogAggregator;

use crate::scene::{NAME, Scene, aggregator, play};

/// What Kubernetes puts into every namespace.
const OTHERS: [&str; 2] = ["default", "kube-root-ca.crt"];

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_is_deleted_leaves_its_volumes_and_their_record_if_they_are_to_be_retained() {
    play("retained", async |scene| {
        delete_with(scene, "Retain").await;
        assert_eq!(left::<PersistentVolumeClaim>(scene).await.len(), 3);
        assert_eq!(left::<ConfigMap>(scene).await, ["logs-volumes"]);
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_is_deleted_leaves_nothing_if_its_volumes_are_to_go() {
    play("gone", async |scene| {
        delete_with(scene, "Delete").await;
        scene
            .eventually("end of all volumes", async || {
                let claims = left::<PersistentVolumeClaim>(scene).await;
                let records = left::<ConfigMap>(scene).await;
                (claims.is_empty() && records.is_empty()).then_some(())
            })
            .await;
    });
}

/// Starts an aggregator, deletes it, and waits until nothing is left but its volumes.
async fn delete_with(scene: &Scene, when_deleted: &str) {
    let retention = json!({"whenDeleted": when_deleted});
    scene.start(&manifest(&retention)).await;
    let api = scene.api::<LogAggregator>();
    api.delete(NAME, &DeleteParams::default()).await.unwrap();
    scene
        .eventually("end of all that was built", async || {
            let all = [
                left::<LogAggregator>(scene).await,
                left::<StatefulSet>(scene).await,
                left::<Pod>(scene).await,
                left::<Service>(scene).await,
                left::<Secret>(scene).await,
                left::<ServiceAccount>(scene).await,
                left::<NetworkPolicy>(scene).await,
                left::<PodDisruptionBudget>(scene).await,
            ];
            all.iter().all(Vec::is_empty).then_some(())
        })
        .await;
}

fn manifest(retention: &Value) -> Value {
    aggregator(json!({"storage": {"size": "1Gi", "retention": retention}}))
}

/// The names of the objects of a kind that are there.
async fn left<K>(scene: &Scene) -> Vec<String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + DeserializeOwned + Debug,
{
    let objects = scene.api::<K>().list(&ListParams::default()).await.unwrap();
    let names = objects.into_iter().map(|object| object.name_any());
    names.filter(|name| !OTHERS.contains(&name.as_str())).collect()
}
