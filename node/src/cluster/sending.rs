//! What this node keeps of slots that it leads, to their other owners.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use tokio::sync::watch;

use crate::aggregation::distinct_logs::count_table::restrict;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::Facts;
use crate::cluster::peers::{self, Chunks, Declined, Kept as Sent};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::carried::CarriedWindows;
use crate::flush::results::{Results, ResultsError};
use crate::flush::sharing::{Kept, KeptFiles, NotKept, Others};

/// How long an owner may take for each chunk that it is sent, and to say that it has all.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The ways to the other owners.
pub struct Sending {
    /// What came of windows here.
    pub results: Results,
    /// What is carried here.
    pub carried: CarriedWindows,
    /// The ways to the other members.
    pub members: peers::Member,
    /// Where they are reached.
    pub facts: watch::Receiver<Arc<Facts>>,
}

impl Others for Sending {
    fn keep_table<'a>(
        &'a self,
        node: NodeId,
        table: &'a Kept,
        slots: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        async move {
            let (sent, chunks) = self.table(table, slots)?;
            self.send(node, sent, chunks).await
        }
        .boxed()
    }

    fn keep_carry<'a>(
        &'a self,
        node: NodeId,
        carry: &'a Carry,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        async move {
            let file = self.carried.send(carry).map_err(not_kept)?;
            let chunks = file.map(|chunk| chunk.map(Bytes::from).map_err(not_now));
            self.send(node, Sent::Carry(carry.clone()), stream::iter(chunks).boxed()).await
        }
        .boxed()
    }

    fn keep_files<'a>(
        &'a self,
        node: NodeId,
        files: &'a KeptFiles,
        slots: SlotSet,
    ) -> BoxFuture<'a, Result<(), NotKept>> {
        self.send(node, Sent::Files(files.of(&slots)), stream::empty().boxed()).boxed()
    }
}

impl Sending {
    /// What some slots have of a table; all of it, where it cannot be divided.
    fn table(&self, kept: &Kept, slots: SlotSet) -> Result<(Sent, Chunks), NotKept> {
        let Kept { aggregation, window, table } = *kept;
        let found = self.results.find(aggregation, window.end).map_err(not_kept)?;
        let found = found.into_iter().find(|found| found.table == table);
        let found = found.ok_or_else(|| NotKept(format!("table {table:x} is gone")))?;
        let slots = match &found.summary {
            Some(_) => found.slots,
            None => found.slots.intersection(&slots),
        };
        let (summary, records) = (found.summary.clone().map(Box::new), found.records_of(&slots));
        let chunks = self.results.chunks(aggregation, window.end, found);
        let chunks = restrict::<_, _, ResultsError>(chunks.map(|chunk| Ok(chunk?)), slots);
        let chunks = chunks.map(|chunk| chunk.map(Bytes::from).map_err(not_now));
        let sent = Sent::Table { aggregation, window, slots, summary, records };
        Ok((sent, stream::iter(chunks).boxed()))
    }

    async fn send(&self, node: NodeId, sent: Sent, chunks: Chunks) -> Result<(), NotKept> {
        let address = self.facts.borrow().members().get(&node).map(|it| it.address.clone());
        let address = address.ok_or_else(|| NotKept(format!("node {node} is no member")))?;
        let other = self.members.other(node, &address);
        other.keep(&sent, chunks, ANSWER_WAIT).await.map_err(not_kept)
    }
}

fn not_kept(error: impl std::fmt::Display) -> NotKept {
    NotKept(error.to_string())
}

fn not_now(error: impl std::fmt::Display) -> Declined {
    Declined::NotNow(error.to_string())
}
