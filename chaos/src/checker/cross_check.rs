//! Second opinion: another checker, made by others, is asked the same questions about registers.
//!
//! Promise: both say the same of every window; where they do not, one of the two is wrong and the
//! run says so. A register's history is cut into windows where nothing is open and the log tells
//! what the register then was, so that no window depends on what our own search found before it.
//! Refusals: a window with more than [`WINDOW_MAX`] operations is passed over and not counted.

use std::iter::once;

use todc_utils::{Action, History as WglHistory, Specification, WGLChecker};

use super::Verdict;
use super::registers::histories;
use super::wgl::{
    CONFIGURATIONS_MAX, Register, RegisterOperation, SearchResult, TimedOperation, search,
};
use crate::history::History;

/// Most operations of a window: the other checker's time grows with the square of it.
const WINDOW_MAX: usize = 400;
/// A window is closed at the first chance after so many operations.
const WINDOW_TARGET: usize = 60;

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    compare(evidence, by_the_other)
}

fn compare(evidence: &History, other: fn(&Window) -> bool) -> Verdict {
    let promise = "Two checkers, made apart, say the same of every register.";
    let mut verdict = Verdict::new("linearizable-second-opinion", promise);
    for ((place, key), history) in histories(evidence) {
        let whole = search(history.start, &history.spans, CONFIGURATIONS_MAX);
        let mut apart = true;
        let mut all_seen = true;
        for window in windows(history.start, &history.spans) {
            if window.spans.len() > WINDOW_MAX {
                all_seen = false;
                continue;
            }
            let ours = search(window.start, &window.spans, CONFIGURATIONS_MAX);
            if matches!(ours, SearchResult::Undecided { .. }) {
                all_seen = false;
                continue;
            }
            let theirs = other(&window);
            apart &= theirs;
            let agree = theirs == (ours == SearchResult::Linearizable);
            verdict.check((!agree).then(|| {
                let place = place.name();
                format!("{place} {key}: ours says {ours:?}, the other {theirs}: {window:?}")
            }));
        }
        // Windows in a row are the whole: a break in it must show in one of them.
        if all_seen && apart && matches!(whole, SearchResult::NotLinearizable { .. }) {
            let place = place.name();
            verdict.check(Some(format!("{place} {key}: {whole:?}, but every window is right")));
        }
    }
    verdict
}

/// A piece of a history with nothing open at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    start: Register,
    spans: Vec<TimedOperation>,
}

/// Cuts a history where nothing is open and what the register is then is known.
fn windows(start: Register, spans: &[TimedOperation]) -> Vec<Window> {
    let mut spans = ended(spans);
    spans.sort_by_key(|span| (span.from, span.to.unwrap_or(u64::MAX)));
    let mut cut = Vec::new();
    let mut now = start;
    let mut is_known = true;
    let mut until = 0;
    let mut window = Window { start, spans: Vec::new() };
    for span in spans {
        if window.spans.len() >= WINDOW_TARGET && until < span.from && is_known {
            let next = Window { start: now, spans: Vec::new() };
            cut.push(std::mem::replace(&mut window, next));
        }
        until = until.max(span.to.unwrap_or(u64::MAX));
        if let Some((value, made)) = write(span.deed) {
            is_known &= made.is_some();
            if let Some(version) = made.filter(|version| *version > now.version) {
                now = Register { value: Some(value), version };
            }
        }
        window.spans.push(span);
    }
    if !window.spans.is_empty() {
        cut.push(window);
    }
    cut
}

/// What a deed writes, and the version it makes where that is known.
fn write(deed: RegisterOperation) -> Option<(u64, Option<u64>)> {
    match deed {
        RegisterOperation::Put { value, version }
        | RegisterOperation::Cas { value, version, .. } => Some((value, version)),
        RegisterOperation::Get(_) | RegisterOperation::Conflict { .. } => None,
    }
}

/// Ends what has no end where something that must come after it has ended.
fn ended(spans: &[TimedOperation]) -> Vec<TimedOperation> {
    let mut shown: Vec<(u64, u64)> = spans.iter().filter_map(shows).collect();
    // By version; for each, the soonest end of all that need at least this version.
    shown.sort_unstable();
    let mut soonest = u64::MAX;
    for (_, to) in shown.iter_mut().rev() {
        soonest = soonest.min(*to);
        *to = soonest;
    }
    let end_of = |version: u64| {
        let at = shown.partition_point(|(needs, _)| *needs < version);
        shown.get(at).map(|(_, to)| *to)
    };
    let end = |span: &TimedOperation| {
        let version = write(span.deed).and_then(|(_, version)| version);
        let to = span.to.or_else(|| end_of(version?).filter(|to| *to >= span.from));
        TimedOperation { to, ..*span }
    };
    spans.iter().map(end).collect()
}

/// The version an ended operation needs to be there before it, and its end.
fn shows(span: &TimedOperation) -> Option<(u64, u64)> {
    let needs = match span.deed {
        RegisterOperation::Put { version, .. } => version?.saturating_sub(1),
        RegisterOperation::Cas { expected, .. } => expected,
        RegisterOperation::Get(seen) => seen.version,
        RegisterOperation::Conflict { .. } => return None,
    };
    Some((needs, span.to?))
}

/// What the other checker is told.
#[derive(Debug, Clone)]
enum CheckerInput {
    /// The register begins like this.
    Initial(Register),
    /// This happened.
    Certain(RegisterOperation),
    /// This may have happened: where it cannot, it changes nothing.
    Possible(RegisterOperation),
}

/// A register as the other checker knows it.
struct RegisterSpecification;

impl Specification for RegisterSpecification {
    type State = Register;
    type Operation = CheckerInput;

    fn init() -> Register {
        Register::default()
    }

    fn apply(said: &CheckerInput, state: &Register) -> (bool, Register) {
        match said {
            CheckerInput::Initial(register) => (true, *register),
            CheckerInput::Certain(deed) => match deed.apply(*state) {
                Some(next) => (true, next),
                None => (false, *state),
            },
            CheckerInput::Possible(deed) => (true, deed.apply(*state).unwrap_or(*state)),
        }
    }
}

/// Asks the other checker. What has no end ends last of all: after everything else nobody sees
/// whether it happened.
fn by_the_other(window: &Window) -> bool {
    let spans = &window.spans;
    let said = |span: &TimedOperation| match span.to {
        Some(_) => CheckerInput::Certain(span.deed),
        None => CheckerInput::Possible(span.deed),
    };
    // Questions come before answers of the same moment.
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(spans.len() * 2);
    for (at, span) in spans.iter().enumerate() {
        moments.push((span.from, false, at));
        moments.push((span.to.map_or(u64::MAX, |to| to.max(span.from)), true, at));
    }
    moments.sort_unstable();
    let begin = CheckerInput::Initial(window.start);
    let actions = once((0, Action::Call(begin.clone())))
        .chain(once((0, Action::Response(begin))))
        .chain(moments.into_iter().map(|(_, is_end, at)| {
            let said = said(&spans[at]);
            (at + 1, if is_end { Action::Response(said) } else { Action::Call(said) })
        }));
    WGLChecker::<RegisterSpecification>::is_linearizable(WglHistory::from_actions(
        actions.collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::checker::wgl::tests::{Rng, by_all_orders, history};

    #[test]
    fn both_say_the_same_of_right_and_of_wrong_histories() {
        let right = vec![
            op("a", put(7), 0, 5, done_as(1, 1)),
            op("b", get(), 7, 8, saw_register(7, 1)),
            op("c", put(9), 7, 8, unknown()),
        ];
        assert_holds(judge, &evidence(right, vec![written(1, "a", 7, 1)]), 1);
        let wrong = vec![op("b", get(), 7, 8, saw_register(7, 1))];
        assert_holds(judge, &evidence(wrong, vec![]), 1);
    }

    #[test]
    fn where_they_differ_one_of_them_is_wrong() {
        let right = vec![op("b", get(), 7, 8, saw(crate::history::ReturnValue::Register(None)))];
        let strict: fn(&History) -> Verdict = |evidence| compare(evidence, |_| false);
        assert_wrong(strict, &evidence(right, vec![]), "the other false");
        let stale = vec![op("b", get(), 7, 8, saw_register(7, 1))];
        let blind: fn(&History) -> Verdict = |evidence| compare(evidence, |_| true);
        let verdict = blind(&evidence(stale, vec![]));
        assert_eq!(verdict.violations, 2, "{verdict:#?}");
        assert!(verdict.shown[0].contains("the other true"), "{verdict:#?}");
        assert!(verdict.shown[1].contains("every window is right"), "{verdict:#?}");
    }

    #[test]
    fn the_other_says_what_trying_all_orders_says() {
        for seed in 0..5_000 {
            let spans = history(&mut Rng(seed));
            let all = by_all_orders(Register::default(), &spans, (1 << spans.len()) - 1);
            let window = Window { start: Register::default(), spans };
            assert_eq!(by_the_other(&window), all, "seed {seed}: {window:#?}");
        }
    }

    fn long(count: u64) -> Vec<TimedOperation> {
        let put = |at| RegisterOperation::Put { value: at, version: Some(at) };
        (1..=count)
            .map(|at| TimedOperation { from: at * 10, to: Some(at * 10 + 4), deed: put(at) })
            .collect()
    }

    #[test]
    fn a_long_history_is_cut_where_nothing_is_open() {
        let mut spans = long(300);
        let cut = windows(Register::default(), &spans);
        assert_eq!(cut.len(), 5);
        assert_eq!(cut[1].start, Register { value: Some(60), version: 60 });
        assert!(cut.iter().all(by_the_other));
        // A read of the second window that is older than its beginning.
        let stale = RegisterOperation::Get(Register { value: Some(10), version: 10 });
        spans.push(TimedOperation { from: 905, to: Some(909), deed: stale });
        let told: Vec<bool> =
            windows(Register::default(), &spans).iter().map(by_the_other).collect();
        assert_eq!(told, [true, false, true, true, true, true]);
    }

    #[test]
    fn what_nobody_knows_ends_where_it_must_have_happened() {
        let mut spans = long(200);
        spans[20].to = None;
        assert_eq!(windows(Register::default(), &spans).len(), 4);
        assert_eq!(ended(&spans)[20].to, Some(224));
        // Without its version it may come at any time: there is no place to cut after it.
        spans[20].deed = RegisterOperation::Put { value: 21, version: None };
        assert_eq!(windows(Register::default(), &spans).len(), 1);
    }

    #[test]
    fn a_window_that_is_too_long_is_not_counted() {
        let put = |at: u64| {
            let id = format!("p{at}");
            op(&id, put(at), at, 10_000, done_as(at, at))
        };
        let ops: Vec<_> = (1..=450).map(put).collect();
        let log = (1..=450).map(|at| written(at, &format!("p{at}"), at, at)).collect();
        assert_holds(judge, &evidence(ops, log), 0);
    }
}
