//! Plan: one command worked out on a copy of the module. Everything that can be refused is refused
//! here; what comes out only has to be taken over.

use std::sync::Arc;

use crate::command::{Action, Origin, Verb, Write};
use crate::definition::{Definition, Validation};
use crate::delta::{Effect, ModuleAct};
use crate::entropy::Entropy;
use crate::history::History;
use crate::ids::{BranchKey, RecordKey, Revision, TableName, Timestamp};
use crate::limits::VERBS_MAX;
use crate::module::Module;
use crate::module::act::{Act, Touch};
use crate::module::numbers::Numbers;
use crate::module::relations::Relations;
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
    /// The module's, before the command.
    pub(crate) revision: Revision,
}

/// What a command may change.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) module: Module,
    pub(crate) numbers: Numbers,
    pub(crate) history: History,
}

impl Setting<'_> {
    /// A name for an event whose client gave none.
    fn event_id(&mut self) -> String {
        format!("evt-{}", self.entropy.uuid4())
    }
}

/// A command half done, on copies.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    setting: Setting<'a>,
    state: State,
    drafts: Vec<Draft>,
    act: Option<Act>,
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
    pub(crate) fn new(setting: Setting<'a>, state: State) -> Self {
        Self { setting, state, drafts: Vec::new(), act: None }
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

    pub(super) fn verb(&mut self, verb: &Verb) -> Result<(), Reject> {
        let table = Arc::clone(self.table(&verb.table)?);
        self.check_bound(&table, &verb.record)?;
        let sent = self.lock(&table).take_out(&verb.record);
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

    /// What was planned: the state as it will be, the changes of records in order, and the act on
    /// the whole module. One of the two at most.
    pub(crate) fn finish(self) -> (State, Vec<Draft>, Option<Act>) {
        (self.state, self.drafts, self.act)
    }

    pub(super) fn module(&self) -> &Module {
        &self.state.module
    }

    pub(super) fn module_mut(&mut self) -> &mut Module {
        &mut self.state.module
    }

    pub(super) fn numbers_mut(&mut self) -> &mut Numbers {
        &mut self.state.numbers
    }

    pub(super) fn module_and_numbers(&mut self) -> (&Module, &mut Numbers) {
        (&self.state.module, &mut self.state.numbers)
    }

    pub(super) fn numbers(&self) -> &Numbers {
        &self.state.numbers
    }

    pub(super) fn history(&self) -> &History {
        &self.state.history
    }

    pub(super) fn history_mut(&mut self) -> &mut History {
        &mut self.state.history
    }

    /// Drafts an act on the whole module; there is one at most.
    pub(super) fn draft_act(
        &mut self,
        act: ModuleAct,
        details: Object,
        touches: Vec<Touch>,
        revision: Revision,
    ) {
        let named = self.setting.origin.event_id.clone();
        let id = named.unwrap_or_else(|| self.setting.event_id());
        self.act = Some(Act { id, act, details, touches, revision });
    }

    /// What the act changes of the records.
    pub(super) fn touches(&self) -> &[Touch] {
        self.act.as_ref().map_or(&[], |act| &act.touches)
    }

    /// The record of this key as it was when this command removed it.
    pub(super) fn removed(&self, table: &TableName, key: &RecordKey) -> Option<&Arc<Object>> {
        let removes = |draft: &&Draft| {
            draft.effect == Effect::Delete && draft.key == *key && draft.table == *table
        };
        self.drafts.iter().rev().find(removes)?.before.as_ref()
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

    /// The module's revision before the command.
    pub(super) fn revision(&self) -> Revision {
        self.setting.revision
    }

    pub(super) fn uuid(&mut self) -> String {
        self.setting.entropy.uuid4()
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
        self.learn_numbers(table, &record);
        let record = Arc::new(record);
        let before = self.module().get(&table.name, &key).cloned();
        let relations = self.setting.relations;
        self.module_mut().put(&table.name, key.clone(), Arc::clone(&record), relations);
        let effect = if before.is_some() { Effect::Merge } else { Effect::Insert };
        self.draft(table, verb, effect, key, (before, Some(record)));
        Ok(())
    }

    /// Takes a record out of the copy and drafts its event.
    pub(super) fn take(&mut self, table: &Table, verb: &Verb, key: RecordKey) -> Option<()> {
        let relations = self.setting.relations;
        let before = self.module_mut().remove(&table.name, &key, relations)?;
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
            id: named.unwrap_or_else(|| self.setting.event_id()),
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
