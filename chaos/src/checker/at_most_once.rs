//! At most once: however often an operation was tried, it happened once or not at all, and whole.
//!
//! Promise: every write is judged, whatever came of it: also one with an unknown outcome has none
//! or all of its events, in a row.

use super::Verdict;
use super::history_index::{HistoryIndex, told};
use crate::history::{History, Operation};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "No operation happened twice, and none in part.";
    let mut verdict = Verdict::new("at-most-once", promise);
    let book = HistoryIndex::of(evidence);
    for op in evidence.ops.iter().filter(|op| !op.intent.is_read()) {
        verdict.check(wrong(&book, op).map(|why| format!("{}: {why}", told(op))));
    }
    verdict
}

fn wrong(book: &HistoryIndex<'_>, op: &Operation) -> Option<String> {
    let found = book.rows(&op.id);
    let (has, wants) = (found.len(), op.intent.events());
    let cursors: Vec<_> = found.iter().map(|(_, logged)| logged.cursor).collect();
    if has > wants {
        return Some(format!("{has} events instead of {wants}: {cursors:?}"));
    }
    if has != 0 && has < wants {
        return Some(format!("{has} of its {wants} events: {cursors:?}"));
    }
    let follow = |pair: &[crate::history::Cursor]| {
        pair[0].epoch == pair[1].epoch && pair[0].sequence + 1 == pair[1].sequence
    };
    (!cursors.windows(2).all(follow))
        .then(|| format!("its events do not follow each other: {cursors:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    #[test]
    fn once_or_never_holds() {
        let ops = vec![
            op("a", put(7), 0, 5, done(1)),
            op("b", append(&["x", "y"], 9), 5, 9, unknown()),
            op("c", append(&["x", "y"], 8), 5, 9, unknown()),
            op("d", get(), 5, 9, unknown()),
        ];
        let log = vec![written(1, "a", 7, 1), element(2, "b", "x", 9), element(3, "b", "y", 9)];
        assert_holds(judge, &evidence(ops, log), 3);
    }

    #[test]
    fn twice_is_once_too_often() {
        let twice = vec![written(1, "a", 7, 1), written(2, "a", 7, 2)];
        for outcome in [done(2), unknown()] {
            let ops = vec![op("a", put(7), 0, 5, outcome)];
            assert_wrong(judge, &evidence(ops, twice.clone()), "2 events instead of 1");
        }
    }

    #[test]
    fn a_batch_never_happens_in_part() {
        let ops = vec![op("b", append(&["x", "y"], 9), 5, 9, unknown())];
        let log = vec![element(1, "b", "x", 9)];
        assert_wrong(judge, &evidence(ops, log), "1 of its 2 events");
    }

    #[test]
    fn the_events_of_a_batch_follow_each_other() {
        let ops = vec![
            op("b", append(&["x", "y"], 9), 5, 9, unknown()),
            op("a", put(7), 5, 9, unknown()),
        ];
        let log = vec![element(1, "b", "x", 9), written(2, "a", 7, 1), element(3, "b", "y", 9)];
        assert_wrong(judge, &evidence(ops, log), "do not follow each other");
    }
}
