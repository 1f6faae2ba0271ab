//! Book: one evidence, found again by operation and by place.
//!
//! Promise: every property looks things up in the same way. Of several readings of a place's log
//! the longest counts here; that all are alike is a property of its own.

use std::collections::{BTreeMap, HashMap};

use crate::history::{BranchKey, History, LogEvent, MonotonicTime, Operation};

/// Operations and logs of one evidence, by name.
pub(super) struct HistoryIndex<'a> {
    operations: HashMap<&'a str, &'a Operation>,
    logs: BTreeMap<&'a BranchKey, &'a [LogEvent]>,
    events: HashMap<&'a str, Vec<(&'a BranchKey, &'a LogEvent)>>,
}

impl<'a> HistoryIndex<'a> {
    /// Opens it.
    pub(super) fn new(history: &'a History) -> Self {
        let mut logs: BTreeMap<&BranchKey, &[LogEvent]> = BTreeMap::new();
        for (_, branch_key, log) in &history.logs {
            let longest = logs.entry(branch_key).or_default();
            if log.len() > longest.len() {
                *longest = log;
            }
        }
        let mut events: HashMap<&str, Vec<_>> = HashMap::new();
        for (branch_key, log) in &logs {
            for event in *log {
                if let Some(op) = &event.op {
                    events.entry(op).or_default().push((*branch_key, event));
                }
            }
        }
        let operations = history.operations.iter().map(|op| (op.id.as_str(), op)).collect();
        Self { operations, logs, events }
    }

    /// An operation by its id.
    pub(super) fn operation(&self, id: &str) -> Option<&'a Operation> {
        self.operations.get(id).copied()
    }

    /// A place's log, nothing where none was read.
    pub(super) fn log(&self, branch_key: &BranchKey) -> Option<&'a [LogEvent]> {
        self.logs.get(branch_key).copied()
    }

    /// All logs, by place.
    pub(super) fn logs(&self) -> impl Iterator<Item = (&'a BranchKey, &'a [LogEvent])> + '_ {
        self.logs.iter().map(|(branch_key, log)| (*branch_key, *log))
    }

    /// The events that name an operation, anywhere.
    pub(super) fn events_of(&self, op: &str) -> &[(&'a BranchKey, &'a LogEvent)] {
        self.events.get(op).map_or(&[], Vec::as_slice)
    }

    /// The events of an operation in its place.
    pub(super) fn branch_events_of(
        &self,
        op: &'a Operation,
    ) -> impl Iterator<Item = &'a LogEvent> + '_ {
        let in_branch =
            self.events_of(&op.id).iter().filter(|(branch_key, _)| **branch_key == op.branch_key);
        in_branch.map(|(_, event)| *event)
    }
}

/// An operation in words: id, intent, place and when.
pub(super) fn describe(op: &Operation) -> String {
    let (from, to) = (format_time(op.invoked), format_time(op.completed));
    format!("{} ({:?} on {}, {from} to {to})", op.id, op.invocation, op.branch_key.name())
}

/// A moment in seconds since the run began.
pub(super) fn format_time(time: MonotonicTime) -> String {
    format!("{}.{:06} s", time.0 / 1_000_000, time.0 % 1_000_000)
}
