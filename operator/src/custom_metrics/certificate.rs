//! A certificate, with the authority that signed it and nothing else: whoever knows that
//! authority trusts this one, and nobody can make others, since its key is forgotten.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::parse_x509_certificate;

use crate::names::MANAGED_BY;

/// How much earlier than it was made a certificate is valid, for clocks that are behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// What the files are called in a Secret.
const AUTHORITY: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// What the Secret keeps, by name.
pub(super) type Files = BTreeMap<String, ByteString>;

/// Why there is no certificate where one was to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} of the Secret is missing, or is not what was written there")]
pub(super) struct InvalidCertificate {
    file: String,
}

/// Why none could be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] rcgen::Error),
    /// The clock says something that a certificate cannot.
    #[error("the clock is far off: {0}")]
    Clock(#[from] time::error::ComponentRange),
}

/// A certificate, its key, and its authority.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// All as PEM.
    pub(super) authority: String,
    certificate: String,
    key: String,
    /// When it was made.
    pub(super) made: Timestamp,
    /// From when on it is worth nothing.
    until: Timestamp,
}

impl Certificate {
    /// Makes one for a host.
    ///
    /// # Errors
    /// When the system has no random numbers, or the clock is centuries off.
    pub(super) fn make(
        host: &str,
        now: Timestamp,
        valid_for: SignedDuration,
    ) -> Result<Certificate, MakeError> {
        let from = OffsetDateTime::from_unix_timestamp((now - BACKDATED).as_second())?;
        let until = now + valid_for;
        let to = OffsetDateTime::from_unix_timestamp(until.as_second())?;
        let valid = |mut params: CertificateParams| {
            (params.not_before, params.not_after) = (from, to);
            params
        };
        let mut authority = valid(CertificateParams::default());
        // Two that are trusted at the same time are told apart by their names.
        let name = format!("{MANAGED_BY} since {}", now.as_second());
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let own = KeyPair::generate()?;
        let signed = authority.self_signed(&own)?;
        let issuer = Issuer::new(authority, own);

        let mut params = valid(CertificateParams::new([host.to_owned()])?);
        params.distinguished_name.push(DnType::CommonName, MANAGED_BY);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Certificate {
            authority: signed.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            made: now,
            until,
        })
    }

    /// What was written under a prefix, if anything was.
    ///
    /// # Errors
    /// When it is not what [`write`](Certificate::write) wrote.
    pub(super) fn read(
        files: &Files,
        prefix: &str,
    ) -> Result<Option<Certificate>, InvalidCertificate> {
        let name = |file: &str| format!("{prefix}{file}");
        if [AUTHORITY, CERTIFICATE, KEY].iter().all(|file| !files.contains_key(&name(file))) {
            return Ok(None);
        }
        let invalid = |file| InvalidCertificate { file: name(file) };
        let text = |file| {
            let bytes = files.get(&name(file)).map(|it| it.0.clone());
            bytes.and_then(|it| String::from_utf8(it).ok()).ok_or_else(|| invalid(file))
        };
        let (authority, certificate, key) = (text(AUTHORITY)?, text(CERTIFICATE)?, text(KEY)?);
        validity(&authority).ok_or_else(|| invalid(AUTHORITY))?;
        let (from, until) = validity(&certificate).ok_or_else(|| invalid(CERTIFICATE))?;
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| invalid(KEY))?;
        let made = from.checked_add(BACKDATED).map_err(|_| invalid(CERTIFICATE))?;
        Ok(Some(Certificate { authority, certificate, key, made, until }))
    }

    /// Writes it under a prefix.
    pub(super) fn write(&self, prefix: &str, files: &mut Files) {
        let parts =
            [(AUTHORITY, &self.authority), (CERTIFICATE, &self.certificate), (KEY, &self.key)];
        files.extend(parts.map(|(file, text)| {
            (format!("{prefix}{file}"), ByteString(text.clone().into_bytes()))
        }));
    }

    /// How long ago it was made; negative if the clock that made it was ahead.
    pub(super) fn age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.made)
    }

    /// Whether others accept it now.
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        self.age(now) >= -BACKDATED && now < self.until
    }

    /// What TLS needs of it.
    ///
    /// # Errors
    /// When it cannot be read, which [`read`](Certificate::read) rules out.
    pub(super) fn for_tls(
        &self,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), InvalidCertificate> {
        let invalid = |file: &str| InvalidCertificate { file: file.to_owned() };
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        Ok((certificate.map_err(|_| invalid(CERTIFICATE))?, key.map_err(|_| invalid(KEY))?))
    }
}

/// From when until when a certificate is valid.
fn validity(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, parsed) = parse_x509_certificate(&certificate).ok()?;
    let validity = parsed.validity();
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(validity.not_before)?, at(validity.not_after)?))
}
