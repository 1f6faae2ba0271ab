//! Laws: random orders, saved in random states, leave every replica with the same state.

#![allow(clippy::unwrap_used, reason = "what a test takes for granted it unwraps")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compat::SaveOrder;
use model::{
    Answer, Batch, BranchId, BranchKey, Command, CommandId, DedupLimits, Definition, ModuleId,
    Origin, Outcome, Partition, Read, Request, Schema, Timestamp, Validation, Value, VersionRule,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use shared::{OrderParts, StoreContents, any_order_parts};

#[path = "../../model/tests/laws/shared.rs"]
mod shared;

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
    any_order_parts().prop_map(|OrderParts { header, lines, payments }| SaveOrder {
        header,
        lines,
        payments,
        ..SaveOrder::default()
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
                let mut held = StoreContents::default();
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
