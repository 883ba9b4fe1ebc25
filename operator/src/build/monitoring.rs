//! What Prometheus asks the nodes, and when it calls for help: kinds of the Prometheus operator,
//! which not every cluster has.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use sheaf_proto::names::QUEUE_METRIC;

use super::network::{ADMIN, NODES};
use super::{metadata, names};
use crate::validate::ValidAggregator;

/// The kind ServiceMonitor.
pub fn service_monitor_resource() -> ApiResource {
    resource("ServiceMonitor")
}

/// The kind PrometheusRule.
pub fn prometheus_rule_resource() -> ApiResource {
    resource("PrometheusRule")
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("monitoring.coreos.com", "v1", kind))
}

pub(super) fn service_monitor(aggregator: &ValidAggregator) -> Option<DynamicObject> {
    let mut labels = names::selector(&aggregator.names.aggregator);
    labels.insert(names::SERVICE_LABEL.to_owned(), NODES.to_owned());
    let spec = json!({
        "selector": {"matchLabels": labels},
        "endpoints": [{"port": ADMIN.name, "path": "/metrics"}],
    });
    let object = object(aggregator, &service_monitor_resource(), spec);
    aggregator.installation.service_monitors.then_some(object)
}

pub(super) fn prometheus_rule(aggregator: &ValidAggregator) -> Option<DynamicObject> {
    let of_nodes =
        format!(r#"namespace="{}",service="{}""#, aggregator.namespace, aggregator.names.nodes);
    let spec = json!({"groups": [{
        "name": format!("sheaf-{}", aggregator.names.aggregator),
        "rules": [
            alert(
                "SheafLedgerImbalance", "critical", "0m",
                &format!("increase(sheaf_ledger_imbalances_total{{{of_nodes}}}[10m]) > 0"),
                "What came in and what went out of {{ $labels.pod }} do not add up: a bug in Sheaf.",
            ),
            alert(
                "SheafQueueFull", "warning", "5m",
                &format!("{QUEUE_METRIC}{{{of_nodes}}} > 90"),
                "The queue of {{ $labels.pod }} is {{ $value }} % full, so senders are told to come \
                 back later: add nodes.",
            ),
            alert(
                "SheafClockOff", "warning", "1m",
                &format!(
                    "abs(sheaf_clock_offset_seconds{{{of_nodes}}}) > on (pod) group_left () \
                     sheaf_clock_bound_seconds{{{of_nodes}}}"
                ),
                "The clock of node {{ $labels.node }} is {{ $value }} s off, so it takes nothing: set it.",
            ),
            alert(
                "SheafNodeDown", "warning", "5m", &format!("up{{{of_nodes}}} == 0"),
                "{{ $labels.pod }} does not answer: if its machine is lost, so may be what it alone has.",
            ),
        ],
    }]});
    let object = object(aggregator, &prometheus_rule_resource(), spec);
    aggregator.installation.prometheus_rules.then_some(object)
}

fn alert(name: &str, severity: &str, after: &str, expression: &str, summary: &str) -> Value {
    json!({
        "alert": name,
        "expr": expression,
        "for": after,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    })
}

fn object(aggregator: &ValidAggregator, resource: &ApiResource, spec: Value) -> DynamicObject {
    let mut object = DynamicObject::new(&aggregator.names.aggregator, resource);
    object.metadata = metadata(aggregator, &aggregator.names.aggregator);
    object.data = json!({"spec": spec});
    object
}
