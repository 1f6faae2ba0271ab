//! No phantom: nothing is in the log that nobody asked for, or that was refused.
//!
//! Promise: every event that names an operation is held against what that operation asked. Events
//! that name none prepare a place: they may stand before its first operation and nowhere else.

use super::history_index::{HistoryIndex, told};
use super::{Verdict, fields};
use crate::history::{BranchKey, Completion, History, Invocation, LogEvent, Operation};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Every event in the log was asked for, was not refused, and says what was asked.";
    let mut verdict = Verdict::new("no-phantom", promise);
    let book = HistoryIndex::of(evidence);
    for (place, log) in book.logs() {
        let mut begun = false;
        for logged in log {
            let wrong = match &logged.op {
                Some(op) => named(&book, place, logged, op),
                None if begun => Some("an event after the first operation names none".to_owned()),
                None => None,
            };
            begun |= logged.op.is_some();
            verdict.check(wrong.map(|why| {
                let (at, table) = (logged.cursor, &logged.table);
                format!("{} {at:?} {table}/{}: {why}", place.name(), logged.key)
            }));
        }
    }
    verdict
}

fn named(
    book: &HistoryIndex<'_>,
    place: &BranchKey,
    logged: &LogEvent,
    id: &str,
) -> Option<String> {
    let Some(op) = book.op(id) else {
        return Some(format!("nobody asked for {id}"));
    };
    if op.place != *place {
        return Some(format!("it was asked for elsewhere: {}", told(op)));
    }
    if let Completion::Fail { code } = &op.outcome {
        return Some(format!("it was refused ({code}): {}", told(op)));
    }
    (!says_what_was_asked(op, logged)).then(|| format!("it is not what was asked: {}", told(op)))
}

fn says_what_was_asked(op: &Operation, logged: &LogEvent) -> bool {
    let stands = |table: &str, key: &str| logged.table == table && logged.key == key;
    let has = |field, number: i128| fields::number(logged, field) == Some(number);
    match &op.intent {
        Invocation::Get { .. } | Invocation::ReadLists | Invocation::ReadBalances => false,
        Invocation::Put { key, value } | Invocation::Cas { key, value, .. } => {
            stands(fields::REGISTERS, key) && has(fields::VALUE, (*value).into())
        }
        Invocation::FirstWrite { value } => {
            stands(fields::REGISTERS, fields::FIRST) && has(fields::VALUE, (*value).into())
        }
        Invocation::Append { lists, element } => {
            let list = fields::text(logged, fields::LIST);
            logged.table == fields::ELEMENTS
                && list.is_some_and(|list| lists.iter().any(|asked| asked == list))
                && has(fields::ELEMENT, (*element).into())
        }
        Invocation::Transfer { from, to, .. } => {
            (stands(fields::ACCOUNTS, from) || stands(fields::ACCOUNTS, to))
                && fields::number(logged, fields::BALANCE).is_some()
        }
        Invocation::Ticket => {
            logged.table == fields::TICKETS
                && fields::number_at_end(logged, fields::NUMBER).is_some()
        }
        Invocation::Increment { key, value, .. } => {
            stands(fields::COUNTERS, key) && has(fields::VALUE, (*value).into())
        }
        Invocation::TakePiece { item, left, .. } => {
            stands(fields::STOCK, item) && has(fields::LEFT, (*left).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn one(intent: Invocation, outcome: Completion, logged: LogEvent) -> History {
        evidence(vec![op("a", intent, 0, 5, outcome)], vec![logged])
    }

    #[test]
    fn what_was_asked_and_not_refused_holds() {
        let item = || "tea".to_owned();
        let ops = vec![
            op("a", put(7), 0, 5, done(2)),
            op("b", append(&["x", "y"], 9), 5, 9, unknown()),
            op("c", transfer("p", "q", 3), 5, 9, unknown()),
            op("d", Invocation::Ticket, 5, 9, unknown()),
            op("e", Invocation::TakePiece { item: item(), expected: 1, left: 4 }, 5, 9, unknown()),
            op("f", Invocation::Increment { key: item(), expected: 1, value: 1 }, 5, 9, unknown()),
            op("g", Invocation::FirstWrite { value: 3 }, 5, 9, unknown()),
            op("h", cas(4, 1), 5, 9, refused()),
        ];
        let log = vec![
            row(1, fields::ACCOUNTS, "p", None, r#"{"balance":10}"#),
            written(2, "a", 7, 1),
            element(3, "b", "x", 9),
            element(4, "b", "y", 9),
            row(5, fields::ACCOUNTS, "p", Some("c"), r#"{"balance":7}"#),
            row(6, fields::TICKETS, "t", Some("d"), r#"{"number":"T-1"}"#),
            row(7, fields::STOCK, "tea", Some("e"), r#"{"left":4}"#),
            row(8, fields::COUNTERS, "tea", Some("f"), r#"{"value":1}"#),
            row(9, fields::REGISTERS, "first", Some("g"), r#"{"value":3}"#),
        ];
        assert_holds(judge, &evidence(ops, log), 9);
    }

    #[test]
    fn what_nobody_asked_for_is_a_phantom() {
        let log = vec![written(1, "ghost", 7, 1)];
        assert_wrong(judge, &evidence(vec![], log), "nobody asked for ghost");
        let mut elsewhere = op("a", put(7), 0, 5, unknown());
        elsewhere.place.branch = "other".to_owned();
        let log = vec![written(1, "a", 7, 1)];
        assert_wrong(judge, &evidence(vec![elsewhere], log), "asked for elsewhere");
    }

    #[test]
    fn what_was_refused_may_not_happen() {
        let happened = one(put(7), refused(), written(1, "a", 7, 1));
        assert_wrong(judge, &happened, "it was refused (version-conflict)");
    }

    #[test]
    fn an_event_without_operation_stands_only_at_the_beginning() {
        let late = row(2, fields::REGISTERS, "r", None, r#"{"value":1}"#);
        let ops = vec![op("a", put(7), 0, 5, unknown())];
        let log = vec![written(1, "a", 7, 1), late];
        assert_wrong(judge, &evidence(ops, log), "names none");
    }

    #[test]
    fn an_event_says_what_was_asked() {
        let says = "not what was asked";
        let event = |table, key: &str, fields: &str| row(1, table, key, Some("a"), fields);
        let register = |key, fields| event(fields::REGISTERS, key, fields);
        for (intent, logged) in [
            (put(7), written(1, "a", 8, 1)),
            (put(7), register("s", r#"{"value":7}"#)),
            (cas(7, 1), written(1, "a", 8, 1)),
            (Invocation::FirstWrite { value: 1 }, written(1, "a", 1, 1)),
            (append(&["x"], 9), element(1, "a", "x", 8)),
            (append(&["x"], 9), element(1, "a", "y", 9)),
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
            (get(), written(1, "a", 8, 1)),
        ] {
            assert_wrong(judge, &one(intent, unknown(), logged), says);
        }
    }
}
