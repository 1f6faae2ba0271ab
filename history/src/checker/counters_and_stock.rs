//! Counters and stock: writes that expect a version count exactly.
//!
//! Promise: each event of a row follows from the one before. Its version is one higher, and the
//! expected version is the one before; a counter is one higher; stock is one lower and never below
//! 0. In the end a counter equals the number of its increments, and each acknowledged step is in
//! the log once.

use std::collections::BTreeMap;

use super::history_index::{HistoryIndex, describe};
use super::{Verdict, fields};
use crate::{History, Invocation, LogEvent, Operation};

/// Checks `counters-and-stock`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Counters count every increment, stock gives every piece once, versions chain.";
    let mut verdict = Verdict::new("counters-and-stock", promise);
    let index = HistoryIndex::new(history);
    for (branch_key, log) in index.logs() {
        let mut states: BTreeMap<(&str, &str), RowState> = BTreeMap::new();
        for event in log {
            let Some(kind) = CountedTable::of(&event.table) else { continue };
            let key = (event.table.as_str(), event.key.as_str());
            let op = event.op.as_ref().and_then(|op| index.operation(op));
            let (now, violation) = next_state(&kind, states.get(&key), event, op);
            states.insert(key, now);
            verdict.record(violation.map(|why| {
                let by = op.map_or_else(|| "the setup".to_owned(), describe);
                format!("{} {}/{}: {why}, by {by}", branch_key.name(), key.0, key.1)
            }));
        }
        for ((table, key), state) in states {
            verdict.record(
                final_violation(&state)
                    .map(|why| format!("{} {table}/{key}: {why}", branch_key.name())),
            );
        }
    }
    for op in history.operations.iter().filter(|op| op.completion.response().is_some()) {
        if matches!(op.invocation, Invocation::TakePiece { .. } | Invocation::Increment { .. }) {
            let count = index.branch_events_of(op).count();
            let is_violated = count != 1;
            verdict.record(
                is_violated.then(|| {
                    format!("{}: acknowledged, but {count} times in the log", describe(op))
                }),
            );
        }
    }
    verdict
}

/// The two tables that are counted.
enum CountedTable {
    Counter,
    Stock,
}

impl CountedTable {
    fn of(table: &str) -> Option<Self> {
        match table {
            fields::COUNTERS => Some(Self::Counter),
            fields::STOCK => Some(Self::Stock),
            _ => None,
        }
    }

    fn field(&self) -> &'static str {
        match self {
            Self::Counter => fields::VALUE,
            Self::Stock => fields::LEFT,
        }
    }

    fn step(&self) -> i128 {
        match self {
            Self::Counter => 1,
            Self::Stock => -1,
        }
    }
}

/// The state of one counter or item after an event.
#[derive(Clone, Copy)]
struct RowState {
    /// The row's number.
    now: i128,
    /// The row's version.
    version: u64,
    /// The number that the setup wrote; 0 if it wrote none.
    first: i128,
    /// How many operations changed the row since.
    changes: i128,
    /// By how much each of them must change it.
    step: i128,
}

/// The state after an event, and what is wrong with the step from the state before.
fn next_state(
    kind: &CountedTable,
    previous: Option<&RowState>,
    event: &LogEvent,
    op: Option<&Operation>,
) -> (RowState, Option<String>) {
    let step = kind.step();
    let number = fields::number(event, kind.field());
    let version = fields::version(event);
    // A row that the setup did not write starts at 0.
    let initial = RowState { now: 0, version: 0, first: 0, changes: 0, step };
    let before = previous.copied().unwrap_or(initial);
    let is_setup = op.is_none();
    let now = number.unwrap_or(before.now);
    // Taken from the event even if it is wrong: one violation must not cause one in every later
    // event.
    let state = RowState {
        now,
        version: version.unwrap_or(before.version + 1),
        first: if is_setup { now } else { before.first },
        changes: if is_setup { 0 } else { before.changes + 1 },
        step,
    };
    let expected = op.and_then(expected);
    let violation = if number.is_none() || version.is_none() {
        Some(format!("the row has no {} or version", kind.field()))
    } else if version != Some(before.version + 1) {
        Some(format!("version {version:?} after version {}", before.version))
    } else if expected.is_some_and(|expected| expected != before.version) {
        Some(format!("expected version {expected:?}, applied to {}", before.version))
    } else if !is_setup && now != before.now + step {
        Some(format!("{now} after {}", before.now))
    } else {
        (now < 0).then(|| format!("{now} is below 0"))
    };
    (state, violation)
}

/// The version that an operation expected.
fn expected(op: &Operation) -> Option<u64> {
    if let Invocation::Increment { expected, .. } | Invocation::TakePiece { expected, .. } =
        op.invocation
    {
        return Some(expected);
    }
    None
}

/// Whether the row holds another number at the end than its changes add up to.
fn final_violation(state: &RowState) -> Option<String> {
    let expected = state.first + state.step * state.changes;
    let (now, changes) = (state.now, state.changes);
    (now != expected).then(|| format!("holds {now} after {changes} changes instead of {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn increment(id: &str, expected: u64, value: u64, sequence: u64) -> Operation {
        let invocation = Invocation::Increment { key: "c".to_owned(), expected, value };
        operation(id, invocation, 0, 5, ok(sequence))
    }

    fn take(id: &str, expected: u64, left: i64, sequence: u64) -> Operation {
        let invocation = Invocation::TakePiece { item: "tea".to_owned(), expected, left };
        operation(id, invocation, 0, 5, ok(sequence))
    }

    fn counter(sequence: u64, op: Option<&str>, value: u64, version: u64) -> LogEvent {
        let fields = format!(r#"{{"value":{value},"version":{version}}}"#);
        log_event(sequence, fields::COUNTERS, "c", op, &fields)
    }

    fn stock(sequence: u64, op: Option<&str>, left: i64, version: u64) -> LogEvent {
        let fields = format!(r#"{{"left":{left},"version":{version}}}"#);
        log_event(sequence, fields::STOCK, "tea", op, &fields)
    }

    /// All violations of a history, described.
    fn details(operations: Vec<Operation>, log: Vec<LogEvent>) -> String {
        let verdict = check(&history_of(operations, log));
        assert!(!verdict.holds(), "{verdict:#?}");
        verdict.details.join("\n")
    }

    #[test]
    fn single_steps_from_the_initial_value_hold() {
        let operations = vec![
            increment("a", 1, 1, 3),
            increment("b", 2, 2, 4),
            take("d", 1, 1, 5),
            take("e", 2, 0, 6),
        ];
        let log = vec![
            counter(1, None, 0, 1),
            stock(2, None, 2, 1),
            counter(3, Some("a"), 1, 2),
            counter(4, Some("b"), 2, 3),
            stock(5, Some("d"), 1, 2),
            stock(6, Some("e"), 0, 3),
        ];
        assert_holds(check, &history_of(operations, log), 12);
        let from_nothing = vec![counter(1, Some("a"), 1, 1)];
        assert_holds(check, &history_of(vec![increment("a", 0, 1, 1)], from_nothing), 3);
    }

    #[test]
    fn a_lost_increment_is_a_violation() {
        let operations = vec![increment("a", 1, 1, 2), increment("b", 2, 1, 3)];
        let log =
            vec![counter(1, None, 0, 1), counter(2, Some("a"), 1, 2), counter(3, Some("b"), 1, 3)];
        let details = details(operations, log);
        assert!(details.contains("1 after 1"), "{details}");
        assert!(details.contains("holds 1 after 2 changes instead of 2"), "{details}");
    }

    #[test]
    fn a_version_that_skips_or_mismatches_is_a_violation() {
        let log = vec![counter(1, None, 0, 1), counter(2, Some("a"), 1, 3)];
        let skips = history_of(vec![increment("a", 1, 1, 2)], log);
        assert_violation(check, &skips, "version Some(3) after version 1");
        let log = vec![counter(1, None, 0, 1), counter(2, Some("a"), 1, 2)];
        let other = history_of(vec![increment("a", 7, 1, 2)], log);
        assert_violation(check, &other, "expected version Some(7), applied to 1");
        let without = vec![log_event(1, fields::COUNTERS, "c", None, r#"{"value":0}"#)];
        assert_violation(check, &history_of(vec![], without), "no value or version");
    }

    #[test]
    fn stock_below_zero_is_a_violation() {
        let log = vec![stock(1, None, 0, 1), stock(2, Some("d"), -1, 2)];
        let sold = history_of(vec![take("d", 1, -1, 2)], log);
        assert_violation(check, &sold, "-1 is below 0");
    }

    #[test]
    fn taking_two_pieces_at_once_is_a_violation() {
        let log = vec![stock(1, None, 3, 1), stock(2, Some("d"), 1, 2)];
        let details = details(vec![take("d", 1, 1, 2)], log);
        assert!(details.contains("1 after 3"), "{details}");
    }

    #[test]
    fn an_acknowledged_piece_is_taken_exactly_once() {
        let never = history_of(vec![take("d", 1, 2, 2)], vec![stock(1, None, 3, 1)]);
        assert_violation(check, &never, "but 0 times in the log");
        let log = vec![stock(1, None, 3, 1), stock(2, Some("d"), 2, 2), stock(3, Some("d"), 1, 3)];
        let details = details(vec![take("d", 1, 2, 2)], log);
        assert!(details.contains("but 2 times in the log"), "{details}");
    }
}
