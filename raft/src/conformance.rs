//! Conformance: openraft's tests of a log and a state machine, run against ours on a real disk.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::consensus::TypeConfig;
use crate::disk::{Checkpoints, GroupKey, StoreFiles, Wal, WalConfig};
use crate::erased::erase;
use crate::log_storage::{LogStorage, SharedLog};
use crate::replica::Replica;
use crate::state_machine::Applier;
use crate::testing::RecordingMachine;

/// Opens a new log and state machine for each test. The guard comes last: it must outlive the test.
struct FreshStorage;

impl StoreBuilder<TypeConfig, LogStorage, Applier, (StoreFiles, TempDir)> for FreshStorage {
    async fn build(
        &self,
    ) -> Result<((StoreFiles, TempDir), LogStorage, Applier), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let key = GroupKey { group: 1, replica: 1 };
        let fatal = |reason| panic!("the log stopped: {reason}");
        let (wal, _) = Wal::open(&dir.path().join("log"), WalConfig::new(fatal)).unwrap();
        let checkpoints = Checkpoints::open(&dir.path().join("checkpoints")).unwrap();
        let files = StoreFiles::open(&dir.path().join("store")).unwrap();
        let store = files.open_group(key).unwrap();
        let replica =
            Replica::new(key, erase(RecordingMachine::new()), checkpoints, store, u64::MAX);
        replica.restore_newest().unwrap();
        let log = LogStorage::new(key, SharedLog::new(Arc::new(wal)));
        Ok(((files, dir), log, Applier(Arc::new(replica))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_conformance_suite_passes() {
    Suite::test_all(FreshStorage).await.unwrap();
}
