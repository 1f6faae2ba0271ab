//! Shared: what callers of the log, its writer and its segment allocator share, behind one lock.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use parking_lot::{Condvar, Mutex};

use crate::disk::GroupKey;
use crate::disk::record::Record;
use crate::disk::segment::{Segment, SegmentHeader};
use crate::disk::wal::index::WalIndex;
use crate::disk::wal::sync_latency::SyncLatency;
use crate::disk::wal::{SubmitCallback, WalCounters};

/// One call of `Wal::submit` that is not durable yet.
pub(super) struct PendingSubmission {
    pub(super) records: Vec<Record>,
    pub(super) sequence: u64,
    /// The replicas it changes, each with its rejection count at the time of the call. If the count
    /// has grown since, the submission builds on one that was rejected.
    pub(super) groups: Vec<(GroupKey, u64)>,
    pub(super) done: Option<SubmitCallback>,
}

impl PendingSubmission {
    pub(super) fn size(&self) -> usize {
        self.records.iter().map(Record::size).sum()
    }
}

/// What callers, the writer and the segment allocator share.
pub(super) struct WalShared {
    pub(super) state: Mutex<State>,
    /// Wakes the writer.
    pub(super) work_queued: Condvar,
    /// Wakes callers that wait for space in the queue.
    pub(super) queue_space: Condvar,
    /// Wakes the segment allocator.
    pub(super) segment_requested: Condvar,
    /// Wakes the writer while it waits for a segment.
    pub(super) allocation_done: Condvar,
    pub(super) sync_latency: SyncLatency,
    pub(super) counters: WalCounters,
}

/// The shared state. One lock protects all of it, because the queue and the index must change
/// together: the index describes the log as it will be once the queue is written.
#[derive(Default)]
pub(super) struct State {
    pub(super) index: WalIndex,
    pub(super) queue: VecDeque<PendingSubmission>,
    pub(super) queued_bytes: usize,
    pub(super) sequence: u64,
    pub(super) closed: bool,
    /// Why the log stopped for good, if it did.
    pub(super) stopped: Option<String>,
    /// Bytes needed and bytes free, while there is no space for the next segment.
    pub(super) full: Option<(u64, u64)>,
    /// The segment after the current one, until the writer takes it.
    pub(super) spare: SpareSegment,
    /// Replicas whose index differs from the disk because a submission was rejected. The next batch
    /// writes their state again. `true`: a rejected submission had forgotten the replica before.
    pub(super) resync: BTreeMap<GroupKey, bool>,
}

/// The request of the writer and the answer of the allocator; part of the shared state.
#[derive(Debug, Default)]
pub(super) struct SpareSegment {
    /// The header of the segment to create, until it is created.
    pub(super) wanted: Option<SegmentHeader>,
    pub(super) ready: Option<Segment>,
    pub(super) failed: Option<io::Error>,
    /// How many allocations have ended, successful or not.
    pub(super) attempts: u64,
    /// The writer waits for the segment, so the pause between two attempts is skipped.
    pub(super) urgent: bool,
    /// The writer has ended and needs no more segments.
    pub(super) closed: bool,
}

impl SpareSegment {
    /// Requests a segment. The caller notifies the allocator.
    pub(super) fn request(&mut self, header: SegmentHeader) {
        self.wanted = Some(header);
    }

    /// The segment, if it is ready.
    pub(super) fn take(&mut self) -> Option<Segment> {
        self.ready.take()
    }

    /// Ends the allocator. The caller notifies it.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

impl WalShared {
    /// Waits for the next segment. `None`: the disk is full. With `retry` the disk was asked once
    /// more after this call began.
    pub(super) fn next_segment(&self, retry: bool) -> io::Result<Option<Segment>> {
        let mut state = self.state.lock();
        let attempts_before = state.spare.attempts;
        state.spare.urgent |= retry;
        self.segment_requested.notify_all();
        loop {
            // In this order: an error stops the log even if an earlier segment is ready.
            if let Some(error) = state.spare.failed.take() {
                return Err(error);
            }
            if let Some(segment) = state.spare.take() {
                return Ok(Some(segment));
            }
            if state.full.is_some() && (!retry || state.spare.attempts > attempts_before) {
                return Ok(None);
            }
            self.allocation_done.wait(&mut state);
        }
    }
}
