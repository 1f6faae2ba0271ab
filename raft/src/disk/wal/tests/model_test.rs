//! Model test: after any operations in any order, the log agrees with a simple model.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;

use super::*;
use crate::disk::testing::Rng;

/// The expected log of one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ExpectedGroup {
    vote: Option<Bytes>,
    purged: Option<u64>,
    entries: BTreeMap<u64, (u64, Bytes)>,
}

type Model = BTreeMap<GroupKey, ExpectedGroup>;

#[derive(Debug, Clone)]
enum Step {
    /// Submissions that are in flight together: group, operation, amount.
    Submit(Vec<(u16, OpKind, u64)>),
    Reopen,
    /// The same, but the disk fails meanwhile; then power is lost, and the seed decides which
    /// unsynced sectors are kept.
    Crash(Vec<(u16, OpKind, u64)>, u64),
    /// The disk becomes full, or has space again.
    Full(bool),
}

#[derive(Debug, Clone, Copy)]
enum OpKind {
    Append,
    Vote,
    Truncate,
    Purge,
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        8 => Just(OpKind::Append),
        2 => Just(OpKind::Vote),
        2 => Just(OpKind::Truncate),
        3 => Just(OpKind::Purge),
        1 => Just(OpKind::Forget),
    ];
    let one = (0u16..4, kind, 0u64..12);
    let some = prop::collection::vec(one, 1..8).boxed();
    let step = prop_oneof![
        12 => some.clone().prop_map(Step::Submit),
        2 => Just(Step::Reopen),
        1 => (some, any::<u64>()).prop_map(|(ops, seed)| Step::Crash(ops, seed)),
        1 => any::<bool>().prop_map(Step::Full),
    ];
    prop::collection::vec(step, 1..60)
}

fn key(group: u16) -> GroupKey {
    GroupKey { group, replica: 1 }
}

/// An operation that is valid now; the model is updated.
fn next(model: &mut Model, group: u16, kind: OpKind, amount: u64, salt: u64) -> LogOp {
    let group = key(group);
    let expected = model.entry(group).or_default();
    let last = expected.entries.keys().next_back().copied().or(expected.purged);
    match kind {
        OpKind::Append => {
            let from = last.map_or(amount, |last| last + 1);
            let of =
                |index| (index, salt, Bytes::from(vec![salt as u8; (index * 7 % 90) as usize]));
            let entries: Vec<_> = (from..=from + amount).map(of).collect();
            expected.entries.extend(entries.iter().map(|(i, term, b)| (*i, (*term, b.clone()))));
            LogOp::Append { group, entries }
        }
        OpKind::Vote => {
            let vote = Bytes::from(format!("{salt}"));
            expected.vote = Some(vote.clone());
            LogOp::Vote { group, vote }
        }
        OpKind::Truncate => {
            let after = last.filter(|last| *last >= amount).map(|last| last - amount);
            expected.entries.retain(|index, _| after.is_some_and(|after| *index <= after));
            LogOp::TruncateAfter { group, after }
        }
        OpKind::Purge => {
            let first = expected.entries.keys().next().map(|first| first + amount);
            let index = first.or(last).unwrap_or(0);
            expected.purged = Some(expected.purged.map_or(index, |purged| purged.max(index)));
            expected.entries.retain(|at, _| *at > index);
            purge(group, index)
        }
        OpKind::Forget => {
            model.remove(&group);
            LogOp::Forget { group }
        }
    }
}

/// The state of the log, as a model.
fn read_model(wal: &Wal) -> Model {
    let mut model = Model::new();
    for group in (0..4).map(key) {
        let state = wal.state(group);
        let read = wal.read(group, 0..u64::MAX, usize::MAX).unwrap();
        let entries: BTreeMap<_, _> =
            read.into_iter().map(|entry| (entry.index, (entry.term, entry.bytes))).collect();
        assert_eq!(state.first, entries.keys().next().copied());
        let purged = state.purged.map(|(index, _)| index);
        model.insert(group, ExpectedGroup { vote: state.vote, purged, entries });
    }
    without_empty_groups(model)
}

/// Without the replicas that hold nothing: for the log they do not exist.
fn without_empty_groups(mut model: Model) -> Model {
    model.retain(|_, group| *group != ExpectedGroup::default());
    model
}

struct ModelRun {
    fixture: Fixture,
    wal: Option<Wal>,
    model: Model,
    salt: u64,
}

impl ModelRun {
    fn wal(&self) -> &Wal {
        self.wal.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.wal = None;
        self.wal = Some(self.fixture.open().0);
    }

    fn submit(&mut self, ops: Vec<(u16, OpKind, u64)>) -> (Vec<Model>, Vec<bool>) {
        let mut after = vec![self.model.clone()];
        let mut waiting = Vec::new();
        for (group, kind, amount) in ops {
            self.salt += 1;
            let op = next(&mut self.model, group, kind, amount, self.salt);
            waiting.push(submit(self.wal(), vec![op]));
            after.push(self.model.clone());
        }
        let written = waiting.into_iter().map(|result| result.recv().unwrap().is_ok()).collect();
        (after, written)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit(ops) if self.fixture.device.full.load(SeqCst) => {
                // One by one, and appends only: those are undone as a whole when they are rejected.
                for (group, _, amount) in ops {
                    let before = self.model.clone();
                    let (_, written) = self.submit(vec![(group, OpKind::Append, amount)]);
                    if !written[0] {
                        self.model = before;
                    }
                }
            }
            Step::Submit(ops) => {
                let (_, written) = self.submit(ops);
                assert!(written.iter().all(|written| *written), "{written:?}");
            }
            Step::Reopen => {
                self.fixture.device.full.store(false, SeqCst);
                self.reopen();
            }
            Step::Crash(ops, seed) => {
                self.fixture.device.full.store(false, SeqCst);
                self.reopen();
                self.fixture.device.sync_fails.store(true, SeqCst);
                let (after, _) = self.submit(ops);
                self.wal = None;
                self.fixture.device.power_cut(Some(&mut Rng(seed)));
                self.fixture.device.sync_fails.store(false, SeqCst);
                self.reopen();
                self.model = read_model(self.wal());
                let expected = after.into_iter().map(without_empty_groups);
                assert!(expected.into_iter().any(|model| model == self.model), "{:?}", self.model);
            }
            Step::Full(full) => {
                self.fixture.device.full.store(full, SeqCst);
                if !full {
                    self.reopen();
                }
            }
        }
        assert_eq!(read_model(self.wal()), without_empty_groups(self.model.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn disk_log_matches_a_simple_model(steps in steps()) {
        let fixture = Fixture::new();
        let wal = Some(fixture.open().0);
        let mut run = ModelRun { fixture, wal, model: Model::new(), salt: 0 };
        for step in steps {
            run.step(step);
        }
        run.fixture.device.full.store(false, SeqCst);
        run.reopen();
        prop_assert_eq!(read_model(run.wal()), without_empty_groups(run.model.clone()));
    }
}
