//! What the operator has to be permitted, and no more: the chart's roles have the same.

use crate::scripted::Asked;

/// A kind and what is done with it.
struct Rule {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
}

const fn rule(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Rule {
    Rule { group, resource, verbs }
}

const WATCHED: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// In each namespace that is looked after.
const NAMESPACED: [Rule; 15] = [
    rule("sheaf.dev", "logaggregators", &["get", "list", "watch", "patch"]),
    rule("sheaf.dev", "logaggregators/status", &["patch"]),
    // Owner references block the deletion of their owner.
    rule("sheaf.dev", "logaggregators/finalizers", &["update"]),
    rule("apps", "statefulsets", WATCHED),
    rule("", "pods", &["get", "list", "watch", "patch", "delete"]),
    rule("", "persistentvolumeclaims", &["get", "list", "watch", "patch", "delete"]),
    rule("", "configmaps", WATCHED),
    rule("", "services", WATCHED),
    rule("", "serviceaccounts", WATCHED),
    rule("", "secrets", &["get", "list", "watch", "create", "patch"]),
    rule("policy", "poddisruptionbudgets", WATCHED),
    rule("networking.k8s.io", "networkpolicies", WATCHED),
    rule("autoscaling", "horizontalpodautoscalers", WATCHED),
    rule("monitoring.coreos.com", "servicemonitors", WATCHED),
    rule("events.k8s.io", "events", &["create", "patch"]),
];

/// Without these it is not noticed that a machine is gone, and nodes have no zones.
const CLUSTER_WIDE: [Rule; 2] =
    [rule("", "nodes", &["get", "list", "watch"]), rule("", "persistentvolumes", &["get"])];

/// In the operator's own namespace.
const OWN: [Rule; 1] = [rule("coordination.k8s.io", "leases", &["get", "create", "update"])];

/// Whether a request is permitted.
pub(crate) fn permits(asked: &Asked) -> bool {
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return false,
    };
    let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
    let resource = match rest {
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, subresource] => format!("{resource}/{subresource}"),
        _ => return false,
    };
    let verb = match asked.method.as_str() {
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => return false,
    };
    let rules = NAMESPACED.iter().chain(&CLUSTER_WIDE).chain(&OWN);
    let mut fitting = rules.filter(|rule| rule.group == group && rule.resource == resource);
    fitting.any(|rule| rule.verbs.contains(&verb))
}
