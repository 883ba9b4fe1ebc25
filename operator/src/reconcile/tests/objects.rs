//! What is built, and put back.

use http::StatusCode;

use super::*;

#[tokio::test]
async fn a_new_aggregator_gets_all_its_objects_and_its_number_of_replicas() {
    let mut world = World::new(json!({}));
    let asked = world.round().await;
    let expected = [
        "PATCH logaggregators/logs",
        "PATCH serviceaccounts/logs",
        "PATCH secrets/logs-control",
        "PATCH configmaps/logs",
        "PATCH services/logs-nodes",
        "PATCH services/logs",
        "PATCH networkpolicies/logs",
        "PATCH poddisruptionbudgets/logs",
        "PATCH statefulsets/logs",
        "PATCH logaggregators/logs/status",
        "POST events",
    ];
    assert_eq!(World::changes(&asked), expected);
    assert_eq!(world.aggregator()["spec"]["replicas"], 3);
    assert_eq!(world.server.get(STATEFUL_SET).unwrap()["spec"]["replicas"], 3);
    assert_eq!(world.condition("Progressing"), ("True".into(), "Forming".into()));
}

#[tokio::test]
async fn where_prometheus_is_operated_it_is_told_what_to_ask() {
    let mut world = World::monitored(json!({"replicas": 3})).await;
    world.settle().await;
    for kind in ["servicemonitors", "prometheusrules"] {
        let short = format!("PATCH {kind}/logs");
        assert_eq!(world.all_asked.iter().filter(|asked| asked.short() == short).count(), 1);
        let path = format!("/apis/monitoring.coreos.com/v1/namespaces/shop/{kind}/logs");
        world.server.remove(&path);
        assert_eq!(World::changes(&world.round().await), [short], "it comes back");
        assert_eq!(
            world.server.get(&path).unwrap()["metadata"]["ownerReferences"][0]["uid"],
            world::UID
        );
    }
}

#[tokio::test]
async fn nodes_are_reached_at_their_ports_and_no_others() {
    let mut world = World::new(json!({"replicas": 3}));
    let asked = world.round().await;
    let applied = asked.iter().find(|asked| asked.short() == "PATCH networkpolicies/logs").unwrap();
    let rules = applied.body["spec"]["ingress"].as_array().unwrap();
    let ports = |rule: &Value| {
        let ports = rule["ports"].as_array().unwrap().iter();
        ports.map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let [anybody, nodes, operator] = rules.as_slice() else { panic!("{rules:#?}") };
    assert_eq!((ports(anybody), &anybody["from"]), (vec![4317, 4318, 8080, 9464], &Value::Null));
    assert_eq!((ports(nodes), ports(operator)), (vec![9465], vec![9466]));
    assert!([nodes, operator].iter().all(|rule| rule["from"][0]["podSelector"].is_object()));
}

#[tokio::test]
async fn everything_is_applied_under_one_name_and_owned() {
    let mut world = World::new(json!({"replicas": 3}));
    let asked = world.round().await;
    for change in asked.iter().filter(|asked| asked.method == http::Method::PATCH) {
        assert!(change.query.contains("fieldManager=sheaf-operator"), "{}", change.query);
        let owners = &change.body["metadata"]["ownerReferences"];
        let is_own =
            owners[0]["uid"] == json!(world::UID) && owners[0]["controller"] == json!(true);
        assert!(is_own || change.path.contains("/logaggregators/"), "{}", change.short());
    }
}

#[tokio::test]
async fn what_others_change_of_what_was_built_is_put_back_and_what_they_add_stays() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    let path = "/api/v1/namespaces/shop/services/logs";
    let mut service = world.server.get(path).unwrap();
    let ports = service["spec"]["ports"].take();
    service["metadata"]["annotations"] = json!({"theirs": "stays"});
    world.server.put(path, service);
    let asked = world.round().await;
    assert_eq!(World::changes(&asked), ["PATCH services/logs"]);
    let service = world.server.get(path).unwrap();
    assert_eq!(service["spec"]["ports"], ports);
    assert_eq!(service["metadata"]["annotations"]["theirs"], "stays");
}

#[tokio::test]
async fn what_others_delete_comes_back() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    world.server.remove("/apis/policy/v1/namespaces/shop/poddisruptionbudgets/logs");
    assert_eq!(World::changes(&world.round().await), ["PATCH poddisruptionbudgets/logs"]);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_taken_over() {
    let mut world = World::new(json!({"replicas": 3}));
    let path = "/api/v1/namespaces/shop/services/logs";
    let theirs = json!({"metadata": {"name": "logs", "namespace": "shop", "uid": "theirs"}});
    world.server.put(path, theirs);
    let before = world.server.get(path);
    let error = world.failing_round().await;
    assert!(matches!(error, ReconcileError::NameConflict { .. }), "{error}");
    assert_eq!(world.server.get(path), before);
    assert_eq!(world.server.get(STATEFUL_SET), None, "nothing after it either");
    assert_eq!(world.condition("Degraded"), ("True".into(), "NameConflict".into()));
    world.server.remove(path);
    world.round().await;
    assert_ne!(world.condition("Degraded").1, "NameConflict");
}

#[tokio::test]
async fn an_object_that_another_controller_has_made_meanwhile_is_not_forced() {
    let mut world = World::new(json!({"replicas": 3}));
    world.server.refuse("PATCH services/logs", StatusCode::CONFLICT, "Conflict");
    let error = world.failing_round().await;
    assert!(error.is_conflict(), "{error}");
    let asked = world.asked.iter().find(|asked| asked.short() == "PATCH services/logs").unwrap();
    assert!(!asked.query.contains("force=true"), "{}", asked.query);
}

#[tokio::test]
async fn files_that_are_to_be_rebuilt_change_the_settings_and_no_pod() {
    let mut world = World::settled(json!({"replicas": 3})).await;
    let files = |seconds: u32| json!({"name": "files", "type": "LogFiles", "logFiles": {"checkpointSeconds": seconds}});
    for seconds in [10, 60] {
        world.change_spec(json!({"replicas": 3, "aggregations": [files(seconds)]}));
        let asked = World::changes(&world.round().await);
        assert_eq!(asked, ["PATCH configmaps/logs"]);
        let settings = world.server.get("/api/v1/namespaces/shop/configmaps/logs").unwrap();
        let text = settings["data"]["sheaf.yaml"].as_str().unwrap();
        assert!(
            text.contains(&format!(r#""logFiles":{{"checkpointSeconds":{seconds}}}"#)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_autoscaler_that_is_not_asked_for_any_more_goes() {
    let mut world = World::settled(scaled()).await;
    let path = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/logs";
    assert!(world.server.get(path).is_some());
    world.change_spec(json!({"replicas": 3}));
    world.round().await;
    assert_eq!(world.server.get(path), None);
}

#[tokio::test]
async fn the_token_is_made_up_once() {
    let mut world = World::new(json!({"replicas": 3}));
    let path = "/api/v1/namespaces/shop/secrets/logs-control";
    world.round().await;
    let token = |world: &World| world.server.get(path).unwrap()["data"]["token"].clone();
    let first = token(&world);
    assert_eq!(first.as_str().map(str::len), Some(88), "64 characters, in base64");
    world.forget();
    world.round().await;
    assert_eq!(token(&world), first);
}
