//! How the nodes are reached, and by whom.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sheaf_proto::names::{
    ADMIN_PORT, CHUNK_PORT, CONTROL_PORT, OTLP_GRPC_PORT, OTLP_HTTP_PORT, PEER_PORT,
};

use super::metadata;
use crate::names;
use crate::validate::ValidAggregator;

/// A port of a node: what it is called, which it is, and what is spoken there.
#[derive(Clone, Copy)]
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) number: u16,
    protocol: &'static str,
}

pub(super) const OTLP_GRPC: Port =
    Port { name: "otlp-grpc", number: OTLP_GRPC_PORT, protocol: "kubernetes.io/h2c" };
pub(super) const OTLP_HTTP: Port =
    Port { name: "otlp-http", number: OTLP_HTTP_PORT, protocol: "http" };
/// It takes HTTP of both versions; whoever stands in between can pass gRPC on only over the second.
pub(super) const CHUNKS: Port =
    Port { name: "chunks", number: CHUNK_PORT, protocol: "kubernetes.io/h2c" };
pub(super) const ADMIN: Port = Port { name: "admin", number: ADMIN_PORT, protocol: "http" };
pub(super) const PEER: Port =
    Port { name: "peer", number: PEER_PORT, protocol: "kubernetes.io/h2c" };
pub(super) const CONTROL: Port = Port { name: "control", number: CONTROL_PORT, protocol: "http" };

/// All ports of a node, whatever is counted or rebuilt: an aggregation that is new takes effect
/// without a restart, and other ports would be other pods.
pub(super) const PORTS: [Port; 6] = [OTLP_GRPC, OTLP_HTTP, CHUNKS, ADMIN, PEER, CONTROL];
/// Those that anybody may send to or ask at.
const OPEN: [Port; 4] = [OTLP_GRPC, OTLP_HTTP, CHUNKS, ADMIN];

/// The label's value that marks the Service of [`nodes`].
pub(super) const NODES: &str = "nodes";

/// Gives each pod a name. It stands for those that are not ready too: nodes form a cluster
/// before any of them is. An agent that is told all names goes from one to the next by itself.
pub(super) fn nodes(aggregator: &ValidAggregator) -> Service {
    let headless = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        ..serving(aggregator, &[CHUNKS, ADMIN, PEER, CONTROL])
    };
    service_of(aggregator, &aggregator.names.nodes, NODES, headless)
}

/// Where senders send to, and where anybody asks for counts.
pub(super) fn service(aggregator: &ValidAggregator) -> Service {
    let ports = serving(aggregator, &OPEN);
    service_of(aggregator, &aggregator.names.aggregator, "clients", ports)
}

fn service_of(aggregator: &ValidAggregator, name: &str, what: &str, spec: ServiceSpec) -> Service {
    let mut metadata = metadata(aggregator, name);
    metadata
        .labels
        .get_or_insert_default()
        .insert(names::SERVICE_LABEL.to_owned(), what.to_owned());
    Service { metadata, spec: Some(spec), ..Service::default() }
}

fn serving(aggregator: &ValidAggregator, ports: &[Port]) -> ServiceSpec {
    let port = |port: &Port| ServicePort {
        name: Some(port.name.to_owned()),
        port: port.number.into(),
        target_port: Some(IntOrString::String(port.name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(port.protocol.to_owned()),
        ..ServicePort::default()
    };
    ServiceSpec {
        selector: Some(names::selector(&aggregator.names.aggregator)),
        ports: Some(ports.iter().map(port).collect()),
        ..ServiceSpec::default()
    }
}

/// Anybody may send and ask; nodes speak with nodes; the operator alone changes the cluster.
pub(super) fn policy(aggregator: &ValidAggregator) -> NetworkPolicy {
    let name = &aggregator.names.aggregator;
    let own = NetworkPolicyPeer {
        pod_selector: Some(names::selecting(names::selector(name))),
        ..NetworkPolicyPeer::default()
    };
    let namespace = aggregator.installation.namespace.as_str();
    let operator = NetworkPolicyPeer {
        pod_selector: Some(names::selecting(names::operator())),
        namespace_selector: Some(names::selecting(names::labeled([(
            "kubernetes.io/metadata.name",
            namespace,
        )]))),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicy {
        metadata: metadata(aggregator, name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(names::selecting(names::selector(name))),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                allow(&OPEN, None),
                allow(&[PEER], Some(own)),
                allow(&[CONTROL], Some(operator)),
            ]),
            egress: None,
        }),
    }
}

/// Lets a peer reach ports, or anybody if none is named.
fn allow(ports: &[Port], peer: Option<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    let port = |port: &Port| NetworkPolicyPort {
        port: Some(IntOrString::Int(port.number.into())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule {
        from: peer.map(|peer| vec![peer]),
        ports: Some(ports.iter().map(port).collect()),
    }
}
