//! Seed: fill tables that have no records, as a seed file says.
//!
//! Seeds are the state at offset 0: a second seed, or one that comes after the first event, is
//! accepted and changes nothing, for no event would tell of it. Of rows with one key the last
//! one wins, in the first one's place.

use std::sync::Arc;

use crate::command::Seed;
use crate::module::plan::Plan;
use crate::module::version;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::Object;

impl Plan<'_> {
    pub(crate) fn seed(&mut self, seed: &Seed) -> Result<(), Reject> {
        let schema = Arc::clone(&self.definition().schema);
        for (table, rows) in schema.seed_rows(seed) {
            let empty = self.module().rows(&table.name).is_none_or(|rows| rows.len() == 0);
            for row in rows.into_iter().filter(|_| empty) {
                self.seed_row(table, row)?;
            }
        }
        let definition = self.definition();
        let (module, numbers) = self.module_and_numbers();
        numbers.pass_records(definition, module);
        Ok(())
    }

    fn seed_row(&mut self, table: &Table, row: &Object) -> Result<(), Reject> {
        let mut sent = row.clone();
        let known = table.key_of(&sent).is_ok_and(|key| self.has(table, &key));
        if !known {
            self.number(table, &mut sent, None)?;
        }
        let mut record = table.project_seed(&sent, &mut self.insert_context())?;
        version::set(table, &mut record, version::stored(row));
        let key = table.key_of(&record)?;
        let relations = self.relations();
        self.module_mut().put(&table.name, key, Arc::new(record), relations);
        Ok(())
    }
}
