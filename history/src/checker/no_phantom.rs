//! No phantom: the log contains no event that no client invoked, and none of a refused operation.
//!
//! Promise: every event with an operation is compared with the invocation. Events without one are
//! those of the setup: they may only precede the first operation of their branch.

use super::history_index::{HistoryIndex, describe};
use super::{Verdict, fields};
use crate::{BranchModule, Completion, History, Invocation, LogEvent, Operation};

/// Checks `no-phantom`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every event in the log was invoked, was not refused, and equals its invocation.";
    let mut verdict = Verdict::new("no-phantom", promise);
    let index = HistoryIndex::new(history);
    for (branch_key, log) in index.logs() {
        let mut has_operations = false;
        for event in log {
            let violation = match &event.op {
                Some(op) => operation_violation(&index, branch_key, event, op),
                None if has_operations => {
                    Some("an event after the first operation has no operation".to_owned())
                }
                // The setup: it ends with the first event of an operation.
                None => None,
            };
            has_operations |= event.op.is_some();
            verdict.record(violation.map(|why| {
                let (at, table) = (event.cursor, &event.table);
                format!("{} {at:?} {table}/{}: {why}", branch_key.name(), event.key)
            }));
        }
    }
    verdict
}

/// What is wrong with an event of an operation.
fn operation_violation(
    index: &HistoryIndex<'_>,
    branch_key: &BranchModule,
    event: &LogEvent,
    id: &str,
) -> Option<String> {
    let Some(op) = index.operation(id) else {
        return Some(format!("no client invoked {id}"));
    };
    if op.branch_key != *branch_key {
        return Some(format!("it was invoked on another branch: {}", describe(op)));
    }
    if let Completion::Fail { code } = &op.completion {
        return Some(format!("it was refused ({code}): {}", describe(op)));
    }
    (!matches_invocation(op, event))
        .then(|| format!("it differs from its invocation: {}", describe(op)))
}

/// Whether an event has the table, key and value that its operation wrote.
fn matches_invocation(op: &Operation, event: &LogEvent) -> bool {
    let is_record = |table: &str, key: &str| event.table == table && event.key == key;
    let has = |field, number: i128| fields::number(event, field) == Some(number);
    match &op.invocation {
        // A read adds no event.
        Invocation::Get { .. }
        | Invocation::ReadLists
        | Invocation::ReadBalances
        | Invocation::ReadHead => false,
        Invocation::Put { key, value } | Invocation::Cas { key, value, .. } => {
            is_record(fields::REGISTERS, key) && has(fields::VALUE, (*value).into())
        }
        Invocation::FirstWrite { value } => {
            is_record(fields::REGISTERS, fields::FIRST) && has(fields::VALUE, (*value).into())
        }
        Invocation::Append { lists, element } => {
            let list = fields::text(event, fields::LIST);
            event.table == fields::ELEMENTS
                && list.is_some_and(|list| lists.iter().any(|asked| asked == list))
                && has(fields::ELEMENT, (*element).into())
        }
        // The balance depends on the one before: the bank checker compares it.
        Invocation::Transfer { from, to, .. } => {
            (is_record(fields::ACCOUNTS, from) || is_record(fields::ACCOUNTS, to))
                && fields::number(event, fields::BALANCE).is_some()
        }
        Invocation::Ticket => {
            event.table == fields::TICKETS && fields::number_at_end(event, fields::NUMBER).is_some()
        }
        Invocation::Increment { key, value, .. } => {
            is_record(fields::COUNTERS, key) && has(fields::VALUE, (*value).into())
        }
        Invocation::TakePiece { item, left, .. } => {
            is_record(fields::STOCK, item) && has(fields::LEFT, (*left).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn one(invocation: Invocation, completion: Completion, event: LogEvent) -> History {
        history_of(vec![operation("a", invocation, 0, 5, completion)], vec![event])
    }

    #[test]
    fn events_of_invoked_unrefused_operations_hold() {
        let item = || "tea".to_owned();
        let operations = vec![
            operation("a", put(7), 0, 5, ok(2)),
            operation("b", append(&["x", "y"], 9), 5, 9, info()),
            operation("c", transfer("p", "q", 3), 5, 9, info()),
            operation("d", Invocation::Ticket, 5, 9, info()),
            operation(
                "e",
                Invocation::TakePiece { item: item(), expected: 1, left: 4 },
                5,
                9,
                info(),
            ),
            operation(
                "f",
                Invocation::Increment { key: item(), expected: 1, value: 1 },
                5,
                9,
                info(),
            ),
            operation("g", Invocation::FirstWrite { value: 3 }, 5, 9, info()),
            operation("h", cas(4, 1), 5, 9, fail()),
        ];
        let log = vec![
            log_event(1, fields::ACCOUNTS, "p", None, r#"{"balance":10}"#),
            register_event(2, "a", 7, 1),
            element_event(3, "b", "x", 9),
            element_event(4, "b", "y", 9),
            log_event(5, fields::ACCOUNTS, "p", Some("c"), r#"{"balance":7}"#),
            log_event(6, fields::TICKETS, "t", Some("d"), r#"{"number":"T-1"}"#),
            log_event(7, fields::STOCK, "tea", Some("e"), r#"{"left":4}"#),
            log_event(8, fields::COUNTERS, "tea", Some("f"), r#"{"value":1}"#),
            log_event(9, fields::REGISTERS, "first", Some("g"), r#"{"value":3}"#),
        ];
        assert_holds(check, &history_of(operations, log), 9);
    }

    #[test]
    fn an_event_nobody_invoked_is_a_phantom() {
        let log = vec![register_event(1, "ghost", 7, 1)];
        assert_violation(check, &history_of(vec![], log), "no client invoked ghost");
        let mut elsewhere = operation("a", put(7), 0, 5, info());
        elsewhere.branch_key.branch = "other".to_owned();
        let log = vec![register_event(1, "a", 7, 1)];
        assert_violation(check, &history_of(vec![elsewhere], log), "invoked on another branch");
    }

    #[test]
    fn an_event_of_a_refused_operation_is_a_violation() {
        let happened = one(put(7), fail(), register_event(1, "a", 7, 1));
        assert_violation(check, &happened, "it was refused (version-conflict)");
    }

    #[test]
    fn an_event_without_operation_only_precedes_operations() {
        let late = log_event(2, fields::REGISTERS, "r", None, r#"{"value":1}"#);
        let operations = vec![operation("a", put(7), 0, 5, info())];
        let log = vec![register_event(1, "a", 7, 1), late];
        assert_violation(check, &history_of(operations, log), "has no operation");
    }

    #[test]
    fn an_event_that_differs_from_its_invocation_fails() {
        let expected = "differs from its invocation";
        let event = |table, key: &str, fields: &str| log_event(1, table, key, Some("a"), fields);
        let register = |key, fields| event(fields::REGISTERS, key, fields);
        for (invocation, event) in [
            (put(7), register_event(1, "a", 8, 1)),
            (put(7), register("s", r#"{"value":7}"#)),
            (cas(7, 1), register_event(1, "a", 8, 1)),
            (Invocation::FirstWrite { value: 1 }, register_event(1, "a", 1, 1)),
            (append(&["x"], 9), element_event(1, "a", "x", 8)),
            (append(&["x"], 9), element_event(1, "a", "y", 9)),
            (transfer("p", "q", 3), event(fields::ACCOUNTS, "z", r#"{"balance":3}"#)),
            (Invocation::Ticket, event(fields::TICKETS, "t", "{}")),
            (
                Invocation::Increment { key: "c".to_owned(), expected: 1, value: 2 },
                event(fields::COUNTERS, "c", r#"{"value":3}"#),
            ),
            (
                Invocation::TakePiece { item: "i".to_owned(), expected: 1, left: 2 },
                event(fields::STOCK, "i", r#"{"left":1}"#),
            ),
            (get(), register_event(1, "a", 8, 1)),
        ] {
            assert_violation(check, &one(invocation, info(), event), expected);
        }
    }
}
