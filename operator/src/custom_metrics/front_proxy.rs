//! Whom the API server speaks for. It passes requests on over connections on which it shows a
//! certificate, and says in headers who asked; anybody can write such headers, so they count on
//! such connections only. What the certificate and the headers are it says in a ConfigMap.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use k8s_openapi::api::core::v1::ConfigMap;
use percent_encoding::percent_decode_str;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::parse_x509_certificate;

/// Where the ConfigMap is, in every cluster.
pub(super) const NAMESPACE: &str = "kube-system";
pub(super) const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// What is in it.
const AUTHORITIES: &str = "requestheader-client-ca-file";
const NAMES: &str = "requestheader-allowed-names";
const USER_HEADERS: &str = "requestheader-username-headers";
const UID_HEADERS: &str = "requestheader-uid-headers";
const GROUP_HEADERS: &str = "requestheader-group-headers";
const EXTRA_PREFIXES: &str = "requestheader-extra-headers-prefix";

/// Groups that say whether somebody is known, and the user who is not.
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";

/// Why it is not known who may speak for others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ConfigMap {NAMESPACE}/{CONFIG_MAP} does not say which proxy to believe: {0}")]
pub(super) struct InvalidFrontProxy(&'static str);

/// Who may speak for others, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontProxy {
    /// Who signs its certificates.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// The names that its certificate may have; any if there are none.
    names: Vec<String>,
    user_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    /// Lower case, as names of headers are here.
    extra_prefixes: Vec<String>,
}

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl TryFrom<&ConfigMap> for FrontProxy {
    type Error = InvalidFrontProxy;

    fn try_from(object: &ConfigMap) -> Result<FrontProxy, InvalidFrontProxy> {
        let text = |key| object.data.as_ref().and_then(|data| data.get(key));
        let list = |key| match text(key) {
            Some(list) => serde_json::from_str(list).map_err(|_| InvalidFrontProxy(key)),
            None => Ok(Vec::<String>::new()),
        };
        let authorities = text(AUTHORITIES).ok_or(InvalidFrontProxy(AUTHORITIES))?;
        let authorities: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(authorities.as_bytes()).collect();
        let authorities = authorities.map_err(|_| InvalidFrontProxy(AUTHORITIES))?;
        if authorities.is_empty() {
            return Err(InvalidFrontProxy(AUTHORITIES));
        }
        let extra_prefixes = list(EXTRA_PREFIXES)?;
        Ok(FrontProxy {
            authorities,
            names: list(NAMES)?,
            user_headers: list(USER_HEADERS)?,
            uid_headers: list(UID_HEADERS)?,
            group_headers: list(GROUP_HEADERS)?,
            extra_prefixes: extra_prefixes.iter().map(|it| it.to_ascii_lowercase()).collect(),
        })
    }
}

impl FrontProxy {
    /// Whether it is the proxy that shows this certificate, which one of the authorities signed.
    pub(super) fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return false };
        let mut common = certificate.subject().iter_common_name();
        let name = common.next().and_then(|name| name.as_str().ok());
        self.names.is_empty() || self.names.iter().any(|allowed| Some(allowed.as_str()) == name)
    }

    /// Whom it speaks for, if it says that in text.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<User> {
        let name = first(headers, &self.user_headers)?;
        let mut groups = Vec::new();
        for header in &self.group_headers {
            for group in headers.get_all(header).iter().filter(|group| !group.is_empty()) {
                groups.push(text(group)?);
            }
        }
        // As every API server does: whoever has a name is known.
        let is_told = groups.iter().any(|it| it == AUTHENTICATED || it == UNAUTHENTICATED);
        if name != ANONYMOUS && !is_told {
            groups.push(AUTHENTICATED.to_owned());
        }
        let uid = first(headers, &self.uid_headers);
        Some(User { name, uid, groups, extra: self.extra(headers)? })
    }

    fn extra(&self, headers: &HeaderMap) -> Option<BTreeMap<String, Vec<String>>> {
        let mut extra = BTreeMap::<_, Vec<_>>::new();
        for prefix in &self.extra_prefixes {
            for (header, value) in headers {
                let Some(key) = header.as_str().strip_prefix(prefix.as_str()) else { continue };
                let decoded = percent_decode_str(key).decode_utf8();
                let key = decoded.map_or_else(|_| key.to_owned(), |key| key.into_owned());
                extra.entry(key).or_default().push(text(value)?);
            }
        }
        Some(extra)
    }
}

/// The first of these headers that says something.
fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    let mut said = names.iter().filter_map(|name| headers.get(name));
    said.find(|value| !value.is_empty()).and_then(text)
}

fn text(value: &HeaderValue) -> Option<String> {
    String::from_utf8(value.as_bytes().to_vec()).ok()
}

#[cfg(test)]
mod tests;
