//! Procedure: a stored procedure, for what cannot be written as a [`Transaction`] by whoever asks,
//! because what is to be changed depends on what is found.
//!
//! The log holds a [`ProcedureCall`]: the procedure's name and its arguments. Every replica runs
//! the procedure it knows under that name on the state it holds, so a procedure must be a function
//! of that state and of its arguments: no clock but [`ProcedureContext::at`], no chance. Promise: a
//! call happens whole or not at all; after it, what a definition says must hold between records
//! holds, as after a transaction. A name no procedure has is refused on every replica.
//!
//! [`Transaction`]: crate::Transaction

use std::fmt;
use std::sync::Arc;

use crate::canonical;
use crate::codec::{self, CodecError};
use crate::command::{ProcedureCall, RecordMutation, ReplaceChildren};
use crate::definition::Definition;
use crate::hash::Hash;
use crate::ids::{ModuleId, RecordKey, Timestamp};
use crate::module::{Module, Plan, RecordDiff, version};
use crate::reject::Reject;
use crate::schema::{Field, Schema, Table};
use crate::value::{Object, Value};

/// One stored procedure.
pub trait Procedure: fmt::Debug + Send + Sync {
    /// Its name in the log, for ever. What it does under this name never changes but with a level
    /// of the cluster.
    fn name(&self) -> &'static str;

    /// The level from which on every build runs a call with these arguments, and in the same way.
    fn level(&self, _arguments: &[u8]) -> u16 {
        codec::FIRST_LEVEL
    }

    /// Changes records. The arguments are in an envelope of their own version
    /// ([`codec::encode`](crate::codec::encode)).
    ///
    /// # Errors
    /// Why nothing is changed.
    fn run(&self, context: &mut ProcedureContext<'_, '_>, arguments: &[u8]) -> Result<(), Reject>;

    /// Answers a lookup; the answer is in an envelope of its own version.
    ///
    /// # Errors
    /// Why there is no answer.
    fn read(&self, view: &ProcedureView<'_>, arguments: &[u8]) -> Result<Vec<u8>, Reject>;

    /// Names what the arguments mean, however they were written: a call that is sent again under
    /// its id is a repeat where this is equal.
    fn meaning(&self, arguments: &[u8]) -> Hash {
        canonical::hash(&arguments)
    }
}

/// The procedures of one build, by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Procedures(Arc<[Arc<dyn Procedure>]>);

impl Procedures {
    /// These procedures.
    ///
    /// # Panics
    /// When two have one name: a defect of whoever puts the program together.
    pub fn new(procedures: impl IntoIterator<Item = Arc<dyn Procedure>>) -> Self {
        let procedures: Arc<[Arc<dyn Procedure>]> = procedures.into_iter().collect();
        for (place, procedure) in procedures.iter().enumerate() {
            let twice = procedures[..place].iter().any(|other| other.name() == procedure.name());
            assert!(!twice, "two procedures are called {:?}", procedure.name());
        }
        Self(procedures)
    }

    /// The procedure of this name.
    ///
    /// # Errors
    /// [`Reject::UnknownProcedure`].
    pub(crate) fn get(&self, name: &str) -> Result<&dyn Procedure, Reject> {
        let found = self.0.iter().find(|procedure| procedure.name() == name);
        let unknown = || Reject::UnknownProcedure { procedure: name.to_owned() };
        found.map(|procedure| &**procedure).ok_or_else(unknown)
    }

    /// The level that a call needs. One of a name that no procedure has is of a newer build: it
    /// must not be logged, for builds that know it would decide it in another way.
    pub(crate) fn level(&self, call: &ProcedureCall) -> u16 {
        let found = self.get(&call.procedure);
        found.map_or(codec::LEVEL + 1, |procedure| procedure.level(&call.arguments))
    }

    /// Names what a call means.
    pub(crate) fn meaning(&self, call: &ProcedureCall) -> Result<Hash, Reject> {
        Ok(self.get(&call.procedure)?.meaning(&call.arguments))
    }
}

/// What a procedure may look at and change: one branch:module, on a copy that becomes the state
/// when the whole call succeeds.
#[derive(Debug)]
pub struct ProcedureContext<'p, 'a> {
    plan: &'p mut Plan<'a>,
}

impl<'p, 'a> ProcedureContext<'p, 'a> {
    pub(crate) fn new(plan: &'p mut Plan<'a>) -> Self {
        Self { plan }
    }

    /// The rules in force.
    pub fn definition(&self) -> &'a Definition {
        self.plan.definition()
    }

    /// The table a client means: its name or an alias.
    ///
    /// # Errors
    /// [`Reject::MissingTable`] and [`Reject::UnknownTable`].
    pub fn table(&self, sent: &str) -> Result<&'a Arc<Table>, Reject> {
        self.plan.table(sent)
    }

    /// The commit time.
    pub fn at(&self) -> Timestamp {
        self.plan.at()
    }

    /// The record with this key, as this call has made it so far.
    pub fn get(&self, table: &Table, key: &RecordKey) -> Option<&Arc<Object>> {
        self.plan.module().get(&table.name, key)
    }

    /// The keys of a record's children: the rows whose field names it, in key order.
    pub fn children(&self, table: &Table, field: &Field, parent: &Value) -> Vec<RecordKey> {
        self.plan.children(table, field, parent)
    }

    /// How many records were changed so far.
    pub fn changes(&self) -> usize {
        self.plan.drafts().len()
    }

    /// Changes one record, as a transaction's mutation does.
    ///
    /// # Errors
    /// As of the mutation.
    pub fn mutate(&mut self, mutation: &RecordMutation) -> Result<RecordDiff, Reject> {
        self.plan.mutation(mutation)?;
        Ok(self.plan.last_diff())
    }

    /// Replaces the children of a record, as a transaction does. What became of the rows, in their
    /// order.
    ///
    /// # Errors
    /// As of [`ReplaceChildren`].
    pub fn replace_children(
        &mut self,
        children: &ReplaceChildren,
    ) -> Result<Vec<RecordDiff>, Reject> {
        self.plan.replace_children(children)
    }

    /// Writes the parent into rows that become its children.
    ///
    /// # Errors
    /// [`Reject::DuplicatePart`] for two rows under one key, and [`Reject::PartOfAnother`] for a
    /// row that is stored as a child of another record.
    pub fn claim_children(
        &self,
        table: &Table,
        field: &Field,
        parent: &Value,
        rows: &mut [Object],
    ) -> Result<(), Reject> {
        self.plan.claim_children(table, field, parent, rows)
    }

    /// Saves rows and deletes none; a row sent without a version changes the row there is,
    /// whatever its version. What became of the rows, in their order.
    ///
    /// # Errors
    /// [`Reject::DuplicatePart`] for two rows under one key, and as of a save.
    pub fn save_rows(
        &mut self,
        table: &Table,
        rows: Vec<Object>,
    ) -> Result<Vec<RecordDiff>, Reject> {
        crate::module::refuse_same_keys(table, &rows)?;
        self.plan.save_as_stored(table, rows)
    }

    /// Refuses a row that is stored as a child of another record than `parent`, by the field that
    /// names its record.
    ///
    /// # Errors
    /// [`Reject::PartOfAnother`].
    pub fn refuse_child_of_another(
        &self,
        table: &Table,
        field: &str,
        (parent_table, parent): (&str, &Value),
        row: &Object,
    ) -> Result<(), Reject> {
        self.plan.refuse_child_of_another(table, row, field, (parent_table, parent))
    }

    /// Deletes records; those that are not there are passed over.
    pub fn remove(&mut self, table: &Table, keys: impl IntoIterator<Item = RecordKey>) {
        self.plan.remove(table, keys);
    }

    /// Takes the next number of a field's sequence, puts it into a record as the rule writes it,
    /// and gives the number and the rule as its definition shows it. `None` where the field has no
    /// sequence.
    ///
    /// # Errors
    /// [`Reject::Sequence`] where the numbers are used up.
    pub fn next_number(
        &mut self,
        table: &Table,
        field: &Field,
        record: &mut Object,
    ) -> Result<Option<(u64, Value)>, Reject> {
        let Some(rule) = self.plan.rule(table, &field.name).cloned() else { return Ok(None) };
        let number = self.plan.give(table, field, &rule, record)?;
        Ok(Some((number, rule.source)))
    }
}

/// What a procedure that answers a lookup may see: one branch:module at one moment.
#[derive(Debug)]
pub struct ProcedureView<'v> {
    schema: &'v Schema,
    module: &'v Module,
    module_id: &'v ModuleId,
}

impl<'v> ProcedureView<'v> {
    pub(crate) fn new(schema: &'v Schema, module: &'v Module, module_id: &'v ModuleId) -> Self {
        Self { schema, module, module_id }
    }

    /// The tables.
    pub fn schema(&self) -> &'v Schema {
        self.schema
    }

    /// Which module it is.
    pub fn module_id(&self) -> &'v ModuleId {
        self.module_id
    }

    /// The records of a table and their keys, in the order they came in.
    pub fn rows(&self, table: &Table) -> impl Iterator<Item = (&'v RecordKey, &'v Arc<Object>)> {
        let rows = self.module.rows(&table.name).into_iter();
        rows.flat_map(|rows| rows.iter()).map(|(_, row)| (&row.key, &row.record))
    }

    /// The record with this key, and the key as it is stored.
    pub fn row(&self, table: &Table, key: &RecordKey) -> Option<(&'v RecordKey, &'v Arc<Object>)> {
        let row = self.module.rows(&table.name)?.row(key)?;
        Some((&row.key, &row.record))
    }
}

/// The version a client sent with a record: the whole part of a number above zero, if it has one.
pub fn sent_version(record: &Object) -> Option<u64> {
    version::sent(record)
}

/// The version of a stored record: at least 1.
pub fn stored_version(record: &Object) -> u64 {
    version::stored(record)
}

impl From<CodecError> for Reject {
    /// Arguments of a procedure that cannot be read.
    fn from(error: CodecError) -> Self {
        Self::BadCommand { message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Action, Request};
    use crate::testing::{Shop, object};

    /// Inserts as many tickets as it has bytes of arguments, and tells how many there are.
    #[derive(Debug)]
    struct Print;

    impl Procedure for Print {
        fn name(&self) -> &'static str {
            "print"
        }

        fn run(
            &self,
            context: &mut ProcedureContext<'_, '_>,
            arguments: &[u8],
        ) -> Result<(), Reject> {
            for byte in arguments {
                let ticket = object(&format!(r#"{{"id":"t{byte}"}}"#));
                context.mutate(&RecordMutation::new(Action::Insert, "tickets", ticket))?;
                if *byte == 9 {
                    let (code, message) = ("nine".to_owned(), "no nine".to_owned());
                    return Err(Reject::Procedure { code, message, details: Object::new() });
                }
            }
            Ok(())
        }

        fn read(&self, view: &ProcedureView<'_>, _: &[u8]) -> Result<Vec<u8>, Reject> {
            let table = view.schema().table("tickets").unwrap();
            Ok(vec![u8::try_from(view.rows(table).count()).unwrap()])
        }
    }

    fn call(procedure: &str, arguments: &[u8]) -> ProcedureCall {
        ProcedureCall { procedure: procedure.to_owned(), arguments: arguments.to_vec() }
    }

    fn shop() -> Shop {
        Shop::lenient().with_procedures(Procedures::new([Arc::new(Print) as Arc<dyn Procedure>]))
    }

    #[test]
    fn a_call_changes_records_and_a_lookup_sees_them() {
        let mut shop = shop();
        let accepted = shop.run(Request::Call(call("print", &[1, 2]))).unwrap();
        assert_eq!(accepted.delta.events.len(), 2);
        let read = crate::Read::Call(call("print", &[]));
        assert_eq!(shop.branch().read(&read), Ok(crate::Answer::Call(vec![2])));
    }

    #[test]
    fn a_call_that_is_refused_changes_nothing() {
        let mut shop = shop();
        let refused = shop.run(Request::Call(call("print", &[1, 9]))).unwrap_err();
        assert_eq!((refused.code(), refused.to_string().as_str()), ("nine", "no nine"));
        assert!(shop.rows("tickets").is_empty());
    }

    #[test]
    fn a_procedure_nobody_knows_is_refused() {
        let mut shop = shop();
        let refused = shop.run(Request::Call(call("sing", &[]))).unwrap_err();
        assert_eq!(refused.code(), "procedure-not-found");
        let refused = shop.branch().read(&crate::Read::Call(call("sing", &[])));
        assert_eq!(refused.unwrap_err().code(), "procedure-not-found");
    }

    #[test]
    fn a_call_sent_again_is_a_repeat_by_what_it_means() {
        let mut shop = shop();
        let command = shop.command(Request::Call(call("print", &[1])));
        shop.apply_one(command.clone());
        let crate::Outcome::Accepted(again) = shop.apply_one(command.clone()).outcome else {
            panic!("a repeat")
        };
        assert!(again.repeated);
        let other = crate::Command { request: Request::Call(call("print", &[2])), ..command };
        assert_eq!(shop.apply_one(other).outcome, crate::Outcome::Rejected(Reject::KeyReused));
    }

    #[test]
    fn procedures_are_known_after_a_restore() {
        let mut shop = shop();
        shop.run(Request::Call(call("print", &[1]))).unwrap();
        shop.restore();
        shop.run(Request::Call(call("print", &[2]))).unwrap();
        assert_eq!(shop.rows("tickets").len(), 2);
    }

    #[test]
    #[should_panic(expected = "two procedures are called")]
    fn two_procedures_of_one_name_are_a_defect() {
        let _ = Procedures::new([Arc::new(Print) as Arc<dyn Procedure>, Arc::new(Print)]);
    }
}
