use serde_json::json;

use super::*;

fn of(path: &str) -> Result<Question, Refusal> {
    Question::of(&Method::GET, &path.parse().unwrap())
}

const PODS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods";

fn values(pods: Pods) -> Result<Question, Refusal> {
    let (namespace, metric) = ("shop".to_owned(), "used".to_owned());
    Ok(Question::Values(Values { namespace, pods, metric }))
}

fn selected(selector: &str) -> Result<Question, Refusal> {
    values(Pods::Selected(selector.to_owned()))
}

#[test]
fn a_pod_is_named_or_all_are_selected() {
    assert_eq!(of(&format!("{PODS}/logs-0/used")), values(Pods::Named("logs-0".to_owned())));
    assert_eq!(of(&format!("{PODS}/*/used")), selected(""));
    // As Go writes it.
    assert_eq!(of(&format!("{PODS}/%2A/used")), selected(""));
    let query =
        "labelSelector=app.kubernetes.io%2Finstance%3Dlogs%2Ca+in+%28b%29&metricLabelSelector=";
    let selector = "app.kubernetes.io/instance=logs,a in (b)";
    assert_eq!(of(&format!("{PODS}/*/used?{query}")), selected(selector));
}

#[test]
fn a_metric_without_labels_is_not_selected_by_some() {
    let refused = of(&format!("{PODS}/*/used?metricLabelSelector=a%3Db"));
    assert!(matches!(refused, Err(Refusal::Malformed(_))), "{refused:?}");
}

#[test]
fn what_is_no_name_becomes_no_part_of_a_path() {
    for path in [
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop%2Fpods%2Fa/pods/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/../pods/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/%2E%2E/pods/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces//pods/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/*/pods/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/a%2Cspec.nodeName%3Db/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/a%3Fb/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/%FF/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/-a/used",
    ] {
        assert!(matches!(of(path), Err(Refusal::Unknown(_))), "{path}");
    }
    let long = "a".repeat(NAME_BYTES_MAX + 1);
    assert!(of(&format!("{PODS}/{long}/used")).is_err());
    assert!(of(&format!("{PODS}/{}/used", &long[1..])).is_ok());
}

#[test]
fn there_is_nothing_else() {
    for path in [
        "/",
        "/api/v1/pods",
        "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/pods/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/services/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/metrics/used",
        "/apis/custom.metrics.k8s.io/v1beta2/nodes/*/used",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*",
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/used/more",
        "/apis/external.metrics.k8s.io/v1beta1",
    ] {
        assert!(matches!(of(path), Err(Refusal::Unknown(_))), "{path}");
    }
}

#[test]
fn nothing_can_be_changed() {
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let refused = Question::of(&method, &format!("{PODS}/*/used").parse().unwrap());
        assert_eq!(refused, Err(Refusal::Method));
    }
}

fn user() -> User {
    User {
        name: "scaler".to_owned(),
        uid: Some("7".to_owned()),
        groups: vec!["system:authenticated".to_owned()],
        extra: [("scopes".to_owned(), vec!["a".to_owned()])].into(),
    }
}

#[test]
fn whoever_asks_for_values_has_to_be_allowed_to_get_them() {
    for (name, path) in [("*", format!("{PODS}/*/used")), ("logs-0", format!("{PODS}/logs-0/used"))]
    {
        let review = of(&path).unwrap().review(user(), &path);
        let expected = json!({
            "user": "scaler", "uid": "7", "groups": ["system:authenticated"], "extra": {"scopes": ["a"]},
            "resourceAttributes": {
                "namespace": "shop", "verb": "get", "group": "custom.metrics.k8s.io",
                "version": "v1beta2", "resource": "pods", "subresource": "used", "name": name,
            },
        });
        assert_eq!(serde_json::to_value(review).unwrap(), expected);
    }
}

#[test]
fn whoever_asks_for_a_document_has_to_be_allowed_to_get_its_path() {
    let review = of("/openapi/v2").unwrap().review(user(), "/openapi/v2");
    let review = serde_json::to_value(review).unwrap();
    let expected = json!({"path": "/openapi/v2", "verb": "get"});
    assert_eq!(review["nonResourceAttributes"], expected);
    assert_eq!(review.get("resourceAttributes"), None);
}
