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
use crate::event::time::Window;
use crate::flush::carried::CarriedWindows;
use crate::flush::results::{self, Results, ResultsError, SlotResults};
use crate::flush::sharing::{KeptFiles, NotKept, Others};

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
    fn keep_results(
        &self,
        node: NodeId,
        of: (u32, Window),
        slots: SlotSet,
    ) -> BoxFuture<'_, Result<(), NotKept>> {
        async move {
            for (table, slots) in self.tables(of, slots)? {
                let (sent, chunks) = self.read(of, table, slots);
                self.send(node, sent, chunks).await?;
            }
            Ok(())
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
    /// The tables that have what came of a window in some slots, and which of these each is
    /// sent for. They may be others than this node wrote: while it was not the slots' primary,
    /// whoever was has sent the same in others.
    fn tables(
        &self,
        (aggregation, window): (u32, Window),
        slots: SlotSet,
    ) -> Result<Vec<(SlotResults, SlotSet)>, NotKept> {
        let mut found = self.results.find(aggregation, window.end).map_err(not_kept)?;
        // What cannot be divided has all slots.
        found.sort_by_key(|found| found.summary.is_none());
        let (mut left, mut tables) = (slots, Vec::new());
        for found in found {
            let has = found.slots.intersection(&left);
            if !has.is_empty() {
                left = left.difference(&has);
                let of = if found.summary.is_some() { found.slots } else { has };
                tables.push((found, of));
            }
        }
        let now = self.facts.borrow().latest_cut().time;
        if !left.is_empty() && results::are_kept(window.end, now) {
            return Err(NotKept(format!("there are no results of slots {left} here")));
        }
        Ok(tables)
    }

    /// What some slots have of a table.
    fn read(
        &self,
        (aggregation, window): (u32, Window),
        found: SlotResults,
        slots: SlotSet,
    ) -> (Sent, Chunks) {
        let (summary, records) = (found.summary.clone().map(Box::new), found.records_of(&slots));
        let chunks = self.results.chunks(aggregation, window.end, found);
        let chunks = restrict::<_, _, ResultsError>(chunks.map(|chunk| Ok(chunk?)), slots);
        let chunks = chunks.map(|chunk| chunk.map(Bytes::from).map_err(not_now));
        let sent = Sent::Table { aggregation, window, slots, summary, records };
        (sent, stream::iter(chunks).boxed())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::carries::Carries;
    use crate::cluster::example::identity;
    use crate::cluster::example::mesh::Mesh;
    use crate::cluster::peers::Member;
    use crate::flush::example::{Cluster, definition, slots, window};
    use crate::flush::feed::Consensus as _;
    use crate::flush::statistics::statistics;
    use crate::store::{Disk, Store};

    struct Setting {
        cluster: Arc<Cluster>,
        sending: Sending,
    }

    fn setting() -> Setting {
        let cluster = Cluster::of(2);
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let carries = Carries::new(Arc::clone(&store));
        let carried = CarriedWindows { carries, scratch: "nowhere".into() };
        let members = Member::new(Arc::<Mesh>::default().peers(), &identity(1));
        let (results, facts) = (Results::new(store), cluster.facts());
        Setting { cluster, sending: Sending { results, carried, members, facts } }
    }

    impl Setting {
        fn keep(&self, of: &str, has_summary: bool) {
            let definition = serde_json::from_value(definition("by-foo", 10)).unwrap();
            let counts = || statistics(&definition, window(0, 10), Default::default());
            let mut writing = self.sending.results.begin(0, window(0, 10));
            writing.count_records(BTreeMap::from([(0, 5), (9, 7)]));
            let summary = has_summary.then(counts);
            self.sending.results.finish(writing, slots(of), summary).unwrap();
        }

        /// The slots of what is sent for these slots, and the records in them.
        fn sent(&self, of: &str) -> Result<Vec<(String, u64)>, NotKept> {
            let of_window = (0, window(0, 10));
            let tables = self.sending.tables(of_window, slots(of))?.into_iter();
            let mut sent: Vec<_> = tables
                .map(|(table, slots)| match self.sending.read(of_window, table, slots).0 {
                    Sent::Table { slots, records, .. } => {
                        (slots.to_string(), records.values().sum())
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            sent.sort();
            Ok(sent)
        }
    }

    #[test]
    fn results_are_sent_from_whichever_tables_have_them() {
        let it = setting();
        it.keep("0-9", false);
        assert_eq!(it.sent("5-9").unwrap(), [("5-9".to_owned(), 7)]);
        // What another primary has sent meanwhile.
        it.keep("9", false);
        it.keep("20-29", false);
        let (own, others) = (("5-8".to_owned(), 0), ("9".to_owned(), 7));
        assert_eq!(it.sent("5-9").unwrap(), [own, others.clone()]);
        it.keep("0-8", false);
        it.keep("10-19", false);
        assert_eq!(it.sent("9").unwrap(), [others]);
    }

    #[test]
    fn what_cannot_be_divided_is_sent_as_a_whole() {
        let it = setting();
        it.keep("0-255", true);
        it.keep("3", false);
        assert_eq!(it.sent("2-4").unwrap(), [("0-255".to_owned(), 12)]);
    }

    #[test]
    fn results_that_are_not_there_are_sent_to_nobody_before_all_forget_them() {
        let it = setting();
        it.keep("0-9", false);
        let missing = it.sent("9-10").unwrap_err();
        assert_eq!(missing.to_string(), "there are no results of slots 10 here");
        it.cluster.cut(3610, &[]);
        it.sent("9-10").unwrap_err();
        it.cluster.cut(3611, &[]);
        assert_eq!(it.sent("9-10").unwrap(), [("9".to_owned(), 7)]);
    }
}
