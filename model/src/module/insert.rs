//! Insert: add a record.
//!
//! Where the key exists, strict refuses and lenient changes the one record there is: a till saves
//! an order by REST and at once inserts the same order by socket with fewer fields, so the fields
//! sent replace, the others stay, and the version does not move (the till does not know that
//! anything happened to its order).

use std::sync::Arc;

use crate::command::{Action, RecordMutation};
use crate::definition::Validation;
use crate::module::plan::{Plan, is_empty};
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::Object;

impl Plan<'_> {
    pub(super) fn insert(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
        mut sent: Object,
    ) -> Result<(), Reject> {
        let known = table.key_of(&sent).is_ok_and(|key| self.has(table, &key));
        if !known {
            self.number(table, &mut sent, None)?;
        }
        let lock = self.lock(table);
        let first = self.first_version(table, mutation);
        lock.fill(table, &mut sent, first);
        let mut record = table.project_insert(&sent, &mut self.insert_context())?;
        let key = table.key_of(&record)?;
        let Some(current) = self.module().get(&table.name, &key).cloned() else {
            lock.set(&mut record, self.counted_on(first, table, &key));
            return self.put(table, mutation, key, record);
        };
        match self.validation() {
            Validation::Strict => Err(Reject::DuplicateKey { table: table.name.to_string(), key }),
            Validation::Lenient => {
                self.refuse_taken_child(table, Action::Insert, &sent)?;
                let record = amend(table, &current, &sent, &record);
                self.put(table, mutation, key, record)
            }
        }
    }
}

/// The current record with what was sent set over it, each value as an insert would store it.
fn amend(table: &Table, current: &Object, sent: &Object, projected: &Object) -> Object {
    let mut record = current.clone();
    for field in &table.fields {
        let was_sent = !is_empty(table.sent_value(sent, field).as_ref());
        if (was_sent || &*field.name == "updatedAt")
            && let Some(value) = projected.get(&field.name)
        {
            record.insert(Arc::clone(&field.name), value.clone());
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use crate::command::{Action, Request, Transaction};
    use crate::definition::{Validation, VersionRule};
    use crate::delta::Effect;
    use crate::outcome::Outcome;
    use crate::reject::Reject;
    use crate::testing::{Shop, mutation};

    #[test]
    fn a_record_gets_its_defaults_its_version_and_its_event() {
        let mut shop = Shop::lenient();
        let event = shop.insert("order_header", r#"{"note":"two teas","id":"o1"}"#).unwrap();
        assert_eq!(
            (event.offset.0, event.revision.0, event.record().unwrap().effect),
            (1, 2, Effect::Insert)
        );
        assert!(event.id.starts_with("evt-") && event.record().unwrap().table_sent.is_none());
        assert_eq!(event.previous, crate::Hash::default());
        let rows = shop.rows("order_header");
        assert_eq!(rows.len(), 1);
        assert!(rows[0].starts_with(r#"{"id":"o1","note":"two teas","n":null"#), "{rows:?}");
        assert!(rows[0].ends_with(r#","version":1}"#), "{rows:?}");
    }

    #[test]
    fn an_alias_is_echoed_and_everything_else_is_canonical() {
        let mut shop = Shop::lenient();
        let event = shop.insert("orders", r#"{"id":"o1"}"#).unwrap();
        assert_eq!(event.record().unwrap().table.as_str(), "order_header");
        assert_eq!(event.record().unwrap().table_sent.as_deref(), Some("orders"));
        assert_eq!(shop.rows("order_header").len(), 1);
    }

    #[test]
    fn the_first_version_is_the_stores_unless_left_to_the_client() {
        let mut shop = Shop::lenient();
        let event = shop.insert("order_header", r#"{"id":"o1","version":5}"#).unwrap();
        assert_eq!(event.record().unwrap().record.get("version").unwrap().as_u64(), Some(1));
        let declared = |rule| {
            let mut shop = Shop::with(Validation::Lenient, rule);
            shop.redefine(|definition| {
                let schema = crate::testing::schema(&[("order_header", &["id", "version"])]);
                definition.schema = std::sync::Arc::new(schema);
            })
            .unwrap();
            let event = shop.insert("order_header", r#"{"id":"o1","version":5}"#).unwrap();
            event.record().unwrap().record.get("version").unwrap().as_u64()
        };
        assert_eq!(declared(VersionRule::Next), Some(5));
        assert_eq!(declared(VersionRule::Read), Some(1));
    }

    #[test]
    fn a_write_without_mutations_is_refused() {
        assert_eq!(Shop::lenient().write(Vec::new()).unwrap_err().code(), "bad-command");
    }

    #[test]
    fn a_table_must_be_named_and_registered() {
        let mut shop = Shop::lenient();
        assert_eq!(shop.insert("", "{}").unwrap_err(), Reject::MissingTable);
        let reject = shop.insert("zzz", "{}").unwrap_err();
        assert_eq!(reject.to_string(), r#"Table "zzz" not registered in module "pos""#);
    }

    #[test]
    fn the_client_names_the_first_event_only() {
        let mut shop = Shop::lenient();
        let mutations = vec![
            mutation(Action::Insert, "dishes", r#"{"id":"a"}"#),
            mutation(Action::Insert, "dishes", r#"{"id":"b"}"#),
        ];
        let mut command = shop.command(Request::Transaction(Transaction::of(mutations)));
        let origin = crate::Origin { event_id: Some("evt-mine".to_owned()), ..Default::default() };
        command.origin = std::sync::Arc::new(origin);
        let Outcome::Accepted(accepted) = shop.apply_one(command).outcome else { panic!() };
        let ids: Vec<_> = accepted.delta.events.iter().map(|event| event.id.clone()).collect();
        assert_eq!(ids[0], "evt-mine");
        assert!(ids[1].starts_with("evt-") && ids[1].len() == 40, "{ids:?}");
    }
}
