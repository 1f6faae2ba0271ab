//! The properties together: an honest run holds under all of them, and a lie is found.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::reference_store::run;
use super::*;
use crate::history::{
    BranchKey, Completion, Cursor, Invocation, LogEvent, MonotonicTime, ReturnValue,
    SubscriptionMessage,
};

/// The properties that do not hold.
fn broken(evidence: &History) -> BTreeSet<&'static str> {
    let verdicts = all().into_iter().map(|judge| judge(evidence));
    verdicts.filter(|verdict| !verdict.holds()).map(|verdict| verdict.property).collect()
}

#[test]
fn every_property_is_asked_and_has_a_name_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checker");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap());
    let judges = texts.filter(|text| text.contains("\npub(super) fn judge(")).count();
    let verdicts: Vec<_> = all().iter().map(|judge| judge(&History::default())).collect();
    let names: BTreeSet<_> = verdicts.iter().map(|verdict| verdict.property).collect();
    assert_eq!((verdicts.len(), names.len()), (judges, judges), "{names:?}");
}

#[test]
fn a_verdict_counts_all_and_shows_the_first() {
    let mut verdict = Verdict::new("a", "b");
    verdict.check(None);
    assert!(verdict.holds());
    for at in 0..20 {
        verdict.check(Some(at.to_string()));
    }
    assert!(!verdict.holds());
    assert_eq!((verdict.checked, verdict.violations), (21, 20));
    assert_eq!((verdict.shown.len(), verdict.shown[0].as_str()), (DETAILS_MAX, "0"));
}

#[test]
fn an_honest_run_holds_under_every_property() {
    for seed in 0..20 {
        let evidence = run(seed, 500);
        for judge in all() {
            let verdict = judge(&evidence);
            assert!(verdict.holds(), "seed {seed}: {verdict:#?}");
            // Only minorities have nothing to say: there is none.
            let is_silent = verdict.property == "minority-silent";
            assert_eq!(verdict.checked == 0, is_silent, "seed {seed}: {verdict:#?}");
        }
    }
}

#[test]
fn a_long_run_is_judged_in_a_moment() {
    let evidence = run(7, 20_000);
    println!("{} operations", evidence.ops.len());
    for judge in all() {
        let begun = Instant::now();
        let verdict = judge(&evidence);
        let took = begun.elapsed();
        assert!(verdict.holds(), "{verdict:#?}");
        println!("{}: {} facts in {took:?}", verdict.property, verdict.checked);
        assert!(took.as_secs() < 60, "{} took {took:?}", verdict.property);
    }
}

/// Takes an acknowledged event out of the log of a place, as if it had never been.
fn lose(evidence: &mut History, intent: fn(&Invocation) -> bool) {
    let is_lost =
        |op: &&crate::history::Operation| intent(&op.intent) && op.outcome.reply().is_some();
    let lost = evidence.ops.iter().filter(is_lost).nth(5).unwrap().id.clone();
    change_logs(evidence, |log| {
        log.retain(|logged| logged.op.as_ref() != Some(&lost));
        for (sequence, logged) in (1..).zip(log) {
            logged.cursor.sequence = sequence;
        }
    });
}

fn change_logs(evidence: &mut History, mut change: impl FnMut(&mut Vec<LogEvent>)) {
    for (_, _, log) in &mut evidence.logs {
        change(log);
    }
}

/// Changes the first answer, after some, that can be changed like this.
fn change_answer(evidence: &mut History, mut change: impl FnMut(&mut ReturnValue) -> bool) {
    let mut changed = 0;
    for op in evidence.ops.iter_mut().skip(200) {
        if let Completion::Ok(reply) = &mut op.outcome {
            changed += u32::from(changed == 0 && change(&mut reply.seen));
        }
    }
    assert_eq!(changed, 1, "there is such an answer");
}

type Corruption = (&'static str, fn(&mut History));

const CORRUPTIONS: &[Corruption] = &[
    ("no-lost-acknowledgement", |it| lose(it, |intent| matches!(intent, Invocation::Put { .. }))),
    ("lists", |it| lose(it, |intent| matches!(intent, Invocation::Append { .. }))),
    ("sequences", |it| lose(it, |intent| matches!(intent, Invocation::Ticket))),
    ("bank", |it| lose(it, |intent| matches!(intent, Invocation::Transfer { .. }))),
    ("counters-and-stock", |it| lose(it, |intent| matches!(intent, Invocation::Increment { .. }))),
    ("no-phantom", |it| {
        let refused = it.ops.iter().find(|op| matches!(op.outcome, Completion::Fail { .. }));
        let (id, place) = refused.map(|op| (op.id.clone(), op.place.clone())).unwrap();
        let logs = it.logs.iter_mut().filter(|(_, at, _)| *at == place);
        logs.for_each(|(_, _, log)| log[100].op = Some(id.clone()));
    }),
    ("at-most-once", |it| {
        change_logs(it, |log| {
            let mut again = log.iter().rfind(|logged| logged.op.is_some()).unwrap().clone();
            again.cursor.sequence = log.len() as u64 + 1;
            again.id = "again".to_owned();
            log.push(again);
        });
    }),
    ("linearizable", |it| {
        change_answer(it, |seen| {
            let ReturnValue::Register(Some((value, _))) = seen else { return false };
            *value += 1;
            true
        });
    }),
    ("lists", |it| {
        change_answer(it, |seen| {
            let ReturnValue::Lists(lists) = seen else { return false };
            lists.get_mut("y").unwrap().truncate(1);
            true
        });
    }),
    ("bank", |it| {
        change_answer(it, |seen| {
            let ReturnValue::Balances(balances) = seen else { return false };
            *balances.get_mut("p").unwrap() += 100;
            *balances.get_mut("q").unwrap() -= 100;
            true
        });
    }),
    ("sequences", |it| {
        change_answer(it, |seen| {
            let ReturnValue::Number(number) = seen else { return false };
            *number += 1;
            true
        });
    }),
    ("events", |it| drop(it.heard.remove(it.heard.len() / 2))),
    ("events", |it| it.heard.swap(40, 41)),
    ("events", |it| {
        let events = it.heard.iter_mut().filter_map(|heard| match &mut heard.word {
            SubscriptionMessage::Event { op, .. } => op.as_mut(),
            SubscriptionMessage::Snapshot { .. } | SubscriptionMessage::Resumed { .. } => None,
        });
        events.last().unwrap().push('x');
    }),
    ("logs-equal", |it| drop(it.logs[1].2.pop())),
    ("logs-equal", |it| change_logs(it, |log| log[9].cursor = Cursor { epoch: 2, sequence: 10 })),
    ("replicas-equal", |it| it.replicas[1].state_hash.push('x')),
    ("chain-intact", |it| drop(it.replicas.pop())),
    ("minority-silent", |it| {
        it.faults[0].minority = vec![1];
        it.faults[0].until = MonotonicTime(u64::MAX / 2);
    }),
    ("bounded-unavailability", |it| {
        let silent = BranchKey { branch: "one".to_owned(), module: "m".to_owned() };
        it.faults[0].until = MonotonicTime(80_000_000);
        for op in it.ops.iter_mut().filter(|op| op.place == silent) {
            let lasts = if op.invoked.0 > 15_000 { 40_000_000 } else { 0 };
            op.completed.0 += lasts;
        }
    }),
];

#[test]
fn every_lie_is_found_by_the_property_it_speaks_against() {
    let honest = run(3, 1_000);
    assert_eq!(broken(&honest), BTreeSet::new());
    let mut found = BTreeSet::new();
    for (index, (property, lie)) in CORRUPTIONS.iter().enumerate() {
        let mut told = honest.clone();
        lie(&mut told);
        let broken = broken(&told);
        assert!(broken.contains(property), "lie {index} against {property}: found {broken:?}");
        found.insert(*property);
    }
    // Two checkers that agree cannot be made to differ by a history.
    let names = all().into_iter().map(|judge| judge(&honest).property);
    let missed: Vec<_> = names.filter(|name| !found.contains(name)).collect();
    assert_eq!(missed, ["linearizable-second-opinion"]);
}
