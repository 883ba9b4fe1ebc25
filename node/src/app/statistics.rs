//! What the admin port asks of the node.

use std::sync::{Arc, PoisonError, RwLock};

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use sheaf_proto::cluster::Cluster;
use sheaf_proto::statistics::{Account, Ledger, WindowCounts};
use tokio::sync::watch;

use crate::admin::{AdminError, Node};
use crate::app::engine::Reader;
use crate::app::metrics::Metrics;
use crate::cluster::standing::Standing;
use crate::cluster::view::view;
use crate::event::time::{Clock, SECOND, UnixNanos};
use crate::flush::delivery::statistics;
use crate::intake::Intake;
use crate::intake::admission::{Closed, Why};

/// How far back closed windows are shown.
const SHOWN: u64 = 3600 * SECOND;

/// Answers for the node, whether its engine runs or not.
pub struct Statistics {
    pub(super) intake: Intake,
    pub(super) metrics: Arc<Metrics>,
    pub(super) standing: Arc<Standing>,
    pub(super) readiness: watch::Receiver<bool>,
    pub(super) values_max: usize,
    pub(super) reader: RwLock<Option<Reader>>,
}

impl Statistics {
    /// Asks this engine from now on.
    pub fn attach(&self, reader: Reader) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// Asks no engine from now on, so that the one that ran can close its database.
    pub fn detach(&self) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reader(&self) -> Result<Reader, AdminError> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner).clone();
        reader.ok_or_else(|| AdminError::Unavailable("the node is starting".to_owned()))
    }

    async fn closed(&self, limit: usize) -> Result<Vec<Box<RawValue>>, AdminError> {
        let checkpoints = self.reader()?.checkpoints;
        let since = UnixNanos(Clock::system().now().0.saturating_sub(SHOWN));
        let printed = checkpoints.windows(since, limit).map_err(failed)?;
        let lines = printed.into_iter().map(|line| {
            let line = String::from_utf8(line).map_err(failed)?;
            RawValue::from_string(line).map_err(failed)
        });
        lines.collect()
    }

    async fn current(&self) -> Result<Vec<WindowCounts>, AdminError> {
        let current = self.reader()?.folding.current(self.values_max).await;
        let counts = current
            .into_iter()
            .map(|open| statistics(&open.aggregation, open.window, open.counts, 0, false));
        Ok(counts.collect())
    }

    async fn accounts(&self) -> Result<Ledger, AdminError> {
        let balances = self.reader()?.folding.balances().await.map_err(failed)?;
        let balanced = balances.accounts.iter().all(|(_, balance)| balance.holds());
        let aggregations = balances.accounts.into_iter().map(|(aggregation, balance)| Account {
            aggregation: aggregation.fact.name,
            accepted: balance.accepted,
            flushed: balance.flushed,
            distinct: balance.distinct,
            duplicate: balance.flushed.saturating_sub(balance.distinct),
            pending: balance.pending,
        });
        let aggregations = aggregations.collect();
        let rejected = self.intake.received().rejected();
        let accepted = balances.records;
        let received = accepted + rejected.values().sum::<u64>();
        Ok(Ledger { received, accepted, rejected, aggregations, balanced })
    }
}

impl Node for Statistics {
    fn readiness(&self) -> Result<(), String> {
        if *self.readiness.borrow() {
            return Ok(());
        }
        let closed = self.intake.admission().closed().unwrap_or(Closed::Starting);
        Err(Why::Closed(closed).to_string())
    }

    fn closed_windows(
        &self,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Box<RawValue>>, AdminError>> {
        self.closed(limit).boxed()
    }

    fn current_windows(&self) -> BoxFuture<'_, Result<Vec<WindowCounts>, AdminError>> {
        self.current().boxed()
    }

    fn ledger(&self) -> BoxFuture<'_, Result<Ledger, AdminError>> {
        self.accounts().boxed()
    }

    fn cluster(&self) -> Cluster {
        view(&self.standing)
    }

    fn metrics(&self, out: &mut String) {
        self.metrics.read_intake(&self.intake);
        self.metrics.write(out);
    }
}

fn failed(error: impl std::fmt::Display) -> AdminError {
    AdminError::Internal(error.to_string())
}
