//! No lost acknowledgement: an acknowledged write is in the log, with the cursor and version of its
//! response.
//!
//! Promise: every acknowledged write is checked. Cursor and version are compared where the response
//! contains them.
//! Refused: a branch whose log was not read. Its acknowledged writes count as lost.

use super::history_index::{HistoryIndex, describe};
use super::{Verdict, fields};
use crate::{History, Operation, Response};

/// Checks `no-lost-acknowledgement`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every acknowledged write is in the log, at the cursor of its response.";
    let mut verdict = Verdict::new("no-lost-acknowledgement", promise);
    let index = HistoryIndex::new(history);
    for op in history.operations.iter().filter(|op| !op.invocation.is_read()) {
        if let Some(response) = op.completion.response() {
            verdict.record(
                violation(&index, op, response).map(|why| format!("{}: {why}", describe(op))),
            );
        }
    }
    verdict
}

/// What is wrong with the events of an acknowledged write.
fn violation<'a>(
    index: &HistoryIndex<'a>,
    op: &'a Operation,
    response: &Response,
) -> Option<String> {
    if index.log(&op.branch_key).is_none() {
        return Some("acknowledged, but no log of its branch was read".to_owned());
    }
    let found: Vec<_> = index.branch_events_of(op).collect();
    let (actual, expected) = (found.len(), op.invocation.event_count());
    if actual != expected {
        return Some(format!("acknowledged, but the log has {actual} of its {expected} events"));
    }
    let last = found.last()?;
    if let Some(cursor) = response.cursor.filter(|cursor| *cursor != last.cursor) {
        return Some(format!(
            "acknowledged at {cursor:?}, but the log has it at {:?}",
            last.cursor
        ));
    }
    let version = fields::version(last);
    // A batch has a version for each record, its response only that of the first.
    let is_comparable = expected == 1 && response.version.is_some() && version.is_some();
    (is_comparable && response.version != version).then(|| {
        format!("acknowledged with version {:?}, but the log has {version:?}", response.version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    #[test]
    fn acknowledged_writes_in_the_log_hold() {
        let operations = vec![
            operation("a", put(7), 0, 5, ok_with_version(1, 1)),
            operation("b", append(&["x", "y"], 9), 5, 9, ok(3)),
            operation("c", put(8), 9, 10, info()),
            operation("d", get(), 9, 10, returned_register(7, 1)),
        ];
        let log = vec![
            register_event(1, "a", 7, 1),
            element_event(2, "b", "x", 9),
            element_event(3, "b", "y", 9),
        ];
        assert_holds(check, &history_of(operations, log), 2);
    }

    #[test]
    fn an_acknowledged_write_missing_from_the_log_is_lost() {
        let operations = vec![operation("a", put(7), 0, 5, ok(1))];
        assert_violation(check, &history_of(operations.clone(), vec![]), "0 of its 1 events");
        let unread = History { operations, ..History::default() };
        assert_violation(check, &unread, "no log of its branch was read");
    }

    #[test]
    fn an_acknowledged_batch_half_in_the_log_is_lost() {
        let operations = vec![operation("b", append(&["x", "y"], 9), 0, 9, ok(1))];
        assert_violation(
            check,
            &history_of(operations, vec![element_event(1, "b", "x", 9)]),
            "1 of its 2 events",
        );
    }

    #[test]
    fn another_cursor_or_version_is_a_violation() {
        let log = vec![register_event(1, "a", 7, 1)];
        let elsewhere = vec![operation("a", put(7), 0, 5, ok_with_version(2, 1))];
        assert_violation(check, &history_of(elsewhere, log.clone()), "but the log has it at");
        let other = vec![operation("a", put(7), 0, 5, ok_with_version(1, 2))];
        assert_violation(check, &history_of(other, log), "with version Some(2)");
    }
}
