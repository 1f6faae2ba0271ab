//! Log storage: adapts one group's part of the node's log to openraft's log interface.
//!
//! Promise: an append is reported as flushed when it is on disk, never before; votes and entries of
//! a group reach the disk in the order of the calls; appended entries can be read at once. Refused:
//! gaps; an entry that is missing or cannot be decoded is an error that names it.

mod entry_codec;
mod tail;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use model::codec;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::entry_codec::{decode, encode};
use self::tail::Tail;
use crate::blocking::blocking;
use crate::consensus::{LogId, ReplicatedEntry, TypeConfig, Vote, log_id};
use crate::disk::{GroupKey, GroupLogState, LogOp, SubmitCallback, Wal, WalError};
use crate::error::Fatal;
use crate::limits;

/// The node's log, and permits for the bytes that may wait in its queue: in small submissions and
/// in large ones.
#[derive(Clone)]
pub(crate) struct SharedLog {
    pub(crate) wal: Arc<Wal>,
    small_permits: Arc<Semaphore>,
    large_permits: Arc<Semaphore>,
}

impl SharedLog {
    pub(crate) fn new(wal: Arc<Wal>) -> Self {
        Self {
            wal,
            small_permits: Arc::new(Semaphore::new(limits::LOG_IN_FLIGHT_BYTES)),
            large_permits: Arc::new(Semaphore::new(limits::LOG_LARGE_IN_FLIGHT_BYTES)),
        }
    }

    /// Removes everything of a replica from the log.
    pub(crate) async fn forget(&self, group: GroupKey) -> io::Result<()> {
        self.submit_and_wait(vec![LogOp::Forget { group }]).await
    }

    async fn submit_and_wait(&self, ops: Vec<LogOp>) -> io::Result<()> {
        // Held until the callback, so that the permits count what is queued and not yet on disk.
        let queue_permits = self.queue_permits(0).await;
        let (tx, rx) = oneshot::channel();
        let done: SubmitCallback = Box::new(move |result| {
            drop(queue_permits);
            let _ = tx.send(result);
        });
        self.wal.submit(ops, done);
        rx.await.unwrap_or_else(|_| Err(io::Error::other("the log was closed")))
    }

    /// Waits until `bytes` more fit into the log's queue, so that `Wal::submit` never blocks a
    /// thread of the runtime.
    async fn queue_permits(&self, bytes: usize) -> OwnedSemaphorePermit {
        // Two queues: openraft's task of a group handles no heartbeat while it waits here, so a
        // vote or a small entry must not wait behind the megabytes of another group.
        let (permits, most) = if bytes <= limits::LOG_SMALL_BYTES {
            (&self.small_permits, limits::LOG_IN_FLIGHT_BYTES)
        } else {
            (&self.large_permits, limits::LOG_LARGE_IN_FLIGHT_BYTES)
        };
        // Something for the overhead, so that many small submissions are limited as well. At most
        // all permits: a single larger append must not wait for ever.
        let wanted = (bytes + 1024).min(most);
        let wanted = u32::try_from(wanted).expect("the limit is smaller than 4 GiB");
        permits.clone().acquire_many_owned(wanted).await.expect("the semaphore is never closed")
    }
}

/// The log of one group. Cheap to clone; all clones share their state.
#[derive(Clone)]
pub(crate) struct LogStorage(Arc<Inner>);

struct Inner {
    key: GroupKey,
    shared: SharedLog,
    tail: Mutex<Tail>,
}

impl LogStorage {
    pub(crate) fn new(key: GroupKey, shared: SharedLog) -> Self {
        Self(Arc::new(Inner { key, shared, tail: Mutex::default() }))
    }

    /// Makes the log agree with the checkpoint that the machine was restored from. A checkpoint
    /// from another replica may conflict with the log, if a crash came before openraft truncated
    /// it; the conflicting entries are removed.
    ///
    /// # Errors
    /// [`Fatal`] when the log is purged beyond the checkpoint, so that entries are missing.
    pub(crate) async fn reconcile(&self, checkpoint: Option<LogId>) -> Result<(), Fatal> {
        let (group, state) = (self.0.key, self.state());
        let purged = state.purged.as_ref().map(|(index, _)| *index);
        if purged > checkpoint.map(|id| id.index) {
            let purged = purged.unwrap_or(0);
            return Err(Fatal(format!(
                "{group}: the log is gone up to {purged} and no checkpoint holds what was there"
            )));
        }
        let (Some(id), Some(first), Some((last, _))) = (checkpoint, state.first, state.last) else {
            return Ok(());
        };
        let index = id.index;
        // Without the entry at the checkpoint's index there is nothing to compare: the log begins
        // behind the checkpoint, or the checkpoint is ahead of the log.
        if index < first || last < index {
            return Ok(());
        }
        let here = self.read_disk(index..index + 1, usize::MAX).await.map_err(fatal)?;
        if here.first().is_some_and(|entry| entry.log_id == id) {
            return Ok(());
        }
        tracing::warn!(%group, checkpoint = %id, "the log conflicts with the checkpoint");
        let log_id = codec::encode_as(codec::FormatKind::RaftLogId, &id).into();
        // All entries go: those behind the checkpoint follow the conflicting one.
        let repair = vec![
            LogOp::TruncateAfter { group, after: None },
            LogOp::Purge { group, index, log_id },
        ];
        self.submit_and_wait(repair).await.map_err(fatal)
    }

    fn state(&self) -> GroupLogState {
        self.0.shared.wal.state(self.0.key)
    }

    async fn submit_and_wait(&self, ops: Vec<LogOp>) -> io::Result<()> {
        self.0.shared.submit_and_wait(ops).await
    }

    /// The entries of a range, from memory if that holds the first one, otherwise from disk.
    async fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<ReplicatedEntry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.0.tail.lock().get(&range, max_bytes) {
            return Ok(entries);
        }
        self.read_disk(range, max_bytes).await
    }

    async fn read_disk(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> io::Result<Vec<ReplicatedEntry>> {
        let (wal, key) = (self.0.shared.wal.clone(), self.0.key);
        let read = blocking(move || wal.read(key, range, max_bytes)).await;
        let entries = read.map_err(io::Error::other)?.map_err(to_io_error)?;
        entries.iter().map(|entry| decode(entry).map_err(io::Error::other)).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStorage {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<ReplicatedEntry>> {
        let range = self.clamp(&range);
        let mut entries = Vec::new();
        let mut from = range.start;
        while from < range.end {
            let more = self.read(from..range.end, usize::MAX).await?;
            let Some(last) = more.last() else { break };
            from = last.log_id.index + 1;
            entries.extend(more);
        }
        Ok(entries)
    }

    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<ReplicatedEntry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index + 1,
            Bound::Unbounded => 0,
        };
        // Purged entries existed, so to ask for them is an error; to ask beyond the end is none.
        // The range therefore includes what was purged, and the stream then fails.
        let purged = self.state().purged.map_or(0, |(index, _)| index + 1);
        let end = match range.end_bound() {
            Bound::Included(&index) => purged.min(index.saturating_add(1)),
            Bound::Excluded(&index) => purged.min(index),
            Bound::Unbounded => purged,
        };
        stream_in_batches(self.clone(), start..end.max(self.clamp(&range).end))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let vote =
            self.state().vote.map(|bytes| codec::decode_as(codec::FormatKind::RaftVote, &bytes));
        vote.transpose().map_err(io::Error::other)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<ReplicatedEntry>> {
        self.read(start..end, limits::APPEND_BYTES).await
    }
}

impl LogStorage {
    /// The part of a range that the log holds.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let from = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&index) => index.saturating_add(1),
            Bound::Excluded(&index) => index,
            Bound::Unbounded => u64::MAX,
        };
        let state = self.state();
        let (Some(first), Some((last, _))) = (state.first, state.last) else { return 0..0 };
        from.max(first)..to.min(last + 1)
    }
}

/// Streams the entries of a range, and reads them in batches as they are polled. The entries will
/// be applied, so a gap is an error, also at the start.
fn stream_in_batches(
    log: LogStorage,
    range: Range<u64>,
) -> impl Stream<Item = io::Result<ReplicatedEntry>> + Send + Unpin {
    let start = (log, range, VecDeque::new());
    Box::pin(stream::try_unfold(start, |(log, mut range, mut ready)| async move {
        if ready.is_empty() {
            ready = log.read(range.clone(), limits::APPLY_BYTES).await?.into();
        }
        if range.is_empty() {
            return Ok(None);
        }
        let next: Option<ReplicatedEntry> = ready.pop_front();
        let Some(entry) = next.filter(|entry| entry.log_id.index == range.start) else {
            let reason = format!("{}: log entry {} is gone", log.0.key, range.start);
            return Err(io::Error::other(reason));
        };
        range.start += 1;
        Ok(Some((entry, (log, range, ready))))
    }))
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state();
        let purged: Option<LogId> = state
            .purged
            .map(|(_, bytes)| codec::decode_as(codec::FormatKind::RaftLogId, &bytes))
            .transpose()
            .map_err(io::Error::other)?;
        let last = state.last.map(|(index, term)| log_id(term, index)).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = codec::encode_as(codec::FormatKind::RaftVote, vote).into();
        self.submit_and_wait(vec![LogOp::Vote { group: self.0.key, vote }]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let committed = codec::encode_as(codec::FormatKind::RaftLogId, &committed).into();
        let queue_permits = self.0.shared.queue_permits(0).await;
        let op = LogOp::Committed { group: self.0.key, committed };
        // Not waited for: without it a start replays more, and nothing else.
        self.0.shared.wal.submit(vec![op], Box::new(move |_| drop(queue_permits)));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.state().committed;
        let committed =
            committed.map(|bytes| codec::decode_as(codec::FormatKind::RaftLogId, &bytes));
        committed.transpose().map_err(io::Error::other)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = ReplicatedEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<ReplicatedEntry> = entries.into_iter().collect();
        if entries.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let encoded: Vec<(u64, u64, Bytes)> = entries
            .iter()
            .map(|entry| {
                let LogId { leader_id, index } = entry.log_id;
                (index, leader_id.term, encode(&entry.payload))
            })
            .collect();
        let bytes = encoded.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let queue_permits = self.0.shared.queue_permits(bytes).await;
        let done: SubmitCallback = Box::new(move |result| {
            drop(queue_permits);
            callback.io_completed(result);
        });
        self.0.shared.wal.submit(vec![LogOp::Append { group: self.0.key, entries: encoded }], done);
        // After `submit`, so that what can be read from the tail can be read from the log as well.
        self.0.tail.lock().append(entries);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let after = last_log_id.map(|id| id.index);
        // The tail first: readers must not see the entries once the log may have lost them.
        self.0.tail.lock().truncate_after(after);
        self.submit_and_wait(vec![LogOp::TruncateAfter { group: self.0.key, after }]).await
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.0.tail.lock().purge(id.index);
        let log_id = codec::encode_as(codec::FormatKind::RaftLogId, &id).into();
        self.submit_and_wait(vec![LogOp::Purge { group: self.0.key, index: id.index, log_id }])
            .await
    }
}

fn fatal(error: io::Error) -> Fatal {
    Fatal(error.to_string())
}

/// The error as openraft's. `StorageFull` keeps its kind, because it can be retried.
fn to_io_error(error: WalError) -> io::Error {
    let full = matches!(error, WalError::Full { .. });
    let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use openraft::entry::RaftEntry;
    use openraft::storage::RaftLogStorageExt;

    use super::*;
    use crate::consensus::EntryData;
    use crate::disk::WalConfig;

    const KEY: GroupKey = GroupKey { group: 1, replica: 1 };

    fn open(dir: &tempfile::TempDir) -> LogStorage {
        let fatal = |reason| panic!("the log stopped: {reason}");
        let (wal, _) = Wal::open(dir.path(), WalConfig::new(fatal)).unwrap();
        LogStorage::new(KEY, SharedLog::new(Arc::new(wal)))
    }

    async fn append(log: &mut LogStorage, indexes: Range<u64>, term: u64) {
        let entry =
            |index| ReplicatedEntry::new_normal(log_id(term, index), EntryData(Bytes::new()));
        log.blocking_append(indexes.map(entry)).await.unwrap();
    }

    async fn streamed(log: &mut LogStorage, range: Range<u64>) -> io::Result<Vec<u64>> {
        let entries: Vec<ReplicatedEntry> = log.entries_stream(range).await.try_collect().await?;
        Ok(entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[tokio::test]
    async fn missing_entries_are_an_error_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir);
        append(&mut log, 0..10, 1).await;
        assert_eq!(streamed(&mut log, 3..6).await.unwrap(), [3, 4, 5]);
        log.purge(log_id(1, 4)).await.unwrap();
        assert_eq!(streamed(&mut log, 5..20).await.unwrap(), [5, 6, 7, 8, 9]);
        let error = streamed(&mut log, 4..6).await.unwrap_err();
        assert_eq!(error.to_string(), "group 1 replica 1: log entry 4 is gone");
        log.purge(log_id(1, 9)).await.unwrap();
        assert!(streamed(&mut log, 9..10).await.is_err(), "also when nothing is left");
        assert_eq!(streamed(&mut log, 10..12).await.unwrap(), [0u64; 0]);
    }

    #[tokio::test]
    async fn log_that_conflicts_with_checkpoint_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir);
        append(&mut log, 0..10, 1).await;
        log.reconcile(Some(log_id(1, 6))).await.unwrap();
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 9)));
        // A checkpoint of a later term came, and a crash kept the old entries alive.
        log.reconcile(Some(log_id(2, 6))).await.unwrap();
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(log_id(2, 6)));
        assert_eq!(state.last_log_id, Some(log_id(2, 6)));
        append(&mut log, 7..9, 2).await;
        assert_eq!(streamed(&mut log, 7..9).await.unwrap(), [7, 8]);
    }

    #[tokio::test]
    async fn log_purged_beyond_the_checkpoint_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir);
        append(&mut log, 0..10, 1).await;
        log.purge(log_id(1, 4)).await.unwrap();
        log.reconcile(Some(log_id(1, 4))).await.unwrap();
        for short in [None, Some(log_id(1, 3))] {
            let error = log.reconcile(short).await.unwrap_err();
            assert!(error.0.contains("the log is gone up to 4"), "{error}");
        }
    }

    #[tokio::test]
    async fn votes_entries_and_committed_index_survive_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir);
        let vote = Vote::new_committed(3, 1);
        log.save_vote(&vote).await.unwrap();
        log.save_committed(Some(log_id(3, 1))).await.unwrap();
        append(&mut log, 0..3, 3).await;
        drop(log);
        let mut log = open(&dir);
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(3, 1)));
        assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 3);
    }
}
