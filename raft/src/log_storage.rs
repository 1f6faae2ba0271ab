//! Log storage: one group's part of the node's log, as openraft wants to see it.
//!
//! Promise: an append is reported flushed when it is on disk, never before; votes and entries of a
//! group reach the disk in the order they were given; what was appended can be read at once.
//! Refused: an entry that cannot be decoded is an error that names it, never a gap.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use model::codec;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::consensus::{Entry, LogEntry, LogId, Payload, Types, Vote, log_id};
use crate::disk::{self, Done, GroupKey, GroupLog, Op, Wal, WalError};
use crate::error::Fatal;
use crate::limits;

/// The format of an entry's bytes in the log.
const FORMAT: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The node's log, and the room there is in its queue.
#[derive(Clone)]
pub(crate) struct SharedLog {
    pub(crate) wal: Arc<Wal>,
    room: Arc<Semaphore>,
}

impl SharedLog {
    pub(crate) fn new(wal: Arc<Wal>) -> Self {
        Self { wal, room: Arc::new(Semaphore::new(limits::LOG_IN_FLIGHT_BYTES)) }
    }

    /// Removes all that the log holds of a replica.
    pub(crate) async fn forget(&self, group: GroupKey) -> io::Result<()> {
        self.submit_and_wait(vec![Op::Forget { group }]).await
    }

    async fn submit_and_wait(&self, ops: Vec<Op>) -> io::Result<()> {
        let room = self.room(0).await;
        let (tx, rx) = oneshot::channel();
        let done: Done = Box::new(move |result| {
            drop(room);
            let _ = tx.send(result);
        });
        self.wal.submit(ops, done);
        rx.await.unwrap_or_else(|_| Err(io::Error::other("the log was closed")))
    }

    /// Waits until `bytes` more fit into the log's queue, so that handing them over never blocks.
    async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let wanted = (bytes + 1024).min(limits::LOG_IN_FLIGHT_BYTES);
        let wanted = u32::try_from(wanted).expect("the room is smaller than 4 GiB");
        self.room.clone().acquire_many_owned(wanted).await.expect("the room is never closed")
    }
}

/// One group's log. Cheap to clone; every clone sees the same.
#[derive(Clone)]
pub(crate) struct Log(Arc<Inner>);

struct Inner {
    key: GroupKey,
    shared: SharedLog,
    tail: Mutex<Tail>,
}

impl Log {
    pub(crate) fn new(key: GroupKey, shared: SharedLog) -> Self {
        Self(Arc::new(Inner { key, shared, tail: Mutex::default() }))
    }

    /// Makes the log agree with the checkpoint the machine was given. Entries that contradict one
    /// that came from another replica are removed, where a crash kept that from happening.
    pub(crate) async fn agree(&self, checkpoint: Option<LogId>) -> Result<(), Fatal> {
        let (group, state) = (self.0.key, self.state());
        let gone = state.purged.as_ref().map(|(index, _)| *index);
        if gone > checkpoint.map(|id| id.index) {
            let gone = gone.unwrap_or(0);
            return Err(Fatal(format!(
                "{group}: the log is gone up to {gone} and no checkpoint holds what was there"
            )));
        }
        let (Some(id), Some(first), Some((last, _))) = (checkpoint, state.first, state.last) else {
            return Ok(());
        };
        let index = id.index;
        if index < first || last < index {
            return Ok(());
        }
        let here = self.read_disk(index..index + 1, usize::MAX).await.map_err(fatal)?;
        if here.first().is_some_and(|entry| entry.log_id == id) {
            return Ok(());
        }
        tracing::warn!(%group, checkpoint = %id, "the log contradicts the checkpoint and is cut");
        let log_id = codec::encode(&id).into();
        let cut =
            vec![Op::TruncateAfter { group, after: None }, Op::Purge { group, index, log_id }];
        self.submit_and_wait(cut).await.map_err(fatal)
    }

    fn state(&self) -> GroupLog {
        self.0.shared.wal.state(self.0.key)
    }

    async fn submit_and_wait(&self, ops: Vec<Op>) -> io::Result<()> {
        self.0.shared.submit_and_wait(ops).await
    }

    /// Entries from memory if it has the first of them, else from disk, elsewhere.
    async fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogEntry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.0.tail.lock().get(&range, max_bytes) {
            return Ok(entries);
        }
        self.read_disk(range, max_bytes).await
    }

    async fn read_disk(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogEntry>> {
        let (wal, key) = (self.0.shared.wal.clone(), self.0.key);
        let read = tokio::task::spawn_blocking(move || wal.read(key, range, max_bytes)).await;
        let entries = read.map_err(io::Error::other)?.map_err(into_io)?;
        entries.iter().map(|entry| decode(entry).map_err(io::Error::other)).collect()
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<LogEntry>> {
        let range = self.existing(&range);
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
    ) -> impl Stream<Item = io::Result<LogEntry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = self.existing(&range);
        pieces(self.clone(), range)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.state().vote.map(|bytes| codec::decode(&bytes)).transpose().map_err(io::Error::other)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.read(start..end, limits::APPEND_BYTES).await
    }
}

impl Log {
    /// The part of a range that the log may hold.
    fn existing(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
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

/// The entries of a range, read piece by piece as they are wanted.
fn pieces(log: Log, range: Range<u64>) -> impl Stream<Item = io::Result<LogEntry>> + Send + Unpin {
    let start = (log, range, VecDeque::new());
    Box::pin(stream::try_unfold(start, |(log, mut range, mut ready)| async move {
        if ready.is_empty() {
            ready = log.read(range.clone(), limits::APPLY_BYTES).await?.into();
        }
        let Some(entry): Option<LogEntry> = ready.pop_front() else { return Ok(None) };
        range.start = entry.log_id.index + 1;
        Ok(Some((entry, (log, range, ready))))
    }))
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.state();
        let purged: Option<LogId> = state
            .purged
            .map(|(_, bytes)| codec::decode(&bytes))
            .transpose()
            .map_err(io::Error::other)?;
        let last = state.last.map(|(index, term)| log_id(term, index)).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = codec::encode(vote).into();
        self.submit_and_wait(vec![Op::Vote { group: self.0.key, vote }]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let committed = codec::encode(&committed).into();
        let room = self.0.shared.room(0).await;
        let op = Op::Committed { group: self.0.key, committed };
        // Advice only: what it costs to lose it is a slower start.
        self.0.shared.wal.submit(vec![op], Box::new(move |_| drop(room)));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.state().committed;
        committed.map(|bytes| codec::decode(&bytes)).transpose().map_err(io::Error::other)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
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
        let room = self.0.shared.room(bytes).await;
        let done: Done = Box::new(move |result| {
            drop(room);
            callback.io_completed(result);
        });
        self.0.shared.wal.submit(vec![Op::Append { group: self.0.key, entries: encoded }], done);
        self.0.tail.lock().append(entries);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let after = last_log_id.map(|id| id.index);
        self.0.tail.lock().truncate_after(after);
        self.submit_and_wait(vec![Op::TruncateAfter { group: self.0.key, after }]).await
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.0.tail.lock().purge(id.index);
        let log_id = codec::encode(&id).into();
        self.submit_and_wait(vec![Op::Purge { group: self.0.key, index: id.index, log_id }]).await
    }
}

/// The last entries, decoded.
#[derive(Default)]
struct Tail {
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

impl Tail {
    fn append(&mut self, entries: Vec<LogEntry>) {
        for entry in entries {
            let follows = self.entries.back().map(|last| last.log_id.index + 1);
            if follows.is_some_and(|index| index != entry.log_id.index) {
                self.entries.clear();
                self.bytes = 0;
            }
            self.bytes += size(&entry);
            self.entries.push_back(entry);
        }
        while self.bytes > limits::TAIL_BYTES && self.entries.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size(&entry);
        }
    }

    fn truncate_after(&mut self, after: Option<u64>) {
        let stays = |entry: &LogEntry| after.is_some_and(|after| entry.log_id.index <= after);
        while self.entries.back().is_some_and(|entry| !stays(entry)) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= size(&entry);
            }
        }
    }

    fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= index) {
            self.drop_first();
        }
    }

    /// The entries of a range, at least one, no more than `max_bytes` otherwise; `None` when the
    /// first of them is not here.
    fn get(&self, range: &Range<u64>, max_bytes: usize) -> Option<Vec<LogEntry>> {
        let first = self.entries.front()?.log_id.index;
        let skip = usize::try_from(range.start.checked_sub(first)?).ok()?;
        let mut found: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skip) {
            bytes += size(entry);
            if entry.log_id.index >= range.end || (!found.is_empty() && bytes > max_bytes) {
                break;
            }
            found.push(entry.clone());
        }
        (!found.is_empty()).then_some(found)
    }
}

/// What an entry costs in memory, roughly.
fn size(entry: &LogEntry) -> usize {
    const ENTRY: usize = 64;
    match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY,
        EntryPayload::Normal(Entry(bytes)) => ENTRY + bytes.len(),
    }
}

fn encode(payload: &Payload) -> Bytes {
    let (kind, body): (u8, &[u8]) = match payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(Entry(bytes)) => (NORMAL, bytes),
        EntryPayload::Membership(membership) => (MEMBERSHIP, &codec::encode(membership)),
    };
    let mut bytes = Vec::with_capacity(2 + body.len());
    bytes.extend([FORMAT, kind]);
    bytes.extend(body);
    bytes.into()
}

/// An entry as it was appended.
pub(crate) fn decode(entry: &disk::Entry) -> Result<LogEntry, Fatal> {
    let disk::Entry { index, term, bytes } = entry;
    let bad = |reason: String| Fatal(format!("log entry {index} {reason}"));
    let payload = match *bytes.as_ref() {
        [FORMAT, BLANK] => EntryPayload::Blank,
        [FORMAT, NORMAL, ..] => EntryPayload::Normal(Entry(bytes.slice(2..))),
        [FORMAT, MEMBERSHIP, ref body @ ..] => EntryPayload::Membership(
            codec::decode(body).map_err(|error| bad(format!("cannot be read: {error}")))?,
        ),
        [FORMAT, kind, ..] => return Err(bad(format!("is of an unknown kind, {kind}"))),
        [format, ..] => {
            return Err(bad(format!("has format {format}; this build reads format {FORMAT}")));
        }
        [] => return Err(bad("is empty".to_owned())),
    };
    Ok(LogEntry { log_id: log_id(*term, *index), payload })
}

fn fatal(error: io::Error) -> Fatal {
    Fatal(error.to_string())
}

/// In openraft's words; what can be tried again stays recognisable.
fn into_io(error: WalError) -> io::Error {
    let full = matches!(error, WalError::Full { .. });
    let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::entry::RaftEntry;

    use super::*;
    use crate::types::Member;

    fn entry(index: u64, bytes: &[u8]) -> LogEntry {
        LogEntry::new_normal(log_id(1, index), Entry(Bytes::copy_from_slice(bytes)))
    }

    fn indexes(entries: Option<Vec<LogEntry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn every_kind_of_entry_reads_back_and_foreign_bytes_are_refused_by_index() {
        let membership = openraft::Membership::new(
            vec![BTreeSet::from([7])],
            BTreeMap::from([(7, Member::default())]),
        )
        .unwrap();
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Entry(Bytes::from_static(b"x"))),
            EntryPayload::Membership(membership),
        ] {
            let bytes = encode(&payload);
            let back = decode(&disk::Entry { index: 4, term: 2, bytes }).unwrap();
            assert_eq!(back, LogEntry { log_id: log_id(2, 4), payload });
        }
        for bad in [&b""[..], &[9, 1], &[1, 9], &[1, 2, 3]] {
            let bytes = Bytes::copy_from_slice(bad);
            let error = decode(&disk::Entry { index: 4, term: 2, bytes }).unwrap_err();
            assert!(error.to_string().starts_with("log entry 4 "), "{error}");
        }
    }

    #[test]
    fn the_tail_gives_what_it_has_from_the_first_wanted_on_or_nothing() {
        let mut tail = Tail::default();
        assert!(tail.get(&(0..9), usize::MAX).is_none());
        tail.append((5..9).map(|index| entry(index, b"four")).collect());
        assert_eq!(indexes(tail.get(&(6..8), usize::MAX)), Some(vec![6, 7]));
        assert_eq!(indexes(tail.get(&(5..99), usize::MAX)), Some(vec![5, 6, 7, 8]));
        assert_eq!(indexes(tail.get(&(5..9), 1)), Some(vec![5]), "at least one");
        assert_eq!(indexes(tail.get(&(4..9), usize::MAX)), None, "4 is not here");
        assert_eq!(indexes(tail.get(&(9..10), usize::MAX)), None, "9 is not here");
        tail.truncate_after(Some(6));
        tail.purge(5);
        assert_eq!(indexes(tail.get(&(6..9), usize::MAX)), Some(vec![6]));
        tail.append(vec![entry(20, b"a gap empties it")]);
        assert_eq!(indexes(tail.get(&(6..9), usize::MAX)), None);
        tail.truncate_after(None);
        assert_eq!(tail.bytes, 0);
    }

    #[test]
    fn the_tail_is_bounded_by_bytes() {
        let mut tail = Tail::default();
        let big = vec![0; limits::TAIL_BYTES / 4];
        tail.append((0..10).map(|index| entry(index, &big)).collect());
        assert!(tail.bytes <= limits::TAIL_BYTES);
        assert_eq!(tail.entries.back().unwrap().log_id.index, 9);
        tail.append(vec![entry(10, &vec![0; limits::TAIL_BYTES * 2])]);
        assert_eq!(tail.entries.len(), 1, "the last one always stays");
    }
}
