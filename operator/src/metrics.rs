//! What the operator tells of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower::{Layer, Service};

/// Bounds of the time of a reconcile, in seconds: one that finds nothing to do, and one that
/// waits for a node that does not answer.
const RECONCILE_SECONDS: [f64; 8] = [0.001, 0.01, 0.05, 0.25, 1.0, 2.5, 10.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: String,
    /// The group of the API; empty for the core group.
    group: String,
}

/// The operator's metrics.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    requests: Family<Asked, Counter>,
    leads: Gauge,
    aggregators: Gauge<u64, AtomicU64>,
    /// How many of them there are in each namespace that is looked after by itself.
    by_namespace: Mutex<BTreeMap<Option<String>, usize>>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("sheaf_operator"),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(RECONCILE_SECONDS),
            requests: Family::default(),
            leads: Gauge::default(),
            aggregators: Gauge::default(),
            by_namespace: Mutex::default(),
        };
        let Metrics {
            registry, reconciles, reconcile_seconds, requests, leads, aggregators, ..
        } = &mut metrics;
        registry.register("reconciles", "Rounds, by how they ended", reconciles.clone());
        registry.register(
            "reconcile_duration_seconds",
            "The time that a round took",
            reconcile_seconds.clone(),
        );
        registry.register("api_requests", "Requests to the API server", requests.clone());
        registry.register("leader", "Whether this operator is the one that acts", leads.clone());
        registry.register(
            "aggregators",
            "LogAggregators that are looked after",
            aggregators.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// A reconcile has ended.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Whether this operator acts.
    pub fn lead(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    /// How many aggregators there are in a namespace, or in all of them.
    pub fn look_after(&self, namespace: Option<&str>, aggregators: usize) {
        let mut counted = self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner);
        counted.insert(namespace.map(str::to_owned), aggregators);
        self.aggregators.set(counted.values().sum::<usize>() as u64);
    }

    /// The metrics as OpenMetrics text.
    ///
    /// # Errors
    /// None that a text in memory can cause.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts what goes through a client.
    pub fn counting(&self) -> Counting {
        Counting { requests: self.requests.clone() }
    }
}

/// Counts requests to the API server.
#[derive(Clone)]
pub struct Counting {
    requests: Family<Asked, Counter>,
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, requests: self.requests.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    requests: Family<Asked, Counter>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let method = request.method().to_string();
        let group = group(request.uri().path()).to_owned();
        self.requests.get_or_create(&Asked { method, group }).inc();
        self.inner.call(request)
    }
}

/// The group of what a path names: `/apis/GROUP/VERSION/..`, or `/api/VERSION/..`.
fn group(path: &str) -> &str {
    let below = path.strip_prefix("/apis/").unwrap_or_default();
    below.split_once('/').map_or(below, |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rounds_and_requests_are_counted() {
        let metrics = Metrics::default();
        metrics.reconciled("done", Duration::from_millis(3));
        metrics.lead(true);
        metrics.look_after(Some("shop"), 2);
        metrics.look_after(Some("stall"), 3);
        metrics.look_after(Some("shop"), 1);
        let echo = tower::service_fn(|request: Request<()>| async move {
            Ok::<_, std::convert::Infallible>(request.method().clone())
        });
        let mut counted = metrics.counting().layer(echo);
        for path in ["/api/v1/pods", "/apis/apps/v1/statefulsets", "/apis/apps"] {
            counted.call(Request::get(path).body(()).unwrap()).await.unwrap();
        }
        let text = metrics.text().unwrap();
        for line in [
            "sheaf_operator_reconciles_total{outcome=\"done\"} 1",
            "sheaf_operator_reconcile_duration_seconds_count 1",
            "sheaf_operator_api_requests_total{method=\"GET\",group=\"\"} 1",
            "sheaf_operator_api_requests_total{method=\"GET\",group=\"apps\"} 2",
            "sheaf_operator_leader 1",
            "sheaf_operator_aggregators 4",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
    }
}
