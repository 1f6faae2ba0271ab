//! WalWriter: the one thread that writes the log.
//!
//! It takes every queued submission, writes all of them as one batch, syncs the file once, and then
//! calls the submitters back in the order of their calls. It also switches to the next segment and
//! compacts the oldest one, which means that it copies the live records of that segment into the
//! newest.
//!
//! Promise: no callback reports success before its records are synced. Refused: to continue after
//! a write or an fsync that failed, because the content of the disk is unknown from then on.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::mutant::{self, Mutant};

use crate::disk::device::is_full;
use crate::disk::record::{
    BATCH_HEADER_BYTES, BatchLink, Kind, RECORD_HEADER_BYTES, Record, WriteBatch,
};
use crate::disk::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::disk::wal::index::EntrySource;
use crate::disk::wal::recover::OpenedLog;
use crate::disk::wal::segment_allocator::SegmentAllocator;
use crate::disk::wal::shared::{PendingSubmission, State, WalShared};
use crate::disk::wal::{SubmitCallback, WalConfig, WalError};
use crate::disk::{Device, GroupKey};
use crate::limits;

/// Capacity of the batch buffer that is kept between two batches, in bytes.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// What one pass of the writer has to write.
#[derive(Default)]
struct WritePlan {
    submissions: VecDeque<PendingSubmission>,
    /// Committed indexes that changed, and the metadata records of the oldest segment.
    metadata: Vec<Record>,
    /// Live entries of the oldest segment, to be copied.
    compaction: Vec<(GroupKey, EntrySource)>,
    /// The oldest segment that is still needed once all of this is durable.
    floor: u64,
}

/// The writer and the position it writes at.
pub(super) struct WalWriter {
    shared: Arc<WalShared>,
    dir: PathBuf,
    device: Arc<dyn Device>,
    fatal: Box<dyn Fn(String) + Send + Sync>,
    segment_bytes: u64,
    compact_after: usize,
    /// The segment that is written to, its size in bytes, and the offset of the next batch in it.
    active: Arc<Segment>,
    capacity: u64,
    end: u64,
    /// The last durable batch; the next one names it as its predecessor.
    link: BatchLink,
    /// The oldest segment that is needed, as the last durable batch says.
    floor: u64,
    /// The segment after `active`, once the writer has taken it from the allocator.
    spare: Option<Segment>,
    plan: WritePlan,
    batch: WriteBatch,
    /// The records of `batch`, each with its sequence number and its offset within the batch.
    batch_records: Vec<(Record, u64, u64)>,
    /// Whom to call back after the batch, with the error where the submission was rejected.
    callbacks: Vec<(SubmitCallback, Option<io::Error>)>,
    /// Replicas of which this pass has rejected a submission.
    rejected: BTreeSet<GroupKey>,
    /// For an inline log: allocates segments on the caller's thread.
    pub(super) allocator: Option<SegmentAllocator>,
    ended: bool,
}

impl WalWriter {
    pub(super) fn new(
        shared: Arc<WalShared>,
        dir: PathBuf,
        config: WalConfig,
        opened: OpenedLog,
    ) -> Self {
        let writer = Self {
            shared,
            dir,
            device: config.device,
            fatal: config.fatal,
            segment_bytes: config.segment_bytes,
            compact_after: config.compact_after_segments,
            active: opened.active,
            capacity: opened.capacity,
            end: opened.end,
            link: opened.link,
            floor: opened.floor,
            spare: None,
            plan: WritePlan::default(),
            batch: WriteBatch::new(Vec::new()),
            batch_records: Vec::new(),
            callbacks: Vec::new(),
            rejected: BTreeSet::new(),
            allocator: None,
            ended: false,
        };
        writer.request_spare(&mut writer.shared.state.lock());
        writer
    }

    /// The thread's body.
    pub(super) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.serve()));
        self.end(ended);
    }

    /// For an inline log: writes what is queued and returns.
    pub(super) fn run_queued(&mut self) {
        if self.ended {
            return;
        }
        if let Some(allocator) = &self.allocator {
            allocator.allocate_now();
        }
        let state = self.shared.state.lock();
        let has_work = !state.queue.is_empty() || state.closed;
        drop(state);
        if !has_work {
            return;
        }
        let ended = match catch_unwind(AssertUnwindSafe(|| self.write_queued())) {
            Ok(Ok(true)) => return,
            Ok(other) => Ok(other.map(|_| ())),
            Err(panic) => Err(panic),
        };
        self.end(ended);
    }

    fn end(&mut self, ended: std::thread::Result<io::Result<()>>) {
        self.ended = true;
        self.shared.state.lock().spare.close();
        self.shared.segment_requested.notify_all();
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.stop_with_error(&format!("writing to {} failed: {error}", self.dir.display()));
            }
            Err(_) => self.stop_with_error("the log's thread panicked"),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        while self.write_queued()? {}
        Ok(())
    }

    /// Writes everything that is queued. `false`: the log is closed and nothing is left.
    fn write_queued(&mut self) -> io::Result<bool> {
        let Some(plan) = self.take_queued() else { return Ok(false) };
        // The plan lives in `self` while it is worked through, so that an error in the middle still
        // reaches the callbacks of the submissions that are left.
        self.plan = plan;
        self.rejected.clear();
        while let Some(submission) = self.plan.submissions.pop_front() {
            self.add_submission(submission)?;
        }
        let floor = self.add_piggybacked();
        self.flush(floor)?;
        Ok(true)
    }

    /// The segment after the active one; see [`WalShared::next_segment`].
    fn await_next_segment(&self, retry: bool) -> io::Result<Option<Segment>> {
        match &self.allocator {
            Some(allocator) => {
                allocator.allocate_now();
                self.shared.next_segment(false)
            }
            None => self.shared.next_segment(retry),
        }
    }

    /// Waits for submissions and takes all of them. `None`: the log is closed and nothing is left.
    fn take_queued(&mut self) -> Option<WritePlan> {
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        while state.queue.is_empty() && !state.closed {
            shared.work_queued.wait(&mut state);
        }
        // A closing log still writes the committed indexes, which otherwise wait for a submission.
        if state.queue.is_empty() && state.index.committed_changed.is_empty() {
            return None;
        }
        self.spare = self.spare.take().or_else(|| state.spare.take());
        let plan = self.plan_write(&mut state);
        shared.queue_space.notify_all();
        Some(plan)
    }

    /// Plans the next pass: every queued submission, the committed indexes that changed, and a part
    /// of the compaction. The whole queue is taken under one lock, so the index at this moment is
    /// exactly what the disk holds after the pass.
    fn plan_write(&self, state: &mut State) -> WritePlan {
        let mut submissions = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        if !state.resync.is_empty() {
            // First, because the submissions behind it were built on the state in memory.
            submissions.push_front(resync_submission(state));
        }
        let mut plan = WritePlan { submissions, floor: self.floor, ..WritePlan::default() };
        for key in std::mem::take(&mut state.index.committed_changed) {
            let group = state.index.groups.get(&key);
            if let Some(committed) = group.and_then(|group| group.committed.value.clone()) {
                plan.metadata.push(Record::metadata(Kind::Committed, key, 0, committed));
            }
        }
        let (segment_count, max_live) = (state.index.segments.len(), self.segment_bytes / 4);
        // Oldest first, and only a prefix may be removed: a truncation must outlive the entries it
        // removes, or replay would bring them back.
        for (&serial, usage) in &state.index.segments {
            let live = usage.bytes + usage.entries * RECORD_HEADER_BYTES as u64;
            let may_go = live == 0 || (segment_count > self.compact_after + 1 && live <= max_live);
            if serial == self.active.header.serial || !may_go {
                break;
            }
            let (metadata, entries, all) =
                state.index.live_records(serial, limits::WAL_COMPACTION_BYTES);
            let nothing = metadata.is_empty() && entries.is_empty();
            plan.metadata.extend(metadata);
            plan.compaction = entries;
            if all {
                plan.floor = serial + 1;
            }
            // Empty segments cost nothing and are all passed; copying is limited to one segment.
            if !nothing {
                break;
            }
        }
        plan
    }

    /// Adds a submission to the batch. Where it does not fit, the batch is written first and the
    /// submission goes into a new segment.
    fn add_submission(&mut self, submission: PendingSubmission) -> io::Result<()> {
        if self.depends_on_rejected(&submission) {
            // Nothing to undo: its entries left the index with those it was built on.
            self.reject(submission, false);
            return Ok(());
        }
        match self.ensure_space(submission.size()) {
            Ok(true) => {}
            Ok(false) => {
                self.reject(submission, true);
                return Ok(());
            }
            Err(error) => {
                // Back into the plan, where `stop_with_error` finds its callback.
                self.plan.submissions.push_front(submission);
                return Err(error);
            }
        }
        for record in submission.records {
            self.push(record, submission.sequence);
        }
        self.callbacks.extend(submission.done.map(|done| (done, None)));
        Ok(())
    }

    /// Makes space for records of this size in the batch. `false`: the disk is full.
    fn ensure_space(&mut self, size: usize) -> io::Result<bool> {
        // Waits for the spare segment while half of the active one is left: a full disk is then
        // reported by `Wal::writable` before any submission has to be rejected.
        if self.spare.is_none() && self.batch.size_with(size) as u64 + self.end > self.capacity / 2
        {
            self.spare = self.await_next_segment(false)?;
        }
        while !self.fits(size) {
            // With the old floor: the compaction that would justify a new one is not in this batch.
            self.flush(self.floor)?;
            if !self.rotate(size)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether this submission builds on one that was rejected: its entries would leave a gap.
    fn depends_on_rejected(&self, submission: &PendingSubmission) -> bool {
        if submission.groups.iter().any(|(key, _)| self.rejected.contains(key)) {
            return true;
        }
        // A rejection in an earlier pass counts only if the caller did not know of it: who submits
        // after the rejection has seen the index without the rejected entries.
        let state = self.shared.state.lock();
        let rejections = |key| state.index.rejections.get(key).copied().unwrap_or(0);
        submission.groups.iter().any(|(key, seen)| rejections(key) != *seen)
    }

    /// Whether records of this size fit into the active segment. While there is no spare segment,
    /// only small submissions (votes, metadata) may use the reserve at its end.
    fn fits(&self, size: usize) -> bool {
        let reserved =
            self.spare.is_none() && size > limits::WAL_SMALL_WRITE_BYTES.min(self.reserve());
        let reserve = if reserved { self.reserve() as u64 } else { 0 };
        self.end + self.batch.size_with(size) as u64 + reserve <= self.capacity
    }

    /// Bytes at the end of a segment that are reserved for small submissions on a full disk.
    fn reserve(&self) -> usize {
        usize::try_from(self.segment_bytes / 16).expect("segments fit into memory")
    }

    fn push(&mut self, record: Record, sequence: u64) {
        let offset = self.batch.push(&record, self.active.seed);
        self.batch_records.push((record, sequence, offset));
    }

    /// Adds the committed indexes and the compaction to the last batch of the pass, if there is
    /// space and nothing was rejected. Returns the oldest segment that is needed once the batch is
    /// durable.
    fn add_piggybacked(&mut self) -> u64 {
        let plan = std::mem::take(&mut self.plan);
        let mut records = plan.metadata;
        for (key, source) in plan.compaction {
            match compacted_record(key, source) {
                Ok(record) => records.push(record),
                Err(error) => {
                    // The file must stay: it holds the only copy, and a reader of the entry gets
                    // the error. The log itself is not in danger, so it continues.
                    tracing::error!(%error, "an old log segment cannot be emptied");
                    return self.floor;
                }
            }
        }
        let size: usize = records.iter().map(Record::size).sum();
        // The plan was made for an index that included the rejected submissions: what it copies may
        // not be live any more. The next pass plans again.
        if !self.rejected.is_empty() || !self.fits(size) {
            let mut state = self.shared.state.lock();
            // Not while closing: `take_queued` would never find the list empty, and not return.
            if !state.closed {
                let committed = records.iter().filter(|record| record.kind == Kind::Committed);
                state.index.committed_changed.extend(committed.map(|record| record.key));
            }
            return self.floor;
        }
        let compacted = records.iter().filter(|record| record.kind == Kind::Compacted);
        let bytes: usize = compacted.map(Record::size).sum();
        self.shared.counters.compacted_bytes.fetch_add(bytes as u64, Relaxed);
        for record in records {
            self.push(record, 0);
        }
        plan.floor
    }

    /// Writes and syncs the batch, then calls back everybody who has a submission in it.
    fn flush(&mut self, floor: u64) -> io::Result<()> {
        if !self.batch.is_empty() {
            let start = self.end;
            self.write_batch(floor)?;
            let serial = self.active.header.serial;
            // After the sync: from here on the index lets readers go to the file for these entries,
            // and lets the cache drop their payloads.
            let mut state = self.shared.state.lock();
            for (record, sequence, offset) in self.batch_records.drain(..) {
                state.index.mark_written(&record, sequence, serial, start + offset);
            }
            drop(state);
            self.remove_unneeded_segments(floor);
        }
        // Without the lock: a callback may read from the log. Also those of rejected submissions
        // wait until here, so that callbacks come in the order of the calls.
        for (done, rejected) in self.callbacks.drain(..) {
            invoke(done, rejected.map_or(Ok(()), Err));
        }
        Ok(())
    }

    /// Writes and syncs the batch at the end of the active segment.
    fn write_batch(&mut self, floor: u64) -> io::Result<()> {
        let (bytes, crc) = self.batch.finish(self.active.seed, floor, self.link);
        let len = bytes.len() as u64;
        // Neither call is ever repeated: after a failed fsync the kernel may drop the dirty pages,
        // and a second fsync would report success for data that is gone.
        self.active.write(bytes, self.end, &*self.device)?;
        self.shared.sync_latency.begin();
        if !mutant::is(Mutant::AcknowledgeBeforeFsync) {
            self.active.sync(&*self.device)?;
        }
        let took = self.shared.sync_latency.end();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Only after the sync: a batch that names this one as its predecessor proves it durable.
        self.end += len;
        self.link = BatchLink { serial: self.active.header.serial, end: self.end, crc };
        let counters = &self.shared.counters;
        counters.write_batches.fetch_add(1, Relaxed);
        counters.fsyncs.fetch_add(1, Relaxed);
        counters.fsync_micros.fetch_add(micros, Relaxed);
        counters.bytes.fetch_add(len, Relaxed);
        counters.ops.fetch_add(self.batch_records.len() as u64, Relaxed);
        let mut buffer =
            std::mem::replace(&mut self.batch, WriteBatch::new(Vec::new())).into_buffer();
        buffer.clear();
        // One large entry must not hold its memory for ever.
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.batch = WriteBatch::new(buffer);
        Ok(())
    }

    /// Removes the segments below `floor`, now that a durable batch names that floor. Never before:
    /// recovery reports a missing segment as corruption unless the log says it is not needed.
    fn remove_unneeded_segments(&mut self, floor: u64) {
        if floor == self.floor {
            return;
        }
        self.floor = floor;
        let mut state = self.shared.state.lock();
        let kept = state.index.segments.split_off(&floor);
        let removed = std::mem::replace(&mut state.index.segments, kept);
        self.shared.counters.segments.store(state.index.segments.len() as u64, Relaxed);
        drop(state);
        // Outside the lock, as removing a file may take long. A reader that holds the segment still
        // reads from its open handle. A file that stays is removed by the next start.
        for usage in removed.into_values() {
            if let Err(error) = std::fs::remove_file(&usage.segment.path) {
                let file = usage.segment.path.display();
                tracing::warn!(%file, %error, "a log segment no longer needed stays");
            }
        }
    }

    /// Switches to the next segment, which has space for `size` bytes of records. `false`: the disk
    /// is full.
    fn rotate(&mut self, size: usize) -> io::Result<bool> {
        let next = match self.spare.take() {
            Some(spare) => Some(spare),
            None => self.await_next_segment(true)?,
        };
        let Some(spare) = next else { return Ok(false) };
        let needed = (SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES + size + 8 + self.reserve()) as u64;
        // A submission larger than a segment gets a larger segment: it is never split, because a
        // batch is what is durable as a whole.
        if needed > self.segment_bytes
            && let Err(error) = spare.grow(needed, &*self.device)
        {
            // Smaller submissions can still use it.
            self.spare = Some(spare);
            return if is_full(&error) { Ok(false) } else { Err(error) };
        }
        self.active.trim(self.end);
        self.active = Arc::new(spare);
        self.end = SEGMENT_HEADER_BYTES as u64;
        self.capacity = self.segment_bytes.max(needed);
        // Before anything is written to it: the index counts every record by its segment.
        let mut state = self.shared.state.lock();
        self.request_spare(&mut state);
        state.index.add_segment(self.active.clone());
        self.shared.counters.segments.store(state.index.segments.len() as u64, Relaxed);
        Ok(true)
    }

    /// Asks the allocator for the segment after the active one.
    fn request_spare(&self, state: &mut State) {
        let serial = self.active.header.serial + 1;
        let (nonce, floor) = (self.device.nonce(), self.floor);
        state.spare.request(SegmentHeader { serial, nonce, replaces: serial, floor });
        self.shared.segment_requested.notify_all();
    }

    /// Rejects a submission because the disk is full. With `undo`, the index drops the entries it
    /// appended. What else it changed (a vote, a truncation) stays in memory, and the next batch
    /// that fits writes it again.
    fn reject(&mut self, submission: PendingSubmission, undo: bool) {
        let mut state = self.shared.state.lock();
        for (key, _) in &submission.groups {
            if undo {
                state.index.undo_submission(*key, submission.sequence);
            }
            let its = || submission.records.iter().filter(|record| record.key == *key);
            // Entries that never reached the disk need no correction there; anything else may have
            // been acted upon by a reader of the index.
            if its().any(|record| record.kind != Kind::Entry) {
                let forgotten = its().any(|record| record.kind == Kind::Forget);
                *state.resync.entry(*key).or_default() |= forgotten;
            }
            self.rejected.insert(*key);
        }
        let (needed, free) = state.full.unwrap_or_else(|| (submission.size() as u64, 0));
        drop(state);
        self.shared.counters.rejected.fetch_add(1, Relaxed);
        let error = WalError::Full { dir: self.dir.clone(), needed, free };
        let error = io::Error::new(io::ErrorKind::StorageFull, error);
        self.callbacks.extend(submission.done.map(|done| (done, Some(error))));
    }

    /// Stops the log for good: calls back everybody who waits, then reports to the node.
    fn stop_with_error(&mut self, reason: &str) {
        tracing::error!(reason, "the log stops");
        let mut state = self.shared.state.lock();
        // Under the same lock as the queue is taken, so that no submission can slip in between and
        // never be called back.
        state.stopped = Some(reason.to_owned());
        let queue = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        self.shared.queue_space.notify_all();
        drop(state);
        // In the order of the calls: the batch, the rest of the plan, the queue.
        let waiting = self.callbacks.drain(..).map(|(done, _)| done);
        let plan = std::mem::take(&mut self.plan.submissions);
        let queued = plan.into_iter().chain(queue).filter_map(|submission| submission.done);
        for done in waiting.chain(queued) {
            invoke(done, Err(stopped_error(reason)));
        }
        (self.fatal)(reason.to_owned());
    }
}

/// The error of every submission once the log has stopped.
pub(super) fn stopped_error(reason: &str) -> io::Error {
    io::Error::other(WalError::Stopped { reason: reason.to_owned() })
}

/// Calls a callback. One that panics is a defect of its owner and does not stop the log.
fn invoke(done: SubmitCallback, result: io::Result<()>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a callback of the log panicked");
    }
}

/// A submission that writes the state of every replica whose index and disk differ.
fn resync_submission(state: &mut State) -> PendingSubmission {
    let mut records = Vec::new();
    let mut groups = Vec::new();
    for (key, forgotten) in std::mem::take(&mut state.resync) {
        groups.push((key, state.index.rejections.get(&key).copied().unwrap_or(0)));
        // The order matters: the replica may have been created again after it was forgotten.
        if forgotten {
            records.push(Record::metadata(Kind::Forget, key, 0, bytes::Bytes::new()));
        }
        if let Some(group) = state.index.groups.get(&key) {
            records.extend(group.resync_records(key));
        }
    }
    PendingSubmission { records, sequence: 0, groups, done: None }
}

/// The record that copies a live entry of an old segment.
fn compacted_record(key: GroupKey, source: EntrySource) -> Result<Record, WalError> {
    let entry = source.read(key)?;
    let (index, term, payload) = (entry.index, entry.term, entry.bytes);
    Ok(Record { kind: Kind::Compacted, key, index, term, payload })
}
