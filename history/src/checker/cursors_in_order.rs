//! Cursors in order: the log has operations in the order in which clients saw them complete.
//!
//! Promise: a write that was invoked after another operation of its branch had completed stands
//! behind that operation's cursor, and a read of the log's end shows at least that cursor. So no
//! acknowledged write is missing from a later read, and a read never goes back behind an earlier
//! one. Positions are sequence numbers; that a log has one epoch is a property of its own.

use std::collections::BTreeMap;

use super::Verdict;
use super::history_index::describe;
use super::timeline::{running_maximum, value_before};
use crate::{BranchModule, History, Operation};

/// Checks `cursors-in-order`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "What was invoked after another operation completed is not before it in the log.";
    let mut verdict = Verdict::new("cursors-in-order", promise);
    let mut by_branch: BTreeMap<&BranchModule, Vec<(&Operation, u64)>> = BTreeMap::new();
    for op in &history.operations {
        if let Some(cursor) = op.completion.response().and_then(|response| response.cursor) {
            by_branch.entry(&op.branch_key).or_default().push((op, cursor.sequence));
        }
    }
    for operations in by_branch.into_values() {
        let completed = operations.iter().map(|(op, sequence)| (op.completed, *sequence));
        let completed = running_maximum(completed.collect());
        for (op, sequence) in operations {
            let highest = value_before(&completed, op.invoked);
            // The cursor of a write is that of its last event: its first one must be behind too.
            // A read has no event, so it may show just what was there.
            let least = highest + op.invocation.event_count() as u64;
            verdict.record((sequence < least).then(|| {
                let op = describe(op);
                format!("{op}: it is at {sequence}, but {highest} had completed before")
            }));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Invocation;
    use crate::checker::examples::*;

    fn write(id: &str, from: u64, to: u64, sequence: u64) -> Operation {
        operation(id, put(7), from, to, ok(sequence))
    }

    fn read(id: &str, from: u64, to: u64, sequence: u64) -> Operation {
        operation(id, Invocation::ReadHead, from, to, ok(sequence))
    }

    #[test]
    fn concurrent_operations_may_have_any_order() {
        let concurrent = vec![write("a", 0, 5, 2), write("b", 5, 9, 1), read("c", 4, 6, 0)];
        assert_holds(check, &history_of(concurrent, vec![]), 3);
        let batch = operation("b", append(&["x", "y"], 9), 6, 9, ok(3));
        let sequential = vec![write("a", 0, 5, 1), batch, read("c", 10, 11, 3)];
        assert_holds(check, &history_of(sequential, vec![]), 3);
        let unclear = vec![write("a", 0, 5, 4), operation("b", put(8), 6, 9, info())];
        assert_holds(check, &history_of(unclear, vec![]), 1);
        let mut elsewhere = write("b", 6, 9, 1);
        elsewhere.branch_key.branch = "other".to_owned();
        assert_holds(check, &history_of(vec![write("a", 0, 5, 4), elsewhere], vec![]), 2);
    }

    #[test]
    fn a_write_before_one_that_had_completed_is_a_violation() {
        let swapped = vec![write("a", 0, 5, 2), write("b", 6, 9, 1)];
        assert_violation(check, &history_of(swapped, vec![]), "b (Put");
        let same = vec![write("a", 0, 5, 2), write("b", 6, 9, 2)];
        assert_violation(check, &history_of(same, vec![]), "but 2 had completed before");
        let around = vec![write("a", 0, 5, 2), operation("b", append(&["x", "y"], 9), 6, 9, ok(3))];
        assert_violation(check, &history_of(around, vec![]), "b (Append");
        // Not the one that completed last: the highest of all.
        let hidden = vec![write("a", 0, 3, 9), write("b", 0, 5, 1), write("c", 6, 9, 4)];
        assert_violation(check, &history_of(hidden, vec![]), "but 9 had completed before");
    }

    #[test]
    fn a_read_that_lacks_an_acknowledged_write_is_stale() {
        let stale = vec![write("a", 0, 5, 2), read("b", 6, 9, 1)];
        assert_violation(check, &history_of(stale, vec![]), "b (ReadHead");
        let back = vec![read("a", 0, 5, 2), read("b", 6, 9, 1)];
        assert_violation(check, &history_of(back, vec![]), "b (ReadHead");
    }
}
