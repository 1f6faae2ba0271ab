//! Names: every branch name that the rules allow works in every path, parameter and body.

use model::Value;

use crate::client::{Answered, Rest, Served, at};

/// Names that mean something else somewhere, or that have to be escaped.
const NAMES: [&str; 19] = [
    "cairo::zamalek",
    "a:",
    ":a",
    "::",
    "dar:test-pad",
    "api",
    "modules",
    "branches",
    "stats",
    "batch-push",
    "delta",
    "sync-table",
    "table",
    "50% off?",
    "#1 & co",
    "..%2f",
    " two words ",
    "دار السلام",
    "🏪",
];

fn escaped(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn every_branch_name_works_in_paths_parameters_and_bodies() {
    let rest = Rest::with_till();
    for name in NAMES {
        let branch = escaped(name);
        let base = format!("/api/branches/{branch}/modules/pos");
        let record =
            rest.post(&format!("{base}/tables/tickets"), r#"{"record":{"id":"t1"}}"#).await;
        assert_eq!((record.status, record.text("branchId")), (201, name), "{}", record.raw);
        for path in [
            format!("/api/branches/{branch}"),
            format!("/api/branch/{branch}"),
            format!("/api/state?branch={branch}"),
            base.clone(),
            format!("{base}/tables/tickets"),
            format!("{base}/events"),
            format!("{base}/events?after=0"),
            format!("{base}/orders"),
            format!("/api/sync?branch={branch}&module=pos"),
            format!("/api/sync/{branch}/pos"),
            format!("/api/pos-sync/{branch}"),
            format!("/api/schema?branch={branch}"),
            format!("/api/manage/full-sync?branch={branch}"),
            format!("/api/manage/purge-history?branch={branch}&module=pos"),
        ] {
            let answer = rest.get(&path).await;
            let shown = answer.body.get("branchId").and_then(Value::as_str);
            assert_eq!((answer.status, shown), (200, Some(name)), "{path}: {}", answer.raw);
        }
        let quoted = Value::from(name).to_json();
        let query = format!(r#"{{"branchId":{quoted},"moduleId":"pos","table":"tickets"}}"#);
        let found = rest.post("/api/query/module", &query).await;
        assert_eq!(at(&found.body, &["rows"]).as_array().map(<[_]>::len), Some(1), "{}", found.raw);
        let delta = rest.post(&format!("/api/sync/{branch}/pos/delta"), "{}").await;
        assert_eq!(delta.text("branchId"), name);
    }
}

#[tokio::test]
async fn every_branch_name_works_in_topics() {
    let served = Served::new(|_| {}).await;
    for name in NAMES {
        let quoted = |topic: &str| Value::from(topic).to_json();
        let mut board = served.open("/ws").await;
        let mut forger = served.open("/ws").await;
        let topic = format!("sync-table::{name}::pos::tickets");
        board.say(&format!(r#"{{"type":"subscribe","topic":{}}}"#, quoted(&topic))).await;
        board.expect("ack").await;
        let forged = r#"{"type":"table:update","forged":true}"#;
        let post = format!(r#"{{"type":"publish","topic":{},"data":{forged}}}"#, quoted(&topic));
        forger.say(&post).await;
        let refused = forger.expect("error").await;
        assert_eq!(at(&refused, &["code"]).as_str(), Some("topic-not-writable"), "{name}");
        let id = Value::from("t1");
        let record = [("id", id)].into_iter().collect();
        let mutation = model::RecordMutation::new(model::Action::Insert, "tickets", record);
        served.fake.write(name, "pos", mutation);
        let frame = board.expect("publish").await;
        assert_eq!(at(&frame, &["data", "snapshot", "branchId"]).as_str(), Some(name));
    }
}

#[tokio::test]
async fn a_field_named_record_or_data_is_written_as_a_field() {
    let rest = Rest::new();
    let schema = r#"{"id":"vinyl","schema":{"tables":{"albums":{"fields":{"id":{"type":"text"},
        "record":{"type":"json","nullable":true},"data":{"type":"text","nullable":true}}}}}}"#;
    assert_eq!(rest.post("/api/modules", schema).await.status, 201);
    assert_eq!(rest.post("/api/branches/dar/modules", r#"{"id":"vinyl"}"#).await.status, 200);
    let path = "/api/branches/dar/modules/vinyl/tables/albums";
    let stored = |answer: &Answered| answer.body.get("record").unwrap().to_json();
    for (sent, held) in [
        (
            r#"{"id":"1","record":{"side":"A"}}"#,
            r#"{"id":"1","record":{"side":"A"},"data":null,"version":1}"#,
        ),
        (r#"{"id":"2","record":7}"#, r#"{"id":"2","record":7,"data":null,"version":1}"#),
        (r#"{"id":"3","data":"x"}"#, r#"{"id":"3","record":null,"data":"x","version":1}"#),
        (
            r#"{"record":{"id":"4","record":8},"meta":{"a":1},"userId":"u"}"#,
            r#"{"id":"4","record":8,"data":null,"version":1}"#,
        ),
    ] {
        let made = rest.post(path, sent).await;
        assert_eq!((made.status, stored(&made).as_str()), (201, held), "{sent}: {}", made.raw);
    }
    let slip = r#"{"record":{"id":"5"},"verson":3}"#;
    assert_eq!(rest.post(path, slip).await.code(), (400, "invalid-body"));
    let slip = rest.delete(&format!("{path}?id=1&verson=7"), "").await;
    assert_eq!(slip.code(), (400, "invalid-parameter"));
}

#[tokio::test]
async fn a_version_is_checked_wherever_a_request_names_it() {
    let rest = Rest::new();
    let path = "/api/branches/two/modules/kds/tables/screens";
    assert_eq!(rest.post(path, r#"{"id":"s","name":"a"}"#).await.status, 201);
    let change = r#"{"id":"s","name":"b"}"#;
    let stale = [("if-match", "\"7\"")];
    let refused = rest.send("PATCH", path, change, &stale).await;
    assert_eq!(refused.code(), (409, "version-conflict"));
    let refused = rest.patch(&format!("{path}?version=7"), change).await;
    assert_eq!(refused.code(), (409, "version-conflict"));
    let refused = rest.send("DELETE", &format!("{path}?id=s"), "", &stale).await;
    assert_eq!(refused.code(), (409, "version-conflict"));
    let current = [("if-match", "\"1\"")];
    assert_eq!(rest.send("PATCH", path, change, &current).await.status, 200);
    let odd = rest.send("PATCH", path, change, &[("if-match", "two")]).await;
    assert_eq!(odd.code(), (400, "invalid-header"));
    let two = r#"{"id":"s","name":"c","version":1}"#;
    assert_eq!(rest.send("PATCH", path, two, &[("if-match", "\"2\"")]).await.status, 400);
    assert_eq!(rest.patch(&format!("{path}?verson=2"), change).await.status, 400);
    for none in [r#"{"id":"s","name":"d","version":0}"#, r#"{"id":"s","name":"d","version":"0"}"#] {
        assert_eq!(rest.patch(path, none).await.status, 400, "{none}");
    }
    for none in ["version=0", "version="] {
        assert_eq!(rest.delete(&format!("{path}?id=s&{none}"), "").await.status, 400, "{none}");
    }
    assert_eq!(rest.send("POST", path, r#"{"id":"u","name":"a"}"#, &current).await.status, 400);
    // Where clients send the version their change makes, an etag is still the one that was read.
    let next = r#"{"id":"nexts","versionRule":"next","schema":{"tables":{"t":{"fields":{
        "id":{"type":"text"},"n":{"type":"integer","nullable":true}}}}}}"#;
    assert_eq!(rest.post("/api/modules", next).await.status, 201);
    assert_eq!(rest.post("/api/branches/two/modules", r#"{"id":"nexts"}"#).await.status, 200);
    let nexts = "/api/branches/two/modules/nexts/tables/t";
    assert_eq!(rest.post(nexts, r#"{"id":"1"}"#).await.status, 201);
    let first = [("if-match", "\"1\"")];
    let changed = rest.send("PATCH", nexts, r#"{"id":"1","n":5}"#, &first).await;
    assert_eq!(changed.status, 200, "{}", changed.raw);
    for (method, target, body) in [
        ("PATCH", nexts.to_owned(), r#"{"id":"1","n":6}"#),
        ("DELETE", format!("{nexts}?id=1"), ""),
    ] {
        let stale = rest.send(method, &target, body, &first).await;
        assert_eq!(stale.code(), (409, "version-conflict"), "{method}");
    }
    let second = [("if-match", "\"2\"")];
    assert_eq!(rest.send("DELETE", &format!("{nexts}?id=1"), "", &second).await.status, 200);
    let lenient = "/api/branches/dar/modules/pos/tables/tickets";
    assert_eq!(rest.post(lenient, r#"{"id":"t"}"#).await.status, 201);
    let unchecked = rest.send("PATCH", lenient, r#"{"id":"t","title":"x"}"#, &current).await;
    assert_eq!(unchecked.code(), (400, "invalid-parameter"), "nothing is ignored silently");
}

#[tokio::test]
async fn a_slip_in_what_destroys_destroys_nothing() {
    let rest = Rest::new();
    for (path, body) in [
        ("/api/manage/purge-live-data", r#"{"branchId":"dar","tabels":["tickets"]}"#),
        ("/api/manage/daily-reset", r#"{"branchId":"dar","modlues":["pos"]}"#),
        (
            "/api/branches/two/modules/kds/save",
            r#"{"table":"screens","record":{"id":"s"},"concurrency":{"expectedVerison":9}}"#,
        ),
    ] {
        let refused = rest.post(path, body).await;
        assert_eq!(refused.code(), (400, "invalid-body"), "{path}: {}", refused.raw);
        assert!(refused.text("message").contains("known are"), "{}", refused.raw);
    }
}

#[tokio::test]
async fn a_strict_module_passes_over_no_table_that_is_sent() {
    let rest = Rest::new();
    let unknown = r#"{"snapshot":{"tables":{"scrns":[{"id":"s","name":"a"}]}}}"#;
    assert_eq!(rest.post("/api/sync/two/kds", unknown).await.code(), (404, "table-not-found"));
    let bare = r#"{"tables":{"screens":[{"id":"s","name":"a"}]}}"#;
    let refused = rest.post("/api/sync/two/kds", bare).await;
    assert_eq!(refused.code(), (400, "invalid-body"));
    assert!(refused.text("message").contains("M/batch"), "{}", refused.raw);
}
