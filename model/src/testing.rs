//! Testing: small schemas, records and a shop to try the rules on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{
    Action, Batch, Command, Origin, Precondition, RecordMutation, Request, Reserve, Seed,
    Transaction,
};
use crate::definition::{Definition, Validation, VersionRule};
use crate::delta::{Effect, Event, EventChange, RecordChange};
use crate::hash::Hash;
use crate::ids::{
    BranchId, BranchKey, CommandId, ModuleId, Offset, RecordKey, Revision, TableName, Timestamp,
};
use crate::outcome::{Acceptance, Outcome};
use crate::partition::{AppliedCommand, ChunkSink, ChunkSource, Partition};
use crate::procedure::Procedures;
use crate::reject::Reject;
use crate::schema::{Alias, ChildLink, Conventions, Field, FieldType, Reference, Schema, Table};
use crate::sequence::SequenceRule;
use crate::value::{Object, Value};

#[cfg(test)]
pub(crate) mod scripts;

/// A record out of JSON.
pub(crate) fn object(json: &str) -> Object {
    Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
}

/// Tables of nullable text fields; the first field is the key.
pub(crate) fn schema(tables: &[(&str, &[&str])]) -> Schema {
    let tables = tables.iter().map(|(name, fields)| Arc::new(table(name, fields)));
    Schema::under(tables.collect(), &conventions())
}

/// A table of nullable text fields, except `n` which is a number, the first one the key.
pub(crate) fn table(name: &str, fields: &[&str]) -> Table {
    let field = |name: &str| Field {
        name: name.into(),
        column: name.into(),
        kind: match name {
            "n" => FieldType::Integer,
            "version" => FieldType::Integer,
            "createdAt" | "updatedAt" => FieldType::Timestamp,
            _ => FieldType::String,
        },
        nullable: name != fields[0],
        primary_key: name == fields[0],
        unique: false,
        max_length: None,
        precision: None,
        scale: None,
        default: None,
        allowed: Vec::new(),
        references: None,
        rounding: crate::schema::Rounding::default(),
        sequence: None,
    };
    Table {
        name: TableName::parse(name).unwrap(),
        label: name.to_owned(),
        fields: fields.iter().map(|name| field(name)).collect(),
        key: [Arc::from(fields[0])].into(),
        versioned: matches!(name, "order_header" | "order_line"),
        unique: Vec::new(),
    }
}

/// An event of no consequence.
pub(crate) fn event(offset: u64) -> Event {
    Event {
        #[cfg(feature = "next-level")]
        note: None,
        offset: Offset(offset),
        revision: Revision(offset + 1),
        at: Timestamp(1_000),
        id: format!("evt-{offset}"),
        change: EventChange::Record(RecordChange {
            table: TableName::parse("t").unwrap(),
            table_sent: None,
            effect: Effect::Insert,
            key: RecordKey("k".into()),
            key_fields: [Arc::from("id")].into(),
            record: Arc::new(object(r#"{"id":"k"}"#)),
        }),
        part: None,
        command: CommandId { session: "s".to_owned(), request: "r".to_owned() },
        origin: Arc::new(Origin::default()),
        previous: Hash::default(),
    }
}

/// One branch:module in one partition, with commands made short.
pub(crate) struct Shop {
    pub(crate) partition: Partition,
    pub(crate) key: BranchKey,
    pub(crate) now: Timestamp,
    pub(crate) elapsed_ms: u64,
    requests: u64,
}

impl Shop {
    /// Lenient, versions as the original's clients send them.
    pub(crate) fn lenient() -> Self {
        Self::with(Validation::Lenient, VersionRule::Next)
    }

    /// Strict, versions as read.
    pub(crate) fn strict() -> Self {
        Self::with(Validation::Strict, VersionRule::Read)
    }

    pub(crate) fn with(validation: Validation, version_rule: VersionRule) -> Self {
        let mut shop = Self::undefined();
        shop.run(Request::Define(Arc::new(definition(validation, version_rule)))).unwrap();
        shop
    }

    pub(crate) fn undefined() -> Self {
        Self {
            partition: Partition::default(),
            key: BranchKey::new(BranchId::parse("dar").unwrap(), ModuleId::parse("pos").unwrap()),
            now: Timestamp::parse("2026-11-21T10:00:00Z").unwrap(),
            elapsed_ms: 0,
            requests: 0,
        }
    }

    /// The same shop, which knows these procedures.
    pub(crate) fn with_procedures(mut self, procedures: Procedures) -> Self {
        self.partition.procedures = procedures;
        self.restore();
        self
    }

    /// Begins again from a checkpoint of what there is.
    pub(crate) fn restore(&mut self) {
        let mut chunks = Chunks::default();
        self.partition.chunks(&mut chunks);
        let procedures = self.partition.procedures.clone();
        self.partition = Partition::from_chunks(&chunks, procedures).unwrap();
    }

    pub(crate) fn command(&mut self, request: Request) -> Command {
        self.requests += 1;
        Command {
            id: CommandId { session: String::new(), request: self.requests.to_string() },
            key: self.key.clone(),
            origin: Arc::new(Origin::default()),
            request,
        }
    }

    pub(crate) fn apply(&mut self, commands: Vec<Command>) -> Vec<AppliedCommand> {
        self.now = Timestamp(self.now.0 + 1);
        let batch = Batch {
            level: 1,
            stamped: self.now,
            elapsed_ms: self.elapsed_ms,
            entropy: self.now.0.to_le_bytes().repeat(2).try_into().unwrap(),
            commands,
        };
        self.partition.apply(&batch)
    }

    pub(crate) fn apply_one(&mut self, command: Command) -> AppliedCommand {
        self.apply(vec![command]).remove(0)
    }

    pub(crate) fn run(&mut self, request: Request) -> Result<Acceptance, Reject> {
        let command = self.command(request);
        match self.apply_one(command).outcome {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Rejected(reject) => Err(reject),
        }
    }

    pub(crate) fn write(&mut self, mutations: Vec<RecordMutation>) -> Result<Acceptance, Reject> {
        self.run(Request::Transaction(Transaction::of(mutations)))
    }

    /// One mutation; its event.
    pub(crate) fn mutation(&mut self, mutation: RecordMutation) -> Result<Arc<Event>, Reject> {
        Ok(Arc::clone(&self.write(vec![mutation])?.delta.events[0]))
    }

    pub(crate) fn insert(&mut self, table: &str, json: &str) -> Result<Arc<Event>, Reject> {
        self.mutation(mutation(Action::Insert, table, json))
    }

    pub(crate) fn merge(&mut self, table: &str, json: &str) -> Result<Arc<Event>, Reject> {
        self.mutation(mutation(Action::Merge, table, json))
    }

    pub(crate) fn save(&mut self, table: &str, json: &str) -> Result<Arc<Event>, Reject> {
        self.mutation(mutation(Action::Save, table, json))
    }

    pub(crate) fn delete(&mut self, table: &str, json: &str) -> Result<Arc<Event>, Reject> {
        self.mutation(mutation(Action::Delete, table, json))
    }

    pub(crate) fn reserve(&mut self, table: &str, field: &str) -> Result<String, Reject> {
        let reserve = Reserve { table: table.to_owned(), field: field.to_owned() };
        Ok(self.run(Request::Reserve(reserve))?.reserved.unwrap().text)
    }

    pub(crate) fn seed(&mut self, json: &str) -> Result<Acceptance, Reject> {
        self.run(Request::Seed(Arc::new(Seed { tables: object(json) })))
    }

    /// Changes the definition.
    pub(crate) fn redefine(
        &mut self,
        change: impl FnOnce(&mut Definition),
    ) -> Result<Acceptance, Reject> {
        let mut definition = (**self.branch().definition().unwrap()).clone();
        change(&mut definition);
        self.run(Request::Define(Arc::new(definition)))
    }

    /// The same shop, whose tickets are numbered `T-5`, `T-6`, ….
    pub(crate) fn numbered(mut self) -> Self {
        self.redefine(|definition| {
            let table = TableName::parse("tickets").unwrap();
            definition.sequences.insert(table, [("id".to_owned(), rule("T-", 5))].into());
        })
        .unwrap();
        self
    }

    /// Runs an operation on the module; its event, if it made one.
    pub(crate) fn operation(&mut self, request: Request) -> Result<Option<Arc<Event>>, Reject> {
        let accepted = self.run(request)?;
        assert!(accepted.delta.events.len() < 2, "an operation makes one event");
        Ok(accepted.delta.events.first().cloned())
    }

    /// The archive, newest first.
    pub(crate) fn archive(&self) -> Vec<Arc<crate::ArchiveEntry>> {
        match self.branch().read(&crate::Read::Archive { entry: None }) {
            Ok(crate::Answer::Archive(entries)) => entries,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn branch(&self) -> &crate::Branch {
        self.partition.branch(&self.key).unwrap()
    }

    /// A table's records as JSON, in order.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let name = TableName::parse(table).unwrap();
        let rows = self.branch().module.rows(&name);
        let json = |record: &Object| Value::Object(record.clone()).to_json();
        rows.map_or_else(Vec::new, |rows| rows.iter().map(|(_, row)| json(&row.record)).collect())
    }
}

/// A mutation without preconditions.
pub(crate) fn mutation(action: Action, table: &str, json: &str) -> RecordMutation {
    guarded(action, table, json, Vec::new())
}

/// A mutation with preconditions.
pub(crate) fn guarded(
    action: Action,
    table: &str,
    json: &str,
    preconditions: Vec<Precondition>,
) -> RecordMutation {
    RecordMutation { preconditions, ..RecordMutation::new(action, table.to_owned(), object(json)) }
}

/// Orders with lines, and dishes with a unique code.
pub(crate) fn definition(validation: Validation, version_rule: VersionRule) -> Definition {
    let mut line = table("order_line", &["id", "orderId", "dish", "n"]);
    line.fields[1].references = Some(reference("order_header", "id"));
    line.fields[2].references = Some(reference("dishes", "code"));
    let mut dishes = table("dishes", &["id", "code", "kitchen", "place", "updatedAt"]);
    dishes.fields[1].unique = true;
    dishes.unique.push(vec!["kitchen".into(), "place".into()]);
    let tables = vec![
        table("order_header", &["id", "note", "n", "paymentState", "updatedAt"]),
        line,
        dishes,
        table("tickets", &["id", "number", "n"]),
    ];
    Definition {
        schema: Arc::new(Schema::under(tables.into_iter().map(Arc::new).collect(), &conventions())),
        validation,
        version_rule,
        sequences: BTreeMap::new(),
        dedup: crate::DedupLimits { bytes_max: 480_000, keep_ms: 1_000 },
    }
}

/// A foreign key within the module.
pub(crate) fn reference(table: &str, field: &str) -> Reference {
    Reference { table: table.to_owned(), field: field.to_owned(), ..Reference::default() }
}

/// A sequence `<prefix><number>`.
pub(crate) fn rule(prefix: &str, start: u64) -> SequenceRule {
    let mut rule = SequenceRule { start, ..SequenceRule::plain() };
    rule.pattern.insert(0, crate::sequence::PatternPart::Text(prefix.to_owned()));
    rule
}

/// Chunks in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chunks {
    pub(crate) held: BTreeMap<String, Vec<u8>>,
    pub(crate) kept: Vec<String>,
}

impl ChunkSink for Chunks {
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        assert!(self.held.insert(name.to_owned(), bytes).is_none(), "{name} twice");
    }

    fn keep(&mut self, name: &str) {
        self.kept.push(name.to_owned());
    }
}

impl ChunkSource for Chunks {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.held.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.held.keys().cloned().collect()
    }
}

/// A schema out of a definition document.
pub(crate) fn schema_of(json: &str) -> Arc<Schema> {
    let doc = Value::from_json(json.as_bytes()).unwrap();
    Arc::new(conventional(&doc))
}

/// A module event's part of the event.
pub(crate) fn module_change(event: &Event) -> &crate::ModuleChange {
    match &event.change {
        EventChange::Module(change) => change,
        EventChange::Record(change) => panic!("a change of {}", change.key),
    }
}

/// A schema out of a definition, under a shop's conventions.
pub(crate) fn conventional(doc: &Value) -> Schema {
    Schema::read_under("pos", doc, &conventions()).unwrap().schema
}

/// What a shop takes for granted about its tables: a part of what the original's clients do.
pub(crate) fn conventions() -> Conventions {
    let text = str::to_owned;
    let alias = |(name, table): (&str, &str)| Alias { name: text(name), table: text(table) };
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| (text(a), text(b))).collect();
    let link = |(table, field, parent): (&str, &str, &str)| ChildLink {
        table: text(table),
        field: text(field),
        parent: text(parent),
    };
    Conventions {
        aliases: [
            ("orders", "order_header"),
            ("order_lines", "order_line"),
            ("payments", "order_payment"),
        ]
        .map(alias)
        .to_vec(),
        purge_aliases: [
            ("order", "order_header"),
            ("line", "order_line"),
            ("lines", "order_line"),
            ("shifts", "pos_shift"),
        ]
        .map(alias)
        .to_vec(),
        seed_aliases: [
            ("items", "menu_items"),
            ("categories", "menu_categories"),
            ("drivers", "delivery_drivers"),
            ("stores", "pos_database"),
        ]
        .map(alias)
        .to_vec(),
        children: [
            ("order_line", "orderId", "order_header"),
            ("order_payment", "orderId", "order_header"),
        ]
        .map(link)
        .to_vec(),
        required: pairs(&[("order_line", "orderId"), ("order_payment", "orderId")]),
        versioned: ["order_header", "order_line"].map(text).to_vec(),
        nouns: pairs(&[("order_header", "order"), ("order_line", "order item")]),
    }
}
