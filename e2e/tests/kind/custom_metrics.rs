use http::Request;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use serde_json::{Value, json};
use sheaf_proto::names::QUEUE_METRIC;

use crate::scene::{NAME, Scene, aggregator, play};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_autoscaler_reads_how_full_each_pod_is() {
    play("metrics", async |scene| {
        let bounds = json!({"minReplicas": 3, "maxReplicas": 4, "targetQueuePercent": 90});
        scene.start(&aggregator(json!({"autoscaling": bounds}))).await;
        assert!(is_trusted(scene).await, "the API server knows whom to trust");
        let list = scene.eventually("value of each pod", async || list(scene).await).await;
        assert_eq!(list["kind"], "MetricValueList");
        for item in list["items"].as_array().unwrap() {
            assert_eq!(item["metric"]["name"], QUEUE_METRIC);
            assert_eq!(item["describedObject"]["namespace"], scene.namespace.as_str());
            let value = item["value"].as_str().unwrap();
            assert!(value.trim_end_matches('m').parse::<u32>().is_ok(), "{value}");
        }
        scene.eventually("autoscaler that knows it", async || is_known(scene).await).await;
    });
}

/// What is told of the pods, once it is told of all.
async fn list(scene: &Scene) -> Option<Value> {
    let namespace = &scene.namespace;
    let path =
        format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/pods/*/{QUEUE_METRIC}");
    let list: Value =
        scene.client.request(Request::get(path).body(Vec::new()).unwrap()).await.ok()?;
    (list["items"].as_array()?.len() == 3).then_some(list)
}

async fn is_trusted(scene: &Scene) -> bool {
    let api_services = Api::<APIService>::all(scene.client.clone());
    let found = api_services.get("v1beta2.custom.metrics.k8s.io").await.unwrap();
    found.spec.and_then(|spec| spec.ca_bundle).is_some_and(|bundle| !bundle.0.is_empty())
}

/// Whether the autoscaler has the metric.
async fn is_known(scene: &Scene) -> Option<()> {
    let autoscaler = scene.api::<HorizontalPodAutoscaler>().get(NAME).await.unwrap();
    let metrics = autoscaler.status?.current_metrics?;
    let known = metrics.iter().filter_map(|metric| metric.pods.as_ref());
    known.into_iter().find(|pods| pods.metric.name == QUEUE_METRIC).map(drop)
}
