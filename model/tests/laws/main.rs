//! Laws: what must hold of any history, tried on histories nobody thought of.
//!
//! A history is a list of batches over two branches, one lenient and one strict, with retries,
//! reused ids, refusals, redefinitions, purges, resets and what came back, clocks that go back, and
//! an uptime that lets outcomes expire. Every law takes a history and judges it by the public
//! functions alone.

#![allow(clippy::unwrap_used, reason = "what a test takes for granted it unwraps")]

mod history;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use history::{batches, key, start};
use model::{
    Answer, AppliedCommand, Batch, BatchPiece, BranchKey, BulkOperation, Command, Effect, Event,
    EventChange, Hash, ModuleSnapshot, Object, Offset, Outcome, Partition, PartitionEntry,
    Procedures, Read, RecordKey, Reject, Request, TableName, Value, codec,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use shared::StoreContents;

fn apply_all(partition: &mut Partition, batches: &[Batch]) -> Vec<Vec<AppliedCommand>> {
    batches.iter().map(|batch| partition.apply(batch)).collect()
}

fn snapshot(partition: &Partition, key: &BranchKey) -> Arc<ModuleSnapshot> {
    let answer = partition.branch(key).unwrap().read(&Read::Snapshot).unwrap();
    let Answer::Snapshot(snapshot) = answer else { panic!("{answer:?}") };
    snapshot
}

fn fresh_events(applied: &[Vec<AppliedCommand>], key: &BranchKey) -> Vec<Arc<Event>> {
    let accepted =
        applied.iter().flatten().filter(|applied| applied.key == *key).filter_map(|applied| {
            match &applied.outcome {
                Outcome::Accepted(accepted) if !accepted.repeated => Some(accepted),
                Outcome::Accepted(_) | Outcome::Rejected(_) => None,
            }
        });
    accepted.flat_map(|accepted| accepted.delta.events.clone()).collect()
}

/// What somebody knows who only hears the events: the tables, in their order.
#[derive(Default)]
struct EventReplay(BTreeMap<TableName, Vec<(RecordKey, Arc<Object>)>>);

impl EventReplay {
    fn has(&self, table: &TableName, key: &RecordKey) -> bool {
        self.0.get(table).is_some_and(|rows| rows.iter().any(|(known, _)| known == key))
    }

    fn remove(&mut self, table: &TableName, key: &RecordKey) {
        self.0.entry(table.clone()).or_default().retain(|(known, _)| known != key);
    }

    fn put(&mut self, table: &TableName, key: &RecordKey, record: &Arc<Object>) {
        let rows = self.0.entry(table.clone()).or_default();
        match rows.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = Arc::clone(record),
            None => rows.push((key.clone(), Arc::clone(record))),
        }
    }

    fn records(&self, table: &TableName) -> Vec<Arc<Object>> {
        let rows = self.0.get(table).into_iter().flatten();
        rows.map(|(_, record)| Arc::clone(record)).collect()
    }
}

/// The revision an event must have after one of another.
fn follows(revision: u64, event: &Event) -> bool {
    let now = event.revision.0;
    match &event.change {
        EventChange::Record(_) => now == revision + 1,
        EventChange::Module(change) => match change.operation {
            BulkOperation::Purge => now == revision + 1,
            BulkOperation::Restore => now == revision + u64::from(!change.records.is_empty()),
            BulkOperation::Reset => now == 1,
            BulkOperation::Replace => now >= revision,
            BulkOperation::Sequence | BulkOperation::Clock => now == revision,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn replay_is_live_and_a_replica_out_of_a_checkpoint_is_both(
        batches in batches(40),
        cuts in prop::collection::vec(0..40_usize, 1..4),
    ) {
        let mut live = start();
        let mut other = start();
        for (index, batch) in batches.iter().enumerate() {
            let applied = live.apply(batch);
            let other_applied = other.apply(batch);
            for (one, two) in applied.iter().zip(&other_applied) {
                if two.repeated_at.is_none() {
                    prop_assert_eq!(one, two);
                }
            }
            prop_assert_eq!(live.state_hash(), other.state_hash(), "after batch {}", index);
            if cuts.contains(&index) {
                let mut held = StoreContents::default();
                other.chunks(&mut held);
                other = Partition::from_chunks(&held, Procedures::default()).unwrap();
                let stored: BTreeMap<_, _> =
                    other.branches().map(|branch| (branch.key().clone(), branch.head())).collect();
                other.forget_events(|key| stored[key].offset);
                prop_assert_eq!(live.state_hash(), other.state_hash(), "restored at {}", index);
            }
        }
        let mut replayed = start();
        let applied = apply_all(&mut replayed, &batches);
        prop_assert_eq!(replayed.state_hash(), live.state_hash());
        let mut again = start();
        prop_assert_eq!(apply_all(&mut again, &batches), applied);
    }

    #[test]
    fn a_command_in_pieces_is_the_command(
        batches in batches(30),
        piece_bytes in 1..400_usize,
        cut in 0..30_usize,
    ) {
        let (mut whole, mut in_pieces) = (start(), start());
        for (index, batch) in batches.iter().enumerate() {
            // Time passes with the batches around it.
            let alone = |place: usize| Batch {
                elapsed_ms: 0,
                entropy: std::array::from_fn(|n| u8::try_from(n * place + index).unwrap()),
                commands: vec![batch.commands[place].clone()],
                ..batch.clone()
            };
            for place in 0..batch.commands.len() {
                let expected = whole.apply(&alone(place));
                let mut long = None;
                for piece in BatchPiece::split(&alone(place), piece_bytes) {
                    let entry = piece.encode();
                    let PartitionEntry::Piece(part) = PartitionEntry::decode(&entry).unwrap() else {
                        panic!("a piece")
                    };
                    prop_assert!(long.is_none());
                    long = in_pieces.stage(part);
                    if index == cut {
                        let mut held = StoreContents::default();
                        in_pieces.chunks(&mut held);
                        let restored = Partition::from_chunks(&held, Procedures::default());
                        in_pieces = restored.unwrap();
                    }
                }
                let outcome = long.unwrap().run().unwrap();
                let applied = in_pieces.finish(outcome);
                if applied.repeated_at.is_none() {
                    prop_assert_eq!(&expected[0], &applied);
                }
            }
            let time = Batch { commands: Vec::new(), ..batch.clone() };
            whole.apply(&time);
            in_pieces.apply(&time);
            prop_assert_eq!(whole.state_hash(), in_pieces.state_hash());
            prop_assert_eq!(whole.memory_bytes(), in_pieces.memory_bytes());
        }
    }

    #[test]
    fn other_branches_go_on_while_a_command_is_decided(batches in batches(30)) {
        let (mut one_by_one, mut beside) = (start(), start());
        for (index, batch) in batches.iter().enumerate() {
            let Some(command) = batch.commands.first() else { continue };
            let alone = Batch {
                elapsed_ms: 0,
                entropy: [u8::try_from(index).unwrap(); 16],
                commands: vec![command.clone()],
                ..batch.clone()
            };
            let others: Vec<_> =
                batch.commands.iter().filter(|it| it.key != command.key).cloned().collect();
            let others = Batch { commands: others, ..batch.clone() };
            one_by_one.apply(&alone);
            let expected = one_by_one.apply(&others);
            let [piece] = &BatchPiece::split(&alone, usize::MAX)[..] else { panic!("one piece") };
            let long = beside.stage(piece.clone()).unwrap();
            prop_assert_eq!(beside.apply(&others), expected);
            beside.finish(long.run().unwrap());
            prop_assert_eq!(one_by_one.state_hash(), beside.state_hash(), "after {}", index);
        }
    }

    #[test]
    fn offsets_have_no_gaps_and_events_chain_by_their_hashes(batches in batches(40)) {
        let mut partition = start();
        let applied = apply_all(&mut partition, &batches);
        for branch in ["lenient", "strict"] {
            let key = key(branch);
            let (mut last, mut revision, mut at) = (Offset(0), 1, i64::MIN);
            let mut chain = Hash::default();
            for event in fresh_events(&applied, &key) {
                prop_assert_eq!(event.offset, last.next());
                prop_assert!(follows(revision, &event), "{} after {}", event.revision.0, revision);
                prop_assert_eq!(event.previous, chain);
                prop_assert!(event.at.0 >= at, "time went back");
                (last, revision, at) = (event.offset, event.revision.0, event.at.0);
                chain = Hash(*blake3::hash(&codec::encode(&*event)).as_bytes());
            }
            let branch = partition.branch(&key).unwrap();
            prop_assert_eq!(branch.chain_head(), chain);
            prop_assert_eq!((branch.head().offset, branch.head().revision.0), (last, revision));
            let log = branch.read(&Read::Log).unwrap();
            let Answer::Log(log) = log else { panic!("{log:?}") };
            prop_assert_eq!(log.last.map_or(Offset(0), |last| last.offset), last);
        }
    }

    #[test]
    fn the_events_tell_the_whole_state(batches in batches(40)) {
        let mut partition = start();
        let applied = apply_all(&mut partition, &batches);
        for branch in ["lenient", "strict"] {
            let key = key(branch);
            let mut replayed = EventReplay::default();
            // Tables a lenient module was sent whole: their rows stand in the order that was sent,
            // which events do not show.
            let mut moved: BTreeSet<TableName> = BTreeSet::new();
            for event in fresh_events(&applied, &key) {
                match &event.change {
                    EventChange::Record(change) => {
                        let known = replayed.has(&change.table, &change.key);
                        prop_assert_eq!(known, change.effect != Effect::Insert);
                        match change.effect {
                            Effect::Delete => replayed.remove(&change.table, &change.key),
                            Effect::Insert | Effect::Merge => {
                                replayed.put(&change.table, &change.key, &change.record);
                            }
                        }
                    }
                    EventChange::Module(change) => {
                        for (table, key, record) in &change.records {
                            prop_assert!(record.is_some() || replayed.has(table, key));
                            moved.insert(table.clone());
                            match record {
                                Some(record) => replayed.put(table, key, record),
                                None => replayed.remove(table, key),
                            }
                        }
                    }
                }
            }
            let snapshot = snapshot(&partition, &key);
            let rows: usize = snapshot.tables.iter().map(|(_, rows)| rows.len()).sum();
            prop_assert_eq!(snapshot.head.rows, rows as u64);
            for (table, rows) in &snapshot.tables {
                let (mut replayed, mut rows) = (replayed.records(table), rows.clone());
                if branch == "lenient" && moved.contains(table) {
                    let by_content = |row: &Arc<Object>| Value::from((**row).clone()).to_json();
                    replayed.sort_by_key(by_content);
                    rows.sort_by_key(by_content);
                }
                prop_assert_eq!(replayed, rows, "{}", table);
            }
        }
    }

    #[test]
    fn a_retry_changes_nothing_and_hears_the_same(batches in batches(12)) {
        let mut partition = start();
        for batch in &batches {
            let first = partition.apply(batch);
            let full = |applied: &AppliedCommand| match &applied.outcome {
                Outcome::Rejected(reject) => matches!(reject, Reject::DedupFull { .. }),
                Outcome::Accepted(_) => false,
            };
            if first.iter().any(full) {
                continue; // Not remembered: a retry may well find room.
            }
            let hash = partition.state_hash();
            let again = Batch { elapsed_ms: 0, entropy: [99; 16], ..batch.clone() };
            let second = partition.apply(&again);
            for (one, two) in first.iter().zip(&second) {
                match (&one.outcome, &two.outcome) {
                    (Outcome::Accepted(one), Outcome::Accepted(two)) => {
                        prop_assert_eq!(&one.delta, &two.delta);
                        prop_assert_eq!(&one.reserved, &two.reserved);
                        prop_assert!(two.repeated);
                    }
                    (one, two) => prop_assert_eq!(one, two),
                }
            }
            prop_assert_eq!(partition.state_hash(), hash);
        }
    }

    #[test]
    fn a_refusal_changes_nothing_anybody_sees(batches in batches(30)) {
        let mut partition = start();
        for batch in &batches {
            for command in &batch.commands {
                let alone = Batch { commands: vec![command.clone()], ..batch.clone() };
                let before = partition.branch(&command.key).unwrap().clone();
                let applied = partition.apply(&alone);
                let after = partition.branch(&command.key).unwrap();
                if matches!(applied[0].outcome, Outcome::Rejected(_)) {
                    prop_assert_eq!(before.head(), after.head());
                    prop_assert_eq!(before.chain_head(), after.chain_head());
                    prop_assert_eq!(
                        before.read(&Read::Snapshot).unwrap(),
                        after.read(&Read::Snapshot).unwrap()
                    );
                    prop_assert!(before.reservations().eq(after.reservations()));
                }
            }
        }
    }

    #[test]
    fn numbers_are_dense(batches in batches(40)) {
        let mut partition = start();
        let applied = apply_all(&mut partition, &batches);
        for branch in ["lenient", "strict"] {
            let key = key(branch);
            let begins_again = |command: &Command| {
                command.key == key
                    && matches!(&command.request, Request::Reset(reset) if reset.numbers)
            };
            let mut commands = batches.iter().flat_map(|batch| &batch.commands);
            if branch == "lenient" && commands.any(begins_again) {
                continue;
            }
            let mut numbers: BTreeSet<u64> = BTreeSet::new();
            for event in fresh_events(&applied, &key) {
                let event = match &event.change {
                    EventChange::Record(change) => change,
                    EventChange::Module(change) if change.operation == BulkOperation::Reset => {
                        // The seed's tickets, each with a number of its own.
                        for (_, key, _) in change.records.iter().filter(|(_, _, new)| new.is_some()) {
                            let number = key.as_str().strip_prefix("T-");
                            let number = number.map(|number| number.parse().unwrap());
                            prop_assert!(number.is_none_or(|n| numbers.insert(n)), "{} twice", key);
                        }
                        continue;
                    }
                    EventChange::Module(_) => continue,
                };
                let number = event.key.as_str().strip_prefix("T-").map(|n| n.parse().unwrap());
                if event.effect == Effect::Insert && event.table.as_str() == "ticket" {
                    prop_assert!(numbers.insert(number.unwrap()), "{} twice", event.key);
                }
            }
            let reserved = partition.branch(&key).unwrap().reservations();
            for taken in reserved.filter(|taken| taken.field == "id") {
                prop_assert!(numbers.insert(taken.value), "{} twice", taken.text);
            }
            let expected: BTreeSet<u64> = (100..100 + numbers.len() as u64).collect();
            prop_assert_eq!(numbers, expected);
        }
    }

    #[test]
    fn strict_holds_between_commands_whatever_was_tried(batches in batches(40)) {
        let mut partition = start();
        for batch in &batches {
            partition.apply(batch);
            let snapshot = snapshot(&partition, &key("strict"));
            let column = |table: &str, field: &str| -> Vec<String> {
                let (_, rows) =
                    snapshot.tables.iter().find(|(name, _)| name.as_str() == table).unwrap();
                rows.iter()
                    .filter_map(|row| Some(row.get(field)?.as_str()?.to_owned()))
                    .collect()
            };
            let ids: BTreeSet<String> = column("order_header", "id").into_iter().collect();
            prop_assert!(column("order_line", "orderId").iter().all(|id| ids.contains(id)));
            let codes = column("dish", "code");
            let distinct: BTreeSet<&String> = codes.iter().collect();
            prop_assert_eq!(distinct.len(), codes.len(), "a code twice");
            prop_assert!(column("order_line", "dish").iter().all(|code| distinct.contains(code)));
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself(batches in batches(6)) {
        let mut partition = start();
        for batch in &batches {
            prop_assert_eq!(&Batch::decode(&batch.encode()).unwrap(), batch);
            for applied in partition.apply(batch) {
                let bytes = codec::encode_as(codec::FormatKind::Test, &applied.outcome);
                prop_assert_eq!(codec::decode_as::<Outcome>(codec::FormatKind::Test, &bytes).unwrap(), applied.outcome);
            }
        }
        for branch in partition.branches() {
            for event in branch.events_after(Offset(0)).unwrap() {
                let bytes = codec::encode(&*event);
                prop_assert_eq!(&codec::decode::<Event>(&bytes).unwrap(), &*event);
            }
        }
    }
}

/// The histories are no use if nothing happens in them.
#[test]
fn the_histories_try_everything() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut codes, mut effects) = (BTreeSet::new(), BTreeSet::new());
    let (mut repeated, mut brought_back) = (0, 0);
    for _ in 0..120 {
        let batches = batches(40).new_tree(&mut runner).unwrap().current();
        let mut partition = start();
        for applied in apply_all(&mut partition, &batches).into_iter().flatten() {
            match applied.outcome {
                Outcome::Rejected(reject) => {
                    codes.insert(reject.code().to_owned());
                }
                Outcome::Accepted(accepted) => {
                    repeated += usize::from(accepted.repeated);
                    effects.extend(accepted.delta.events.iter().map(|e| match &e.change {
                        EventChange::Record(change) => change.effect.wire_name(),
                        EventChange::Module(change) => {
                            let restored = change.operation == BulkOperation::Restore;
                            brought_back += usize::from(restored && !change.records.is_empty());
                            change.operation.wire_name()
                        }
                    }));
                }
            }
        }
    }
    for code in [
        "duplicate-key",
        "foreign-key",
        "history-entry-not-found",
        "idempotency-key-reused",
        "insert-only-violation",
        "invalid-field",
        "last-ack-mismatch",
        "missing-field",
        "not-unique",
        "duplicate-part",
        "outcomes-full",
        "part-of-another-record",
        "record-not-found",
        "version-conflict",
    ] {
        assert!(codes.contains(code), "no history was refused as {code}: {codes:?}");
    }
    assert_eq!(effects.len(), 7, "{effects:?}");
    assert!(brought_back > 0, "no history was brought back");
    assert!(repeated > 0);
}
