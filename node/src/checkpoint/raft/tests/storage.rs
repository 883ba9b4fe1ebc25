//! Log and facts against the suite that Raft's library brings.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::super::log::Log;
use super::super::machine::Machine;
use super::super::record::Records;
use super::super::{Runtime, TypeConfig};
use super::example::initial;
use crate::event::node::NodeId;
use crate::store::Store;

/// The suite names its nodes by numbers.
impl From<u64> for NodeId {
    fn from(number: u64) -> NodeId {
        NodeId(number)
    }
}

struct EmptyStore;

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for EmptyStore {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let (records, _) = Records::new(store);
        let log = Log::open(records.clone()).unwrap();
        Ok((folder, log, Machine::open(records, initial()).unwrap()))
    }
}

// The suite waits now and then.
#[tokio::test(start_paused = true)]
async fn log_and_facts_keep_what_raft_needs_of_them() {
    Runtime::scope(1, Suite::test_all(EmptyStore)).await.unwrap();
}
