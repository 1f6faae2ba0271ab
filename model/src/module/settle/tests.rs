//! Tests of what stays over a replacement, a restoration and a reset.

use std::sync::Arc;

use crate::command::{
    Action, Purge, Replace, Request, Reset, Restore, RestoreMode, Seed, Transaction,
};
use crate::definition::{Validation, VersionRule};
use crate::delta::Event;
use crate::ids::TableName;
use crate::limits::{VERSION_LEAP_MAX, VERSION_MAX};
use crate::read::{Answer, Page, PageCursor, PageQuery, Read};
use crate::reject::Reject;
use crate::testing::{Shop, module_change, mutation, object, schema_of};

fn replace(shop: &mut Shop, tables: &str) -> Result<Option<Arc<Event>>, Reject> {
    shop.operation(Request::Replace(Replace { tables: object(tables).into(), revision: None }))
}

fn changed(event: Option<Arc<Event>>) -> Vec<String> {
    let event = event.expect("a bulk operation makes an event");
    module_change(&event).records.iter().map(|(_, key, _)| key.to_string()).collect()
}

/// The keys and versions of the tickets, in order.
fn tickets(shop: &Shop) -> Vec<(String, u64)> {
    let name = TableName::parse("tickets").unwrap();
    let rows = shop.branch().module.rows(&name).unwrap();
    let version = |record: &crate::Object| record.get("version").and_then(crate::Value::as_u64);
    rows.iter().map(|(_, row)| (row.key.to_string(), version(&row.record).unwrap_or(0))).collect()
}

fn places(shop: &Shop, table: &str) -> Vec<(String, u64)> {
    let name = TableName::parse(table).unwrap();
    let rows = shop.branch().module.rows(&name).unwrap();
    rows.iter().map(|(place, row)| (row.key.to_string(), place)).collect()
}

fn named(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect()
}

/// A shop with the tickets `a`, at version 3, and `b`, at version 1.
fn shop() -> Shop {
    let mut shop = Shop::strict();
    for id in ["a", "b"] {
        shop.insert("tickets", &format!(r#"{{"id":"{id}","number":"1"}}"#)).unwrap();
    }
    for number in ["2", "3"] {
        shop.merge("tickets", &format!(r#"{{"id":"a","number":"{number}"}}"#)).unwrap();
    }
    shop
}

fn purge(shop: &mut Shop) -> String {
    let (tables, reason) = (vec!["tickets".to_owned()], String::new());
    let purge = Purge { tables, reason, requested_by: None, reset_events: false };
    shop.operation(Request::Purge(purge)).unwrap();
    shop.archive()[0].id.clone()
}

fn restore(shop: &mut Shop, entry: &str, mode: RestoreMode) -> Vec<String> {
    let entry = entry.to_owned();
    let restore = Restore { entry, mode, fill: false, reason: None, requested_by: None };
    changed(shop.operation(Request::Restore(restore)).unwrap())
}

#[test]
fn a_replacement_raises_versions_and_new_records_have_one() {
    let mut shop = shop();
    let sent = r#"{"tickets":[{"id":"a","number":"till"},{"id":"c","number":"1","version":40},
        {"id":"b","number":"1","version":1}]}"#;
    assert_eq!(changed(replace(&mut shop, sent).unwrap()), ["a", "c"], "b is what it was");
    assert_eq!(tickets(&shop), named(&[("a", 4), ("b", 1), ("c", 1)]));
    for stale in ["1", "3"] {
        let stale = format!(r#"{{"id":"a","number":"stale","version":{stale}}}"#);
        assert_eq!(shop.merge("tickets", &stale).unwrap_err().code(), "version-conflict");
    }
    let whole = format!(r#"{{"tickets":[{}]}}"#, shop.rows("tickets").join(","));
    assert_eq!(changed(replace(&mut shop, &whole).unwrap()), [""; 0], "what was read");
    assert_eq!(tickets(&shop), named(&[("a", 4), ("b", 1), ("c", 1)]));
}

#[test]
fn a_restoration_never_sets_a_version_back() {
    let mut shop = shop();
    let entry = purge(&mut shop);
    shop.insert("tickets", r#"{"id":"a","number":"anew"}"#).unwrap();
    shop.insert("tickets", r#"{"id":"b","number":"anew"}"#).unwrap();
    shop.merge("tickets", r#"{"id":"b","number":"again"}"#).unwrap();
    restore(&mut shop, &entry, RestoreMode::Replace);
    assert_eq!(tickets(&shop), named(&[("a", 3), ("b", 3)]), "as it was, and one over 2");
    assert!(shop.rows("tickets")[1].contains(r#""number":"1""#));
    assert!(restore(&mut shop, &entry, RestoreMode::Replace).is_empty(), "it is as it was");
    purge(&mut shop);
    restore(&mut shop, &entry, RestoreMode::Append);
    assert_eq!(tickets(&shop), named(&[("a", 3), ("b", 1)]), "the records that were kept");
}

#[test]
fn a_reset_raises_the_version_of_what_the_seed_has_otherwise() {
    let mut shop = shop();
    let tables = object(r#"{"tickets":[{"id":"c"},{"id":"a","number":"seed"}]}"#);
    let seed = Some(Arc::new(Seed { tables }));
    let reset = Reset { seed, reason: String::new(), requested_by: None, numbers: false };
    shop.operation(Request::Reset(reset)).unwrap();
    assert_eq!(tickets(&shop), named(&[("a", 4), ("c", 1)]));
}

#[test]
fn what_one_request_removes_and_makes_again_is_the_same_record() {
    for rule in [VersionRule::Read, VersionRule::Next] {
        let mut shop = Shop::with(Validation::Strict, rule);
        shop.insert("tickets", r#"{"id":"a"}"#).unwrap();
        for action in [Action::Insert, Action::Save] {
            let mutations = vec![
                mutation(Action::Delete, "tickets", r#"{"id":"a"}"#),
                mutation(action, "tickets", r#"{"id":"a","number":"2"}"#),
            ];
            shop.run(Request::Transaction(Transaction::of(mutations))).unwrap();
        }
        assert_eq!(tickets(&shop), named(&[("a", 3)]));
        shop.delete("tickets", r#"{"id":"a"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"a"}"#).unwrap();
        assert_eq!(tickets(&shop), named(&[("a", 1)]), "of another request it is another");
    }
}

#[test]
fn an_unreadable_version_is_refused_by_table_key_and_field() {
    let mut shop = shop();
    for version in ["\"abc\"", "-1", "1.5", "true", "{}", "1e30", "1000000000000000"] {
        let sent = format!(r#"{{"tickets":[{{"id":"c"}},{{"id":"a","version":{version}}}]}}"#);
        let refused = replace(&mut shop, &sent).unwrap_err();
        assert_eq!(refused.code(), "invalid-field", "{version}");
        assert!(refused.to_string().contains(r#"the version of tickets "a" must be"#), "{refused}");
    }
    replace(&mut shop, r#"{"tickets":[{"id":"a","version":null},{"id":"c","version":"7"}]}"#)
        .unwrap();
    let mut lenient = Shop::lenient();
    let sent = r#"{"order_header":[{"id":"o","version":1000000000000000}]}"#;
    assert_eq!(replace(&mut lenient, sent).unwrap_err().code(), "invalid-field");
    replace(&mut lenient, r#"{"tickets":[{"id":"t","version":1000000000000000}]}"#)
        .expect("data, where there is no lock");
}

#[test]
fn no_version_is_sent_or_counted_beyond_the_limit() {
    for (validation, rule) in [
        (Validation::Strict, VersionRule::Read),
        (Validation::Strict, VersionRule::Next),
        (Validation::Lenient, VersionRule::Next),
    ] {
        let mut shop = Shop::with(validation, rule);
        shop.insert("order_header", r#"{"id":"o"}"#).unwrap();
        let sizes = ["18446744073709551615", "1000000000000000", "1e40", "\"1e400\"", "1e15"];
        for (version, action) in sizes.iter().flat_map(|size| {
            let actions = [Action::Insert, Action::Merge, Action::Save, Action::Delete];
            actions.map(|action| (size, action))
        }) {
            let record = format!(r#"{{"id":"o","version":{version}}}"#);
            let refused = shop.mutation(mutation(action, "order_header", &record)).unwrap_err();
            assert_eq!(refused.code(), "invalid-field", "{version} {action:?}");
            assert!(refused.to_string().contains("at most 999999999999999"), "{refused}");
        }
    }
}

#[test]
fn at_the_version_limit_only_bulk_operations_pass() {
    let mut shop = Shop::strict();
    let seed = format!(r#"{{"tickets":[{{"id":"a","version":{VERSION_MAX}}}]}}"#);
    shop.seed(&seed).unwrap();
    let refused = shop.merge("tickets", r#"{"id":"a","number":"2"}"#).unwrap_err();
    assert!(refused.to_string().contains("cannot rise any more"), "{refused}");
    replace(&mut shop, r#"{"tickets":[{"id":"a","number":"3"}]}"#).unwrap();
    assert_eq!(tickets(&shop), named(&[("a", VERSION_MAX)]));
    let mut lenient = Shop::lenient();
    let seed = r#"{"order_header":[{"id":"o","version":18446744073709551615}]}"#;
    lenient.seed(seed).unwrap();
    assert!(lenient.rows("order_header")[0].ends_with(r#""version":1}"#), "as if it said none");
    let tables = object(r#"{"tickets":[]}"#);
    let snapshot = Replace { tables: Arc::new(tables), revision: Some(VERSION_MAX) };
    lenient.operation(Request::Replace(snapshot)).unwrap();
    lenient.insert("tickets", r#"{"id":"t"}"#).unwrap();
    assert_eq!(lenient.branch().head().revision.0, VERSION_MAX, "it stays");
}

#[test]
fn a_strict_modules_revision_does_not_leap() {
    let mut shop = shop();
    let current = shop.branch().head().revision.0;
    let mut ask = |revision| {
        let tables = object(r#"{"dishes":[]}"#);
        shop.operation(Request::Replace(Replace {
            tables: Arc::new(tables),
            revision: Some(revision),
        }))
    };
    let refused = ask(current + VERSION_LEAP_MAX + 1).unwrap_err();
    assert_eq!(refused.code(), "bad-command");
    assert!(refused.to_string().contains("more than 1000000 over"), "{refused}");
    ask(current + VERSION_LEAP_MAX).unwrap();
}

#[test]
fn a_replacement_takes_no_part_from_a_record_that_stays() {
    let mut shop = Shop::strict();
    shop.redefine(|definition| {
        definition.schema = schema_of(
            r#"[{"name":"bills","fields":[{"name":"id","type":"text","primaryKey":true}]},
                {"name":"items","fields":[{"name":"id","type":"text","primaryKey":true},
                    {"name":"bill","type":"text","nullable":true,
                     "references":{"table":"bills","column":"id","onDelete":"CASCADE"}}]}]"#,
        );
    })
    .unwrap();
    replace(&mut shop, r#"{"bills":[{"id":"A"},{"id":"B"}],"items":[{"id":"1","bill":"A"}]}"#)
        .unwrap();
    let taken = replace(&mut shop, r#"{"items":[{"id":"1","bill":"B"}]}"#).unwrap_err();
    assert_eq!(taken.code(), "part-of-another-record");
    assert!(taken.to_string().contains(r#"items "1" is a part of bills "A""#), "{taken}");
    replace(&mut shop, r#"{"bills":[{"id":"B"}],"items":[{"id":"1","bill":"B"}]}"#)
        .expect("what held it is gone");
    replace(&mut shop, r#"{"items":[{"id":"1","bill":null}]}"#).expect("nobody's part");
    replace(&mut shop, r#"{"items":[{"id":"1","bill":"B"}]}"#).expect("nobody held it");
}

#[test]
fn a_strict_replacement_keeps_places_and_appends_new_rows() {
    let mut shop = shop();
    replace(&mut shop, r#"{"tickets":[{"id":"n"},{"id":"b"},{"id":"a"}]}"#).unwrap();
    assert_eq!(places(&shop, "tickets"), named(&[("a", 0), ("b", 1), ("n", 2)]));
    replace(&mut shop, r#"{"tickets":[{"id":"b"}]}"#).unwrap();
    assert_eq!(places(&shop, "tickets"), named(&[("b", 1)]));
}

#[test]
fn lenient_rows_stand_in_the_order_that_was_sent() {
    let mut shop = Shop::lenient();
    for id in ["a", "b", "c", "d"] {
        shop.insert("tickets", &format!(r#"{{"id":"{id}"}}"#)).unwrap();
    }
    replace(&mut shop, r#"{"tickets":[{"id":"a"},{"id":"c"},{"id":"d"},{"id":"e"}]}"#).unwrap();
    assert_eq!(places(&shop, "tickets"), named(&[("a", 0), ("c", 2), ("d", 3), ("e", 4)]));
    replace(&mut shop, r#"{"tickets":[{"id":"a"},{"id":"d"},{"id":"c"},{"id":"e"}]}"#).unwrap();
    assert_eq!(places(&shop, "tickets"), named(&[("a", 0), ("d", 3), ("c", 5), ("e", 6)]));
}

/// The next three tickets.
fn turn(shop: &Shop, cursor: Option<&PageCursor>, descending: bool) -> Page {
    let query = PageQuery {
        table: "tickets".to_owned(),
        limit: Some(3),
        descending,
        after_key: cursor.map(|cursor| cursor.key.to_string()),
        after_position: cursor.map(|cursor| cursor.position),
        ..PageQuery::default()
    };
    match shop.branch().read(&Read::Page(query)) {
        Ok(Answer::Page(page)) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_over_a_replacement_show_every_row_once() {
    let rows = |ids: &[u64]| {
        let rows: Vec<String> = ids.iter().map(|id| format!(r#"{{"id":"r{id}"}}"#)).collect();
        format!(r#"{{"tickets":[{}]}}"#, rows.join(","))
    };
    let (same, turned) = ((0..10).collect::<Vec<u64>>(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    // In a lenient module rows are in the order sent; new ones in front move all of them.
    let shifted: Vec<u64> = (10..13).chain(0..10).collect();
    for (make, snapshot) in [
        (Shop::strict as fn() -> Shop, &same[..]),
        (Shop::strict, &turned[..]),
        (Shop::lenient, &same[..]),
        (Shop::lenient, &shifted[..]),
    ] {
        for descending in [true, false] {
            let mut shop = make();
            replace(&mut shop, &rows(&same)).unwrap();
            let first = turn(&shop, None, descending);
            let mut seen: Vec<String> = Vec::new();
            let mut show = |page: &Page| {
                let ids = page.rows.iter().map(|row| row.get("id").unwrap().to_json());
                seen.extend(ids);
                page.rows.len()
            };
            show(&first);
            replace(&mut shop, &rows(snapshot)).unwrap();
            let mut cursor = first.cursor;
            loop {
                let page = turn(&shop, cursor.as_ref(), descending);
                assert_eq!(page.cursor_matched, Some(true));
                if show(&page) == 0 {
                    break;
                }
                cursor = page.cursor;
            }
            for id in &same {
                let id = format!(r#""r{id}""#);
                let times = seen.iter().filter(|seen| **seen == id).count();
                assert_eq!(times, 1, "{id}, {snapshot:?}, {descending}");
            }
        }
    }
}
