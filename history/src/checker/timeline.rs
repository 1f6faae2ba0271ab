//! Timeline: the positions of a log that a read of a whole branch may show, by the time of the
//! read.
//!
//! Promise: such a read shows the log up to one event. That event is not before those that were
//! acknowledged when the read was invoked, not after those that were invoked when it completed, and
//! not inside a batch. Positions are sequence numbers; that a log has one epoch is a property of
//! its own.

use std::collections::HashSet;

use super::history_index::HistoryIndex;
use crate::{BranchModule, History, LogEvent, MonotonicTime};

/// The log of one branch, by time.
pub(super) struct Timeline {
    /// Up to which event the log had been acknowledged, by time.
    acknowledged: Vec<(MonotonicTime, u64)>,
    /// Up to which event the log had been invoked, by time.
    invoked: Vec<(MonotonicTime, u64)>,
    /// The events that another event of their batch follows.
    continued: HashSet<u64>,
    /// The last event.
    last: u64,
}

impl Timeline {
    /// The timeline of a branch and its log.
    pub(super) fn new(
        history: &History,
        index: &HistoryIndex<'_>,
        branch_key: &BranchModule,
        log: &[LogEvent],
    ) -> Self {
        let writes = history
            .operations
            .iter()
            .filter(|op| op.branch_key == *branch_key && !op.invocation.is_read());
        let acknowledged =
            writes.filter(|op| op.completion.response().is_some()).filter_map(|op| {
                let last = index.branch_events_of(op).map(|event| event.cursor.sequence).max()?;
                Some((op.completed, last))
            });
        let mut invoked = Vec::with_capacity(log.len());
        // The maximum so far: an event can be read only with all before it, so it counts as invoked
        // when all of them were.
        let mut latest = MonotonicTime(0);
        for event in log {
            let op = event.op.as_ref().and_then(|op| index.operation(op));
            latest = latest.max(op.map_or(MonotonicTime(0), |op| op.invoked));
            invoked.push((latest, event.cursor.sequence));
        }
        let is_continued = |pair: &&[LogEvent]| pair[0].op.is_some() && pair[0].op == pair[1].op;
        let continued =
            log.windows(2).filter(is_continued).map(|pair| pair[0].cursor.sequence).collect();
        Self {
            acknowledged: running_maximum(acknowledged.collect()),
            invoked,
            continued,
            last: log.last().map_or(0, |event| event.cursor.sequence),
        }
    }

    /// The last event that was acknowledged before this time.
    pub(super) fn acknowledged_before(&self, time: MonotonicTime) -> u64 {
        value_before(&self.acknowledged, time)
    }

    /// The last event that was invoked, with all before it, up to this time.
    pub(super) fn invoked_until(&self, time: MonotonicTime) -> u64 {
        let later = self.invoked.partition_point(|(invoked, _)| *invoked <= time);
        later.checked_sub(1).map_or(0, |index| self.invoked[index].1)
    }

    /// The first event from this one on that ends a batch.
    pub(super) fn batch_end_from(&self, sequence: u64) -> u64 {
        let mut sequences = sequence..=self.last.max(sequence);
        sequences.find(|sequence| !self.continued.contains(sequence)).unwrap_or(sequence)
    }
}

/// Sorts values by time, and raises each to the highest one before it.
pub(super) fn running_maximum(mut steps: Vec<(MonotonicTime, u64)>) -> Vec<(MonotonicTime, u64)> {
    steps.sort_unstable();
    let mut highest = 0;
    for (_, sequence) in &mut steps {
        highest = highest.max(*sequence);
        *sequence = highest;
    }
    steps
}

/// The last value before this time; 0 if there is none.
pub(super) fn value_before(steps: &[(MonotonicTime, u64)], time: MonotonicTime) -> u64 {
    // Strictly before: what happens at the same time may have come after.
    let later = steps.partition_point(|(step_time, _)| *step_time < time);
    later.checked_sub(1).map_or(0, |index| steps[index].1)
}
