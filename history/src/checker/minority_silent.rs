//! Minority silent: a node that cannot reach a majority acknowledges no write and returns no read.
//!
//! Promise: every attempt at a node of a minority is checked, if it was sent and completed while
//! the node was in the minority. Where the answers of attempts were not recorded, only the last one
//! of an operation can have been acknowledged.

use super::Verdict;
use super::history_index::{describe, format_time};
use crate::{Completion, Fault, History, Operation};

/// Checks `minority-silent`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "A node without a majority acknowledges nothing.";
    let mut verdict = Verdict::new("minority-silent", promise);
    for fault in history.faults.iter().filter(|fault| !fault.minority.is_empty()) {
        let attempts = history.operations.iter().flat_map(|op| attempts_at_minority(op, fault));
        for (op, is_violated) in attempts {
            verdict.record(is_violated.then(|| {
                let (op, kind) = (describe(op), &fault.kind);
                let (from, until) = (format_time(fault.minority_from), format_time(fault.until));
                let nodes = &fault.minority;
                format!("{op}: acknowledged by one of {nodes:?} in {kind}, {from} to {until}")
            }));
        }
    }
    verdict
}

/// The attempts of an operation at a node of the minority, and whether each was acknowledged.
fn attempts_at_minority<'a>(
    op: &'a Operation,
    fault: &Fault,
) -> impl Iterator<Item = (&'a Operation, bool)> {
    // An attempt ends where the next one begins; the last one ends with the operation.
    let ends = op.attempts.iter().skip(1).map(|next| Some(next.at)).chain([None]);
    op.attempts.iter().zip(ends).filter_map(move |(attempt, next)| {
        let is_inside = fault.minority.contains(&attempt.node)
            && attempt.at >= fault.minority_from
            && next.unwrap_or(op.completed) <= fault.until;
        let own = attempt.completion.as_ref();
        let completion = own.or_else(|| next.is_none().then_some(&op.completion));
        is_inside.then_some((op, matches!(completion, Some(Completion::Ok(_)))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::{Attempt, MonotonicTime};

    /// Nodes 1 and 2 are cut off from 100 to 200, and must be silent from 110 on.
    fn history_with(attempts: &[(u64, u64)], completed: u64, completion: Completion) -> History {
        let mut asked = operation("a", put(7), 0, completed, completion);
        asked.attempts = attempts
            .iter()
            .map(|(node, at)| Attempt { node: *node, at: MonotonicTime(*at), completion: None })
            .collect();
        let mut cut = fault("netsplit", &[1, 2], 100, 200);
        cut.minority = vec![1, 2];
        cut.minority_from = MonotonicTime(110);
        History { faults: vec![cut], ..history_of(vec![asked], vec![]) }
    }

    #[test]
    fn no_acknowledgement_from_the_minority_holds() {
        assert_holds(check, &history_with(&[(1, 120)], 150, info()), 1);
        assert_holds(check, &history_with(&[(2, 120)], 150, fail()), 1);
        for (attempts, completed) in
            [(&[(3, 120)][..], 150), (&[(1, 105)], 150), (&[(1, 120)], 201)]
        {
            assert_holds(check, &history_with(attempts, completed, ok(1)), 0);
        }
        assert_holds(check, &history_with(&[(1, 120), (3, 130)], 150, ok(1)), 1);
    }

    #[test]
    fn an_acknowledgement_from_the_minority_is_a_violation() {
        let expected = "acknowledged by one of [1, 2] in netsplit";
        assert_violation(check, &history_with(&[(1, 120)], 150, ok(1)), expected);
        assert_violation(check, &history_with(&[(3, 90), (2, 110)], 200, ok(1)), expected);
        assert_violation(check, &history_with(&[(1, 120)], 150, returned_register(7, 1)), expected);
        let mut repeated = history_with(&[(1, 120), (3, 130)], 150, ok(1));
        repeated.operations[0].attempts[0].completion = Some(ok(1));
        assert_violation(check, &repeated, expected);
    }
}
