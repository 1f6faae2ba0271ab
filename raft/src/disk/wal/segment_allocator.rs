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
use crate::disk::segment::Segment;
use crate::disk::wal::WalError;
use crate::disk::wal::shared::WalShared;
use crate::fitness::{NodeFitness, UnfitReason};
use crate::limits;

/// Creates segments.
pub(super) struct SegmentAllocator {
    pub(super) shared: Arc<WalShared>,
    pub(super) dir: PathBuf,
    pub(super) device: Arc<dyn Device>,
    pub(super) fitness: NodeFitness,
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
                    // Now and not with the next look at the disk: what is in flight still fits, so
                    // another node can take over before a write fails.
                    let full = WalError::Full { dir: self.dir.clone(), needed, free };
                    self.fitness.set(UnfitReason::DiskFull, Some(full.to_string()));
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
