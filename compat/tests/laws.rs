//! Laws: random orders, saved in random states, leave every replica with the same state.

#![allow(clippy::unwrap_used, reason = "what a test takes for granted it unwraps")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compat::SaveOrder;
use model::partition::{ChunkSink, ChunkSource};
use model::{
    Answer, Batch, BranchId, BranchKey, Command, CommandId, DedupLimits, Definition, ModuleId,
    Object, Origin, Outcome, Partition, Read, Request, Schema, Timestamp, Validation, Value,
    VersionRule,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

const SCHEMA: &str = r#"[
    {"name":"order_header","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"shiftId","type":"text","nullable":true}]},
    {"name":"order_line","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"orderId","type":"text","references":{"table":"order_header","column":"id"}}]},
    {"name":"order_payment","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"orderId","type":"text","nullable":true}]},
    {"name":"order_line_status_log","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"orderLineId","type":"text","nullable":true},
        {"name":"orderId","type":"text","nullable":true}]}]"#;

/// A checkpoint in memory.
#[derive(Default)]
struct Held(BTreeMap<String, Vec<u8>>);

impl ChunkSink for Held {
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.insert(name.to_owned(), bytes);
    }

    fn keep(&mut self, _: &str) {}
}

impl ChunkSource for Held {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

fn key() -> BranchKey {
    BranchKey::new(BranchId::parse("dar").unwrap(), ModuleId::parse("pos").unwrap())
}

fn batch(place: i64, request: Request) -> Batch {
    let command = Command {
        id: CommandId { session: String::new(), request: place.to_string() },
        key: key(),
        origin: Arc::new(Origin::default()),
        request,
    };
    Batch {
        level: 1,
        stamped: Timestamp(1_795_220_000_000 + place),
        elapsed_ms: 1,
        entropy: [3; 16],
        commands: vec![command],
    }
}

fn start(strict: bool) -> Partition {
    let doc = Value::from_json(SCHEMA.as_bytes()).unwrap();
    let schema = Schema::read_under("pos", &doc, &compat::conventions()).unwrap().schema;
    let define = Request::Define(Arc::new(Definition {
        schema: Arc::new(schema),
        validation: if strict { Validation::Strict } else { Validation::Lenient },
        version_rule: if strict { VersionRule::Read } else { VersionRule::Next },
        sequences: BTreeMap::new(),
        dedup: DedupLimits { bytes_max: 480_000, keep_ms: 1_000 },
    }));
    let mut partition = Partition::new(compat::procedures());
    partition.apply(&batch(0, define));
    partition
}

fn any_order() -> impl Strategy<Value = SaveOrder> {
    let id = (0..4_u32).prop_map(|n| format!("o{n}"));
    let version = prop_oneof![1 => Just(None), 3 => (1..4_u64).prop_map(Some)];
    let shift = prop_oneof![9 => Just("s1"), 1 => Just("")];
    let few = |prefix: &'static str| {
        let rows =
            prop::collection::vec((0..4_u32).prop_map(move |n| format!("{prefix}{n}")), 0..3);
        let rows = rows.prop_map(|ids| {
            ids.into_iter().map(|id| [("id", id)].into_iter().collect()).collect::<Vec<Object>>()
        });
        // One in four lists is not sent.
        prop::option::weighted(0.75, rows)
    };
    (id, version, shift, few("l"), few("p")).prop_map(|(id, version, shift, lines, payments)| {
        let mut header: Object = [("id", id.as_str()), ("shiftId", shift)].into_iter().collect();
        if let Some(version) = version {
            header.insert("version", Value::from(version));
        }
        SaveOrder { header, lines, payments, ..SaveOrder::default() }
    })
}

/// The order each part names, by table and key.
fn parts(partition: &Partition) -> Vec<(String, String)> {
    let branch = partition.branch(&key()).unwrap();
    let Ok(Answer::Snapshot(snapshot)) = branch.read(&Read::Snapshot) else { panic!() };
    let mut found = Vec::new();
    for (table, rows) in &snapshot.tables {
        for row in rows.iter().filter(|_| table.as_str() != "order_header") {
            let order = row.get("orderId").and_then(Value::as_str).unwrap_or_default();
            found.push((table.to_string(), order.to_owned()));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn replicas_of_one_log_are_equal_also_out_of_a_checkpoint(
        orders in prop::collection::vec(any_order(), 1..30),
        cut in 0..30_usize,
        strict in any::<bool>(),
    ) {
        let (mut one, mut other) = (start(strict), start(strict));
        for (place, order) in orders.iter().enumerate() {
            let batch = batch(i64::try_from(place).unwrap() + 1, order.request());
            prop_assert_eq!(one.apply(&batch), other.apply(&batch));
            if place == cut {
                let mut held = Held::default();
                other.chunks(&mut held);
                other = Partition::from_chunks(&held, compat::procedures()).unwrap();
            }
            prop_assert_eq!(one.state_hash(), other.state_hash());
        }
    }

    #[test]
    fn every_part_is_of_an_order_that_is_there(
        orders in prop::collection::vec(any_order(), 1..30),
        strict in any::<bool>(),
    ) {
        let mut partition = start(strict);
        let mut saved = BTreeSet::new();
        for (place, order) in orders.iter().enumerate() {
            let before = partition.state_hash();
            let batch = batch(i64::try_from(place).unwrap() + 1, order.request());
            match &partition.apply(&batch)[0].outcome {
                Outcome::Accepted(_) => {
                    let id = order.header.get("id").and_then(Value::as_str).unwrap();
                    saved.insert(id.to_owned());
                }
                Outcome::Rejected(reject) => {
                    prop_assert!(reject.code() != "defect", "{reject:?}");
                    prop_assert!(before != partition.state_hash(), "a refusal is remembered");
                }
            }
        }
        for (table, order) in parts(&partition) {
            prop_assert!(saved.contains(&order), "{table} names {order:?}");
        }
    }
}

/// The orders are no use if nothing happens with them.
#[test]
fn the_orders_try_everything() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut codes, mut effects) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..40 {
        let orders = prop::collection::vec(any_order(), 20).new_tree(&mut runner).unwrap();
        let mut partition = start(round % 2 == 0);
        for (place, order) in (1..).zip(orders.current()) {
            match &partition.apply(&batch(place, order.request()))[0].outcome {
                Outcome::Rejected(reject) => drop(codes.insert(reject.code().to_owned())),
                Outcome::Accepted(accepted) => {
                    let changes = accepted.delta.events.iter().filter_map(|event| event.record());
                    effects.extend(changes.map(|change| change.effect.wire_name()));
                }
            }
        }
    }
    for code in
        ["duplicate-part", "order-persist-failed", "part-of-another-record", "version-conflict"]
    {
        assert!(codes.contains(code), "no order was refused as {code}: {codes:?}");
    }
    assert_eq!(effects.len(), 3, "{effects:?}");
}
