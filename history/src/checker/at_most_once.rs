//! At most once: an operation happened once or not at all, and never in part, however many attempts
//! it had.
//!
//! Promise: every write is checked, whatever its completion: one with an unknown result has none or
//! all of its events too, and they follow each other in the log.

use super::Verdict;
use super::history_index::{HistoryIndex, describe};
use crate::{History, Operation};

/// Checks `at-most-once`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "No operation happened twice, and none in part.";
    let mut verdict = Verdict::new("at-most-once", promise);
    let index = HistoryIndex::new(history);
    for op in history.operations.iter().filter(|op| !op.invocation.is_read()) {
        verdict.record(violation(&index, op).map(|why| format!("{}: {why}", describe(op))));
    }
    verdict
}

/// What is wrong with the events of one operation.
fn violation(index: &HistoryIndex<'_>, op: &Operation) -> Option<String> {
    // In all branches: an event in another one is one too many.
    let found = index.events_of(&op.id);
    let (actual, expected) = (found.len(), op.invocation.event_count());
    let cursors: Vec<_> = found.iter().map(|(_, event)| event.cursor).collect();
    if actual > expected {
        return Some(format!("{actual} events instead of {expected}: {cursors:?}"));
    }
    if actual != 0 && actual < expected {
        return Some(format!("{actual} of its {expected} events: {cursors:?}"));
    }
    let is_next = |pair: &[crate::LogPosition]| {
        pair[0].epoch == pair[1].epoch && pair[0].sequence + 1 == pair[1].sequence
    };
    (!cursors.windows(2).all(is_next))
        .then(|| format!("its events do not follow each other: {cursors:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    #[test]
    fn an_operation_that_happened_once_or_never_holds() {
        let operations = vec![
            operation("a", put(7), 0, 5, ok(1)),
            operation("b", append(&["x", "y"], 9), 5, 9, info()),
            operation("c", append(&["x", "y"], 8), 5, 9, info()),
            operation("d", get(), 5, 9, info()),
        ];
        let log = vec![
            register_event(1, "a", 7, 1),
            element_event(2, "b", "x", 9),
            element_event(3, "b", "y", 9),
        ];
        assert_holds(check, &history_of(operations, log), 3);
    }

    #[test]
    fn an_operation_that_happened_twice_is_a_violation() {
        let twice = vec![register_event(1, "a", 7, 1), register_event(2, "a", 7, 2)];
        for completion in [ok(2), info()] {
            let operations = vec![operation("a", put(7), 0, 5, completion)];
            assert_violation(
                check,
                &history_of(operations, twice.clone()),
                "2 events instead of 1",
            );
        }
    }

    #[test]
    fn a_partial_batch_is_a_violation() {
        let operations = vec![operation("b", append(&["x", "y"], 9), 5, 9, info())];
        let log = vec![element_event(1, "b", "x", 9)];
        assert_violation(check, &history_of(operations, log), "1 of its 2 events");
    }

    #[test]
    fn events_between_those_of_a_batch_are_a_violation() {
        let operations = vec![
            operation("b", append(&["x", "y"], 9), 5, 9, info()),
            operation("a", put(7), 5, 9, info()),
        ];
        let log = vec![
            element_event(1, "b", "x", 9),
            register_event(2, "a", 7, 1),
            element_event(3, "b", "y", 9),
        ];
        assert_violation(check, &history_of(operations, log), "do not follow each other");
    }
}
