//! What the pods may do in Kubernetes, which is nothing, and what those need who change the
//! cluster.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};

use super::metadata;
use crate::names;
use crate::validate::ValidAggregator;

pub(super) fn service_account(aggregator: &ValidAggregator) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(aggregator, &aggregator.names.aggregator),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

pub(super) fn control(aggregator: &ValidAggregator) -> Secret {
    Secret {
        metadata: metadata(aggregator, &aggregator.names.control),
        type_: Some("Opaque".to_owned()),
        string_data: Some(names::labeled([(names::TOKEN_FILE, aggregator.token.as_str())])),
        ..Secret::default()
    }
}
