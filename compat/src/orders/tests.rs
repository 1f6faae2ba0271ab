//! What a till's save does, told on the tables of a real shop made small.

use std::sync::Arc;

use model::limits::MUTATIONS_MAX;
use model::{Acceptance, Effect, SequenceRule, Value};

use super::*;
use crate::testing::{Shop, object, schema_of};

const SCHEMA: &str = r#"{"tables":[
    {"name":"order_header","fields":[
        {"name":"id","columnName":"order_id","type":"string","primaryKey":true},
        {"name":"shiftId","columnName":"shift_id","type":"string"},
        {"name":"statusId","type":"string","nullable":true},
        {"name":"stageId","type":"string","nullable":true},
        {"name":"paymentStateId","type":"string","nullable":true},
        {"name":"invoiceSequence","type":"integer","nullable":true},
        {"name":"metadata","type":"json","nullable":true}]},
    {"name":"order_line","fields":[
        {"name":"id","columnName":"line_id","type":"string","primaryKey":true},
        {"name":"orderId","columnName":"order_id","type":"string",
            "references":{"table":"order_header","column":"id"}},
        {"name":"quantity","type":"decimal","defaultValue":1},
        {"name":"unitPrice","type":"decimal","defaultValue":0},
        {"name":"statusId","type":"string","nullable":true}]},
    {"name":"order_payment","fields":[
        {"name":"id","type":"string","primaryKey":true},
        {"name":"orderId","columnName":"order_id","type":"string"},
        {"name":"amount","type":"decimal","defaultValue":0},
        {"name":"shiftId","columnName":"shift_id","type":"string"}]},
    {"name":"order_status_log","fields":[
        {"name":"id","type":"string","primaryKey":true},
        {"name":"orderId","columnName":"order_id","type":"string"},
        {"name":"statusId","type":"string","nullable":true},
        {"name":"stageId","type":"string","nullable":true},
        {"name":"paymentStateId","type":"string","nullable":true},
        {"name":"actorId","type":"string","nullable":true},
        {"name":"changedAt","type":"timestamp"}]},
    {"name":"order_line_status_log","fields":[
        {"name":"id","type":"string","primaryKey":true},
        {"name":"orderId","columnName":"order_id","type":"string"},
        {"name":"orderLineId","columnName":"order_line_id","type":"string",
            "references":{"table":"order_line","column":"id"}},
        {"name":"statusId","type":"string","nullable":true},
        {"name":"actorId","type":"string","nullable":true},
        {"name":"changedAt","type":"timestamp"}]}]}"#;

fn small(shop: Shop) -> Shop {
    defined(shop, SCHEMA)
}

/// A shop whose lines have a total.
fn shop_with_totals() -> Shop {
    let price = r#"{"name":"unitPrice","type":"decimal","defaultValue":0}"#;
    let total = r#"{"name":"total","columnName":"line_total","type":"decimal","defaultValue":0}"#;
    defined(Shop::lenient(), &SCHEMA.replace(price, &format!("{price},{total}")))
}

fn defined(mut shop: Shop, schema: &str) -> Shop {
    shop.redefine(|definition| {
        definition.schema = schema_of(schema);
        let rule = r#"{"prefix":"DAR","start":1001,"padding":6,"counterField":"invoiceSequence"}"#;
        let rule = SequenceRule::from_doc(&Value::Object(object(rule))).unwrap();
        let table = model::TableName::parse("order_header").unwrap();
        definition.sequences.insert(table, [("id".to_owned(), rule)].into());
    })
    .unwrap();
    shop
}

fn lenient() -> Shop {
    small(Shop::lenient())
}

/// An order out of JSON: `header`, `lines` with `statusLogs`, `payments`, `statusLogs`, `actor`.
fn save(shop: &mut Shop, json: &str) -> Result<Acceptance, Reject> {
    let doc = object(json);
    let all = |rows: &[Value]| -> Vec<Object> {
        rows.iter().map(|row| row.as_object().unwrap().clone()).collect()
    };
    let rows = |of: &Object, name: &str| of.get(name).and_then(Value::as_array).map(all);
    let mut lines = rows(&doc, "lines");
    let logs = lines.iter().flatten().map(|line| rows(line, "statusLogs")).collect();
    lines.iter_mut().flatten().for_each(|line| drop(line.remove("statusLogs")));
    let order = SaveOrder {
        header: doc.get("header").unwrap().as_object().unwrap().clone(),
        lines,
        payments: rows(&doc, "payments"),
        status_logs: rows(&doc, "statusLogs"),
        line_status_logs: logs,
        actor: doc.get("actor").and_then(Value::as_str).map(str::to_owned),
    };
    shop.run(order.request())
}

/// What an order's events did, in order.
fn events(accepted: &Acceptance) -> Vec<String> {
    let event = |event: &Arc<model::Event>| {
        let change = event.record().unwrap();
        format!("{} {} {}", change.effect.wire_name(), change.table, change.key)
    };
    accepted.delta.events.iter().map(event).collect()
}

const NEW: &str = r#"{"header":{"id":"draft-1","shiftId":"sh-1","statusId":"open"},
    "lines":[{"id":"ol-1","quantity":2,"unitPrice":"50.50","statusId":"hot"}],
    "payments":[{"id":"pp-1","amount":100}]}"#;

#[test]
fn a_new_order_gets_a_number_and_all_its_rows_by_one_command() {
    let mut shop = lenient();
    let accepted = save(&mut shop, NEW).unwrap();
    let ms = shop.now.0;
    assert_eq!(
        events(&accepted),
        [
            "module:insert order_header DAR-001001".to_owned(),
            "module:insert order_line ol-1".to_owned(),
            "module:insert order_payment pp-1".to_owned(),
            format!("module:insert order_status_log DAR-001001::status::{ms}"),
            format!("module:insert order_line_status_log ol-1::status::{ms}"),
        ]
    );
    assert_eq!(
        shop.rows("order_header"),
        [
            r#"{"id":"DAR-001001","shiftId":"sh-1","statusId":"open","stageId":null,"paymentStateId":null,"invoiceSequence":1001,"metadata":{"invoiceSequence":1001,"sequenceRule":{"prefix":"DAR","start":1001,"padding":6,"counterField":"invoiceSequence"}},"version":1}"#
        ]
    );
    assert_eq!(
        shop.rows("order_line"),
        [
            r#"{"id":"ol-1","orderId":"DAR-001001","quantity":2,"unitPrice":50.50,"statusId":"hot","version":1}"#
        ]
    );
    assert_eq!(
        shop.rows("order_payment"),
        [r#"{"id":"pp-1","orderId":"DAR-001001","amount":100,"shiftId":"sh-1"}"#]
    );
    assert_eq!(
        shop.rows("order_status_log"),
        [format!(
            r#"{{"id":"DAR-001001::status::{ms}","orderId":"DAR-001001","statusId":"open","stageId":null,"paymentStateId":null,"actorId":"pos","changedAt":{ms}}}"#
        )]
    );
    assert_eq!(
        shop.rows("order_line_status_log"),
        [format!(
            r#"{{"id":"ol-1::status::{ms}","orderId":"DAR-001001","orderLineId":"ol-1","statusId":"hot","actorId":"pos","changedAt":{ms}}}"#
        )]
    );
}

#[test]
fn every_event_knows_its_place_among_those_of_the_order() {
    let accepted = save(&mut lenient(), NEW).unwrap();
    let parts: Vec<_> = accepted.delta.events.iter().map(|event| event.part.unwrap()).collect();
    assert!(parts.iter().zip(0..).all(|(part, n)| (part.index, part.count) == (n, 5)), "{parts:?}");
    let mut shop = lenient();
    let alone = shop.insert("order_payment", r#"{"id":"p","orderId":"o"}"#).unwrap();
    assert_eq!(alone.part, None, "an event alone is no part");
}

#[test]
fn what_was_not_sent_again_is_deleted_and_other_orders_are_left() {
    let mut shop = lenient();
    save(&mut shop, NEW).unwrap();
    let other = r#"{"header":{"shiftId":"sh-1"},"lines":[{"id":"other"}]}"#;
    save(&mut shop, other).unwrap();
    let first = shop.now.0 - 1;
    let accepted = save(
        &mut shop,
        r#"{"header":{"id":"DAR-001001","shiftId":"sh-1","version":2},"payments":[],
            "lines":[{"id":"ol-2"},{"id":"ol-1","quantity":3,"version":2,"statusLogs":[]}],
            "statusLogs":[],"actor":"u7"}"#,
    );
    let ms = shop.now.0;
    assert_eq!(
        events(&accepted.unwrap()),
        [
            "module:merge order_header DAR-001001".to_owned(),
            "module:insert order_line ol-2".to_owned(),
            "module:merge order_line ol-1".to_owned(),
            "module:delete order_payment pp-1".to_owned(),
            format!("module:insert order_status_log DAR-001001::status::{ms}"),
            format!("module:delete order_status_log DAR-001001::status::{first}"),
            format!("module:insert order_line_status_log ol-2::status::{ms}"),
            format!("module:insert order_line_status_log ol-1::status::{ms}"),
            format!("module:delete order_line_status_log ol-1::status::{first}"),
        ]
    );
    assert_eq!(shop.rows("order_line").len(), 3);
    assert!(shop.rows("order_line")[0].contains(r#""unitPrice":50.50"#), "not sent, not lost");
    assert!(shop.rows("order_status_log").iter().any(|row| row.contains(r#""actorId":"u7""#)));
    let last =
        r#"{"header":{"id":"DAR-001001","shiftId":"sh-1","version":3},"lines":[{"id":"x"}]}"#;
    save(&mut shop, last).unwrap();
    assert_eq!(shop.rows("order_line").len(), 2, "the other order's and the new one");
}

#[test]
fn logs_that_are_sent_are_saved_instead_of_made() {
    let mut shop = lenient();
    let sent = r#"{"header":{"id":"o","shiftId":"s"},"lines":[{"id":"a","statusLogs":[{"id":"a-log"}]},{"id":"b"}],
        "statusLogs":[{"id":"log","statusId":"open"}]}"#;
    save(&mut shop, sent).unwrap();
    assert_eq!(shop.rows("order_status_log").len(), 1);
    let made = format!(r#"{{"id":"b::status::{}","orderId":"o","orderLineId":"b""#, shop.now.0);
    let logs = shop.rows("order_line_status_log");
    assert!(logs[0].starts_with(r#"{"id":"a-log","orderId":"o","#) && logs[1].starts_with(&made));
    assert_eq!(logs.len(), 2);
}

#[test]
fn bad_orders_are_refused_in_the_originals_words() {
    let mut shop = lenient();
    save(&mut shop, NEW).unwrap();
    let before = shop.branch().head();
    for (sent, words) in [
        (
            r#"{"header":{"id":"o-2","shiftId":"s"},"lines":[]}"#,
            "EMPTY_ORDER_NOT_ALLOWED: Order must have at least one order_line",
        ),
        (r#"{"header":{"id":"o-2"},"lines":[{}]}"#, "POS order payload requires a shiftId."),
        (
            r#"{"header":{"id":"DAR-001001","shiftId":"sh-1","version":1},"lines":[{"id":"ol-1"}]}"#,
            "DUPLICATE_SAVE_DETECTED: Order with same ID and version already exists",
        ),
    ] {
        let reject = save(&mut shop, sent).unwrap_err();
        assert_eq!((reject.code(), &*reject.to_string()), ("order-persist-failed", words));
    }
    assert_eq!(shop.branch().head(), before);
    let more = r#"{"header":{"id":"DAR-001001","shift_id":"sh-2","version":1},
        "lines":[{"id":"ol-1"},{"id":"ol-2"}]}"#;
    save(&mut shop, more).expect("a line more is no second time");
    assert!(shop.rows("order_header")[0].contains(r#""shiftId":"sh-2""#));
}

#[test]
fn the_headers_version_is_checked_as_a_save_checks_it() {
    let mut shop = lenient();
    save(&mut shop, NEW).unwrap();
    for (version, expected) in [(r#","version":9"#, Some(9)), ("", None)] {
        let sent = format!(
            r#"{{"header":{{"id":"DAR-001001","shiftId":"s"{version}}},"lines":[{{"id":"n"}}]}}"#
        );
        match save(&mut shop, &sent) {
            Err(Reject::VersionConflict { table, expected: asked, current, .. }) => {
                assert_eq!((table.as_str(), asked, current), ("order_header", expected, 1));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shop.rows("order_line").len(), 1);
    let mut shop = small(Shop::strict());
    save(&mut shop, NEW).unwrap();
    let read =
        r#"{"header":{"id":"DAR-001001","shiftId":"s","version":1},"lines":[{"id":"ol-1"}]}"#;
    save(&mut shop, read).expect("who sends the version it read sends just that");
    assert!(save(&mut shop, read).is_err(), "and the order is another now");
}

#[test]
fn a_line_without_a_version_changes_the_line_there_is() {
    let mut shop = lenient();
    save(&mut shop, NEW).unwrap();
    for version in 2..4 {
        let sent = format!(
            r#"{{"header":{{"id":"DAR-001001","shiftId":"s","version":{version}}},
                "lines":[{{"id":"ol-1","quantity":{version}}}]}}"#
        );
        save(&mut shop, &sent).unwrap();
        let line = format!(
            r#"{{"id":"ol-1","orderId":"DAR-001001","quantity":{version},"unitPrice":50.50,"statusId":"hot","version":{version}}}"#
        );
        assert_eq!(shop.rows("order_line"), [line]);
    }
    let stale = r#"{"header":{"id":"DAR-001001","shiftId":"s","version":4},
        "lines":[{"id":"ol-1","version":9}]}"#;
    assert_eq!(save(&mut shop, stale).unwrap_err().code(), "version-conflict");
    assert!(shop.rows("order_header")[0].ends_with(r#""version":3}"#), "all or nothing");
}

#[test]
fn a_refused_order_takes_no_number() {
    let mut shop = lenient();
    let bad = r#"{"header":{"shiftId":"s"},"lines":[{"id":"l"},{"id":"l","version":7}]}"#;
    save(&mut shop, bad).unwrap_err();
    let sent = r#"{"header":{"id":"","shiftId":"s","metadata":{"table":4}},"lines":[{}]}"#;
    save(&mut shop, sent).unwrap();
    let row = &shop.rows("order_header")[0];
    assert!(row.contains(r#""metadata":{"table":4,"invoiceSequence":1001,"#), "{row}");
    assert!(shop.rows("order_line")[0].starts_with(r#"{"id":"id-"#), "a line gets an id");
}

#[test]
fn tables_the_module_lacks_are_ignored_except_the_header() {
    let mut shop = Shop::lenient();
    let accepted = save(&mut shop, NEW).unwrap();
    assert_eq!(
        accepted.delta.events.iter().map(|e| e.record().unwrap().effect).collect::<Vec<_>>(),
        [Effect::Insert, Effect::Insert]
    );
    assert!(shop.rows("order_header")[0].starts_with(r#"{"id":"id-"#), "without a rule no number");
    let mut shop = Shop::lenient();
    shop.redefine(|definition| {
        let mut schema = (*definition.schema).clone();
        schema.tables.retain(|table| table.name.as_str() != "order_header");
        definition.schema = Arc::new(schema);
    })
    .unwrap();
    assert_eq!(save(&mut shop, NEW).unwrap_err().code(), "table-not-found");
}

#[test]
fn strict_holds_for_the_order_as_a_whole() {
    let mut shop = small(Shop::strict());
    save(&mut shop, NEW).unwrap();
    let at = format!(r#""changedAt":"{}""#, shop.now.to_iso());
    assert!(shop.rows("order_status_log")[0].contains(&at));
    let without =
        r#"{"header":{"id":"DAR-001001","shiftId":"s","version":1},"lines":[{"id":"n"}]}"#;
    save(&mut shop, without).expect("the line that goes takes its log with it");
    let unknown = r#"{"header":{"id":"o","shiftId":"s"},"lines":[{"id":"m","qty":2}]}"#;
    assert_eq!(save(&mut shop, unknown).unwrap_err().code(), "invalid-field");
}

#[test]
fn an_order_of_too_many_rows_is_refused() {
    let lines = vec!["{}"; MUTATIONS_MAX].join(",");
    let sent = format!(r#"{{"header":{{"shiftId":"s"}},"lines":[{lines}]}}"#);
    assert_eq!(save(&mut lenient(), &sent).unwrap_err().code(), "bad-command");
}

#[test]
fn a_line_costs_quantity_times_price_as_they_are_stored() {
    let mut shop = shop_with_totals();
    let mut version = 0;
    let mut total = |shop: &mut Shop, line: &str| {
        version += 1;
        let header = format!(r#"{{"id":"DAR-001001","shiftId":"s","version":{version}}}"#);
        save(shop, &format!(r#"{{"header":{header},"lines":[{line}]}}"#)).unwrap();
        let row = shop.rows("order_line").remove(0);
        let row = Value::from_json(row.as_bytes()).unwrap();
        row.get("total").unwrap().to_json()
    };
    assert_eq!(total(&mut shop, r#"{"id":"ol","quantity":2,"unitPrice":"50.25"}"#), "100.50");
    assert_eq!(total(&mut shop, r#"{"id":"ol","quantity":3}"#), "150.75", "by the stored price");
    assert_eq!(total(&mut shop, r#"{"id":"ol","unitPrice":1.1}"#), "3.3", "of the stored count");
    assert_eq!(
        total(&mut shop, r#"{"id":"ol","quantity":4,"total":5}"#),
        "5",
        "a total that was sent stays"
    );
    assert_eq!(total(&mut shop, r#"{"id":"ol"}"#), "5", "of amounts nothing was said");
    assert_eq!(total(&mut shop, r#"{"id":"ol","total":""}"#), "4.4");
}

#[test]
fn two_logs_of_one_moment_are_two() {
    let mut shop = lenient();
    save(&mut shop, OTHER).unwrap();
    let at = shop.now;
    for (version, state) in [(2, "ready"), (3, "served")] {
        shop.now = at;
        let header = format!(
            r#"{{"header":{{"id":"T1","shiftId":"s","version":{version},"statusId":"{state}"}}}}"#
        );
        save(&mut shop, &header).unwrap();
    }
    assert_eq!(shop.rows("order_status_log").len(), 3, "{:?}", shop.rows("order_status_log"));
}

/// Another order of the same shop, which keeps what it has.
const OTHER: &str = r#"{"header":{"id":"T1","shiftId":"s","version":1},
    "lines":[{"id":"1","statusLogs":[{"id":"k1"}]},{"id":"2"}],
    "payments":[{"id":"1"}],"statusLogs":[{"id":"g1"}]}"#;

#[test]
fn a_part_of_another_order_is_refused_and_nothing_changes() {
    for shop in [Shop::lenient(), Shop::strict()] {
        let mut shop = small(shop);
        save(&mut shop, &OTHER.replace(r#","version":1"#, "")).unwrap();
        let before = shop.branch().head();
        for (parts, table, key, holder) in [
            (r#""lines":[{"id":"1"},{"id":"2"}],"payments":[{"id":"1"}]"#, "order_line", "1", "T1"),
            (r#""lines":[{"id":"x"},{"id":"2"}]"#, "order_line", "2", "T1"),
            (r#""lines":[{"id":"x"}],"payments":[{"id":"1"}]"#, "order_payment", "1", "T1"),
            (r#""lines":[{"id":"x"}],"statusLogs":[{"id":"g1"}]"#, "order_status_log", "g1", "T1"),
            (
                r#""lines":[{"id":"x","statusLogs":[{"id":"k1"}]}]"#,
                "order_line_status_log",
                "k1",
                "1",
            ),
        ] {
            let sent = format!(r#"{{"header":{{"id":"T2","shiftId":"s"}},{parts}}}"#);
            let reject = save(&mut shop, &sent).unwrap_err();
            let Reject::PartOfAnother { table: of, key: named, holder: by, .. } = reject else {
                panic!("{reject:?}");
            };
            assert_eq!((&*of, named.as_str(), &*by), (table, key, holder));
        }
        assert_eq!(shop.branch().head(), before);
    }
}

#[test]
fn two_parts_of_one_id_in_one_order_are_refused() {
    let mut shop = lenient();
    for parts in [
        r#""lines":[{"id":"1"},{"id":"1"}]"#,
        r#""lines":[{"id":1},{"id":"1"}]"#,
        r#""lines":[{"id":"1"}],"payments":[{"id":"p"},{"id":"p"}]"#,
        r#""lines":[{"id":"1"}],"statusLogs":[{"id":"g"},{"id":"g"}]"#,
        r#""lines":[{"id":"1","statusLogs":[{"id":"k"}]},{"id":"2","statusLogs":[{"id":"k"}]}]"#,
    ] {
        let sent = format!(r#"{{"header":{{"shiftId":"s"}},{parts}}}"#);
        assert_eq!(save(&mut shop, &sent).unwrap_err().code(), "duplicate-part", "{parts}");
    }
    assert_eq!(shop.branch().head().offset.0, 0);
    save(&mut shop, r#"{"header":{"shiftId":"s"},"lines":[{},{}]}"#).expect("each gets its own id");
}

#[test]
fn a_list_that_is_not_sent_leaves_the_stored_parts() {
    let mut shop = lenient();
    save(&mut shop, OTHER).unwrap();
    let rows = |shop: &Shop| {
        ["order_line", "order_payment", "order_status_log", "order_line_status_log"]
            .map(|table| shop.rows(table))
    };
    let before = rows(&shop);
    let header = |version: u32, more: &str| {
        format!(r#"{{"header":{{"id":"T1","shiftId":"s","version":{version}}}{more}}}"#)
    };
    let changes = events(&save(&mut shop, &header(2, "")).unwrap());
    assert_eq!(changes, ["module:merge order_header T1"], "the lines stay, and are not touched");
    assert_eq!(rows(&shop), before);
    let lines = r#","lines":[{"id":"1","version":2},{"id":"2","version":2}]"#;
    save(&mut shop, &header(3, lines)).unwrap();
    let after = rows(&shop);
    assert_eq!(after[1..], before[1..], "payments and logs were not sent");
    save(&mut shop, &header(4, r#","payments":[],"statusLogs":[{"id":"g2"}]"#)).unwrap();
    let after = rows(&shop);
    assert_eq!((after[0].len(), after[1].len(), after[2].len()), (2, 0, 1));
    assert!(after[2][0].starts_with(r#"{"id":"g2""#), "a list that was sent replaces them");
    let empty = save(&mut shop, &header(5, r#","lines":[]"#)).unwrap_err();
    assert!(empty.to_string().starts_with("EMPTY_ORDER_NOT_ALLOWED"));
    for new in [r#"{"id":"new","shiftId":"s"}"#, r#"{"id":"draft-T1","shiftId":"s"}"#] {
        let reject = save(&mut shop, &format!(r#"{{"header":{new}}}"#)).unwrap_err();
        assert!(reject.to_string().starts_with("EMPTY_ORDER_NOT_ALLOWED"), "{new}");
    }
}

#[test]
fn a_log_is_added_where_a_state_changed_and_none_was_sent() {
    let mut shop = lenient();
    save(&mut shop, OTHER).unwrap();
    let sent = r#"{"header":{"id":"T1","shiftId":"s","version":2,"statusId":"ready"},
        "lines":[{"id":"1","version":2,"statusId":"done"},{"id":"2","version":2}]}"#;
    save(&mut shop, sent).unwrap();
    let count = |table: &str| shop.rows(table).len();
    assert_eq!((count("order_status_log"), count("order_line_status_log")), (2, 3));
    let again = sent.replace(r#""version":2"#, r#""version":3"#);
    save(&mut shop, &again).unwrap();
    let count = |table: &str| shop.rows(table).len();
    assert_eq!((count("order_status_log"), count("order_line_status_log")), (2, 3));
}

#[test]
fn an_insert_does_not_take_a_part_of_another_order() {
    let mut shop = lenient();
    save(&mut shop, OTHER).unwrap();
    let taken = shop.insert("order_line", r#"{"id":"1","order_id":"T2"}"#).unwrap_err();
    assert_eq!(taken.code(), "part-of-another-record");
    let log = r#"{"id":"k1","orderLineId":"2"}"#;
    let taken = shop.insert("order_line_status_log", log).unwrap_err();
    assert!(taken.to_string().contains(r#"a part of order_line "1""#), "{taken}");
    shop.insert("order_line", r#"{"id":"1","orderId":"T1","quantity":4}"#).unwrap();
    shop.merge("order_line", r#"{"id":"1","orderId":"T2","version":2}"#)
        .expect("a merge moves it, as it says");
}

#[test]
fn a_derived_total_has_its_fields_scale_in_both_modes() {
    for (validation, rounding, total) in [
        (Shop::lenient(), "", "4.33"),
        (Shop::strict(), "", "4.33"),
        (Shop::strict(), r#","rounding":"down""#, "4.32"),
    ] {
        let price = r#"{"name":"unitPrice","type":"decimal","defaultValue":0}"#;
        let field =
            format!(r#"{{"name":"total","type":"DECIMAL(14,2)","defaultValue":0{rounding}}}"#);
        let mut shop = defined(validation, &SCHEMA.replace(price, &format!("{price},{field}")));
        let sent = r#"{"header":{"id":"o","shiftId":"s"},
            "lines":[{"id":"l","quantity":0.333,"unitPrice":12.99}]}"#;
        save(&mut shop, sent).unwrap();
        assert!(shop.rows("order_line")[0].contains(&format!(r#""total":{total},"#)));
        let long = r#"{"header":{"id":"p","shiftId":"s"},
            "lines":[{"id":"m","quantity":1234567890123456789,"unitPrice":1234567890123456789}]}"#;
        let refused = save(&mut shop, long).unwrap_err().to_string();
        assert!(
            refused.starts_with("order_line.total must be a number of at most 28"),
            "{refused}"
        );
    }
}

#[test]
fn an_order_written_anew_is_the_same_order() {
    let order = |json: &str| {
        let lines = Some(vec![object(json)]);
        codec::encode(&SaveOrder { lines, ..SaveOrder::default() })
    };
    let meaning = |arguments: &[u8]| OrdersProcedure.meaning(arguments);
    let (one, anew) = (order(r#"{"id":"l","n":1.50}"#), order(r#"{"n":1.5,"id":"l"}"#));
    assert_ne!(one, anew, "it is stored as it was sent");
    assert_eq!(meaning(&one), meaning(&anew));
    assert_ne!(meaning(&one), meaning(&order(r#"{"id":"l","n":1.6}"#)));
}

#[test]
fn arguments_that_cannot_be_read_are_refused() {
    let damaged =
        Request::Call(ProcedureCall { procedure: PROCEDURE.to_owned(), arguments: vec![1] });
    assert_eq!(lenient().run(damaged).unwrap_err().code(), "bad-command");
}
