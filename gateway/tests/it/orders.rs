//! Stories about point-of-sale orders: listed, shown, saved.

use model::{Action, Outcome, RecordMutation, Value};

use crate::client::{Answered, Rest, at, members};

const M: &str = "/api/branches/dar/modules/pos";

/// Writes a record as a socket would.
fn put(rest: &Rest, table: &str, json: &str) {
    let record = Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone();
    let outcome = rest.fake.write("dar", "pos", RecordMutation::new(Action::Insert, table, record));
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
}

fn shop() -> Rest {
    let rest = Rest::with_till();
    put(&rest, "orders", r#"{"id":"o-1","shiftId":"s1","statusId":"ready"}"#);
    put(&rest, "orders", r#"{"id":"o-2","shiftId":"s2","statusId":"closed"}"#);
    put(&rest, "orders", r#"{"id":"o-3","shiftId":"s2","orderTypeId":"delivery"}"#);
    put(&rest, "order_line", r#"{"id":"l-1","orderId":"o-1","itemId":"soup"}"#);
    put(&rest, "order_line", r#"{"id":"l-2","orderId":"o-1","itemId":"tea"}"#);
    put(&rest, "payments", r#"{"id":"p-1","orderId":"o-1","amount":5.50}"#);
    put(&rest, "order_status_log", r#"{"id":"g-1","orderId":"o-1"}"#);
    put(&rest, "order_line_status_log", r#"{"id":"k-1","orderId":"o-1","orderLineId":"l-2"}"#);
    rest
}

fn ids(answer: &Answered) -> String {
    let orders = answer.body.get("orders").and_then(|orders| orders.as_array());
    let orders = orders.unwrap_or_else(|| panic!("{}", answer.raw)).iter();
    let ids: Vec<&str> = orders.map(|order| at(order, &["id"]).as_str().unwrap()).collect();
    ids.join(" ")
}

#[tokio::test]
async fn orders_are_listed_with_the_parts_asked_for() {
    let rest = shop();
    let path = format!("{M}/orders");
    let all = rest.get(&format!("{path}?onlyActive=false&include=lines,payments")).await;
    assert_eq!(members(&all.body), "branchId moduleId orders meta");
    assert_eq!(ids(&all), "o-1 o-2 o-3");
    assert_eq!(
        all.body.get("meta").unwrap().to_json(),
        r#"{"count":3,"total":3,"onlyActive":false,"include":["lines","payments"],"limit":null}"#
    );
    let first = &all.body.get("orders").and_then(|o| o.as_array()).unwrap()[0];
    assert!(members(first).ends_with("metadata version lines payments"));
    let line = &at(first, &["lines"]).as_array().unwrap()[0];
    assert!(members(line).ends_with("total statusId version"));

    let recorded = "status=open&limit=1&includeLines=1&includeStatusLogs=true";
    let open = rest.get(&format!("{path}?{recorded}")).await;
    assert_eq!(ids(&open), "o-1", "an order that is ready is open");
    assert_eq!(
        open.body.get("meta").unwrap().to_json(),
        r#"{"count":1,"total":2,"onlyActive":true,"include":["lines","statuslogs"],"limit":1}"#
    );
    assert_eq!(ids(&rest.get(&path).await), "o-1 o-3", "closed orders are not active");
    assert_eq!(ids(&rest.get(&format!("{path}?type=DELIVERY,take_away")).await), "o-3");
    assert_eq!(ids(&rest.get(&format!("{path}?shiftId=s2&onlyActive=0")).await), "o-2 o-3");
    assert_eq!(ids(&rest.get(&format!("{path}?status=ready&status=held")).await), "o-1");
    assert_eq!(ids(&rest.get(&format!("{path}?updatedAfter=2020-01-01")).await), "");
    for bad in ["onlyActive=maybe", "limit=x", "savedAfter=soon", "includeLines=2"] {
        let refused = rest.get(&format!("{path}?{bad}")).await;
        assert_eq!(refused.code(), (400, "invalid-parameter"), "{bad}");
    }
}

#[tokio::test]
async fn an_order_is_shown_with_all_that_belongs_to_it() {
    let rest = shop();
    let one = rest.get(&format!("{M}/orders/o-1")).await;
    assert_eq!(members(&one.body), "branchId moduleId orderId order");
    let order = one.body.get("order").unwrap();
    assert!(members(order).ends_with("metadata version lines payments statusLogs"));
    let lines = at(order, &["lines"]).as_array().unwrap();
    let logs: Vec<usize> =
        lines.iter().map(|line| at(line, &["statusLogs"]).as_array().unwrap().len()).collect();
    assert_eq!(logs, [0, 1]);
    assert!(one.raw.contains(r#""amount":5.50"#));
    assert_eq!(rest.get("/api/branch/dar/modules/pos/orders/o-1").await.raw, one.raw);

    let none = rest.get(&format!("{M}/orders/none")).await;
    assert_eq!(none.code(), (404, "order-not-found"));
    assert_eq!(none.text("orderId"), "none");
    for method in ["PATCH", "PUT", "DELETE"] {
        let refused = rest.send(method, &format!("{M}/orders/o-1"), "{}", &[]).await;
        assert_eq!(refused.code(), (405, "method-not-allowed"), "{method}");
    }
    assert_eq!(rest.get(&format!("{M}/orders/o-1/lines")).await.code(), (404, "path-not-found"));
}

#[tokio::test]
async fn only_the_module_of_the_tills_has_orders() {
    let rest = Rest::with_till();
    let other = "/api/branches/two/modules/kds";
    assert_eq!(rest.get(&format!("{other}/orders")).await.code(), (404, "path-not-found"));
    assert_eq!(rest.get(&format!("{other}/orders/1")).await.code(), (404, "path-not-found"));
    assert_eq!(rest.post(&format!("{other}/orders"), "{}").await.code(), (404, "not-found"));
    let unknown = rest.get("/api/branches/dar/modules/kds/orders").await;
    assert_eq!(unknown.code(), (404, "module-not-found"));
}

#[tokio::test]
async fn an_order_that_is_none_is_refused() {
    let rest = Rest::with_till();
    let path = format!("{M}/orders");
    for body in ["", "{}", r#"{"order":null}"#] {
        assert_eq!(rest.post(&path, body).await.code(), (400, "missing-order-payload"), "{body}");
    }
    for body in [r#"{"order":5}"#, r#"{"order":{"lines":{}}}"#, r#"{"order":{"payments":[1]}}"#] {
        assert_eq!(rest.post(&path, body).await.code(), (400, "invalid-body"), "{body}");
    }
}

/// The order whose answer was recorded.
const ORDER: &str = r#"{"order":{"id":"draft-1","shiftId":"sh-1","type":"dine_in","status":"open",
    "lines":[{"id":"ol-1","itemId":"burger","qty":2,"price":50}],
    "payments":[{"id":"pp-1","method":"cash","amount":100}]}}"#;
const WAITS: &str = "the branch does not save orders yet";

#[tokio::test]
async fn an_order_is_saved_and_shown_as_it_is_stored() {
    let rest = Rest::with_till();
    let saved = rest.post(&format!("{M}/orders"), ORDER).await;
    assert_eq!(saved.status, 201, "{WAITS}: {}", saved.raw);
    assert_eq!(members(&saved.body), "branchId moduleId orderId order normalized");
    assert_eq!(saved.text("orderId"), "DAR-001001");
    let order = saved.body.get("order").unwrap();
    assert!(members(order).ends_with("metadata version lines payments statusLogs"));
    assert_eq!(at(order, &["orderTypeId"]).as_str(), Some("dine_in"));
    let line = &at(order, &["lines"]).as_array().unwrap()[0];
    let amounts = ["quantity", "unitPrice", "total"].map(|name| at(line, &[name]).to_json());
    assert_eq!(amounts, ["2", "50", "100"], "what the till said is kept");
    let payment = &at(order, &["payments"]).as_array().unwrap()[0];
    assert_eq!(at(payment, &["paymentMethodId"]).as_str(), Some("cash"));
    assert_eq!(at(payment, &["shiftId"]).as_str(), Some("sh-1"));
    assert_eq!(at(order, &["statusLogs"]).as_array().unwrap().len(), 1);
    let normalized = saved.body.get("normalized").unwrap();
    assert!(members(normalized).starts_with("id type status fulfillmentStage paymentState"));
    assert_eq!(at(normalized, &["metadata", "invoiceSequence"]).as_u64(), Some(1001));
    let shown = rest.get(&format!("{M}/orders/DAR-001001")).await;
    assert_eq!(shown.body.get("order"), Some(order));
}

#[tokio::test]
async fn an_order_that_cannot_be_saved_says_why() {
    let rest = Rest::with_till();
    let path = format!("{M}/orders");
    let empty = rest.post(&path, r#"{"order":{"id":"o-2","shiftId":"s","lines":[]}}"#).await;
    assert_eq!(empty.code(), (422, "order-persist-failed"));
    assert!(empty.text("message").starts_with("EMPTY_ORDER_NOT_ALLOWED"), "{}", empty.raw);
    let shift = rest.post(&path, r#"{"order":{"id":"o-2","lines":[{}]}}"#).await;
    assert_eq!(shift.code(), (422, "order-persist-failed"));
    assert_eq!(shift.text("message"), "POS order payload requires a shiftId.");

    assert_eq!(rest.post(&path, ORDER).await.status, 201);
    let order = |version: u32, line: &str| {
        format!(
            r#"{{"order":{{"id":"DAR-001001","shiftId":"sh-1","version":{version},"lines":[{line}]}}}}"#
        )
    };
    let again = rest.post(&path, &order(1, r#"{"id":"ol-1","itemId":"burger"}"#)).await;
    assert_eq!(again.code(), (422, "order-persist-failed"));
    assert!(again.text("message").starts_with("DUPLICATE_SAVE_DETECTED"), "{}", again.raw);
    let changed = rest.post(&path, &order(2, r#"{"id":"ol-1","qty":3,"version":2}"#)).await;
    assert_eq!(changed.status, 201, "{}", changed.raw);
    assert!(changed.raw.contains(r#""payments":[{"id":"pp-1""#), "a list not sent leaves them");
    let stale = rest.post(&path, &order(9, r#"{"id":"ol-1"}"#)).await;
    assert_eq!(stale.code(), (409, "order-version-conflict"));
    assert_eq!(
        stale.body.get("details").unwrap().to_json(),
        r#"{"table":"order_header","key":"DAR-001001","expectedVersion":9,"currentVersion":2}"#
    );
}

#[tokio::test]
async fn a_part_of_another_order_is_not_taken() {
    let rest = Rest::with_till();
    let path = format!("{M}/orders");
    let order = |id: &str, lines: &str, more: &str| {
        let head = format!(r#""id":"{id}","shiftId":"s""#);
        format!(r#"{{"order":{{{head},"lines":[{lines}]{more}}}}}"#)
    };
    let lines = r#"{"id":"1","qty":1,"price":5},{"id":"2","qty":1,"price":5}"#;
    let payment = r#","payments":[{"id":"1","method":"cash","amount":10}]"#;
    let first = rest.post(&path, &order("T1", lines, payment)).await;
    assert_eq!(first.status, 201, "{}", first.raw);
    let before = rest.get(&format!("{path}/T1")).await.raw;
    for (sent, details) in [
        (
            order("T2", lines, payment),
            r#"{"table":"order_line","key":"1","holder":"T1","holderTable":"order_header"}"#,
        ),
        (
            order("T2", r#"{"id":"x"}"#, payment),
            r#"{"table":"order_payment","key":"1","holder":"T1","holderTable":"order_header"}"#,
        ),
    ] {
        let refused = rest.post(&path, &sent).await;
        assert_eq!(refused.code(), (409, "part-of-another-record"));
        assert!(refused.text("message").contains("\"T1\""), "{}", refused.raw);
        assert_eq!(refused.body.get("details").unwrap().to_json(), details);
    }
    let twice = rest.post(&path, &order("T3", r#"{"id":"x"},{"id":"x"}"#, "")).await;
    assert_eq!(twice.code(), (409, "duplicate-part"));
    assert_eq!(rest.get(&format!("{path}/T1")).await.raw, before, "nothing changed");
    assert_eq!(rest.get(&format!("{path}/T2")).await.status, 404);
}

#[tokio::test]
async fn an_order_without_lists_keeps_its_parts() {
    let rest = Rest::with_till();
    let path = format!("{M}/orders");
    assert_eq!(rest.post(&path, ORDER).await.status, 201);
    let sent = r#"{"order":{"id":"DAR-001001","shiftId":"sh-1","version":2,"status":"held"}}"#;
    let changed = rest.post(&path, sent).await;
    assert_eq!(changed.status, 201, "{}", changed.raw);
    let order = changed.body.get("order").unwrap();
    let count = |name: &str| at(order, &[name]).as_array().unwrap().len();
    assert_eq!((count("lines"), count("payments"), count("statusLogs")), (1, 1, 2));
    assert_eq!(at(order, &["metadata", "linesCount"]).as_u64(), Some(1));
    let empty = r#"{"order":{"id":"DAR-001001","shiftId":"sh-1","version":3,"payments":[]}}"#;
    let emptied = rest.post(&path, empty).await;
    assert!(emptied.raw.contains(r#""payments":[]"#), "{}", emptied.raw);
    let new = rest.post(&path, r#"{"order":{"id":"o-9","shiftId":"s"}}"#).await;
    assert_eq!(new.code(), (422, "order-persist-failed"));
    assert!(new.text("message").starts_with("EMPTY_ORDER_NOT_ALLOWED"));
}

#[tokio::test]
async fn the_same_order_sent_again_under_its_key_is_answered_alike() {
    let rest = Rest::with_till();
    let key = [("idempotency-key", "o-1")];
    let first = rest.send("POST", &format!("{M}/orders"), ORDER, &key).await;
    let again = rest.send("POST", &format!("{M}/orders"), ORDER, &key).await;
    assert_eq!((first.status, first.raw), (201, again.raw));
}
