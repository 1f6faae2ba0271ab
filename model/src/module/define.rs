//! Define: take a definition, the first or a new one. Records stay; whether they satisfy it is
//! looked at by `fit`.

use std::collections::BTreeSet;

use crate::definition::{Definition, Validation};
use crate::ids::{RecordKey, Timestamp};
use crate::module::relations::Relations;
use crate::module::rows::{Row, Rows};
use crate::module::{Module, Numbers};
use crate::reject::Reject;
use crate::schema::Table;

/// The module and its sequences under a new definition.
pub(crate) fn define(
    definition: &Definition,
    relations: &Relations,
    mut module: Module,
    mut numbers: Numbers,
    at: Timestamp,
) -> Result<(Module, Numbers), Reject> {
    check(definition)?;
    for table in &definition.schema.tables {
        let Some(rows) = module.rows(&table.name) else { continue };
        let mut rows = under_key(table, rows)?;
        rows.index(relations.indexes(&table.name));
        module.set_rows(table.name.clone(), rows);
    }
    numbers.pass_records(definition, &module, at);
    Ok((module, numbers))
}

/// Every sequence moves, and a strict module's references end within it.
fn check(definition: &Definition) -> Result<(), Reject> {
    for (table, rules) in &definition.sequences {
        if let Some((field, _)) = rules.iter().find(|(_, rule)| rule.increment == 0) {
            return Err(Reject::BadDefinition {
                code: "sequence-stands-still".to_owned(),
                message: format!("the numbers of {table}.{field} have increment 0"),
            });
        }
    }
    match definition.validation {
        Validation::Strict => definition.schema.check_strict(),
        Validation::Lenient => Ok(()),
    }
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

    use crate::ids::TableName;
    use crate::schema::Schema;
    use crate::sequence::SequenceRule;
    use crate::testing::{Shop, table};

    #[test]
    fn a_table_that_is_no_longer_defined_must_be_empty() {
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"t"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"u"}"#).unwrap();
        let old = shop.branch().definition().unwrap().schema.clone();
        let without = |definition: &mut crate::Definition| {
            let tables = old.tables.iter().filter(|table| table.name.as_str() != "tickets");
            definition.schema =
                Arc::new(Schema::under(tables.cloned().collect(), &crate::testing::conventions()));
        };
        let refused = shop.redefine(without).unwrap_err();
        assert_eq!(refused.code(), "records-do-not-fit");
        assert!(refused.to_string().contains("remove its 2 records first"), "{refused}");
        shop.delete("tickets", r#"{"id":"t"}"#).unwrap();
        shop.delete("tickets", r#"{"id":"u"}"#).unwrap();
        shop.redefine(without).unwrap();
        assert_eq!(shop.insert("tickets", "{}").unwrap_err().code(), "table-not-found");
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
        assert_eq!(event.record().unwrap().record.get("id").unwrap().as_str(), Some("b"));
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
    fn a_bad_definition_is_refused_and_the_old_one_stays() {
        let mut shop = Shop::strict();
        let reject = shop.redefine(|definition| {
            let mut line = table("order_line", &["id", "dish"]);
            let mut reference = crate::testing::reference("dishes", "id");
            reference.module = Some("stock".to_owned());
            line.fields[1].references = Some(reference);
            definition.schema =
                Arc::new(Schema::under(vec![Arc::new(line)], &crate::testing::conventions()));
        });
        assert_eq!(reject.unwrap_err().code(), "cross-module-reference");
        let reject = shop.redefine(|definition| {
            let still = SequenceRule { increment: 0, ..SequenceRule::plain() };
            let table = TableName::parse("tickets").unwrap();
            definition.sequences.insert(table, [("id".to_owned(), still)].into());
        });
        assert_eq!(reject.unwrap_err().code(), "sequence-stands-still");
        shop.insert("tickets", r#"{"id":"t"}"#).unwrap();
    }
}
