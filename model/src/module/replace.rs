//! Replace: whole tables by a client's (docs/original/rest.md#sync).
//!
//! Lenient stores the records as they were sent, fields the schema does not know included, as the
//! original does; strict makes records of them as an insert would. Nothing is replaced where one
//! row is not acceptable. Lenient passes names over that nobody registered; strict refuses them.
//! What stays of a table that is replaced, `settle` says.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::Replace;
use crate::definition::Validation;
use crate::delta::BulkOperation;
use crate::ids::{RecordKey, Revision, TableName};
use crate::limits::{VERSION_LEAP_MAX, VERSION_MAX};
use crate::module::Module;
use crate::module::operation::{distinct, number};
use crate::module::plan::{Plan, is_empty};
use crate::module::version::Lock;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

impl<'a> Plan<'a> {
    pub(crate) fn replace_tables(&mut self, replace: &Replace) -> Result<(), Reject> {
        self.check_revision(replace)?;
        distinct(replace.tables.iter().map(|(name, _)| &**name))?;
        let before = self.module().clone();
        let mut tables: Vec<&Arc<Table>> = Vec::new();
        let mut seen: BTreeSet<(&TableName, RecordKey)> = BTreeSet::new();
        for (name, rows) in replace.tables.iter() {
            let Some(table) = self.replaced_table(name)? else { continue };
            let Some(rows) = rows.as_array() else {
                let details = [("tableName", table.name.as_str())];
                return Err(refuse("invalid-table-format", details.into_iter().collect()));
            };
            // A table named twice, by an alias too, holds the rows of both.
            if !tables.iter().any(|known| known.name == table.name) {
                self.empty(table);
                tables.push(table);
            }
            for (index, row) in rows.iter().enumerate() {
                let (key, record) = self.replacement(&before, table, index, row)?;
                if !seen.insert((&table.name, key.clone())) {
                    let details = [("tableName", table.name.as_str()), ("key", key.as_str())];
                    return Err(refuse("duplicate-primary-key", details.into_iter().collect()));
                }
                let relations = self.relations();
                self.module_mut().put(&table.name, key, Arc::new(record), relations);
            }
        }
        if tables.is_empty() {
            return Ok(());
        }
        self.settle(&before, &tables);
        let definition = self.definition();
        let at = self.at();
        let (module, numbers) = self.module_and_numbers();
        numbers.pass_records(definition, module, at);
        let names = tables.iter().map(|table| Value::from(table.name.as_str())).collect();
        let details = [("tables", Value::Array(names))].into_iter().collect();
        let diffs = self.touched(&before, &tables);
        self.refuse_moved_children(&diffs)?;
        let revision = replace.revision.map_or_else(|| self.next_revision(), Revision);
        self.draft_operation(BulkOperation::Replace, details, diffs, revision);
        self.check_integrity()
    }

    /// The table of this name; none where a lenient module passes it over.
    fn replaced_table(&self, name: &str) -> Result<Option<&'a Arc<Table>>, Reject> {
        match self.validation() {
            Validation::Strict => self.table(name).map(Some),
            Validation::Lenient => Ok(self.definition().schema.resolve(name)),
        }
    }

    fn check_revision(&self, replace: &Replace) -> Result<(), Reject> {
        let current = self.revision().0;
        match replace.revision {
            Some(incoming) if incoming < current => {
                let details = [("currentVersion", current), ("incomingVersion", incoming)];
                Err(refuse("version-regression", details.into_iter().collect()))
            }
            Some(incoming) if incoming > VERSION_MAX => {
                let message =
                    format!("snapshot.version is {incoming}; it is at most {VERSION_MAX}");
                Err(Reject::BadCommand { message })
            }
            Some(incoming) => match self.validation() {
                Validation::Strict if incoming - current > VERSION_LEAP_MAX => {
                    let message = format!(
                        "snapshot.version is {incoming}, more than {VERSION_LEAP_MAX} over the \
                         module's {current}, which counts its changes: send the version that was \
                         read, or none"
                    );
                    Err(Reject::BadCommand { message })
                }
                Validation::Strict | Validation::Lenient => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The record a row becomes, under its key.
    fn replacement(
        &mut self,
        before: &Module,
        table: &Table,
        index: usize,
        row: &Value,
    ) -> Result<(RecordKey, Object), Reject> {
        let nameless = || {
            let details =
                [("tableName", Value::from(table.name.as_str())), ("index", number(index))];
            refuse("missing-primary-key", details.into_iter().collect())
        };
        let row = row.as_object().ok_or_else(nameless)?;
        let parts = table.key_values(row).map_err(|_| nameless())?;
        // Its parts are there, so only its length can be wrong.
        let key = table.key_of(row)?;
        self.check_bound(table, row)?;
        let record = match self.validation() {
            Validation::Lenient => as_sent(table, row, parts),
            Validation::Strict => {
                let lock = self.lock(table);
                if lock != Lock::None {
                    let is_there = before.get(&table.name, &key).is_some();
                    self.readable(table, row, is_there)?;
                }
                // A record made here; of one that is there, its changes are counted on.
                let mut sent = lock.take_out(row);
                lock.fill(table, &mut sent, 1);
                let mut record = table.project_insert(&sent, &mut self.insert_context())?;
                lock.set(&mut record, 1);
                record
            }
        };
        Ok((key, record))
    }
}

/// The row itself, its key under the key's own names, sharing the schema's names.
fn as_sent(table: &Table, row: &Object, key: Object) -> Object {
    let mut record = Object::with_capacity(row.len());
    for (name, value) in row.iter() {
        let own = table.fields.iter().find(|field| field.name == *name);
        record.push(Arc::clone(own.map_or(name, |field| &field.name)), value.clone());
    }
    for (name, value) in key {
        if is_empty(record.get(&name)) {
            record.insert(name, value);
        }
    }
    record
}

fn refuse(reason: &str, details: Object) -> Reject {
    Reject::Replace { reason: reason.to_owned(), details }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Request;
    use crate::delta::Event;
    use crate::testing::{Shop, module_change, object};

    fn replace(
        shop: &mut Shop,
        tables: &str,
        revision: Option<u64>,
    ) -> Result<Option<Arc<Event>>, Reject> {
        shop.operation(Request::Replace(Replace { tables: object(tables).into(), revision }))
    }

    fn refusal(shop: &mut Shop, tables: &str, revision: u64) -> (String, String) {
        match replace(shop, tables, Some(revision)) {
            Err(Reject::Replace { reason, details }) => (reason, Value::Object(details).to_json()),
            other => panic!("{other:?}"),
        }
    }

    fn shop() -> Shop {
        let mut shop = Shop::lenient();
        for id in ["a", "b"] {
            shop.insert("tickets", &format!(r#"{{"id":"{id}"}}"#)).unwrap();
        }
        shop.insert("dishes", r#"{"id":"d"}"#).unwrap();
        shop
    }

    #[test]
    fn given_tables_are_replaced_as_sent_and_the_others_stay() {
        let mut shop = shop();
        let sent = r#"{"ticket":[{"id":"b","odd":1},{"id":"c"}],"zzz":7}"#;
        let event = replace(&mut shop, sent, Some(500)).unwrap().unwrap();
        assert_eq!(shop.rows("tickets"), [r#"{"id":"b","odd":1}"#, r#"{"id":"c"}"#]);
        assert_eq!(shop.rows("dishes").len(), 1);
        let head = shop.branch().head();
        assert_eq!((head.offset.0, head.revision.0, head.rows), (4, 500, 3));
        let change = module_change(&event);
        assert_eq!(Value::Object(change.details.clone()).to_json(), r#"{"tables":["tickets"]}"#);
        let keys: Vec<_> = change
            .records
            .iter()
            .map(|(_, key, record)| format!("{key} {}", record.is_some()))
            .collect();
        assert_eq!(keys, ["a false", "b true", "c true"]);
        replace(&mut shop, r#"{"tickets":[]}"#, None).unwrap().unwrap();
        assert_eq!((shop.branch().head().revision.0, shop.rows("tickets").len()), (501, 0));
    }

    #[test]
    fn what_is_not_acceptable_is_refused_and_replaces_nothing() {
        let mut shop = shop();
        let reason = |reason: &str, details: &str| (reason.to_owned(), details.to_owned());
        assert_eq!(
            refusal(&mut shop, r#"{"tickets":[]}"#, 2),
            reason("version-regression", r#"{"currentVersion":4,"incomingVersion":2}"#)
        );
        assert_eq!(
            refusal(&mut shop, r#"{"dishes":[],"tickets":[{"id":"a"},{"id":"a"}]}"#, 900),
            reason("duplicate-primary-key", r#"{"tableName":"tickets","key":"a"}"#)
        );
        for row in [r#"{"x":1}"#, r#"{"id":""}"#, "7"] {
            assert_eq!(
                refusal(&mut shop, &format!(r#"{{"tickets":[{{"id":"c"}},{row}]}}"#), 900),
                reason("missing-primary-key", r#"{"tableName":"tickets","index":1}"#)
            );
        }
        assert_eq!(
            refusal(&mut shop, r#"{"tickets":{"id":"a"}}"#, 900),
            reason("invalid-table-format", r#"{"tableName":"tickets"}"#)
        );
        let above = replace(&mut shop, r#"{"tickets":[]}"#, Some(VERSION_MAX + 1));
        assert_eq!(above.unwrap_err().code(), "bad-command", "counting on would end some day");
        assert_eq!((shop.branch().head().offset.0, shop.branch().head().rows), (3, 3));
    }

    #[test]
    fn a_table_named_twice_holds_the_rows_of_both() {
        let mut shop = shop();
        replace(&mut shop, r#"{"ticket":[{"id":"x"}],"tickets":[{"id":"y"}]}"#, None).unwrap();
        assert_eq!(shop.rows("tickets"), [r#"{"id":"x"}"#, r#"{"id":"y"}"#]);
        let sent = r#"{"ticket":[{"id":"x"}],"tickets":[{"id":"x"}]}"#;
        assert_eq!(refusal(&mut shop, sent, 900).0, "duplicate-primary-key");
    }

    #[test]
    fn without_a_table_nothing_happens_but_the_id_is_taken() {
        let mut shop = shop();
        let before = shop.branch().head();
        let request = Request::Replace(Replace { tables: Arc::default(), revision: None });
        let command = shop.command(request);
        let ticket = |shop: &mut Shop, command| match shop.apply_one(command).outcome {
            crate::Outcome::Accepted(accepted) => (accepted.repeated, accepted.delta.events.len()),
            crate::Outcome::Rejected(reject) => panic!("{reject}"),
        };
        assert_eq!(ticket(&mut shop, command.clone()), (false, 0));
        assert_eq!(ticket(&mut shop, command), (true, 0));
        assert_eq!(replace(&mut shop, r#"{"zzz":[{"id":"a"}]}"#, Some(700)), Ok(None));
        assert_eq!(shop.branch().head(), before);
    }
}
