use super::*;

fn at(path: &str) -> Value {
    Document::at(path).unwrap().body().unwrap()
}

#[test]
fn the_group_has_one_version_and_that_one_metric() {
    let version = json!({"groupVersion": "custom.metrics.k8s.io/v1beta2", "version": "v1beta2"});
    let group = json!({
        "apiVersion": "v1", "kind": "APIGroup", "name": "custom.metrics.k8s.io",
        "preferredVersion": version, "versions": [version],
    });
    assert_eq!(at("/apis/custom.metrics.k8s.io"), group);
    let groups = json!({"apiVersion": "v1", "kind": "APIGroupList", "groups": [group]});
    assert_eq!(at("/apis"), groups);
    let expected = json!({
        "apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "custom.metrics.k8s.io/v1beta2",
        "resources": [{
            "name": "pods/sheaf_queue_used_percent", "singularName": "", "namespaced": true,
            "kind": "MetricValueList", "verbs": ["get"],
        }],
    });
    assert_eq!(at("/apis/custom.metrics.k8s.io/v1beta2"), expected);
}

#[test]
fn both_versions_of_open_api_describe_the_same_path_and_refer_to_what_they_have() {
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/pods/{name}/sheaf_queue_used_percent";
    let two = at("/openapi/v2");
    assert_eq!(two["swagger"], "2.0");
    let get = &two["paths"][path]["get"];
    let refers = get["responses"]["200"]["schema"]["$ref"].as_str().unwrap();
    let defined = two.pointer(refers.trim_start_matches('#')).unwrap();
    assert_eq!(get["parameters"].as_array().unwrap().len(), 3);

    let index = at("/openapi/v3");
    let of_group = &index["paths"]["apis/custom.metrics.k8s.io/v1beta2"]["serverRelativeURL"];
    let three = at(of_group.as_str().unwrap());
    assert_eq!(three["openapi"], "3.0.0");
    let answer = &three["paths"][path]["get"]["responses"]["200"];
    let refers = answer["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
    assert_eq!(three.pointer(refers.trim_start_matches('#')), Some(defined));
}

#[test]
fn there_are_no_other_documents() {
    for path in ["/", "/apis/", "/apis/apps", "/openapi", "/openapi/v3/apis/apps/v1", "/version"] {
        assert_eq!(Document::at(path), None, "{path}");
    }
}
