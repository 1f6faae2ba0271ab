//! EventLog: the newest events of a branch:module, in memory, without gaps.
//!
//! Events leave in whole sealed segments, so that a segment is either here or it is not. Promise:
//! whatever has left, at least [`EVENTS_KEPT_MIN`] of the newest are here (or all there are).

pub(crate) mod chain;
pub(crate) mod summary;

use std::sync::Arc;

use imbl::Vector;

use crate::delta::Event;
use crate::ids::Offset;
use crate::limits::{EVENTS_KEPT_MIN, SEGMENT_EVENTS};

/// The newest events.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventLog {
    recent: Vector<Arc<Event>>,
    /// About how many bytes of memory they take: kept with each that comes and leaves. A record
    /// that is a row as well counts here too.
    bytes: u64,
}

impl EventLog {
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        debug_assert!(
            self.recent.last().is_none_or(|last| last.offset.next() == event.offset),
            "event {} leaves a gap",
            event.offset
        );
        self.bytes += event.memory_bytes();
        self.recent.push_back(event);
    }

    /// The events after an offset, at most `limit`; `None` when the next one has left. `last` is
    /// the log's last offset.
    pub(crate) fn after(
        &self,
        after: Offset,
        last: Offset,
        limit: usize,
    ) -> Option<Vec<Arc<Event>>> {
        if after >= last {
            return Some(Vec::new());
        }
        let first = self.first()?;
        // Below the first one held: the caller reads from the store instead.
        let skip = after.next().0.checked_sub(first.0)?;
        Some(self.recent.iter().skip(to_usize(skip)).take(limit).cloned().collect())
    }

    /// About how many bytes of memory they take.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest event here.
    pub(crate) fn first(&self) -> Option<Offset> {
        self.recent.front().map(|event| event.offset)
    }

    /// Lets go of sealed segments up to an offset, down to the window.
    pub(crate) fn forget(&mut self, stored: Offset) {
        while let Some(sealed) = self.forgettable(stored) {
            let gone: u64 = self.recent.iter().take(sealed).map(|event| event.memory_bytes()).sum();
            self.bytes -= gone;
            self.recent = self.recent.skip(sealed);
        }
    }

    /// Whether `forget` would let anything go.
    pub(crate) fn can_forget(&self, stored: Offset) -> bool {
        self.forgettable(stored).is_some()
    }

    /// How many events the oldest segment has, if it may leave.
    fn forgettable(&self, stored: Offset) -> Option<usize> {
        let first = self.first()?;
        // Whole segments, or a checkpoint could neither write a segment nor keep it by name.
        let end = segment_of(first) * SEGMENT_EVENTS;
        let sealed = to_usize(end + 1 - first.0);
        (end <= stored.0 && self.recent.len() >= sealed + EVENTS_KEPT_MIN).then_some(sealed)
    }

    /// The events of a segment that are here.
    pub(crate) fn segment(&self, number: u64) -> Vec<Arc<Event>> {
        let before = Offset((number - 1) * SEGMENT_EVENTS);
        self.after(before, Offset(u64::MAX), to_usize(SEGMENT_EVENTS)).unwrap_or_default()
    }
}

/// The segment an offset belongs to; the first has 1. A function of the log alone.
pub(crate) fn segment_of(offset: Offset) -> u64 {
    offset.0.div_ceil(SEGMENT_EVENTS)
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    fn log(events: u64) -> EventLog {
        let mut log = EventLog::default();
        (1..=events).for_each(|offset| log.push(Arc::new(event(offset))));
        log
    }

    fn offsets(events: Option<Vec<Arc<Event>>>) -> Option<(u64, u64)> {
        let events = events?;
        Some((events.first()?.offset.0, events.last()?.offset.0))
    }

    #[test]
    fn events_leave_by_whole_segments_and_the_window_stays() {
        let mut log = log(700);
        log.forget(Offset(255));
        assert_eq!(log.recent.len(), 700, "no whole segment is stored");
        log.forget(Offset(256));
        assert_eq!(log.first(), Some(Offset(257)));
        let left: u64 = log.recent.iter().map(|event| event.memory_bytes()).sum();
        assert_eq!(log.memory_bytes(), left, "what left is not counted");
        log.forget(Offset(700));
        assert_eq!(
            (log.first(), log.recent.len()),
            (Some(Offset(257)), 444),
            "188 would be too few"
        );
        let last = Offset(700);
        assert_eq!(offsets(log.after(Offset(256), last, 9)), Some((257, 265)));
        assert_eq!(offsets(log.after(Offset(699), last, 9)), Some((700, 700)));
        assert_eq!(log.after(Offset(255), last, 9), None);
        assert_eq!(log.after(Offset(700), last, 9), Some(Vec::new()));
        assert_eq!(log.after(Offset(900), last, 9), Some(Vec::new()));
    }

    #[test]
    fn a_segment_is_a_function_of_the_offset() {
        assert_eq!([1, 256, 257, 512].map(|n| segment_of(Offset(n))), [1, 1, 2, 2]);
        let log = log(300);
        assert_eq!(log.segment(1).len(), 256);
        assert_eq!(log.segment(2).len(), 44);
    }
}
