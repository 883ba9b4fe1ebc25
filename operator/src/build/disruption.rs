//! How many pods may be taken away at a time: one, as many as copies and votes are made for.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::names;
use crate::validate::ValidAggregator;

pub(super) fn budget(aggregator: &ValidAggregator) -> PodDisruptionBudget {
    let name = &aggregator.names.aggregator;
    PodDisruptionBudget {
        metadata: metadata(aggregator, name),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(names::selecting(names::selector(name))),
            // A pod that takes nothing is missed by nobody: it may always go.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
