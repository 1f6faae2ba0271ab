//! Writer: the log's one thread. It takes all that is queued, writes it as one turn, makes it
//! durable with one call, and then, in order, says so.
//!
//! It also moves on to the next segment, empties the oldest one by writing again what lives in it,
//! and stops for good at the first write or fsync that fails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use model::mutant::{self, Mutant};
use parking_lot::{Condvar, Mutex};

use crate::disk::device::is_full;
use crate::disk::record::{
    BATCH_HEADER_BYTES, BatchLink, Kind, RECORD_HEADER_BYTES, Record, WriteBatch,
};
use crate::disk::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::disk::wal::index::{EntrySource, Index};
use crate::disk::wal::recover::OpenedLog;
use crate::disk::wal::segment_allocator::{SegmentAllocator, SpareSegment};
use crate::disk::wal::{SubmitCallback, WalConfig, WalCounters, WalError};
use crate::disk::{Device, GroupKey};
use crate::limits;

/// What the writer's memory may keep between turns.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// One submission on its way.
pub(super) struct PendingSubmission {
    pub(super) records: Vec<Record>,
    pub(super) sequence: u64,
    /// The replicas it is about, each with its refusals when it was submitted.
    pub(super) groups: Vec<(GroupKey, u64)>,
    pub(super) done: Option<SubmitCallback>,
}

impl PendingSubmission {
    pub(super) fn size(&self) -> usize {
        self.records.iter().map(Record::size).sum()
    }
}

/// What is shared between those who submit and read, and the writer.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Wakes the writer.
    pub(super) work_queued: Condvar,
    /// Wakes those who wait for room in the queue.
    pub(super) queue_space: Condvar,
    /// Wakes the maker of segments.
    pub(super) segment_requested: Condvar,
    /// Wakes the writer when it waits for a segment.
    pub(super) allocation_done: Condvar,
    pub(super) counters: WalCounters,
}

/// The shared state. One lock: what is queued and what is known change together.
#[derive(Default)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) queue: VecDeque<PendingSubmission>,
    pub(super) queued_bytes: usize,
    pub(super) sequence: u64,
    pub(super) closed: bool,
    pub(super) stopped: Option<String>,
    /// Bytes needed and free, while there is no next segment.
    pub(super) full: Option<(u64, u64)>,
    /// The segment after the current one, until the writer takes it.
    pub(super) spare: SpareSegment,
    /// Replicas of which memory says something the disk was refused: it is said again with the next
    /// turn. `true`: that the replica was forgotten before.
    pub(super) resync: BTreeMap<GroupKey, bool>,
}

/// What one turn of the writer does.
#[derive(Default)]
struct WritePlan {
    submissions: VecDeque<PendingSubmission>,
    /// Committed marks and marks of the oldest segment.
    metadata: Vec<Record>,
    /// Entries of the oldest segment.
    compaction: Vec<(GroupKey, EntrySource)>,
    /// The oldest segment needed once all of this is durable.
    floor: u64,
}

/// The writer.
pub(super) struct Writer {
    shared: Arc<Shared>,
    dir: PathBuf,
    device: Arc<dyn Device>,
    fatal: Box<dyn Fn(String) + Send + Sync>,
    segment_bytes: u64,
    compact_after: usize,
    active: Arc<Segment>,
    capacity: u64,
    end: u64,
    link: BatchLink,
    floor: u64,
    spare: Option<Segment>,
    plan: WritePlan,
    batch: WriteBatch,
    /// The records of the turn: ticket and offset in the turn.
    batch_records: Vec<(Record, u64, u64)>,
    /// Whom to tell after the turn, and what was refused.
    callbacks: Vec<(SubmitCallback, Option<io::Error>)>,
    /// Replicas something of which was refused in this batch.
    rejected: BTreeSet<GroupKey>,
    /// Where there are no threads: makes segments when they are needed.
    pub(super) allocator: Option<SegmentAllocator>,
    ended: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
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

    /// Without a thread: does what waits and returns.
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

    /// One batch. `false`: the log is closed and nothing is left.
    fn write_queued(&mut self) -> io::Result<bool> {
        let Some(plan) = self.take_queued() else { return Ok(false) };
        self.plan = plan;
        self.rejected.clear();
        while let Some(submission) = self.plan.submissions.pop_front() {
            self.add_submission(submission)?;
        }
        let floor = self.add_piggybacked();
        self.flush(floor)?;
        Ok(true)
    }

    /// The segment after the current one; see [`Shared::await_next_segment`].
    fn await_next_segment(&self, retry: bool) -> io::Result<Option<Segment>> {
        match &self.allocator {
            Some(allocator) => {
                allocator.allocate_now();
                self.shared.next_segment(false)
            }
            None => self.shared.next_segment(retry),
        }
    }

    /// Waits for something to do and takes all of it. `None`: closed, and nothing is left.
    fn take_queued(&mut self) -> Option<WritePlan> {
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        while state.queue.is_empty() && !state.closed {
            shared.work_queued.wait(&mut state);
        }
        if state.queue.is_empty() && state.index.committed_changed.is_empty() {
            return None;
        }
        self.spare = self.spare.take().or_else(|| state.spare.take());
        let plan = self.plan_write(&mut state);
        shared.queue_space.notify_all();
        Some(plan)
    }

    /// Everything queued, and what rides along. Because the whole queue is taken, the state at this
    /// moment is exactly what the disk will say after this batch.
    fn plan_write(&self, state: &mut State) -> WritePlan {
        let mut submissions = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        if !state.resync.is_empty() {
            submissions.push_front(resync_submission(state));
        }
        let mut plan = WritePlan { submissions, floor: self.floor, ..WritePlan::default() };
        for key in std::mem::take(&mut state.index.committed_changed) {
            let group = state.index.groups.get(&key);
            if let Some(committed) = group.and_then(|group| group.committed.value.clone()) {
                plan.metadata.push(Record::metadata(Kind::Committed, key, 0, committed));
            }
        }
        let (live_records, max_live) = (state.index.segments.len(), self.segment_bytes / 4);
        for (&serial, usage) in &state.index.segments {
            let live = usage.bytes + usage.entries * RECORD_HEADER_BYTES as u64;
            let may_go = live == 0 || (live_records > self.compact_after + 1 && live <= max_live);
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
            if !nothing {
                break;
            }
        }
        plan
    }

    /// Puts a submission into the turn; begins another turn or segment for it where needed.
    fn add_submission(&mut self, submission: PendingSubmission) -> io::Result<()> {
        if self.depends_on_rejected(&submission) {
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
                // It is told with all the others.
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

    /// Sees to it that records of this size fit into the turn. `false`: there is no room on the
    /// disk.
    fn ensure_space(&mut self, size: usize) -> io::Result<bool> {
        // Whether there is a next segment is known while half of this one is left.
        if self.spare.is_none() && self.batch.size_with(size) as u64 + self.end > self.capacity / 2
        {
            self.spare = self.await_next_segment(false)?;
        }
        while !self.fits(size) {
            self.flush(self.floor)?;
            if !self.rotate(size)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether something this submission stands on was refused.
    fn depends_on_rejected(&self, submission: &PendingSubmission) -> bool {
        if submission.groups.iter().any(|(key, _)| self.rejected.contains(key)) {
            return true;
        }
        let state = self.shared.state.lock();
        let rejections = |key| state.index.rejections.get(key).copied().unwrap_or(0);
        submission.groups.iter().any(|(key, seen)| rejections(key) != *seen)
    }

    /// Whether records of this size fit into the current segment. While there is no next one, only
    /// small submissions may use its last part.
    fn fits(&self, size: usize) -> bool {
        let reserved =
            self.spare.is_none() && size > limits::WAL_SMALL_WRITE_BYTES.min(self.reserve());
        let reserve = if reserved { self.reserve() as u64 } else { 0 };
        self.end + self.batch.size_with(size) as u64 + reserve <= self.capacity
    }

    fn reserve(&self) -> usize {
        usize::try_from(self.segment_bytes / 16).expect("segments fit into memory")
    }

    fn push(&mut self, record: Record, sequence: u64) {
        let offset = self.batch.push(&record, self.active.seed);
        self.batch_records.push((record, sequence, offset));
    }

    /// Adds what rides along, if there is room and nothing was refused. Returns the oldest segment
    /// needed once the turn is durable.
    fn add_piggybacked(&mut self) -> u64 {
        let plan = std::mem::take(&mut self.plan);
        let mut records = plan.metadata;
        for (key, source) in plan.compaction {
            match compacted_record(key, source) {
                Ok(record) => records.push(record),
                Err(error) => {
                    // Whoever needs the entry will be told; until then its file must stay.
                    tracing::error!(%error, "an old log segment cannot be emptied");
                    return self.floor;
                }
            }
        }
        let size: usize = records.iter().map(Record::size).sum();
        if !self.rejected.is_empty() || !self.fits(size) {
            let mut state = self.shared.state.lock();
            if !state.closed {
                let committed = records.iter().filter(|record| record.kind == Kind::Committed);
                state.index.committed_changed.extend(committed.map(|record| record.key));
            }
            return self.floor;
        }
        let compacted_record = records.iter().filter(|record| record.kind == Kind::Compacted);
        let bytes: usize = compacted_record.map(Record::size).sum();
        self.shared.counters.compacted_bytes.fetch_add(bytes as u64, Relaxed);
        for record in records {
            self.push(record, 0);
        }
        plan.floor
    }

    /// Writes the turn, makes it durable, and tells everybody in it.
    fn flush(&mut self, floor: u64) -> io::Result<()> {
        if !self.batch.is_empty() {
            let start = self.end;
            self.write_batch(floor)?;
            let serial = self.active.header.serial;
            let mut state = self.shared.state.lock();
            for (record, sequence, offset) in self.batch_records.drain(..) {
                state.index.mark_written(&record, sequence, serial, start + offset);
            }
            drop(state);
            self.remove_unneeded_segments(floor);
        }
        for (done, rejected) in self.callbacks.drain(..) {
            invoke(done, rejected.map_or(Ok(()), Err));
        }
        Ok(())
    }

    fn write_batch(&mut self, floor: u64) -> io::Result<()> {
        let (bytes, crc) = self.batch.finish(self.active.seed, floor, self.link);
        let len = bytes.len() as u64;
        self.active.write(bytes, self.end, &*self.device)?;
        let started = Instant::now();
        if !mutant::is(Mutant::AcknowledgeBeforeFsync) {
            self.active.sync(&*self.device)?;
        }
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
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
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.batch = WriteBatch::new(buffer);
        Ok(())
    }

    /// Removes the segments nobody needs any more, now that a durable turn says so.
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
        for usage in removed.into_values() {
            if let Err(error) = std::fs::remove_file(&usage.segment.path) {
                let file = usage.segment.path.display();
                tracing::warn!(%file, %error, "a log segment no longer needed stays");
            }
        }
    }

    /// Goes on in the next segment, which gets room for `size` bytes of records. `false`: there is
    /// no room on the disk.
    fn rotate(&mut self, size: usize) -> io::Result<bool> {
        let next = match self.spare.take() {
            Some(spare) => Some(spare),
            None => self.await_next_segment(true)?,
        };
        let Some(spare) = next else { return Ok(false) };
        let needed = (SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES + size + 8 + self.reserve()) as u64;
        if needed > self.segment_bytes
            && let Err(error) = spare.grow(needed, &*self.device)
        {
            self.spare = Some(spare);
            return if is_full(&error) { Ok(false) } else { Err(error) };
        }
        self.active.trim(self.end);
        self.active = Arc::new(spare);
        self.end = SEGMENT_HEADER_BYTES as u64;
        self.capacity = self.segment_bytes.max(needed);
        let mut state = self.shared.state.lock();
        self.request_spare(&mut state);
        state.index.add_segment(self.active.clone());
        self.shared.counters.segments.store(state.index.segments.len() as u64, Relaxed);
        Ok(true)
    }

    /// Orders the segment after the current one.
    fn request_spare(&self, state: &mut State) {
        let serial = self.active.header.serial + 1;
        let (nonce, floor) = (self.device.nonce(), self.floor);
        state.spare.request(SegmentHeader { serial, nonce, replaces: serial, floor });
        self.shared.segment_requested.notify_all();
    }

    /// Says no to a submission because there is no room for it. Memory forgets what it appended;
    /// what else it changed is said to the disk again with the next turn.
    fn reject(&mut self, submission: PendingSubmission, undo_submission: bool) {
        let mut state = self.shared.state.lock();
        for (key, _) in &submission.groups {
            if undo_submission {
                state.index.undo_submission(*key, submission.sequence);
            }
            let its = || submission.records.iter().filter(|record| record.key == *key);
            // Entries that were never written need no word.
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

    /// The end of this log: everybody still waiting is told, then the node.
    fn stop_with_error(&mut self, reason: &str) {
        tracing::error!(reason, "the log stops");
        let mut state = self.shared.state.lock();
        state.stopped = Some(reason.to_owned());
        let queue = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        self.shared.queue_space.notify_all();
        drop(state);
        let waiting = self.callbacks.drain(..).map(|(done, _)| done);
        let plan = std::mem::take(&mut self.plan.submissions);
        let queued = plan.into_iter().chain(queue).filter_map(|submission| submission.done);
        for done in waiting.chain(queued) {
            invoke(done, Err(stopped_error(reason)));
        }
        (self.fatal)(reason.to_owned());
    }
}

/// What everybody is told once the log is dead.
pub(super) fn stopped_error(reason: &str) -> io::Error {
    io::Error::other(WalError::Stopped { reason: reason.to_owned() })
}

/// Calls a callback; one that panics is a defect of its owner, not the end of the log.
fn invoke(done: SubmitCallback, result: io::Result<()>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a callback of the log panicked");
    }
}

/// What memory says of the replicas a refusal left in doubt, to be written first.
fn resync_submission(state: &mut State) -> PendingSubmission {
    let mut records = Vec::new();
    let mut groups = Vec::new();
    for (key, forgotten) in std::mem::take(&mut state.resync) {
        groups.push((key, state.index.rejections.get(&key).copied().unwrap_or(0)));
        if forgotten {
            records.push(Record::metadata(Kind::Forget, key, 0, bytes::Bytes::new()));
        }
        if let Some(group) = state.index.groups.get(&key) {
            records.extend(group.resync_records(key));
        }
    }
    PendingSubmission { records, sequence: 0, groups, done: None }
}

/// An entry of an old segment, to be written again.
fn compacted_record(key: GroupKey, source: EntrySource) -> Result<Record, WalError> {
    let entry = source.read(key)?;
    let (index, term, payload) = (entry.index, entry.term, entry.bytes);
    Ok(Record { kind: Kind::Compacted, key, index, term, payload })
}
