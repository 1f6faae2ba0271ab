//! Delete: remove a record. A lenient module never checks its version
//! (docs/original/rules.md#versions), a strict one where it is sent; what still points at it is
//! checked when the command ends.

use crate::command::RecordMutation;
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;

impl Plan<'_> {
    pub(super) fn delete(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
    ) -> Result<(), Reject> {
        let key = table.key_of(&mutation.record)?;
        let current = self.module().get(&table.name, &key).cloned();
        if current.is_some() {
            self.check_last_version(table, mutation, &key, current.as_deref())?;
            self.check_change(table, mutation, current.as_deref(), None)?;
        }
        self.take(table, mutation, key.clone())
            .ok_or_else(|| Reject::NotFound { table: mutation.table.clone(), key })
    }
}
