//! Aggregators for tests, as an API server would hand them out.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod any; // made up at random

use serde_json::{Value, json};

use crate::resource::LogAggregator;
use crate::validate::{Found, Installation};

/// An aggregator that says no more than it must, but for `more`.
pub fn aggregator(more: Value) -> LogAggregator {
    let count = json!({"attribute": "service.name"});
    let mut spec = json!({"aggregations": [
        {"name": "by-service", "type": "DistinctLogs", "distinctLogs": count},
    ]});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let metadata = json!({
        "name": "logs", "namespace": "shop", "uid": "5ea1c0de-0000-4000-8000-000000000001",
    });
    let object = json!({
        "apiVersion": "sheaf.dev/v1alpha1", "kind": "LogAggregator",
        "metadata": metadata, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// What there is beside a new aggregator.
pub fn nothing() -> Found {
    Found {
        installation: Installation {
            image: "sheaf:dev".to_owned(),
            namespace: "sheaf-system".to_owned(),
            service_monitors: false,
            prometheus_rules: false,
        },
        replicas: None,
        founders: None,
        token: "a-token".to_owned(),
    }
}
