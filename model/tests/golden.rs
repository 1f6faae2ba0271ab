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
    Acceptance, Action, Answer, ArchiveEntry, ArchivedTable, Batch, BatchPiece, BranchId,
    BranchKey, BulkOperation, ChangeComparison, ChangeCondition, ChangeOperand, ChangeSide,
    ChangedField, Command, CommandId, DedupLimits, Definition, Delta, Effect, Event, EventChange,
    FieldCondition, Hash, Head, Holds, Incarnation, LogCursor, LogHead, MendClock, ModuleChange,
    ModuleId, Object, Offset, Operator, Origin, Outcome, Part, Partition, PartitionEntry,
    Precondition, ProcedureCall, Purge, Read, RecordChange, RecordKey, RecordMutation, Reject,
    Replace, ReplaceChildren, Request, Reserve, Reset, Restore, RestoreMode, Revision, Schema,
    Seed, TableName, Timestamp, Transaction, Validation, Value, VersionRule, codec,
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
    Request::Transaction(Transaction::of(vec![RecordMutation {
        preconditions: vec![
            Precondition::MustExist,
            Precondition::VersionIs(2),
            Precondition::Field(FieldCondition {
                fields: vec!["f".to_owned()],
                values: vec!["v".to_owned()],
                holds: Holds::ListedOrAbsent,
                code: "c".to_owned(),
                member: "m".to_owned(),
            }),
            Precondition::UnmodifiedSince(Timestamp(1)),
            Precondition::LastKnown("7".into()),
        ],
        ..RecordMutation::new(Action::Save, "t", object(r#"{"id":"7"}"#))
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
    assert_eq!(hex(&codec::bare(&BulkOperation::Clock)), "05");
}

#[test]
fn a_batch_that_mends_a_clock() {
    let (reason, requested_by) = ("why".to_owned(), Some("me".to_owned()));
    let entry = batch(vec![Request::MendClock(MendClock { reason, requested_by })]);
    assert_eq!(
        hex(&entry.encode()),
        "0100100198c2c8b7bf688001100303030303030303030303030303030301017301310364617203706f\
         7301047265737401000000000100000b0377687901026d65",
    );
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
    Request::Replace(Replace { tables: object(json).into(), revision: Some(300) })
}

#[test]
fn a_batch_of_acts_and_calls() {
    let call = ProcedureCall { procedure: "p".to_owned(), arguments: vec![42, 1, 7] };
    let children = ReplaceChildren {
        table: "l".to_owned(),
        parent_field: "of".to_owned(),
        parent: "7".into(),
        rows: vec![object(r#"{"id":"8"}"#)],
    };
    let restore = |mode| {
        let (entry, reason) = ("purge-1".to_owned(), Some("why".to_owned()));
        Request::Restore(Restore { entry, mode, fill: false, reason, requested_by: None })
    };
    let seed = Some(Arc::new(Seed { tables: object(r#"{"t":[]}"#) }));
    let reset = Reset { seed, reason: "why".to_owned(), requested_by: None, numbers: true };
    let mutation = RecordMutation {
        origin: Some(origin()),
        ..RecordMutation::new(Action::Insert, "t", object(r#"{"id":"7"}"#))
    };
    let transaction = Transaction {
        mutations: vec![mutation.into(), children.into()],
        preconditions: vec![
            Precondition::LastEvent(Some("evt-1".to_owned())),
            Precondition::CommitDay { expected: Some("2026-11-21".to_owned()) },
        ],
    };
    let requests = vec![
        Request::Call(call),
        purge(),
        restore(RestoreMode::Append),
        restore(RestoreMode::Replace),
        Request::Reset(reset),
        replace(r#"{"t":[{"id":"8"}]}"#),
        Request::Transaction(transaction),
    ];
    let entry = batch(requests);
    assert_eq!(
        hex(&entry.encode()),
        "0100100198c2c8b7bf688001100303030303030303030303030303030307017301310364617203706f\
         730104726573740100000000010000040170032a0107017301320364617203706f7301047265737401\
         00000000010000050101740377687901026d6501017301330364617203706f73010472657374010000\
         0000010000060770757267652d310000010377687900017301340364617203706f7301047265737401\
         00000000010000060770757267652d310100010377687900017301350364617203706f730104726573\
         74010000000001000007010101740400037768790001017301360364617203706f7301047265737401\
         00000000010000080101740401050102696403013801ac02017301370364617203706f730104726573\
         740100000000010000000200000174010269640301370001010472657374010000000001000001016c\
         026f660301370101026964030138020601056576742d3105010a323032362d31312d3231",
    );
    assert_eq!(Batch::decode(&entry.encode()).unwrap(), entry);
}

#[test]
fn a_condition_over_a_change() {
    let field = |side, name: &str| ChangedField { side, field: name.to_owned() };
    let clause = vec![
        ChangeComparison {
            left: field(ChangeSide::Before, "s"),
            operator: Operator::Equal,
            right: ChangeOperand::Value("v".into()),
        },
        ChangeComparison {
            left: field(ChangeSide::After, "s"),
            operator: Operator::In,
            right: ChangeOperand::Field(field(ChangeSide::Before, "t")),
        },
    ];
    let condition = ChangeCondition { clauses: vec![clause], code: "c".to_owned() };
    let condition = Precondition::Change(condition);
    assert_eq!(hex(&codec::bare(&condition)), "070102000173010003017601017307010001740163");
    let operators = [
        Operator::Is,
        Operator::Equal,
        Operator::NotEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::In,
        Operator::NotIn,
        Operator::Like,
    ];
    assert_eq!(hex(&codec::bare(&operators)), "00010203040506070809");
    let mut mutation = RecordMutation::new(Action::Merge, "t", object(r#"{"id":"7"}"#));
    mutation.preconditions.push(condition);
    let entry = batch(vec![Request::Transaction(Transaction::of([mutation]))]);
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
         7301047265737401000000000100000001000201740102696403013705000102020101660101760201\
         63016d0302040301370000017301320364617203706f73010472657374010000000001000003017402\
         6e6f017301330364617203706f730104726573740100000000010000020101740400",
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
        Reject::Procedure {
            code: "c".to_owned(),
            message: "no".to_owned(),
            details: Object::new(),
        },
        Reject::Replace { reason: "why".to_owned(), details: object(r#"{"key":"7"}"#) },
        Reject::NoHistory { entry: "e".to_owned() },
    ];
    assert_eq!(
        hex(&codec::bare(&rejects)),
        "1301016100140163026e6f00150377687901036b6579030137160165"
    );
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
    let insert = Request::Transaction(Transaction::of(vec![RecordMutation::new(
        Action::Insert,
        "t",
        object("{}"),
    )]));
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
         b/dar/pos/dedup/client/0000000000000000 b78b41dac759bd08\n\
         b/dar/pos/events/tail 6e164ab2ce4d0fd3\n\
         b/dar/pos/head 4a13d242bdedff36\n\
         b/dar/pos/records/t/0000000000000000 55cb795b31ed943d\n\
         b/dar/pos/removed/t 278171173f4c5dcb\n\
         partition fc9616e778a91ca9\n\
         schema/5cdb9ca573ce44e1cac5d70a23322390fb14929517256d7fc8ac45ca2cc107b1 519a29e650f5a78c"
    );
    assert_eq!(
        partition.state_hash().to_string(),
        "f0d8d6ab319c0167e8f2ece3d61c4e88a74ad4dffed0d1b019e8d7e45693e388"
    );
}

#[test]
fn a_piece_of_a_batch() {
    let entry = batch(vec![write()]);
    let pieces = BatchPiece::split(&entry, 40).into_iter();
    let entries: Vec<Vec<u8>> =
        pieces.map(|piece| BatchPiece { elapsed_ms: 300, ..piece }.encode()).collect();
    let shown: Vec<String> = entries.iter().map(|bytes| hex(bytes)).collect();
    let expected = [
        "01002c0110030303030303030303030303030303030364617203706f730003ac02280100100198c2\
         c8b7bf68800110030303030303030303030303030303030101730131036461720370",
        "01002c0110030303030303030303030303030303030364617203706f730103ac02286f7301047265\
         73740100000000010000000100020174010269640301370500010202010166010176",
        "01002c0110030303030303030303030303030303030364617203706f730203ac020d020163016d03\
         02040301370000",
    ];
    assert_eq!(shown, expected);
    let PartitionEntry::Piece(part) = PartitionEntry::decode(&entries[1]).unwrap() else {
        panic!("a piece")
    };
    assert_eq!((part.number, part.count, part.level), (1, 3, codec::LEVEL));
}
