//! Save: insert where the key is new, change where it exists.

use std::sync::Arc;

use crate::command::{Action, RecordMutation};
use crate::definition::VersionRule;
use crate::ids::RecordKey;
use crate::module::plan::{Plan, is_empty};
use crate::module::version;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::Object;

impl Plan<'_> {
    pub(super) fn save(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
        sent: Object,
    ) -> Result<(), Reject> {
        let existing = table
            .key_of(&sent)
            .ok()
            .and_then(|key| Some((self.module().get(&table.name, &key)?.clone(), key)));
        let Some((current, key)) = existing else {
            let key = table.key_of(&sent).unwrap_or_else(|_| RecordKey("".into()));
            self.check_last_version(table, mutation, &key, None)?;
            return self.insert(table, mutation, sent);
        };
        let replaces = match self.definition().version_rule {
            VersionRule::Next => table.versioned && version::sent(&mutation.record) == Some(1),
            VersionRule::Read => false,
        };
        self.refuse_taken_child(table, Action::Save, &sent)?;
        if replaces {
            return self.replace(table, mutation, sent, key, &current);
        }
        self.merge(table, mutation, sent)
    }

    /// The rule for version 1 over any version: the record is made anew out of what was sent. It
    /// keeps the numbers it was given: a number belongs to its record.
    fn replace(
        &mut self,
        table: &Table,
        mutation: &RecordMutation,
        mut sent: Object,
        key: RecordKey,
        current: &Object,
    ) -> Result<(), Reject> {
        self.number(table, &mut sent, Some(current))?;
        self.lock(table).fill(table, &mut sent, 1);
        let mut record = table.project_insert(&sent, &mut self.insert_context())?;
        for field in &table.fields {
            let kept = self.rule(table, &field.name).and_then(|_| current.get(&field.name));
            if let Some(value) = kept.filter(|_| is_empty(sent.get(&field.name))) {
                record.insert(Arc::clone(&field.name), value.clone());
            }
        }
        self.lock(table).set(&mut record, 1);
        self.put(table, mutation, key, record)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Shop, schema_of};

    #[test]
    fn a_save_does_not_take_a_part_of_another_record() {
        for (mut shop, is_strict) in [(Shop::lenient(), false), (Shop::strict(), true)] {
            shop.redefine(|definition| {
                definition.schema = schema_of(
                    r#"[{"name":"bills","fields":[{"name":"id","type":"text","primaryKey":true}]},
                        {"name":"items","fields":[{"name":"id","type":"text","primaryKey":true},
                            {"name":"bill","type":"text",
                             "references":{"table":"bills","column":"id","onDelete":"CASCADE"}},
                            {"name":"note","type":"text","nullable":true}]}]"#,
                );
            })
            .unwrap();
            shop.insert("bills", r#"{"id":"A"}"#).unwrap();
            shop.insert("bills", r#"{"id":"B"}"#).unwrap();
            shop.save("items", r#"{"id":"1","bill":"A"}"#).unwrap();
            let taken = shop.save("items", r#"{"id":"1","bill":"B"}"#);
            if !is_strict {
                taken.expect("the original's clients do so");
                continue;
            }
            let taken = taken.unwrap_err();
            assert_eq!(taken.code(), "part-of-another-record");
            assert!(taken.to_string().contains(r#"a part of bills "A""#), "{taken}");
            assert!(shop.insert("items", r#"{"id":"1","bill":"B"}"#).is_err());
            assert!(shop.rows("items")[0].contains(r#""bill":"A""#), "nothing changed");
            shop.save("items", r#"{"id":"1","bill":"A","note":"x"}"#).unwrap();
            shop.save("items", r#"{"id":"1","note":"y"}"#).expect("it stays where it is");
            shop.merge("items", r#"{"id":"1","bill":"B"}"#).expect("a merge moves it, as it says");
        }
    }
}
