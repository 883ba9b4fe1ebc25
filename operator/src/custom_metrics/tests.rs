//! The API as a cluster sees it: over TLS, with an API server that is scripted, and nodes on
//! loopback.

pub(super) mod authority; // who signs certificates of clients
mod cluster; // an API server, operators and nodes

use http::StatusCode;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::API_SERVICE;
use crate::permissions;
use authority::Authority;
use cluster::{API_SERVICE_PATH, Cluster, SECRET_PATH};

const ALL: &str =
    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/sheaf_queue_used_percent";
const DISCOVERY: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const REVIEW: &str = "POST apis/authorization.k8s.io/v1/subjectaccessreviews";

fn now() -> Timestamp {
    Timestamp::now()
}

/// What a refusal says: its status, and the code and the reason in it.
fn refusal(answer: &(StatusCode, Value)) -> (StatusCode, &Value, &Value) {
    assert_eq!((&answer.1["kind"], &answer.1["apiVersion"]), (&json!("Status"), &json!("v1")));
    (answer.0, &answer.1["code"], &answer.1["reason"])
}

#[tokio::test]
async fn whoever_scales_is_told_how_full_each_pod_is() {
    let cluster = Cluster::running().await;
    cluster.has_pods(&[("logs-0", 12.5), ("logs-1", 80.0)]).await;
    let selector = "labelSelector=app.kubernetes.io%2Finstance%3Dlogs";
    let (status, list) = cluster.ask(&format!("{ALL}?{selector}")).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{list}");
    assert_eq!(list["kind"], "MetricValueList");
    assert_eq!(list["apiVersion"], "custom.metrics.k8s.io/v1beta2");
    let items = list["items"].as_array().unwrap();
    let told: Vec<_> =
        items.iter().map(|it| (&it["describedObject"]["name"], &it["value"])).collect();
    let expected = [(&json!("logs-0"), &json!("12500m")), (&json!("logs-1"), &json!("80"))];
    assert_eq!(told, expected);

    let asked = cluster.server.asked();
    let [review, pods] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(review.body["spec"]["user"], "scaler");
    assert_eq!(review.body["spec"]["groups"], json!(["scalers", "system:authenticated"]));
    assert_eq!(
        review.body["spec"]["resourceAttributes"]["subresource"],
        "sheaf_queue_used_percent"
    );
    let selected =
        "labelSelector=app.kubernetes.io%2Fname%3Dsheaf-node%2Capp.kubernetes.io%2Finstance%3Dlogs";
    assert_eq!(
        (pods.short().as_str(), pods.query.contains(selected)),
        ("GET pods", true),
        "{pods:?}"
    );
}

#[tokio::test]
async fn one_pod_is_told_of_alone_and_one_that_there_is_not_is_unknown() {
    let cluster = Cluster::running().await;
    cluster.has_pods(&[("logs-0", 1.0)]).await;
    let (status, list) = cluster.ask(&ALL.replace('*', "logs-0")).await.unwrap();
    assert_eq!((status, list["items"].as_array().unwrap().len()), (StatusCode::OK, 1));
    let asked = cluster.server.asked();
    assert!(asked.iter().any(|it| it.query.contains("metadata.name%3Dlogs-0")), "{asked:?}");
    cluster.has_pods(&[]).await;
    let unknown = cluster.ask(&ALL.replace('*', "logs-7")).await.unwrap();
    let expected = (StatusCode::NOT_FOUND, &json!(404), &json!("NotFound"));
    assert_eq!(refusal(&unknown), expected);
    let (status, list) = cluster.ask(ALL).await.unwrap();
    assert_eq!((status, &list["items"]), (StatusCode::OK, &json!([])));
}

#[tokio::test]
async fn a_pod_whose_node_does_not_answer_or_talks_nonsense_is_left_out() {
    let cluster = Cluster::running().await;
    cluster.has_pods(&[("logs-0", 5.0), ("logs-1", 101.0), ("logs-2", f64::NAN)]).await;
    let (_, list) = cluster.ask(ALL).await.unwrap();
    let items = list["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|it| &it["describedObject"]["name"]).collect();
    assert_eq!(names, ["logs-0"]);
}

#[tokio::test]
async fn another_metric_is_unknown() {
    let cluster = Cluster::running().await;
    let unknown = cluster.ask(&ALL.replace("sheaf_queue", "other_queue")).await.unwrap();
    assert_eq!(refusal(&unknown).0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_can_be_asked_for_is_told_over_http_1_and_2() {
    let cluster = Cluster::running().await;
    for asker in [cluster.proxy(), cluster.proxy().over_http2()] {
        let (status, list) = asker.ask(DISCOVERY).await.unwrap();
        assert_eq!((status, &list["kind"]), (StatusCode::OK, &json!("APIResourceList")));
    }
    let reviewed = cluster.server.asked();
    let attributes = &reviewed[0].body["spec"]["nonResourceAttributes"];
    assert_eq!(*attributes, json!({"path": DISCOVERY, "verb": "get"}));
}

#[tokio::test]
async fn whoever_may_not_is_told_nothing() {
    let cluster = Cluster::running().await;
    cluster.has_pods(&[("logs-0", 12.5)]).await;
    for status in [json!({"allowed": false, "reason": "no role"}), json!(null)] {
        cluster.server.say(REVIEW, json!({"spec": {}, "status": status}));
        cluster.server.asked();
        let refused = cluster.ask(ALL).await.unwrap();
        let expected = (StatusCode::FORBIDDEN, &json!(403), &json!("Forbidden"));
        assert_eq!(refusal(&refused), expected);
        assert_eq!(cluster.server.asked().len(), 1, "nobody is asked for pods");
        assert_eq!(cluster.ask(DISCOVERY).await.unwrap().0, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn nobody_is_told_anything_while_it_is_not_known_whether_they_may() {
    let cluster = Cluster::running().await;
    cluster.server.refuse(REVIEW, StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    let refused = cluster.ask(ALL).await.unwrap();
    let expected = (StatusCode::SERVICE_UNAVAILABLE, &json!(503), &json!("ServiceUnavailable"));
    assert_eq!(refusal(&refused), expected);
}

#[tokio::test]
async fn a_selector_that_is_none_is_malformed() {
    let cluster = Cluster::running().await;
    cluster.server.refuse("GET pods", StatusCode::BAD_REQUEST, "BadRequest");
    let refused = cluster.ask(&format!("{ALL}?labelSelector=%3D")).await.unwrap();
    let expected = (StatusCode::BAD_REQUEST, &json!(400), &json!("BadRequest"));
    assert_eq!(refusal(&refused), expected);
    cluster.server.relent();
    cluster.server.refuse("GET pods", StatusCode::FORBIDDEN, "Forbidden");
    let refused = cluster.ask(ALL).await.unwrap();
    assert_eq!(refusal(&refused).0, StatusCode::SERVICE_UNAVAILABLE, "not the asker's fault");
}

#[tokio::test]
async fn headers_without_the_proxys_certificate_are_worth_nothing() {
    let cluster = Cluster::running().await;
    let spoofing = cluster.nobody();
    for path in [ALL, DISCOVERY, "/apis", "/openapi/v2", "/nothing"] {
        let refused = spoofing.ask(path).await.unwrap();
        let expected = (StatusCode::UNAUTHORIZED, &json!(401), &json!("Unauthorized"));
        assert_eq!(refusal(&refused), expected, "{path}");
    }
    assert_eq!(cluster.server.asked(), [], "nobody is asked who it might be");
}

#[tokio::test]
async fn a_certificate_of_another_name_is_not_the_proxys() {
    let cluster = Cluster::running().await;
    let other = cluster.with(cluster.authority.sign("kubelet"));
    assert_eq!(refusal(&other.ask(ALL).await.unwrap()).0, StatusCode::UNAUTHORIZED);
    assert_eq!(cluster.server.asked(), []);
}

#[tokio::test]
async fn certificates_of_others_or_of_other_times_get_no_connection() {
    let cluster = Cluster::running().await;
    let stranger = Authority::new("front-proxy-ca").sign("front-proxy-client");
    let expired = cluster.authority.sign_for("front-proxy-client", -2..-1);
    let early = cluster.authority.sign_for("front-proxy-client", 1..2);
    for shown in [stranger, expired, early] {
        let refused = cluster.with(shown).ask("/livez").await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_eq!(cluster.server.asked(), []);
}

#[tokio::test]
async fn probes_need_no_certificate() {
    let cluster = Cluster::running().await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(cluster.nobody().ask(path).await.unwrap().0, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn whoever_is_named_without_groups_is_known_all_the_same() {
    let cluster = Cluster::running().await;
    cluster.proxy().speaking_for("system:aggregator").ask("/openapi/v2").await.unwrap();
    let reviewed = cluster.server.asked();
    assert_eq!(reviewed[0].body["spec"]["groups"], json!(["system:authenticated"]));
}

#[tokio::test]
async fn the_first_certificate_is_trusted_before_it_is_written_down() {
    let cluster = Cluster::installed().await;
    cluster.server.refuse("PUT secrets/certificate", StatusCode::CONFLICT, "Conflict");
    cluster.keeper().round(now()).await.unwrap_err();
    assert_ne!(cluster.bundle(), None);
    assert!(cluster.look(now()).await.is_err(), "there is nothing to serve with");
    cluster.server.relent();
    cluster.keeper().round(now()).await.unwrap();
    cluster.look(now()).await.unwrap();
    let cluster = cluster.serve().await;
    assert_eq!(cluster.ask(DISCOVERY).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn nothing_is_written_while_nothing_is_due() {
    let cluster = Cluster::running().await;
    cluster.keeper().round(now()).await.unwrap();
    assert!(cluster.server.asked().iter().all(|asked| !asked.is_change()));
}

#[tokio::test]
async fn through_a_whole_rotation_whoever_trusts_what_is_told_is_served() {
    // The first one was made long ago, and is still valid.
    let renewal = now();
    let hours = SignedDuration::from_hours;
    let cluster = Cluster::running_since(renewal - hours(60 * 24)).await;
    let first = cluster.bundle().unwrap();
    for at in [renewal, renewal + hours(1), renewal + hours(2)] {
        let known = cluster.bundle();
        cluster.keeper().round(at).await.unwrap();
        for trusted in [known, cluster.bundle()] {
            // Before the operator has read what is new, and after.
            assert_eq!(cluster.trusting(trusted).ask("/livez").await.unwrap().0, StatusCode::OK);
        }
        cluster.look(at).await.unwrap();
        let asked = cluster.ask(DISCOVERY).await.unwrap();
        assert_eq!(asked.0, StatusCode::OK, "{at}");
    }
    let last = cluster.bundle().unwrap();
    assert_ne!(first, last);
    assert_eq!(last.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(cluster.trusting(Some(first)).ask("/livez").await.is_err(), "that one is gone");
}

#[tokio::test]
async fn an_operator_that_serves_something_else_closes_its_connections() {
    let cluster = Cluster::running().await;
    let mut connection = cluster.proxy().connect().await.unwrap();
    assert_eq!(connection.ask("/livez").await.unwrap().0, StatusCode::OK);
    assert_eq!(connection.ask("/livez").await.unwrap().0, StatusCode::OK, "it stays open");
    cluster.server.put(SECRET_PATH, json!({"metadata": {"name": "certificate"}}));
    cluster.keeper().round(now()).await.unwrap();
    cluster.look(now()).await.unwrap();
    connection.closed().await;
    assert_eq!(cluster.ask(DISCOVERY).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn authorities_that_somebody_has_removed_are_put_back() {
    let cluster = Cluster::running().await;
    let known = cluster.bundle();
    cluster.server.put(API_SERVICE_PATH, cluster::api_service("sheaf-system", "operator"));
    cluster.keeper().round(now()).await.unwrap();
    assert_eq!(cluster.bundle(), known);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_written_anew() {
    let cluster = Cluster::running().await;
    let known = cluster.bundle();
    let secret = json!({"metadata": {"name": "certificate"}, "data": {"tls.crt": "bm9uZQ=="}});
    cluster.server.put(SECRET_PATH, secret);
    assert!(cluster.look(now()).await.is_err());
    assert_eq!(cluster.ask(DISCOVERY).await.unwrap().0, StatusCode::OK, "what was read is served");
    cluster.keeper().round(now()).await.unwrap();
    assert_ne!(cluster.bundle(), known);
    cluster.look(now()).await.unwrap();
    assert_eq!(cluster.ask(DISCOVERY).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn what_is_somebody_elses_is_neither_changed_nor_served() {
    let others = [("sheaf-system", "adapter"), ("monitoring", "operator")];
    for (namespace, service) in others {
        let cluster = Cluster::installed().await;
        cluster.server.put(API_SERVICE_PATH, cluster::api_service(namespace, service));
        let refused = cluster.keeper().round(now()).await.unwrap_err();
        assert!(refused.is_for_people() && refused.to_string().contains(API_SERVICE), "{refused}");
        assert!(cluster.look(now()).await.is_err());
        assert!(cluster.server.asked().iter().all(|asked| !asked.is_change()));
        assert_eq!(cluster.bundle(), None);
    }
}

#[tokio::test]
async fn an_api_that_becomes_somebody_elses_is_given_up() {
    let cluster = Cluster::running().await;
    let mut connection = cluster.proxy().connect().await.unwrap();
    assert_eq!(connection.ask("/livez").await.unwrap().0, StatusCode::OK);
    let proxy = cluster.proxy();
    cluster.server.put(API_SERVICE_PATH, cluster::api_service("monitoring", "adapter"));
    assert!(cluster.look(now()).await.is_err());
    connection.closed().await;
    assert!(proxy.ask("/livez").await.is_err());
}

#[tokio::test]
async fn while_the_api_server_is_away_what_was_read_is_served() {
    let cluster = Cluster::running().await;
    cluster.server.refuse("GET secrets/certificate", StatusCode::SERVICE_UNAVAILABLE, "no");
    assert!(cluster.look(now()).await.is_err());
    assert_eq!(cluster.ask(DISCOVERY).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn serving_takes_what_is_permitted_and_all_of_it() {
    let cluster = Cluster::installed().await;
    cluster.keeper().round(now()).await.unwrap();
    cluster.look(now()).await.unwrap();
    let cluster = cluster.serve().await;
    cluster.ask(ALL).await.unwrap();
    let mut needed = permissions::needed(&cluster.server.asked());
    // Who looks after aggregators may list their pods anyway.
    assert!(needed.remove(&permissions::right("", "pods", "list")));
    assert_eq!(needed, permissions::custom_metrics());
}
