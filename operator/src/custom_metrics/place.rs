//! Where all of it is in the cluster, and whose it is.
//!
//! The chart makes the APIService and the Secret, and says nothing of what is written into them
//! here, so that neither puts the other's fields back.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_rustls::rustls;

use super::API_SERVICE;
use super::certificate::{Files, InvalidCertificate, MakeError};
use super::front_proxy::InvalidFrontProxy;
use crate::names::MANAGED_BY;

/// Where the API is served, and where its certificate is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The operator's own namespace.
    pub namespace: String,
    /// The Service of the operators.
    pub service: String,
    /// The Secret with the certificate. It has to be there, and may be empty.
    pub secret: String,
}

impl Place {
    /// The name under which the API server asks.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Whether an APIService stands for this place. There is one in a cluster: another one is
    /// somebody else's, and so is the API.
    fn is_registered(&self, api_service: &APIService) -> bool {
        let service = api_service.spec.as_ref().and_then(|spec| spec.service.as_ref());
        service.is_some_and(|it| {
            it.name.as_ref() == Some(&self.service)
                && it.namespace.as_ref() == Some(&self.namespace)
        })
    }
}

/// The two objects that the API has in the cluster.
pub(super) struct Objects {
    /// Where they are.
    pub(super) place: Place,
    api_services: Api<APIService>,
    secrets: Api<Secret>,
}

impl Objects {
    pub(super) fn new(client: &Client, place: Place) -> Objects {
        let secrets = Api::namespaced(client.clone(), &place.namespace);
        Objects { api_services: Api::all(client.clone()), secrets, place }
    }

    /// The APIService.
    ///
    /// # Errors
    /// When it does not stand for this place.
    pub(super) async fn registered(&self) -> Result<APIService, PlaceError> {
        let found = self.api_services.get_opt(API_SERVICE).await;
        let found = found.map_err(PlaceError::api("read the APIService"))?;
        let found = found.ok_or(PlaceError::Unregistered)?;
        if self.place.is_registered(&found) { Ok(found) } else { Err(PlaceError::Foreign) }
    }

    /// The Secret, with whatever it has.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub(super) async fn secret(&self) -> Result<Secret, PlaceError> {
        let secret = self.secrets.get(&self.place.secret).await;
        secret.map_err(PlaceError::api("read the Secret with the certificate"))
    }

    /// Has the API server trust these authorities, and no others.
    ///
    /// # Errors
    /// When it does not do it, or the APIService is another one by now.
    pub(super) async fn trust(
        &self,
        api_service: &APIService,
        authorities: String,
    ) -> Result<(), PlaceError> {
        let bundle = ByteString(authorities.into_bytes());
        let trusted = api_service.spec.as_ref().and_then(|spec| spec.ca_bundle.as_ref());
        if trusted == Some(&bundle) {
            return Ok(());
        }
        let version = &api_service.metadata.resource_version;
        let change = json!({
            "metadata": {"uid": api_service.metadata.uid, "resourceVersion": version},
            "spec": {"caBundle": bundle},
        });
        let parameters =
            PatchParams { field_manager: Some(MANAGED_BY.into()), ..PatchParams::default() };
        let written =
            self.api_services.patch(API_SERVICE, &parameters, &Patch::Merge(change)).await;
        written.map(drop).map_err(PlaceError::api("write the authorities into the APIService"))
    }

    /// Has the Secret keep these files, and no others.
    ///
    /// # Errors
    /// When the API server does not do it, or the Secret is another one by now.
    pub(super) async fn write(&self, secret: Secret, files: Files) -> Result<(), PlaceError> {
        let secret = Secret { data: Some(files), ..secret };
        let parameters =
            PostParams { field_manager: Some(MANAGED_BY.into()), ..PostParams::default() };
        let written = self.secrets.replace(&self.place.secret, &parameters, &secret).await;
        written.map(drop).map_err(PlaceError::api("write the certificate into the Secret"))
    }
}

/// Why the API can not be served now, or its certificate not be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The API server did not do something.
    #[error("{what}: {source}")]
    Api {
        /// What.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server was silent.
    #[error("the API server does not answer")]
    Silent,
    /// Nobody is registered for the API.
    #[error("there is no APIService {API_SERVICE}, so nobody asks here")]
    Unregistered,
    /// Somebody else is.
    #[error(
        "the APIService {API_SERVICE} is somebody else's, so it is left alone: delete it, or turn the API off here"
    )]
    Foreign,
    /// There is nothing to serve with.
    #[error("the Secret {0} has no certificate yet")]
    Empty(String),
    /// What it has is no certificate.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// None could be made.
    #[error("make a certificate: {0}")]
    Make(#[from] MakeError),
    /// It is not known whom to believe.
    #[error(transparent)]
    FrontProxy(#[from] InvalidFrontProxy),
    /// What was read is of no use for TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The authorities of the proxy are of no use for TLS.
    #[error("TLS: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

impl PlaceError {
    pub(super) fn api(what: &'static str) -> impl FnOnce(kube::Error) -> PlaceError {
        move |source| PlaceError::Api { what, source: Box::new(source) }
    }

    /// Whether a person has to do something first.
    pub(super) fn is_for_people(&self) -> bool {
        matches!(self, PlaceError::Unregistered | PlaceError::Foreign)
    }
}
