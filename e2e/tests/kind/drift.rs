use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::scene::{NAME, Scene, aggregator, play};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_somebody_deletes_comes_back() {
    play("deleted-by-hand", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        comes_back::<Service>(scene).await;
        comes_back::<ConfigMap>(scene).await;
        comes_back::<PodDisruptionBudget>(scene).await;
        scene.settled(3).await;
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_somebody_changes_is_put_back_and_what_somebody_adds_stays() {
    play("changed-by-hand", async |scene| {
        scene.start(&aggregator(json!({}))).await;
        let before: ConfigMap = scene.api().get(NAME).await.unwrap();
        let added =
            json!({"labels": {"team": "shop"}, "annotations": {"example.com/note": "theirs"}});
        let data = json!({"sheaf.yaml": "aggregations: []", "theirs": "stays"});
        change::<ConfigMap>(scene, json!({"metadata": added, "data": data})).await;
        let after: ConfigMap = scene
            .eventually("settings as they were", async || {
                let now: ConfigMap = scene.api().get(NAME).await.unwrap();
                let settings = |it: &ConfigMap| it.data.as_ref()?.get("sheaf.yaml").cloned();
                (settings(&now) == settings(&before)).then_some(now)
            })
            .await;
        assert_eq!(after.data.as_ref().unwrap()["theirs"], "stays");
        assert_eq!(after.labels()["team"], "shop");
        assert_eq!(after.annotations()["example.com/note"], "theirs");

        change::<PodDisruptionBudget>(scene, json!({"spec": {"maxUnavailable": 3}})).await;
        let unavailable = |it: PodDisruptionBudget| json!(it.spec.unwrap().max_unavailable);
        scene
            .eventually("disruption budget as it was", async || {
                let now = scene.api().get(NAME).await.unwrap();
                (unavailable(now) == json!(1)).then_some(())
            })
            .await;

        let selector = json!({"spec": {"selector": {"app.kubernetes.io/instance": "other"}}});
        change::<Service>(scene, selector).await;
        scene
            .eventually("Service as it was", async || {
                let now: Service = scene.api().get(NAME).await.unwrap();
                (now.spec?.selector?["app.kubernetes.io/instance"] == NAME).then_some(())
            })
            .await;
        scene.settled(3).await;
    });
}

/// Deletes the object of the aggregator's name, and waits for another one in its place.
async fn comes_back<K>(scene: &Scene)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + DeserializeOwned + Debug,
{
    let api = scene.api::<K>();
    let before = api.get(NAME).await.unwrap();
    api.delete(NAME, &DeleteParams::default()).await.unwrap();
    let what = format!("other {}", K::kind(&()));
    scene
        .eventually(&what, async || {
            let found = api.get_opt(NAME).await.unwrap()?;
            (found.uid() != before.uid()).then_some(())
        })
        .await;
}

async fn change<K>(scene: &Scene, change: Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + DeserializeOwned + Debug,
{
    let parameters = PatchParams::default();
    scene.api::<K>().patch(NAME, &parameters, &Patch::Merge(change)).await.unwrap();
}
