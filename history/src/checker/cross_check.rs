//! Cross-check: an external linearizability checker judges the same register histories as our
//! search.
//!
//! Promise: both agree on every window; a disagreement is a violation, for one of the two is wrong.
//! A register's history is cut into windows where no operation is pending and the log shows the
//! register's state, so that no window depends on the result of our search before it.
//! Refused: a window with more than [`WINDOW_MAX`] operations is skipped and not counted.

use std::iter::once;

use todc_utils::{Action, History as WglHistory, Specification, WGLChecker};

use super::Verdict;
use super::registers::register_histories;
use super::wgl::{
    CONFIGURATIONS_MAX, Register, RegisterOperation, SearchResult, TimedOperation, search,
};
use crate::History;

/// The most operations of a window: the external checker's time grows with their square.
const WINDOW_MAX: usize = 400;
/// The number of operations after which a window is cut at the next opportunity.
const WINDOW_TARGET: usize = 60;

/// Checks `linearizable-second-opinion`.
pub(super) fn check(history: &History) -> Verdict {
    compare_with(history, is_linearizable_externally)
}

/// Compares our search with an external checker, which tests replace.
fn compare_with(history: &History, external: fn(&Window) -> bool) -> Verdict {
    let promise = "Two checkers, made apart, say the same of every register.";
    let mut verdict = Verdict::new("linearizable-second-opinion", promise);
    for ((branch_key, key), register) in register_histories(history) {
        let whole_result = search(register.initial, &register.operations, CONFIGURATIONS_MAX);
        let mut external_accepts_all = true;
        let mut all_compared = true;
        for window in windows(register.initial, &register.operations) {
            if window.operations.len() > WINDOW_MAX {
                all_compared = false;
                continue;
            }
            let own_result = search(window.initial, &window.operations, CONFIGURATIONS_MAX);
            if matches!(own_result, SearchResult::Undecided { .. }) {
                all_compared = false;
                continue;
            }
            let external_says = external(&window);
            external_accepts_all &= external_says;
            let agree = external_says == (own_result == SearchResult::Linearizable);
            verdict.record((!agree).then(|| {
                let branch_key = branch_key.name();
                format!(
                    "{branch_key} {key}: ours says {own_result:?}, the other {external_says}: \
                     {window:?}"
                )
            }));
        }
        // The windows together are the whole history: if it is not linearizable, one of them is
        // not.
        if all_compared
            && external_accepts_all
            && matches!(whole_result, SearchResult::NotLinearizable { .. })
        {
            let branch_key = branch_key.name();
            verdict.record(Some(format!(
                "{branch_key} {key}: {whole_result:?}, but every window is right"
            )));
        }
    }
    verdict
}

/// A part of a register's history with no operation pending at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    initial: Register,
    operations: Vec<TimedOperation>,
}

/// Cuts a history where no operation is pending and the register's state is known.
fn windows(initial: Register, operations: &[TimedOperation]) -> Vec<Window> {
    let mut operations = with_inferred_completions(operations);
    operations.sort_by_key(|timed| (timed.invoked, timed.completed.unwrap_or(u64::MAX)));
    let mut cut = Vec::new();
    let mut now = initial;
    // One write without a known version makes the state unknown for the rest of the history.
    let mut is_known = true;
    let mut until = 0;
    let mut window = Window { initial, operations: Vec::new() };
    for timed in operations {
        if window.operations.len() >= WINDOW_TARGET && until < timed.invoked && is_known {
            let next = Window { initial: now, operations: Vec::new() };
            cut.push(std::mem::replace(&mut window, next));
        }
        until = until.max(timed.completed.unwrap_or(u64::MAX));
        if let Some((value, version)) = written_version(timed.operation) {
            is_known &= version.is_some();
            // Concurrent writes are ordered by version, not by invocation: the highest one is the
            // state.
            if let Some(version) = version.filter(|version| *version > now.version) {
                now = Register { value: Some(value), version };
            }
        }
        window.operations.push(timed);
    }
    if !window.operations.is_empty() {
        cut.push(window);
    }
    cut
}

/// The value that an operation writes, and the version that it makes, where that is known.
fn written_version(operation: RegisterOperation) -> Option<(u64, Option<u64>)> {
    match operation {
        RegisterOperation::Put { value, version }
        | RegisterOperation::Cas { value, version, .. } => Some((value, version)),
        RegisterOperation::Get(_) | RegisterOperation::Conflict { .. } => None,
    }
}

/// Completes operations without a completion where another operation, which needs their version,
/// has completed.
fn with_inferred_completions(operations: &[TimedOperation]) -> Vec<TimedOperation> {
    let mut requirements: Vec<(u64, u64)> =
        operations.iter().filter_map(required_version).collect();
    // Sorted by version, then from the end: for each version the earliest completion of all
    // operations that need it or a later one.
    requirements.sort_unstable();
    let mut earliest = u64::MAX;
    for (_, to) in requirements.iter_mut().rev() {
        earliest = earliest.min(*to);
        *to = earliest;
    }
    let end_of = |version: u64| {
        let index = requirements.partition_point(|(required, _)| *required < version);
        requirements.get(index).map(|(_, to)| *to)
    };
    let end = |timed: &TimedOperation| {
        let version = written_version(timed.operation).and_then(|(_, version)| version);
        let to = timed.completed.or_else(|| end_of(version?).filter(|to| *to >= timed.invoked));
        TimedOperation { completed: to, ..*timed }
    };
    operations.iter().map(end).collect()
}

/// The version that a completed operation needs before it, and its completion.
fn required_version(timed: &TimedOperation) -> Option<(u64, u64)> {
    let required = match timed.operation {
        RegisterOperation::Put { version, .. } => version?.saturating_sub(1),
        RegisterOperation::Cas { expected, .. } => expected,
        RegisterOperation::Get(read) => read.version,
        RegisterOperation::Conflict { .. } => return None,
    };
    Some((required, timed.completed?))
}

/// An operation as the external checker receives it.
#[derive(Debug, Clone)]
enum CheckerInput {
    /// Sets the initial state of the window.
    Initial(Register),
    /// An operation that happened.
    Certain(RegisterOperation),
    /// An operation that may have happened: where it cannot, it changes nothing.
    Possible(RegisterOperation),
}

/// The specification of a register for the external checker.
struct RegisterSpecification;

impl Specification for RegisterSpecification {
    type State = Register;
    type Operation = CheckerInput;

    fn init() -> Register {
        Register::default()
    }

    fn apply(input: &CheckerInput, state: &Register) -> (bool, Register) {
        match input {
            CheckerInput::Initial(register) => (true, *register),
            CheckerInput::Certain(operation) => match operation.apply(*state) {
                Some(next) => (true, next),
                None => (false, *state),
            },
            CheckerInput::Possible(operation) => (true, operation.apply(*state).unwrap_or(*state)),
        }
    }
}

/// Whether the external checker accepts a window. It requires a completion of every operation: one
/// without completes after all others, where no read shows whether it happened.
fn is_linearizable_externally(window: &Window) -> bool {
    let operations = &window.operations;
    let input = |timed: &TimedOperation| match timed.completed {
        Some(_) => CheckerInput::Certain(timed.operation),
        None => CheckerInput::Possible(timed.operation),
    };
    // `false` sorts first: invocations come before completions of the same time.
    let mut boundaries: Vec<(u64, bool, usize)> = Vec::with_capacity(operations.len() * 2);
    for (index, timed) in operations.iter().enumerate() {
        boundaries.push((timed.invoked, false, index));
        boundaries.push((
            timed.completed.map_or(u64::MAX, |to| to.max(timed.invoked)),
            true,
            index,
        ));
    }
    boundaries.sort_unstable();
    // The checker always starts with an empty register: a first operation, which nothing overlaps,
    // sets the state of the window.
    let initial_input = CheckerInput::Initial(window.initial);
    let actions = once((0, Action::Call(initial_input.clone())))
        .chain(once((0, Action::Response(initial_input))))
        .chain(boundaries.into_iter().map(|(_, is_end, index)| {
            let input = input(&operations[index]);
            (index + 1, if is_end { Action::Response(input) } else { Action::Call(input) })
        }));
    WGLChecker::<RegisterSpecification>::is_linearizable(WglHistory::from_actions(
        actions.collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::checker::wgl::tests::{TestRng, is_linearizable_by_all_orders, random_history};

    #[test]
    fn both_checkers_agree_on_valid_and_invalid_histories() {
        let right = vec![
            operation("a", put(7), 0, 5, ok_with_version(1, 1)),
            operation("b", get(), 7, 8, returned_register(7, 1)),
            operation("c", put(9), 7, 8, info()),
        ];
        assert_holds(check, &history_of(right, vec![register_event(1, "a", 7, 1)]), 1);
        let violation = vec![operation("b", get(), 7, 8, returned_register(7, 1))];
        assert_holds(check, &history_of(violation, vec![]), 1);
    }

    #[test]
    fn a_disagreement_is_a_violation() {
        let right = vec![operation("b", get(), 7, 8, returned(crate::ReturnValue::Register(None)))];
        let strict: fn(&History) -> Verdict = |history| compare_with(history, |_| false);
        assert_violation(strict, &history_of(right, vec![]), "the other false");
        let stale = vec![operation("b", get(), 7, 8, returned_register(7, 1))];
        let blind: fn(&History) -> Verdict = |history| compare_with(history, |_| true);
        let verdict = blind(&history_of(stale, vec![]));
        assert_eq!(verdict.violations, 2, "{verdict:#?}");
        assert!(verdict.details[0].contains("the other true"), "{verdict:#?}");
        assert!(verdict.details[1].contains("every window is right"), "{verdict:#?}");
    }

    #[test]
    fn the_external_checker_agrees_with_all_orders() {
        for seed in 0..5_000 {
            let operations = random_history(&mut TestRng(seed));
            let all = is_linearizable_by_all_orders(
                Register::default(),
                &operations,
                (1 << operations.len()) - 1,
            );
            let window = Window { initial: Register::default(), operations };
            assert_eq!(is_linearizable_externally(&window), all, "seed {seed}: {window:#?}");
        }
    }

    fn sequential_writes(count: u64) -> Vec<TimedOperation> {
        let put = |at| RegisterOperation::Put { value: at, version: Some(at) };
        (1..=count)
            .map(|at| TimedOperation {
                invoked: at * 10,
                completed: Some(at * 10 + 4),
                operation: put(at),
            })
            .collect()
    }

    #[test]
    fn a_long_history_is_cut_where_nothing_is_pending() {
        let mut operations = sequential_writes(300);
        let cut = windows(Register::default(), &operations);
        assert_eq!(cut.len(), 5);
        assert_eq!(cut[1].initial, Register { value: Some(60), version: 60 });
        assert!(cut.iter().all(is_linearizable_externally));
        // A read in the second window that returns a state from before it.
        let stale = RegisterOperation::Get(Register { value: Some(10), version: 10 });
        operations.push(TimedOperation { invoked: 905, completed: Some(909), operation: stale });
        let results: Vec<bool> = windows(Register::default(), &operations)
            .iter()
            .map(is_linearizable_externally)
            .collect();
        assert_eq!(results, [true, false, true, true, true, true]);
    }

    #[test]
    fn an_unknown_write_ends_where_it_must_have_happened() {
        let mut operations = sequential_writes(200);
        operations[20].completed = None;
        assert_eq!(windows(Register::default(), &operations).len(), 4);
        assert_eq!(with_inferred_completions(&operations)[20].completed, Some(224));
        // Without its version it may take effect at any time: the history cannot be cut after it.
        operations[20].operation = RegisterOperation::Put { value: 21, version: None };
        assert_eq!(windows(Register::default(), &operations).len(), 1);
    }

    #[test]
    fn a_window_that_is_too_long_is_not_counted() {
        let put = |at: u64| {
            let id = format!("p{at}");
            operation(&id, put(at), at, 10_000, ok_with_version(at, at))
        };
        let operations: Vec<_> = (1..=450).map(put).collect();
        let log = (1..=450).map(|at| register_event(at, &format!("p{at}"), at, at)).collect();
        assert_holds(check, &history_of(operations, log), 0);
    }
}
