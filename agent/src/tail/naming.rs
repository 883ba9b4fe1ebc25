//! What a file is called in the cluster.

use std::{fmt::Write, os::unix::ffi::OsStrExt, path::Path};

use clap::ValueEnum;
use sheaf_proto::names::CHUNK_ID_BYTES_MAX;

/// What an id is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IdFrom {
    /// HOST/PATH
    Path,
    /// HOST/NAMESPACE/POD/CONTAINER for what lies in /var/log/pods or /var/log/containers, and
    /// HOST/PATH for all else
    Kubernetes,
}

/// Gives files their ids.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    host: String,
    from: IdFrom,
}

/// A path whose id would be too long.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("its id would have {0} bytes: at most {CHUNK_ID_BYTES_MAX} are taken")]
pub(crate) struct TooLong(usize);

impl Naming {
    /// Ids that begin with the name of a host.
    pub(crate) fn new(host: &str, from: IdFrom) -> Naming {
        Naming { host: escaped(host.as_bytes()).replace('/', "%2F"), from }
    }

    /// The id of the file with this absolute path.
    ///
    /// # Errors
    /// If it would be too long.
    pub(crate) fn id(&self, path: &Path) -> Result<String, TooLong> {
        let plain = || escaped(path.as_os_str().as_bytes());
        let rest = match self.from {
            IdFrom::Path => plain(),
            IdFrom::Kubernetes => container(path).unwrap_or_else(plain),
        };
        let id = format!("{}/{}", self.host, rest.trim_start_matches('/'));
        if id.len() > CHUNK_ID_BYTES_MAX { Err(TooLong(id.len())) } else { Ok(id) }
    }
}

/// `NAMESPACE/POD/CONTAINER` of a container's log, as the kubelet names it:
/// `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log` or
/// `/var/log/containers/POD_NAMESPACE_CONTAINER-64DIGITS.log`.
fn container(path: &Path) -> Option<String> {
    let path = path.to_str()?;
    if let Some(rest) = path.strip_prefix("/var/log/pods/") {
        let (pod, rest) = rest.split_once('/')?;
        let (container, file) = rest.split_once('/')?;
        let mut parts = pod.splitn(3, '_');
        let (namespace, pod, _uid) = (parts.next()?, parts.next()?, parts.next()?);
        let is_log = file.split('.').next().is_some_and(is_number) && !file.contains('/');
        return is_log.then(|| format!("{namespace}/{pod}/{container}"));
    }
    let rest = path.strip_prefix("/var/log/containers/")?.strip_suffix(".log")?;
    let mut parts = rest.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, digits) = container.rsplit_once('-')?;
    let is_hexadecimal = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_log = is_hexadecimal && !container.contains('/') && !container.is_empty();
    is_log.then(|| format!("{namespace}/{pod}/{container}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Text as it is, but for `%` and what is no UTF-8: those are `%` and two hexadecimal digits.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::PathBuf};

    use super::*;

    fn id(from: IdFrom, path: &str) -> String {
        Naming::new("node-1", from).id(Path::new(path)).unwrap()
    }

    #[test]
    fn an_id_is_the_host_and_the_path() {
        assert_eq!(id(IdFrom::Path, "/var/log/app/a.log"), "node-1/var/log/app/a.log");
        assert_eq!(id(IdFrom::Path, "/größe 100%"), "node-1/größe 100%25");
        let odd = PathBuf::from(OsStr::from_bytes(b"/a\xff\xfe.log"));
        let naming = Naming::new("a/b%", IdFrom::Path);
        assert_eq!(naming.id(&odd), Ok("a%2Fb%25/a%FF%FE.log".into()));
    }

    #[test]
    fn a_path_that_is_too_long_has_no_id() {
        let long = format!("/{}", "x".repeat(1_018));
        let naming = Naming::new("node", IdFrom::Path);
        assert_eq!(naming.id(Path::new(&long)).unwrap().len(), 1_023);
        assert_eq!(naming.id(Path::new(&(long + "yz"))), Err(TooLong(1_025)));
    }

    #[test]
    fn containers_are_named_by_their_pods() {
        let kubernetes = |path: &str| id(IdFrom::Kubernetes, path);
        let digits = "0123456789abcdef".repeat(4);
        let wanted = "node-1/shop/cart-7d9f/main-app";
        assert_eq!(kubernetes("/var/log/pods/shop_cart-7d9f_5e0c/main-app/0.log"), wanted);
        assert_eq!(
            kubernetes("/var/log/pods/shop_cart-7d9f_5e0c/main-app/0.log.20261122-060000"),
            wanted
        );
        let link = format!("/var/log/containers/cart-7d9f_shop_main-app-{digits}.log");
        assert_eq!(kubernetes(&link), wanted);
    }

    #[test]
    fn what_the_kubelet_does_not_name_keeps_its_path() {
        for path in [
            "/var/log/syslog",
            "/var/log/pods/cart/main/0.log",
            "/var/log/pods/shop_cart_5e0c/main/other.log",
            "/var/log/pods/shop_cart_5e0c/main/deeper/0.log",
            "/var/log/containers/cart_shop_main.log",
            "/var/log/containers/cart.log",
        ] {
            assert_eq!(id(IdFrom::Kubernetes, path), format!("node-1{path}"));
        }
        let pods = "/var/log/pods/shop_cart_5e0c/main/0.log";
        assert_eq!(id(IdFrom::Path, pods), format!("node-1{pods}"));
    }
}
