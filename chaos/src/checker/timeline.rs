//! Timeline: between which places of a log a read must have been made.
//!
//! Promise: a read of a whole place shows its log up to one event. That event is not before what
//! was acknowledged when the read was asked for, not after what was asked for when it was answered,
//! and not inside a batch. Sequences count; that a log has one epoch is a property of its own.

use std::collections::HashSet;

use super::history_index::HistoryIndex;
use crate::history::{BranchKey, History, LogEvent, MonotonicTime};

/// A place's log in time.
pub(super) struct Timeline {
    /// When how much of the log had been acknowledged.
    acknowledged: Vec<(MonotonicTime, u64)>,
    /// When how much of the log had been asked for.
    invoked: Vec<(MonotonicTime, u64)>,
    /// Events after which a batch goes on.
    continued: HashSet<u64>,
    /// The last event.
    last: u64,
}

impl Timeline {
    /// Of a place and its log.
    pub(super) fn new(
        history: &History,
        index: &HistoryIndex<'_>,
        branch_key: &BranchKey,
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

    /// The last event that was acknowledged before this moment.
    pub(super) fn acknowledged_before(&self, time: MonotonicTime) -> u64 {
        value_before(&self.acknowledged, time)
    }

    /// The last event that was asked for, with all before it, up to this moment.
    pub(super) fn invoked_until(&self, time: MonotonicTime) -> u64 {
        let later = self.invoked.partition_point(|(invoked, _)| *invoked <= time);
        later.checked_sub(1).map_or(0, |index| self.invoked[index].1)
    }

    /// The first event from this one on after which no batch goes on.
    pub(super) fn batch_end_from(&self, sequence: u64) -> u64 {
        let mut sequences = sequence..=self.last.max(sequence);
        sequences.find(|sequence| !self.continued.contains(sequence)).unwrap_or(sequence)
    }
}

/// Steps in time, each at least as high as those before it.
pub(super) fn running_maximum(mut steps: Vec<(MonotonicTime, u64)>) -> Vec<(MonotonicTime, u64)> {
    steps.sort_unstable();
    let mut highest = 0;
    for (_, sequence) in &mut steps {
        highest = highest.max(*sequence);
        *sequence = highest;
    }
    steps
}

/// How high the steps had risen before this moment.
pub(super) fn value_before(steps: &[(MonotonicTime, u64)], time: MonotonicTime) -> u64 {
    let later = steps.partition_point(|(step_time, _)| *step_time < time);
    later.checked_sub(1).map_or(0, |index| steps[index].1)
}
