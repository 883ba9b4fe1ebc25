//! Which certificate is served, which authorities are trusted, and what is due: decided from the
//! certificates that there are and the time, so that all operators decide alike.
//!
//! A new certificate is trusted before it is written down, served when everybody has heard of it,
//! and then the one before it is dropped. At any moment all who serve are trusted.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::certificate::{Certificate, Files, InvalidCertificate};

/// How long a certificate is valid ..
pub(super) const VALID_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);
/// .. after how long another one is made ..
const RENEWED_AFTER: SignedDuration = SignedDuration::from_hours(60 * 24);
/// .. how long that one is only trusted, and how much longer the one before it still is. Clocks
/// may differ by less.
pub(super) const SETTLES_AFTER: SignedDuration = SignedDuration::from_hours(1);

const _: () = assert!(RENEWED_AFTER.as_secs() + 4 * SETTLES_AFTER.as_secs() <= VALID_FOR.as_secs());

/// Before the files' names of the certificate before the newest.
const PREVIOUS: &str = "previous-";

/// The certificates that there are.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Certificates {
    newest: Certificate,
    previous: Option<Certificate>,
}

/// What is to be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Another one.
    Renewal,
    /// The one before the newest is not needed any more.
    Retirement,
}

impl Certificates {
    /// The first one.
    pub(super) fn first(newest: Certificate) -> Certificates {
        Certificates { newest, previous: None }
    }

    /// What a Secret has, if it has anything.
    ///
    /// # Errors
    /// When it is not what [`write`](Certificates::write) wrote.
    pub(super) fn read(files: &Files) -> Result<Option<Certificates>, InvalidCertificate> {
        let Some(newest) = Certificate::read(files, "")? else { return Ok(None) };
        Ok(Some(Certificates { newest, previous: Certificate::read(files, PREVIOUS)? }))
    }

    /// What a Secret is to have.
    pub(super) fn write(&self) -> Files {
        let mut files = Files::new();
        self.newest.write("", &mut files);
        if let Some(previous) = &self.previous {
            previous.write(PREVIOUS, &mut files);
        }
        files
    }

    /// What is due. One that is not valid yet was made by a clock that was wrong.
    pub(super) fn due(&self, now: Timestamp) -> Due {
        let age = self.newest.age(now);
        if age >= RENEWED_AFTER || !self.newest.is_valid(now) {
            Due::Renewal
        } else if self.previous.is_some() && age >= 2 * SETTLES_AFTER {
            Due::Retirement
        } else {
            Due::Nothing
        }
    }

    /// With another one, that is to be served later.
    pub(super) fn renewed(self, by: Certificate) -> Certificates {
        Certificates { newest: by, previous: Some(self.newest) }
    }

    /// Without the one before.
    pub(super) fn retired(self) -> Certificates {
        Certificates { previous: None, ..self }
    }

    /// The one to serve with.
    pub(super) fn served(&self, now: Timestamp) -> &Certificate {
        let is_settled = self.newest.age(now) >= SETTLES_AFTER;
        let previous = self.previous.as_ref().filter(|it| !is_settled && it.is_valid(now));
        previous.unwrap_or(&self.newest)
    }

    /// The authorities to trust, as PEM.
    pub(super) fn trusted(&self) -> String {
        let all = [Some(&self.newest), self.previous.as_ref()];
        all.into_iter().flatten().map(|it| it.authority.as_str()).collect()
    }
}

#[cfg(test)]
mod tests;
