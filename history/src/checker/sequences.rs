//! Sequences: the store gives each number of a sequence once, in order, without gaps.
//!
//! Promise: the numbers in a branch's log follow each other in the order of the log, from the first
//! number on where the history knows it. Every
//! acknowledged ticket has a number that no other response contains, and it is the one in the log.

use std::collections::HashMap;

use super::history_index::{HistoryIndex, describe};
use super::{Verdict, fields};
use crate::{BranchModule, Completion, History, Invocation, Operation, ReturnValue};

/// Checks `sequences`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Ticket numbers are unique, in order, and without gaps.";
    let mut verdict = Verdict::new("sequences", promise);
    let index = HistoryIndex::new(history);
    for (branch_key, log) in index.logs() {
        let mut last = history.first_number.map(|first| i128::from(first) - 1);
        for event in log.iter().filter(|event| event.table == fields::TICKETS) {
            let number = fields::number_at_end(event, fields::NUMBER);
            let is_next = last.is_none_or(|last| number == Some(last + 1)) && number.is_some();
            verdict.record((!is_next).then(|| {
                let (branch_key, at) = (branch_key.name(), event.cursor);
                format!("{branch_key} {at:?}: the number after {last:?} is {number:?}")
            }));
            // From the number that is there: one gap must not make every later number a violation.
            last = number.or(last);
        }
    }
    let mut taken: HashMap<(&BranchModule, u64), &Operation> = HashMap::new();
    for op in history.operations.iter().filter(|op| op.invocation == Invocation::Ticket) {
        if matches!(op.completion, Completion::Ok(_)) {
            let violation = ticket_violation(&index, op, &mut taken);
            verdict.record(violation.map(|why| format!("{}: {why}", describe(op))));
        }
    }
    verdict
}

/// What is wrong with the number of an acknowledged ticket.
fn ticket_violation<'a>(
    index: &HistoryIndex<'a>,
    op: &'a Operation,
    taken: &mut HashMap<(&'a BranchModule, u64), &'a Operation>,
) -> Option<String> {
    let Some(ReturnValue::Number(number)) =
        op.completion.response().map(|response| &response.return_value)
    else {
        return Some("acknowledged without its number".to_owned());
    };
    // By branch: each has a sequence of its own.
    if let Some(other) = taken.insert((&op.branch_key, *number), op) {
        return Some(format!("{number} was given to {} too", describe(other)));
    }
    let logged_number =
        index.branch_events_of(op).find_map(|event| fields::number_at_end(event, fields::NUMBER));
    logged_number
        .filter(|logged_number| *logged_number != i128::from(*number))
        .map(|logged_number| format!("the response has {number}, the log has {logged_number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogEvent;
    use crate::checker::examples::*;

    fn ticket(sequence: u64, op: &str, number: u64) -> LogEvent {
        let fields = format!(r#"{{"number":"T-{number:04}"}}"#);
        log_event(sequence, fields::TICKETS, op, Some(op), &fields)
    }

    fn ticket_operation(id: &str, number: u64) -> Operation {
        operation(id, Invocation::Ticket, 0, 5, returned(ReturnValue::Number(number)))
    }

    #[test]
    fn consecutive_numbers_hold() {
        let operations = vec![
            ticket_operation("a", 1),
            operation("b", Invocation::Ticket, 0, 5, info()),
            ticket_operation("c", 3),
        ];
        let log = vec![ticket(1, "a", 1), ticket(2, "b", 2), ticket(4, "c", 3)];
        assert_holds(check, &history_of(operations, log), 5);
        let mut elsewhere = ticket_operation("d", 1);
        elsewhere.branch_key.branch = "other".to_owned();
        let operations = vec![ticket_operation("a", 1), elsewhere];
        assert_holds(check, &history_of(operations, vec![ticket(1, "a", 1)]), 3);
    }

    #[test]
    fn a_number_given_twice_is_a_violation() {
        let operations = vec![ticket_operation("a", 1), ticket_operation("b", 1)];
        assert_violation(
            check,
            &history_of(operations, vec![ticket(1, "a", 1)]),
            "1 was given to a",
        );
    }

    #[test]
    fn a_gap_or_another_order_is_a_violation() {
        let operations = || vec![ticket_operation("a", 1), ticket_operation("b", 3)];
        let log = vec![ticket(1, "a", 1), ticket(2, "b", 3)];
        assert_violation(
            check,
            &history_of(operations(), log),
            "the number after Some(1) is Some(3)",
        );
        let log = vec![ticket(1, "a", 1), ticket(2, "c", 1)];
        assert_violation(check, &history_of(vec![], log), "the number after Some(1) is Some(1)");
    }

    #[test]
    fn a_sequence_that_begins_late_is_a_violation() {
        let late = history_of(vec![], vec![ticket(1, "a", 2), ticket(2, "b", 3)]);
        assert_holds(check, &late, 2);
        let known = History { first_number: Some(1), ..late };
        assert_violation(check, &known, "the number after Some(0) is Some(2)");
    }

    #[test]
    fn a_number_that_differs_from_the_log_is_a_violation() {
        let operations = vec![ticket_operation("a", 2)];
        assert_violation(check, &history_of(operations, vec![ticket(1, "a", 1)]), "the log has 1");
        let operations = vec![operation("a", Invocation::Ticket, 0, 5, ok(1))];
        assert_violation(
            check,
            &history_of(operations, vec![ticket(1, "a", 1)]),
            "without its number",
        );
    }
}
