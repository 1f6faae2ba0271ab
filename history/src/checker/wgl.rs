//! The linearizability search of Wing and Gong, with Lowe's memoization (WGL), for one register.
//!
//! A history is linearizable if each operation can be given one moment between its invocation and
//! its completion so that, in the order of these moments, each result is what a register returns.
//!
//! Promise: exact within its limit. The search passes through the history once and keeps all
//! possible configurations: the register's state with the pending operations that have taken
//! effect. Its memory depends on the number of concurrent operations, not on the length of the
//! history. An operation without a completion may take effect at any time after its invocation, or
//! never.
//! Refused: a guess. More configurations than the limit are undecided, never linearizable.

use std::collections::HashSet;

/// The most configurations that are explored at one completion.
pub(super) const CONFIGURATIONS_MAX: usize = 100_000;

/// The state of a register: no value and version 0 before the first write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Register {
    pub(super) value: Option<u64>,
    pub(super) version: u64,
}

/// An operation with its result, as the response or the log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegisterOperation {
    /// Set the value, and made this version, where that is known.
    Put { value: u64, version: Option<u64> },
    /// Set the value on the expected version, and made this version, where that is known.
    Cas { value: u64, expected: u64, version: Option<u64> },
    /// Read this state.
    Get(Register),
    /// Was refused, because the version was not the expected one.
    Conflict { expected: u64 },
}

impl RegisterOperation {
    /// The state after the operation; `None` if it cannot have this result in this state.
    pub(super) fn apply(self, state: Register) -> Option<Register> {
        let next = state.version + 1;
        let write = |value, version: Option<u64>| {
            version
                .is_none_or(|version| version == next)
                .then_some(Register { value: Some(value), version: next })
        };
        match self {
            Self::Put { value, version } => write(value, version),
            Self::Cas { expected, .. } if expected != state.version => None,
            Self::Cas { value, version, .. } => write(value, version),
            Self::Get(read) => (read == state).then_some(state),
            Self::Conflict { expected } => (expected != state.version).then_some(state),
        }
    }

    /// Whether it leaves the state unchanged.
    fn is_read(self) -> bool {
        matches!(self, Self::Get(_) | Self::Conflict { .. })
    }

    /// The highest version on which it can take effect, where that is known. Versions only grow:
    /// once the register has a higher one, the operation cannot take effect any more.
    fn latest_version(self) -> Option<u64> {
        match self {
            Self::Put { version, .. } => version.map(|version| version.saturating_sub(1)),
            Self::Cas { expected, .. } => Some(expected),
            Self::Get(read) => Some(read.version),
            Self::Conflict { .. } => None,
        }
    }
}

/// An operation with the times between which it took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimedOperation {
    /// The time of its invocation.
    pub(super) invoked: u64,
    /// The time of its completion; `None` if it may take effect at any later time, or never.
    pub(super) completed: Option<u64>,
    /// The operation with its result.
    pub(super) operation: RegisterOperation,
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SearchResult {
    /// The history is linearizable.
    Linearizable,
    /// It is not: from none of these states, which are all possible ones before it, this operation
    /// can have completed.
    NotLinearizable { at: usize, states: Vec<Register> },
    /// There were too many configurations at the completion of this operation.
    Undecided { at: usize },
}

/// A configuration: a possible state, and the pending operations that have taken effect in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Configuration {
    state: Register,
    /// Sorted, so that equal sets are equal configurations.
    linearized: Vec<usize>,
}

impl Configuration {
    fn has_linearized(&self, op: usize) -> bool {
        self.linearized.binary_search(&op).is_ok()
    }

    fn with(&self, op: usize, state: Register) -> Self {
        let mut linearized = self.linearized.clone();
        if let Err(at) = linearized.binary_search(&op) {
            linearized.insert(at, op);
        }
        Self { state, linearized }
    }

    fn without(mut self, op: usize) -> Self {
        if let Ok(at) = self.linearized.binary_search(&op) {
            self.linearized.remove(at);
        }
        self
    }
}

/// Searches a linearization of a history that starts in this state, with at most `limit`
/// configurations at one completion.
pub(super) fn search(initial: Register, history: &[TimedOperation], limit: usize) -> SearchResult {
    // `false` sorts first: an operation that is invoked when another one completes is concurrent to
    // it.
    let mut boundaries: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
    for (at, timed) in history.iter().enumerate() {
        boundaries.push((timed.invoked, false, at));
        boundaries.extend(timed.completed.map(|to| (to.max(timed.invoked), true, at)));
    }
    boundaries.sort_unstable();
    let mut configurations =
        HashSet::from([Configuration { state: initial, linearized: Vec::new() }]);
    let mut open: Vec<usize> = Vec::new();
    for (_, is_end, at) in boundaries {
        // An invocation restricts nothing: the operation may take effect from now on. Only at its
        // completion it must have taken effect.
        if !is_end {
            open.push(at);
            continue;
        }
        let Some(next) = linearize_at_completion(&configurations, history, &open, at, limit) else {
            return SearchResult::Undecided { at };
        };
        if next.is_empty() {
            let mut states: Vec<_> =
                configurations.iter().map(|configuration| configuration.state).collect();
            states.sort_unstable_by_key(|state| (state.version, state.value));
            states.dedup();
            return SearchResult::NotLinearizable { at, states };
        }
        open.retain(|op| *op != at);
        // Otherwise pending unknown operations would multiply the configurations each time.
        configurations = drop_settled(next, history, &mut open);
    }
    SearchResult::Linearizable
}

/// All configurations in which this operation has taken effect; `None` if there are too many.
fn linearize_at_completion(
    configurations: &HashSet<Configuration>,
    history: &[TimedOperation],
    open: &[usize],
    at: usize,
    limit: usize,
) -> Option<HashSet<Configuration>> {
    let latest_version = history[at].operation.latest_version();
    let mut seen: HashSet<Configuration> = HashSet::new();
    let mut next = HashSet::new();
    let mut unexplored: Vec<Configuration> = configurations.iter().cloned().collect();
    while let Some(mut configuration) = unexplored.pop() {
        // A read whose result fits takes effect at once: it changes no state, so that an earlier
        // moment excludes no other linearization.
        for op in open {
            let operation = history[*op].operation;
            if operation.is_read()
                && !configuration.has_linearized(*op)
                && operation.apply(configuration.state).is_some()
            {
                configuration = configuration.with(*op, configuration.state);
            }
        }
        if configuration.has_linearized(at) {
            next.insert(configuration.without(at));
            continue;
        }
        // Two prunings: the operation is too late in this state, or the configuration was explored.
        if latest_version.is_some_and(|latest_version| configuration.state.version > latest_version)
            || !seen.insert(configuration.clone())
        {
            continue;
        }
        if seen.len() + next.len() > limit {
            return None;
        }
        // Any pending write may take effect before this operation: each one makes a new
        // configuration.
        let writes = open
            .iter()
            .filter(|op| !history[**op].operation.is_read() && !configuration.has_linearized(**op));
        unexplored.extend(writes.filter_map(|op| {
            Some(configuration.with(*op, history[*op].operation.apply(configuration.state)?))
        }));
    }
    Some(next)
}

/// Drops pending operations without a completion that have taken effect in all configurations, or
/// can take effect in none any more. Without it their number would grow over the whole history.
fn drop_settled(
    mut configurations: HashSet<Configuration>,
    history: &[TimedOperation],
    open: &mut Vec<usize>,
) -> HashSet<Configuration> {
    let is_too_late = |op: usize, configuration: &Configuration| {
        history[op]
            .operation
            .latest_version()
            .is_some_and(|latest_version| configuration.state.version > latest_version)
    };
    let is_settled = |op: usize| {
        let never_completed = history[op].completed.is_none();
        never_completed
            && configurations.iter().all(|configuration| {
                configuration.has_linearized(op) || is_too_late(op, configuration)
            })
    };
    let settled: Vec<usize> = open.iter().copied().filter(|op| is_settled(*op)).collect();
    for op in settled {
        open.retain(|other| *other != op);
        configurations =
            configurations.into_iter().map(|configuration| configuration.without(op)).collect();
    }
    configurations
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use super::*;

    fn timed(invoked: u64, completed: u64, operation: RegisterOperation) -> TimedOperation {
        TimedOperation { invoked, completed: Some(completed), operation }
    }

    fn put(value: u64) -> RegisterOperation {
        RegisterOperation::Put { value, version: None }
    }

    fn get(value: u64, version: u64) -> RegisterOperation {
        RegisterOperation::Get(Register { value: Some(value), version })
    }

    fn is_linearizable(history: &[TimedOperation]) -> bool {
        match search(Register::default(), history, CONFIGURATIONS_MAX) {
            SearchResult::Linearizable => true,
            SearchResult::NotLinearizable { .. } => false,
            SearchResult::Undecided { at } => panic!("undecided at {at}"),
        }
    }

    #[test]
    fn a_read_sees_what_was_acknowledged_before_it() {
        let first = [timed(0, 1, put(1)), timed(2, 3, put(2))];
        let reads = |operation| [&first[..], &[timed(4, 5, operation)]].concat();
        assert!(is_linearizable(&reads(get(2, 2))));
        assert!(!is_linearizable(&reads(get(1, 1))), "a stale read");
        assert!(!is_linearizable(&reads(get(2, 1))), "a version that never was");
        assert!(
            !is_linearizable(&reads(RegisterOperation::Get(Register::default()))),
            "nothing was there"
        );
    }

    #[test]
    fn concurrent_writes_have_any_single_order() {
        let writes = [timed(0, 9, put(1)), timed(0, 9, put(2)), timed(0, 9, put(3))];
        let reads = |a, b, c| {
            let reads = [timed(1, 2, get(a, 1)), timed(3, 4, get(b, 2)), timed(5, 6, get(c, 3))];
            [&writes[..], &reads[..]].concat()
        };
        assert!(is_linearizable(&reads(3, 2, 1)));
        assert!(!is_linearizable(&reads(3, 2, 3)));
    }

    #[test]
    fn of_two_cas_over_one_version_only_one_succeeds() {
        let cas = |value, version| RegisterOperation::Cas { value, expected: 0, version };
        assert!(is_linearizable(&[timed(0, 9, cas(1, Some(1)))]));
        assert!(!is_linearizable(&[timed(0, 9, cas(1, Some(1))), timed(0, 9, cas(2, Some(1)))]));
        assert!(!is_linearizable(&[timed(0, 9, cas(1, Some(2)))]), "the version goes up by one");
        let version = |version| RegisterOperation::Put { value: 1, version: Some(version) };
        assert!(!is_linearizable(&[timed(0, 9, version(1)), timed(0, 9, version(1))]));
    }

    #[test]
    fn a_conflict_needs_another_version() {
        let conflict = |expected| RegisterOperation::Conflict { expected };
        assert!(is_linearizable(&[timed(0, 1, put(1)), timed(2, 3, conflict(0))]));
        assert!(!is_linearizable(&[timed(0, 1, put(1)), timed(2, 3, conflict(1))]));
        assert!(
            is_linearizable(&[timed(0, 3, put(1)), timed(2, 3, conflict(1))]),
            "it came before it"
        );
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never() {
        let unknown = TimedOperation { invoked: 0, completed: None, operation: put(7) };
        assert!(is_linearizable(&[unknown]));
        assert!(is_linearizable(&[unknown, timed(1, 2, put(1)), timed(3, 4, get(1, 1))]), "never");
        assert!(is_linearizable(&[unknown, timed(1, 2, put(1)), timed(3, 4, get(7, 2))]), "late");
        assert!(is_linearizable(&[unknown, timed(1, 2, put(1)), timed(3, 4, get(1, 2))]), "before");
        let twice = [unknown, timed(1, 2, get(7, 1)), timed(3, 4, put(1)), timed(5, 6, get(7, 3))];
        assert!(!is_linearizable(&twice), "but not twice");
        let early = TimedOperation { invoked: 5, ..unknown };
        assert!(!is_linearizable(&[early, timed(1, 2, get(7, 1))]), "nor before it was asked for");
    }

    #[test]
    fn too_many_configurations_are_undecided() {
        let unknown = |value| TimedOperation { invoked: 0, completed: None, operation: put(value) };
        let mut history: Vec<_> = (0..30).map(unknown).collect();
        history.push(timed(1, 2, put(99)));
        history.push(timed(3, 4, get(99, 20)));
        let result = search(Register::default(), &history, 1_000);
        assert!(matches!(result, SearchResult::Undecided { .. }), "{result:?}");
    }

    #[test]
    fn ten_thousand_operations_are_searched_in_seconds() {
        let mut history = Vec::new();
        for at in 0..10_000_u64 {
            let operation = match at % 3 {
                0 => get(at, at),
                _ => RegisterOperation::Put { value: at + 1, version: Some(at + 1) },
            };
            let operation =
                if at == 0 { RegisterOperation::Get(Register::default()) } else { operation };
            history.push((at, operation));
        }
        // Only writes advance the version.
        let mut version = 0;
        let mut value = None;
        let history: Vec<_> = history
            .into_iter()
            .map(|(at, operation)| {
                let operation = if operation.is_read() {
                    RegisterOperation::Get(Register { value, version })
                } else {
                    version += 1;
                    value = Some(at);
                    let version = (at % 7 != 0).then_some(version);
                    RegisterOperation::Put { value: at, version }
                };
                timed((at * 10).saturating_sub(45), at * 10 + 45, operation)
            })
            .collect();
        let started = Instant::now();
        assert!(is_linearizable(&history));
        let took = started.elapsed();
        assert!(took.as_secs() < 20, "{took:?}");
    }

    /// A small deterministic generator: the same seed gives the same histories everywhere.
    pub(in crate::checker) struct TestRng(pub(in crate::checker) u64);

    impl TestRng {
        /// A number below this.
        pub(in crate::checker) fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)) % limit
        }
    }

    /// A small random history of a correct register. Some results are unknown, and some are
    /// corrupted.
    pub(in crate::checker) fn random_history(rng: &mut TestRng) -> Vec<TimedOperation> {
        let count = 2 + rng.below(5);
        let mut planned: Vec<(u64, u64, u64, u64)> = Vec::new();
        for value in 1..=count {
            let from = rng.below(12);
            let starts = from + rng.below(5);
            planned.push((starts, from, starts + rng.below(5), value));
        }
        planned.sort_unstable();
        let mut state = Register::default();
        let mut history = Vec::new();
        for (_, from, to, value) in planned {
            let operation = match rng.below(4) {
                0 => RegisterOperation::Put { value, version: Some(state.version + 1) },
                1 => RegisterOperation::Put { value, version: None },
                2 => RegisterOperation::Cas {
                    value,
                    expected: state.version,
                    version: Some(state.version + 1).filter(|_| rng.below(2) == 0),
                },
                _ if rng.below(4) == 0 => {
                    RegisterOperation::Conflict { expected: state.version + 1 }
                }
                _ => RegisterOperation::Get(state),
            };
            let is_unknown = !operation.is_read() && rng.below(4) == 0;
            let happens = !is_unknown || rng.below(2) == 0;
            if happens {
                state = operation.apply(state).expect("a correct register applies it");
            }
            let version = if is_unknown { without_version(operation) } else { operation };
            history.push(TimedOperation {
                invoked: from,
                completed: (!is_unknown).then_some(to),
                operation: corrupt(version, rng),
            });
        }
        history
    }

    fn without_version(operation: RegisterOperation) -> RegisterOperation {
        match operation {
            RegisterOperation::Put { value, .. } => RegisterOperation::Put { value, version: None },
            RegisterOperation::Cas { value, expected, .. } => {
                RegisterOperation::Cas { value, expected, version: None }
            }
            RegisterOperation::Get(_) | RegisterOperation::Conflict { .. } => operation,
        }
    }

    fn corrupt(operation: RegisterOperation, rng: &mut TestRng) -> RegisterOperation {
        if rng.below(12) != 0 {
            return operation;
        }
        match operation {
            RegisterOperation::Put { value, .. } => {
                RegisterOperation::Put { value, version: Some(1 + rng.below(4)) }
            }
            RegisterOperation::Cas { value, .. } => {
                RegisterOperation::Cas { value, expected: rng.below(4), version: None }
            }
            RegisterOperation::Get(_) => get(1 + rng.below(4), 1 + rng.below(4)),
            RegisterOperation::Conflict { .. } => {
                RegisterOperation::Conflict { expected: rng.below(3) }
            }
        }
    }

    /// Whether any order of the remaining operations is a linearization.
    pub(in crate::checker) fn is_linearizable_by_all_orders(
        state: Register,
        history: &[TimedOperation],
        remaining: u32,
    ) -> bool {
        let has_linearized = |at: usize| remaining & (1 << at) != 0;
        let spans_left = || (0..history.len()).filter(|at| has_linearized(*at));
        if spans_left().all(|at| history[at].completed.is_none()) {
            return true;
        }
        let soonest = spans_left()
            .filter_map(|at| history[at].completed.map(|to| to.max(history[at].invoked)));
        let soonest = soonest.min().unwrap_or(u64::MAX);
        spans_left().filter(|at| history[*at].invoked <= soonest).any(|at| {
            let after = history[at].operation.apply(state);
            after.is_some_and(|after| {
                is_linearizable_by_all_orders(after, history, remaining & !(1 << at))
            })
        })
    }

    #[test]
    fn the_search_agrees_with_trying_all_orders() {
        let (mut linear, mut broken) = (0, 0);
        for seed in 0..20_000 {
            let history = random_history(&mut TestRng(seed));
            let all = is_linearizable_by_all_orders(
                Register::default(),
                &history,
                (1 << history.len()) - 1,
            );
            assert_eq!(is_linearizable(&history), all, "seed {seed}: {history:#?}");
            *(if all { &mut linear } else { &mut broken }) += 1;
        }
        assert!(linear > 4_000 && broken > 2_000, "{linear} linear, {broken} broken");
    }
}
