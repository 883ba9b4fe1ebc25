//! The operator: start, run, drain with a deadline.

pub mod settings; // flags and variables
pub mod telemetry; // the operator's own log

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{join_all, try_join_all};
use kube::client::ClientBuilder;
use kube::runtime::controller;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::build::{prometheus_rule_resource, service_monitor_resource};
use crate::context::{Context, Memories, Turns};
use crate::custom_metrics;
use crate::election::{Candidate, Held};
use crate::metrics::Metrics;
use crate::names::MANAGED_BY;
use crate::nodes::{Network, Nodes};
use crate::reconcile::{after_error, reconcile};
use crate::serving::{self, Told};
use crate::validate::Installation;
use crate::watches::{self, Stores};
use settings::Settings;

/// How long rounds that are under way may take to end when the operator stops.
const DRAIN: Duration = Duration::from_secs(20);
/// How long the API server may take to say which kinds there are.
const DISCOVERY: Duration = Duration::from_secs(10);
/// How long to rest before it is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long until it is asked for kinds that came later: seldom, since hardly any ever do.
const KINDS_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// The status of what there is not.
const NOT_FOUND: u16 = 404;
/// How long a request to the API server may take; watches end by themselves before.
const READ_TIMEOUT: Duration = Duration::from_secs(295);

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A port cannot be opened, or signals not be heard.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no way to an API server.
    #[error("find the API server: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The way to the API server cannot be used.
    #[error("connect to the API server: {0}")]
    Client(#[from] kube::Error),
}

/// Runs until `stop`: acts while it holds the lease, and waits for it otherwise.
///
/// # Errors
/// When the operator cannot start.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), AppError> {
    let metrics = Arc::new(Metrics::default());
    let listener = listen(settings.listen).await?;
    let client = client(&metrics).await?;
    let (ready, readiness) = watch::channel(false);
    let told = Told { metrics: Arc::clone(&metrics), ready: readiness };
    let serving = tokio::spawn(serving::serve(listener, told, stop.clone()));
    let metrics_serving = match settings.custom_metrics() {
        Some(place) => {
            let listener = listen(settings.custom_metrics_listen).await?;
            let serving = custom_metrics::serve(listener, client.clone(), place, stop.clone());
            Some(tokio::spawn(serving))
        }
        None => None,
    };

    let operator = Operator { settings, client, metrics, ready };
    operator.stand(&stop).await;
    for serving in [Some(serving), metrics_serving].into_iter().flatten() {
        if let Err(error) = serving.await {
            error!(%error, "a server of probes or metrics panicked");
        }
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let what = || format!("listen on {address}");
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| AppError::Io { what: what(), source })
}

async fn client(metrics: &Metrics) -> Result<Client, AppError> {
    let mut config = Config::infer().await?;
    // Rounds are tried again by the operator, which knows what is still wanted then.
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&metrics.counting()).build())
}

struct Operator {
    settings: Settings,
    client: Client,
    metrics: Arc<Metrics>,
    ready: watch::Sender<bool>,
}

impl Operator {
    /// Acts whenever it holds the lease, until it is to stop.
    async fn stand(&self, stop: &CancellationToken) {
        let Settings { namespace, lease_name, identity, .. } = &self.settings;
        let mut candidate = Candidate::new(self.client.clone(), namespace, lease_name, identity);
        while !stop.is_cancelled() {
            let held = tokio::select! {
                // Another one acts.
                held = candidate.elected(|| _ = self.ready.send_replace(true)) => held,
                () = stop.cancelled() => break,
            };
            self.ready.send_replace(false);
            self.metrics.lead(true);
            self.lead(&mut candidate, held, stop).await;
            self.metrics.lead(false);
        }
        if let Err(error) = candidate.release().await {
            warn!(%error, "the lease could not be given back, and has to run out");
        }
    }

    /// Acts until the lease is lost, and then at once no more; or until it is to stop, and then
    /// ends what is under way.
    async fn lead(&self, candidate: &mut Candidate, held: Held, stop: &CancellationToken) {
        let acting = async {
            let controlling = self.control(stop);
            tokio::pin!(controlling);
            tokio::select! {
                () = &mut controlling => return,
                () = stop.cancelled() => {}
            }
            if timeout(DRAIN, controlling).await.is_err() {
                warn!("some rounds did not end in time; they are done again");
            }
        };
        tokio::select! {
            () = candidate.keep(held) => {}
            () = acting => {}
            () = self.keep_certificate() => {}
        }
    }

    /// Keeps the certificate of the API of metrics, if that is served. It never ends.
    async fn keep_certificate(&self) {
        match self.settings.custom_metrics() {
            Some(place) => custom_metrics::keep(&self.client, place).await,
            None => std::future::pending().await,
        }
    }

    /// Looks after all aggregators, beginning anew when the cluster gets or loses kinds.
    async fn control(&self, stop: &CancellationToken) {
        let turns = Arc::new(Turns::new(self.settings.rolling_max));
        loop {
            let installation = tokio::select! {
                installation = self.installation() => installation,
                () = stop.cancelled() => return,
            };
            let end = stop.child_token();
            let looking = self.look_after(&installation, &turns, &end);
            tokio::pin!(looking);
            tokio::select! {
                () = &mut looking => return,
                () = self.other_kinds(&installation) => end.cancel(),
            }
            looking.await;
        }
    }

    /// Looks after all aggregators until the `end`.
    async fn look_after(
        &self,
        installation: &Installation,
        turns: &Arc<Turns>,
        end: &CancellationToken,
    ) {
        let scopes = self.settings.scopes();
        let mut seen = Vec::new();
        let controllers = scopes.iter().map(|scope| {
            let reporter = Reporter {
                controller: MANAGED_BY.into(),
                instance: Some(self.settings.identity.clone()),
            };
            let recorder = Recorder::new(self.client.clone(), reporter);
            let (stores, controller) = watches::watch(&self.client, scope, installation, &recorder);
            seen.push(stores.clone());
            let context = Context {
                scope: scope.clone(),
                client: self.client.clone(),
                stores,
                nodes: Arc::new(Network::default()) as Arc<dyn Nodes>,
                recorder,
                installation: installation.clone(),
                turns: Arc::clone(turns),
                metrics: Arc::clone(&self.metrics),
                memories: Memories::default(),
            };
            let rounds = controller.graceful_shutdown_on(end.clone().cancelled_owned()).run(
                reconcile,
                after_error,
                Arc::new(context),
            );
            rounds.for_each(|round| {
                tell(round);
                std::future::ready(())
            })
        });
        let controlling = join_all(controllers);
        info!(?scopes, "looking after aggregators");
        tokio::select! {
            _ = controlling => {}
            () = self.see(&seen) => {}
        }
    }

    /// Is ready once all was listed. It never ends: what is there is there.
    async fn see(&self, seen: &[Stores]) {
        // What is not watched any more ends with the operator.
        if try_join_all(seen.iter().map(Stores::listed)).await.is_ok() {
            self.ready.send_replace(true);
        }
        std::future::pending().await
    }

    /// Waits until the cluster has other kinds than it had.
    async fn other_kinds(&self, installation: &Installation) {
        loop {
            tokio::time::sleep(KINDS_AGAIN_AFTER).await;
            let now = self.installation().await;
            if now != *installation {
                let Installation { service_monitors, prometheus_rules, .. } = now;
                info!(service_monitors, prometheus_rules, "the cluster has other kinds now");
                return;
            }
        }
    }

    /// How the operator was installed; asks until the API server answers.
    async fn installation(&self) -> Installation {
        loop {
            match timeout(DISCOVERY, self.monitoring_kinds()).await {
                Ok(Ok((service_monitors, prometheus_rules))) => {
                    return Installation {
                        image: self.settings.default_image.clone(),
                        namespace: self.settings.namespace.clone(),
                        service_monitors,
                        prometheus_rules,
                    };
                }
                Ok(Err(error)) => warn!(%error, "the API server does not say which kinds it has"),
                Err(_) => warn!("the API server does not answer"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Whether the kinds of the Prometheus operator are there.
    async fn monitoring_kinds(&self) -> kube::Result<(bool, bool)> {
        let (monitor, rule) = (service_monitor_resource(), prometheus_rule_resource());
        let kinds = match self.client.list_api_group_resources(&monitor.api_version).await {
            Ok(kinds) => kinds.resources,
            // By its code: of a group that there is not, the answer has no reason.
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Vec::new(),
            Err(error) => return Err(error),
        };
        let has = |kind: &str| kinds.iter().any(|known| known.kind == kind);
        Ok((has(&monitor.kind), has(&rule.kind)))
    }
}

type Round<E> = Result<
    (kube::runtime::reflector::ObjectRef<crate::resource::LogAggregator>, controller::Action),
    controller::Error<crate::reconcile::ReconcileError, E>,
>;

/// Errors of rounds were told where they happened; what is left is about watches.
fn tell<E: std::error::Error + 'static>(round: Round<E>) {
    match round {
        Ok((aggregator, action)) => debug!(%aggregator, ?action, "a round has ended"),
        Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {}
        Err(error) => warn!(%error, "a watch broke off, and is begun again"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;
    use serde_json::json;
    use tokio::time::sleep;

    use super::*;
    use crate::permissions;
    use crate::scripted::Server;

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases/sheaf-operator";

    fn operator(server: &Server) -> (Operator, Candidate) {
        let settings = Settings::parse_from(["sheaf-operator", "--identity", "one"]);
        let candidate = Candidate::new(server.client(), "default", "sheaf-operator", "one");
        let (ready, _) = watch::channel(false);
        let operator =
            Operator { settings, client: server.client(), metrics: Arc::default(), ready };
        (operator, candidate)
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_whose_lease_is_taken_asks_for_nothing_more() {
        let server = Server::default();
        let (operator, mut candidate) = operator(&server);
        let held = candidate.elected(|| {}).await;
        let taking = server.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(60)).await;
            taking.put(LEASE, json!({"spec": {"holderIdentity": "other"}}));
        });
        operator.lead(&mut candidate, held, &CancellationToken::new()).await;
        let asked = server.asked();
        assert!(asked.iter().any(|it| it.path.ends_with("/logaggregators")), "it has acted");
        sleep(Duration::from_secs(600)).await;
        assert_eq!(server.asked().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_is_to_stop_gives_its_lease_back() {
        let server = Server::default();
        let (operator, _) = operator(&server);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(60)).await;
            stopping.cancel();
        });
        operator.stand(&stop).await;
        let lease = server.get(LEASE).unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], json!(null));
    }

    /// What is watched in every cluster, StatefulSets last.
    const WATCHED: [&str; 12] = [
        "/api/v1/pods",
        "/api/v1/persistentvolumeclaims",
        "/api/v1/configmaps",
        "/api/v1/nodes",
        "/api/v1/serviceaccounts",
        "/api/v1/secrets",
        "/api/v1/services",
        "/apis/sheaf.dev/v1alpha1/logaggregators",
        "/apis/networking.k8s.io/v1/networkpolicies",
        "/apis/policy/v1/poddisruptionbudgets",
        "/apis/autoscaling/v2/horizontalpodautoscalers",
        "/apis/apps/v1/statefulsets",
    ];

    /// Lists without anything in them, of these kinds.
    fn put_lists(server: &Server, paths: &[&str]) {
        for path in paths {
            server.put(path, json!({"kind": "List", "metadata": {}, "items": []}));
        }
    }

    /// The cluster knows these kinds of the Prometheus operator.
    fn put_kinds(server: &Server, kinds: &[&str]) {
        let kind = |kind: &&str| json!({"name": "x", "singularName": "", "kind": kind, "namespaced": true, "verbs": []});
        let kinds: Vec<_> = kinds.iter().map(kind).collect();
        let list = json!({"groupVersion": "monitoring.coreos.com/v1", "resources": kinds});
        server.put("/apis/monitoring.coreos.com/v1", list);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_acts_is_ready_when_it_has_seen_everything() {
        let server = Server::default();
        let (operator, _) = operator(&server);
        let mut ready = operator.ready.subscribe();
        let (last, others) = WATCHED.split_last().unwrap();
        put_lists(&server, others);
        let stop = CancellationToken::new();
        let looks = async {
            sleep(Duration::from_secs(60)).await;
            assert!(!*ready.borrow(), "StatefulSets were not listed");
            put_lists(&server, &[last]);
            ready.wait_for(|ready| *ready).await.unwrap();
            stop.cancel();
        };
        tokio::join!(operator.stand(&stop), looks);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_stands_by_is_ready() {
        let server = Server::default();
        server.put(LEASE, json!({"spec": {"holderIdentity": "other"}}));
        let (operator, _) = operator(&server);
        let mut ready = operator.ready.subscribe();
        let stop = CancellationToken::new();
        let looks = async {
            let told = timeout(Duration::from_secs(10), ready.wait_for(|ready| *ready)).await;
            assert!(told.is_ok(), "it has to wait for the lease first");
            stop.cancel();
        };
        tokio::join!(operator.stand(&stop), looks);
    }

    #[tokio::test]
    async fn the_kinds_of_the_prometheus_operator_are_optional() {
        let server = Server::default();
        let (operator, _) = operator(&server);
        assert_eq!(operator.monitoring_kinds().await.unwrap(), (false, false));
        put_kinds(&server, &["PrometheusRule"]);
        assert_eq!(operator.monitoring_kinds().await.unwrap(), (false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_that_come_later_are_noticed_and_watched() {
        const MONITORS: &str = "/apis/monitoring.coreos.com/v1/servicemonitors";
        const RULES: &str = "/apis/monitoring.coreos.com/v1/prometheusrules";
        let server = Server::default();
        let (operator, _) = operator(&server);
        let mut ready = operator.ready.subscribe();
        put_lists(&server, &WATCHED);
        let stop = CancellationToken::new();
        let looks = async {
            ready.wait_for(|ready| *ready).await.unwrap();
            let early = server.asked();
            put_kinds(&server, &["ServiceMonitor", "PrometheusRule"]);
            put_lists(&server, &[MONITORS, RULES]);
            sleep(KINDS_AGAIN_AFTER + Duration::from_secs(60)).await;
            let asked = server.asked();
            let count = |path: &str| asked.iter().filter(|asked| asked.path == path).count();
            assert!(count(MONITORS) > 0 && count(RULES) > 0, "they are not watched");
            assert_eq!(count("/apis/monitoring.coreos.com/v1"), 2, "it is asked too often");
            let all: Vec<_> = early.into_iter().chain(asked).collect();
            stop.cancel();
            all
        };
        let ((), asked) = tokio::join!(operator.stand(&stop), looks);
        // Whatever is permitted of lists and leases is used as well.
        let is_seen = |(_, _, verb): &permissions::Right| verb == "list" || verb == "watch";
        let mut given: BTreeSet<_> =
            permissions::everywhere().into_iter().filter(is_seen).collect();
        given.extend(permissions::own());
        assert_eq!(permissions::needed(&asked), given);
    }
}
