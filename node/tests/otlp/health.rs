use sheaf_proto::names::OTLP_GRPC_LOGS_SERVICE;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::node::Node;

async fn client(node: &Node) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.grpc)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn health_follows_readiness_for_the_server_and_for_its_service() {
    let node = Node::start().await;
    let mut client = client(&node).await;
    for service in ["", OTLP_GRPC_LOGS_SERVICE] {
        node.ready.send_replace(true);
        let mut statuses = client.watch(about(service)).await.unwrap().into_inner();
        let mut status = statuses.message().await.unwrap().unwrap().status();
        if status != ServingStatus::Serving {
            status = statuses.message().await.unwrap().unwrap().status();
        }
        assert_eq!(status, ServingStatus::Serving);
        node.ready.send_replace(false);
        assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        let checked = client.check(about(service)).await.unwrap().into_inner();
        assert_eq!(checked.status(), ServingStatus::NotServing);
    }
    assert_eq!(client.check(about("other")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_watcher_of_health_hears_of_the_shutdown_and_does_not_hold_it_up() {
    let mut node = Node::start().await;
    let mut client = client(&node).await;
    let mut statuses = client.watch(about("")).await.unwrap().into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    node.begin_shutdown();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(statuses.message().await.unwrap().is_none());
    let start = std::time::Instant::now();
    node.ended().await;
    assert!(start.elapsed() < Node::limits().drain / 2);
}
