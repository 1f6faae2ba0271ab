//! Wing and Gong's search: whether operations of one register can be put in a line in which each
//! one says what a register would have said, without moving one out of its time.
//!
//! Promise: exact within its limit. It goes through the history once and keeps what may be: the
//! register's states together with the open operations that have already happened (Lowe's memo,
//! built just in time, so that memory follows how much goes on at once and not how long it took).
//! An operation without an end may happen at any time after it was asked, or never.
//! Refusals: more possibilities than `CONFIGURATIONS_MAX` at one moment are undecided, never a yes.

use std::collections::HashSet;

/// Possibilities looked at for one answer.
pub(super) const CONFIGURATIONS_MAX: usize = 100_000;

/// A register: nothing and version 0 before the first write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Register {
    pub(super) value: Option<u64>,
    pub(super) version: u64,
}

/// What one operation did, as its answer or the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegisterOperation {
    /// Set the value; the version it made, where that is known.
    Put { value: u64, version: Option<u64> },
    /// Set the value over this version; the version it made, where that is known.
    Cas { value: u64, expected: u64, version: Option<u64> },
    /// Saw this.
    Get(Register),
    /// Was refused, because the version was another one than this.
    Conflict { expected: u64 },
}

impl RegisterOperation {
    /// What the register is after it; nothing where it cannot happen in this state.
    pub(super) fn apply(self, state: Register) -> Option<Register> {
        let next = state.version + 1;
        let makes = |value, told: Option<u64>| {
            told.is_none_or(|told| told == next)
                .then_some(Register { value: Some(value), version: next })
        };
        match self {
            Self::Put { value, version } => makes(value, version),
            Self::Cas { expected, .. } if expected != state.version => None,
            Self::Cas { value, version, .. } => makes(value, version),
            Self::Get(seen) => (seen == state).then_some(state),
            Self::Conflict { expected } => (expected != state.version).then_some(state),
        }
    }

    /// Whether it leaves the register as it is.
    fn is_read(self) -> bool {
        matches!(self, Self::Get(_) | Self::Conflict { .. })
    }

    /// The version it must have been made on or seen, where that is known: past it, it is too late.
    fn latest(self) -> Option<u64> {
        match self {
            Self::Put { version, .. } => version.map(|version| version.saturating_sub(1)),
            Self::Cas { expected, .. } => Some(expected),
            Self::Get(seen) => Some(seen.version),
            Self::Conflict { .. } => None,
        }
    }
}

/// One operation in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimedOperation {
    /// When it was asked for.
    pub(super) from: u64,
    /// When it was answered; nothing where it may happen at any time, or never.
    pub(super) to: Option<u64>,
    /// What it did.
    pub(super) deed: RegisterOperation,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SearchResult {
    /// There is such a line.
    Linearizable,
    /// There is none: no line leads past the end of this operation, from one of these states.
    NotLinearizable { at: usize, states: Vec<Register> },
    /// There were too many possibilities at the end of this operation.
    Undecided { at: usize },
}

/// One way it may have been: the state, and which open operations have happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Configuration {
    state: Register,
    /// In order.
    happened: Vec<usize>,
}

impl Configuration {
    fn has(&self, op: usize) -> bool {
        self.happened.binary_search(&op).is_ok()
    }

    fn with(&self, op: usize, state: Register) -> Self {
        let mut happened = self.happened.clone();
        if let Err(at) = happened.binary_search(&op) {
            happened.insert(at, op);
        }
        Self { state, happened }
    }

    fn without(mut self, op: usize) -> Self {
        if let Ok(at) = self.happened.binary_search(&op) {
            self.happened.remove(at);
        }
        self
    }
}

/// Searches a line for these operations, which begin with a register in this state.
pub(super) fn search(start: Register, spans: &[TimedOperation], most: usize) -> SearchResult {
    // What is asked at the moment another is answered may have happened before that one.
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(spans.len() * 2);
    for (at, span) in spans.iter().enumerate() {
        moments.push((span.from, false, at));
        moments.extend(span.to.map(|to| (to.max(span.from), true, at)));
    }
    moments.sort_unstable();
    let mut ways = HashSet::from([Configuration { state: start, happened: Vec::new() }]);
    let mut open: Vec<usize> = Vec::new();
    for (_, is_end, at) in moments {
        if !is_end {
            open.push(at);
            continue;
        }
        let Some(next) = past(&ways, spans, &open, at, most) else {
            return SearchResult::Undecided { at };
        };
        if next.is_empty() {
            let mut states: Vec<_> = ways.iter().map(|way| way.state).collect();
            states.sort_unstable_by_key(|state| (state.version, state.value));
            states.dedup();
            return SearchResult::NotLinearizable { at, states };
        }
        open.retain(|op| *op != at);
        ways = forget(next, spans, &mut open);
    }
    SearchResult::Linearizable
}

/// All ways in which this operation has happened; nothing where they are too many.
fn past(
    ways: &HashSet<Configuration>,
    spans: &[TimedOperation],
    open: &[usize],
    at: usize,
    most: usize,
) -> Option<HashSet<Configuration>> {
    let latest = spans[at].deed.latest();
    let mut seen: HashSet<Configuration> = HashSet::new();
    let mut next = HashSet::new();
    let mut todo: Vec<Configuration> = ways.iter().cloned().collect();
    while let Some(mut way) = todo.pop() {
        // A read that fits changes nothing: that it has happened excludes nothing else.
        for op in open {
            let deed = spans[*op].deed;
            if deed.is_read() && !way.has(*op) && deed.apply(way.state).is_some() {
                way = way.with(*op, way.state);
            }
        }
        if way.has(at) {
            next.insert(way.without(at));
            continue;
        }
        if latest.is_some_and(|latest| way.state.version > latest) || !seen.insert(way.clone()) {
            continue;
        }
        if seen.len() + next.len() > most {
            return None;
        }
        let writes = open.iter().filter(|op| !spans[**op].deed.is_read() && !way.has(**op));
        todo.extend(writes.filter_map(|op| Some(way.with(*op, spans[*op].deed.apply(way.state)?))));
    }
    Some(next)
}

/// Forgets endless operations that have happened in all ways, or can happen in none any more.
fn forget(
    mut ways: HashSet<Configuration>,
    spans: &[TimedOperation],
    open: &mut Vec<usize>,
) -> HashSet<Configuration> {
    let is_late = |op: usize, way: &Configuration| {
        spans[op].deed.latest().is_some_and(|latest| way.state.version > latest)
    };
    let is_over = |op: usize| {
        let endless = spans[op].to.is_none();
        endless && ways.iter().all(|way| way.has(op) || is_late(op, way))
    };
    let over: Vec<usize> = open.iter().copied().filter(|op| is_over(*op)).collect();
    for op in over {
        open.retain(|other| *other != op);
        ways = ways.into_iter().map(|way| way.without(op)).collect();
    }
    ways
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use super::*;

    fn span(from: u64, to: u64, deed: RegisterOperation) -> TimedOperation {
        TimedOperation { from, to: Some(to), deed }
    }

    fn put(value: u64) -> RegisterOperation {
        RegisterOperation::Put { value, version: None }
    }

    fn get(value: u64, version: u64) -> RegisterOperation {
        RegisterOperation::Get(Register { value: Some(value), version })
    }

    fn is_linear(spans: &[TimedOperation]) -> bool {
        match search(Register::default(), spans, CONFIGURATIONS_MAX) {
            SearchResult::Linearizable => true,
            SearchResult::NotLinearizable { .. } => false,
            SearchResult::Undecided { at } => panic!("undecided at {at}"),
        }
    }

    #[test]
    fn a_read_sees_what_was_acknowledged_before_it() {
        let first = [span(0, 1, put(1)), span(2, 3, put(2))];
        let reads = |deed| [&first[..], &[span(4, 5, deed)]].concat();
        assert!(is_linear(&reads(get(2, 2))));
        assert!(!is_linear(&reads(get(1, 1))), "a stale read");
        assert!(!is_linear(&reads(get(2, 1))), "a version that never was");
        assert!(
            !is_linear(&reads(RegisterOperation::Get(Register::default()))),
            "nothing was there"
        );
    }

    #[test]
    fn writes_at_once_may_come_in_any_order_but_in_one() {
        let writes = [span(0, 9, put(1)), span(0, 9, put(2)), span(0, 9, put(3))];
        let reads = |a, b, c| {
            let reads = [span(1, 2, get(a, 1)), span(3, 4, get(b, 2)), span(5, 6, get(c, 3))];
            [&writes[..], &reads[..]].concat()
        };
        assert!(is_linear(&reads(3, 2, 1)));
        assert!(!is_linear(&reads(3, 2, 3)));
    }

    #[test]
    fn of_two_guarded_writes_over_one_version_one_wins() {
        let cas = |value, version| RegisterOperation::Cas { value, expected: 0, version };
        assert!(is_linear(&[span(0, 9, cas(1, Some(1)))]));
        assert!(!is_linear(&[span(0, 9, cas(1, Some(1))), span(0, 9, cas(2, Some(1)))]));
        assert!(!is_linear(&[span(0, 9, cas(1, Some(2)))]), "the version goes up by one");
        let told = |version| RegisterOperation::Put { value: 1, version: Some(version) };
        assert!(!is_linear(&[span(0, 9, told(1)), span(0, 9, told(1))]));
    }

    #[test]
    fn a_conflict_needs_another_version() {
        let conflict = |expected| RegisterOperation::Conflict { expected };
        assert!(is_linear(&[span(0, 1, put(1)), span(2, 3, conflict(0))]));
        assert!(!is_linear(&[span(0, 1, put(1)), span(2, 3, conflict(1))]));
        assert!(is_linear(&[span(0, 3, put(1)), span(2, 3, conflict(1))]), "it came before it");
    }

    #[test]
    fn what_nobody_knows_may_happen_late_or_never() {
        let maybe = TimedOperation { from: 0, to: None, deed: put(7) };
        assert!(is_linear(&[maybe]));
        assert!(is_linear(&[maybe, span(1, 2, put(1)), span(3, 4, get(1, 1))]), "never");
        assert!(is_linear(&[maybe, span(1, 2, put(1)), span(3, 4, get(7, 2))]), "late");
        assert!(is_linear(&[maybe, span(1, 2, put(1)), span(3, 4, get(1, 2))]), "before");
        let twice = [maybe, span(1, 2, get(7, 1)), span(3, 4, put(1)), span(5, 6, get(7, 3))];
        assert!(!is_linear(&twice), "but not twice");
        let early = TimedOperation { from: 5, ..maybe };
        assert!(!is_linear(&[early, span(1, 2, get(7, 1))]), "nor before it was asked for");
    }

    #[test]
    fn a_history_with_too_many_possibilities_is_not_called_right() {
        let maybe = |value| TimedOperation { from: 0, to: None, deed: put(value) };
        let mut spans: Vec<_> = (0..30).map(maybe).collect();
        spans.push(span(1, 2, put(99)));
        spans.push(span(3, 4, get(99, 20)));
        let answer = search(Register::default(), &spans, 1_000);
        assert!(matches!(answer, SearchResult::Undecided { .. }), "{answer:?}");
    }

    #[test]
    fn ten_thousand_operations_ten_at_once_take_no_time() {
        let mut spans = Vec::new();
        for at in 0..10_000_u64 {
            let deed = match at % 3 {
                0 => get(at, at),
                _ => RegisterOperation::Put { value: at + 1, version: Some(at + 1) },
            };
            let deed = if at == 0 { RegisterOperation::Get(Register::default()) } else { deed };
            spans.push((at, deed));
        }
        // Reads keep the version, so only writes count it up.
        let mut version = 0;
        let mut value = None;
        let spans: Vec<_> = spans
            .into_iter()
            .map(|(at, deed)| {
                let deed = if deed.is_read() {
                    RegisterOperation::Get(Register { value, version })
                } else {
                    version += 1;
                    value = Some(at);
                    let told = (at % 7 != 0).then_some(version);
                    RegisterOperation::Put { value: at, version: told }
                };
                span((at * 10).saturating_sub(45), at * 10 + 45, deed)
            })
            .collect();
        let begun = Instant::now();
        assert!(is_linear(&spans));
        let took = begun.elapsed();
        assert!(took.as_secs() < 20, "{took:?}");
    }

    /// A small deterministic generator: the same seed gives the same histories everywhere.
    pub(in crate::checker) struct Rng(pub(in crate::checker) u64);

    impl Rng {
        /// A number below this.
        pub(in crate::checker) fn below(&mut self, most: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)) % most
        }
    }

    /// A small history: answers of a register that does what it is asked at a moment between
    /// question and answer; now and then one of them lies, or nobody knows what came of it.
    pub(in crate::checker) fn history(dice: &mut Rng) -> Vec<TimedOperation> {
        let count = 2 + dice.below(5);
        let mut asked: Vec<(u64, u64, u64, u64)> = Vec::new();
        for value in 1..=count {
            let from = dice.below(12);
            let starts = from + dice.below(5);
            asked.push((starts, from, starts + dice.below(5), value));
        }
        asked.sort_unstable();
        let mut state = Register::default();
        let mut spans = Vec::new();
        for (_, from, to, value) in asked {
            let deed = match dice.below(4) {
                0 => RegisterOperation::Put { value, version: Some(state.version + 1) },
                1 => RegisterOperation::Put { value, version: None },
                2 => RegisterOperation::Cas {
                    value,
                    expected: state.version,
                    version: Some(state.version + 1).filter(|_| dice.below(2) == 0),
                },
                _ if dice.below(4) == 0 => {
                    RegisterOperation::Conflict { expected: state.version + 1 }
                }
                _ => RegisterOperation::Get(state),
            };
            let is_unknown = !deed.is_read() && dice.below(4) == 0;
            let happens = !is_unknown || dice.below(2) == 0;
            if happens {
                state = deed.apply(state).expect("an honest register does it");
            }
            let told = if is_unknown { forgotten(deed) } else { deed };
            spans.push(TimedOperation {
                from,
                to: (!is_unknown).then_some(to),
                deed: lie(told, dice),
            });
        }
        spans
    }

    fn forgotten(deed: RegisterOperation) -> RegisterOperation {
        match deed {
            RegisterOperation::Put { value, .. } => RegisterOperation::Put { value, version: None },
            RegisterOperation::Cas { value, expected, .. } => {
                RegisterOperation::Cas { value, expected, version: None }
            }
            RegisterOperation::Get(_) | RegisterOperation::Conflict { .. } => deed,
        }
    }

    fn lie(deed: RegisterOperation, dice: &mut Rng) -> RegisterOperation {
        if dice.below(12) != 0 {
            return deed;
        }
        match deed {
            RegisterOperation::Put { value, .. } => {
                RegisterOperation::Put { value, version: Some(1 + dice.below(4)) }
            }
            RegisterOperation::Cas { value, .. } => {
                RegisterOperation::Cas { value, expected: dice.below(4), version: None }
            }
            RegisterOperation::Get(_) => get(1 + dice.below(4), 1 + dice.below(4)),
            RegisterOperation::Conflict { .. } => {
                RegisterOperation::Conflict { expected: dice.below(3) }
            }
        }
    }

    /// Tries every order there is.
    pub(in crate::checker) fn by_all_orders(
        state: Register,
        spans: &[TimedOperation],
        left: u32,
    ) -> bool {
        let has = |at: usize| left & (1 << at) != 0;
        let spans_left = || (0..spans.len()).filter(|at| has(*at));
        if spans_left().all(|at| spans[at].to.is_none()) {
            return true;
        }
        let soonest = spans_left().filter_map(|at| spans[at].to.map(|to| to.max(spans[at].from)));
        let soonest = soonest.min().unwrap_or(u64::MAX);
        spans_left().filter(|at| spans[*at].from <= soonest).any(|at| {
            let after = spans[at].deed.apply(state);
            after.is_some_and(|after| by_all_orders(after, spans, left & !(1 << at)))
        })
    }

    #[test]
    fn it_says_what_trying_all_orders_says() {
        let (mut linear, mut broken) = (0, 0);
        for seed in 0..20_000 {
            let spans = history(&mut Rng(seed));
            let all = by_all_orders(Register::default(), &spans, (1 << spans.len()) - 1);
            assert_eq!(is_linear(&spans), all, "seed {seed}: {spans:#?}");
            *(if all { &mut linear } else { &mut broken }) += 1;
        }
        assert!(linear > 4_000 && broken > 2_000, "{linear} linear, {broken} broken");
    }
}
