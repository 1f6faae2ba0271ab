//! SpareSegment: the segment after the current one, made ahead of need by a thread of its own.
//!
//! Making a segment means writing all of it once, which takes longer than any turn should. It also
//! is where a full disk is met. While there is no room, it is tried again: whenever the writer
//! needs the segment, and twice a second.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Device;
use crate::disk::device::is_full;
use crate::disk::segment::{Segment, SegmentHeader};
use crate::disk::wal::writer::Shared;
use crate::limits;

/// Where the writer and the maker meet; part of the shared state.
#[derive(Debug, Default)]
pub(super) struct SpareSegment {
    /// What is to be made, until it is.
    wanted: Option<SegmentHeader>,
    ready: Option<Segment>,
    failed: Option<io::Error>,
    /// Counts how often making one came to an end.
    attempts: u64,
    /// The writer waits: room is looked for at once.
    urgent: bool,
    /// The writer has ended and needs none any more.
    closed: bool,
}

impl SpareSegment {
    /// Orders a segment; the maker must be woken.
    pub(super) fn request(&mut self, header: SegmentHeader) {
        self.wanted = Some(header);
    }

    /// The segment, if it is ready.
    pub(super) fn take(&mut self) -> Option<Segment> {
        self.ready.take()
    }

    /// Ends the maker; it must be woken.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

/// Makes segments.
pub(super) struct SegmentAllocator {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) device: Arc<dyn Device>,
    pub(super) segment_bytes: u64,
}

impl SegmentAllocator {
    /// The thread's body.
    pub(super) fn run(self) {
        if catch_unwind(AssertUnwindSafe(|| self.allocate_requested())).is_err() {
            self.publish(Err(io::Error::other("the maker of log segments panicked")));
        }
    }

    fn allocate_requested(&self) {
        let mut state = self.shared.state.lock();
        while !state.spare.closed {
            let Some(header) = state.spare.wanted else {
                self.shared.segment_requested.wait(&mut state);
                continue;
            };
            state.spare.urgent = false;
            drop(state);
            let capacity = self.segment_bytes;
            let allocation_done = Segment::create(&self.dir, header, capacity, &[], &*self.device);
            let full = self.publish(allocation_done);
            state = self.shared.state.lock();
            if full && !state.spare.urgent && !state.spare.closed {
                self.shared.segment_requested.wait_for(&mut state, limits::WAL_FULL_RETRY);
            }
        }
    }

    /// Without a thread: makes what is wanted, if there is room.
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

    /// Hands over what came of it. Whether the disk is full.
    fn publish(&self, allocation_done: io::Result<Segment>) -> bool {
        let free = self.device.free(&self.dir);
        let dir = self.dir.display();
        let mut state = self.shared.state.lock();
        state.spare.attempts += 1;
        self.shared.allocation_done.notify_all();
        match allocation_done {
            Ok(segment) => {
                state.spare.wanted = None;
                state.spare.ready = Some(segment);
                if state.full.take().is_some() {
                    tracing::info!(%dir, "the log has room again");
                }
                false
            }
            Err(error) if is_full(&error) => {
                let needed = self.segment_bytes;
                if state.full.replace((needed, free)).is_none() {
                    tracing::warn!(%dir, needed, free, %error, "no room for the next log segment");
                }
                true
            }
            Err(error) => {
                // No longer a matter of room: the next who writes meets it, and the log ends.
                state.full = None;
                state.spare.wanted = None;
                state.spare.failed = Some(error);
                false
            }
        }
    }
}

impl Shared {
    /// Waits for the next segment. `None`: there is no room for it; `retry`: nor when asked again.
    pub(super) fn next_segment(&self, retry: bool) -> io::Result<Option<Segment>> {
        let mut state = self.state.lock();
        let attempts_before = state.spare.attempts;
        state.spare.urgent |= retry;
        self.segment_requested.notify_all();
        loop {
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
