use k8s_openapi::api::core::v1::{PodSpec, ServiceSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proptest::prelude::*;

use super::super::*;
use super::*;
use crate::example::any::{any_aggregator, any_class, any_name, any_one};
use crate::resource::LogAggregator;
use crate::validate::quantity;

/// An aggregator, twice as it may be at different times.
fn two_of_one() -> impl Strategy<Value = (LogAggregator, LogAggregator)> {
    (any_name(), any_class()).prop_flat_map(|(name, class)| {
        (any_aggregator(name.clone(), class), any_aggregator(name, class))
    })
}

fn built(aggregator: &LogAggregator) -> Objects {
    let valid = validate(aggregator, nothing()).unwrap();
    build(&valid, valid.replicas)
}

/// What the API server never lets change: of the claims all but their size, for which the
/// StatefulSet is replaced.
fn immutable(objects: &Objects) -> Value {
    let mut set = serde_json::to_value(&objects.stateful_set).unwrap();
    let claims = set["spec"]["volumeClaimTemplates"].as_array_mut().unwrap();
    claims.iter_mut().for_each(|claim| claim["spec"]["resources"] = Value::Null);
    let of_set = ["selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"];
    let cluster_ip = |service: &Service| service.spec.as_ref().unwrap().cluster_ip.clone();
    json!({
        "name": set["metadata"]["name"],
        "set": of_set.map(|field| set["spec"][field].clone()),
        "addresses": [cluster_ip(&objects.nodes), cluster_ip(&objects.service)],
        "secret": objects.control.type_,
    })
}

fn pod_spec(objects: &Objects) -> &PodSpec {
    objects.stateful_set.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

fn is_label(name: &str, most: usize) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= most
        && name.chars().all(inner)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

proptest! {
    #[test]
    fn what_was_built_is_built_again_from_what_is_found_then(aggregator in any_one()) {
        let first = built(&aggregator);
        let spec = first.stateful_set.spec.as_ref().unwrap();
        let found = Found {
            replicas: spec.replicas, founders: founders(&first.settings), ..nothing()
        };
        let valid = validate(&aggregator, found).unwrap();
        prop_assert_eq!(build(&valid, valid.replicas), first);
    }

    #[test]
    fn no_change_that_is_let_through_changes_what_is_immutable((before, after) in two_of_one()) {
        prop_assert_eq!(immutable(&built(&before)), immutable(&built(&after)));
    }

    #[test]
    fn names_are_valid_and_short_enough(aggregator in any_one()) {
        let objects = built(&aggregator);
        for service in [&objects.nodes, &objects.service] {
            prop_assert!(is_label(service.metadata.name.as_ref().unwrap(), 63));
        }
        let valid = validate(&aggregator, nothing()).unwrap();
        let name = objects.stateful_set.metadata.name.unwrap();
        // The label of a pod's revision has ten characters more than the name of its set.
        prop_assert!(is_label(&name, 63 - "-5d88cd9bcd".len()));
        let last_pod = valid.names.pod(255);
        prop_assert!(is_label(&last_pod, 63));
        prop_assert!(is_label(&valid.names.claim(255), 63));
        let longest_namespace = "n".repeat(63);
        let host = valid.names.host(&last_pod, &longest_namespace);
        prop_assert!(host.len() <= 253 && host.starts_with(&last_pod));
        for (label, value) in names::labels(&name) {
            prop_assert!(value.len() <= 63, "{label}={value}");
        }
    }

    #[test]
    fn everything_is_owned_and_found_by_its_labels(aggregator in any_one()) {
        let owner = validate(&aggregator, nothing()).unwrap().owner;
        let objects = built(&aggregator);
        let autoscaler = objects.autoscaler.as_ref().map(|it| &it.metadata);
        let all = [
            &objects.service_account.metadata, &objects.control.metadata,
            &objects.settings.metadata, &objects.nodes.metadata, &objects.service.metadata,
            &objects.network_policy.metadata, &objects.disruption_budget.metadata,
            &objects.stateful_set.metadata,
        ];
        for metadata in all.into_iter().chain(autoscaler) {
            prop_assert_eq!(metadata.owner_references.as_deref(), Some(&[owner.clone()][..]));
            prop_assert_eq!(metadata.namespace.as_deref(), Some("shop"));
            let by = metadata.labels.as_ref().unwrap().get("app.kubernetes.io/managed-by");
            prop_assert_eq!(by.map(String::as_str), Some(names::MANAGED_BY));
        }
    }

    #[test]
    fn the_pods_are_those_that_are_selected(aggregator in any_one()) {
        let objects = built(&aggregator);
        let set = objects.stateful_set.spec.as_ref().unwrap();
        let labels = set.template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        let of = |service: &Service| service.spec.as_ref().map(|it: &ServiceSpec| it.selector.clone());
        for selector in [
            set.selector.match_labels.clone().unwrap(),
            of(&objects.nodes).flatten().unwrap(),
            of(&objects.service).flatten().unwrap(),
        ] {
            prop_assert!(selector.iter().all(|(label, value)| labels.get(label) == Some(value)));
            prop_assert_eq!(selector.len(), 2);
        }
    }

    #[test]
    fn a_node_satisfies_the_restricted_pod_security_standard(aggregator in any_one()) {
        let objects = built(&aggregator);
        let spec = pod_spec(&objects);
        let pod = spec.security_context.as_ref().unwrap();
        prop_assert_eq!(pod.run_as_non_root, Some(true));
        prop_assert!(pod.run_as_user.is_some_and(|user| user != 0));
        prop_assert_eq!(&pod.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
        prop_assert_eq!((spec.host_network, spec.host_pid, spec.host_ipc), (None, None, None));
        prop_assert!(spec.volumes.iter().flatten().all(|volume| volume.host_path.is_none()));
        let node = spec.containers.iter().find(|it| it.name == names::CONTAINER).unwrap();
        let own = node.security_context.as_ref().unwrap();
        prop_assert_eq!(own.allow_privilege_escalation, Some(false));
        prop_assert_eq!(own.privileged, None);
        let dropped = own.capabilities.as_ref().unwrap().drop.as_deref();
        prop_assert_eq!(dropped, Some(&["ALL".to_owned()][..]));
        prop_assert!(node.ports.iter().flatten().all(|port| port.host_port.is_none()));
    }

    #[test]
    fn a_node_and_its_autoscaler_are_what_was_asked_for(aggregator in any_one()) {
        let objects = built(&aggregator);
        let node = pod_spec(&objects).containers.iter().find(|it| it.name == names::CONTAINER);
        let node = node.unwrap();
        prop_assert_eq!(node.image.as_deref(), aggregator.spec.image.as_deref().or(Some("sheaf:dev")));
        let resources = node.resources.as_ref().unwrap();
        for (name, request) in resources.requests.iter().flatten() {
            let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
            let amount = |quantity: &Quantity| quantity::nanos(&quantity.0).unwrap();
            prop_assert!(limit.is_none_or(|limit| amount(request) <= amount(limit)), "{}", name);
        }
        let asked = aggregator.spec.autoscaling.as_ref();
        let autoscaler = objects.autoscaler.map(|it| it.spec.unwrap());
        prop_assert_eq!(
            autoscaler.as_ref().map(|it| (it.min_replicas, it.max_replicas, &it.behavior)),
            asked.map(|it| (Some(it.min_replicas), it.max_replicas, &it.behavior))
        );
    }

    #[test]
    fn ports_are_named_once_and_as_dns_allows(aggregator in any_one()) {
        let objects = built(&aggregator);
        let node = &pod_spec(&objects).containers[0];
        let mut names: Vec<_> = node.ports.iter().flatten().flat_map(|port| &port.name).collect();
        prop_assert!(names.iter().all(|name| is_label(name, 15)));
        let count = names.len();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), count);
    }

    #[test]
    fn the_settings_are_read_by_a_parser_of_yaml(aggregator in any_one()) {
        let objects = built(&aggregator);
        let text = objects.settings.data.unwrap().remove(names::SETTINGS_FILE).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        let asked = serde_json::to_value(&aggregator.spec.aggregations).unwrap();
        prop_assert_eq!(&read["aggregations"], &asked);
    }
}
