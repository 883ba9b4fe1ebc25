//! The objects that a valid aggregator asks for: always the same ones for the same aggregator.

mod access; // the account of the pods, and the token for the control port
mod autoscaler; // how the number of nodes follows the load
mod disruption; // how many pods may be taken away at a time
mod monitoring; // what Prometheus asks, and when it calls for help
mod network; // how the nodes are reached, and by whom
mod pod; // one node
mod record; // what stays with retained volumes
mod settings; // what the nodes are told
mod stateful_set; // the nodes and their volumes

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DynamicObject, ObjectMeta};

use crate::names;
use crate::validate::ValidAggregator;
pub use monitoring::{prometheus_rule_resource, service_monitor_resource};
pub use record::{InvalidRecord, VolumesRecord};
pub use settings::founders;

/// Everything that belongs to one aggregator, in the order in which it is applied: what the pods
/// need comes before them.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// The pods' identity, which may do nothing.
    pub service_account: ServiceAccount,
    /// The token for the nodes' control port.
    pub control: Secret,
    /// The nodes' settings file.
    pub settings: ConfigMap,
    /// Gives each pod a name, whether it is ready or not.
    pub nodes: Service,
    /// Where senders send to.
    pub service: Service,
    /// Who may reach the nodes where.
    pub network_policy: NetworkPolicy,
    /// Keeps machines from being emptied of more than one node at a time.
    pub disruption_budget: PodDisruptionBudget,
    /// The nodes.
    pub stateful_set: StatefulSet,
    /// Sets the number of nodes, if autoscaling is asked for; an earlier one is to go otherwise.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// What Prometheus asks, if the cluster knows the kind.
    pub service_monitor: Option<DynamicObject>,
    /// When Prometheus calls for help, if the cluster knows the kind.
    pub prometheus_rule: Option<DynamicObject>,
}

/// Builds all objects of an aggregator, for as many pods as there are to be now: on the way to
/// [`ValidAggregator::replicas`] that may be another number.
pub fn build(aggregator: &ValidAggregator, replicas: i32) -> Objects {
    let founders = aggregator.founders.unwrap_or(replicas).min(replicas).max(1);
    let settings = settings::Settings::of(aggregator, founders);
    Objects {
        service_account: access::service_account(aggregator),
        control: access::control(aggregator),
        nodes: network::nodes(aggregator),
        service: network::service(aggregator),
        network_policy: network::policy(aggregator),
        disruption_budget: disruption::budget(aggregator),
        stateful_set: stateful_set::stateful_set(aggregator, replicas, &settings),
        settings: settings.config_map(aggregator),
        autoscaler: autoscaler::autoscaler(aggregator),
        service_monitor: monitoring::service_monitor(aggregator),
        prometheus_rule: monitoring::prometheus_rule(aggregator),
    }
}

/// The metadata of an object of that name: where it is, whose it is, and how it is found.
fn metadata(aggregator: &ValidAggregator, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(aggregator.namespace.clone()),
        labels: Some(names::labels(&aggregator.names.aggregator)),
        owner_references: Some(vec![aggregator.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
