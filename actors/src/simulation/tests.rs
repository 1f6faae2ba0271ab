//! Stories about the simulation: what it finds, and that it can find something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{
    CommandId, Effect, Event, EventChange, Hash, Object, Offset, Origin, RecordChange, RecordKey,
    Revision, TableName, Timestamp, Value,
};
use raft::disk::{CrashKind, DiskFaults};

use super::fleet::Fleet;
use super::oracle::{Held, Log, judge};
use super::workload::{Act, Known, Memory, Op};
use super::{Plan, Report, run, schedule};
use crate::Store;
use crate::testing::wait_until;

/// Virtual time under faults of each seed here; the long runs are the example's.
const LENGTH: Duration = Duration::from_secs(20);

fn held(plan: Plan) -> Report {
    let report = run(plan).unwrap();
    assert!(
        report.violations.is_empty(),
        "seed {}: {:#?}\nagain: cargo run --release -p actors --example simulate -- --seed {} \
         --seconds {} --story",
        plan.seed,
        report.violations,
        plan.seed,
        plan.length.as_secs()
    );
    report
}

#[test]
fn a_calm_cluster_answers_everything() {
    let report = held(Plan { faults: false, ..Plan::new(1, LENGTH) });
    assert!(report.acknowledged > 100, "{} acknowledged", report.acknowledged);
    assert_eq!((report.unknown, report.lives), (0, 0));
    assert!(report.faults.is_empty());
}

#[test]
fn seeds_that_once_failed_hold() {
    for line in include_str!("../../simulation-seeds.txt").lines() {
        let mut numbers = line.split('#').next().unwrap().split_whitespace();
        if let Some(seed) = numbers.next() {
            let length = numbers.next().map_or(LENGTH, |s| Duration::from_secs(s.parse().unwrap()));
            held(Plan::new(seed.parse().unwrap(), length));
        }
    }
}

#[test]
fn some_seeds_hold_and_their_faults_strike() {
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut acknowledged = 0;
    for seed in 100..106 {
        let report = held(Plan::new(seed, LENGTH));
        acknowledged += report.acknowledged;
        for (kind, count) in report.faults {
            *faults.entry(kind).or_default() += count;
        }
    }
    assert!(faults.len() >= 8, "{faults:?}");
    assert!(acknowledged > 500, "{acknowledged}");
}

#[test]
fn one_seed_has_one_schedule_and_one_verdict() {
    let plan = Plan::new(77, LENGTH);
    assert_eq!(schedule(77, LENGTH), schedule(77, LENGTH));
    assert_ne!(schedule(77, LENGTH), schedule(78, LENGTH));
    let longer = schedule(77, LENGTH * 2);
    assert_eq!(longer[..schedule(77, LENGTH).len()], schedule(77, LENGTH));
    let (one, other) = (held(plan), held(plan));
    if let Some((one, other)) = one.first_difference(&other) {
        println!("the runs part here: {one} | {other}");
    }
}

#[test]
fn disks_that_lie_about_what_is_durable_are_found_out() {
    let found = (200..220).find(|&seed| {
        let plan = Plan { lying: true, ..Plan::new(seed, LENGTH) };
        let report = run(plan).unwrap();
        report.violations.iter().any(|wrong| wrong.starts_with("lost") || wrong.contains("refuses"))
    });
    assert!(found.is_some(), "twenty seeds on lying disks, and nothing was lost");
}

#[test]
fn a_node_that_starts_on_a_full_disk_serves_once_there_is_room() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        raft::simulated::begin(1);
        let (fatal, _ends) = tokio::sync::mpsc::channel(8);
        let fleet = Fleet::new(Plan::new(1, LENGTH), fatal).unwrap();
        for node in 1..=3 {
            fleet.start(node).await.unwrap();
        }
        let ready = |node| fleet.router(node).is_some_and(|router| router.ready().is_ok());
        wait_until("the cluster has formed", || (1..=3).all(ready)).await;
        for node in 1..=3 {
            fleet.end(node, CrashKind::Kill).unwrap();
            let full = DiskFaults { full: true, ..DiskFaults::default() };
            fleet.start_on(node, full).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            fleet.fail(node, DiskFaults::default());
            wait_until("the node serves again", || ready(node)).await;
        }
    });
    raft::simulated::end();
}

fn object(members: &[(&str, &str)]) -> Object {
    members.iter().map(|(name, value)| (*name, Value::from(*value))).collect()
}

/// A log of notes, well-formed.
fn log(ids: &[&str]) -> Log {
    let mut log = Log::new();
    let mut previous = Hash::default();
    for (at, id) in (1..).zip(ids) {
        let event = Event {
            #[cfg(feature = "next-level")]
            note: None,
            offset: Offset(at),
            revision: Revision(at + 1),
            at: Timestamp(1),
            id: format!("evt-{at}"),
            change: EventChange::Record(RecordChange {
                table: TableName::parse("note").unwrap(),
                table_sent: None,
                effect: Effect::Insert,
                key: RecordKey((*id).into()),
                key_fields: [Arc::from("id")].into(),
                record: Arc::new(object(&[("id", id), ("text", id)])),
            }),
            part: None,
            command: CommandId { session: "simulated".into(), request: (*id).into() },
            origin: Arc::new(Origin::default()),
            previous,
        };
        previous = event.hash();
        log.push(Arc::new(event));
    }
    log
}

fn op(id: &str, known: Known, invoked: u64) -> Op {
    Op {
        id: CommandId { session: "simulated".into(), request: id.into() },
        branch: "dar",
        act: Act::Note,
        attempts: vec![1],
        invoked: Duration::from_secs(invoked),
        completed: Duration::from_secs(invoked) + Duration::from_millis(5),
        known,
    }
}

fn verdict(ops: Vec<Op>, logs: Vec<Log>) -> Vec<String> {
    let mut held = Held::default();
    held.logs.insert("dar", (1..).zip(logs).collect());
    judge(&Memory { ops, ..Memory::default() }, &held)
}

#[test]
fn the_oracle_is_silent_about_a_good_history() {
    let ops = vec![
        op("a", Known::Done(1), 1),
        op("b", Known::Unknown, 2),
        op("c", Known::Refused("duplicate-key".into()), 3),
        op("d", Known::Done(3), 4),
    ];
    let logs = vec![log(&["a", "b", "d"]); 3];
    assert_eq!(verdict(ops, logs), [""; 0]);
}

#[test]
fn the_oracle_names_what_is_wrong() {
    let done = |id, at, when| op(id, Known::Done(at), when);
    let cases: [(&str, Vec<Op>, Vec<Log>); 7] = [
        ("lost", vec![done("a", 1, 1), done("b", 2, 2)], vec![log(&["a"])]),
        ("twice", vec![done("a", 1, 1)], vec![log(&["a", "a"])]),
        ("phantom", vec![done("a", 1, 1)], vec![log(&["a", "x"])]),
        ("was refused", vec![op("a", Known::Refused("x".into()), 1)], vec![log(&["a"])]),
        ("order", vec![done("b", 2, 1), done("a", 1, 2)], vec![log(&["a", "b"])]),
        ("another log", vec![done("a", 1, 1)], vec![log(&["a"]), log(&[])]),
        ("does not name", vec![done("b", 1, 1)], vec![log(&["a", "b"])[1..].to_vec()]),
    ];
    for (name, ops, logs) in cases {
        let wrong = verdict(ops, logs);
        assert!(wrong.iter().any(|words| words.contains(name)), "{name}: {wrong:?}");
    }
}
