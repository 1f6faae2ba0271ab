//! All checkers together: a correct history holds under each, and every corruption is found.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::reference_store::correct_history;
use super::*;
use crate::{
    BranchModule, Completion, Invocation, LogEvent, LogPosition, MonotonicTime, ReturnValue,
    SubscriptionMessage,
};

/// The properties that do not hold.
fn broken(history: &History) -> BTreeSet<&'static str> {
    let verdicts = all_checkers().into_iter().map(|check| check(history));
    verdicts.filter(|verdict| !verdict.holds()).map(|verdict| verdict.property).collect()
}

#[test]
fn every_checker_is_listed_and_has_its_own_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checker");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap());
    let checkers = texts.filter(|text| text.contains("\npub(super) fn check(")).count();
    let verdicts: Vec<_> = all_checkers().iter().map(|check| check(&History::default())).collect();
    let names: BTreeSet<_> = verdicts.iter().map(|verdict| verdict.property).collect();
    assert_eq!((verdicts.len(), names.len()), (checkers, checkers), "{names:?}");
}

#[test]
fn a_verdict_counts_all_and_details_the_first() {
    let mut verdict = Verdict::new("a", "b");
    verdict.record(None);
    assert!(verdict.holds());
    for at in 0..20 {
        verdict.record(Some(at.to_string()));
    }
    assert!(!verdict.holds());
    assert_eq!((verdict.checked, verdict.violations), (21, 20));
    assert_eq!((verdict.details.len(), verdict.details[0].as_str()), (DETAILS_MAX, "0"));
}

#[test]
fn a_correct_history_holds_under_every_property() {
    for seed in 0..20 {
        let history = correct_history(seed, 500);
        for check in all_checkers() {
            let verdict = check(&history);
            assert!(verdict.holds(), "seed {seed}: {verdict:#?}");
            // The history has no minority: only this property has nothing to check.
            let is_minority = verdict.property == "minority-silent";
            assert_eq!(verdict.checked == 0, is_minority, "seed {seed}: {verdict:#?}");
        }
    }
}

#[test]
fn a_long_history_is_checked_within_a_minute() {
    let history = correct_history(7, 20_000);
    println!("{} operations", history.operations.len());
    for check in all_checkers() {
        let started = Instant::now();
        let verdict = check(&history);
        let took = started.elapsed();
        assert!(verdict.holds(), "{verdict:#?}");
        println!("{}: {} facts in {took:?}", verdict.property, verdict.checked);
        assert!(took.as_secs() < 60, "{} took {took:?}", verdict.property);
    }
}

/// Removes the events of an acknowledged operation from the log, and closes the gap.
fn lose_events(history: &mut History, is_wanted: fn(&Invocation) -> bool) {
    let is_lost =
        |op: &&crate::Operation| is_wanted(&op.invocation) && op.completion.response().is_some();
    let lost = history.operations.iter().filter(is_lost).nth(5).unwrap().id.clone();
    change_logs(history, |log| {
        log.retain(|event| event.op.as_ref() != Some(&lost));
        for (sequence, event) in (1..).zip(log) {
            event.cursor.sequence = sequence;
        }
    });
}

fn change_logs(history: &mut History, mut change: impl FnMut(&mut Vec<LogEvent>)) {
    for (_, _, log) in &mut history.logs {
        change(log);
    }
}

/// Changes the first return value, after the first 200 operations, to which the change applies.
fn change_return_value(history: &mut History, mut change: impl FnMut(&mut ReturnValue) -> bool) {
    let mut changed = 0;
    for op in history.operations.iter_mut().skip(200) {
        if let Completion::Ok(response) = &mut op.completion {
            changed += u32::from(changed == 0 && change(&mut response.return_value));
        }
    }
    assert_eq!(changed, 1, "the history has such a return value");
}

type Corruption = (&'static str, fn(&mut History));

const CORRUPTIONS: &[Corruption] = &[
    ("no-lost-acknowledgement", |it| {
        lose_events(it, |invocation| matches!(invocation, Invocation::Put { .. }))
    }),
    ("lists", |it| lose_events(it, |invocation| matches!(invocation, Invocation::Append { .. }))),
    ("sequences", |it| lose_events(it, |invocation| matches!(invocation, Invocation::Ticket))),
    ("bank", |it| lose_events(it, |invocation| matches!(invocation, Invocation::Transfer { .. }))),
    ("counters-and-stock", |it| {
        lose_events(it, |invocation| matches!(invocation, Invocation::Increment { .. }))
    }),
    ("no-phantom", |it| {
        let refused =
            it.operations.iter().find(|op| matches!(op.completion, Completion::Fail { .. }));
        let (id, branch_key) = refused.map(|op| (op.id.clone(), op.branch_key.clone())).unwrap();
        let logs = it.logs.iter_mut().filter(|(_, at, _)| *at == branch_key);
        logs.for_each(|(_, _, log)| log[100].op = Some(id.clone()));
    }),
    ("at-most-once", |it| {
        change_logs(it, |log| {
            let mut again = log.iter().rfind(|event| event.op.is_some()).unwrap().clone();
            again.cursor.sequence = log.len() as u64 + 1;
            again.id = "again".to_owned();
            log.push(again);
        });
    }),
    ("linearizable", |it| {
        change_return_value(it, |return_value| {
            let ReturnValue::Register(Some((value, _))) = return_value else { return false };
            *value += 1;
            true
        });
    }),
    ("lists", |it| {
        change_return_value(it, |return_value| {
            let ReturnValue::Lists(lists) = return_value else { return false };
            lists.get_mut("y").unwrap().truncate(1);
            true
        });
    }),
    ("bank", |it| {
        change_return_value(it, |return_value| {
            let ReturnValue::Balances(balances) = return_value else { return false };
            *balances.get_mut("p").unwrap() += 100;
            *balances.get_mut("q").unwrap() -= 100;
            true
        });
    }),
    ("sequences", |it| {
        change_return_value(it, |return_value| {
            let ReturnValue::Number(number) = return_value else { return false };
            *number += 1;
            true
        });
    }),
    ("events", |it| drop(it.received.remove(it.received.len() / 2))),
    ("events", |it| it.received.swap(40, 41)),
    ("events", |it| {
        let events = it.received.iter_mut().filter_map(|received| match &mut received.message {
            SubscriptionMessage::Event { op, .. } => op.as_mut(),
            SubscriptionMessage::Snapshot { .. } | SubscriptionMessage::Resumed { .. } => None,
        });
        events.last().unwrap().push('x');
    }),
    ("answers-agree", |it| {
        let is_ok = |op: &&mut crate::Operation| op.completion.response().is_some();
        let op = it.operations.iter_mut().find(is_ok).unwrap();
        op.attempts[0].completion = Some(Completion::Fail { code: "not-found".to_owned() });
    }),
    ("cursors-in-order", |it| {
        let heads = it.operations.iter_mut().filter(|op| op.invocation == Invocation::ReadHead);
        let responses = heads.filter_map(|op| match &mut op.completion {
            Completion::Ok(response) => Some(response),
            Completion::Fail { .. } | Completion::Info { .. } => None,
        });
        responses.last().unwrap().cursor = Some(LogPosition { epoch: 1, sequence: 3 });
    }),
    ("tables-follow-logs", |it| drop(it.tables[0].rows.pop_last())),
    ("chain-intact", |it| change_logs(it, |log| log[9].previous = log[10].previous.clone())),
    ("logs-equal", |it| drop(it.logs[1].2.pop())),
    ("logs-equal", |it| {
        change_logs(it, |log| log[9].cursor = LogPosition { epoch: 2, sequence: 10 })
    }),
    ("replicas-equal", |it| it.replicas[1].state_hash.push('x')),
    ("chain-intact", |it| drop(it.replicas.pop())),
    ("minority-silent", |it| {
        it.faults[0].minority = vec![1];
        it.faults[0].until = MonotonicTime(u64::MAX / 2);
    }),
    ("bounded-unavailability", |it| {
        let silent = BranchModule { branch: "one".to_owned(), module: "m".to_owned() };
        it.faults[0].until = MonotonicTime(80_000_000);
        for op in it.operations.iter_mut().filter(|op| op.branch_key == silent) {
            let delay = if op.invoked.0 > 15_000 { 40_000_000 } else { 0 };
            op.completed.0 += delay;
        }
    }),
];

#[test]
fn every_corruption_is_found_by_its_property() {
    let correct = correct_history(3, 1_000);
    assert_eq!(broken(&correct), BTreeSet::new());
    let mut found = BTreeSet::new();
    for (index, (property, corruption)) in CORRUPTIONS.iter().enumerate() {
        let mut corrupted = correct.clone();
        corruption(&mut corrupted);
        let broken = broken(&corrupted);
        assert!(
            broken.contains(property),
            "corruption {index} against {property}: found {broken:?}"
        );
        found.insert(*property);
    }
    // No history makes two correct checkers disagree.
    let names = all_checkers().into_iter().map(|check| check(&correct).property);
    let not_covered: Vec<_> = names.filter(|name| !found.contains(name)).collect();
    assert_eq!(not_covered, ["linearizable-second-opinion"]);
}
