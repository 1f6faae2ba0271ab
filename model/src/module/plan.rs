//! Plan: one command worked out on a copy of the module. Everything that can be refused is refused
//! here; what comes out only has to be taken over.

use std::sync::Arc;

use crate::command::{Action, Origin, Verb, Write};
use crate::definition::{Definition, Validation};
use crate::delta::Effect;
use crate::entropy::Entropy;
use crate::ids::{BranchKey, RecordKey, TableName, Timestamp};
use crate::limits::VERBS_MAX;
use crate::module::numbers::Numbers;
use crate::module::relations::Relations;
use crate::module::{Module, version};
use crate::reject::Reject;
use crate::schema::{InsertContext, Table};
use crate::value::{Object, Value};

/// What a plan may look at besides the records.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) key: &'a BranchKey,
    pub(crate) definition: &'a Definition,
    pub(crate) relations: &'a Relations,
    pub(crate) origin: &'a Origin,
    /// The commit time.
    pub(crate) at: Timestamp,
    pub(crate) entropy: Entropy,
}

/// A command half done, on copies.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    setting: Setting<'a>,
    module: Module,
    numbers: Numbers,
    drafts: Vec<Draft>,
}

/// One change of one record: an event without its place in the log.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) id: String,
    /// Where its verb came from, if it told more than its command.
    pub(crate) origin: Option<Arc<Origin>>,
    pub(crate) table: TableName,
    /// The name the client used, if it was another.
    pub(crate) table_sent: Option<String>,
    pub(crate) effect: Effect,
    pub(crate) key: RecordKey,
    pub(crate) key_fields: Arc<[Arc<str>]>,
    pub(crate) before: Option<Arc<Object>>,
    pub(crate) after: Option<Arc<Object>>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(setting: Setting<'a>, module: Module, numbers: Numbers) -> Self {
        Self { setting, module, numbers, drafts: Vec::new() }
    }

    /// Works out every verb in order, then what must hold between records.
    pub(crate) fn write(&mut self, write: &Write) -> Result<(), Reject> {
        if write.verbs.is_empty() {
            return Err(Reject::BadCommand { message: "this write has no verbs".to_owned() });
        }
        if write.verbs.len() > VERBS_MAX {
            let message =
                format!("a write of {} verbs; at most {VERBS_MAX} go at once", write.verbs.len());
            return Err(Reject::BadCommand { message });
        }
        for (index, verb) in (0..).zip(&write.verbs) {
            self.verb(verb).map_err(|reject| match write.verbs.len() {
                1 => reject,
                _ => Reject::AtVerb { index, reject: Box::new(reject) },
            })?;
        }
        self.check_integrity()
    }

    fn verb(&mut self, verb: &Verb) -> Result<(), Reject> {
        let table = Arc::clone(self.table(&verb.table)?);
        let sent = version::take_out(&table, &verb.record);
        self.check_guards(&table, verb)?;
        match verb.action {
            Action::Insert => self.insert(&table, verb, sent),
            Action::Merge => self.merge(&table, verb, sent),
            Action::Save => self.save(&table, verb, sent),
            Action::Delete => self.delete(&table, verb),
        }
    }

    /// The table a client means.
    pub(super) fn table(&self, sent: &str) -> Result<&'a Arc<Table>, Reject> {
        if sent.is_empty() {
            return Err(Reject::MissingTable);
        }
        self.setting.definition.schema.resolve(sent).ok_or_else(|| Reject::UnknownTable {
            table: sent.to_owned(),
            module: self.setting.key.module.to_string(),
        })
    }

    /// What was planned: the module and numbers as they will be, and the changes in order.
    pub(crate) fn finish(self) -> (Module, Numbers, Vec<Draft>) {
        (self.module, self.numbers, self.drafts)
    }

    pub(super) fn module(&self) -> &Module {
        &self.module
    }

    pub(super) fn module_mut(&mut self) -> &mut Module {
        &mut self.module
    }

    pub(super) fn numbers_mut(&mut self) -> &mut Numbers {
        &mut self.numbers
    }

    pub(super) fn module_and_numbers(&mut self) -> (&Module, &mut Numbers) {
        (&self.module, &mut self.numbers)
    }

    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    pub(super) fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    pub(super) fn definition(&self) -> &'a Definition {
        self.setting.definition
    }

    pub(super) fn relations(&self) -> &'a Relations {
        self.setting.relations
    }

    pub(super) fn at(&self) -> Timestamp {
        self.setting.at
    }

    pub(super) fn validation(&self) -> Validation {
        self.setting.definition.validation
    }

    /// What an insert draws on.
    pub(super) fn insert_context(&mut self) -> InsertContext<'_> {
        InsertContext {
            validation: self.setting.definition.validation,
            branch: &self.setting.key.branch,
            client: self.setting.origin.client.as_deref(),
            at: self.setting.at,
            entropy: &mut self.setting.entropy,
        }
    }

    /// Adds or changes a record on the copy and drafts its event.
    pub(super) fn put(
        &mut self,
        table: &Table,
        verb: &Verb,
        key: RecordKey,
        record: Object,
    ) -> Result<(), Reject> {
        check_order_id(table, &record)?;
        let record = Arc::new(record);
        let before = self.module.get(&table.name, &key).cloned();
        self.module.put(&table.name, key.clone(), Arc::clone(&record), self.setting.relations);
        let effect = if before.is_some() { Effect::Merge } else { Effect::Insert };
        self.draft(table, verb, effect, key, (before, Some(record)));
        Ok(())
    }

    /// Takes a record out of the copy and drafts its event.
    pub(super) fn take(&mut self, table: &Table, verb: &Verb, key: RecordKey) -> Option<()> {
        let before = self.module.remove(&table.name, &key, self.setting.relations)?;
        self.draft(table, verb, Effect::Delete, key, (Some(before), None));
        Some(())
    }

    fn draft(
        &mut self,
        table: &Table,
        verb: &Verb,
        effect: Effect,
        key: RecordKey,
        (before, after): (Option<Arc<Object>>, Option<Arc<Object>>),
    ) {
        // The client names the command's first event, and those whose verb has a name of its own;
        // the others of a write get names of ours.
        let first = self.setting.origin.event_id.as_ref().filter(|_| self.drafts.is_empty());
        let own = verb.origin.as_ref().and_then(|origin| origin.event_id.as_ref());
        let named = own.or(first).cloned();
        self.drafts.push(Draft {
            origin: verb.origin.clone(),
            id: named.unwrap_or_else(|| format!("evt-{}", self.setting.entropy.uuid4())),
            table: table.name.clone(),
            table_sent: (verb.table != table.name.as_str()).then(|| verb.table.clone()),
            effect,
            key,
            key_fields: Arc::clone(&table.key),
            before,
            after,
        });
    }
}

/// Whether nothing was sent or stored here: missing, `null` or the empty text.
pub(super) fn is_empty(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value.as_str() == Some(""))
}

/// The original insists on this reference, in any module and mode (contract.md 5.3).
fn check_order_id(table: &Table, record: &Object) -> Result<(), Reject> {
    let insists = matches!(table.name.as_str(), "order_line" | "order_payment");
    let Some(field) = table.field("orderId").filter(|_| insists) else { return Ok(()) };
    if is_empty(record.get(&field.name)) {
        return Err(Reject::MissingField {
            table: table.name.to_string(),
            field: field.name.to_string(),
        });
    }
    Ok(())
}
