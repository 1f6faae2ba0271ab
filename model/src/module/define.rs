//! Define: take a definition, the first or a new one. Records stay: those of a table no longer
//! named are kept unseen, and what breaks a new rule is left until somebody changes it.

use std::collections::BTreeSet;

use crate::definition::{Definition, Validation};
use crate::ids::{ModuleId, RecordKey};
use crate::module::relations::Relations;
use crate::module::rows::{Row, Rows};
use crate::module::{Module, Numbers};
use crate::reject::Reject;
use crate::schema::Table;

/// The module and its sequences under a new definition.
pub(crate) fn define(
    module_id: &ModuleId,
    definition: &Definition,
    relations: &Relations,
    mut module: Module,
    mut numbers: Numbers,
) -> Result<(Module, Numbers), Reject> {
    check(module_id, definition)?;
    for table in &definition.schema.tables {
        let Some(rows) = module.rows(&table.name) else { continue };
        let mut rows = under_key(table, rows)?;
        rows.index(relations.indexes(&table.name));
        module.set_rows(table.name.clone(), rows);
    }
    numbers.pass_records(definition, &module);
    Ok((module, numbers))
}

/// Every sequence moves, and a strict module's references end within it.
fn check(module_id: &ModuleId, definition: &Definition) -> Result<(), Reject> {
    for (table, rules) in &definition.sequences {
        if let Some((field, _)) = rules.iter().find(|(_, rule)| rule.increment == 0) {
            return Err(Reject::BadDefinition {
                code: "sequence-stands-still".to_owned(),
                message: format!("the numbers of {table}.{field} have increment 0"),
            });
        }
    }
    match definition.validation {
        Validation::Lenient => return Ok(()),
        Validation::Strict => {}
    }
    for table in &definition.schema.tables {
        for field in &table.fields {
            let other = field.references.as_ref().and_then(|reference| reference.module.as_deref());
            if let Some(other) = other.filter(|other| *other != module_id.as_str()) {
                return Err(Reject::BadDefinition {
                    code: "cross-module-reference".to_owned(),
                    message: format!(
                        "{}.{} references the module \"{other}\"; references end within {module_id}",
                        table.name, field.name
                    ),
                });
            }
        }
    }
    Ok(())
}

/// The rows found by the table's key as it is now defined.
fn under_key(table: &Table, rows: &Rows) -> Result<Rows, Reject> {
    let keys: Result<Vec<RecordKey>, Reject> =
        rows.iter().map(|(_, row)| table.key_of(&row.record)).collect();
    let bad = |what: String| Reject::BadDefinition {
        code: "key-change".to_owned(),
        message: format!("{} cannot have the key ({}): {what}", table.name, table.key.join(", ")),
    };
    let keys = keys.map_err(|reject| bad(reject.to_string()))?;
    if rows.iter().map(|(_, row)| &row.key).eq(keys.iter()) {
        return Ok(rows.clone());
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = keys.iter().find(|key| !seen.insert(*key)) {
        return Err(bad(format!("two records would have \"{twice}\"")));
    }
    let mut anew = Rows::starting_at(rows.next());
    for ((ordinal, row), key) in rows.iter().zip(keys) {
        anew.restore(ordinal, Row { key, record: row.record.clone() });
    }
    Ok(anew)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::definition::Validation;
    use crate::reject::Reject;
    use crate::schema::Schema;
    use crate::testing::{Shop, table};

    #[test]
    fn records_of_a_table_no_longer_named_are_kept_unseen() {
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"t"}"#).unwrap();
        let old = shop.branch().definition().unwrap().schema.clone();
        shop.redefine(|definition| {
            let tables = old.tables.iter().filter(|table| table.name.as_str() != "tickets");
            definition.schema = Arc::new(Schema { tables: tables.cloned().collect() });
        })
        .unwrap();
        assert_eq!(shop.branch().head().rows, 0);
        assert_eq!(shop.insert("tickets", "{}").unwrap_err().code(), "table-not-found");
        shop.redefine(|definition| definition.schema = old).unwrap();
        assert_eq!((shop.branch().head().rows, shop.rows("tickets").len()), (1, 1));
    }

    #[test]
    fn a_key_changes_only_where_every_record_has_one_of_its_own() {
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"a","number":"1"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"b","number":"2"}"#).unwrap();
        let by_number = |definition: &mut crate::Definition| {
            let mut schema = (*definition.schema).clone();
            let mut tickets = table("tickets", &["id", "number", "n"]);
            tickets.key = [Arc::from("number")].into();
            schema.tables[3] = Arc::new(tickets);
            definition.schema = Arc::new(schema);
        };
        shop.redefine(by_number).unwrap();
        let event = shop.merge("tickets", r#"{"number":"2","n":5}"#).unwrap();
        assert_eq!(event.record.get("id").unwrap().as_str(), Some("b"));
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"a","number":"1"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"b","number":"1"}"#).unwrap();
        let reject = shop.redefine(by_number).unwrap_err();
        assert_eq!(
            reject.to_string(),
            r#"tickets cannot have the key (number): two records would have "1""#
        );
    }

    #[test]
    fn strict_refuses_a_reference_into_another_module() {
        let mut shop = Shop::lenient();
        let refer = |module: &'static str| {
            move |definition: &mut crate::Definition| {
                let mut line = table("order_line", &["id", "dish"]);
                let mut reference = crate::testing::reference("dishes", "id");
                reference.module = Some(module.to_owned());
                line.fields[1].references = Some(reference);
                definition.schema = Arc::new(Schema { tables: vec![Arc::new(line)] });
                definition.validation = Validation::Strict;
            }
        };
        let reject = shop.redefine(refer("stock")).unwrap_err();
        assert_eq!(reject.code(), "cross-module-reference");
        assert!(matches!(reject, Reject::BadDefinition { .. }));
        shop.redefine(refer("pos")).expect("its own module is no other");
    }
}
