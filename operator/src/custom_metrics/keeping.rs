//! The certificate is renewed, and trusted before anybody serves with it. Only the operator that
//! acts does this.

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tracing::{info, warn};

use super::certificate::Certificate;
use super::place::{Objects, Place, PlaceError};
use super::rotation::{Certificates, Due, VALID_FOR};
use super::{API_SERVICE, rounds};

/// Keeps a certificate that can be served, and has the API server trust it. It never ends.
pub async fn keep(client: &Client, place: Place) {
    let keeper = Keeper::new(client, place);
    let what = "the certificate of custom.metrics.k8s.io is not looked after";
    rounds::repeat(what, || keeper.round(Timestamp::now())).await;
}

/// Who keeps the certificate.
pub(super) struct Keeper(Objects);

impl Keeper {
    pub(super) fn new(client: &Client, place: Place) -> Keeper {
        Keeper(Objects::new(client, place))
    }

    /// Looks once, and does what is due.
    ///
    /// # Errors
    /// When the API server does not do something, or the API is somebody else's. It can be done
    /// again.
    pub(super) async fn round(&self, now: Timestamp) -> Result<(), PlaceError> {
        let Keeper(objects) = self;
        let api_service = objects.registered().await?;
        let secret = objects.secret().await?;
        let kept = match Certificates::read(&secret.data.clone().unwrap_or_default()) {
            Ok(kept) => kept,
            Err(error) => {
                warn!(%error, secret = objects.place.secret, "another certificate is made");
                None
            }
        };
        let due = kept.as_ref().map(|kept| kept.due(now));
        let wanted = match (kept, due) {
            (Some(kept), Some(Due::Nothing)) => {
                return objects.trust(&api_service, kept.trusted()).await;
            }
            (Some(kept), Some(Due::Retirement)) => kept.retired(),
            (Some(kept), _) => kept.renewed(self.make(now)?),
            (None, _) => Certificates::first(self.make(now)?),
        };
        // In this order: whoever reads the Secret serves what is in it.
        objects.trust(&api_service, wanted.trusted()).await?;
        objects.write(secret, wanted.write()).await
    }

    fn make(&self, now: Timestamp) -> Result<Certificate, PlaceError> {
        let host = self.0.place.host();
        info!(host, "a certificate is made for {API_SERVICE}");
        Ok(Certificate::make(&host, now, VALID_FOR)?)
    }
}
