//! Query: the rows of one table that meet conditions, sorted, and a stretch of them.
//!
//! Promise: rows that the sorting cannot tell apart keep the order they came in. A table is named
//! as it is registered or by an alias.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use crate::ids::RecordKey;
use crate::module::{Module, Row};
use crate::query::compare::SortKey;
use crate::query::condition::{Condition, stored_as};
use crate::query::populate::Populate;
use crate::read::{Query, QueryPage};
use crate::reject::Reject;
use crate::schema::{Schema, Table};
use crate::value::Object;

/// Answers a query.
pub(crate) fn query(
    schema: &Schema,
    module: &Module,
    module_id: &str,
    query: &Query,
) -> Result<QueryPage, Reject> {
    let table = schema.resolve(&query.table).ok_or_else(|| Reject::UnknownTable {
        table: query.table.clone(),
        module: module_id.to_owned(),
    })?;
    let rows = meeting(module, table, query);
    let limit = query.limit.unwrap_or(usize::MAX);
    let shown = rows.into_iter().skip(query.offset).take(limit);
    let rows = if query.populate {
        let populate = Populate::of(schema, module, table);
        shown.map(|row| Arc::new(populate.record(row))).collect()
    } else {
        shown.map(Arc::clone).collect()
    };
    Ok(QueryPage { table: table.name.clone(), rows })
}

/// The rows that meet all conditions, in the order asked.
fn meeting<'a>(module: &'a Module, table: &Table, query: &Query) -> Vec<&'a Arc<Object>> {
    let Some(rows) = module.rows(&table.name) else { return Vec::new() };
    let conditions: Vec<Condition<'_>> =
        query.filters.iter().map(|filter| Condition::new(filter, table)).collect();
    let meets = |record: &&Arc<Object>| conditions.iter().all(|condition| condition.holds(record));
    if let Some(key) = &query.key {
        let key = table.key_named(key);
        return key.and_then(|key| rows.get(&key)).filter(meets).into_iter().collect();
    }
    // A condition on the key is a lookup: clients mostly ask for one record this way.
    if let Some(key) = key_asked(table, &conditions) {
        return rows.get(&key).filter(meets).into_iter().collect();
    }
    let found = rows.iter().map(|(_, Row { record, .. })| record).filter(meets);
    if query.order_by.is_empty() {
        return found.collect();
    }
    sorted(found, table, query)
}

/// The key of the only row that can meet the conditions, where one of them names it.
fn key_asked(table: &Table, conditions: &[Condition<'_>]) -> Option<RecordKey> {
    let [key] = &table.key[..] else { return None };
    let named = conditions.iter().filter(|condition| condition.field == &**key);
    let value = named.filter_map(Condition::only).next()?;
    table.key_of(&[(Arc::clone(key), value.clone())].into_iter().collect()).ok()
}

fn sorted<'a>(
    rows: impl Iterator<Item = &'a Arc<Object>>,
    table: &Table,
    query: &Query,
) -> Vec<&'a Arc<Object>> {
    let fields: Vec<_> = query.order_by.iter().map(|by| stored_as(table, &by.field)).collect();
    let ranks = |record: &Object| -> Vec<SortKey> {
        fields.iter().map(|(field, kind)| SortKey::of(*kind, record.get(field))).collect()
    };
    // Keys are made once for each row; in the comparison they would be made for each pair.
    let mut ranked: Vec<_> = rows.map(|record| (ranks(record), record)).collect();
    // A stable sort: equal rows keep the order they came in, on every replica.
    ranked.sort_by(|(a, _), (b, _)| {
        let fields = query.order_by.iter().zip(a.iter().zip(b));
        let compared = fields.map(|(by, (a, b))| match by.descending {
            true => Reverse(a).cmp(&Reverse(b)),
            false => a.cmp(b),
        });
        compared.fold(Ordering::Equal, Ordering::then)
    });
    ranked.into_iter().map(|(_, record)| record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TableName;
    use crate::module::Relations;
    use crate::predicate::{Filter, Operator};
    use crate::read::OrderBy;
    use crate::testing::{object, schema};
    use crate::value::Value;

    fn ids(query: &Query) -> String {
        let schema = schema(&[("dish", &["id", "name", "n"])]);
        let mut module = Module::default();
        let name = TableName::parse("dish").unwrap();
        for json in [
            r#"{"id":"a","name":"Soup","n":3}"#,
            r#"{"id":"b","name":"Bread","n":10}"#,
            r#"{"id":"c","name":"Tea","n":3}"#,
            r#"{"id":"d","name":null,"n":1}"#,
        ] {
            let record = object(json);
            let key = RecordKey(record.get("id").unwrap().as_str().unwrap().into());
            module.put(&name, key, Arc::new(record), &Relations::default());
        }
        let page = super::query(&schema, &module, "pos", query).unwrap();
        page.rows.iter().map(|row| row.get("id").unwrap().as_str().unwrap().to_owned()).collect()
    }

    fn all() -> Query {
        Query { table: "dish".to_owned(), ..Query::default() }
    }

    fn filter(field: &str, operator: Operator, json: &str) -> Filter {
        let value = Value::from_json(json.as_bytes()).unwrap();
        Filter { field: field.to_owned(), operator, value }
    }

    #[test]
    fn a_row_must_meet_every_condition() {
        let both = vec![
            filter("n", Operator::Equal, r#""3""#),
            filter("name", Operator::Like, r#""t%A""#),
        ];
        assert_eq!(ids(&Query { filters: both, ..all() }), "c");
        let text = vec![filter("n", Operator::Is, r#""3.0""#)];
        assert_eq!(ids(&Query { filters: text, ..all() }), "ac", "a number as a text says it");
        let number = vec![filter("name", Operator::Is, "3")];
        assert_eq!(ids(&Query { filters: number, ..all() }), "");
        let missing = vec![filter("colour", Operator::Is, "null")];
        assert_eq!(ids(&Query { filters: missing, ..all() }), "abcd", "no value is null");
        assert_eq!(ids(&Query { table: "dishs".to_owned(), ..all() }), "abcd", "an alias");
    }

    #[test]
    fn a_row_named_by_its_key_must_meet_the_other_conditions_too() {
        let key = filter("id", Operator::Is, r#""a""#);
        assert_eq!(ids(&Query { filters: vec![key.clone()], ..all() }), "a");
        let other = filter("n", Operator::Greater, "3");
        assert_eq!(ids(&Query { filters: vec![other, key], ..all() }), "");
    }

    #[test]
    fn rows_that_are_equal_keep_their_order_in_either_direction() {
        let by = |fields: &[(&str, bool)]| {
            let field = |(field, descending): &(&str, bool)| OrderBy {
                field: (*field).to_owned(),
                descending: *descending,
            };
            Query { order_by: fields.iter().map(field).collect(), ..all() }
        };
        assert_eq!(ids(&by(&[("n", false)])), "dacb");
        assert_eq!(ids(&by(&[("n", true)])), "bacd");
        assert_eq!(ids(&by(&[("n", false), ("name", true)])), "dcab");
        assert_eq!(ids(&by(&[("name", false)])), "dbac", "nothing comes first");
    }

    #[test]
    fn a_stretch_is_cut_out_after_sorting() {
        assert_eq!(ids(&Query { offset: 1, limit: Some(2), ..all() }), "bc");
        assert_eq!(ids(&Query { offset: 9, ..all() }), "");
        assert_eq!(ids(&Query { limit: Some(0), ..all() }), "");
    }

    #[test]
    fn an_unknown_table_is_refused_by_name() {
        let query = Query { table: "nope".to_owned(), ..Query::default() };
        let refused = super::query(&schema(&[]), &Module::default(), "pos", &query);
        let message = r#"Table "nope" not registered in module "pos""#;
        assert_eq!(refused.unwrap_err().to_string(), message);
    }
}
