//! Where a node's peers reach it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

const NAME_BYTES_MAX: usize = 253; // of DNS, RFC 1035
const LABEL_BYTES_MAX: usize = 63;

/// A host and a port at which other nodes connect: an IP address or a DNS name, in lower
/// case. A name is resolved anew for each connection, and may stand for several nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress(Form);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    Ip(SocketAddr),
    Name { host: String, port: u16 },
}

/// Why nobody can connect to an address, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeerAddress {
    /// It is not `host:port`.
    #[error("write a host and a port: 10.0.0.1:9465, [fd00::1]:9465 or sheaf-0.sheaf:9465")]
    Malformed,
    /// It means all addresses of a machine.
    #[error("write one address of the node, not the one that stands for all of them")]
    Unspecified,
}

impl PeerAddress {
    /// A host by its name. Port 0 stands for one that is known once the node listens.
    ///
    /// # Errors
    /// When the host has no name that DNS could have.
    pub fn named(host: &str, port: u16) -> Result<PeerAddress, InvalidPeerAddress> {
        if !is_name(host) {
            return Err(InvalidPeerAddress::Malformed);
        }
        Ok(PeerAddress(Form::Name { host: host.to_ascii_lowercase(), port }))
    }

    /// The same host with another port.
    pub fn with_port(&self, port: u16) -> PeerAddress {
        match &self.0 {
            Form::Ip(address) => PeerAddress(Form::Ip(SocketAddr::new(address.ip(), port))),
            Form::Name { host, .. } => PeerAddress(Form::Name { host: host.clone(), port }),
        }
    }

    /// Whether it is a DNS name, which may stand for several nodes.
    pub fn is_name(&self) -> bool {
        matches!(self.0, Form::Name { .. })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match &self.0 {
            Form::Ip(address) => address.port(),
            Form::Name { port, .. } => *port,
        }
    }
}

impl TryFrom<SocketAddr> for PeerAddress {
    type Error = InvalidPeerAddress;

    /// Port 0 stands for one that is known once the node listens.
    fn try_from(address: SocketAddr) -> Result<PeerAddress, InvalidPeerAddress> {
        if address.ip().is_unspecified() {
            return Err(InvalidPeerAddress::Unspecified);
        }
        Ok(PeerAddress(Form::Ip(address)))
    }
}

impl FromStr for PeerAddress {
    type Err = InvalidPeerAddress;

    /// An address that others can connect to: its port is not 0.
    fn from_str(text: &str) -> Result<PeerAddress, InvalidPeerAddress> {
        let address = match text.parse::<SocketAddr>() {
            Ok(address) => PeerAddress::try_from(address)?,
            Err(_) => {
                let (host, port) = text.rsplit_once(':').ok_or(InvalidPeerAddress::Malformed)?;
                let digits = port.bytes().all(|digit| digit.is_ascii_digit());
                let port = port.parse().ok().filter(|_| digits);
                PeerAddress::named(host, port.ok_or(InvalidPeerAddress::Malformed)?)?
            }
        };
        if address.port() == 0 {
            return Err(InvalidPeerAddress::Malformed);
        }
        Ok(address)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Ip(address) => address.fmt(f),
            Form::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Whether DNS could have the name. One that ends in a number is a mistyped IPv4 address,
/// unless it has no dot: machines are called so.
fn is_name(host: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let relative = host.strip_suffix('.').unwrap_or(host);
    let last = relative.rsplit_once('.').map(|(_, last)| last);
    host.len() <= NAME_BYTES_MAX
        && relative.split('.').all(is_label)
        && !last.is_some_and(|last| last.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PeerAddress, InvalidPeerAddress> {
        text.parse()
    }

    #[test]
    fn ip_addresses_and_names_with_a_port_are_read() {
        let longest = format!("{0}.{0}.{0}.{1}:9465", "a".repeat(63), "b".repeat(61));
        for (text, is_name) in [
            ("10.0.0.1:9465", false),
            ("[fd00::1]:9465", false),
            ("sheaf:1", true),
            ("sheaf-0.sheaf.logs.svc.cluster.local:65535", true),
            ("sheaf.example.:9465", true),
            ("compose_node_1:9465", true),
            ("123456789012:9465", true),
            ("1.example:9465", true),
            (&longest, true),
        ] {
            let address = parse(text).unwrap();
            assert_eq!((address.to_string().as_str(), address.is_name()), (text, is_name));
        }
        assert_eq!(parse("Node-A:9465"), parse("node-a:9465"));
        assert_eq!(parse("[fd00:0::1]:9465"), parse("[fd00::1]:9465"));
    }

    #[test]
    fn what_nobody_can_connect_to_is_refused() {
        let label = format!("{}:9465", "a".repeat(64));
        let name = format!("{0}.{0}.{0}.{1}:9465", "a".repeat(63), "b".repeat(62));
        for text in [
            "",
            "9465",
            ":9465",
            "sheaf",
            "sheaf:",
            "sheaf:0",
            "sheaf:65536",
            "sheaf:+1",
            "10.0.0.1",
            "10.0.0.1:0",
            "10.0.0:9465",
            "10.0.0.256:9465",
            "fd00::1:9465",
            "a..b:9465",
            ".a:9465",
            "-a:9465",
            "a-:9465",
            "a b:9465",
            "a/b:9465",
            "a,b:9465",
            "user@a:9465",
            "http://a:9465",
            "größe:9465",
            &label,
            &name,
        ] {
            assert_eq!(parse(text), Err(InvalidPeerAddress::Malformed), "{text}");
        }
        for text in ["0.0.0.0:9465", "[::]:9465"] {
            assert_eq!(parse(text), Err(InvalidPeerAddress::Unspecified), "{text}");
        }
    }

    #[test]
    fn a_node_that_has_yet_to_listen_may_have_port_0() {
        assert_eq!(PeerAddress::named("Sheaf", 0).unwrap().to_string(), "sheaf:0");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(PeerAddress::try_from(listen).unwrap().port(), 0);
    }
}
