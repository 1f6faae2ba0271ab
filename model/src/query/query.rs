//! Query: the rows of one table that meet conditions, sorted, and a stretch of them.
//!
//! Promise: rows that the sorting cannot tell apart keep the order they came in. A table is named
//! as it is registered or by an alias. The scan of a query that nobody waits for any more ends
//! within a slice of rows, and one that sorts holds no more rows than twice what it may show.
//! Refused: more conditions, values, fields to sort by or work than limits.rs allows.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use crate::ids::RecordKey;
use crate::limits::{
    QUERY_CONDITIONS_MAX, QUERY_SORT_FIELDS_MAX, QUERY_VALUES_MAX, QUERY_WORK_MAX, ROWS_PER_SLICE,
};
use crate::module::{Module, Row};
use crate::predicate::Operator;
use crate::query::compare::SortKey;
use crate::query::condition::{Condition, stored_as, values};
use crate::query::populate::Populate;
use crate::read::{BranchReadError, OrderBy, Query, QueryPage, StillWanted};
use crate::reject::Reject;
use crate::schema::{FieldType, Schema, Table};
use crate::value::Object;

/// Answers a query.
pub(crate) fn query(
    schema: &Schema,
    module: &Module,
    module_id: &str,
    query: &Query,
    wanted: StillWanted<'_>,
) -> Result<QueryPage, BranchReadError> {
    let table = schema.resolve(&query.table).ok_or_else(|| Reject::UnknownTable {
        table: query.table.clone(),
        module: module_id.to_owned(),
    })?;
    check_size(query)?;
    let rows = meeting(module, table, query, wanted)?;
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

/// Refuses a query that says more than one query may, before anything is made of it.
fn check_size(query: &Query) -> Result<(), Reject> {
    let listed = query.filters.iter().map(|filter| values(filter).len()).max().unwrap_or(0);
    for (what, count, most) in [
        ("conditions", query.filters.len(), QUERY_CONDITIONS_MAX),
        ("values in one condition", listed, QUERY_VALUES_MAX),
        ("fields to sort by", query.order_by.len(), QUERY_SORT_FIELDS_MAX),
    ] {
        if count > most {
            let message = format!("a query may have at most {most} {what}, but this has {count}");
            return Err(Reject::QueryTooLarge { message });
        }
    }
    Ok(())
}

/// How much a query looks at: rows times conditions, and one for a record found by its key.
pub(crate) fn work(schema: &Schema, module: &Module, query: &Query) -> u64 {
    let Some(table) = schema.resolve(&query.table) else { return 0 };
    if query.key.is_some() || key_asked(table, query).is_some() {
        return 1;
    }
    let rows = module.rows(&table.name).map_or(0, |rows| rows.len() as u64);
    let conditions = query.filters.len() + query.order_by.len();
    // Lists are sorted before the first row is looked at.
    let listed: usize = query.filters.iter().map(|filter| values(filter).len()).sum();
    rows.saturating_mul(1.max(conditions as u64)).saturating_add(listed as u64)
}

/// The rows that meet all conditions, in the order asked; of those that are sorted, only as many
/// as are shown.
fn meeting<'a>(
    module: &'a Module,
    table: &Table,
    query: &Query,
    wanted: StillWanted<'_>,
) -> Result<Vec<&'a Arc<Object>>, BranchReadError> {
    let Some(rows) = module.rows(&table.name) else { return Ok(Vec::new()) };
    let conditions: Vec<Condition<'_>> =
        query.filters.iter().map(|filter| Condition::new(filter, table)).collect();
    let meets = |record: &Arc<Object>| conditions.iter().all(|condition| condition.holds(record));
    let one = |key: Option<RecordKey>| {
        let record = key.and_then(|key| rows.get(&key)).filter(|record| meets(record));
        record.into_iter().collect()
    };
    if let Some(key) = &query.key {
        return Ok(one(table.key_named(key)));
    }
    // A condition on the key is a lookup: clients mostly ask for one record this way.
    if let Some(key) = key_asked(table, query) {
        return Ok(one(Some(key)));
    }
    let work = rows.len() as u64 * conditions.len() as u64;
    if work > QUERY_WORK_MAX {
        let (rows, conditions) = (rows.len(), conditions.len());
        let most = QUERY_WORK_MAX / rows as u64;
        let message = format!(
            "a query of {conditions} conditions over {rows} rows is too much work; over this table \
             at most {most} conditions can be asked at once"
        );
        return Err(Reject::QueryTooLarge { message }.into());
    }
    let mut found = Selection::new(table, query);
    for (place, (_, Row { record, .. })) in rows.iter().enumerate() {
        if place % ROWS_PER_SLICE == 0 && !wanted() {
            return Err(BranchReadError::Interrupted);
        }
        if meets(record) && !found.push(record) {
            break;
        }
    }
    Ok(found.finish())
}

/// The key of the only row that can meet the conditions, where one of them names it.
fn key_asked(table: &Table, query: &Query) -> Option<RecordKey> {
    let [key] = &table.key[..] else { return None };
    let only = query.filters.iter().filter(|filter| filter.operator == Operator::Is);
    let only = only.map(|filter| Condition::new(filter, table));
    let named = only.filter(|condition| condition.field == &**key);
    let value = named.filter_map(|condition| condition.only().cloned()).next()?;
    table.key_of(&[(Arc::clone(key), value)].into_iter().collect()).ok()
}

/// The rows found so far, no more of them than are shown.
struct Selection<'q, 'a> {
    order_by: &'q [OrderBy],
    /// Under which name and as what each field of the order is stored.
    fields: Vec<(&'q str, FieldType)>,
    /// Those left out at the beginning and those shown.
    most: usize,
    rows: Vec<(Vec<SortKey<'a>>, &'a Arc<Object>)>,
}

impl<'q, 'a> Selection<'q, 'a> {
    fn new(table: &'q Table, query: &'q Query) -> Self {
        let order_by = &query.order_by[..];
        let most = query.limit.map_or(usize::MAX, |limit| query.offset.saturating_add(limit));
        let fields = order_by.iter().map(|by| stored_as(table, &by.field)).collect();
        Self { order_by, fields, most, rows: Vec::new() }
    }

    /// Takes a row; `false` once no further one can be shown.
    fn push(&mut self, record: &'a Arc<Object>) -> bool {
        let is_sorted = !self.order_by.is_empty();
        if !is_sorted && self.rows.len() >= self.most {
            return false;
        }
        // Keys are made once for each row; in the comparison they would be made for each pair.
        let keys = self.fields.iter().map(|(field, kind)| SortKey::of(*kind, record.get(field)));
        self.rows.push((keys.collect(), record));
        // At twice as many, so that sorting costs little for each row and memory stays bounded.
        if is_sorted && self.rows.len() >= self.most.max(ROWS_PER_SLICE).saturating_mul(2) {
            self.sort();
        }
        true
    }

    fn sort(&mut self) {
        // A stable sort: equal rows keep the order they came in, on every replica; what comes later
        // is behind them already.
        self.rows.sort_by(|(a, _), (b, _)| {
            let fields = self.order_by.iter().zip(a.iter().zip(b));
            let compared = fields.map(|(by, (a, b))| match by.descending {
                true => Reverse(a).cmp(&Reverse(b)),
                false => a.cmp(b),
            });
            compared.fold(Ordering::Equal, Ordering::then)
        });
        self.rows.truncate(self.most);
    }

    fn finish(mut self) -> Vec<&'a Arc<Object>> {
        if !self.order_by.is_empty() {
            self.sort();
        }
        self.rows.into_iter().map(|(_, record)| record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TableName;
    use crate::limits::RECORD_KEY_BYTES_MAX;
    use crate::module::Relations;
    use crate::predicate::Filter;
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
        let page = super::query(&schema, &module, "pos", query, &|| true).unwrap();
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

    /// A table of so many rows, whose `n` goes round from 0 to 9.
    fn filled(rows: u64) -> (Schema, Module) {
        let schema = schema(&[("dish", &["id", "n"])]);
        let mut module = Module::default();
        let name = TableName::parse("dish").unwrap();
        for id in 0..rows {
            let record = [("id", id), ("n", id % 10)].into_iter().collect();
            module.put(
                &name,
                RecordKey(id.to_string().into()),
                Arc::new(record),
                &Relations::default(),
            );
        }
        (schema, module)
    }

    fn ask(
        rows: u64,
        query: &Query,
        wanted: StillWanted<'_>,
    ) -> Result<QueryPage, BranchReadError> {
        let (schema, module) = filled(rows);
        super::query(&schema, &module, "pos", query, wanted)
    }

    #[test]
    fn a_query_has_at_most_so_many_conditions_values_and_fields() {
        let refused = |query: Query| match ask(1, &query, &|| true) {
            Err(BranchReadError::Rejected(Reject::QueryTooLarge { message })) => message,
            other => panic!("{other:?}"),
        };
        let one = filter("n", Operator::Greater, "0");
        let by = OrderBy { field: "n".to_owned(), descending: false };
        let (filters, order_by) = (vec![one; 100], vec![by; 8]);
        let listed = format!("[{}1]", "1,".repeat(999));
        let list = |json: &str| vec![filter("n", Operator::NotIn, json)];
        for fits in [
            Query { filters: filters.clone(), ..all() },
            Query { order_by: order_by.clone(), ..all() },
            Query { filters: list(&listed), ..all() },
        ] {
            assert!(ask(1, &fits, &|| true).is_ok());
        }
        let more = [&filters[..], &filters[..1]].concat();
        assert_eq!(
            refused(Query { filters: more, ..all() }),
            "a query may have at most 100 conditions, but this has 101"
        );
        let more = [&order_by[..], &order_by[..1]].concat();
        assert!(refused(Query { order_by: more, ..all() }).contains("8 fields to sort by"));
        let more = listed.replacen('[', "[1,", 1);
        assert!(refused(Query { filters: list(&more), ..all() }).contains("1000 values"));
    }

    #[test]
    fn conditions_over_many_rows_are_refused_before_the_first() {
        let filters = vec![filter("n", Operator::Like, r#""x""#); 100];
        let asked = ask(QUERY_WORK_MAX / 100 + 1, &Query { filters, ..all() }, &|| false);
        assert!(matches!(asked, Err(BranchReadError::Rejected(Reject::QueryTooLarge { .. }))));
    }

    #[test]
    fn only_a_key_that_can_be_looked_up_is_little_work() {
        let (schema, module) = filled(3_000);
        let work = |filters| work(&schema, &module, &Query { filters, ..all() });
        let id = |json: &str| vec![filter("id", Operator::Is, json)];
        assert_eq!((work(id(r#""7""#)), work(Vec::new())), (1, 3_000));
        // No record has such a key, and so every row is looked at.
        let long = format!("\"{}\"", "k".repeat(RECORD_KEY_BYTES_MAX + 1));
        for scan in [id(&long), id("null"), id("[1]"), vec![filter("n", Operator::Is, "7")]] {
            assert_eq!(work(scan), 3_001);
        }
    }

    #[test]
    fn a_query_that_nobody_waits_for_ends_within_a_slice() {
        let slices = std::cell::Cell::new(0);
        let wanted = || {
            slices.set(slices.get() + 1);
            slices.get() < 3
        };
        let asked = ask(10_000, &all(), &wanted);
        assert_eq!((asked, slices.get()), (Err(BranchReadError::Interrupted), 3));
    }

    #[test]
    fn the_first_rows_of_an_order_are_those_of_the_whole_order() {
        let by = |field: &str, descending| OrderBy { field: field.to_owned(), descending };
        for (order_by, offset, limit) in [
            (vec![by("n", false)], 0, 7),
            (vec![by("n", true), by("id", false)], 990, 40),
            (vec![by("n", true)], 4_990, 100),
            (vec![], 30, 5),
        ] {
            let part = Query { order_by, offset, limit: Some(limit), ..all() };
            let whole = Query { offset: 0, limit: None, ..part.clone() };
            let rows = ask(5_000, &whole, &|| true).unwrap().rows;
            let shown: Vec<_> = rows.into_iter().skip(offset).take(limit).collect();
            assert_eq!(ask(5_000, &part, &|| true).unwrap().rows, shown);
        }
    }

    #[test]
    fn an_unknown_table_is_refused_by_name() {
        let query = Query { table: "nope".to_owned(), ..Query::default() };
        let refused = super::query(&schema(&[]), &Module::default(), "pos", &query, &|| true);
        let message = r#"Table "nope" not registered in module "pos""#;
        assert_eq!(refused.unwrap_err().to_string(), message);
    }
}
