//! Plan: one command worked out on a copy of the module. Everything that can be refused is refused
//! here; what comes out only has to be taken over.

use std::sync::Arc;

use crate::archive::Archive;
use crate::command::{Action, Mutation, Origin, RecordMutation, Transaction};
use crate::definition::{Definition, Validation};
use crate::delta::{BulkOperation, Effect, ModuleChange};
use crate::entropy::Entropy;
use crate::ids::{BranchKey, RecordKey, Revision, TableName, Timestamp};
use crate::limits::MUTATIONS_MAX;
use crate::module::Module;
use crate::module::numbers::Numbers;
use crate::module::relations::Relations;
use crate::reject::Reject;
use crate::schema::{InsertContext, Table};
use crate::value::{Object, Value};

/// What a plan may look at besides the records.
#[derive(Debug)]
pub(crate) struct PlanContext<'a> {
    pub(crate) key: &'a BranchKey,
    pub(crate) definition: &'a Definition,
    pub(crate) relations: &'a Relations,
    pub(crate) origin: &'a Origin,
    /// The commit time.
    pub(crate) at: Timestamp,
    pub(crate) entropy: Entropy,
    /// The module's, before the command.
    pub(crate) revision: Revision,
    /// The id of the log's last event.
    pub(crate) last_event: Option<&'a String>,
}

/// What a command may change.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) module: Module,
    pub(crate) numbers: Numbers,
    pub(crate) archive: Archive,
}

impl PlanContext<'_> {
    /// A name for an event whose client gave none.
    fn event_id(&mut self) -> String {
        format!("evt-{}", self.entropy.uuid4())
    }
}

/// A command half done, on copies.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    context: PlanContext<'a>,
    state: State,
    drafts: Vec<Draft>,
    operation: Option<PlannedOperation>,
}

/// One change of one record: an event without its place in the log.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) id: String,
    /// Where its mutation came from, if it told more than its command.
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

/// An act: an event without its place in the log.
#[derive(Debug)]
pub(crate) struct PlannedOperation {
    pub(crate) id: String,
    pub(crate) operation: BulkOperation,
    pub(crate) details: Object,
    pub(crate) diffs: Vec<RecordDiff>,
    /// The module's after it.
    pub(crate) revision: Revision,
}

/// What became of one record.
#[derive(Debug, Clone)]
pub struct RecordDiff {
    /// The canonical table.
    pub table: TableName,
    /// The record's key.
    pub key: RecordKey,
    /// As it was; `None` where there was none.
    pub before: Option<Arc<Object>>,
    /// As it is; `None` where it is gone.
    pub after: Option<Arc<Object>>,
}

impl PlannedOperation {
    /// Whether the module is another after it: a restore may bring nothing back.
    pub(crate) fn changes(&self) -> bool {
        match self.operation {
            BulkOperation::Restore => !self.diffs.is_empty(),
            // No record is another.
            BulkOperation::Sequence | BulkOperation::Clock => false,
            BulkOperation::Purge | BulkOperation::Reset | BulkOperation::Replace => true,
        }
    }

    /// What its event tells.
    pub(crate) fn into_change(self) -> ModuleChange {
        let records = self.diffs.into_iter().map(|diff| (diff.table, diff.key, diff.after));
        ModuleChange {
            operation: self.operation,
            details: self.details,
            records: records.collect(),
        }
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn new(context: PlanContext<'a>, state: State) -> Self {
        Self { context, state, drafts: Vec::new(), operation: None }
    }

    /// Works out every mutation in order, then what must hold between records.
    pub(crate) fn transaction(&mut self, transaction: &Transaction) -> Result<(), Reject> {
        self.check_transaction(&transaction.preconditions)?;
        let mutations = &transaction.mutations;
        if mutations.is_empty() {
            return Err(Reject::BadCommand { message: "this write has no verbs".to_owned() });
        }
        let rows = |mutation: &Mutation| match mutation {
            Mutation::Record(_) => 1,
            Mutation::ReplaceChildren(children) => children.rows.len(),
        };
        let asked: usize = mutations.iter().map(rows).sum::<usize>().max(mutations.len());
        if asked > MUTATIONS_MAX {
            let message = format!("a write of {asked} verbs; at most {MUTATIONS_MAX} go at once");
            return Err(Reject::BadCommand { message });
        }
        for (index, mutation) in (0..).zip(mutations) {
            let done = match mutation {
                Mutation::Record(mutation) => self.mutation(mutation),
                Mutation::ReplaceChildren(children) => self.replace_children(children).map(drop),
            };
            done.map_err(|reject| match mutations.len() {
                1 => reject,
                _ => Reject::AtMutation { index, reject: Box::new(reject) },
            })?;
        }
        self.check_changes()
    }

    /// Checks what is known only when all is worked out: how much it changes, and what must hold
    /// between records.
    pub(crate) fn check_changes(&self) -> Result<(), Reject> {
        let changes = self.drafts.len();
        // Rows that were not sent are deleted, so there may be more changes than rows.
        if changes > MUTATIONS_MAX {
            let message = format!("{changes} records change; at most {MUTATIONS_MAX} go at once");
            return Err(Reject::BadCommand { message });
        }
        self.check_integrity()
    }

    pub(crate) fn mutation(&mut self, mutation: &RecordMutation) -> Result<(), Reject> {
        let table = Arc::clone(self.table(&mutation.table)?);
        self.check_bound(&table, &mutation.record)?;
        let sent = self.lock(&table).take_out(&mutation.record);
        self.check_preconditions(&table, mutation)?;
        match mutation.action {
            Action::Insert => self.insert(&table, mutation, sent),
            Action::Merge => self.merge(&table, mutation, sent),
            Action::Save => self.save(&table, mutation, sent),
            Action::Delete => self.delete(&table, mutation),
        }
    }

    /// The table a client means.
    pub(crate) fn table(&self, sent: &str) -> Result<&'a Arc<Table>, Reject> {
        if sent.is_empty() {
            return Err(Reject::MissingTable);
        }
        self.context.definition.schema.resolve(sent).ok_or_else(|| Reject::UnknownTable {
            table: sent.to_owned(),
            module: self.context.key.module.to_string(),
        })
    }

    /// What was planned: the state as it will be, the changes of records in order, and the act on
    /// the whole module. One of the two at most.
    pub(crate) fn finish(self) -> (State, Vec<Draft>, Option<PlannedOperation>) {
        (self.state, self.drafts, self.operation)
    }

    pub(crate) fn module(&self) -> &Module {
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

    pub(super) fn archive(&self) -> &Archive {
        &self.state.archive
    }

    pub(super) fn archive_mut(&mut self) -> &mut Archive {
        &mut self.state.archive
    }

    /// Drafts an act on the whole module; there is one at most.
    pub(super) fn draft_operation(
        &mut self,
        operation: BulkOperation,
        details: Object,
        diffs: Vec<RecordDiff>,
        revision: Revision,
    ) {
        let named = self.context.origin.event_id.clone();
        let id = named.unwrap_or_else(|| self.context.event_id());
        self.operation = Some(PlannedOperation { id, operation, details, diffs, revision });
    }

    /// What the act changes of the records.
    pub(super) fn diffs(&self) -> &[RecordDiff] {
        self.operation.as_ref().map_or(&[], |operation| &operation.diffs)
    }

    /// The record of this key as it was when this command removed it.
    pub(super) fn removed(&self, table: &TableName, key: &RecordKey) -> Option<&Arc<Object>> {
        let removes = |draft: &&Draft| {
            draft.effect == Effect::Delete && draft.key == *key && draft.table == *table
        };
        self.drafts.iter().rev().find(removes)?.before.as_ref()
    }

    pub(crate) fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    /// What the last mutation did to its record.
    pub(crate) fn last_diff(&self) -> RecordDiff {
        let draft = self.drafts.last().expect("a mutation drafts its event");
        RecordDiff {
            table: draft.table.clone(),
            key: draft.key.clone(),
            before: draft.before.clone(),
            after: draft.after.clone(),
        }
    }

    /// The id of the log's last event.
    pub(super) fn last_event(&self) -> Option<&String> {
        self.context.last_event
    }

    pub(crate) fn definition(&self) -> &'a Definition {
        self.context.definition
    }

    pub(super) fn relations(&self) -> &'a Relations {
        self.context.relations
    }

    pub(crate) fn at(&self) -> Timestamp {
        self.context.at
    }

    /// The module's revision before the command.
    pub(super) fn revision(&self) -> Revision {
        self.context.revision
    }

    pub(super) fn uuid(&mut self) -> String {
        self.context.entropy.uuid4()
    }

    pub(super) fn validation(&self) -> Validation {
        self.context.definition.validation
    }

    /// What an insert draws on.
    pub(super) fn insert_context(&mut self) -> InsertContext<'_> {
        InsertContext {
            validation: self.context.definition.validation,
            branch: &self.context.key.branch,
            client: self.context.origin.client.as_deref(),
            at: self.context.at,
            entropy: &mut self.context.entropy,
        }
    }

    /// Adds or changes a record on the copy and drafts its event.
    pub(super) fn put(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
        key: RecordKey,
        record: Object,
    ) -> Result<(), Reject> {
        self.check_required(table, &record)?;
        let before = self.module().get(&table.name, &key).cloned();
        self.check_change(table, mutation, before.as_deref(), Some(&record))?;
        self.learn_numbers(table, &record);
        let record = Arc::new(record);
        let relations = self.context.relations;
        self.module_mut().put(&table.name, key.clone(), Arc::clone(&record), relations);
        let effect = if before.is_some() { Effect::Merge } else { Effect::Insert };
        self.draft(table, mutation, effect, key, (before, Some(record)));
        Ok(())
    }

    /// What must say something in any mode, by convention.
    fn check_required(&self, table: &Table, record: &Object) -> Result<(), Reject> {
        let conventions = &self.definition().schema.conventions;
        let required = conventions.required_of(table.name.as_str());
        for field in required.filter_map(|name| table.field(name)) {
            if is_empty(record.get(&field.name)) {
                return Err(Reject::MissingField {
                    table: table.name.to_string(),
                    field: field.name.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Takes a record out of the copy and drafts its event.
    pub(super) fn take(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
        key: RecordKey,
    ) -> Option<()> {
        let relations = self.context.relations;
        let before = self.module_mut().remove(&table.name, &key, relations)?;
        self.draft(table, mutation, Effect::Delete, key, (Some(before), None));
        Some(())
    }

    fn draft(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
        effect: Effect,
        key: RecordKey,
        (before, after): (Option<Arc<Object>>, Option<Arc<Object>>),
    ) {
        // The client names the command's first event, and those whose mutation has a name of its
        // own; the others of a write get names of ours.
        let first = self.context.origin.event_id.as_ref().filter(|_| self.drafts.is_empty());
        let own = mutation.origin.as_ref().and_then(|origin| origin.event_id.as_ref());
        let named = own.or(first).cloned();
        self.drafts.push(Draft {
            origin: mutation.origin.clone(),
            id: named.unwrap_or_else(|| self.context.event_id()),
            table: table.name.clone(),
            table_sent: (mutation.table != table.name.as_str()).then(|| mutation.table.clone()),
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
