//! Merge: change the fields sent of a record that exists.

use crate::command::RecordMutation;
use crate::ids::RecordKey;
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::Object;

impl Plan<'_> {
    pub(super) fn merge(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
        sent: Object,
    ) -> Result<(), Reject> {
        let not_found = |key| Reject::NotFound { table: mutation.table.clone(), key };
        let key = match table.key_of(&sent) {
            Ok(key) => key,
            // The original numbers the patch, then finds no such record; no number is taken here.
            Err(Reject::MissingKey { field, .. }) if self.rule(table, &field).is_some() => {
                return Err(not_found(RecordKey("".into())));
            }
            Err(reject) => return Err(reject),
        };
        let Some(current) = self.module().get(&table.name, &key).cloned() else {
            return Err(not_found(key));
        };
        let next = self.next_version(table, mutation, &key, &current)?;
        let mut record = table.project_merge(&current, &sent, self.validation(), self.at())?;
        self.number(table, &mut record, Some(&current))?;
        self.lock(table).set(&mut record, next);
        self.put(table, mutation, key, record)
    }
}
