//! What this node keeps for slots that others lead: as an owner of them, or about to be one.

use std::sync::Arc;

use futures::StreamExt as _;
use sheaf_proto::statistics::WindowCounts;
use tokio::sync::watch;

use crate::blocking;
use crate::checkpoint::carries::Carry;
use crate::checkpoint::facts::{Facts, Slot};
use crate::cluster::fetching::{Fetching, Haste};
use crate::cluster::peers::{Chunks, Declined, Kept};
use crate::event::node::NodeId;
use crate::event::slots::SlotSet;
use crate::flush::FlushError;
use crate::flush::carried::{CarriedWindows, Incoming};
use crate::flush::results::{Results, Writing};
use crate::flush::sharing::KeptFiles;

/// Keeps what primaries send.
#[derive(Clone)]
pub struct Keeping {
    /// This node.
    pub node: NodeId,
    /// Where results are kept.
    pub results: Results,
    /// What is carried here.
    pub carried: CarriedWindows,
    /// What reads rebuilt files.
    pub fetching: Fetching,
    /// Who leads what.
    pub facts: watch::Receiver<Arc<Facts>>,
}

impl Keeping {
    /// Makes durable what a primary keeps.
    ///
    /// # Errors
    /// When it does not come in full, cannot be kept, or is not the sender's to send.
    pub async fn keep(&self, primary: NodeId, kept: Kept, chunks: Chunks) -> Result<(), Declined> {
        match kept {
            Kept::Table { aggregation, window, slots, summary, records } => {
                let mut writing = self.results.begin(aggregation, window);
                writing.count_records(records);
                let summary = summary.map(|summary| *summary);
                self.keep_table(primary, writing, (slots, summary), chunks).await
            }
            Kept::Carry(carry) => self.keep_carry(primary, carry, chunks).await,
            Kept::Files(files) => self.keep_files(primary, files).await,
        }
    }

    async fn keep_table(
        &self,
        primary: NodeId,
        mut writing: Writing,
        (slots, summary): (SlotSet, Option<WindowCounts>),
        mut chunks: Chunks,
    ) -> Result<(), Declined> {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            blocking::in_place(|| writing.push(chunk.into())).map_err(not_now)?;
        }
        self.results.store().ready().await;
        // Whoever leads a slot by now, perhaps this node, has a table of its own in this place.
        // What cannot be divided comes as a whole.
        let led = slots.intersection(&self.facts.borrow().primary_of(primary));
        let is_enough = if summary.is_some() { !led.is_empty() } else { led == slots };
        if !is_enough {
            return Err(not_kept(self.node, &slots.difference(&led), primary));
        }
        blocking::in_place(|| self.results.finish(writing, slots, summary)).map_err(not_now)
    }

    async fn keep_carry(
        &self,
        primary: NodeId,
        carry: Carry,
        chunks: Chunks,
    ) -> Result<(), Declined> {
        self.check_sender(primary, &carry)?;
        // Nothing but as much or more is enough.
        let is_enough = |_: &Carry, _| false;
        if self.carried.carries.lacking(&carry, is_enough).map_err(not_now)?.is_empty() {
            return Ok(());
        }
        let incoming = self.receive(chunks).await?;
        // Its owners may have changed since; in a later epoch this may be less than is needed.
        self.check_sender(primary, &carry)?;
        blocking::in_place(|| self.carried.keep(carry, incoming, is_enough)).map_err(not_now)
    }

    /// Reads from the primary what this node lacks of files that have changed.
    async fn keep_files(&self, primary: NodeId, kept: KeptFiles) -> Result<(), Declined> {
        let facts = self.facts.borrow().clone();
        let (of, to) = (self.facts.clone(), self.node);
        let may_keep = move |slot| owns_beside(&of.borrow(), primary, to, slot);
        let KeptFiles { aggregation, checkpoints, files } = kept;
        let foreign: SlotSet =
            checkpoints.keys().copied().filter(|&slot| !may_keep(slot)).collect();
        if !foreign.is_empty() {
            return Err(not_kept(self.node, &foreign, primary));
        }
        let member = facts.members().get(&primary).ok_or_else(|| not_now("it is no member"))?;
        let ask = || self.fetching.files.ask_some(aggregation, checkpoints, files);
        let asked = blocking::in_place(ask).map_err(not_now)?;
        let from = (primary, member.address.as_str());
        self.fetching.fetch(from, asked, may_keep, Haste::AtOnce).await.map_err(not_now)
    }

    /// Makes durable what another owner has carried, of slots of which this node does not have
    /// enough by now: the primary sends it what is newer.
    ///
    /// # Errors
    /// When it is not what was carried, or cannot be kept.
    pub fn copy_carry(
        &self,
        facts: &Facts,
        carry: Carry,
        incoming: Incoming,
    ) -> Result<(), FlushError> {
        let is_enough = |own: &Carry, slot| goes_on(facts, own, slot);
        if self.carried.carries.lacking(&carry, is_enough)?.is_empty() {
            return Ok(());
        }
        blocking::in_place(|| self.carried.keep(carry, incoming, is_enough))
    }

    /// Forgets what is carried for nobody: of windows that were flushed, and of slots that this
    /// node owns no longer.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget_what_is_over(&self, facts: &Facts) -> Result<(), FlushError> {
        let led = facts.primary_of(self.node);
        let filled = facts.filled_by(self.node).into_keys().collect();
        let owned = facts.owner_of(self.node).union(&filled);
        let now = facts.latest_cut().time;
        self.carried.retain(|carry| {
            let known = facts.aggregations().get(&carry.aggregation);
            let waits = |slot| known.is_some_and(|known| known.waits_for(slot, carry.window, now));
            let stays = |&slot: &Slot| led.contains(slot) || owned.contains(slot) && waits(slot);
            carry.slots.iter().filter(stays).collect()
        })
    }

    async fn receive(&self, mut chunks: Chunks) -> Result<Incoming, Declined> {
        let mut incoming = self.carried.receive().map_err(not_now)?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            blocking::in_place(|| incoming.write(&chunk)).map_err(not_now)?;
        }
        Ok(incoming)
    }

    /// Declines what is carried of slots that the sender does not lead, or that are not kept
    /// here, as far as this node knows.
    fn check_sender(&self, primary: NodeId, carry: &Carry) -> Result<(), Declined> {
        let facts = self.facts.borrow().clone();
        let led = facts.primary_of(primary);
        let here = facts.others_of(primary, &led).remove(&self.node).unwrap_or_default();
        if carry.slots.difference(&here).is_empty() {
            return Ok(());
        }
        Err(not_kept(self.node, &carry.slots.difference(&here), primary))
    }
}

fn not_kept(node: NodeId, slots: &SlotSet, primary: NodeId) -> Declined {
    Declined::NotNow(format!(
        "node {node} does not know that it keeps slots {slots} for node {primary}"
    ))
}

/// Whether a node owns a slot that another leads.
fn owns_beside(facts: &Facts, primary: NodeId, node: NodeId, slot: Slot) -> bool {
    let owners = facts.slots().get(&slot).map_or(&[][..], |now| &now.owners);
    owners.first() == Some(&primary) && owners.iter().skip(1).any(|owner| *owner == node)
}

/// Whether a slot can be folded on from a carry: the journal may lack what is before the cut
/// that the slot goes on from.
fn goes_on(facts: &Facts, carry: &Carry, slot: Slot) -> bool {
    let known = facts.aggregations().get(&carry.aggregation);
    let cut = known.and_then(|known| facts.cut(known.carried(slot)));
    let needed = cut.map(|cut| {
        let counts = cut.counts.iter().filter(|(id, _)| facts.segments().contains_key(id));
        counts.map(|(&segment, extent)| (segment, extent.entries)).collect()
    });
    needed.is_none_or(|needed| carry.covers(&needed))
}

fn not_now(error: impl std::fmt::Display) -> Declined {
    Declined::NotNow(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures::stream;
    use serde_json::json;

    use super::*;
    use crate::aggregation::distinct_logs::{Counts, MemoryLimit, OpenWindow};
    use crate::checkpoint::carries::Carries;
    use crate::checkpoint::facts::command::Command;
    use crate::cluster::example::identity;
    use crate::cluster::example::mesh::Mesh;
    use crate::cluster::pace::Pace;
    use crate::cluster::peers::Member;
    use crate::flush::example::{Cluster, definition, slots, window};
    use crate::flush::feed::Consensus as _;
    use crate::flush::files::Files;
    use crate::flush::statistics::statistics;
    use crate::store::{Disk, Store};

    struct Setting {
        cluster: Arc<Cluster>,
        keeping: Keeping,
        _scratch: tempfile::TempDir,
    }

    /// Node 2, which owns slots 0 to 9; node 1 leads all slots.
    fn setting() -> Setting {
        let (cluster, scratch) = (Cluster::of(3), tempfile::tempdir().unwrap());
        cluster.own("0-9", &[1, 2]);
        let store = Arc::new(Store::in_memory(&Disk::default()).unwrap());
        let carries = Carries::new(Arc::clone(&store));
        let carried = CarriedWindows { carries, scratch: scratch.path().join("carried") };
        let members = Member::new(Arc::<Mesh>::default().peers(), &identity(2));
        let files = Files::new(scratch.path().join("files"), Arc::clone(&store));
        let fetching = Fetching { files, members, pace: Pace::default() };
        let (results, facts) = (Results::new(store), cluster.facts());
        let keeping = Keeping { node: NodeId(2), results, carried, fetching, facts };
        Setting { cluster, keeping, _scratch: scratch }
    }

    /// What is carried of these slots when so many entries of segment 1 are in it, and its file.
    fn carry(of: &str, entries: u64) -> (Carry, Vec<Bytes>) {
        let folder = tempfile::tempdir().unwrap();
        let state = OpenWindow::new(MemoryLimit(1 << 20), folder.path(), None).carry().unwrap();
        let file = std::fs::read(folder.path().join(state.file())).unwrap();
        let carry = Carry {
            aggregation: 0,
            window: window(10, 20),
            slots: slots(of),
            next: BTreeMap::from([(1, entries)]),
            state: json!({ "state": state, "seconds": [] }),
        };
        (carry, vec![file.into()])
    }

    impl Setting {
        async fn keep(&self, primary: u64, of: &str, entries: u64) -> Result<(), Declined> {
            let (carry, file) = carry(of, entries);
            let file = stream::iter(file).map(Ok).boxed();
            self.keeping.keep(NodeId(primary), Kept::Carry(carry), file).await
        }

        fn copy(&self, of: &str, entries: u64) {
            let ((carry, _), incoming) = (carry(of, entries), self.keeping.carried.receive());
            self.keeping.copy_carry(&self.cluster.now(), carry, incoming.unwrap()).unwrap();
        }

        /// The slots of which something is carried, and up to which entry.
        fn kept(&self) -> Vec<(String, u64)> {
            let all = self.keeping.carried.all().unwrap();
            all.iter().map(|carry| (carry.slots.to_string(), carry.next[&1])).collect()
        }
    }

    #[tokio::test]
    async fn what_is_carried_is_taken_from_the_primary_and_by_an_owner_alone() {
        let it = setting();
        it.keep(1, "0-9", 5).await.unwrap();
        let all = vec![("0-9".to_owned(), 5)];
        assert_eq!(it.kept(), all);
        for (primary, of) in [(3, "0-9"), (1, "9-10"), (2, "0-9")] {
            it.keep(primary, of, 7).await.unwrap_err();
        }
        it.cluster.own("3", &[2, 1]);
        let error = it.keep(1, "0-9", 7).await.unwrap_err();
        assert!(error.to_string().ends_with("keeps slots 3 for node 1"), "{error}");
        assert_eq!(it.kept(), all);
    }

    #[tokio::test]
    async fn a_later_carry_takes_the_place_of_an_earlier_one_and_not_the_other_way_round() {
        let it = setting();
        it.keep(1, "0-9", 5).await.unwrap();
        it.keep(1, "0-4", 7).await.unwrap();
        it.keep(1, "0-9", 6).await.unwrap();
        assert_eq!(it.kept(), [("0-4".to_owned(), 7), ("5-9".to_owned(), 6)]);
        assert_eq!(std::fs::read_dir(&it.keeping.carried.scratch).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn what_is_cut_off_is_not_kept() {
        let it = setting();
        let cut_off = || stream::iter([Err(Declined::NotNow("cut off".to_owned()))]).boxed();
        let carried = Kept::Carry(carry("0-9", 5).0);
        it.keeping.keep(NodeId(1), carried, cut_off()).await.unwrap_err();
        let (window, slots) = (window(0, 10), slots("0-9"));
        let (summary, records) = (None, BTreeMap::from([(7, 2)]));
        let table = Kept::Table { aggregation: 0, window, slots, summary, records };
        it.keeping.keep(NodeId(1), table.clone(), cut_off()).await.unwrap_err();
        assert_eq!(it.kept(), []);
        assert_eq!(std::fs::read_dir(&it.keeping.carried.scratch).unwrap().count(), 0);
        let found = || it.keeping.results.find(0, window.end).unwrap();
        assert_eq!(found(), []);
        it.keeping.keep(NodeId(1), table, stream::empty().boxed()).await.unwrap();
        assert_eq!(found()[0].slots, slots);
    }

    #[tokio::test]
    async fn a_table_that_comes_late_takes_no_place_of_the_next_primarys() {
        let it = setting();
        let (window, aggregation, summary) = (window(0, 10), 0, None);
        let keep = async |primary: u64, of: &str| {
            let (slots, records) = (slots(of), BTreeMap::new());
            let summary = summary.clone();
            let table = Kept::Table { aggregation, window, slots, summary, records };
            it.keeping.keep(NodeId(primary), table, stream::empty().boxed()).await
        };
        keep(1, "0-9").await.unwrap();
        // This node leads now, and has handed out what it found itself.
        it.cluster.own("3", &[2, 1]);
        let own = it.keeping.results.begin(aggregation, window);
        it.keeping.results.finish(own, slots("3"), None).unwrap();
        let found = || it.keeping.results.find(aggregation, window.end).unwrap();
        let own = found().into_iter().find(|found| found.slots == slots("3")).unwrap();
        let error = keep(1, "0-9").await.unwrap_err();
        assert!(error.to_string().ends_with("keeps slots 3 for node 1"), "{error}");
        it.cluster.own("4", &[3, 2]);
        keep(1, "4").await.unwrap_err();
        keep(3, "4").await.unwrap();
        assert!(found().contains(&own));
    }

    #[tokio::test]
    async fn a_sum_of_all_slots_is_kept_while_its_sender_leads_any() {
        let it = setting();
        let (window, aggregation) = (window(0, 10), 0);
        let definition = serde_json::from_value(definition("by-foo", 10)).unwrap();
        let keep = async |primary: u64| {
            let summary = Some(statistics(&definition, window, Counts::default()).into());
            let (slots, records) = (slots("0-255"), BTreeMap::new());
            let sum = Kept::Table { aggregation, window, slots, summary, records };
            it.keeping.keep(NodeId(primary), sum, stream::empty().boxed()).await
        };
        keep(3).await.unwrap_err();
        it.cluster.own("3", &[2, 1]);
        keep(1).await.unwrap();
        let found = it.keeping.results.find(aggregation, window.end).unwrap();
        assert!(found[0].summary.is_some());
    }

    #[tokio::test]
    async fn a_copy_is_taken_where_there_is_nothing_to_go_on_from() {
        let it = setting();
        let segment = it.cluster.open(1);
        let cut = it.cluster.cut(15, &[(segment, 5)]);
        let facts = it.cluster.now();
        let slots = slots("0-9").iter().map(|slot| (slot, facts.slots()[&slot].epoch)).collect();
        let (node, aggregation, keeps) = (NodeId(1), 0, true);
        it.cluster.apply(Command::Carry { node, aggregation, slots, cut, keeps });
        it.keep(1, "0-4", 6).await.unwrap();
        it.keep(1, "5-9", 4).await.unwrap();
        // Elsewhere they were folded together.
        it.copy("0-9", 5);
        it.copy("0-9", 3);
        assert_eq!(it.kept(), [("0-4".to_owned(), 6), ("5-9".to_owned(), 5)]);
        assert_eq!(std::fs::read_dir(&it.keeping.carried.scratch).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn what_is_over_or_owned_by_others_is_forgotten() {
        let it = setting();
        it.keep(1, "0-9", 5).await.unwrap();
        it.keeping.forget_what_is_over(&it.cluster.now()).unwrap();
        assert_eq!(it.kept(), [("0-9".to_owned(), 5)]);
        it.cluster.own("3", &[1, 3]);
        it.cluster.own("4", &[2, 1]);
        let end = it.cluster.cut(20, &[]);
        it.cluster.flush(1, "0-2", window(10, 20), end);
        it.cluster.flush(2, "4", window(10, 20), end);
        it.keeping.forget_what_is_over(&it.cluster.now()).unwrap();
        assert_eq!(it.kept(), [("4-9".to_owned(), 5)], "a primary forgets by itself");
        it.cluster.own("4-9", &[3]);
        it.keeping.forget_what_is_over(&it.cluster.now()).unwrap();
        assert_eq!(it.kept(), []);
        assert_eq!(std::fs::read_dir(&it.keeping.carried.scratch).unwrap().count(), 0);
    }
}
