//! Linearizable: each register behaves as if its operations were done one after the other, each at
//! one moment between question and answer.
//!
//! Promise: judged per register over the whole run, with [`super::wgl`]. A history with so many
//! unknown outcomes that it cannot be decided is said to be just that, and counts as wrong.

use super::Verdict;
use super::history_index::{told, when};
use super::registers::{RegisterHistory, histories};
use super::wgl::{CONFIGURATIONS_MAX, SearchResult, search};
use crate::history::{BranchKey, History};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Every register behaves like one that does one thing at a time.";
    let mut verdict = Verdict::new("linearizable", promise);
    for ((place, key), history) in histories(evidence) {
        for op in &history.unread {
            verdict.check(Some(format!("{}: answered without a register", told(op))));
        }
        // Every operation is a fact; what is wrong is found once per register.
        for _ in 1..history.spans.len() {
            verdict.check(None);
        }
        if !history.spans.is_empty() {
            verdict.check(wrong(place, key, &history));
        }
    }
    verdict
}

fn wrong(place: &BranchKey, key: &str, history: &RegisterHistory<'_>) -> Option<String> {
    let place = place.name();
    match search(history.start, &history.spans, CONFIGURATIONS_MAX) {
        SearchResult::Linearizable => None,
        SearchResult::NotLinearizable { at, states } => {
            let op = history.ops[at];
            let answer = history.spans[at].deed;
            let open = history.ops.iter().filter(|other| {
                other.id != op.id && other.invoked <= op.completed && other.completed >= op.invoked
            });
            let open: Vec<&str> = open.map(|op| op.id.as_str()).collect();
            Some(format!(
                "{place} {key}: {} cannot have been answered {answer:?} over {states:?} (at the \
                 same time: {})",
                told(op),
                open.join(", ")
            ))
        }
        SearchResult::Undecided { at } => Some(format!(
            "{place} {key}: undecided, more than {CONFIGURATIONS_MAX} possibilities at {}",
            when(history.ops[at].completed)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::checker::fields;
    use crate::history::{Invocation, ReturnValue};

    #[test]
    fn a_register_that_does_one_thing_at_a_time_holds() {
        let ops = vec![
            op("a", put(7), 0, 5, done_as(1, 1)),
            op("b", cas(8, 1), 6, 9, done_as(2, 2)),
            op("c", cas(9, 1), 6, 9, refused()),
            op("d", get(), 7, 8, saw_register(7, 1)),
            op("e", get(), 10, 11, saw_register(8, 2)),
            op("f", get(), 10, 11, unknown()),
            op("g", put(3), 10, 11, unknown()),
            op("h", Invocation::FirstWrite { value: 1 }, 10, 11, done_as(4, 1)),
        ];
        let first = row(4, fields::REGISTERS, "first", Some("h"), r#"{"value":1,"version":1}"#);
        let log = vec![written(1, "a", 7, 1), written(2, "b", 8, 2), first];
        assert_holds(judge, &evidence(ops, log), 6);
    }

    #[test]
    fn a_register_begins_as_it_was_prepared() {
        let prepared = row(1, fields::REGISTERS, "r", None, r#"{"value":5,"version":1}"#);
        let holds = vec![op("a", get(), 0, 5, saw_register(5, 1))];
        assert_holds(judge, &evidence(holds, vec![prepared.clone()]), 1);
        let nothing = vec![op("a", get(), 0, 5, saw(ReturnValue::Register(None)))];
        assert_wrong(judge, &evidence(nothing, vec![prepared]), "a (Get");
    }

    #[test]
    fn a_stale_read_is_wrong() {
        let ops = vec![
            op("a", put(7), 0, 1, done_as(1, 1)),
            op("b", put(8), 2, 3, done_as(2, 2)),
            op("c", get(), 4, 5, saw_register(7, 1)),
        ];
        let log = vec![written(1, "a", 7, 1), written(2, "b", 8, 2)];
        assert_wrong(judge, &evidence(ops, log), "c (Get");
    }

    #[test]
    fn a_lost_update_is_wrong() {
        let ops = vec![op("a", put(7), 0, 9, done_as(1, 1)), op("b", put(8), 0, 9, done_as(2, 1))];
        assert_wrong(judge, &evidence(ops, vec![]), "cannot have been answered");
    }

    #[test]
    fn a_conflict_over_the_right_version_is_wrong() {
        let ops = vec![op("a", put(7), 0, 1, done_as(1, 1)), op("b", cas(8, 1), 2, 3, refused())];
        assert_wrong(judge, &evidence(ops, vec![written(1, "a", 7, 1)]), "Conflict");
    }

    #[test]
    fn what_is_unknown_and_not_in_the_log_never_happened() {
        let ops = vec![op("a", put(7), 0, 1, unknown()), op("b", get(), 2, 3, saw_register(7, 1))];
        let seen = History { ops: ops.clone(), ..History::default() };
        assert_holds(judge, &seen, 2);
        assert_holds(judge, &evidence(ops.clone(), vec![written(1, "a", 7, 1)]), 2);
        assert_wrong(judge, &evidence(ops, vec![]), "b (Get");
    }

    #[test]
    fn what_is_unknown_and_in_the_log_made_the_version_it_has_there() {
        let ops = vec![
            op("a", put(7), 0, 1, unknown()),
            op("b", put(8), 2, 3, done_as(1, 1)),
            op("c", get(), 4, 5, saw_register(7, 2)),
        ];
        let log = vec![written(1, "b", 8, 1), written(2, "a", 7, 2)];
        assert_holds(judge, &evidence(ops.clone(), log), 3);
        let log = vec![written(1, "a", 7, 1), written(2, "b", 8, 2)];
        assert_wrong(judge, &evidence(ops, log), "c (Get");
    }

    #[test]
    fn registers_and_places_are_apart() {
        let mut elsewhere = op("b", get(), 4, 5, saw(ReturnValue::Register(None)));
        elsewhere.place.branch = "other".to_owned();
        let other = Invocation::Get { key: "s".to_owned() };
        let ops = vec![
            op("a", put(7), 0, 1, done_as(1, 1)),
            elsewhere,
            op("c", other, 4, 5, saw(ReturnValue::Register(None))),
        ];
        assert_holds(judge, &evidence(ops, vec![written(1, "a", 7, 1)]), 3);
    }

    #[test]
    fn an_answer_without_a_register_is_wrong() {
        let ops = vec![op("a", get(), 0, 1, done(1))];
        assert_wrong(judge, &evidence(ops, vec![]), "answered without a register");
    }

    #[test]
    fn a_history_nobody_can_decide_is_not_called_right() {
        let mut ops: Vec<_> =
            (0..40).map(|at| op(&format!("u{at}"), put(at), 0, 1, unknown())).collect();
        ops.push(op("g", get(), 2, 3, saw_register(39, 20)));
        ops.push(op("h", get(), 4, 5, saw_register(38, 40)));
        let unread = History { ops, ..History::default() };
        assert_wrong(judge, &unread, "undecided");
    }
}
