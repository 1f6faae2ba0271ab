//! Golden bytes: what stands in logs, checkpoints and on the peer link, pinned. A change here is a
//! change of format: it needs a new version or a new feature level, never a new expectation.

#![allow(clippy::unwrap_used, reason = "what a test takes for granted it unwraps")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use model::partition::ChunkSink;
use model::{
    Accepted, Action, Batch, BranchId, BranchKey, Command, CommandId, Definition, Delta, Effect,
    Event, EventChange, Guard, Hash, Incarnation, ModuleId, Object, Offset, Origin, Outcome, Part,
    Partition, RecordChange, RecordKey, Reject, Request, Reserve, Revision, Schema, Seed,
    TableName, Timestamp, Validation, Value, Verb, VersionRule, Write, codec,
};

fn object(json: &str) -> Object {
    Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn key() -> BranchKey {
    BranchKey::new(BranchId::parse("dar").unwrap(), ModuleId::parse("pos").unwrap())
}

fn id(request: &str) -> CommandId {
    CommandId { session: "s".to_owned(), request: request.to_owned() }
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        source: Some("rest".to_owned()),
        client_meta: Some(Value::Null),
        include_record: true,
        ..Origin::default()
    })
}

fn event() -> Event {
    Event {
        offset: Offset(300),
        revision: Revision(301),
        at: Timestamp(1_795_220_377_740),
        id: "evt-1".to_owned(),
        change: EventChange::Record(RecordChange {
            table: TableName::parse("t").unwrap(),
            table_sent: Some("ts".to_owned()),
            effect: Effect::Merge,
            key: RecordKey("7".into()),
            key_fields: [Arc::from("id")].into(),
            record: Arc::new(object(r#"{"id":"7","n":0.10,"b":true,"l":[null,{}]}"#)),
        }),
        part: Some(Part { index: 0, count: 2 }),
        command: id("1"),
        origin: origin(),
        previous: Hash([0xab; 32]),
    }
}

fn batch(requests: Vec<Request>) -> Batch {
    let commands = (1..).zip(requests).map(|(n, request)| Command {
        id: id(&n.to_string()),
        key: key(),
        origin: origin(),
        request,
    });
    Batch {
        level: 1,
        stamped: Timestamp(1_795_220_377_740),
        elapsed_ms: 128,
        entropy: [3; 16],
        commands: commands.collect(),
    }
}

fn write() -> Request {
    Request::Write(Write::of(vec![Verb {
        guards: vec![Guard::MustExist, Guard::VersionIs(2)],
        ..Verb::new(Action::Save, "t", object(r#"{"id":"7"}"#))
    }]))
}

#[test]
fn an_event() {
    assert_eq!(
        hex(&codec::encode(&event())),
        "01ac02ad0298c2c8b7bf68056576742d310174010274730101370102696404026964030137016e02\
         04302e313001620101016c040200050001730131010472657374010000000001000020ababababab\
         ababababababababababababababababababababababababababab",
    );
}

#[test]
fn a_batch() {
    let reserve = Request::Reserve(Reserve { table: "t".to_owned(), field: "no".to_owned() });
    let seed = Request::Seed(Arc::new(Seed { tables: object(r#"{"t":[]}"#) }));
    assert_eq!(
        hex(&codec::encode(&batch(vec![write(), reserve, seed]))),
        "010198c2c8b7bf688001100303030303030303030303030303030303017301310364617203706f73\
         01047265737401000000000100000001020174010269640301370200070201730132036461720370\
         6f730104726573740100000000010000030174026e6f017301330364617203706f73010472657374\
         0100000000010000020101740400",
    );
}

#[test]
fn an_outcome() {
    let accepted = Outcome::Accepted(Accepted {
        delta: Arc::new(Delta { key: key(), incarnation: Incarnation(1), events: Vec::new() }),
        reserved: None,
        repeated: true,
    });
    assert_eq!(hex(&codec::encode(&accepted)), "01000364617203706f7301000001");
    let rejected = Outcome::Rejected(Reject::OutcomesFull { max: 300 });
    assert_eq!(hex(&codec::encode(&rejected)), "01010bac02");
}

struct Names(BTreeMap<String, String>);

impl ChunkSink for Names {
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.insert(name.to_owned(), blake3::hash(&bytes).to_hex()[..16].to_owned());
    }

    fn keep(&mut self, name: &str) {
        panic!("{name} was never let go");
    }
}

#[test]
fn a_checkpoint() {
    let schema =
        r#"{"tables":[{"name":"t","fields":[{"name":"id","type":"string","primaryKey":true}]}]}"#;
    let schema = Value::from_json(schema.as_bytes()).unwrap();
    let definition = Definition {
        schema: Arc::new(Schema::from_definition("pos", &schema).unwrap()),
        validation: Validation::Lenient,
        version_rule: VersionRule::Next,
        sequences: BTreeMap::new(),
        outcomes_max: 9,
        outcomes_keep_ms: 1_000,
    };
    let insert = Request::Write(Write::of(vec![Verb::new(Action::Insert, "t", object("{}"))]));
    let reserve = Request::Reserve(Reserve { table: "t".to_owned(), field: "no".to_owned() });
    let mut partition = Partition::default();
    let requests = vec![Request::Define(Arc::new(definition)), insert, reserve, write()];
    partition.apply(&batch(requests)).unwrap();
    let mut names = Names(BTreeMap::new());
    partition.chunks(&mut names);
    let lines: Vec<String> = names.0.iter().map(|(name, hash)| format!("{name} {hash}")).collect();
    assert_eq!(
        lines.join("\n"),
        "b/dar/pos/events/tail 42c2bad0f3733252\n\
         b/dar/pos/head 4ca80589ef08c526\n\
         b/dar/pos/outcomes/0000000000000000 495d764afc78580c\n\
         b/dar/pos/records/t/0000000000000000 bc3171ae6c727ca6\n\
         partition c710becee09fcad1\n\
         schema/5493d87e92c0985500635e18101a540233e873e057183853fef890697ed3d6db 5493d87e92c09855"
    );
    assert_eq!(
        partition.state_hash().to_string(),
        "0104919615c40c89b4d3da332d680939fe441f6f7fd01194707215313b494bc1"
    );
}
