//! Testing: a branch:module of one partition, with commands made short, through what `model` shows
//! to everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Acceptance, Action, Answer, Batch, Branch, BranchId, BranchKey, Command, CommandId,
    DedupLimits, Definition, Event, EventChange, ModuleChange, ModuleId, Object, Origin, Outcome,
    Partition, Read, RecordMutation, Reject, Request, Reserve, Schema, Timestamp, Transaction,
    Validation, Value, VersionRule,
};

/// A record out of JSON.
pub(crate) fn object(json: &str) -> Object {
    Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
}

/// A schema out of a definition document.
pub(crate) fn schema_of(json: &str) -> Arc<Schema> {
    let doc = Value::from_json(json.as_bytes()).unwrap();
    Arc::new(Schema::read_under("pos", &doc, &crate::conventions()).unwrap().schema)
}

/// Orders and their lines, and nothing else of them.
const SCHEMA: &str = r#"[
    {"name":"order_header","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"note","type":"text","nullable":true},
        {"name":"paymentState","type":"text","nullable":true}]},
    {"name":"order_line","fields":[
        {"name":"id","type":"text","primaryKey":true},
        {"name":"orderId","type":"text","nullable":true}]}]"#;

/// One branch:module in one partition.
pub(crate) struct Shop {
    pub(crate) partition: Partition,
    pub(crate) key: BranchKey,
    pub(crate) now: Timestamp,
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

    fn with(validation: Validation, version_rule: VersionRule) -> Self {
        let mut shop = Self {
            partition: Partition::new(crate::procedures()),
            key: BranchKey::new(BranchId::parse("dar").unwrap(), ModuleId::parse("pos").unwrap()),
            now: Timestamp::parse("2026-11-21T10:00:00Z").unwrap(),
            requests: 0,
        };
        let definition = Definition {
            schema: schema_of(SCHEMA),
            validation,
            version_rule,
            sequences: BTreeMap::new(),
            dedup: DedupLimits { bytes_max: 480_000, keep_ms: 1_000 },
        };
        shop.run(Request::Define(Arc::new(definition))).unwrap();
        shop
    }

    /// Decides one request.
    pub(crate) fn run(&mut self, request: Request) -> Result<Acceptance, Reject> {
        self.requests += 1;
        self.now = Timestamp(self.now.0 + 1);
        let command = Command {
            id: CommandId { session: String::new(), request: self.requests.to_string() },
            key: self.key.clone(),
            origin: Arc::new(Origin::default()),
            request,
        };
        let batch = Batch {
            level: 1,
            stamped: self.now,
            elapsed_ms: 0,
            entropy: self.now.0.to_le_bytes().repeat(2).try_into().unwrap(),
            commands: vec![command],
        };
        match self.partition.apply(&batch).remove(0).outcome {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Rejected(reject) => Err(reject),
        }
    }

    /// One mutation; its event.
    pub(crate) fn mutation(&mut self, mutation: RecordMutation) -> Result<Arc<Event>, Reject> {
        let accepted = self.run(Request::Transaction(Transaction::of(vec![mutation])))?;
        Ok(Arc::clone(&accepted.delta.events[0]))
    }

    pub(crate) fn insert(&mut self, table: &str, json: &str) -> Result<Arc<Event>, Reject> {
        self.mutation(RecordMutation::new(Action::Insert, table, object(json)))
    }

    pub(crate) fn merge(&mut self, table: &str, json: &str) -> Result<Arc<Event>, Reject> {
        self.mutation(RecordMutation::new(Action::Merge, table, object(json)))
    }

    pub(crate) fn reserve(&mut self, table: &str, field: &str) -> Result<String, Reject> {
        let reserve = Reserve { table: table.to_owned(), field: field.to_owned() };
        Ok(self.run(Request::Reserve(reserve))?.reserved.unwrap().text)
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

    /// Runs an act on the module; its event, if it made one.
    pub(crate) fn operation(&mut self, request: Request) -> Result<Option<Arc<Event>>, Reject> {
        let accepted = self.run(request)?;
        assert!(accepted.delta.events.len() < 2, "a bulk operation makes one event");
        Ok(accepted.delta.events.first().cloned())
    }

    pub(crate) fn branch(&self) -> &Branch {
        self.partition.branch(&self.key).unwrap()
    }

    /// A table's records as JSON, in order.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let Ok(Answer::Snapshot(snapshot)) = self.branch().read(&Read::Snapshot) else { panic!() };
        let rows = snapshot.tables.iter().find(|(name, _)| name.as_str() == table);
        let json = |record: &Arc<Object>| Value::Object((**record).clone()).to_json();
        rows.map_or_else(Vec::new, |(_, rows)| rows.iter().map(json).collect())
    }
}

/// A module event's part of the event.
pub(crate) fn module_change(event: &Event) -> &ModuleChange {
    match &event.change {
        EventChange::Module(change) => change,
        EventChange::Record(change) => panic!("a change of {}", change.key),
    }
}
