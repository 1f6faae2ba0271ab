//! History: random batches over a lenient and a strict branch:module.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::partition::{ChunkSink, ChunkSource};
use model::{
    Action, Batch, BranchId, BranchKey, Command, CommandId, Definition, Guard, ModuleId, Object,
    Origin, Partition, Piece, Request, Reserve, Schema, SequenceRule, TableName, Timestamp,
    Validation, Value, Verb, VersionRule, Write,
};
use proptest::prelude::*;

const SCHEMA: &str = r#"{"tables": [
    {"name": "order_header", "fields": [
        {"name": "id", "type": "string", "primaryKey": true},
        {"name": "note", "type": "string", "nullable": true},
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
        {"name": "seat", "type": "integer", "nullable": true}]}
]}"#;

/// The key of a branch's only module.
pub(crate) fn key(branch: &str) -> BranchKey {
    BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse("pos").unwrap())
}

fn definition(branch: &str, outcomes_max: u32) -> Request {
    let doc = Value::from_json(SCHEMA.as_bytes()).unwrap();
    let number = Piece::Number { width: 0, pad: '0' };
    let rule = SequenceRule {
        start: 100,
        pattern: vec![Piece::Text("T-".to_owned()), number],
        ..SequenceRule::plain()
    };
    let strict = branch == "strict";
    Request::Define(Arc::new(Definition {
        schema: Arc::new(Schema::from_definition("pos", &doc).unwrap()),
        validation: if strict { Validation::Strict } else { Validation::Lenient },
        version_rule: if strict { VersionRule::Read } else { VersionRule::Next },
        sequences: BTreeMap::from([(
            TableName::parse("ticket").unwrap(),
            BTreeMap::from([("id".to_owned(), rule)]),
        )]),
        outcomes_max,
        outcomes_keep_ms: 500,
    }))
}

/// A partition with both branches defined.
pub(crate) fn start() -> Partition {
    let mut partition = Partition::default();
    let define = |branch: &str| command("define", branch, definition(branch, 40));
    let commands = vec![define("lenient"), define("strict")];
    let stamped = Timestamp(1_795_220_000_000);
    partition
        .apply(&Batch { level: 1, stamped, elapsed_ms: 0, entropy: [0; 16], commands })
        .unwrap();
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
        let batch = |(drawn, moved, elapsed_ms, chance): (Vec<_>, i64, u64, u64)| {
            stamped += moved;
            let mut entropy = [7; 16];
            entropy[..8].copy_from_slice(&chance.to_le_bytes());
            let commands = drawn.into_iter().map(|drawn| place(drawn, &mut sent)).collect();
            Batch { level: 1, stamped: Timestamp(stamped), elapsed_ms, entropy, commands }
        };
        batches.into_iter().map(batch).collect()
    })
}

/// What is asked, and whether it is new, a retry of an earlier one, or a misuse of its id.
#[derive(Debug, Clone)]
enum Drawn {
    New(&'static str, Request),
    Retry(usize),
    Reuse(usize, Request),
}

fn place(drawn: Drawn, sent: &mut Vec<Command>) -> Command {
    let earlier = |n: usize, sent: &[Command]| sent.get(n % sent.len().max(1)).cloned();
    let placed = match drawn {
        Drawn::New(branch, request) => command(&sent.len().to_string(), branch, request),
        Drawn::Retry(n) => earlier(n, sent).unwrap_or_else(|| command("0", "strict", seats(1))),
        Drawn::Reuse(n, request) => match earlier(n, sent) {
            Some(earlier) => Command { request, ..earlier },
            None => command("0", "strict", request),
        },
    };
    sent.push(placed.clone());
    placed
}

fn seats(seat: u64) -> Request {
    let record: Object = [("seat", seat)].into_iter().collect();
    let table = "ticket".to_owned();
    let verb = Verb::new(Action::Insert, table, record);
    Request::Write(Write::of(vec![verb]))
}

fn any_command() -> impl Strategy<Value = Drawn> {
    let branch = prop::sample::select(vec!["lenient", "strict"]);
    prop_oneof![
        12 => (branch, any_request()).prop_map(|(branch, request)| Drawn::New(branch, request)),
        1 => any::<usize>().prop_map(Drawn::Retry),
        1 => (any::<usize>(), any_request()).prop_map(|(n, request)| Drawn::Reuse(n, request)),
        1 => (prop::sample::select(vec!["lenient", "strict"]), 5..60_u32)
            .prop_map(|(branch, max)| Drawn::New(branch, definition(branch, max))),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    let verbs = prop_oneof![3 => prop::collection::vec(any_verb(), 1), 1 => any_verbs()];
    prop_oneof![
        10 => verbs.prop_map(|verbs| Request::Write(Write::of(verbs))),
        2 => (0..9_u64).prop_map(seats),
        1 => prop::sample::select(vec![("ticket", "id"), ("ticket", "seat"), ("none", "id")])
            .prop_map(|(table, field)| {
                Request::Reserve(Reserve { table: table.to_owned(), field: field.to_owned() })
            }),
    ]
}

fn any_verbs() -> impl Strategy<Value = Vec<Verb>> {
    prop::collection::vec(any_verb(), 0..5)
}

fn any_verb() -> impl Strategy<Value = Verb> {
    let action = prop::sample::select(vec![
        Action::Insert,
        Action::Insert,
        Action::Merge,
        Action::Save,
        Action::Save,
        Action::Delete,
    ]);
    let version = prop_oneof![2 => Just(None), 6 => (1..5_u64).prop_map(Some)];
    let guard = prop_oneof![
        8 => Just(Vec::new()),
        1 => Just(vec![Guard::MustExist]),
        1 => (0..3_u64).prop_map(|version| vec![Guard::VersionIs(version)]),
    ];
    (action, any_record(), version, guard).prop_map(|(action, drawn, version, guards)| {
        let (table, mut record) = drawn;
        if let Some(version) = version.filter(|_| table.starts_with("order")) {
            record.insert("version", Value::from(version));
        }
        Verb { guards, ..Verb::new(action, table.to_owned(), record) }
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

/// A checkpoint in memory.
#[derive(Default)]
pub(crate) struct Held(BTreeMap<String, Vec<u8>>);

impl ChunkSink for Held {
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        assert!(self.0.insert(name.to_owned(), bytes).is_none(), "{name} twice");
    }

    fn keep(&mut self, name: &str) {
        panic!("{name} was never let go in a history this short");
    }
}

impl ChunkSource for Held {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}
