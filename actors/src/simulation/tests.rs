//! What the simulation finds, and that it can find something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use history::checker::{all_checkers, fields};
use history::{
    Completion, History, Invocation, LogPosition, MonotonicTime, Operation, ReplicaReading,
    Response,
};
use model::{
    CommandId, Effect, Event, EventChange, Hash, Object, Offset, Origin, RecordChange, RecordKey,
    Revision, TableName, Timestamp, Value,
};
use raft::disk::{CrashKind, DiskFaults};

use super::cluster::SimulatedCluster;
use super::collect::log_event;
use super::workload::{catalogue, history_key};
use super::{SimulationConfig, SimulationReport, run, schedule};
use crate::Store;
use crate::testing::wait_until;

/// Virtual time under faults of each seed here; the long runs are the example's.
const LENGTH: Duration = Duration::from_secs(20);

fn run_and_hold(config: SimulationConfig) -> SimulationReport {
    let report = run(config).unwrap();
    assert!(
        report.violations.is_empty(),
        "seed {}: {:#?}\nagain: cargo run --release -p actors --example simulate -- --seed {} \
         --seconds {} --story",
        config.seed,
        report.violations,
        config.seed,
        config.length.as_secs()
    );
    report
}

#[test]
fn a_calm_cluster_answers_everything() {
    let report =
        run_and_hold(SimulationConfig { faults: false, ..SimulationConfig::new(1, LENGTH) });
    assert!(report.acknowledged > 100, "{} acknowledged", report.acknowledged);
    assert_eq!((report.unknown, report.crashes), (0, 0));
    assert!(report.faults.is_empty());
    // Without faults there is no minority and no outage; the rest of the workload is chaos's.
    let elsewhere =
        ["lists", "bank", "events", "minority-silent", "bounded-unavailability"].map(String::from);
    for (property, checked) in report.checked {
        assert_eq!(checked == 0, elsewhere.contains(&property.to_owned()), "{property}: {checked}");
    }
}

#[test]
fn seeds_that_once_failed_hold() {
    for line in include_str!("../../simulation-seeds.txt").lines() {
        let mut numbers = line.split('#').next().unwrap().split_whitespace();
        if let Some(seed) = numbers.next() {
            let length = numbers.next().map_or(LENGTH, |s| Duration::from_secs(s.parse().unwrap()));
            run_and_hold(SimulationConfig::new(seed.parse().unwrap(), length));
        }
    }
}

#[test]
fn some_seeds_hold_under_faults_of_many_kinds() {
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut acknowledged = 0;
    for seed in 100..106 {
        let report = run_and_hold(SimulationConfig::new(seed, LENGTH));
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
    let config = SimulationConfig::new(77, LENGTH);
    assert_eq!(schedule(77, LENGTH), schedule(77, LENGTH));
    assert_ne!(schedule(77, LENGTH), schedule(78, LENGTH));
    let longer = schedule(77, LENGTH * 2);
    assert_eq!(longer[..schedule(77, LENGTH).len()], schedule(77, LENGTH));
    let (one, other) = (run_and_hold(config), run_and_hold(config));
    if let Some((one, other)) = one.first_difference(&other) {
        println!("the runs part here: {one} | {other}");
    }
}

#[test]
fn disks_that_ignore_syncs_are_found_out() {
    let found = (200..220).find(|&seed| {
        let config =
            SimulationConfig { ignored_syncs: true, ..SimulationConfig::new(seed, LENGTH) };
        let report = run(config).unwrap();
        let is_loss = |violation: &String| violation.starts_with("no-lost-acknowledgement");
        report.violations.iter().any(|it| is_loss(it) || it.contains("refuses"))
    });
    assert!(found.is_some(), "twenty seeds on disks that ignore syncs, and nothing was lost");
}

#[test]
fn a_node_that_starts_on_a_full_disk_serves_once_there_is_room() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        raft::simulated::begin(1);
        let (sender, _log_failures) = tokio::sync::mpsc::channel(8);
        let config = SimulationConfig::new(1, LENGTH);
        let cluster = SimulatedCluster::new(config, catalogue(), sender).unwrap();
        for node in 1..=3 {
            cluster.start(node).await.unwrap();
        }
        let ready = |node| cluster.store(node).is_some_and(|store| store.ready().is_ok());
        wait_until("the cluster has formed", || (1..=3).all(ready)).await;
        for node in 1..=3 {
            cluster.crash(node, CrashKind::Kill).unwrap();
            let full = DiskFaults { full: true, ..DiskFaults::default() };
            cluster.start_on(node, full).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.set_disk_faults(node, DiskFaults::default());
            wait_until("the node serves again", || ready(node)).await;
        }
    });
    raft::simulated::end();
}

fn object(members: &[(&str, &str)]) -> Object {
    members.iter().map(|(name, value)| (*name, Value::from(*value))).collect()
}

/// A log of tickets, well-formed. Each command writes its own name into its record.
fn log(ids: &[&str]) -> Vec<Event> {
    let mut log: Vec<Event> = Vec::new();
    for (at, id) in (1..).zip(ids) {
        let key = format!("T-{at:06}");
        log.push(Event {
            #[cfg(feature = "next-level")]
            note: None,
            offset: Offset(at),
            revision: Revision(at + 1),
            at: Timestamp(1),
            id: format!("evt-{at}"),
            change: EventChange::Record(RecordChange {
                table: TableName::parse(fields::TICKETS).unwrap(),
                table_sent: None,
                effect: Effect::Insert,
                key: RecordKey(key.as_str().into()),
                key_fields: [Arc::from("id")].into(),
                record: Arc::new(object(&[("id", &key), ("op", id)])),
            }),
            part: None,
            command: CommandId { session: "simulated".into(), request: (*id).into() },
            origin: Arc::new(Origin::default()),
            previous: log.last().map_or_else(Hash::default, Event::hash),
        });
    }
    log
}

fn ticket(id: &str, sequence: u64, invoked: u64) -> Operation {
    let cursor = Some(LogPosition { epoch: 1, sequence });
    let return_value = history::ReturnValue::Number(sequence);
    Operation {
        id: id.to_owned(),
        client: 1,
        branch_key: history_key("dar"),
        invocation: Invocation::Ticket,
        attempts: Vec::new(),
        invoked: MonotonicTime(invoked),
        completed: MonotonicTime(invoked + 1),
        completion: Completion::Ok(Response { cursor, version: None, return_value }),
    }
}

/// The properties that are violated.
fn violated(operations: Vec<Operation>, logs: Vec<Vec<Event>>) -> Vec<&'static str> {
    let convert = |(node, log): (u64, Vec<Event>)| {
        (node, history_key("dar"), log.iter().map(log_event).collect())
    };
    let logs: Vec<_> = (1..).zip(logs).map(convert).collect();
    let replicas = logs.iter().map(|(node, _, _)| replica(*node)).collect();
    let first_number = Some(1);
    let history = History { operations, logs, replicas, first_number, ..History::default() };
    let verdicts = all_checkers().into_iter().map(|check| check(&history));
    verdicts.filter(|verdict| !verdict.holds()).map(|verdict| verdict.property).collect()
}

fn replica(node: u64) -> ReplicaReading {
    let state_hash = "x".to_owned();
    ReplicaReading { node, partition: 1, applied: 9, state_hash, broken_chain: None }
}

#[test]
fn a_converted_log_of_what_clients_did_holds() {
    let operations = vec![ticket("a", 1, 1), ticket("b", 2, 5)];
    assert_eq!(violated(operations, vec![log(&["a", "b"]); 3]), [""; 0]);
}

#[test]
fn what_is_wrong_with_a_converted_log_is_found() {
    let operations = || vec![ticket("a", 1, 1), ticket("b", 2, 5)];
    let (good, short) = (log(&["a", "b"]), log(&["a"]));
    let other_tail = log(&["a", "c"]);
    let mut forged = good.clone();
    forged[1].at = Timestamp(2);
    let mut broken_chain = good.clone();
    broken_chain[1].previous = Hash([7; 32]);
    let mut other_record = good.clone();
    other_record[1].command.request = "x".into();
    let cases: [(&str, Vec<Vec<Event>>); 6] = [
        ("no-lost-acknowledgement", vec![short.clone()]),
        ("at-most-once", vec![log(&["a", "b", "b"])]),
        ("no-phantom", vec![other_tail]),
        ("no-phantom", vec![other_record]),
        ("logs-equal", vec![good.clone(), forged]),
        ("chain-intact", vec![broken_chain]),
    ];
    for (property, logs) in cases {
        let found = violated(operations(), logs);
        assert!(found.contains(&property), "{property}: {found:?}");
    }
    let found = violated(operations(), vec![good, short]);
    assert!(found.contains(&"logs-equal"), "{found:?}");
}
