//! How the number of nodes follows the load. It scales the aggregator, not the StatefulSet: only
//! the operator knows when a node may go.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
    MetricIdentifier, MetricSpec, MetricTarget, PodsMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Resource;
use sheaf_proto::names::QUEUE_METRIC;

use super::metadata;
use crate::resource::LogAggregator;
use crate::validate::ValidAggregator;

pub(super) fn autoscaler(aggregator: &ValidAggregator) -> Option<HorizontalPodAutoscaler> {
    let autoscaling = aggregator.autoscaling.as_ref()?;
    Some(HorizontalPodAutoscaler {
        metadata: metadata(aggregator, &aggregator.names.aggregator),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(LogAggregator::api_version(&()).into_owned()),
                kind: LogAggregator::kind(&()).into_owned(),
                name: aggregator.names.aggregator.clone(),
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(vec![queue(autoscaling.target_queue_percent)]),
            behavior: autoscaling.behavior.clone(),
        }),
        ..HorizontalPodAutoscaler::default()
    })
}

/// The mean of what all pods say of their queues, and what it is to be.
fn queue(percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Pods".to_owned(),
        pods: Some(PodsMetricSource {
            metric: MetricIdentifier { name: QUEUE_METRIC.to_owned(), selector: None },
            target: MetricTarget {
                type_: "AverageValue".to_owned(),
                average_value: Some(Quantity(percent.to_string())),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}
