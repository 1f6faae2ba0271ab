//! History: random batches over a lenient and a strict branch:module.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Action, Alias, Batch, BranchId, BranchKey, ChildLink, Command, CommandId, Conventions,
    DedupLimits, Definition, Entropy, ModuleId, Mutation, Object, Origin, Partition, PatternPart,
    Precondition, Purge, RecordMutation, Replace, ReplaceChildren, Request, Reserve, Reset,
    Restore, RestoreMode, Schema, Seed, SequenceRule, TableName, Timestamp, Transaction,
    Validation, Value, VersionRule,
};
use proptest::prelude::*;

use crate::shared::{OrderParts, any_order_parts};

const SCHEMA: &str = r#"{"tables": [
    {"name": "order_header", "fields": [
        {"name": "id", "type": "string", "primaryKey": true},
        {"name": "note", "type": "string", "nullable": true},
        {"name": "shiftId", "type": "string", "nullable": true},
        {"name": "updatedAt", "type": "timestamp", "nullable": true}]},
    {"name": "order_line", "fields": [
        {"name": "id", "type": "string", "primaryKey": true},
        {"name": "orderId", "type": "string", "nullable": true,
            "references": {"table": "order_header", "column": "id"}},
        {"name": "dish", "type": "string", "nullable": true,
            "references": {"table": "dish", "column": "code"}},
        {"name": "quantity", "type": "integer", "nullable": true}]},
    {"name": "dish", "fields": [
        {"name": "id", "type": "string", "primaryKey": true},
        {"name": "code", "type": "string", "nullable": true, "unique": true}]},
    {"name": "ticket", "fields": [
        {"name": "id", "type": "string", "primaryKey": true},
        {"name": "seat", "type": "integer", "nullable": true}]},
    {"name": "order_payment", "fields": [
        {"name": "id", "type": "string", "primaryKey": true},
        {"name": "orderId", "type": "string", "nullable": true,
            "references": {"table": "order_header", "column": "id"}}]},
    {"name": "order_line_status_log", "fields": [
        {"name": "id", "type": "string", "primaryKey": true},
        {"name": "orderLineId", "type": "string", "nullable": true,
            "references": {"table": "order_line", "column": "id"}},
        {"name": "orderId", "type": "string", "nullable": true}]}
]}"#;

/// Good enough for strict; its tickets take numbers.
const SEED: &str = r#"{"dishes": [{"id": "d0", "code": "c0"}], "order_header": [{"id": "o0"}],
    "ticket": [{"seat": 1}, {"seat": 2}]}"#;

/// The key of a branch's only module.
pub(crate) fn key(branch: &str) -> BranchKey {
    BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse("pos").unwrap())
}

/// What a shop takes for granted about these tables.
fn conventions() -> Conventions {
    let text = str::to_owned;
    let link = |(table, field, parent): (&str, &str, &str)| ChildLink {
        table: text(table),
        field: text(field),
        parent: text(parent),
    };
    Conventions {
        aliases: vec![Alias { name: text("orders"), table: text("order_header") }],
        children: [
            ("order_line", "orderId", "order_header"),
            ("order_payment", "orderId", "order_header"),
            ("order_line_status_log", "orderId", "order_header"),
            ("order_line_status_log", "orderLineId", "order_line"),
        ]
        .map(link)
        .to_vec(),
        required: ["order_line", "order_payment"]
            .map(|table| (text(table), text("orderId")))
            .to_vec(),
        versioned: ["order_header", "order_line"].map(text).to_vec(),
        ..Conventions::default()
    }
}

fn definition(branch: &str, remembered: u64) -> Request {
    let doc = Value::from_json(SCHEMA.as_bytes()).unwrap();
    let number = PatternPart::Number { width: 0, pad: '0' };
    let rule = SequenceRule {
        start: 100,
        pattern: vec![PatternPart::Text("T-".to_owned()), number],
        ..SequenceRule::plain()
    };
    let strict = branch == "strict";
    Request::Define(Arc::new(Definition {
        schema: Arc::new(Schema::read_under("pos", &doc, &conventions()).unwrap().schema),
        validation: if strict { Validation::Strict } else { Validation::Lenient },
        version_rule: if strict { VersionRule::Read } else { VersionRule::Next },
        sequences: BTreeMap::from([(
            TableName::parse("ticket").unwrap(),
            BTreeMap::from([("id".to_owned(), rule)]),
        )]),
        dedup: DedupLimits { bytes_max: remembered * 48, keep_ms: 500 },
    }))
}

/// A partition with both branches defined.
pub(crate) fn start() -> Partition {
    let mut partition = Partition::default();
    let define = |branch: &str| command("define", branch, definition(branch, 40));
    let commands = vec![define("lenient"), define("strict")];
    let stamped = Timestamp(1_795_220_000_000);
    partition.apply(&Batch { level: 1, stamped, elapsed_ms: 0, entropy: [0; 16], commands });
    partition
}

fn command(id: &str, branch: &str, request: Request) -> Command {
    Command {
        id: CommandId { session: "s".to_owned(), request: id.to_owned() },
        key: key(branch),
        origin: Arc::new(Origin::default()),
        request,
    }
}

/// Up to `most` batches. Later batches repeat earlier commands now and then.
pub(crate) fn batches(most: usize) -> impl Strategy<Value = Vec<Batch>> {
    let batch = (prop::collection::vec(any_command(), 1..5), -50..200_i64, 0..60_u64, any::<u64>());
    prop::collection::vec(batch, 1..=most).prop_map(|batches| {
        let mut stamped = 1_795_220_000_000;
        let mut sent: Vec<Command> = Vec::new();
        let mut entries: Vec<String> = Vec::new();
        let batch = |(drawn, moved, elapsed_ms, random): (Vec<_>, i64, u64, u64)| {
            stamped += moved;
            let mut entropy = [7; 16];
            entropy[..8].copy_from_slice(&random.to_le_bytes());
            let mut commands = Vec::new();
            for (index, drawn) in (0..).zip(drawn) {
                commands.push(place(drawn, &mut sent, &entries));
                // What a purge calls its entry is a function of the batch alone.
                let id = Entropy::new(entropy, index).uuid4();
                entries.push(format!("purge-{id}"));
            }
            Batch { level: 1, stamped: Timestamp(stamped), elapsed_ms, entropy, commands }
        };
        batches.into_iter().map(batch).collect()
    })
}

/// What is asked, and whether it is new, a retry of an earlier one, or a misuse of its id.
#[derive(Debug, Clone)]
enum GeneratedStep {
    New(&'static str, Request),
    Retry(usize),
    Reuse(usize, Request),
    /// Brings back what one of the latest commands took out, if it was one that did.
    Restore(&'static str, usize, RestoreMode),
}

fn place(drawn: GeneratedStep, sent: &mut Vec<Command>, entries: &[String]) -> Command {
    let earlier = |n: usize, sent: &[Command]| sent.get(n % sent.len().max(1)).cloned();
    let placed = match drawn {
        GeneratedStep::New(branch, request) => command(&sent.len().to_string(), branch, request),
        GeneratedStep::Restore(branch, back, mode) => {
            let took_out = |(command, entry): (&Command, &String)| {
                let request = matches!(&command.request, Request::Purge(_) | Request::Reset(_));
                (request && command.key == key(branch)).then(|| entry.clone())
            };
            let known = sent.iter().zip(entries).rev().filter_map(took_out).nth(back);
            let entry = known.unwrap_or_else(|| "purge-none".to_owned());
            let restore = Restore { entry, mode, fill: false, reason: None, requested_by: None };
            command(&sent.len().to_string(), branch, Request::Restore(restore))
        }
        GeneratedStep::Retry(n) => {
            earlier(n, sent).unwrap_or_else(|| command("0", "strict", ticket(1)))
        }
        GeneratedStep::Reuse(n, request) => match earlier(n, sent) {
            Some(earlier) => Command { request, ..earlier },
            None => command("0", "strict", request),
        },
    };
    sent.push(placed.clone());
    placed
}

fn ticket(number: u64) -> Request {
    let record: Object = [("seat", number)].into_iter().collect();
    let table = "ticket".to_owned();
    let mutation = RecordMutation::new(Action::Insert, table, record);
    Request::Transaction(Transaction::of(vec![mutation]))
}

fn branch() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["lenient", "strict"])
}

fn any_command() -> impl Strategy<Value = GeneratedStep> {
    prop_oneof![
        16 => (branch(), any_request()).prop_map(|(branch, request)| GeneratedStep::New(branch, request)),
        1 => any::<usize>().prop_map(GeneratedStep::Retry),
        1 => (any::<usize>(), any_request()).prop_map(|(n, request)| GeneratedStep::Reuse(n, request)),
        2 => (branch(), 0..3_usize, any::<bool>()).prop_map(|(branch, back, append)| {
            let mode = if append { RestoreMode::Append } else { RestoreMode::Replace };
            GeneratedStep::Restore(branch, back, mode)
        }),
        1 => (branch(), 5..60_u64)
            .prop_map(|(branch, max)| GeneratedStep::New(branch, definition(branch, max))),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    let mutations =
        prop_oneof![3 => prop::collection::vec(any_mutation(), 1), 1 => any_mutations()];
    let last_event = prop_oneof![
        12 => Just(None),
        1 => Just(Some(None)),
        1 => Just(Some(Some("evt-mine".to_owned()))),
    ];
    prop_oneof![
        20 => (mutations, last_event)
            .prop_map(|(mutations, last_event)| {
                let mut transaction = Transaction::of(mutations);
                transaction.preconditions.extend(last_event.map(Precondition::LastEvent));
                Request::Transaction(transaction)
            }),
        2 => any_order(),
        2 => any_purge(),
        1 => (any::<bool>(), 0..4_u8).prop_map(|(seeded, odd)| reset(seeded, odd == 0)),
        2 => any_replace(),
        4 => (0..9_u64).prop_map(ticket),
        2 => prop::sample::select(vec![("ticket", "id"), ("ticket", "seat"), ("none", "id")])
            .prop_map(|(table, field)| {
                Request::Reserve(Reserve { table: table.to_owned(), field: field.to_owned() })
            }),
    ]
}

fn any_order() -> impl Strategy<Value = Request> {
    any_order_parts().prop_map(|OrderParts { header, lines, payments }| {
        let id = header.get("id").cloned().unwrap_or_default();
        let saved = RecordMutation::new(Action::Save, "order_header", header);
        let mut transaction = Transaction::of([saved]);
        for (table, rows) in [("order_line", lines), ("order_payment", payments)] {
            let children = rows.map(|rows| ReplaceChildren {
                table: table.to_owned(),
                parent_field: "orderId".to_owned(),
                parent: id.clone(),
                rows,
            });
            transaction.mutations.extend(children.map(Mutation::ReplaceChildren));
        }
        Request::Transaction(transaction)
    })
}

fn any_purge() -> impl Strategy<Value = Request> {
    let names =
        vec!["orders", "lines", "payments", "order_line_status_log", "dish", "ticket", "no"];
    prop::sample::subsequence(names, 0..7).prop_map(|names| {
        Request::Purge(Purge {
            tables: names.into_iter().map(str::to_owned).collect(),
            reason: "end of day".to_owned(),
            requested_by: None,
            reset_events: true,
        })
    })
}

fn reset(seeded: bool, numbers: bool) -> Request {
    let tables = Value::from_json(SEED.as_bytes()).unwrap().as_object().unwrap().clone();
    let seed = seeded.then(|| Arc::new(Seed { tables }));
    Request::Reset(Reset { seed, reason: "new day".to_owned(), requested_by: None, numbers })
}

/// Tables of few rows: a key may come twice, be missing, or point at nothing.
fn any_replace() -> impl Strategy<Value = Request> {
    let id = prop_oneof![15 => (0..4_u32).prop_map(|n| Value::String(format!("d{n}"))), 1 => Just(Value::Null)];
    let row = (id, 0..9_u32).prop_map(|(id, code)| -> Value {
        let code = Value::String(format!("c{code}"));
        Value::from([("id", id), ("code", code)].into_iter().collect::<Object>())
    });
    let dishes = prop::collection::vec(row, 0..4).prop_map(|rows| ("dish", Value::Array(rows)));
    let tickets = (0..3_u64).prop_map(|number| {
        let row: Object =
            [("id", Value::from("mine")), ("seat", number.into())].into_iter().collect();
        ("ticket", Value::Array(vec![row.into()]))
    });
    let table = prop_oneof![
        6 => dishes,
        3 => tickets,
        1 => Just(("lines", Value::Array(Vec::new()))),
        1 => Just(("orders", Value::Null)),
        1 => Just(("none", Value::Null)),
    ];
    let revision = prop_oneof![3 => Just(None), 1 => (0..200_u64).prop_map(Some)];
    (prop::collection::vec(table, 0..3), revision).prop_map(|(tables, revision)| {
        Request::Replace(Replace { tables: Arc::new(tables.into_iter().collect()), revision })
    })
}

fn any_mutations() -> impl Strategy<Value = Vec<RecordMutation>> {
    prop::collection::vec(any_mutation(), 0..5)
}

fn any_mutation() -> impl Strategy<Value = RecordMutation> {
    let action = prop::sample::select(vec![
        Action::Insert,
        Action::Insert,
        Action::Merge,
        Action::Save,
        Action::Save,
        Action::Delete,
    ]);
    let version = prop_oneof![2 => Just(None), 6 => (1..5_u64).prop_map(Some)];
    let precondition = prop_oneof![
        8 => Just(Vec::new()),
        1 => Just(vec![Precondition::MustExist]),
        1 => (0..3_u64).prop_map(|version| vec![Precondition::VersionIs(version)]),
    ];
    let named = prop_oneof![15 => Just(false), 1 => Just(true)];
    (action, any_record(), version, precondition, named).prop_map(|drawn| {
        let (action, (table, mut record), version, preconditions, named) = drawn;
        let event_id = Some("evt-mine".to_owned());
        let origin = named.then(|| Arc::new(Origin { event_id, ..Origin::default() }));
        if let Some(version) = version.filter(|_| table.starts_with("order")) {
            record.insert("version", Value::from(version));
        }
        RecordMutation {
            preconditions,
            origin,
            ..RecordMutation::new(action, table.to_owned(), record)
        }
    })
}

/// Few keys, few values: so that commands meet.
fn any_record() -> impl Strategy<Value = (&'static str, Object)> {
    let few = |prefix: &'static str| (0..4_u32).prop_map(move |n| format!("{prefix}{n}"));
    let maybe = |prefix: &'static str| prop_oneof![3 => few(prefix).prop_map(Value::String), 1 => Just(Value::Null)];
    let order = (few("o"), maybe("note"), 0..12_u8).prop_map(|(id, note, odd)| {
        let mut record: Object = [("id", Value::String(id)), ("note", note)].into_iter().collect();
        if odd == 0 {
            record.insert("colour", Value::from("red"));
        }
        record
    });
    let line = (few("l"), maybe("o"), maybe("c")).prop_map(|(id, order, dish)| {
        [("id", Value::String(id)), ("orderId", order), ("dish", dish)].into_iter().collect()
    });
    let dish = (few("d"), maybe("c"))
        .prop_map(|(id, code)| [("id", Value::String(id)), ("code", code)].into_iter().collect());
    prop_oneof![
        order.prop_map(|record: Object| ("order_header", record)),
        line.prop_map(|record: Object| ("order_line", record)),
        dish.prop_map(|record: Object| ("dish", record)),
    ]
}
