//! Linearizable: each register behaves as if its operations took effect one after the other, each
//! at one moment between its invocation and its completion.
//!
//! Promise: the whole history of each register is checked, with [`super::wgl`].
//! Refused: a history with too many unknown results to decide. It is reported as undecided, and
//! counts as a violation.

use super::Verdict;
use super::history_index::{describe, format_time};
use super::registers::{RegisterHistory, register_histories};
use super::wgl::{CONFIGURATIONS_MAX, SearchResult, search};
use crate::{BranchModule, History};

/// Checks `linearizable`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every register behaves like one that does one thing at a time.";
    let mut verdict = Verdict::new("linearizable", promise);
    for ((branch_key, key), register) in register_histories(history) {
        for op in &register.unreadable {
            verdict.record(Some(format!("{}: completed without a register", describe(op))));
        }
        // Every operation counts as a fact, but a search finds one violation per register at most.
        for _ in 1..register.operations.len() {
            verdict.record(None);
        }
        if !register.operations.is_empty() {
            verdict.record(search_violation(branch_key, key, &register));
        }
    }
    verdict
}

/// The violation that the search finds in one register's history.
fn search_violation(
    branch_key: &BranchModule,
    key: &str,
    register: &RegisterHistory<'_>,
) -> Option<String> {
    let branch_key = branch_key.name();
    match search(register.initial, &register.operations, CONFIGURATIONS_MAX) {
        SearchResult::Linearizable => None,
        SearchResult::NotLinearizable { at, states } => {
            let op = register.sources[at];
            let operation = register.operations[at].operation;
            let open = register.sources.iter().filter(|other| {
                other.id != op.id && other.invoked <= op.completed && other.completed >= op.invoked
            });
            let open: Vec<&str> = open.map(|op| op.id.as_str()).collect();
            Some(format!(
                "{branch_key} {key}: {} cannot have completed as {operation:?} on {states:?} \
                 (concurrent: {})",
                describe(op),
                open.join(", ")
            ))
        }
        SearchResult::Undecided { at } => Some(format!(
            "{branch_key} {key}: undecided, more than {CONFIGURATIONS_MAX} configurations at {}",
            format_time(register.sources[at].completed)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::checker::fields;
    use crate::{Invocation, ReturnValue};

    #[test]
    fn a_linearizable_register_holds() {
        let operations = vec![
            operation("a", put(7), 0, 5, ok_with_version(1, 1)),
            operation("b", cas(8, 1), 6, 9, ok_with_version(2, 2)),
            operation("c", cas(9, 1), 6, 9, fail()),
            operation("d", get(), 7, 8, returned_register(7, 1)),
            operation("e", get(), 10, 11, returned_register(8, 2)),
            operation("f", get(), 10, 11, info()),
            operation("g", put(3), 10, 11, info()),
            operation("h", Invocation::FirstWrite { value: 1 }, 10, 11, ok_with_version(4, 1)),
        ];
        let first =
            log_event(4, fields::REGISTERS, "first", Some("h"), r#"{"value":1,"version":1}"#);
        let log = vec![register_event(1, "a", 7, 1), register_event(2, "b", 8, 2), first];
        assert_holds(check, &history_of(operations, log), 6);
    }

    #[test]
    fn a_register_starts_with_its_setup_value() {
        let prepared = log_event(1, fields::REGISTERS, "r", None, r#"{"value":5,"version":1}"#);
        let holds = vec![operation("a", get(), 0, 5, returned_register(5, 1))];
        assert_holds(check, &history_of(holds, vec![prepared.clone()]), 1);
        let nothing = vec![operation("a", get(), 0, 5, returned(ReturnValue::Register(None)))];
        assert_violation(check, &history_of(nothing, vec![prepared]), "a (Get");
    }

    #[test]
    fn a_stale_read_is_a_violation() {
        let operations = vec![
            operation("a", put(7), 0, 1, ok_with_version(1, 1)),
            operation("b", put(8), 2, 3, ok_with_version(2, 2)),
            operation("c", get(), 4, 5, returned_register(7, 1)),
        ];
        let log = vec![register_event(1, "a", 7, 1), register_event(2, "b", 8, 2)];
        assert_violation(check, &history_of(operations, log), "c (Get");
    }

    #[test]
    fn a_lost_update_is_a_violation() {
        let operations = vec![
            operation("a", put(7), 0, 9, ok_with_version(1, 1)),
            operation("b", put(8), 0, 9, ok_with_version(2, 1)),
        ];
        assert_violation(check, &history_of(operations, vec![]), "cannot have completed");
    }

    #[test]
    fn a_conflict_on_the_current_version_is_a_violation() {
        let operations = vec![
            operation("a", put(7), 0, 1, ok_with_version(1, 1)),
            operation("b", cas(8, 1), 2, 3, fail()),
        ];
        assert_violation(
            check,
            &history_of(operations, vec![register_event(1, "a", 7, 1)]),
            "Conflict",
        );
    }

    #[test]
    fn an_unknown_write_absent_from_the_log_never_happened() {
        let operations = vec![
            operation("a", put(7), 0, 1, info()),
            operation("b", get(), 2, 3, returned_register(7, 1)),
        ];
        let without_log = History { operations: operations.clone(), ..History::default() };
        assert_holds(check, &without_log, 2);
        assert_holds(check, &history_of(operations.clone(), vec![register_event(1, "a", 7, 1)]), 2);
        assert_violation(check, &history_of(operations, vec![]), "b (Get");
    }

    #[test]
    fn an_unknown_write_in_the_log_made_its_version_there() {
        let operations = vec![
            operation("a", put(7), 0, 1, info()),
            operation("b", put(8), 2, 3, ok_with_version(1, 1)),
            operation("c", get(), 4, 5, returned_register(7, 2)),
        ];
        let log = vec![register_event(1, "b", 8, 1), register_event(2, "a", 7, 2)];
        assert_holds(check, &history_of(operations.clone(), log), 3);
        let log = vec![register_event(1, "a", 7, 1), register_event(2, "b", 8, 2)];
        assert_violation(check, &history_of(operations, log), "c (Get");
    }

    #[test]
    fn registers_and_branches_are_independent() {
        let mut elsewhere = operation("b", get(), 4, 5, returned(ReturnValue::Register(None)));
        elsewhere.branch_key.branch = "other".to_owned();
        let other = Invocation::Get { key: "s".to_owned() };
        let operations = vec![
            operation("a", put(7), 0, 1, ok_with_version(1, 1)),
            elsewhere,
            operation("c", other, 4, 5, returned(ReturnValue::Register(None))),
        ];
        assert_holds(check, &history_of(operations, vec![register_event(1, "a", 7, 1)]), 3);
    }

    #[test]
    fn a_response_without_a_register_is_a_violation() {
        let operations = vec![operation("a", get(), 0, 1, ok(1))];
        assert_violation(check, &history_of(operations, vec![]), "completed without a register");
    }

    #[test]
    fn an_undecided_history_is_a_violation() {
        let mut operations: Vec<_> =
            (0..40).map(|at| operation(&format!("u{at}"), put(at), 0, 1, info())).collect();
        operations.push(operation("g", get(), 2, 3, returned_register(39, 20)));
        operations.push(operation("h", get(), 4, 5, returned_register(38, 40)));
        let without_log = History { operations, ..History::default() };
        assert_violation(check, &without_log, "undecided");
    }
}
