//! Book: one evidence, found again by operation and by place.
//!
//! Promise: every property looks things up in the same way. Of several readings of a place's log
//! the longest counts here; that all are alike is a property of its own.

use std::collections::{BTreeMap, HashMap};

use crate::history::{BranchKey, History, LogEvent, MonotonicTime, Operation};

/// Operations and logs of one evidence, by name.
pub(super) struct HistoryIndex<'a> {
    ops: HashMap<&'a str, &'a Operation>,
    logs: BTreeMap<&'a BranchKey, &'a [LogEvent]>,
    rows: HashMap<&'a str, Vec<(&'a BranchKey, &'a LogEvent)>>,
}

impl<'a> HistoryIndex<'a> {
    /// Opens it.
    pub(super) fn of(evidence: &'a History) -> Self {
        let mut logs: BTreeMap<&BranchKey, &[LogEvent]> = BTreeMap::new();
        for (_, place, log) in &evidence.logs {
            let held = logs.entry(place).or_default();
            if log.len() > held.len() {
                *held = log;
            }
        }
        let mut rows: HashMap<&str, Vec<_>> = HashMap::new();
        for (place, log) in &logs {
            for logged in *log {
                if let Some(op) = &logged.op {
                    rows.entry(op).or_default().push((*place, logged));
                }
            }
        }
        let ops = evidence.ops.iter().map(|op| (op.id.as_str(), op)).collect();
        Self { ops, logs, rows }
    }

    /// An operation by its id.
    pub(super) fn op(&self, id: &str) -> Option<&'a Operation> {
        self.ops.get(id).copied()
    }

    /// A place's log, nothing where none was read.
    pub(super) fn log(&self, place: &BranchKey) -> Option<&'a [LogEvent]> {
        self.logs.get(place).copied()
    }

    /// All logs, by place.
    pub(super) fn logs(&self) -> impl Iterator<Item = (&'a BranchKey, &'a [LogEvent])> + '_ {
        self.logs.iter().map(|(place, log)| (*place, *log))
    }

    /// The events that name an operation, anywhere.
    pub(super) fn rows(&self, op: &str) -> &[(&'a BranchKey, &'a LogEvent)] {
        self.rows.get(op).map_or(&[], Vec::as_slice)
    }

    /// The events of an operation in its place.
    pub(super) fn rows_of(&self, op: &'a Operation) -> impl Iterator<Item = &'a LogEvent> + '_ {
        let here = self.rows(&op.id).iter().filter(|(place, _)| **place == op.place);
        here.map(|(_, logged)| *logged)
    }
}

/// An operation in words: id, intent, place and when.
pub(super) fn told(op: &Operation) -> String {
    let (from, to) = (when(op.invoked), when(op.completed));
    format!("{} ({:?} on {}, {from} to {to})", op.id, op.intent, op.place.name())
}

/// A moment in seconds since the run began.
pub(super) fn when(moment: MonotonicTime) -> String {
    format!("{}.{:06} s", moment.0 / 1_000_000, moment.0 % 1_000_000)
}
