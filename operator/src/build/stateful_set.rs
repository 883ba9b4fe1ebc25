//! The nodes and their volumes.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use kube::api::ObjectMeta;

use super::settings::Settings;
use super::{metadata, pod};
use crate::names;
use crate::resource::WhenDeleted;
use crate::validate::ValidAggregator;

pub(super) fn stateful_set(
    aggregator: &ValidAggregator,
    replicas: i32,
    settings: &Settings,
) -> StatefulSet {
    let name = &aggregator.names.aggregator;
    StatefulSet {
        metadata: metadata(aggregator, name),
        spec: Some(StatefulSetSpec {
            replicas: Some(replicas),
            service_name: Some(aggregator.names.nodes.clone()),
            selector: names::selecting(names::selector(name)),
            // All begin at once, since they form a cluster together.
            pod_management_policy: Some("Parallel".to_owned()),
            // The operator knows which pod may go next; the controller would only count.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(retention(aggregator)),
            volume_claim_templates: Some(vec![claim(aggregator)]),
            template: pod::template(aggregator, settings),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// A volume outlives its pod in any case: only the operator knows when its node is drained.
fn retention(aggregator: &ValidAggregator) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let when_deleted = match aggregator.volume.when_deleted {
        WhenDeleted::Retain => "Retain",
        WhenDeleted::Delete => "Delete",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(when_deleted.to_owned()),
        when_scaled: Some("Retain".to_owned()),
    }
}

fn claim(aggregator: &ValidAggregator) -> PersistentVolumeClaim {
    let volume = &aggregator.volume;
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(names::DATA_VOLUME.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), volume.size.clone())].into()),
                limits: None,
            }),
            storage_class_name: volume.class.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
