//! What a request says twice and differently, or of another place than it is sent to: a strict
//! module is not left to guess which is meant.

use model::Value;

use crate::client::Rest;

/// A strict module: `screens {id}`.
const M: &str = "/api/branches/two/modules/kds";

#[tokio::test]
async fn what_is_meant_for_another_place_changes_nothing_here() {
    let rest = Rest::new();
    rest.post(&format!("{M}/tables/screens"), r#"{"id":"a","name":"n"}"#).await;
    let record = r#""table":"screens","record":{"id":"b"}"#;
    for (path, body) in [
        ("/api/sync/two/kds", r#"{"snapshot":{"branchId":"dar","tables":{"screens":[]}}}"#.into()),
        ("/api/sync/two/kds", r#"{"snapshot":{"moduleId":"pos","tables":{"screens":[]}}}"#.into()),
        ("/api/sync/two/kds/delta", r#"{"branchId":"dar","tables":["screens"]}"#.into()),
        (&*format!("{M}/events"), format!(r#"{{"branchId":"dar",{record}}}"#)),
        (&*format!("{M}/events"), format!(r#"{{"moduleId":"pos",{record}}}"#)),
        (&*format!("{M}/batch"), format!(r#"{{"branchId":"dar","verbs":[{{{record}}}]}}"#)),
        (
            &*format!("{M}/events/batch"),
            format!(r#"{{"lastAckId":null,"events":[{{"branchId":"dar",{record}}}]}}"#),
        ),
    ] {
        let refused = rest.post(path, &body).await;
        assert_eq!(refused.code(), (400, "invalid-body"), "{path} {body}: {}", refused.raw);
        assert!(refused.text("message").contains("this request is to"), "{}", refused.raw);
    }
    let other = rest.post("/api/sync/two/kds?branch=dar", "{}").await;
    assert_eq!(other.code(), (400, "invalid-parameter"), "{}", other.raw);
    let stored = rest.get(&format!("{M}/tables/screens")).await;
    assert_eq!(stored.body.get("count").and_then(Value::as_u64), Some(1), "{}", stored.raw);
    let same = r#"{"snapshot":{"branchId":"two","moduleId":"kds","tables":{"screens":[]}}}"#;
    assert_eq!(rest.post("/api/sync/two/kds?branch=two&module=kds", same).await.status, 200);
}

#[tokio::test]
async fn two_names_of_one_thing_that_differ_are_refused() {
    let rest = Rest::new();
    let table = format!("{M}/tables/screens");
    for (method, path, body) in [
        ("GET", format!("{table}?limit=1&take=2"), ""),
        ("GET", format!("{table}?limit=1&limit=2"), ""),
        ("GET", format!("{table}?order=asc&sort=desc"), ""),
        ("POST", table.clone(), r#"{"record":{"id":"k1"},"data":{"id":"k2"}}"#),
        ("POST", format!("{M}/save"), r#"{"table":"screens","tableName":"t","record":{"id":"k"}}"#),
        ("DELETE", format!("{table}?id=d1&key=d3"), ""),
        (
            "POST",
            "/api/query/module".to_owned(),
            r#"{"branchId":"two","moduleId":"kds","table":"screens","where":{},"filter":{"id":1}}"#,
        ),
    ] {
        let refused = rest.send(method, &path, body, &[]).await;
        assert_eq!(refused.status, 400, "{path} {body}: {}", refused.raw);
        let message = refused.text("message");
        assert!(message.contains("mean the same") || message.contains("twice"), "{message}");
    }
    assert_eq!(rest.get(&format!("{table}?limit=5&take=5")).await.status, 200, "they agree");
}

#[tokio::test]
async fn a_removal_whose_parts_name_two_records_removes_none() {
    let rest = Rest::new();
    let table = format!("{M}/tables/screens");
    for id in ["r1", "r2"] {
        rest.post(&table, &format!(r#"{{"id":"{id}","name":"n"}}"#)).await;
    }
    let body = rest.delete(&format!("{table}?id=r1"), r#"{"id":"r2"}"#).await;
    assert_eq!(body.code(), (400, "invalid-body"), "{}", body.raw);
    let path = rest.delete(&format!("{table}/r1?id=r2"), "").await;
    assert_eq!(path.code(), (400, "invalid-parameter"), "{}", path.raw);
    let stored = rest.get(&table).await;
    assert_eq!(stored.body.get("count").and_then(Value::as_u64), Some(2));
    assert_eq!(rest.delete(&format!("{table}?id=r1"), r#"{"id":"r1"}"#).await.status, 200);
}

#[tokio::test]
async fn an_etag_is_a_condition_or_refused() {
    let rest = Rest::new();
    let table = format!("{M}/tables/screens");
    rest.post(&table, r#"{"id":"r","name":"n"}"#).await;
    let save = r#"{"table":"screens","record":{"id":"r","name":"m"}}"#;
    let path = format!("{M}/save");
    let tag = |tag: &'static str| [("if-match", tag)];
    let stale = rest.send("POST", &path, save, &tag("\"99\"")).await;
    assert_eq!(stale.status, 409, "{}", stale.raw);
    let fresh = rest.send("POST", &path, save, &tag("\"1\"")).await;
    assert_eq!(fresh.status, 200, "{}", fresh.raw);
    let batch = r#"{"verbs":[{"table":"screens","record":{"id":"r","name":"m"}}]}"#;
    let unread = rest.send("POST", &format!("{M}/batch"), batch, &tag("\"1\"")).await;
    assert_eq!(unread.code(), (400, "invalid-header"), "{}", unread.raw);
}
