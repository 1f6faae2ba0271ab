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

#[cfg(test)]
mod tests {
    use crate::testing::{Shop, rule};

    #[test]
    fn only_what_was_sent_changes() {
        let mut shop = Shop::lenient();
        shop.insert("dishes", r#"{"id":"d","code":"a","kitchen":"hot"}"#).unwrap();
        let event = shop.merge("dishes", r#"{"id":"d","code":"b","colour":1}"#).unwrap();
        assert_eq!(event.record().unwrap().record.get("code").unwrap().as_str(), Some("b"));
        assert_eq!(event.record().unwrap().record.get("kitchen").unwrap().as_str(), Some("hot"));
        assert_eq!(
            event.record().unwrap().record.get("colour"),
            None,
            "lenient drops what it does not know"
        );
    }

    #[test]
    fn the_key_must_be_sent_and_the_record_must_exist() {
        let mut shop = Shop::lenient();
        let reject = shop.merge("dishes", r#"{"code":"b"}"#).unwrap_err();
        assert_eq!(reject.to_string(), r#"Missing primary key field "id" for table "dishes""#);
        let reject = shop.merge("dishes", r#"{"id":"d"}"#).unwrap_err();
        assert_eq!(reject.to_string(), r#"Record not found in table "dishes"."#);
        let rules = |definition: &mut crate::Definition| {
            let table = crate::TableName::parse("dishes").unwrap();
            definition.sequences.insert(table, [("id".to_owned(), rule("D", 1))].into());
        };
        shop.redefine(rules).unwrap();
        let reject = shop.merge("dishes", r#"{"code":"b"}"#).unwrap_err();
        assert_eq!(reject.code(), "record-not-found", "as the original, which numbers it first");
        assert_eq!(shop.reserve("dishes", "id").unwrap(), "D1", "no number was taken");
    }
}
