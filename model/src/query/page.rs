//! Page: one stretch of one table (docs/original/rest.md#lists).
//!
//! The rows after the cursor in the order asked, oldest or newest first; of them those the times
//! let through; then the limit. Promise: a client that always sends back the cursor it was given
//! sees every row that stays once, whichever order it asks for, while rows come and go. An unknown
//! cursor is no cursor, and said to be unknown. The original turned the order round after it had
//! skipped to the cursor, so that newest first could not be read page by page.

use std::sync::Arc;

use crate::ids::Incarnation;
use crate::module::{Module, Row, Rows};
use crate::query::{times, translate};
use crate::read::{Page, PageCursor, PageQuery, RowPosition};
use crate::reject::Reject;
use crate::schema::{Schema, Table};
use crate::value::Object;

/// Answers a page query of a module in this incarnation of its log.
pub(crate) fn page(
    schema: &Schema,
    module: &Module,
    (module_id, incarnation): (&str, Incarnation),
    query: &PageQuery,
) -> Result<Page, Reject> {
    let table = schema.table(&query.table).ok_or_else(|| Reject::UnknownTable {
        table: query.table.clone(),
        module: module_id.to_owned(),
    })?;
    let none = Rows::default();
    let all = module.rows(&table.name).map_or(&none, |rows| &**rows);
    let sent =
        query.after_position.is_some() || query.after_key.is_some() || query.after_id.is_some();
    let after = cursor(table, all, incarnation, query);
    let rows = stretch(all, after, query);
    let cursor = rows.last().and_then(|row| {
        let position = RowPosition { incarnation, ordinal: all.ordinal(&row.key)? };
        Some(PageCursor { key: row.key.clone(), position })
    });
    Ok(Page {
        table: table.name.clone(),
        key_fields: Arc::clone(&table.key),
        translations: translate::translations(schema, module, table, &rows),
        cursor,
        cursor_matched: sent.then_some(after.is_some()),
        rows: rows.into_iter().map(|row| Arc::clone(&row.record)).collect(),
    })
}

/// The rows after an ordinal, in the order asked.
fn stretch<'a>(rows: &'a Rows, after: Option<u64>, query: &PageQuery) -> Vec<&'a Row> {
    let limit = query.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    // Filtered before the limit, or a page might be empty while more rows match.
    let wanted = |row: &&Row| in_time(&row.record, query);
    if query.descending {
        // The cursor before the order: a page of the newest first goes on where the last one ended.
        rows.before(after.unwrap_or(u64::MAX)).rev().filter(wanted).take(limit).collect()
    } else {
        let all = || rows.iter().map(|(_, row)| row);
        match after {
            Some(ordinal) => rows.after(ordinal).filter(wanted).take(limit).collect(),
            None => all().filter(wanted).take(limit).collect(),
        }
    }
}

/// The ordinal the cursor names.
fn cursor(table: &Table, rows: &Rows, incarnation: Incarnation, query: &PageQuery) -> Option<u64> {
    let given =
        |place: &RowPosition| place.incarnation == incarnation && place.ordinal < rows.next();
    let text = query.after_key.as_deref().or(query.after_id.as_deref());
    let key = text.and_then(|text| table.key_named(text));
    match query.after_position.filter(given) {
        // A replacement may have put the row elsewhere; one removed and inserted again is another.
        Some(RowPosition { ordinal, .. }) => {
            key.and_then(|key| rows.moved_from(&key, ordinal)).or(Some(ordinal))
        }
        // Names of rows removed lately are remembered, so that a list goes on behind one.
        None => rows.ordinal_named(key.as_ref(), text?),
    }
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{object, schema};

    fn module() -> Module {
        let mut module = Module::default();
        let name = crate::ids::TableName::parse("dish").unwrap();
        for (id, at) in [("soup", 10), ("bread", 20), ("fish", 30), ("tea", 31)] {
            let record = object(&format!(
                r#"{{"id":"{id}","uid":"u-{id}","createdAt":"2026-01-{at}","updatedAt":null}}"#
            ));
            let key = crate::ids::RecordKey(id.into());
            module.put(&name, key, Arc::new(record), &crate::module::Relations::default());
        }
        module
    }

    fn ask(module: &Module, query: &PageQuery) -> Page {
        let schema = schema(&[("dish", &["id", "uid", "createdAt", "updatedAt"])]);
        page(&schema, module, ("pos", Incarnation(1)), query).unwrap()
    }

    fn ids(query: &PageQuery) -> Vec<String> {
        let page = ask(&module(), query);
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

    fn fill(module: &mut Module, id: &str) {
        let name = crate::ids::TableName::parse("dish").unwrap();
        let record = Arc::new(object(&format!(r#"{{"id":"{id}","uid":"u-{id}"}}"#)));
        let key = crate::ids::RecordKey(id.into());
        module.put(&name, key, record, &crate::module::Relations::default());
    }

    fn remove(module: &mut Module, id: &str) {
        let name = crate::ids::TableName::parse("dish").unwrap();
        let key = crate::ids::RecordKey(id.into());
        module.remove(&name, &key, &crate::module::Relations::default());
    }

    fn shown(page: &Page) -> Vec<String> {
        let id = |row: &Arc<Object>| row.get("id").unwrap().as_str().unwrap().to_owned();
        page.rows.iter().map(id).collect()
    }

    #[test]
    fn newest_first_goes_on_to_older_rows() {
        let after = |text: &str| PageQuery {
            after_key: Some(text.to_owned()),
            descending: true,
            limit: Some(2),
            ..query()
        };
        assert_eq!(ids(&after("tea")), ["fish", "bread"]);
        assert_eq!(ids(&after("bread")), ["soup"]);
        assert_eq!(ids(&after("soup")), Vec::<String>::new());
        assert_eq!(ids(&after("nothing")), ["tea", "fish"]);
    }

    #[test]
    fn whether_the_cursor_was_known_is_told_where_one_was_sent() {
        let matched = |query| ask(&module(), &query).cursor_matched;
        assert_eq!(matched(query()), None);
        let after = |text: &str| PageQuery { after_id: Some(text.to_owned()), ..query() };
        assert_eq!((matched(after("u-tea")), matched(after("ghost"))), (Some(true), Some(false)));
        let at = |incarnation, ordinal| PageQuery {
            after_position: Some(RowPosition { incarnation: Incarnation(incarnation), ordinal }),
            ..query()
        };
        assert_eq!(
            (matched(at(1, 3)), matched(at(1, 4)), matched(at(2, 3))),
            (Some(true), Some(false), Some(false))
        );
    }

    #[test]
    fn a_list_goes_on_from_a_row_that_was_removed() {
        let mut module = module();
        for gone in ["bread", "fish"] {
            remove(&mut module, gone);
        }
        for (text, descending, left) in [
            ("bread", false, "tea"),
            ("bread", true, "soup"),
            ("u-fish", false, "tea"),
            ("u-fish", true, "soup"),
        ] {
            let after = PageQuery { after_id: Some(text.to_owned()), descending, ..query() };
            let page = ask(&module, &after);
            assert_eq!(
                (shown(&page), page.cursor_matched),
                (vec![left.to_owned()], Some(true)),
                "{text}"
            );
        }
        fill(&mut module, "bread");
        let after = PageQuery { after_id: Some("bread".to_owned()), ..query() };
        assert!(ask(&module, &after).rows.is_empty(), "it comes last now");
    }

    /// What happens to the table between two pages.
    #[derive(Debug, Clone)]
    enum PageStep {
        Insert(u8),
        Delete(u8),
        /// The row the last page ended with.
        DeleteLast,
        Purge,
        Turn,
    }

    fn any_step() -> impl Strategy<Value = PageStep> {
        prop_oneof![
            4 => (0..40_u8).prop_map(PageStep::Insert),
            3 => (0..40_u8).prop_map(PageStep::Delete),
            2 => Just(PageStep::DeleteLast),
            1 => Just(PageStep::Purge),
            4 => Just(PageStep::Turn),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn a_walk_sees_every_row_that_stays_once(
            first in prop::collection::vec(0..40_u8, 0..30),
            steps in prop::collection::vec(any_step(), 0..60),
            (limit, descending, by_place) in (1..6_usize, any::<bool>(), any::<bool>()),
        ) {
            let name = crate::ids::TableName::parse("dish").unwrap();
            let mut module = Module::default();
            for id in &first {
                fill(&mut module, &id.to_string());
            }
            let at_first: BTreeSet<String> = shown(&ask(&module, &query())).into_iter().collect();
            let (mut stays, mut seen) = (at_first, Vec::new());
            let mut cursor: Option<PageCursor> = None;
            // After its last page a walk is turned on until nothing comes: rows may have come.
            for step in steps.into_iter().chain(vec![PageStep::Turn; 80]) {
                let gone = match step {
                    PageStep::Insert(id) => {
                        // A key that came back would be a new row under a name seen before: only a
                        // place tells those apart.
                        let is_new = !stays.contains(&id.to_string())
                            && (by_place || !seen.contains(&id.to_string()));
                        if is_new {
                            fill(&mut module, &id.to_string());
                        }
                        None
                    }
                    PageStep::Delete(id) => Some(id.to_string()),
                    PageStep::DeleteLast => cursor.as_ref().map(|cursor| cursor.key.to_string()),
                    PageStep::Purge => {
                        let rows = module.rows(&name).map(|rows| rows.emptied());
                        module.set_rows(name.clone(), rows.unwrap_or_default());
                        stays.clear();
                        None
                    }
                    PageStep::Turn => {
                        let after_key = cursor.as_ref().map(|cursor| cursor.key.to_string());
                        let after_position = cursor.as_ref().map(|cursor| cursor.position);
                        let next = PageQuery {
                            limit: Some(limit),
                            descending,
                            after_key,
                            after_position: after_position.filter(|_| by_place),
                            ..query()
                        };
                        let page = ask(&module, &next);
                        prop_assert_eq!(page.cursor_matched, cursor.as_ref().map(|_| true));
                        seen.extend(shown(&page));
                        cursor = page.cursor.or(cursor);
                        None
                    }
                };
                if let Some(gone) = gone {
                    remove(&mut module, &gone);
                    stays.remove(&gone);
                }
            }
            for id in &stays {
                prop_assert_eq!(seen.iter().filter(|one| *one == id).count(), 1, "{}", id);
            }
            if !by_place {
                let once: BTreeSet<&String> = seen.iter().collect();
                prop_assert_eq!(once.len(), seen.len(), "none twice");
            }
        }
    }
}
