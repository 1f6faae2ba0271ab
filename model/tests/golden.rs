//! Golden bytes: what stands in logs, checkpoints and on the peer link, pinned. A change here is a
//! change of format: it needs a new version or a new feature level, never a new expectation.
//!
//! Versions 1 and 2 are no longer read; these are the bytes of version 3.

#![allow(clippy::unwrap_used, reason = "what a test takes for granted it unwraps")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use model::partition::ChunkSink;
use model::{
    Accepted, Action, Answer, Batch, BranchId, BranchKey, Command, CommandId, DedupLimits,
    Definition, Delta, Effect, Event, EventChange, Guard, Hash, Head, HistoryEntry, HistoryTable,
    Incarnation, LogCursor, LogHead, ModuleAct, ModuleChange, ModuleId, Object, Offset, Origin,
    Outcome, Part, Partition, Purge, Read, RecordChange, RecordKey, Reject, Replace, Request,
    Reserve, Reset, Restore, RestoreMode, Revision, SaveOrder, Schema, Seed, TableName, Timestamp,
    Validation, Value, Verb, VersionRule, Write, codec,
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
        "04ac02ad0298c2c8b7bf68056576742d31000174010274730101370102696404026964030137016e02\
         04302e313001620101016c040200050001000201730131010472657374010000000001000020ababab\
         ababababababababababababababababababababababababababababab",
    );
}

#[test]
fn an_event_of_the_whole_module() {
    let table = TableName::parse("t").unwrap();
    let change = ModuleChange {
        act: ModuleAct::Replace,
        details: object(r#"{"tables":["t"]}"#),
        records: vec![
            (table.clone(), RecordKey("7".into()), None),
            (table, RecordKey("8".into()), Some(Arc::new(object(r#"{"id":"8"}"#)))),
        ],
    };
    let event = Event { change: EventChange::Module(change), part: None, ..event() };
    assert_eq!(
        hex(&codec::encode(&event)),
        "04ac02ad0298c2c8b7bf68056576742d31010301067461626c65730401030174020174013700017401\
         3801010269640301380001730131010472657374010000000001000020abababababababababababab\
         abababababababababababababababababababab",
    );
    let acts = [ModuleAct::Purge, ModuleAct::Restore, ModuleAct::Reset, ModuleAct::Replace];
    assert_eq!(hex(&codec::encode(&acts)), "0400010203");
    assert_eq!(hex(&codec::encode(&ModuleAct::Sequence)), "0404");
}

fn purge() -> Request {
    Request::Purge(Purge {
        tables: vec!["t".to_owned()],
        reason: "why".to_owned(),
        requested_by: Some("me".to_owned()),
        reset_events: true,
    })
}

fn replace(json: &str) -> Request {
    Request::Replace(Replace { tables: object(json), revision: Some(300) })
}

#[test]
fn a_batch_of_acts_and_orders() {
    let order = SaveOrder {
        header: object(r#"{"id":"o"}"#),
        lines: Some(vec![object(r#"{"id":"l"}"#)]),
        payments: Some(vec![object(r#"{"id":"p"}"#)]),
        status_logs: None,
        line_status_logs: vec![None, Some(vec![object(r#"{"id":"ls"}"#)])],
        actor: Some("u".to_owned()),
    };
    let restore = |mode| {
        let (entry, reason) = ("purge-1".to_owned(), Some("why".to_owned()));
        Request::Restore(Restore { entry, mode, fill: false, reason, requested_by: None })
    };
    let seed = Some(Arc::new(Seed { tables: object(r#"{"t":[]}"#) }));
    let reset = Reset { seed, reason: "why".to_owned(), requested_by: None, numbers: true };
    let verb =
        Verb { origin: Some(origin()), ..Verb::new(Action::Insert, "t", object(r#"{"id":"7"}"#)) };
    let last_event = Some(Some("evt-1".to_owned()));
    let requests = vec![
        Request::SaveOrder(Box::new(order)),
        purge(),
        restore(RestoreMode::Append),
        restore(RestoreMode::Replace),
        Request::Reset(reset),
        replace(r#"{"t":[{"id":"8"}]}"#),
        Request::Write(Write { verbs: vec![verb], last_event }),
    ];
    assert_eq!(
        hex(&codec::encode(&batch(requests))),
        "040198c2c8b7bf688001100303030303030303030303030303030307017301310364617203706f7301\
         04726573740100000000010000040102696403016f01010102696403016c0101010269640301700002\
         0001010102696403026c73010175017301320364617203706f73010472657374010000000001000005\
         0101740377687901026d6501017301330364617203706f730104726573740100000000010000060770\
         757267652d310000010377687900017301340364617203706f73010472657374010000000001000006\
         0770757267652d310100010377687900017301350364617203706f7301047265737401000000000100\
         0007010101740400037768790001017301360364617203706f73010472657374010000000001000008\
         0101740401050102696403013801ac02017301370364617203706f7301047265737401000000000100\
         00000100017401026964030137000101047265737401000000000100000101056576742d31",
    );
}

#[test]
fn a_batch() {
    let reserve = Request::Reserve(Reserve { table: "t".to_owned(), field: "no".to_owned() });
    let seed = Request::Seed(Arc::new(Seed { tables: object(r#"{"t":[]}"#) }));
    assert_eq!(
        hex(&codec::encode(&batch(vec![write(), reserve, seed]))),
        "040198c2c8b7bf688001100303030303030303030303030303030303017301310364617203706f7301\
         0472657374010000000001000000010201740102696403013702000702000001730132036461720370\
         6f730104726573740100000000010000030174026e6f017301330364617203706f7301047265737401\
         00000000010000020101740400",
    );
}

#[test]
fn an_outcome() {
    let accepted = Outcome::Accepted(Accepted {
        delta: Arc::new(Delta { key: key(), incarnation: Incarnation(1), events: Vec::new() }),
        reserved: None,
        repeated: true,
    });
    assert_eq!(hex(&codec::encode(&accepted)), "04000364617203706f7301000001");
    let rejected = Outcome::Rejected(Reject::OutcomesFull { max_bytes: 300, retry_after_ms: 5 });
    assert_eq!(hex(&codec::encode(&rejected)), "04010bac0205");
    let rejects = [
        Reject::LastEvent { expected: Some("a".to_owned()), received: None },
        Reject::Order { message: "no".to_owned() },
        Reject::Replace { reason: "why".to_owned(), details: object(r#"{"key":"7"}"#) },
        Reject::NoHistory { entry: "e".to_owned() },
    ];
    assert_eq!(
        hex(&codec::encode(&rejects)),
        "04130101610014026e6f150377687901036b6579030137160165"
    );
}

#[test]
fn a_history_and_a_log_on_their_way_to_another_node() {
    let reads =
        [Read::History { entry: None }, Read::History { entry: Some("e".to_owned()) }, Read::Log];
    assert_eq!(hex(&codec::encode(&reads)), "0407000701016508");
    let at = Timestamp(1_795_220_377_740);
    let entry = HistoryEntry {
        id: "e".to_owned(),
        at,
        reason: "why".to_owned(),
        requested_by: Some("me".to_owned()),
        revision: Revision(300),
        tables: vec![HistoryTable {
            table: TableName::parse("t").unwrap(),
            key_fields: [Arc::from("id")].into(),
            first_keys: vec![RecordKey("7".into())],
            records: vec![Arc::new(object(r#"{"id":"7"}"#))],
        }],
    };
    assert_eq!(
        hex(&codec::encode(&Answer::History(vec![Arc::new(entry)]))),
        "040701016598c2c8b7bf680377687901026d65ac02010174010269640101370101026964030137"
    );
    let cursor = LogCursor {
        key: Some(RecordKey("7".into())),
        id: Some(Value::from("7")),
        event_id: "evt-1".to_owned(),
        offset: Offset(300),
        at,
    };
    let log = LogHead {
        head: Head {
            key: key(),
            incarnation: Incarnation(1),
            offset: Offset(300),
            revision: Revision(301),
            last_updated_at: at,
            rows: 2,
        },
        first_at: Some(at),
        last: Some(cursor.clone()),
        tables: vec![("ts".to_owned(), cursor)],
    };
    assert_eq!(
        hex(&codec::encode(&Answer::Log(log))),
        "04080364617203706f7301ac02ad0298c2c8b7bf68020198c2c8b7bf68010101370103013705657674\
         2d31ac0298c2c8b7bf680102747301013701030137056576742d31ac0298c2c8b7bf68",
    );
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
        dedup: DedupLimits { bytes_max: 9_000, keep_ms: 1_000 },
    };
    let insert = Request::Write(Write::of(vec![Verb::new(Action::Insert, "t", object("{}"))]));
    let reserve = Request::Reserve(Reserve { table: "t".to_owned(), field: "no".to_owned() });
    let mut partition = Partition::default();
    let tables = replace(r#"{"t":[{"id":"8"},{"id":"9"}]}"#);
    let define = Request::Define(Arc::new(definition));
    let requests = vec![define, insert.clone(), reserve, write(), tables, purge(), insert];
    partition.apply(&batch(requests)).unwrap();
    let mut names = Names(BTreeMap::new());
    partition.chunks(&mut names);
    let lines: Vec<String> = names.0.iter().map(|(name, hash)| format!("{name} {hash}")).collect();
    assert_eq!(
        lines.join("\n"),
        "b/dar/pos/dedup/client/0000000000000000 8b28f71f751e08f4\n\
         b/dar/pos/events/tail 5d57f2334366ec5f\n\
         b/dar/pos/head 3c039b5934379096\n\
         b/dar/pos/history/purge-b3297052-cbd5-49f2-b5cb-e45bd62f4126/0000000000000000 9b64185a459e73ee\n\
         b/dar/pos/history/purge-b3297052-cbd5-49f2-b5cb-e45bd62f4126/head 008f2e634d7af4a1\n\
         b/dar/pos/records/t/0000000000000000 3d4174f643f57d40\n\
         b/dar/pos/removed/t 02693af0226a65fa\n\
         partition 7ed950570a1c8bfd\n\
         schema/43a2150463c41572abad0b5d59cec422b2318e9f8cfbb34a5d1221c79b9a2f10 43a2150463c41572"
    );
    assert_eq!(
        partition.state_hash().to_string(),
        "0781875c148728eec4942d50b633cd6e5b087ac731f503d43f54458fa56419a6"
    );
}
