//! An API server, an operator and nodes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

use super::REVIEW;
use super::authority::{Authority, Shown};
use crate::custom_metrics::answering::Answers;
use crate::custom_metrics::keeping::Keeper;
use crate::custom_metrics::place::{Place, PlaceError};
use crate::custom_metrics::reading::{Current, Reader};
use crate::custom_metrics::serving::Port;
use crate::nodes::Network;
use crate::scripted::Server;

pub(super) const API_SERVICE_PATH: &str =
    "/apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io";
pub(super) const SECRET_PATH: &str = "/api/v1/namespaces/sheaf-system/secrets/certificate";
const CONFIG_MAP_PATH: &str =
    "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const HOST: &str = "operator.sheaf-system.svc";
/// Nothing on this machine takes longer.
const WITHIN: Duration = Duration::from_secs(10);

/// A cluster into which the chart was installed.
pub(super) struct Cluster {
    pub(super) server: Server,
    pub(super) authority: Authority,
    current: watch::Sender<Current>,
    reader: Reader,
    /// Keeps a port for nodes.
    nodes: TcpListener,
    address: Option<SocketAddr>,
    _stop: tokio_util::sync::DropGuard,
    stop: CancellationToken,
}

pub(super) fn api_service(namespace: &str, service: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta2.custom.metrics.k8s.io", "uid": "7"},
        "spec": {
            "group": "custom.metrics.k8s.io", "version": "v1beta2",
            "groupPriorityMinimum": 100, "versionPriority": 200,
            "service": {"namespace": namespace, "name": service, "port": 443},
        },
    })
}

fn place() -> Place {
    Place {
        namespace: "sheaf-system".to_owned(),
        service: "operator".to_owned(),
        secret: "certificate".to_owned(),
    }
}

impl Cluster {
    /// What the chart has made is there, and nothing else.
    pub(super) async fn installed() -> Cluster {
        let (server, authority) = (Server::default(), Authority::new("front-proxy-ca"));
        server.put(API_SERVICE_PATH, api_service("sheaf-system", "operator"));
        server.put(SECRET_PATH, json!({"metadata": {"name": "certificate"}, "type": "Opaque"}));
        let config_map = json!({"data": {
            "requestheader-allowed-names": r#"["front-proxy-client"]"#,
            "requestheader-client-ca-file": authority.pem,
            "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
        }});
        server.put(CONFIG_MAP_PATH, config_map);
        server.say(REVIEW, json!({"spec": {}, "status": {"allowed": true}}));
        server.say("GET pods", json!({"metadata": {}, "items": []}));
        let reader = Reader::new(&server.client(), place());
        let nodes = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stop = CancellationToken::new();
        let (current, _) = watch::channel(None);
        Cluster {
            server,
            authority,
            current,
            reader,
            nodes,
            address: None,
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// An operator serves.
    pub(super) async fn running() -> Cluster {
        Cluster::running_since(Timestamp::now()).await
    }

    /// An operator serves with a certificate that was made then.
    pub(super) async fn running_since(then: Timestamp) -> Cluster {
        let cluster = Cluster::installed().await;
        cluster.keeper().round(then).await.unwrap();
        cluster.look(then).await.unwrap();
        cluster.server.asked();
        cluster.serve().await
    }

    /// Has an operator serve what it has read.
    pub(super) async fn serve(mut self) -> Cluster {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        self.address = Some(listener.local_addr().unwrap());
        let answers =
            Answers { client: self.server.client(), network: Network::at(self.node_port()) };
        let port = Port { answers, served: self.current.subscribe() };
        tokio::spawn(port.serve(listener, self.stop.clone()));
        self
    }

    fn node_port(&self) -> u16 {
        self.nodes.local_addr().unwrap().port()
    }

    /// An operator that acts.
    pub(super) fn keeper(&self) -> Keeper {
        Keeper::new(&self.server.client(), place())
    }

    /// Has the operator read what it serves with.
    pub(super) async fn look(&self, now: Timestamp) -> Result<(), PlaceError> {
        self.reader.look(&self.current, now).await
    }

    /// The authorities that the API server trusts, as PEM.
    pub(super) fn bundle(&self) -> Option<String> {
        let bundle = self.server.get(API_SERVICE_PATH)?["spec"]["caBundle"].clone();
        let bundle: Option<ByteString> = serde_json::from_value(bundle).unwrap();
        Some(String::from_utf8(bundle?.0).unwrap())
    }

    /// Has these pods, and nodes in them that say how full they are.
    pub(super) async fn has_pods(&self, pods: &[(&str, f64)]) {
        let mut items = Vec::new();
        for (n, (name, percent)) in pods.iter().enumerate() {
            let address = Ipv4Addr::new(127, 0, 1, n as u8 + 1);
            items.push(json!({"metadata": {"name": name}, "status": {"podIP": address}}));
            if !percent.is_nan() {
                node((address.into(), self.node_port()), *percent).await;
            }
        }
        self.server.say("GET pods", json!({"metadata": {}, "items": items}));
    }

    /// Asks as the API server does.
    pub(super) async fn ask(&self, path: &str) -> Answer {
        self.proxy().ask(path).await
    }

    /// The API server.
    pub(super) fn proxy(&self) -> Asker {
        self.with(self.authority.sign("front-proxy-client"))
    }

    /// Somebody with a certificate.
    pub(super) fn with(&self, shown: Shown) -> Asker {
        Asker { shown: Some(shown), ..self.nobody() }
    }

    /// Somebody without one, who says the same as the API server.
    pub(super) fn nobody(&self) -> Asker {
        Asker {
            address: self.address.unwrap(),
            trusted: self.bundle().unwrap(),
            shown: None,
            http2: false,
            user: "scaler",
            groups: &["scalers"],
        }
    }

    /// An API server that trusts these authorities.
    pub(super) fn trusting(&self, bundle: Option<String>) -> Asker {
        Asker { trusted: bundle.unwrap(), ..self.proxy() }
    }
}

/// A node that says how full it is.
async fn node(at: (IpAddr, u16), percent: f64) {
    let body = json!({"used_bytes": 1, "capacity_bytes": 2, "used_percent": percent}).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind(at).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1_024]).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
}

/// Somebody who asks.
pub(super) struct Asker {
    address: SocketAddr,
    trusted: String,
    shown: Option<Shown>,
    http2: bool,
    user: &'static str,
    groups: &'static [&'static str],
}

/// What somebody is told, or why there is no connection.
pub(super) type Answer = Result<(StatusCode, Value), String>;

type Sender1 = http1::SendRequest<Empty<Bytes>>;
type Sender2 = http2::SendRequest<Empty<Bytes>>;

/// A way to ask.
pub(super) enum Connection {
    One(Sender1, Vec<(&'static str, String)>),
    Two(Sender2, Vec<(&'static str, String)>),
}

fn failed(error: impl ToString) -> String {
    error.to_string()
}

impl Asker {
    pub(super) fn over_http2(self) -> Asker {
        Asker { http2: true, ..self }
    }

    /// For a user without groups.
    pub(super) fn speaking_for(self, user: &'static str) -> Asker {
        Asker { user, groups: &[], ..self }
    }

    /// Asks once, over a connection of its own.
    pub(super) async fn ask(&self, path: &str) -> Answer {
        self.connect().await?.ask(path).await
    }

    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let mut authorities = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.trusted.as_bytes()) {
            authorities.add(authority.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authorities);
        let mut config = match self.shown.clone() {
            Some(shown) => {
                config.with_client_auth_cert(vec![shown.certificate], shown.key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        if self.http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let socket = TcpStream::connect(self.address).await.map_err(failed)?;
        let connector = TlsConnector::from(Arc::new(config));
        let host = ServerName::try_from(HOST).unwrap();
        let stream = TokioIo::new(connector.connect(host, socket).await.map_err(failed)?);
        let mut headers = vec![("x-remote-user", self.user.to_owned())];
        headers.extend(self.groups.iter().map(|group| ("x-remote-group", (*group).to_owned())));
        if self.http2 {
            let shaken = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = shaken.map_err(failed)?;
            tokio::spawn(connection);
            return Ok(Connection::Two(sender, headers));
        }
        let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(Connection::One(sender, headers))
    }
}

impl Connection {
    pub(super) async fn ask(&mut self, path: &str) -> Answer {
        let answered = async {
            let response = match self {
                Connection::One(sender, headers) => {
                    sender.send_request(question(path, headers)).await
                }
                Connection::Two(sender, headers) => {
                    let uri = format!("https://{HOST}{path}");
                    sender.send_request(question(&uri, headers)).await
                }
            };
            read(response.map_err(failed)?).await
        };
        timeout(WITHIN, answered).await.unwrap()
    }

    /// Waits until the operator has closed it.
    pub(super) async fn closed(&mut self) {
        let Connection::One(sender, _) = self else { panic!("only HTTP/1 is waited for") };
        let closed = async {
            while !sender.is_closed() {
                tokio::task::yield_now().await;
            }
        };
        timeout(WITHIN, closed).await.unwrap();
    }
}

fn question(uri: &str, headers: &[(&'static str, String)]) -> Request<Empty<Bytes>> {
    let mut request = Request::get(uri).header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(Empty::new()).unwrap()
}

async fn read(response: http::Response<Incoming>) -> Answer {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(failed)?.to_bytes();
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
