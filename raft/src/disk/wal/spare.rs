//! Spare: the segment after the current one, made ahead of need by a thread of its own.
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
use crate::disk::segment::{Head, Segment};
use crate::disk::wal::writer::Shared;
use crate::limits;

/// Where the writer and the maker meet; part of the shared state.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// What is to be made, until it is.
    wanted: Option<Head>,
    ready: Option<Segment>,
    failed: Option<io::Error>,
    /// Counts how often making one came to an end.
    attempts: u64,
    /// The writer waits: room is looked for at once.
    urgent: bool,
    /// The writer has ended and needs none any more.
    over: bool,
}

impl Spare {
    /// Orders a segment; the maker must be woken.
    pub(super) fn want(&mut self, head: Head) {
        self.wanted = Some(head);
    }

    /// The segment, if it is ready.
    pub(super) fn take(&mut self) -> Option<Segment> {
        self.ready.take()
    }

    /// Ends the maker; it must be woken.
    pub(super) fn end(&mut self) {
        self.over = true;
    }
}

/// Makes segments.
pub(super) struct Maker {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) device: Arc<dyn Device>,
    pub(super) segment_bytes: u64,
}

impl Maker {
    /// The thread's body.
    pub(super) fn run(self) {
        if catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            self.attempted(Err(io::Error::other("the maker of log segments panicked")));
        }
    }

    fn serve(&self) {
        let mut state = self.shared.state.lock();
        while !state.spare.over {
            let Some(head) = state.spare.wanted else {
                self.shared.order.wait(&mut state);
                continue;
            };
            state.spare.urgent = false;
            drop(state);
            let room = self.segment_bytes;
            let made = Segment::create(&self.dir, head, room, &[], &*self.device);
            let full = self.attempted(made);
            state = self.shared.state.lock();
            if full && !state.spare.urgent && !state.spare.over {
                self.shared.order.wait_for(&mut state, limits::WAL_FULL_RETRY);
            }
        }
    }

    /// Without a thread: makes what is wanted, if there is room.
    pub(super) fn attempt(&self) {
        let wanted = self.shared.state.lock().spare.wanted;
        if let Some(head) = wanted {
            self.attempted(Segment::create(
                &self.dir,
                head,
                self.segment_bytes,
                &[],
                &*self.device,
            ));
        }
    }

    /// Hands over what came of it. Whether the disk is full.
    fn attempted(&self, made: io::Result<Segment>) -> bool {
        let free = self.device.free(&self.dir);
        let dir = self.dir.display();
        let mut state = self.shared.state.lock();
        state.spare.attempts += 1;
        self.shared.made.notify_all();
        match made {
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
    /// Waits for the next segment. `None`: there is no room for it; `again`: nor when asked again.
    pub(super) fn next_segment(&self, again: bool) -> io::Result<Option<Segment>> {
        let mut state = self.state.lock();
        let seen = state.spare.attempts;
        state.spare.urgent |= again;
        self.order.notify_all();
        loop {
            if let Some(error) = state.spare.failed.take() {
                return Err(error);
            }
            if let Some(segment) = state.spare.take() {
                return Ok(Some(segment));
            }
            if state.full.is_some() && (!again || state.spare.attempts > seen) {
                return Ok(None);
            }
            self.made.wait(&mut state);
        }
    }
}
