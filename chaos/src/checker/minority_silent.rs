//! Minority silent: who cannot reach a majority says nothing is done, and shows no state.
//!
//! Promise: every attempt that went to a node of a minority, and was asked and ended while it was
//! one, is judged, those to read too. An attempt that was followed by another had no answer.

use super::Verdict;
use super::history_index::{told, when};
use crate::history::{Completion, Fault, History, Operation};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "A node without a majority acknowledges nothing.";
    let mut verdict = Verdict::new("minority-silent", promise);
    for fault in evidence.faults.iter().filter(|fault| !fault.minority.is_empty()) {
        let attempts = evidence.ops.iter().flat_map(|op| inside(op, fault));
        for (op, is_last) in attempts {
            let wrong = is_last && matches!(op.outcome, Completion::Ok(_));
            verdict.check(wrong.then(|| {
                let (op, kind) = (told(op), &fault.kind);
                let (from, until) = (when(fault.minority_from), when(fault.until));
                let nodes = &fault.minority;
                format!("{op}: acknowledged by one of {nodes:?} in {kind}, {from} to {until}")
            }));
        }
    }
    verdict
}

/// The attempts at an operation that were made at a minority; whether each was the last.
fn inside<'a>(op: &'a Operation, fault: &Fault) -> impl Iterator<Item = (&'a Operation, bool)> {
    let ends = op.attempts.iter().skip(1).map(|next| Some(next.at)).chain([None]);
    op.attempts.iter().zip(ends).filter_map(move |(attempt, next)| {
        let is_inside = fault.minority.contains(&attempt.node)
            && attempt.at >= fault.minority_from
            && next.unwrap_or(op.completed) <= fault.until;
        is_inside.then_some((op, next.is_none()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::history::{Attempt, MonotonicTime};

    /// Nodes 1 and 2 are cut off from 100 to 200, and must be silent from 110 on.
    fn story(attempts: &[(u64, u64)], completed: u64, outcome: Completion) -> History {
        let mut asked = op("a", put(7), 0, completed, outcome);
        asked.attempts = attempts
            .iter()
            .map(|(node, at)| Attempt { node: *node, at: MonotonicTime(*at) })
            .collect();
        let mut cut = fault("netsplit", &[1, 2], 100, 200);
        cut.minority = vec![1, 2];
        cut.minority_from = MonotonicTime(110);
        History { faults: vec![cut], ..evidence(vec![asked], vec![]) }
    }

    #[test]
    fn silence_holds_and_what_others_answer() {
        assert_holds(judge, &story(&[(1, 120)], 150, unknown()), 1);
        assert_holds(judge, &story(&[(2, 120)], 150, refused()), 1);
        for (attempts, completed) in
            [(&[(3, 120)][..], 150), (&[(1, 105)], 150), (&[(1, 120)], 201)]
        {
            assert_holds(judge, &story(attempts, completed, done(1)), 0);
        }
        assert_holds(judge, &story(&[(1, 120), (3, 130)], 150, done(1)), 1);
    }

    #[test]
    fn an_acknowledgement_of_a_minority_is_wrong() {
        let words = "acknowledged by one of [1, 2] in netsplit";
        assert_wrong(judge, &story(&[(1, 120)], 150, done(1)), words);
        assert_wrong(judge, &story(&[(3, 90), (2, 110)], 200, done(1)), words);
        assert_wrong(judge, &story(&[(1, 120)], 150, saw_register(7, 1)), words);
    }
}
