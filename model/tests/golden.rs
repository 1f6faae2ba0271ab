//! Golden bytes: what stands in logs, checkpoints and on the peer link, pinned. A change here is a
//! change of format: it needs a new version (decision 6), never a new expectation. The bytes of
//! every version that was ever released stay here, and every build reads them.

#![allow(clippy::unwrap_used, reason = "what a test takes for granted it unwraps")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use model::codec::Versioned;
use model::partition::ChunkSink;
use model::{
    Acceptance, Action, Answer, ArchiveEntry, ArchivedTable, Batch, BranchId, BranchKey,
    BulkOperation, Command, CommandId, DedupLimits, Definition, Delta, Effect, Event, EventChange,
    Hash, Head, Incarnation, LogCursor, LogHead, ModuleChange, ModuleId, Mutation, Object, Offset,
    Origin, Outcome, Part, Partition, Precondition, Purge, Read, RecordChange, RecordKey, Reject,
    Replace, Request, Reserve, Reset, Restore, RestoreMode, Revision, SaveOrder, Schema, Seed,
    TableName, Timestamp, Validation, Value, VersionRule, Write, codec,
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
        #[cfg(feature = "next-level")]
        note: None,
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
    Request::Write(Write::of(vec![Mutation {
        preconditions: vec![Precondition::MustExist, Precondition::VersionIs(2)],
        ..Mutation::new(Action::Save, "t", object(r#"{"id":"7"}"#))
    }]))
}

/// A value has these bytes, and these bytes are this value.
fn pinned<T: Versioned + PartialEq + std::fmt::Debug>(value: &T, bytes: &str) {
    assert_eq!(hex(&codec::encode(value)), bytes);
    assert_eq!(&codec::decode::<T>(&codec::encode(value)).unwrap(), value);
}

#[test]
fn an_event() {
    pinned(
        &event(),
        "1301ac02ad0298c2c8b7bf68056576742d31000174010274730101370102696404026964030137016e\
         0204302e313001620101016c040200050001000201730131010472657374010000000001000020abab\
         abababababababababababababababababababababababababababababab",
    );
}

#[test]
fn an_event_of_the_whole_module() {
    let table = TableName::parse("t").unwrap();
    let change = ModuleChange {
        operation: BulkOperation::Replace,
        details: object(r#"{"tables":["t"]}"#),
        records: vec![
            (table.clone(), RecordKey("7".into()), None),
            (table, RecordKey("8".into()), Some(Arc::new(object(r#"{"id":"8"}"#)))),
        ],
    };
    let event = Event { change: EventChange::Module(change), part: None, ..event() };
    pinned(
        &event,
        "1301ac02ad0298c2c8b7bf68056576742d31010301067461626c657304010301740201740137000174\
         013801010269640301380001730131010472657374010000000001000020ababababababababababab\
         ababababababababababababababababababababab",
    );
    let acts = [
        BulkOperation::Purge,
        BulkOperation::Restore,
        BulkOperation::Reset,
        BulkOperation::Replace,
    ];
    assert_eq!(hex(&codec::bare(&acts)), "00010203");
    assert_eq!(hex(&codec::bare(&BulkOperation::Sequence)), "04");
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
    let mutation = Mutation {
        origin: Some(origin()),
        ..Mutation::new(Action::Insert, "t", object(r#"{"id":"7"}"#))
    };
    let last_event = Some(Some("evt-1".to_owned()));
    let requests = vec![
        Request::SaveOrder(Box::new(order)),
        purge(),
        restore(RestoreMode::Append),
        restore(RestoreMode::Replace),
        Request::Reset(reset),
        replace(r#"{"t":[{"id":"8"}]}"#),
        Request::Write(Write { mutations: vec![mutation], last_event }),
    ];
    let entry = batch(requests);
    assert_eq!(
        hex(&entry.encode()),
        "0100100198c2c8b7bf688001100303030303030303030303030303030307017301310364617203706f\
         730104726573740100000000010000040102696403016f01010102696403016c010101026964030170\
         00020001010102696403026c73010175017301320364617203706f7301047265737401000000000100\
         00050101740377687901026d6501017301330364617203706f73010472657374010000000001000006\
         0770757267652d310000010377687900017301340364617203706f7301047265737401000000000100\
         00060770757267652d310100010377687900017301350364617203706f730104726573740100000000\
         01000007010101740400037768790001017301360364617203706f7301047265737401000000000100\
         00080101740401050102696403013801ac02017301370364617203706f730104726573740100000000\
         010000000100017401026964030137000101047265737401000000000100000101056576742d31",
    );
    assert_eq!(Batch::decode(&entry.encode()).unwrap(), entry);
}

#[test]
fn a_batch() {
    let reserve = Request::Reserve(Reserve { table: "t".to_owned(), field: "no".to_owned() });
    let seed = Request::Seed(Arc::new(Seed { tables: object(r#"{"t":[]}"#) }));
    let entry = batch(vec![write(), reserve, seed]);
    assert_eq!(
        hex(&entry.encode()),
        "0100100198c2c8b7bf688001100303030303030303030303030303030303017301310364617203706f\
         7301047265737401000000000100000001020174010269640301370200070200000173013203646172\
         03706f730104726573740100000000010000030174026e6f017301330364617203706f730104726573\
         740100000000010000020101740400",
    );
    assert_eq!(Batch::decode(&entry.encode()).unwrap(), entry);
}

#[test]
fn an_outcome() {
    let accepted = Outcome::Accepted(Acceptance {
        delta: Arc::new(Delta { key: key(), incarnation: Incarnation(1), events: Vec::new() }),
        reserved: None,
        repeated: true,
    });
    assert_eq!(hex(&codec::bare(&accepted)), "000364617203706f7301000001");
    let rejected = Outcome::Rejected(Reject::DedupFull { max_bytes: 300, retry_after_ms: 5 });
    assert_eq!(hex(&codec::bare(&rejected)), "010bac0205");
    let rejects = [
        Reject::LastEvent { expected: Some("a".to_owned()), received: None },
        Reject::Order { message: "no".to_owned() },
        Reject::Replace { reason: "why".to_owned(), details: object(r#"{"key":"7"}"#) },
        Reject::NoHistory { entry: "e".to_owned() },
    ];
    assert_eq!(hex(&codec::bare(&rejects)), "130101610014026e6f150377687901036b6579030137160165");
}

#[test]
fn a_history_and_a_log_on_their_way_to_another_node() {
    let reads =
        [Read::Archive { entry: None }, Read::Archive { entry: Some("e".to_owned()) }, Read::Log];
    assert_eq!(hex(&codec::bare(&reads)), "07000701016508");
    let at = Timestamp(1_795_220_377_740);
    let entry = ArchiveEntry {
        id: "e".to_owned(),
        at,
        reason: "why".to_owned(),
        requested_by: Some("me".to_owned()),
        revision: Revision(300),
        tables: vec![ArchivedTable {
            table: TableName::parse("t").unwrap(),
            key_fields: [Arc::from("id")].into(),
            first_keys: vec![RecordKey("7".into())],
            records: vec![Arc::new(object(r#"{"id":"7"}"#))],
        }],
    };
    assert_eq!(
        hex(&codec::bare(&Answer::Archive(vec![Arc::new(entry)]))),
        "0701016598c2c8b7bf680377687901026d65ac02010174010269640101370101026964030137"
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
        hex(&codec::bare(&Answer::Log(log))),
        "080364617203706f7301ac02ad0298c2c8b7bf68020198c2c8b7bf680101013701030137056576742d\
         31ac0298c2c8b7bf680102747301013701030137056576742d31ac0298c2c8b7bf68",
    );
}

struct ChunkHashes(BTreeMap<String, String>);

impl ChunkSink for ChunkHashes {
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
    let insert = Request::Write(Write::of(vec![Mutation::new(Action::Insert, "t", object("{}"))]));
    let reserve = Request::Reserve(Reserve { table: "t".to_owned(), field: "no".to_owned() });
    let mut partition = Partition::default();
    let tables = replace(r#"{"t":[{"id":"8"},{"id":"9"}]}"#);
    let define = Request::Define(Arc::new(definition));
    let requests = vec![define, insert.clone(), reserve, write(), tables, purge(), insert];
    partition.apply(&batch(requests));
    let mut names = ChunkHashes(BTreeMap::new());
    partition.chunks(&mut names);
    let lines: Vec<String> = names.0.iter().map(|(name, hash)| format!("{name} {hash}")).collect();
    assert_eq!(
        lines.join("\n"),
        "b/dar/pos/archive/purge-b3297052-cbd5-49f2-b5cb-e45bd62f4126/0000000000000000 bd02c6b8148baeea\n\
         b/dar/pos/archive/purge-b3297052-cbd5-49f2-b5cb-e45bd62f4126/head 2b4d9476d24780a6\n\
         b/dar/pos/dedup/client/0000000000000000 289ea0216404b78a\n\
         b/dar/pos/events/tail 6e164ab2ce4d0fd3\n\
         b/dar/pos/head 1b01e7f467b06f07\n\
         b/dar/pos/records/t/0000000000000000 55cb795b31ed943d\n\
         b/dar/pos/removed/t 278171173f4c5dcb\n\
         partition fc9616e778a91ca9\n\
         schema/0f9958bd868d6898df4f4a37da4812ee7019261fbc2526958b8623e213d598b8 a6ec8a758e928a71"
    );
    assert_eq!(
        partition.state_hash().to_string(),
        "beb87aaec8b7ada11b3d6b3197768ef5d12d4e6b6a87177412f0919fba9075a5"
    );
}
