//! Where a node listens.

use std::{fmt, io, str::FromStr, time::Duration};

use http::Uri;
use tokio::net::TcpStream;

/// Longer than a lost SYN takes to be sent again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A host and perhaps a port: `http://127.0.0.1:4317`, `127.0.0.1:4317` or `node.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: Option<u16>,
}

/// A host and its port, as the `Host` header has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority(String);

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum InvalidEndpoint {
    /// Not `host` or `host:port`, with or without `http://`.
    #[error("an address like http://127.0.0.1:4317 is expected")]
    Malformed,
    /// `https://` or another scheme.
    #[error("only http:// is supported, without TLS")]
    Scheme,
    /// A path: the paths are fixed.
    #[error("an address without a path is expected")]
    Path,
}

/// No connection came about.
#[derive(Debug, thiserror::Error)]
#[error("connect to {authority}: {reason}")]
pub(crate) struct ConnectError {
    authority: Authority,
    reason: io::Error,
}

impl Endpoint {
    /// This machine, at the port that the context gives.
    pub(crate) fn local() -> Self {
        Endpoint { host: "127.0.0.1".into(), port: None }
    }

    /// Completes it with a port, if it has none.
    pub(crate) fn at(&self, default_port: u16) -> Authority {
        Authority(format!("{}:{}", self.host, self.port.unwrap_or(default_port)))
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = text.parse().map_err(|_| InvalidEndpoint::Malformed)?;
        if !matches!(uri.scheme_str(), None | Some("http")) {
            return Err(InvalidEndpoint::Scheme);
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(InvalidEndpoint::Path);
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(InvalidEndpoint::Malformed)?;
        let port = uri.port_u16();
        let plain = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        // Credentials and ports beyond 65535 would otherwise go unnoticed.
        if uri.authority().is_none_or(|authority| authority.as_str() != plain) {
            return Err(InvalidEndpoint::Malformed);
        }
        Ok(Endpoint { host: host.to_owned(), port })
    }
}

impl Authority {
    /// Opens a connection; gives up after five seconds.
    pub(crate) async fn connect(&self) -> Result<TcpStream, ConnectError> {
        let fail = |reason| ConnectError { authority: self.clone(), reason };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.0))
            .await
            .map_err(|_| fail(io::Error::new(io::ErrorKind::TimedOut, "no answer")))?
            .map_err(fail)?;
        stream.set_nodelay(true).map_err(fail)?;
        Ok(stream)
    }

    /// As the `Host` header has it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Result<String, InvalidEndpoint> {
        text.parse::<Endpoint>().map(|endpoint| endpoint.at(4317).to_string())
    }

    #[test]
    fn hosts_with_and_without_scheme_and_port_are_read() {
        assert_eq!(authority("http://127.0.0.1:4000").unwrap(), "127.0.0.1:4000");
        assert_eq!(authority("http://[::1]:4000/").unwrap(), "[::1]:4000");
        assert_eq!(authority("node.example:4000").unwrap(), "node.example:4000");
        assert_eq!(authority("localhost").unwrap(), "localhost:4317");
    }

    #[test]
    fn what_would_not_be_honoured_is_refused() {
        assert_eq!(authority("https://localhost"), Err(InvalidEndpoint::Scheme));
        assert_eq!(authority("http://localhost/v1/logs"), Err(InvalidEndpoint::Path));
        assert_eq!(authority("/v1/logs"), Err(InvalidEndpoint::Path));
        assert_eq!(authority("http://user@localhost"), Err(InvalidEndpoint::Malformed));
        assert_eq!(authority("localhost:99999"), Err(InvalidEndpoint::Malformed));
        assert_eq!(authority(""), Err(InvalidEndpoint::Malformed));
    }
}
