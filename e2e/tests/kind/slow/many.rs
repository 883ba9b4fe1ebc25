use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use sheaf_operator::resource::LogAggregator;

use crate::scene::{Scene, named, play};
use crate::{machine, operator, release};

const COUNT: usize = 200;
/// How long the operator is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// How long it writes nothing before that counts as rest: longer than it takes to look again.
const REST: Duration = Duration::from_secs(20);
/// Their pods can run on no machine: it is about the operator, whose figures are printed.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn two_hundred_aggregators_are_looked_after_and_cost_nothing_when_nothing_happens() {
    play("many", async |scene| {
        let begun = Instant::now();
        for n in 0..COUNT {
            scene.apply(&nowhere(n)).await.unwrap();
        }
        told(scene).await;
        eprintln!("many: all are told of {:.1?} after the first was applied", begun.elapsed());
        operator::lose(scene).await;
        let restarted = Instant::now();
        let leader = scene
            .eventually("operator that looks after all", async || {
                let (pod, figures) = leader(scene).await?;
                let rounds = figures.get("sheaf_operator_reconciles_total{outcome=\"done\"}")?;
                (*rounds >= COUNT as f64).then_some(pod)
            })
            .await;
        eprintln!("many: looked after {:.1?} after the operators were killed", restarted.elapsed());
        report(&leader, &figures(scene, &leader).await).await;
        let before = at_rest(scene, &leader).await;
        eprintln!("many: at rest {:.1?} after the operators were killed", restarted.elapsed());
        tokio::time::sleep(IDLE).await;
        let after = figures(scene, &leader).await;
        report(&leader, &after).await;
        assert_eq!(writes(&after), before, "nothing has happened");
        let all = scene.api::<LogAggregator>();
        all.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    });
}

/// An aggregator whose pod no machine suits.
fn nowhere(n: usize) -> Value {
    let count = json!({"attribute": "service.name"});
    named(
        &format!("many-{n}"),
        json!({
            "replicas": 1, "copies": 1, "voters": 1,
            "storage": {"size": "1Gi", "retention": {"whenDeleted": "Delete"}},
            "podTemplate": {"spec": {"nodeSelector": {"example.com/machine": "none"}}},
            "aggregations": [{"name": "a", "type": "DistinctLogs", "distinctLogs": count}],
        }),
    )
}

/// Waits until all have been told how they are, and have their pods.
async fn told(scene: &Scene) {
    scene
        .eventually("status of each", async || {
            let all = scene.api::<LogAggregator>().list(&ListParams::default()).await.unwrap();
            let told =
                all.iter().filter(|it| it.status.as_ref().is_some_and(|it| it.replicas == 1));
            (told.count() == COUNT).then_some(())
        })
        .await;
}

/// The operator that acts, and its figures.
async fn leader(scene: &Scene) -> Option<(Pod, BTreeMap<String, f64>)> {
    for pod in operator::pods(scene).await {
        let figures = figures(scene, &pod).await;
        if figures.get("sheaf_operator_leader") == Some(&1.0) {
            return Some((pod, figures));
        }
    }
    None
}

/// What an operator has on its `/metrics`; nothing while it does not answer.
async fn figures(scene: &Scene, pod: &Pod) -> BTreeMap<String, f64> {
    let (namespace, name) = (release::NAMESPACE, pod.name_any());
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/metrics");
    let asked = Request::get(path).body(Vec::new()).unwrap();
    let text = scene.client.request_text(asked).await.unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// Waits until the operator writes nothing; how much it has written by then.
async fn at_rest(scene: &Scene, leader: &Pod) -> f64 {
    let mut last = f64::NAN;
    scene
        .eventually("operator at rest", async || {
            let now = writes(&figures(scene, leader).await);
            let is_same = std::mem::replace(&mut last, now) == now;
            tokio::time::sleep(REST).await;
            is_same.then_some(now)
        })
        .await
}

/// How often an operator has changed something but for the lease, which it replaces all the time.
/// Kubernetes asks again and again which custom metrics there are, and with each question the
/// operator asks who may know.
fn writes(figures: &BTreeMap<String, f64>) -> f64 {
    let is_write = |name: &str| {
        name.starts_with("sheaf_operator_api_requests_total{")
            && ["POST", "PATCH", "DELETE"].iter().any(|method| name.contains(method))
            && !name.contains("authorization.k8s.io")
    };
    figures.iter().filter(|(name, _)| is_write(name)).map(|(_, count)| count).sum()
}

async fn report(pod: &Pod, figures: &BTreeMap<String, f64>) {
    let kib = machine::memory(pod, operator::PROGRAM).await;
    let told = figures.iter().filter(|(name, _)| {
        name.contains("_total") || name.ends_with("_seconds_sum") || name.ends_with("_aggregators")
    });
    eprintln!("many: {} MiB, {:?}", kib / 1024, told.collect::<Vec<_>>());
}
