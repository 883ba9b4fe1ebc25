//! What the pods may do in Kubernetes, which is nothing, and what those need who change the
//! cluster.

use k8s_openapi::ByteString;
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
    let token = ByteString(aggregator.token.clone().into_bytes());
    Secret {
        metadata: metadata(aggregator, &aggregator.names.control),
        type_: Some("Opaque".to_owned()),
        data: Some([(names::TOKEN_FILE.to_owned(), token)].into()),
        ..Secret::default()
    }
}
