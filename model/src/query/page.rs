//! Page: one stretch of one table (contract.md 3.3).
//!
//! The rows after the cursor, in the order they came in; then those the times let through; then,
//! if asked, turned round; then the limit. An unknown cursor is no cursor.

use std::sync::Arc;

use crate::ids::RecordKey;
use crate::module::{Module, Row, Rows};
use crate::query::{times, translate};
use crate::read::{Page, PageQuery};
use crate::reject::Reject;
use crate::schema::Schema;
use crate::value::Object;

/// Answers a page query.
pub(crate) fn page(
    schema: &Schema,
    module: &Module,
    module_id: &str,
    query: &PageQuery,
) -> Result<Page, Reject> {
    let table = schema.table(&query.table).ok_or_else(|| Reject::UnknownTable {
        table: query.table.clone(),
        module: module_id.to_owned(),
    })?;
    let limit = query.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let rows: Vec<&Row> = match module.rows(&table.name) {
        None => Vec::new(),
        Some(rows) => {
            let after: Box<dyn DoubleEndedIterator<Item = &Row>> = match cursor(rows, query) {
                Some(ordinal) => Box::new(rows.after(ordinal)),
                None => Box::new(rows.iter().map(|(_, row)| row)),
            };
            let wanted = after.filter(|row| in_time(&row.record, query));
            if query.descending {
                wanted.rev().take(limit).collect()
            } else {
                wanted.take(limit).collect()
            }
        }
    };
    Ok(Page {
        table: table.name.clone(),
        key_fields: Arc::clone(&table.key),
        translations: translate::translations(schema, module, table, &rows),
        rows: rows.into_iter().map(|row| Arc::clone(&row.record)).collect(),
    })
}

/// The ordinal of the row the cursor names.
fn cursor(rows: &Rows, query: &PageQuery) -> Option<u64> {
    let text = query.after_key.as_deref().or(query.after_id.as_deref())?;
    rows.ordinal(&RecordKey(text.into())).or_else(|| {
        let named = |row: &Row| {
            ["id", "uid", "uuid"]
                .iter()
                .any(|name| row.record.get(name).and_then(|v| v.key_text()) == Some(text))
        };
        rows.iter().find(|(_, row)| named(row)).map(|(ordinal, _)| ordinal)
    })
}

fn in_time(record: &Object, query: &PageQuery) -> bool {
    let created = query
        .created_after
        .is_none_or(|after| times::created(record).is_some_and(|created| created > after));
    created
        && query
            .updated_after
            .is_none_or(|after| times::updated(record).is_some_and(|updated| updated > after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{object, schema};

    fn module() -> Module {
        let mut module = Module::default();
        let name = crate::ids::TableName::parse("dish").unwrap();
        for (id, at) in [("soup", 10), ("bread", 20), ("fish", 30), ("tea", 31)] {
            let record = object(&format!(
                r#"{{"id":"{id}","uid":"u-{id}","createdAt":"2026-01-{at}","updatedAt":null}}"#
            ));
            let key = RecordKey(id.into());
            module.put(&name, key, Arc::new(record), &crate::module::Relations::default());
        }
        module
    }

    fn ids(query: &PageQuery) -> Vec<String> {
        let schema = schema(&[("dish", &["id", "uid", "createdAt", "updatedAt"])]);
        let page = page(&schema, &module(), "pos", query).unwrap();
        page.rows.iter().map(|row| row.get("id").unwrap().as_str().unwrap().to_owned()).collect()
    }

    fn query() -> PageQuery {
        PageQuery { table: "dish".to_owned(), ..PageQuery::default() }
    }

    #[test]
    fn rows_come_in_the_order_they_came_in_and_stop_at_the_limit() {
        assert_eq!(ids(&query()), ["soup", "bread", "fish", "tea"]);
        assert_eq!(ids(&PageQuery { limit: Some(0), ..query() }).len(), 4);
        assert_eq!(ids(&PageQuery { limit: Some(2), ..query() }), ["soup", "bread"]);
        let last = PageQuery { limit: Some(1), descending: true, ..query() };
        assert_eq!(ids(&last), ["tea"], "turned round first, then cut");
    }

    #[test]
    fn a_cursor_is_a_key_or_an_id_and_an_unknown_one_is_ignored() {
        let after = |text: &str| PageQuery { after_id: Some(text.to_owned()), ..query() };
        assert_eq!(ids(&after("soup")), ["bread", "fish", "tea"]);
        assert_eq!(ids(&after("u-bread")), ["fish", "tea"]);
        assert_eq!(ids(&after("nothing")).len(), 4);
        let both = PageQuery { after_key: Some("fish".to_owned()), ..after("soup") };
        assert_eq!(ids(&both), ["tea"], "the key goes first");
    }

    #[test]
    fn times_are_strictly_after_and_rows_without_one_are_left_out() {
        let after = crate::ids::Timestamp::parse("2026-01-10");
        assert_eq!(ids(&PageQuery { created_after: after, ..query() }), ["bread", "fish", "tea"]);
        assert_eq!(ids(&PageQuery { updated_after: after, ..query() }), Vec::<String>::new());
    }
}
