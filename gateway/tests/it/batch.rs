//! Stories of many changes at once: all or none.

use model::Value;

use crate::client::{Answered, Rest, Served, at, members};

const B: &str = "/api/branches/dar/modules/pos/batch";
const M: &str = "/api/branches/dar/modules/pos";

fn results(answer: &Answered) -> &[Value] {
    at(&answer.body, &["results"]).as_array().unwrap_or_else(|| panic!("{}", answer.raw))
}

async fn count(rest: &Rest) -> Option<u64> {
    at(&rest.get(M).await.body, &["meta", "counter"]).as_u64()
}

#[tokio::test]
async fn changes_of_any_kind_on_any_tables_happen_together() {
    let rest = Rest::new();
    rest.post(&format!("{M}/tables/tickets"), r#"{"id":"old"}"#).await;
    let body = r#"{"verbs":[
        {"action":"module:insert","table":"orders","record":{"shiftId":"s"},"eventId":"e-1"},
        {"action":"update","table":"tickets","record":{"id":"old","title":"x"}},
        {"action":"save","table":"tickets","record":{"id":"new"},"meta":{"n":1}},
        {"action":"delete","table":"thing","record":{"a":"x","b":1}}]}"#;
    let done = rest.post(B, body).await;
    assert_eq!(done.status, 200, "{}", done.raw);
    assert_eq!(members(&done.body), "branchId moduleId version results cursor");
    assert_eq!(at(&done.body, &["cursor"]).to_json(), r#"{"epoch":1,"sequence":5}"#);
    assert_eq!(done.header("x-mishkah-cursor"), "1.5");
    assert_eq!(at(&done.body, &["version"]).as_u64(), Some(6));
    let shown: Vec<_> = results(&done)
        .iter()
        .map(|result| {
            assert_eq!(members(result), "index status table recordRef record eventId sequence");
            let part = |name| at(result, &[name]).to_json();
            format!("{} {} {} {}", part("index"), part("status"), part("table"), part("sequence"))
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#"0 "created" "orders" 2"#,
            r#"1 "updated" "tickets" 3"#,
            r#"2 "created" "tickets" 4"#,
            r#"3 "deleted" "thing" 5"#
        ]
    );
    assert_eq!(at(&results(&done)[0], &["eventId"]).as_str(), Some("e-1"));
    assert_eq!(at(&results(&done)[0], &["record", "id"]).as_str(), Some("DAR-001001"));
    assert_eq!(count(&rest).await, Some(3));
}

#[tokio::test]
async fn one_refusal_names_its_index_and_undoes_all() {
    let rest = Rest::new();
    rest.post(&format!("{M}/tables/order_header"), r#"{"id":"o","shiftId":"s"}"#).await;
    let before = count(&rest).await;
    let first = r#"{"table":"tickets","record":{"id":"t"}}"#;
    for (mutation, status, code) in [
        (r#"{"table":"nope","record":{}}"#, 404, "table-not-found"),
        (r#"{"action":"merge","table":"tickets","record":{"id":"x"}}"#, 404, "module-event-failed"),
        (
            r#"{"action":"merge","table":"order_header","record":{"id":"o","version":9}}"#,
            409,
            "version-conflict",
        ),
        (
            r#"{"action":"save","table":"order_header","record":{"id":"o","version":2},
                "expectedVersion":5}"#,
            409,
            "version-conflict",
        ),
        (
            r#"{"action":"save","table":"tickets","record":{"id":"x"},
                "concurrency":{"requireExisting":true}}"#,
            409,
            "full-sync-required",
        ),
        (r#"{"action":"nope","table":"tickets","record":{}}"#, 400, "module-event-failed"),
        (r#"{"table":"tickets"}"#, 400, "missing-record"),
    ] {
        let refused = rest.post(B, &format!(r#"{{"verbs":[{first},{mutation}]}}"#)).await;
        assert_eq!(refused.code(), (status, code), "{mutation}");
        assert_eq!(at(&refused.body, &["index"]).as_u64(), Some(1), "{}", refused.raw);
        assert_eq!(count(&rest).await, before, "{mutation}");
    }
    let alone = rest.post(B, r#"{"verbs":[{"table":"nope","record":{}}]}"#).await;
    assert_eq!(at(&alone.body, &["index"]).as_u64(), Some(0));
    for bad in ["", r#"{"verbs":[]}"#, r#"{"verbs":5}"#] {
        assert_eq!(rest.post(B, bad).await.code(), (400, "invalid-body"), "{bad}");
    }
    assert_eq!(rest.get(B).await.code(), (405, "method-not-allowed"));
}

#[tokio::test]
async fn a_batch_is_done_once_under_its_key() {
    let rest = Rest::new();
    let mutations =
        |n: u8| format!(r#""verbs":[{{"table":"tickets","record":{{"title":"{n}"}}}}]"#);
    let key = [("idempotency-key", "k-1")];
    let body = format!("{{{}}}", mutations(1));
    let first = rest.send("POST", B, &body, &key).await;
    assert_eq!((first.status, &first.raw), (200, &rest.send("POST", B, &body, &key).await.raw));
    let other = rest.send("POST", B, &format!("{{{}}}", mutations(2)), &key).await;
    assert_eq!(other.code(), (422, "idempotency-key-reused"));
}

#[tokio::test]
async fn everybody_in_the_branch_gets_each_change() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    let gateway = crate::client::gateway(&served.fake, |_| {});
    let rest = Rest { fake: served.fake.clone(), gateway };
    let body = r#"{"verbs":[{"table":"tickets","record":{"id":"a"},"meta":{"n":1}},
        {"table":"tickets","record":{"id":"b"},"includeRecord":false,"source":"app"}]}"#;
    assert_eq!(rest.post(B, body).await.status, 200);
    let first = till.expect("server:event").await;
    assert_eq!(at(&first, &["entry", "record", "id"]).as_str(), Some("a"));
    assert_eq!(at(&first, &["meta", "source"]).as_str(), Some("rest-batch"));
    assert_eq!(at(&first, &["meta", "clientMeta"]).to_json(), r#"{"n":1}"#);
    let second = till.expect("server:event").await;
    assert!(at(&second, &["entry"]).get("record").is_none());
    assert_eq!(at(&second, &["meta", "source"]).as_str(), Some("app"));
}

#[tokio::test]
async fn a_key_that_is_too_long_is_refused_by_its_place() {
    let rest = Rest::new();
    let before = count(&rest).await;
    let long = "k".repeat(2_000);
    let first = r#"{"table":"tickets","record":{"id":"t"}}"#;
    let second = format!(r#"{{"table":"tickets","record":{{"id":"{long}"}}}}"#);
    let refused = rest.post(B, &format!(r#"{{"verbs":[{first},{second}]}}"#)).await;
    assert_eq!(refused.status, 400, "{}", refused.raw);
    assert_eq!(at(&refused.body, &["index"]).as_u64(), Some(1));
    assert_eq!(at(&refused.body, &["details", "code"]).as_str(), Some("key-too-long"));
    let alone = rest.post(&format!("{M}/tables/tickets"), &format!(r#"{{"id":"{long}"}}"#)).await;
    assert_eq!(alone.status, 400, "{}", alone.raw);
    assert_eq!(at(&alone.body, &["details", "bytes"]).as_u64(), Some(2_000));
    assert_eq!(count(&rest).await, before);
}
