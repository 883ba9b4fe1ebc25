//! `sheaf.v1.Statistics`: what the port answers over HTTP as JSON, as messages; and
//! reflection, so that a client needs no file to ask for them.

mod messages; // JSON's shapes as messages

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::Request;
use jiff::Timestamp;
use sheaf_proto::service;
use sheaf_proto::service::statistics_server::{Statistics, StatisticsServer};
use sheaf_proto::statistics::WindowCounts;
use tokio::sync::Semaphore;
use tonic::server::NamedService;
use tonic::{Response, Status};
use tonic_reflection::server::{self as reflection, Builder as Reflection};
use tracing::error;

use super::answers::{WINDOWS_DEFAULT, WINDOWS_MAX};
use super::connections::Followers;
use super::{AdminError, Node, Scope};

/// Streams of windows that follow at a time, over all connections.
const FOLLOWERS_MAX: usize = 16;

/// Adds the gRPC services to the paths of the port.
pub(super) fn serve(router: Router, node: Arc<dyn Node>) -> Router {
    let places = Arc::new(Semaphore::new(FOLLOWERS_MAX));
    let router = add(router, StatisticsServer::new(Service { node, places }));
    let reflection = || {
        Reflection::configure().register_encoded_file_descriptor_set(service::FILE_DESCRIPTOR_SET)
    };
    // Clients of either version are common.
    let router = add_reflection(router, reflection().build_v1());
    add_reflection(router, reflection().build_v1alpha())
}

fn add_reflection<S>(router: Router, built: Result<S, reflection::Error>) -> Router
where
    S: tower::Service<Request<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    match built {
        Ok(service) => add(router, service),
        Err(error) => {
            error!(%error, "there is no reflection; please report this");
            router
        }
    }
}

fn add<S>(router: Router, service: S) -> Router
where
    S: tower::Service<Request<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

struct Service {
    node: Arc<dyn Node>,
    /// For those who follow.
    places: Arc<Semaphore>,
}

type Answer<T> = Result<Response<T>, Status>;
type Windows = BoxStream<'static, Result<service::Window, Status>>;

#[tonic::async_trait]
impl Statistics for Service {
    type ListWindowsStream = Windows;
    type ListOpenWindowsStream = Windows;
    type FollowWindowsStream = Windows;

    async fn list_windows(
        &self,
        request: tonic::Request<service::ListWindowsRequest>,
    ) -> Answer<Windows> {
        let service::ListWindowsRequest { limit, scope } = request.into_inner();
        let limit = limit.map_or(WINDOWS_DEFAULT, |limit| limit as usize).min(WINDOWS_MAX);
        let lines = self.node.closed_windows(self::scope(scope)?, limit).await?;
        Ok(Response::new(stream::iter(lines).map(|line| read(line.get())).boxed()))
    }

    async fn list_open_windows(
        &self,
        request: tonic::Request<service::ListOpenWindowsRequest>,
    ) -> Answer<Windows> {
        let windows = self.node.current_windows(scope(request.get_ref().scope)?).await?;
        let windows = stream::iter(windows).map(|window| Ok(messages::window(window)));
        Ok(Response::new(windows.boxed()))
    }

    async fn follow_windows(
        &self,
        request: tonic::Request<service::FollowWindowsRequest>,
    ) -> Answer<Windows> {
        let too_many = || format!("{FOLLOWERS_MAX} already follow");
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Status::resource_exhausted(too_many()))?;
        let none = || Status::internal("the connection is unknown");
        let connection = request.extensions().get::<Followers>().ok_or_else(none)?.clone();
        let after = request.into_inner().after.map(time).transpose()?;
        let lines = Arc::clone(&self.node).follow_windows(after);
        let windows = lines.map(move |line| {
            let _held = &place;
            read(line?.get())
        });
        let end = || {
            let reason = "the connection is old, or the node stops: go on from the last window";
            Status::unavailable(reason)
        };
        Ok(Response::new(connection.follow(windows.boxed(), end)))
    }

    async fn get_ledger(
        &self,
        request: tonic::Request<service::GetLedgerRequest>,
    ) -> Answer<service::Ledger> {
        let ledger = self.node.ledger(scope(request.get_ref().scope)?).await?;
        Ok(Response::new(messages::ledger(ledger)))
    }

    async fn get_cluster(
        &self,
        _: tonic::Request<service::GetClusterRequest>,
    ) -> Answer<service::Cluster> {
        Ok(Response::new(messages::cluster(self.node.cluster())))
    }
}

/// A line as it was printed.
fn read(line: &str) -> Result<service::Window, Status> {
    let window: WindowCounts = serde_json::from_str(line)
        .map_err(|error| Status::internal(format!("a line that cannot be read: {error}")))?;
    Ok(messages::window(window))
}

fn scope(asked: i32) -> Result<Scope, Status> {
    match service::Scope::try_from(asked) {
        Ok(service::Scope::Unspecified | service::Scope::Cluster) => Ok(Scope::Cluster),
        Ok(service::Scope::Node) => Ok(Scope::Node),
        Err(_) => Err(Status::invalid_argument(format!("there is no scope {asked}"))),
    }
}

fn time(asked: prost_types::Timestamp) -> Result<Timestamp, Status> {
    Timestamp::new(asked.seconds, asked.nanos)
        .map_err(|error| Status::invalid_argument(format!("after: {error}")))
}

impl From<AdminError> for Status {
    fn from(error: AdminError) -> Status {
        let reason = error.to_string();
        match error {
            AdminError::Unknown(_) => Status::not_found(reason),
            AdminError::Refused(_) => Status::failed_precondition(reason),
            AdminError::Unavailable(_) => Status::unavailable(reason),
            AdminError::Internal(_) => Status::internal(reason),
        }
    }
}

#[cfg(test)]
mod tests;
