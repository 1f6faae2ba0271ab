//! A module of another trade: a clinic's appointments, with their treatments. What it needs is in
//! `model` alone.

#![allow(clippy::unwrap_used, reason = "what a test takes for granted it unwraps")]

use std::sync::Arc;

use model::{
    Acceptance, Action, Answer, Batch, BranchId, BranchKey, ChangeComparison, ChangeCondition,
    ChangeOperand, ChangeSide, ChangedField, Command, CommandId, Conventions, DedupLimits,
    Definition, FieldCondition, Filter, Holds, ModuleId, Mutation, Object, Operator, Origin,
    Outcome, Partition, Precondition, Query, Read, RecordMutation, Reject, ReplaceChildren,
    Request, Reserve, Schema, SequenceRule, TableName, Timestamp, Transaction, Validation, Value,
    VersionRule,
};

const SCHEMA: &str = r#"[
    {"name":"patient","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"name","type":"text"}]},
    {"name":"appointment","versioned":true,"fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"patientId","type":"text","references":{"table":"patient","column":"id"}},
        {"name":"state","type":"text","nullable":true},
        {"name":"number","type":"text","nullable":true}]},
    {"name":"treatment","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"appointmentId","type":"text",
            "references":{"table":"appointment","column":"id","onDelete":"CASCADE"}},
        {"name":"minutes","type":"integer","nullable":true}]}]"#;

struct Clinic {
    partition: Partition,
    requests: i64,
}

fn object(json: &str) -> Object {
    Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
}

fn key() -> BranchKey {
    BranchKey::new(BranchId::parse("riverside").unwrap(), ModuleId::parse("clinic").unwrap())
}

impl Clinic {
    /// With one patient and one appointment, which is version 1.
    fn open(validation: Validation) -> Self {
        let doc = Value::from_json(SCHEMA.as_bytes()).unwrap();
        let schema = Schema::from_definition("clinic", &doc).unwrap();
        assert_eq!(schema.conventions, Conventions::default());
        let rule = object(r#"{"prefix":"A","padding":4}"#);
        let rule = SequenceRule::from_doc(&Value::Object(rule)).unwrap();
        let table = TableName::parse("appointment").unwrap();
        let definition = Definition {
            schema: Arc::new(schema),
            validation,
            version_rule: VersionRule::Read,
            sequences: [(table, [("number".to_owned(), rule)].into())].into(),
            dedup: DedupLimits { bytes_max: 480_000, keep_ms: 1_000 },
        };
        let mut clinic = Self { partition: Partition::default(), requests: 0 };
        clinic.run(Request::Define(Arc::new(definition))).unwrap();
        let mutations = [
            insert("patient", r#"{"id":"p","name":"Layla"}"#),
            insert("appointment", r#"{"id":"a","patientId":"p","state":"planned"}"#),
        ];
        clinic.run(Request::Transaction(Transaction::of(mutations))).unwrap();
        clinic
    }

    fn run(&mut self, request: Request) -> Result<Acceptance, Reject> {
        self.requests += 1;
        let command = Command {
            id: CommandId { session: String::new(), request: self.requests.to_string() },
            key: key(),
            origin: Arc::new(Origin::default()),
            request,
        };
        let batch = Batch {
            level: 1,
            stamped: Timestamp(1_795_220_000_000 + self.requests),
            elapsed_ms: 0,
            entropy: [9; 16],
            commands: vec![command],
        };
        match self.partition.apply(&batch).remove(0).outcome {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Rejected(reject) => Err(reject),
        }
    }

    fn mutate(&mut self, mutation: impl Into<Mutation>) -> Result<Acceptance, Reject> {
        self.run(Request::Transaction(Transaction::of([mutation])))
    }

    fn treat(&mut self, appointment: &str, rows: &[&str]) -> Result<Acceptance, Reject> {
        self.mutate(ReplaceChildren {
            table: "treatment".to_owned(),
            parent_field: "appointmentId".to_owned(),
            parent: appointment.into(),
            rows: rows.iter().map(|row| object(row)).collect(),
        })
    }

    fn answer(&self, read: &Read) -> Answer {
        self.partition.branch(&key()).unwrap().read(read).unwrap()
    }

    /// The records of a table that meet these conditions.
    fn query(&self, table: &str, filters: Vec<Filter>) -> Vec<Arc<Object>> {
        let query = Query { table: table.to_owned(), filters, ..Query::default() };
        let Answer::Query(page) = self.answer(&Read::Query(query)) else { panic!("rows") };
        page.rows
    }

    fn ids(&self, table: &str) -> Vec<String> {
        let id = |row: Arc<Object>| row.get("id").unwrap().as_str().unwrap().to_owned();
        self.query(table, Vec::new()).into_iter().map(id).collect()
    }
}

fn insert(table: &str, json: &str) -> RecordMutation {
    RecordMutation::new(Action::Insert, table, object(json))
}

fn merge(json: &str, precondition: Precondition) -> RecordMutation {
    let mutation = RecordMutation::new(Action::Merge, "appointment", object(json));
    RecordMutation { preconditions: vec![precondition], ..mutation }
}

#[test]
fn treatments_are_replaced_as_a_whole() {
    for validation in [Validation::Strict, Validation::Lenient] {
        let mut clinic = Clinic::open(validation);
        let rows = [r#"{"id":"t1","minutes":20}"#, r#"{"id":"t2"}"#];
        assert_eq!(clinic.treat("a", &rows).unwrap().delta.events.len(), 2);
        clinic.treat("a", &[r#"{"id":"t2","minutes":5}"#, r#"{"id":"t3"}"#]).unwrap();
        assert_eq!(clinic.ids("treatment"), ["t2", "t3"]);
        let first = &clinic.query("treatment", Vec::new())[0];
        assert_eq!(first.get("appointmentId"), Some(&Value::from("a")));
        clinic.treat("a", &[]).unwrap();
        assert!(clinic.ids("treatment").is_empty());
    }
}

#[test]
fn a_treatment_of_another_appointment_is_not_taken() {
    let mut clinic = Clinic::open(Validation::Strict);
    clinic.mutate(insert("appointment", r#"{"id":"b","patientId":"p"}"#)).unwrap();
    clinic.treat("a", &[r#"{"id":"t1"}"#]).unwrap();
    let refused = clinic.treat("b", &[r#"{"id":"t0"}"#, r#"{"id":"t1"}"#]).unwrap_err();
    assert_eq!(refused.code(), "part-of-another-record");
    assert!(refused.to_string().contains(r#"a part of appointment "a""#), "{refused}");
    let refused = clinic.treat("b", &[r#"{"id":"t0"}"#, r#"{"id":"t0"}"#]).unwrap_err();
    assert_eq!(refused.code(), "duplicate-part");
    assert_eq!(clinic.ids("treatment"), ["t1"]);
}

#[test]
fn children_of_an_unknown_field_or_parent_are_refused() {
    let mut clinic = Clinic::open(Validation::Strict);
    let unknown = clinic.treat("nobody", &[r#"{"id":"t1"}"#]).unwrap_err();
    assert_eq!(unknown.code(), "foreign-key");
    let refused = clinic.mutate(ReplaceChildren {
        table: "treatment".to_owned(),
        parent_field: "visit".to_owned(),
        parent: "a".into(),
        rows: Vec::new(),
    });
    assert_eq!(refused.unwrap_err().code(), "bad-command");
}

#[test]
fn a_merge_holds_to_version_state_day_and_last_event() {
    let mut clinic = Clinic::open(Validation::Strict);
    let state = |value: &str| {
        Precondition::Field(FieldCondition {
            fields: vec!["state".to_owned()],
            values: vec![value.to_owned()],
            holds: Holds::Listed,
            code: "appointment-state".to_owned(),
            member: "expected".to_owned(),
        })
    };
    let refused = clinic.mutate(merge(r#"{"id":"a","version":1}"#, state("done"))).unwrap_err();
    assert_eq!(refused.code(), "appointment-state");
    let stale = merge(r#"{"id":"a","version":1}"#, Precondition::VersionIs(7));
    assert_eq!(clinic.mutate(stale).unwrap_err().code(), "version-conflict");
    let arrived = r#"{"id":"a","version":1,"state":"arrived"}"#;
    let accepted = clinic.mutate(merge(arrived, state("planned"))).unwrap();
    let last = accepted.delta.events[0].id.clone();
    let mut transaction = Transaction::of([insert("patient", r#"{"id":"q","name":"Omar"}"#)]);
    transaction.preconditions = vec![Precondition::LastEvent(Some("another".to_owned()))];
    let refused = clinic.run(Request::Transaction(transaction.clone())).unwrap_err();
    assert_eq!(refused.code(), "last-ack-mismatch");
    transaction.preconditions = vec![
        Precondition::LastEvent(Some(last)),
        Precondition::CommitDay { expected: Some(Timestamp(1_795_220_000_000).to_day()) },
    ];
    clinic.run(Request::Transaction(transaction)).unwrap();
    assert_eq!(clinic.ids("patient"), ["p", "q"]);
}

/// An appointment that is over stays so.
fn over_stays_over() -> Precondition {
    let field = |side, name: &str| ChangedField { side, field: name.to_owned() };
    let over = |side, operator| ChangeComparison {
        left: field(side, "state"),
        operator,
        right: ChangeOperand::Value("over".into()),
    };
    let clause = vec![
        over(ChangeSide::Before, Operator::NotEqual),
        over(ChangeSide::After, Operator::Equal),
    ];
    let code = "appointment-is-over".to_owned();
    Precondition::Change(ChangeCondition { clauses: vec![clause], code })
}

#[test]
fn an_appointment_that_is_over_is_not_opened_again() {
    for validation in [Validation::Strict, Validation::Lenient] {
        let mut clinic = Clinic::open(validation);
        let mut change = |json: &str| clinic.mutate(merge(json, over_stays_over()));
        change(r#"{"id":"a","version":1,"state":"over"}"#).unwrap();
        let refused = change(r#"{"id":"a","version":2,"state":"planned"}"#).unwrap_err();
        assert_eq!(refused.code(), "appointment-is-over");
        change(r#"{"id":"a","version":2,"number":"A-0001"}"#).unwrap();
        let over =
            Filter { field: "state".to_owned(), operator: Operator::Equal, value: "over".into() };
        assert_eq!(clinic.query("appointment", vec![over]).len(), 1);
    }
}

#[test]
fn appointments_are_numbered_and_found() {
    let mut clinic = Clinic::open(Validation::Strict);
    clinic.mutate(insert("appointment", r#"{"id":"b","patientId":"p"}"#)).unwrap();
    let number = |value: &str| Filter {
        field: "number".to_owned(),
        operator: Operator::Equal,
        value: value.into(),
    };
    let found = clinic.query("appointment", vec![number("A-0002")]);
    assert_eq!(found.len(), 1, "{:?}", clinic.query("appointment", Vec::new()));
    assert_eq!(found[0].get("id"), Some(&Value::from("b")));
    let reserve = Reserve { table: "appointment".to_owned(), field: "number".to_owned() };
    let taken = clinic.run(Request::Reserve(reserve)).unwrap().reserved.unwrap();
    assert_eq!(taken.text, "A-0003");
}
