//! What the gRPC health service says about this node.

use std::convert::Infallible;
use std::future;

use sheaf_proto::names::OTLP_GRPC_LOGS_SERVICE;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The server as a whole has the empty name.
const SERVICES: [&str; 2] = ["", OTLP_GRPC_LOGS_SERVICE];

/// Keeps `reporter` at what `readiness` says, and ends its watchers at `shutdown`.
pub(super) async fn report(
    mut reporter: HealthReporter,
    mut readiness: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> Infallible {
    loop {
        let ready = *readiness.borrow_and_update();
        set_all(&reporter, if ready { ServingStatus::Serving } else { ServingStatus::NotServing })
            .await;
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = readiness.changed() => {
                if changed.is_err() {
                    // Nobody is left to change it: the last word stands.
                    shutdown.cancelled().await;
                    break;
                }
            }
        }
    }
    set_all(&reporter, ServingStatus::NotServing).await;
    // A watcher's stream would otherwise hold up the shutdown for as long as it is allowed to.
    for service in SERVICES {
        reporter.clear_service_status(service).await;
    }
    future::pending().await
}

async fn set_all(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
