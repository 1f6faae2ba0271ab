//! History index: the operations and logs of a history, by id and by branch.
//!
//! Promise: every checker looks up in the same way. Of a log that was read from several nodes the
//! longest reading counts here; that all readings are equal is a property of its own.

use std::collections::{BTreeMap, HashMap};

use crate::{BranchModule, History, LogEvent, MonotonicTime, Operation};

/// The operations and logs of one history.
pub(super) struct HistoryIndex<'a> {
    operations: HashMap<&'a str, &'a Operation>,
    logs: BTreeMap<&'a BranchModule, &'a [LogEvent]>,
    events: HashMap<&'a str, Vec<(&'a BranchModule, &'a LogEvent)>>,
}

impl<'a> HistoryIndex<'a> {
    /// The index of a history.
    pub(super) fn new(history: &'a History) -> Self {
        let mut logs: BTreeMap<&BranchModule, &[LogEvent]> = BTreeMap::new();
        for (_, branch_key, log) in &history.logs {
            let longest = logs.entry(branch_key).or_default();
            if log.len() > longest.len() {
                *longest = log;
            }
        }
        // From the chosen readings only: an event counts once, however many nodes show it.
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

    /// The operation with this id.
    pub(super) fn operation(&self, id: &str) -> Option<&'a Operation> {
        self.operations.get(id).copied()
    }

    /// The log of a branch; `None` if none was read.
    pub(super) fn log(&self, branch_key: &BranchModule) -> Option<&'a [LogEvent]> {
        self.logs.get(branch_key).copied()
    }

    /// All logs, by branch.
    pub(super) fn logs(&self) -> impl Iterator<Item = (&'a BranchModule, &'a [LogEvent])> + '_ {
        self.logs.iter().map(|(branch_key, log)| (*branch_key, *log))
    }

    /// The events of an operation in all branches.
    pub(super) fn events_of(&self, op: &str) -> &[(&'a BranchModule, &'a LogEvent)] {
        self.events.get(op).map_or(&[], Vec::as_slice)
    }

    /// The events of an operation in its own branch.
    pub(super) fn branch_events_of(
        &self,
        op: &'a Operation,
    ) -> impl Iterator<Item = &'a LogEvent> + '_ {
        let in_branch =
            self.events_of(&op.id).iter().filter(|(branch_key, _)| **branch_key == op.branch_key);
        in_branch.map(|(_, event)| *event)
    }
}

/// An operation for people: id, invocation, branch, and times.
pub(super) fn describe(op: &Operation) -> String {
    let (from, to) = (format_time(op.invoked), format_time(op.completed));
    format!("{} ({:?} on {}, {from} to {to})", op.id, op.invocation, op.branch_key.name())
}

/// A time in seconds since the workload started.
pub(super) fn format_time(time: MonotonicTime) -> String {
    format!("{}.{:06} s", time.0 / 1_000_000, time.0 % 1_000_000)
}
