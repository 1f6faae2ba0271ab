//! Counters and stock: what is guarded by a version is counted exactly.
//!
//! Promise: each row in the log follows from the one before it: its version is one more and is the
//! one that was read, a counter is one more, stock is one less and never below nothing. In the end
//! a counter holds as many as there are increments, and every acknowledged piece was taken once.

use std::collections::BTreeMap;

use super::history_index::{HistoryIndex, told};
use super::{Verdict, fields};
use crate::history::{History, Invocation, LogEvent, Operation};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Counters count every increment, stock gives every piece once, versions chain.";
    let mut verdict = Verdict::new("counters-and-stock", promise);
    let book = HistoryIndex::of(evidence);
    for (place, log) in book.logs() {
        let mut held: BTreeMap<(&str, &str), RowState> = BTreeMap::new();
        for logged in log {
            let Some(kind) = CountedTable::of(&logged.table) else { continue };
            let key = (logged.table.as_str(), logged.key.as_str());
            let op = logged.op.as_ref().and_then(|op| book.op(op));
            let (now, wrong) = follow(&kind, held.get(&key), logged, op);
            held.insert(key, now);
            verdict.check(wrong.map(|why| {
                let by = op.map_or_else(|| "nobody".to_owned(), told);
                format!("{} {}/{}: {why}, by {by}", place.name(), key.0, key.1)
            }));
        }
        for ((table, key), held) in held {
            verdict.check(ends(&held).map(|why| format!("{} {table}/{key}: {why}", place.name())));
        }
    }
    for op in evidence.ops.iter().filter(|op| op.outcome.reply().is_some()) {
        if matches!(op.intent, Invocation::TakePiece { .. } | Invocation::Increment { .. }) {
            let times = book.rows_of(op).count();
            let wrong = times != 1;
            verdict.check(wrong.then(|| format!("{}: acknowledged, done {times} times", told(op))));
        }
    }
    verdict
}

/// What is counted, by its table.
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

/// One counter or item, so far.
#[derive(Clone, Copy)]
struct RowState {
    /// What the row holds and its version.
    now: i128,
    version: u64,
    /// What was there at first, how often it was changed since, and by how much each time.
    first: i128,
    changes: i128,
    step: i128,
}

/// The row after this event, and what is wrong with how it follows from the one before.
fn follow(
    kind: &CountedTable,
    was: Option<&RowState>,
    logged: &LogEvent,
    op: Option<&Operation>,
) -> (RowState, Option<String>) {
    let step = kind.step();
    let number = fields::number(logged, kind.field());
    let version = fields::version(logged);
    // What nobody prepared begins with nothing.
    let nothing = RowState { now: 0, version: 0, first: 0, changes: 0, step };
    let before = was.copied().unwrap_or(nothing);
    let prepares = op.is_none();
    let now = number.unwrap_or(before.now);
    let held = RowState {
        now,
        version: version.unwrap_or(before.version + 1),
        first: if prepares { now } else { before.first },
        changes: if prepares { 0 } else { before.changes + 1 },
        step,
    };
    let expected = op.and_then(expected);
    let wrong = if number.is_none() || version.is_none() {
        Some(format!("the row has no {} or version", kind.field()))
    } else if version != Some(before.version + 1) {
        Some(format!("version {version:?} after version {}", before.version))
    } else if expected.is_some_and(|expected| expected != before.version) {
        Some(format!("asked for over version {expected:?}, done over {}", before.version))
    } else if !prepares && now != before.now + step {
        Some(format!("{now} after {}", before.now))
    } else {
        (now < 0).then(|| format!("{now} is below nothing"))
    };
    (held, wrong)
}

/// The version an operation was guarded by.
fn expected(op: &Operation) -> Option<u64> {
    if let Invocation::Increment { expected, .. } | Invocation::TakePiece { expected, .. } =
        op.intent
    {
        return Some(expected);
    }
    None
}

fn ends(held: &RowState) -> Option<String> {
    let wanted = held.first + held.step * held.changes;
    let (now, changes) = (held.now, held.changes);
    (now != wanted).then(|| format!("holds {now} after {changes} changes instead of {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn increment(id: &str, expected: u64, value: u64, sequence: u64) -> Operation {
        let intent = Invocation::Increment { key: "c".to_owned(), expected, value };
        op(id, intent, 0, 5, done(sequence))
    }

    fn take(id: &str, expected: u64, left: i64, sequence: u64) -> Operation {
        let intent = Invocation::TakePiece { item: "tea".to_owned(), expected, left };
        op(id, intent, 0, 5, done(sequence))
    }

    fn counter(sequence: u64, op: Option<&str>, value: u64, version: u64) -> LogEvent {
        let fields = format!(r#"{{"value":{value},"version":{version}}}"#);
        row(sequence, fields::COUNTERS, "c", op, &fields)
    }

    fn stock(sequence: u64, op: Option<&str>, left: i64, version: u64) -> LogEvent {
        let fields = format!(r#"{{"left":{left},"version":{version}}}"#);
        row(sequence, fields::STOCK, "tea", op, &fields)
    }

    /// The verdict's words, all of them.
    fn words(ops: Vec<Operation>, log: Vec<LogEvent>) -> String {
        let verdict = judge(&evidence(ops, log));
        assert!(!verdict.holds(), "{verdict:#?}");
        verdict.shown.join("\n")
    }

    #[test]
    fn counting_one_by_one_holds() {
        let ops = vec![
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
        assert_holds(judge, &evidence(ops, log), 12);
        let from_nothing = vec![counter(1, Some("a"), 1, 1)];
        assert_holds(judge, &evidence(vec![increment("a", 0, 1, 1)], from_nothing), 3);
    }

    #[test]
    fn an_increment_that_is_lost_is_wrong() {
        let ops = vec![increment("a", 1, 1, 2), increment("b", 2, 1, 3)];
        let log =
            vec![counter(1, None, 0, 1), counter(2, Some("a"), 1, 2), counter(3, Some("b"), 1, 3)];
        let words = words(ops, log);
        assert!(words.contains("1 after 1"), "{words}");
        assert!(words.contains("holds 1 after 2 changes instead of 2"), "{words}");
    }

    #[test]
    fn versions_chain() {
        let log = vec![counter(1, None, 0, 1), counter(2, Some("a"), 1, 3)];
        let skips = evidence(vec![increment("a", 1, 1, 2)], log);
        assert_wrong(judge, &skips, "version Some(3) after version 1");
        let log = vec![counter(1, None, 0, 1), counter(2, Some("a"), 1, 2)];
        let other = evidence(vec![increment("a", 7, 1, 2)], log);
        assert_wrong(judge, &other, "asked for over version Some(7), done over 1");
        let without = vec![row(1, fields::COUNTERS, "c", None, r#"{"value":0}"#)];
        assert_wrong(judge, &evidence(vec![], without), "no value or version");
    }

    #[test]
    fn stock_is_never_below_nothing() {
        let log = vec![stock(1, None, 0, 1), stock(2, Some("d"), -1, 2)];
        let sold = evidence(vec![take("d", 1, -1, 2)], log);
        assert_wrong(judge, &sold, "-1 is below nothing");
    }

    #[test]
    fn a_piece_taken_is_one_piece() {
        let log = vec![stock(1, None, 3, 1), stock(2, Some("d"), 1, 2)];
        let words = words(vec![take("d", 1, 1, 2)], log);
        assert!(words.contains("1 after 3"), "{words}");
    }

    #[test]
    fn a_piece_acknowledged_is_taken_once() {
        let never = evidence(vec![take("d", 1, 2, 2)], vec![stock(1, None, 3, 1)]);
        assert_wrong(judge, &never, "done 0 times");
        let log = vec![stock(1, None, 3, 1), stock(2, Some("d"), 2, 2), stock(3, Some("d"), 1, 3)];
        let words = words(vec![take("d", 1, 2, 2)], log);
        assert!(words.contains("done 2 times"), "{words}");
    }
}
