//! Raft's log and vote, in the node's database.
//!
//! Every change is one batch that is durable when the call returns. Raft's core has the
//! only [`Log`] and changes it through `&mut`, one call after the other, so votes and
//! entries reach the disk in the order in which they were decided.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{LogIdOptionExt, OptionalSend};

use super::record::{Change, Damage, Record, RecordError, Records};
use super::{Entry, LogId, TypeConfig, Vote};
use crate::failpoint::is_to_fail;

/// What the entries of one message take of the database, bytes, unless it has a single one.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The log, as its only writer has it.
pub(super) struct Log {
    reader: Reader,
    purged: Option<LogId>,
    /// The last entry, or the last that was purged if none is left.
    last: Option<LogId>,
}

impl Log {
    /// The log in `records`, of which every record is read once.
    ///
    /// # Errors
    /// When a record is damaged or missing. A node with such a log must not take part:
    /// it may have promised what it no longer knows.
    pub(super) fn open(records: Records) -> Result<Log, RecordError> {
        let vote: Option<Vote> = records.get(Record::Vote)?;
        records.get::<LogId>(Record::Committed)?;
        let purged: Option<LogId> = records.get(Record::Purged)?;
        let mut last = purged;
        for entry in records.entries(0, u64::MAX, usize::MAX)? {
            let expected = last.next_index();
            if entry.log_id.index != expected {
                return Err(Damage::Missing.of(Record::Entry(expected)));
            }
            last = Some(entry.log_id);
        }
        // Whoever takes an entry has voted for its leader or a later one.
        let voted = vote.map_or(0, |vote| vote.leader_id.term);
        if last.is_some_and(|last| last.committed_leader_id().term > voted) {
            return Err(Damage::Missing.of(Record::Vote));
        }
        Ok(Log { reader: Reader { records }, purged, last })
    }

    fn records(&self) -> &Records {
        &self.reader.records
    }

    /// Makes what `fill` writes durable before it returns.
    async fn write(
        &self,
        fill: impl FnOnce(&mut Change<'_>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        self.records().ready().await;
        self.records().write(fill)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(LogState { last_purged_log_id: self.purged, last_log_id: self.last })
    }

    async fn get_log_reader(&mut self) -> Reader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if is_to_fail("planted-vote-unkept") {
            return Ok(());
        }
        Ok(self.write(|change| change.put(Record::Vote, vote)).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        Ok(self.write(|change| change.put(Record::Committed, &committed)).await?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.records().get(Record::Committed)?)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut last = self.last;
        self.write(|change| {
            entries.into_iter().try_for_each(|entry| {
                last = Some(entry.log_id);
                change.put(Record::Entry(entry.log_id.index), &entry)
            })
        })
        .await?;
        self.last = last;
        flushed.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.write(|change| change.delete_entries(last.next_index(), u64::MAX)).await?;
        self.last = self.last.min(last);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let from = self.purged.next_index();
        self.write(|change| {
            change.put(Record::Purged, &upto)?;
            change.delete_entries(from, upto.index + 1)
        })
        .await?;
        self.purged = Some(upto);
        self.last = self.last.max(self.purged);
        Ok(())
    }
}

/// Reads the log; what was appended is seen at once.
#[derive(Clone)]
pub(super) struct Reader {
    records: Records,
}

impl RaftLogReader<TypeConfig> for Reader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        Ok(self.records.entries(from, to, usize::MAX)?)
    }

    async fn limited_get_log_entries(
        &mut self,
        from: u64,
        to: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.records.entries(from, to, MESSAGE_BYTES_MAX)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.records.get(Record::Vote)?)
    }
}

/// A range's first index, and the first after it.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId;
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::checkpoint::raft::LeaderId;
    use crate::checkpoint::raft::tests::example::{count_up, large};
    use crate::event::node::NodeId;
    use crate::store::{Disk, Store, Table, keys};

    fn open(folder: &Path) -> Result<Log, RecordError> {
        Log::open(Records::new(Arc::new(Store::open(folder).unwrap())).0)
    }

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, NodeId(7)).to_committed(), index)
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry { log_id: log_id(term, index), payload: EntryPayload::Blank }
    }

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId::new(term, NodeId(7)), committed: true }
    }

    /// A log with entries 0 to 9 of term 1.
    async fn ten_entries(folder: &Path) -> Log {
        let mut log = open(folder).unwrap();
        log.save_vote(&vote(4)).await.unwrap();
        log.append((0..10).map(|index| entry(1, index)), IOFlushed::noop()).await.unwrap();
        log
    }

    async fn indexes(log: &mut Log) -> Vec<u64> {
        let entries = log.get_log_reader().await.try_get_log_entries(..).await.unwrap();
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    async fn ids(log: &mut Log) -> (Option<LogId>, Option<LogId>) {
        let state = log.get_log_state().await.unwrap();
        (state.last_purged_log_id, state.last_log_id)
    }

    fn folder() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn json(content: &impl serde::Serialize) -> String {
        serde_json::to_string(content).unwrap()
    }

    #[test]
    fn what_is_stored_never_changes() {
        let vote = Vote { leader_id: LeaderId::new(3, NodeId(7)), committed: true };
        assert_eq!(json(&vote), r#"{"leader_id":{"term":3,"voted_for":7},"committed":true}"#);
        assert_eq!(json(&log_id(3, 5)), r#"{"leader_id":3,"index":5}"#);
        let command = count_up();
        let normal = Entry { log_id: log_id(3, 5), payload: EntryPayload::Normal(command.clone()) };
        let expected = r#"{"log_id":{"leader_id":3,"index":5},"payload":{"Normal":C}}"#;
        assert_eq!(json(&normal), expected.replace('C', &json(&command)));
        let blank = r#"{"log_id":{"leader_id":3,"index":5},"payload":"Blank"}"#;
        assert_eq!(json(&entry(3, 5)), blank);
    }

    #[tokio::test]
    async fn votes_entries_and_what_is_committed_survive_a_restart() {
        let folder = folder();
        let vote = vote(3);
        let mut log = ten_entries(folder.path()).await;
        log.save_vote(&vote).await.unwrap();
        log.save_committed(Some(log_id(1, 4))).await.unwrap();
        drop(log);
        let mut log = open(folder.path()).unwrap();
        assert_eq!(ids(&mut log).await, (None, Some(log_id(1, 9))));
        assert_eq!(indexes(&mut log).await, Vec::from_iter(0..10));
        assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), Some(vote));
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 4)));
    }

    #[tokio::test]
    async fn what_was_truncated_stays_gone_and_is_written_anew() {
        let folder = folder();
        let mut log = ten_entries(folder.path()).await;
        log.truncate_after(Some(log_id(1, 6))).await.unwrap();
        assert_eq!(ids(&mut log).await, (None, Some(log_id(1, 6))));
        drop(log);
        let mut log = open(folder.path()).unwrap();
        assert_eq!(ids(&mut log).await, (None, Some(log_id(1, 6))));
        log.append([entry(2, 7)], IOFlushed::noop()).await.unwrap();
        drop(log);
        let mut log = open(folder.path()).unwrap();
        assert_eq!(ids(&mut log).await, (None, Some(log_id(2, 7))));
        assert_eq!(indexes(&mut log).await, Vec::from_iter(0..8));
    }

    #[tokio::test]
    async fn what_was_purged_stays_gone_and_is_remembered() {
        let folder = folder();
        let mut log = ten_entries(folder.path()).await;
        log.purge(log_id(1, 3)).await.unwrap();
        log.purge(log_id(1, 6)).await.unwrap();
        drop(log);
        let mut log = open(folder.path()).unwrap();
        assert_eq!(ids(&mut log).await, (Some(log_id(1, 6)), Some(log_id(1, 9))));
        assert_eq!(indexes(&mut log).await, [7, 8, 9]);
    }

    #[tokio::test]
    async fn a_log_goes_on_after_a_snapshot_that_is_ahead_of_it() {
        let folder = folder();
        let mut log = ten_entries(folder.path()).await;
        log.purge(log_id(4, 500)).await.unwrap();
        assert_eq!(ids(&mut log).await, (Some(log_id(4, 500)), Some(log_id(4, 500))));
        log.append([entry(4, 501)], IOFlushed::noop()).await.unwrap();
        drop(log);
        let mut log = open(folder.path()).unwrap();
        assert_eq!(ids(&mut log).await, (Some(log_id(4, 500)), Some(log_id(4, 501))));
        assert_eq!(indexes(&mut log).await, [501]);
    }

    #[tokio::test]
    async fn a_vote_that_is_older_than_the_log_is_missing() {
        let folder = folder();
        let mut log = ten_entries(folder.path()).await;
        log.append([entry(5, 10)], IOFlushed::noop()).await.unwrap();
        drop(log);
        let error = open(folder.path()).err().unwrap().to_string();
        assert_eq!(error, "Raft's vote cannot be used: it is missing");
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_vote_nor_an_entry_is_there_before_a_slow_disk_has_it() {
        fastrand::seed(1);
        let (disk, moment) = (Disk::default(), Duration::from_secs(1));
        let store = Arc::new(Store::in_memory(&disk).unwrap());
        let mut log = Log::open(Records::new(store).0).unwrap();
        disk.delay_writes(Some(100 * moment));
        timeout(moment, log.save_vote(&vote(1))).await.unwrap_err();
        timeout(moment, log.append([entry(1, 0)], IOFlushed::noop())).await.unwrap_err();
        assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), None);
        assert_eq!(ids(&mut log).await, (None, None));
        log.save_vote(&vote(1)).await.unwrap();
        assert_eq!(log.get_log_reader().await.read_vote().await.unwrap(), Some(vote(1)));
    }

    #[tokio::test]
    async fn a_missing_entry_is_named() {
        for missing in [0, 4] {
            let folder = folder();
            drop(ten_entries(folder.path()).await);
            {
                let store = Store::open(folder.path()).unwrap();
                let mut batch = store.batch();
                batch.delete(Table::Raft, &keys::raft_entry(missing)).unwrap();
                store.commit(batch).unwrap();
            }
            let error = open(folder.path()).err().unwrap().to_string();
            let expected = format!("entry {missing} of Raft's log cannot be used: it is missing");
            assert_eq!(error, expected);
        }
    }

    #[tokio::test]
    async fn one_message_has_many_small_entries_or_one_large_one() {
        let folder = folder();
        let mut log = open(folder.path()).unwrap();
        let sizes = [10, 10, MESSAGE_BYTES_MAX / 2, MESSAGE_BYTES_MAX / 2, 2 * MESSAGE_BYTES_MAX];
        let entries = sizes.into_iter().zip(0..).map(|(size, index)| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(large(size)),
        });
        log.append(entries, IOFlushed::noop()).await.unwrap();
        let mut reader = log.get_log_reader().await;
        let mut messages = Vec::new();
        let mut from = 0;
        while from < 5 {
            let message = reader.limited_get_log_entries(from, 5).await.unwrap();
            from += message.len() as u64;
            messages.push(message.len());
        }
        assert_eq!(messages, [3, 1, 1]);
    }

    #[tokio::test]
    async fn an_entry_that_goes_missing_is_not_read_over() {
        let folder = folder();
        let mut log = ten_entries(folder.path()).await;
        log.records().write(|change| change.delete_entries(4, 5)).unwrap();
        let error = log.reader.try_get_log_entries(2..8).await.unwrap_err().to_string();
        assert_eq!(error, "entry 4 of Raft's log cannot be used: it is missing");
    }
}
