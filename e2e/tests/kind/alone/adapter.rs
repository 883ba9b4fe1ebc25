use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::release;
use crate::scene::{and_always, play};

const NAME: &str = "v1beta1.custom.metrics.k8s.io";

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_adapter_of_somebody_else_is_not_replaced() {
    play("adapter", async |scene| {
        let enabled = ["customMetrics.enabled=true"];
        release::would_set(&enabled).await.unwrap();
        let api_services = Api::<APIService>::all(scene.client.clone());
        let service = json!({"namespace": "monitoring", "name": "prometheus-adapter"});
        let theirs = json!({
            "metadata": {"name": NAME},
            "spec": {
                "group": "custom.metrics.k8s.io", "version": "v1beta1", "service": service,
                "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true,
            },
        });
        let theirs = serde_json::from_value(theirs).unwrap();
        api_services.create(&PostParams::default(), &theirs).await.unwrap();
        // Nobody answers for it, and as long as it is there no namespace can be deleted.
        let remove = async || {
            api_services.delete(NAME, &DeleteParams::default()).await.unwrap();
        };
        let said = and_always(release::would_set(&enabled), remove).await.unwrap_err();
        let words = "v1beta1.custom.metrics.k8s.io belongs to somebody else \
                     (service monitoring/prometheus-adapter)";
        assert!(said.contains(words), "{said:?} has no {words:?}");
    });
}
