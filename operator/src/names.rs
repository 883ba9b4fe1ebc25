//! What is called how: names of objects, labels, annotations and paths. None of it may change,
//! because what is running is found by it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The container that the node runs in.
pub const CONTAINER: &str = "node";
/// The volume of the journal and all other state, and the beginning of its claims' names.
pub const DATA_VOLUME: &str = "data";
/// The volume of the settings file.
pub const SETTINGS_VOLUME: &str = "settings";
/// The volume of the token.
pub const CONTROL_VOLUME: &str = "control";
/// The volume of what the pod is told of itself.
pub const POD_VOLUME: &str = "pod";

/// The pod's annotation with the zone of its machine, which the operator writes.
pub const ZONE_ANNOTATION: &str = "sheaf.dev/zone";
/// The pod's annotation with a hash of all settings that only a restart brings about.
pub const RESTART_ANNOTATION: &str = "sheaf.dev/restart-hash";
/// The claim's annotation with the id of the member whose data is on the volume.
pub const MEMBER_ANNOTATION: &str = "sheaf.dev/member";
/// The aggregator's annotation with which a person gives up members that cannot come back, and
/// what only they had: their ids, with commas in between. Ids are never given to others.
pub const GIVE_UP_ANNOTATION: &str = "sheaf.dev/give-up";
/// The label with the aggregator's name.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Selects the pods of all aggregators, and their claims, which get no other labels.
pub const PODS_SELECTOR: &str = "app.kubernetes.io/name=sheaf-node";
/// Selects everything else that is built for aggregators.
pub const OWNED_SELECTOR: &str =
    "app.kubernetes.io/name=sheaf-node,app.kubernetes.io/managed-by=sheaf-operator";
/// The label that tells the two Services of an aggregator apart.
pub const SERVICE_LABEL: &str = "sheaf.dev/service";

/// Where the volumes are mounted.
pub(crate) const DATA_PATH: &str = "/var/lib/sheaf";
pub(crate) const SETTINGS_PATH: &str = "/etc/sheaf/settings";
pub(crate) const CONTROL_PATH: &str = "/etc/sheaf/control";
pub(crate) const POD_PATH: &str = "/etc/sheaf/pod";
/// The files in them.
pub(crate) const SETTINGS_FILE: &str = "sheaf.yaml";
pub(crate) const TOKEN_FILE: &str = "token";
pub(crate) const ZONE_FILE: &str = "zone";

/// The names of an aggregator's objects. What has no name of its own here has the aggregator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// That of the aggregator.
    pub aggregator: String,
    /// The Service that gives each pod a name, whether it is ready or not.
    pub nodes: String,
    /// The Secret with the token for the control port.
    pub control: String,
    /// The record that stays with retained volumes.
    pub volumes: String,
}

impl Names {
    /// The names for the aggregator of that name.
    pub fn of(aggregator: &str) -> Names {
        Names {
            aggregator: aggregator.to_owned(),
            nodes: format!("{aggregator}-nodes"),
            control: format!("{aggregator}-control"),
            volumes: format!("{aggregator}-volumes"),
        }
    }

    /// The pod with that ordinal.
    pub fn pod(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.aggregator)
    }

    /// The claim of the pod with that ordinal.
    pub fn claim(&self, ordinal: i32) -> String {
        format!("{DATA_VOLUME}-{}", self.pod(ordinal))
    }

    /// The host name of a pod, as other pods find it.
    pub fn host(&self, pod: &str, namespace: &str) -> String {
        format!("{pod}.{}.{namespace}.svc", self.nodes)
    }
}

/// What the pods of an aggregator are selected by: immutable in a StatefulSet.
pub fn selector(aggregator: &str) -> BTreeMap<String, String> {
    labeled([("app.kubernetes.io/name", "sheaf-node"), (INSTANCE_LABEL, aggregator)])
}

/// The selector as text: `a=b,c=d`.
pub fn selector_text(aggregator: &str) -> String {
    let pairs = selector(aggregator).into_iter().map(|(label, value)| format!("{label}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// The labels of everything that belongs to an aggregator.
pub fn labels(aggregator: &str) -> BTreeMap<String, String> {
    let mut labels = selector(aggregator);
    labels.extend(labeled([
        ("app.kubernetes.io/component", "node"),
        ("app.kubernetes.io/part-of", "sheaf"),
        ("app.kubernetes.io/managed-by", MANAGED_BY),
    ]));
    labels
}

/// Who has built an object, as its label `app.kubernetes.io/managed-by` has it.
pub const MANAGED_BY: &str = "sheaf-operator";

/// What the operator's own pods are selected by; the chart gives them these labels.
pub(crate) fn operator() -> BTreeMap<String, String> {
    labeled([("app.kubernetes.io/name", "sheaf"), ("app.kubernetes.io/component", "operator")])
}

pub(crate) fn selecting(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

pub(crate) fn labeled<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(label, value)| (label.to_owned(), value.to_owned())).into()
}
