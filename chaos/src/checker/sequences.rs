//! Sequences: numbers the store takes are given once, in order, without a gap.
//!
//! Promise: the numbers in the log of a place follow each other in the order of the log, and every
//! acknowledged ticket has a number nobody else was told, which is the one in the log.

use std::collections::HashMap;

use super::history_index::{HistoryIndex, told};
use super::{Verdict, fields};
use crate::history::{BranchKey, Completion, History, Invocation, Operation, ReturnValue};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Ticket numbers are unique, in order, and without gaps.";
    let mut verdict = Verdict::new("sequences", promise);
    let book = HistoryIndex::of(evidence);
    for (place, log) in book.logs() {
        let mut last = None;
        for logged in log.iter().filter(|logged| logged.table == fields::TICKETS) {
            let number = fields::number_at_end(logged, fields::NUMBER);
            let follows = last.is_none_or(|last| number == Some(last + 1)) && number.is_some();
            verdict.check((!follows).then(|| {
                let (place, at) = (place.name(), logged.cursor);
                format!("{place} {at:?}: the number after {last:?} is {number:?}")
            }));
            last = number.or(last);
        }
    }
    let mut given: HashMap<(&BranchKey, u64), &Operation> = HashMap::new();
    for op in evidence.ops.iter().filter(|op| op.intent == Invocation::Ticket) {
        if matches!(op.outcome, Completion::Ok(_)) {
            let wrong = taken(&book, op, &mut given);
            verdict.check(wrong.map(|why| format!("{}: {why}", told(op))));
        }
    }
    verdict
}

fn taken<'a>(
    book: &HistoryIndex<'a>,
    op: &'a Operation,
    given: &mut HashMap<(&'a BranchKey, u64), &'a Operation>,
) -> Option<String> {
    let Some(ReturnValue::Number(number)) = op.outcome.reply().map(|reply| &reply.seen) else {
        return Some("acknowledged without its number".to_owned());
    };
    if let Some(other) = given.insert((&op.place, *number), op) {
        return Some(format!("{number} was given to {} too", told(other)));
    }
    let logged = book.rows_of(op).find_map(|logged| fields::number_at_end(logged, fields::NUMBER));
    logged
        .filter(|logged| *logged != i128::from(*number))
        .map(|logged| format!("it was told {number}, in the log it has {logged}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::history::LogEvent;

    fn ticket(sequence: u64, op: &str, number: u64) -> LogEvent {
        let fields = format!(r#"{{"number":"T-{number:04}"}}"#);
        row(sequence, fields::TICKETS, op, Some(op), &fields)
    }

    fn asked(id: &str, number: u64) -> Operation {
        op(id, Invocation::Ticket, 0, 5, saw(ReturnValue::Number(number)))
    }

    #[test]
    fn numbers_in_a_row_hold() {
        let ops = vec![asked("a", 1), op("b", Invocation::Ticket, 0, 5, unknown()), asked("c", 3)];
        let log = vec![ticket(1, "a", 1), ticket(2, "b", 2), ticket(4, "c", 3)];
        assert_holds(judge, &evidence(ops, log), 5);
        let mut elsewhere = asked("d", 1);
        elsewhere.place.branch = "other".to_owned();
        let ops = vec![asked("a", 1), elsewhere];
        assert_holds(judge, &evidence(ops, vec![ticket(1, "a", 1)]), 3);
    }

    #[test]
    fn a_number_is_given_once() {
        let ops = vec![asked("a", 1), asked("b", 1)];
        assert_wrong(judge, &evidence(ops, vec![ticket(1, "a", 1)]), "1 was given to a");
    }

    #[test]
    fn numbers_have_no_gap_and_keep_their_order() {
        let ops = || vec![asked("a", 1), asked("b", 3)];
        let log = vec![ticket(1, "a", 1), ticket(2, "b", 3)];
        assert_wrong(judge, &evidence(ops(), log), "the number after Some(1) is Some(3)");
        let log = vec![ticket(1, "a", 1), ticket(2, "c", 1)];
        assert_wrong(judge, &evidence(vec![], log), "the number after Some(1) is Some(1)");
    }

    #[test]
    fn the_number_told_is_the_one_in_the_log() {
        let ops = vec![asked("a", 2)];
        assert_wrong(judge, &evidence(ops, vec![ticket(1, "a", 1)]), "in the log it has 1");
        let ops = vec![op("a", Invocation::Ticket, 0, 5, done(1))];
        assert_wrong(judge, &evidence(ops, vec![ticket(1, "a", 1)]), "without its number");
    }
}
