//! Segment allocator: creates the segment after the active one ahead of need, on its own thread.
//!
//! Creating a segment means to write all of its bytes once, which takes longer than a batch may
//! take. It is also the step that fails on a full disk.
//!
//! Promise: while the disk is full, allocation is retried when the writer needs the segment, and
//! twice a second. Refused: any error but a full disk; it stops the log at the next write.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Device;
use crate::disk::device::is_full;
use crate::disk::segment::{Segment, SegmentHeader};
use crate::disk::wal::writer::WalShared;
use crate::limits;

/// The request of the writer and the answer of the allocator; part of the shared state.
#[derive(Debug, Default)]
pub(super) struct SpareSegment {
    /// The header of the segment to create, until it is created.
    wanted: Option<SegmentHeader>,
    ready: Option<Segment>,
    failed: Option<io::Error>,
    /// How many allocations have ended, successful or not.
    attempts: u64,
    /// The writer waits for the segment, so the pause between two attempts is skipped.
    urgent: bool,
    /// The writer has ended and needs no more segments.
    closed: bool,
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

/// Creates segments.
pub(super) struct SegmentAllocator {
    pub(super) shared: Arc<WalShared>,
    pub(super) dir: PathBuf,
    pub(super) device: Arc<dyn Device>,
    pub(super) segment_bytes: u64,
}

impl SegmentAllocator {
    /// The thread's body.
    pub(super) fn run(self) {
        if catch_unwind(AssertUnwindSafe(|| self.allocate_requested())).is_err() {
            // As an error of the disk: the writer must not wait for a thread that is gone.
            self.publish(Err(io::Error::other("the allocator of log segments panicked")));
        }
    }

    fn allocate_requested(&self) {
        let mut state = self.shared.state.lock();
        while !state.spare.closed {
            let Some(header) = state.spare.wanted else {
                self.shared.segment_requested.wait(&mut state);
                continue;
            };
            // Cleared before the attempt: a writer that sets it meanwhile gets another attempt.
            state.spare.urgent = false;
            // Without the lock, because writing the whole segment takes long.
            drop(state);
            let capacity = self.segment_bytes;
            let created = Segment::create(&self.dir, header, capacity, &[], &*self.device);
            let full = self.publish(created);
            state = self.shared.state.lock();
            // A writer that waits for space sets `urgent`; its request was made while the lock was
            // free, so it is checked again before the pause.
            if full && !state.spare.urgent && !state.spare.closed {
                self.shared.segment_requested.wait_for(&mut state, limits::WAL_FULL_RETRY);
            }
        }
    }

    /// For an inline log: creates the requested segment now, if the disk has space.
    pub(super) fn allocate_now(&self) {
        let wanted = self.shared.state.lock().spare.wanted;
        if let Some(header) = wanted {
            self.publish(Segment::create(
                &self.dir,
                header,
                self.segment_bytes,
                &[],
                &*self.device,
            ));
        }
    }

    /// Publishes the result of an attempt. Returns whether the disk is full.
    fn publish(&self, created: io::Result<Segment>) -> bool {
        let free = self.device.free(&self.dir);
        let dir = self.dir.display();
        let mut state = self.shared.state.lock();
        // Counted also when it failed: the writer waits for the end of an attempt, not for success.
        state.spare.attempts += 1;
        self.shared.allocation_done.notify_all();
        match created {
            Ok(segment) => {
                state.spare.wanted = None;
                state.spare.ready = Some(segment);
                if state.full.take().is_some() {
                    tracing::info!(%dir, "the disk of the log has space again");
                }
                false
            }
            Err(error) if is_full(&error) => {
                let needed = self.segment_bytes;
                if state.full.replace((needed, free)).is_none() {
                    tracing::warn!(%dir, needed, free, %error, "no space for the next log segment");
                }
                true
            }
            Err(error) => {
                // Not a full disk. The writer gets the error when it next needs a segment, and
                // stops the log.
                state.full = None;
                state.spare.wanted = None;
                state.spare.failed = Some(error);
                false
            }
        }
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
