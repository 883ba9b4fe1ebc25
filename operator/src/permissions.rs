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

/// To serve `custom.metrics.k8s.io`: for its own two objects, whom to believe, who may ask, and
/// the pods.
const CUSTOM_METRICS: [Rule; 5] = [
    rule("apiregistration.k8s.io", "apiservices", &["get", "patch"]),
    rule("", "secrets", &["get", "update"]),
    rule("", "configmaps", &["get"]),
    rule("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    rule("", "pods", &["list"]),
];

/// Whether a request is permitted to who looks after aggregators.
pub(crate) fn permits(asked: &Asked) -> bool {
    NAMESPACED.iter().chain(&CLUSTER_WIDE).chain(&OWN).any(|rule| rule.permits(asked))
}

/// Whether a request is permitted to who serves metrics.
pub(crate) fn permits_custom_metrics(asked: &Asked) -> bool {
    CUSTOM_METRICS.iter().any(|rule| rule.permits(asked))
}

impl Rule {
    fn permits(&self, asked: &Asked) -> bool {
        let needed = needed(asked);
        needed.is_some_and(|(group, resource, verb)| {
            group == self.group && resource == self.resource && self.verbs.contains(&verb)
        })
    }
}

/// What has to be permitted for a request: a group, a resource of it, and a verb.
fn needed(asked: &Asked) -> Option<(&str, String, &'static str)> {
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
    let resource = match rest {
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, subresource] => format!("{resource}/{subresource}"),
        _ => return None,
    };
    let verb = match asked.method.as_str() {
        "GET" if rest.len() == 1 => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => return None,
    };
    Some((group, resource, verb))
}
