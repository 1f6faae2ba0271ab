//! Why this example: three million writes that no client named, applied to one module, must end
//! without a refusal and with memory flat; and it prints what a remembered outcome takes.
//!
//! `cargo run --release -p tests --example outcomes [writes]`

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Action, Batch, BranchId, BranchKey, Command, CommandId, DedupLimits, Definition, ModuleId,
    Offset, Origin, Outcome, Partition, RecordMutation, Request, Schema, Timestamp, Transaction,
    Validation, Value, VersionRule,
};

const BATCH: u64 = 64;
const ROWS: u64 = 100;
/// Writes a second of log uptime, as a busy module has them.
const PER_SECOND: u64 = 10_000;

fn main() {
    let writes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3_000_000);
    let mut partition = start();
    let named = |n: u64| CommandId::server_named(n.to_string());
    println!("writes without a key: resident memory, outcomes remembered, refusals");
    let mut refused = 0;
    for first in (0..writes).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        refused += write(&mut partition, first, &named);
        if first % (writes / 10 / BATCH * BATCH).max(BATCH) == 0 {
            report(&partition, first, refused);
        }
    }
    report(&partition, writes, refused);

    let named = |n: u64| CommandId::of_client("till-1", n.to_string());
    let (before, old) = (resident(), remembered(&partition).entries);
    for first in (0..writes).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        refused += write(&mut partition, first, &named);
    }
    let entries = remembered(&partition).entries.saturating_sub(old).max(1);
    let grown = resident().saturating_sub(before);
    println!(
        "writes with a key: {entries} outcomes, {} bytes each, {refused} refusals",
        grown / entries
    );
}

/// Applies one entry; gives how many of its writes were refused.
fn write(partition: &mut Partition, first: u64, id: &dyn Fn(u64) -> CommandId) -> u64 {
    let record = |n: u64| [("id", n % ROWS), ("n", n)].into_iter().collect();
    let command = |n: u64| Command {
        id: id(n),
        key: key(),
        origin: Arc::new(Origin::default()),
        request: Request::Transaction(Transaction::of(vec![RecordMutation::new(
            Action::Save,
            "t",
            record(n),
        )])),
    };
    let commands = (first..first + BATCH).map(command).collect();
    // A reader holds the state of the entry before, as on a node.
    let shown = partition.clone();
    let applied = partition.apply(&batch(BATCH * 1_000 / PER_SECOND, commands));
    drop(shown);
    partition.forget_events(|_| Offset(u64::MAX));
    applied.iter().filter(|one| matches!(one.outcome, Outcome::Rejected(_))).count() as u64
}

fn batch(elapsed_ms: u64, commands: Vec<Command>) -> Batch {
    Batch {
        level: model::codec::LEVEL,
        stamped: Timestamp(1_795_220_000_000),
        elapsed_ms,
        entropy: [7; 16],
        commands,
    }
}

fn key() -> BranchKey {
    let branch = BranchId::parse("dar").expect("a good name");
    BranchKey::new(branch, ModuleId::parse("pos").expect("a good name"))
}

fn start() -> Partition {
    let tables = br#"{"tables":{"t":{"fields":{"id":{"type":"integer","primaryKey":true},
        "n":{"type":"integer"}}}}}"#;
    let tables = Value::from_json(tables).expect("it is JSON");
    let definition = Definition {
        schema: Arc::new(Schema::from_definition("pos", &tables).expect("it is a definition")),
        validation: Validation::Lenient,
        version_rule: VersionRule::Next,
        sequences: BTreeMap::new(),
        dedup: DedupLimits::default(),
    };
    let define = Command {
        id: CommandId::server_named("define"),
        key: key(),
        origin: Arc::new(Origin::default()),
        request: Request::Define(Arc::new(definition)),
    };
    let mut partition = Partition::default();
    partition.apply(&batch(0, vec![define]));
    partition
}

fn remembered(partition: &Partition) -> model::DedupUse {
    partition.branch(&key()).expect("it was defined").dedup()
}

fn report(partition: &Partition, writes: u64, refused: u64) {
    let remembered = remembered(partition).entries;
    println!("{writes:>9} {:>6} MB {remembered:>9} {refused:>3}", resident() / 1_000_000);
}

/// Bytes of this process in memory, where the system says it.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|text| text.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
