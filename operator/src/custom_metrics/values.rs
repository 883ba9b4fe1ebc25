//! Pods, and what their nodes say.

use std::net::IpAddr;

use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use sheaf_proto::names::QUEUE_METRIC;
use tracing::debug;

use super::question::{Pods, Values};
use super::refusal::Refusal;
use super::{GROUP, VERSION};
use crate::names::PODS_SELECTOR;
use crate::nodes::Network;

/// The time over which a node takes the mean.
const WINDOW_SECONDS: u32 = 60;
/// The status of a selector that is none.
const BAD_REQUEST: u16 = 400;
/// Nodes that are asked at a time.
const ASKED_AT_A_TIME: usize = 64;

/// The values of the pods that have one: a pod whose node does not answer is left out, and whoever
/// scales knows best what to make of that.
///
/// # Errors
/// When there is no such metric or pod, or the API server does not tell of pods.
pub(super) async fn list(
    client: &Client,
    network: &Network,
    values: &Values,
) -> Result<Value, Refusal> {
    let unknown = |pod: &str| {
        let Values { metric, namespace, .. } = values;
        Refusal::Unknown(format!("there is no metric {metric} of {pod} in namespace {namespace}"))
    };
    if values.metric != QUEUE_METRIC {
        return Err(unknown("pods"));
    }
    let pods = pods(client, values).await?;
    let asked = stream::iter(pods).map(|(name, address)| async move {
        match network.queue(address).await {
            Ok(queue) => value(&values.namespace, &name, queue.used_percent, Timestamp::now()),
            Err(error) => {
                debug!(%error, pod = name, "a node does not tell how full it is");
                None
            }
        }
    });
    let items: Vec<_> =
        asked.buffered(ASKED_AT_A_TIME).filter_map(std::future::ready).collect().await;
    match &values.pods {
        Pods::Named(name) if items.is_empty() => Err(unknown(&format!("pod {name}"))),
        _ => Ok(json!({
            "kind": "MetricValueList", "apiVersion": format!("{GROUP}/{VERSION}"),
            "metadata": {}, "items": items,
        })),
    }
}

/// The pods of aggregators that are meant, and where they are.
async fn pods(client: &Client, values: &Values) -> Result<Vec<(String, IpAddr)>, Refusal> {
    // What the API server has at hand is new enough.
    let meant = ListParams::default().match_any();
    let meant = match &values.pods {
        Pods::Named(name) => meant.labels(PODS_SELECTOR).fields(&format!("metadata.name={name}")),
        Pods::Selected(selector) if selector.is_empty() => meant.labels(PODS_SELECTOR),
        Pods::Selected(selector) => meant.labels(&format!("{PODS_SELECTOR},{selector}")),
    };
    let pods = Api::<Pod>::namespaced(client.clone(), &values.namespace).list(&meant).await;
    let pods = pods.map_err(|error| match error {
        kube::Error::Api(status) if status.code == BAD_REQUEST => {
            Refusal::Malformed(status.message)
        }
        error => Refusal::Unavailable(format!("list pods: {error}")),
    })?;
    let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok();
    Ok(pods.iter().filter_map(|pod| Some((pod.name_any(), address(pod)?))).collect())
}

/// A value of a pod, unless it is no percentage.
fn value(namespace: &str, pod: &str, percent: f64, at: Timestamp) -> Option<Value> {
    let quantity = quantity(percent)?;
    Some(json!({
        "describedObject": {
            "kind": "Pod", "namespace": namespace, "name": pod, "apiVersion": "v1",
        },
        "metric": {"name": QUEUE_METRIC, "selector": null},
        "timestamp": Time(at),
        "windowSeconds": WINDOW_SECONDS,
        "value": quantity,
    }))
}

/// A percentage as a quantity, in its shortest form: whole, or in thousandths.
fn quantity(percent: f64) -> Option<String> {
    if !(0.0..=100.0).contains(&percent) {
        return None;
    }
    let thousandths = (percent * 1_000.0).round() as u32;
    Some(match thousandths % 1_000 {
        0 => (thousandths / 1_000).to_string(),
        _ => format!("{thousandths}m"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_a_quantity_to_a_thousandth() {
        let quantities = [
            (0.0, "0"),
            (37.0, "37"),
            (37.125, "37125m"),
            (0.000_4, "0"),
            (0.000_6, "1m"),
            (99.999_9, "100"),
            (100.0, "100"),
        ];
        for (percent, expected) in quantities {
            assert_eq!(quantity(percent).as_deref(), Some(expected), "{percent}");
        }
    }

    #[test]
    fn what_is_no_percentage_is_no_value() {
        for percent in [-0.1, 100.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(quantity(percent), None, "{percent}");
        }
    }

    #[test]
    fn a_value_says_of_what_it_is_and_when() {
        let at = Timestamp::from_second(1_764_000_000).unwrap();
        let expected = json!({
            "describedObject": {"kind": "Pod", "namespace": "shop", "name": "logs-0", "apiVersion": "v1"},
            "metric": {"name": "sheaf_queue_used_percent", "selector": null},
            "timestamp": "2025-11-24T16:00:00Z", "windowSeconds": 60, "value": "12500m",
        });
        assert_eq!(value("shop", "logs-0", 12.5, at), Some(expected));
    }
}
