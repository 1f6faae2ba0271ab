//! EventLog: the newest events of a branch:module, in memory, without gaps.
//!
//! ```text
//!   segments   256 events each          |<------ 1 ------>|<------ 2 ------>|<-- open
//!   parts      1 MiB of them, or so     |<- a ->|<-- b -->|<------- c ----->|<- d ->|<-
//! ```
//!
//! A segment is a function of the offset, and a part of the events before its end: it ends with the
//! one that makes it large enough, and with its segment. Events leave memory in whole parts, so
//! that a part is either here or it is not: a checkpoint writes those that are here and keeps the
//! others by name. Small events make one part of a segment; one event of a bulk operation is one
//! itself.
//!
//! Promise: whatever has left, at least [`EVENTS_KEPT_MIN`] of the newest are here (or all there
//! are), unless they take more than [`EVENTS_BYTES_KEPT`]: then those that the disk has leave until
//! they do not. Neither depends on the other branches.

pub(crate) mod chain;
pub(crate) mod summary;

use std::ops::RangeInclusive;
use std::sync::Arc;

use imbl::Vector;

use crate::delta::Event;
use crate::ids::Offset;
use crate::limits::{EVENT_PART_BYTES, EVENTS_BYTES_KEPT, EVENTS_KEPT_MIN, SEGMENT_EVENTS};

/// The newest events.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventLog {
    recent: Vector<Arc<Event>>,
    /// About how many bytes of memory they take: kept with each that comes and leaves. A record
    /// that is a row as well counts here too.
    bytes: u64,
    /// The last offsets of the parts that end before their segment does, of the whole log: eight
    /// bytes for each mebibyte that was written.
    cuts: Vector<Offset>,
    /// Bytes of the part that is open, as a checkpoint holds them.
    open_bytes: usize,
}

impl EventLog {
    /// Takes the next event, which has so many bytes as a checkpoint holds it.
    pub(crate) fn push(&mut self, event: Arc<Event>, encoded: usize) {
        debug_assert!(
            self.recent.last().is_none_or(|last| last.offset.next() == event.offset),
            "event {} leaves a gap",
            event.offset
        );
        let offset = event.offset;
        self.bytes += event.memory_bytes();
        self.recent.push_back(event);
        self.open_bytes += encoded;
        if offset.0.is_multiple_of(SEGMENT_EVENTS) {
            self.open_bytes = 0;
        } else if self.open_bytes >= EVENT_PART_BYTES {
            self.cut(offset);
        }
    }

    /// A part ends here, though its segment does not.
    pub(crate) fn cut(&mut self, last: Offset) {
        self.cuts.push_back(last);
        self.open_bytes = 0;
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

    /// The oldest event here; none where all have left.
    pub(crate) fn first(&self) -> Option<Offset> {
        self.recent.front().map(|event| event.offset)
    }

    /// Lets go of parts up to an offset, down to the window.
    pub(crate) fn forget(&mut self, stored: Offset) {
        while let Some(count) = self.forgettable(stored) {
            let gone: u64 = self.recent.iter().take(count).map(|event| event.memory_bytes()).sum();
            self.bytes -= gone;
            self.recent = self.recent.skip(count);
        }
    }

    /// Whether `forget` would let anything go.
    pub(crate) fn can_forget(&self, stored: Offset) -> bool {
        self.forgettable(stored).is_some()
    }

    /// How many events the oldest part has, if it may leave.
    fn forgettable(&self, stored: Offset) -> Option<usize> {
        let first = self.first()?;
        // Whole parts, or a checkpoint could neither write a part nor keep it by name.
        let end = self.part_end(first);
        let count = to_usize(end.0 + 1 - first.0);
        let left = self.recent.len().checked_sub(count)?;
        let is_surplus = left >= EVENTS_KEPT_MIN || self.bytes > EVENTS_BYTES_KEPT;
        (end <= stored && is_surplus).then_some(count)
    }

    /// The parts of a segment, in order; the last one may not have ended yet.
    pub(crate) fn parts(&self, segment: u64) -> Vec<RangeInclusive<u64>> {
        let mut first = (segment - 1) * SEGMENT_EVENTS + 1;
        let mut parts = Vec::new();
        while segment_of(Offset(first)) == segment {
            let end = self.part_end(Offset(first)).0;
            parts.push(first..=end);
            first = end + 1;
        }
        parts
    }

    /// Where the part ends, or would end at the latest, that this offset belongs to.
    fn part_end(&self, offset: Offset) -> Offset {
        let sealed = Offset(segment_of(offset) * SEGMENT_EVENTS);
        let cut = self.cuts.binary_search(&offset).unwrap_or_else(|place| place);
        self.cuts.get(cut).map_or(sealed, |cut| sealed.min(*cut))
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
    use proptest::prelude::*;

    use super::*;
    use crate::testing::event;

    const SMALL: usize = 100;

    /// A log of events that have so many bytes each.
    fn log(encoded: impl IntoIterator<Item = usize>) -> EventLog {
        let mut log = EventLog::default();
        (1..).zip(encoded).for_each(|(offset, bytes)| log.push(Arc::new(event(offset)), bytes));
        log
    }

    fn small(events: usize) -> EventLog {
        log(std::iter::repeat_n(SMALL, events))
    }

    fn offsets(events: Option<Vec<Arc<Event>>>) -> Option<(u64, u64)> {
        let events = events?;
        Some((events.first()?.offset.0, events.last()?.offset.0))
    }

    #[test]
    fn events_leave_by_whole_segments_and_the_window_stays() {
        let mut log = small(700);
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
        let log = small(300);
        assert_eq!([1, 2].map(|n| log.parts(n)), [vec![1..=256], vec![257..=512]]);
    }

    #[test]
    fn a_part_ends_with_the_event_that_makes_it_large() {
        let large = EVENT_PART_BYTES;
        let mut log = log([SMALL, SMALL, large - 2 * SMALL, SMALL, large, large]);
        assert_eq!(log.parts(1), [1..=3, 4..=5, 6..=6, 7..=256]);
        (7..=256).for_each(|offset| log.push(Arc::new(event(offset)), SMALL));
        log.push(Arc::new(event(257)), SMALL);
        assert_eq!(log.parts(1), [1..=3, 4..=5, 6..=6, 7..=256], "it ends with its segment");
        assert_eq!(log.parts(2), [257..=512]);
    }

    #[test]
    fn beyond_the_bound_few_events_stay() {
        let mut log = log([SMALL, EVENT_PART_BYTES, SMALL, EVENT_PART_BYTES, SMALL]);
        log.forget(Offset(4));
        assert_eq!(log.first(), Some(Offset(1)), "they take little memory");
        log.bytes += EVENTS_BYTES_KEPT;
        log.forget(Offset(3));
        assert_eq!(log.first(), Some(Offset(3)), "the second part is not stored as a whole");
        log.forget(Offset(9));
        assert_eq!(log.first(), Some(Offset(5)), "the open part stays");
    }

    proptest! {
        #[test]
        fn whatever_left_memory_answers_rightly_or_not_at_all(
            steps in proptest::collection::vec((0..3_usize, 0..400_u64), 1..400),
            excess in any::<bool>(),
        ) {
            let mut log = EventLog::default();
            let mut last = 0;
            // Taken off again before memory is compared: it stands for events of many records.
            log.bytes = if excess { EVENTS_BYTES_KEPT + 1 } else { 0 };
            for (size, back) in steps {
                last += 1;
                let encoded = [SMALL, EVENT_PART_BYTES / 3, EVENT_PART_BYTES][size];
                log.push(Arc::new(event(last)), encoded);
                log.forget(Offset(last.saturating_sub(back)));
                let after = Offset(last.saturating_sub(back / 2));
                if let Some(found) = log.after(after, Offset(last), usize::MAX) {
                    let found: Vec<u64> = found.iter().map(|event| event.offset.0).collect();
                    prop_assert_eq!(found, (after.0 + 1..=last).collect::<Vec<_>>());
                } else {
                    prop_assert!(log.first().is_none_or(|first| first > after.next()));
                }
                let ends: Vec<_> = (1..=segment_of(Offset(last))).flat_map(|n| log.parts(n)).collect();
                prop_assert_eq!(*ends[0].start(), 1);
                prop_assert!(ends.windows(2).all(|two| two[0].end() + 1 == *two[1].start()));
                let starts = |first: Offset| ends.iter().any(|part| *part.start() == first.0);
                prop_assert!(log.first().is_none_or(starts), "a part is here or it is not");
            }
        }
    }
}
