//! What the API is served with now: read again and again, by every operator.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tracing::info;

use super::certificate::Certificate;
use super::front_proxy::{self, FrontProxy};
use super::place::{Objects, Place, PlaceError};
use super::rotation::{Certificates, SETTLES_AFTER};
use super::{API_SERVICE, rounds};

// Everybody has read a new certificate when it is served.
const _: () = assert!(10 * rounds::EVERY.as_secs() <= SETTLES_AFTER.as_secs().unsigned_abs());

/// What the API is served with.
pub(super) struct Credentials {
    /// The certificate, and whose certificates are accepted.
    pub(super) tls: Arc<ServerConfig>,
    /// Who may speak for others.
    pub(super) front_proxy: FrontProxy,
    certificate: Certificate,
}

/// What is served with at the moment: nothing while that is unknown, or the API is somebody
/// else's.
pub(super) type Current = Option<Arc<Credentials>>;

/// Reads it.
pub(super) struct Reader {
    objects: Objects,
    config_maps: Api<ConfigMap>,
}

impl Reader {
    pub(super) fn new(client: &Client, place: Place) -> Reader {
        let config_maps = Api::namespaced(client.clone(), front_proxy::NAMESPACE);
        Reader { objects: Objects::new(client, place), config_maps }
    }

    /// Keeps it up to date. It never ends.
    pub(super) async fn follow(&self, current: watch::Sender<Current>) {
        let what = "custom.metrics.k8s.io is served as before, or not at all";
        rounds::repeat(what, || self.look(&current, Timestamp::now())).await;
    }

    /// Looks once. What cannot be read stays as it was last; what is somebody else's is given up.
    ///
    /// # Errors
    /// When there is nothing new that can be served with.
    pub(super) async fn look(
        &self,
        current: &watch::Sender<Current>,
        now: Timestamp,
    ) -> Result<(), PlaceError> {
        match self.read(now).await {
            Ok((certificate, front_proxy)) => {
                let is_same = current.borrow().as_ref().is_some_and(|it| {
                    it.certificate == certificate && it.front_proxy == front_proxy
                });
                if !is_same {
                    let credentials = Credentials::of(certificate, front_proxy)?;
                    info!("{API_SERVICE} is served");
                    current.send_replace(Some(Arc::new(credentials)));
                }
                Ok(())
            }
            Err(error) => {
                if matches!(error, PlaceError::Foreign | PlaceError::Unregistered) {
                    current.send_if_modified(|current| current.take().is_some());
                }
                Err(error)
            }
        }
    }

    async fn read(&self, now: Timestamp) -> Result<(Certificate, FrontProxy), PlaceError> {
        self.objects.registered().await?;
        let secret = self.objects.secret().await?;
        let certificates = Certificates::read(&secret.data.unwrap_or_default())?;
        let empty = || PlaceError::Empty(self.objects.place.secret.clone());
        let certificate = certificates.ok_or_else(empty)?.served(now).clone();
        let said = self.config_maps.get(front_proxy::CONFIG_MAP).await;
        let said = said.map_err(PlaceError::api("read whom the API server speaks for"))?;
        Ok((certificate, FrontProxy::try_from(&said)?))
    }
}

impl Credentials {
    fn of(certificate: Certificate, front_proxy: FrontProxy) -> Result<Credentials, PlaceError> {
        let provider = Arc::new(ring::default_provider());
        let mut authorities = RootCertStore::empty();
        for authority in &front_proxy.authorities {
            authorities.add(authority.clone())?;
        }
        // Whoever shows a certificate has to show a good one; probes show none.
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(authorities),
            Arc::clone(&provider),
        )
        .allow_unauthenticated()
        .build()?;
        let (chain, key) = certificate.for_tls()?;
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![chain], key)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A session that is resumed would be believed for longer than its certificate.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Credentials { tls: Arc::new(tls), front_proxy, certificate })
    }
}
