//! Who acts: the one operator that holds the lease.
//!
//! The lease is an object that every candidate replaces only in the version that it has read, so
//! two cannot both take it. Times on it are written for people: how long a holder was silent is
//! measured by each candidate's own clock, from when it saw the lease change, so clocks that
//! differ between machines do no harm. A holder that could not renew stops acting well before
//! anybody else may begin.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// How long a holder may be silent until another takes the lease.
const LEASE: Duration = Duration::from_secs(30);
/// How long after its last renewal a holder stops acting, whatever it is about to do.
const ACT_WITHIN: Duration = Duration::from_secs(20);
/// How often the lease is renewed, or looked at.
const EVERY: Duration = Duration::from_secs(8);
/// How often after a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long the API server may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

// Time for one try that hangs and one that works, and for what was sent to arrive.
const _: () = assert!(
    EVERY.as_secs() + 2 * ANSWER_WITHIN.as_secs() + AGAIN_AFTER.as_secs() <= ACT_WITHIN.as_secs()
);
const _: () = assert!(ACT_WITHIN.as_secs() + 2 * ANSWER_WITHIN.as_secs() <= LEASE.as_secs());

/// What a candidate has seen of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Observed {
    holder: Option<String>,
    version: String,
    /// When this version was seen first, by this machine's clock.
    since: Instant,
}

/// What a candidate does with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// It is held by another, who is not silent for long enough.
    Wait,
    /// It is free, or has run out, or was held by this one in an earlier life.
    Take,
}

fn decide(observed: &Observed, me: &str, now: Instant) -> Move {
    match &observed.holder {
        None => Move::Take,
        Some(holder) if holder == me => Move::Take,
        Some(_) if now.duration_since(observed.since) >= LEASE => Move::Take,
        Some(_) => Move::Wait,
    }
}

/// Why a lease could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server did not do it.
    #[error("lease: {0}")]
    Api(#[from] kube::Error),
    /// The API server was silent.
    #[error("lease: no answer within {ANSWER_WITHIN:?}")]
    Silent,
    /// The API server returned a lease without a version.
    #[error("lease: the API server's answer has no resource version")]
    NoVersion,
}

/// A candidate for the lease.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    me: String,
    observed: Option<Observed>,
}

/// The lease, held. It has to be renewed.
#[derive(Debug)]
pub struct Held {
    version: String,
    renewed: Instant,
}

impl Candidate {
    /// A candidate that calls itself `me`, which nobody else does.
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> Candidate {
        let leases = Api::namespaced(client, namespace);
        Candidate { leases, name: name.to_owned(), me: me.to_owned(), observed: None }
    }

    /// Waits until this one holds the lease; `stand_by` is called whenever another one is seen to.
    pub async fn elected(&mut self, mut stand_by: impl FnMut()) -> Held {
        loop {
            let pause = match self.try_once().await {
                Ok(Some(held)) => {
                    info!(lease = self.name, "this operator acts from now on");
                    return held;
                }
                Ok(None) => {
                    stand_by();
                    EVERY
                }
                Err(error) => {
                    warn!(%error, "the lease could not be taken");
                    AGAIN_AFTER
                }
            };
            sleep(pause).await;
        }
    }

    /// Renews the lease for as long as that works, and returns when nothing may be done under it
    /// any more.
    pub async fn keep(&mut self, mut held: Held) {
        let mut pause = EVERY;
        loop {
            let deadline = held.renewed + ACT_WITHIN;
            tokio::select! {
                () = sleep(pause) => {}
                () = tokio::time::sleep_until(deadline) => {
                    warn!("the lease was not renewed in time");
                    return;
                }
            }
            let renewed = tokio::select! {
                renewed = self.replace(Some(held.version.clone())) => renewed,
                () = tokio::time::sleep_until(deadline) => continue,
            };
            match renewed {
                Ok(Some(again)) => {
                    held = again;
                    pause = EVERY;
                }
                Ok(None) => {
                    warn!("another operator has taken the lease");
                    return;
                }
                Err(error) => {
                    warn!(%error, "the lease could not be renewed");
                    pause = AGAIN_AFTER;
                }
            }
        }
    }

    /// Gives the lease back, so that another one need not wait until it runs out.
    ///
    /// # Errors
    /// When the API server does not do it; then it runs out.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        let Some(observed) = self.observed.take().filter(|it| it.holder.as_ref() == Some(&self.me))
        else {
            return Ok(());
        };
        match self.write(LeaseSpec::default(), Some(observed.version)).await {
            // It has run out, and somebody else has it.
            Err(LeaseError::Api(kube::Error::Api(status))) if status.is_conflict() => Ok(()),
            written => written.map(drop),
        }
    }

    /// Takes the lease if that is allowed.
    async fn try_once(&mut self) -> Result<Option<Held>, LeaseError> {
        let Some(lease) = within(self.leases.get_opt(&self.name)).await? else {
            return self.replace(None).await;
        };
        let version = lease.metadata.resource_version.clone().ok_or(LeaseError::NoVersion)?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity);
        let holder = holder.filter(|holder| !holder.is_empty());
        self.observe(holder, version);
        match &self.observed {
            Some(observed) if decide(observed, &self.me, Instant::now()) == Move::Take => {
                let version = observed.version.clone();
                self.replace(Some(version)).await
            }
            _ => Ok(None),
        }
    }

    fn observe(&mut self, holder: Option<String>, version: String) {
        let known = self.observed.as_ref().is_some_and(|observed| observed.version == version);
        if !known {
            self.observed = Some(Observed { holder, version, since: Instant::now() });
        }
    }

    /// Puts this one on the lease if it is still of that version, or not there at all.
    async fn replace(&mut self, version: Option<String>) -> Result<Option<Held>, LeaseError> {
        let begun = Instant::now();
        let now = MicroTime(Timestamp::now());
        let spec = LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(LEASE.as_secs() as i32),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        match self.write(spec, version).await {
            Ok(lease) => {
                let version = lease.metadata.resource_version.ok_or(LeaseError::NoVersion)?;
                self.observe(Some(self.me.clone()), version.clone());
                Ok(Some(Held { version, renewed: begun }))
            }
            Err(LeaseError::Api(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self, spec: LeaseSpec, version: Option<String>) -> Result<Lease, LeaseError> {
        let is_new = version.is_none();
        let name = Some(self.name.clone());
        let metadata = ObjectMeta { name, resource_version: version, ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        let parameters = PostParams::default();
        if is_new {
            within(self.leases.create(&parameters, &lease)).await
        } else {
            within(self.leases.replace(&self.name, &parameters, &lease)).await
        }
    }
}

async fn within<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match timeout(ANSWER_WITHIN, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LeaseError::Silent),
    }
}

#[cfg(test)]
mod tests;
