//! Answers agree: an operation that is sent more than once gets one answer.
//!
//! Promise: every attempt whose own answer was recorded is compared with the operation's
//! completion. An attempt without a clear answer says nothing.

use super::Verdict;
use super::history_index::describe;
use crate::{Completion, History, Operation, Response, ReturnValue};

/// Checks `answers-agree`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "An operation that is sent again gets the answer that it got before.";
    let mut verdict = Verdict::new("answers-agree", promise);
    for op in &history.operations {
        for attempt in &op.attempts {
            let Some(completion) = &attempt.completion else { continue };
            if !matches!(completion, Completion::Info { .. }) {
                verdict.record(violation(op, completion));
            }
        }
    }
    verdict
}

/// How a clear answer of one attempt contradicts the operation's completion.
fn violation(op: &Operation, answer: &Completion) -> Option<String> {
    let agree = match (&op.completion, answer) {
        (Completion::Ok(one), Completion::Ok(other)) => are_equal(one, other),
        // Info too: an attempt with a clear answer completes its operation.
        (completion, answer) => completion == answer,
    };
    (!agree).then(|| {
        format!("{}: an attempt got {answer:?}, the operation {:?}", describe(op), op.completion)
    })
}

/// Whether two acknowledgements are the same. An answer over a socket may show less of the record
/// than one over REST: what only one of them shows is not compared.
fn are_equal(one: &Response, other: &Response) -> bool {
    let version_unknown = one.version.is_none() || other.version.is_none();
    let value_unknown = [one, other].iter().any(|it| it.return_value == ReturnValue::Nothing);
    one.cursor == other.cursor
        && (version_unknown || one.version == other.version)
        && (value_unknown || one.return_value == other.return_value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::{Attempt, MonotonicTime};

    fn history_with(answers: Vec<Option<Completion>>, completion: Completion) -> History {
        let mut sent = operation("a", put(7), 0, 5, completion);
        let attempt = |completion| Attempt { node: 1, at: MonotonicTime(0), completion };
        sent.attempts = answers.into_iter().map(attempt).collect();
        history_of(vec![sent], vec![])
    }

    #[test]
    fn equal_and_unclear_answers_hold() {
        assert_holds(check, &history_with(vec![Some(info()), Some(ok(1)), Some(ok(1))], ok(1)), 2);
        assert_holds(check, &history_with(vec![Some(fail()), Some(info())], fail()), 1);
        assert_holds(check, &history_with(vec![None, Some(info())], info()), 0);
    }

    #[test]
    fn two_clear_answers_that_differ_are_a_violation() {
        for (second, first) in [(ok(2), ok(1)), (fail(), ok(1)), (ok(1), fail()), (ok(1), info())] {
            let history = history_with(vec![Some(second)], first);
            assert_violation(check, &history, "an attempt got");
        }
        let version = history_with(vec![Some(ok_with_version(1, 2))], ok_with_version(1, 1));
        assert_violation(check, &version, "an attempt got");
    }
}
