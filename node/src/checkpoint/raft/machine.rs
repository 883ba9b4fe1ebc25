//! The replicated facts: entries in, facts out.
//!
//! The facts live in memory. At the start they are read from the newest snapshot, and
//! Raft applies the committed entries after it again. A snapshot is one durable record,
//! taken from one state, so its entries and its facts always belong together.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::record::{Record, RecordError, Records, blocking};
use super::{Answer, Entry, LogId, Membership, SnapshotMeta, TypeConfig};
use crate::checkpoint::facts::Facts;

/// A snapshot as Raft passes it on.
pub(super) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Arc<Facts>>;

/// A snapshot as it is stored and sent: which entries it contains, and what they did.
#[derive(Serialize, Deserialize)]
pub(super) struct Image<F> {
    pub(super) meta: SnapshotMeta,
    pub(super) facts: F,
}

/// The facts, as the only one who changes them has them.
pub(super) struct Machine {
    applied: Option<LogId>,
    membership: Membership,
    /// Shared with the readers: copied on a change only while somebody holds it.
    facts: watch::Sender<Arc<Facts>>,
    snapshots: Snapshots,
}

impl Machine {
    /// The facts of the newest snapshot in `records`, or `initial` if there is none.
    ///
    /// # Errors
    /// When the snapshot is damaged.
    pub(super) fn open(records: Records, initial: Facts) -> Result<Machine, RecordError> {
        let snapshots = Snapshots { records, newest: Arc::default() };
        let (meta, facts) = match snapshots.load()? {
            Some(Snapshot { meta, snapshot }) => (meta, snapshot),
            None => (SnapshotMeta::default(), Arc::new(initial)),
        };
        let facts = watch::Sender::new(facts);
        let (applied, membership) = (meta.last_log_id, meta.last_membership);
        Ok(Machine { applied, membership, facts, snapshots })
    }

    /// The facts as they are from now on.
    pub(super) fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.facts.subscribe()
    }

    fn apply_entry(&mut self, entry: Entry) -> Answer {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(command) => {
                let mut answer = None;
                self.facts.send_modify(|facts| {
                    answer = Some(Arc::make_mut(facts).apply(command));
                });
                answer
            }
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
                None
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Arc<Facts>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let answer = self.apply_entry(entry);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        let facts = Arc::clone(&self.facts.borrow());
        Builder { meta, facts, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        facts: Arc<Facts>,
    ) -> Result<(), io::Error> {
        self.snapshots.save(meta, &facts)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.facts.send_replace(facts);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.load()?)
    }
}

/// Makes a snapshot of one state, while the facts change on.
pub(super) struct Builder {
    meta: SnapshotMeta,
    facts: Arc<Facts>,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Arc<Facts>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        self.snapshots.save(&self.meta, &self.facts)?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Arc::clone(&self.facts) })
    }
}

/// Where the newest snapshot is kept; clones share it.
#[derive(Clone)]
struct Snapshots {
    records: Records,
    /// The last entry in the snapshot that was stored last in this life. Held while one is
    /// written.
    newest: Arc<Mutex<Option<LogId>>>,
}

impl Snapshots {
    fn load(&self) -> Result<Option<Snapshot>, RecordError> {
        let image: Option<Image<Facts>> = blocking(|| self.records.get(Record::Snapshot))?;
        Ok(image.map(|Image { meta, facts }| Snapshot { meta, snapshot: Arc::new(facts) }))
    }

    /// Makes a snapshot durable, unless a newer one is: a build that began before the
    /// leader sent a snapshot may end after it, when the log is purged to the later one.
    fn save(&self, meta: &SnapshotMeta, facts: &Facts) -> Result<(), RecordError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if *newest > meta.last_log_id {
            return Ok(());
        }
        let image = Image { meta: meta.clone(), facts };
        self.records.write(|change| change.put(Record::Snapshot, &image))?;
        *newest = meta.last_log_id;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use futures::stream;
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::checkpoint::raft::LeaderId;
    use crate::checkpoint::raft::tests::example::{count_up, counted, initial};
    use crate::event::node::NodeId;
    use crate::store::{Store, Table, keys};

    fn open(folder: &Path) -> Machine {
        let store = Arc::new(Store::open(folder).unwrap());
        Machine::open(Records::new(store).0, initial()).unwrap()
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId::new(1, NodeId(7)).to_committed(), index)
    }

    async fn count_up_at(machine: &mut Machine, index: u64) {
        let entry = Entry { log_id: log_id(index), payload: EntryPayload::Normal(count_up()) };
        machine.apply(stream::iter([Ok((entry, None))])).await.unwrap();
    }

    async fn add_members_at(machine: &mut Machine, index: u64) -> Membership {
        let members = [(NodeId(7), "node-7".to_owned())];
        let voters = vec![[NodeId(7)].into()];
        let members = openraft::Membership::new(voters, BTreeMap::from(members));
        let payload = EntryPayload::Membership(members.unwrap());
        let entry = Entry { log_id: log_id(index), payload };
        machine.apply(stream::iter([Ok((entry, None))])).await.unwrap();
        machine.membership.clone()
    }

    #[test]
    fn an_empty_node_begins_with_the_initial_facts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(**open(folder.path()).facts().borrow(), initial());
    }

    #[tokio::test]
    async fn a_snapshot_has_facts_and_members_of_one_state_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = open(folder.path());
        let members = add_members_at(&mut machine, 0).await;
        count_up_at(&mut machine, 1).await;
        let mut builder = machine.get_snapshot_builder().await;
        count_up_at(&mut machine, 2).await;
        builder.build_snapshot().await.unwrap();
        drop((machine, builder));

        let mut machine = open(folder.path());
        let (applied, membership) = machine.applied_state().await.unwrap();
        assert_eq!((applied, &membership), (Some(log_id(1)), &members));
        assert_eq!(counted(&machine.facts().borrow()), 1);
        let stored = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!((stored.meta.last_log_id, stored.meta.last_membership), (applied, members));
        assert_eq!(counted(&stored.snapshot), 1);
    }

    #[tokio::test]
    async fn a_build_that_ends_late_does_not_replace_a_newer_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = open(folder.path());
        count_up_at(&mut machine, 1).await;
        let mut late = machine.get_snapshot_builder().await;
        let meta = SnapshotMeta { last_log_id: Some(log_id(9)), ..SnapshotMeta::default() };
        machine.install_snapshot(&meta, Arc::new(initial())).await.unwrap();
        late.build_snapshot().await.unwrap();
        drop((machine, late));
        let stored = open(folder.path()).get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(stored.meta, meta);
    }

    #[tokio::test]
    async fn a_damaged_snapshot_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let mut batch = store.batch();
        batch.put(Table::Raft, &keys::RAFT_SNAPSHOT, b"no snapshot").unwrap();
        store.commit(batch).unwrap();
        let error = Machine::open(Records::new(store).0, initial()).err().unwrap().to_string();
        assert_eq!(error, "Raft's snapshot cannot be used: its checksum is wrong");
    }

    #[tokio::test]
    async fn readers_keep_the_facts_that_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = open(folder.path());
        let mut facts = machine.facts();
        let held = Arc::clone(&facts.borrow_and_update());
        count_up_at(&mut machine, 1).await;
        assert!(facts.has_changed().unwrap());
        assert_eq!((counted(&held), counted(&facts.borrow())), (0, 1));
    }

    #[tokio::test]
    async fn facts_are_not_copied_while_nobody_holds_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = open(folder.path());
        let before = Arc::as_ptr(&machine.facts().borrow());
        count_up_at(&mut machine, 1).await;
        assert_eq!(before, Arc::as_ptr(&machine.facts().borrow()));
    }
}
