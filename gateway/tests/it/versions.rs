//! Stories of versions: whatever changes a record counts on, and nothing absurd is taken.

use crate::client::{Rest, Served, at, members};

const M: &str = "/api/branches/till/modules/m";
const T: &str = "/api/branches/till/modules/m/tables/t";
const SYNC: &str = "/api/sync/till/m";
const HUGE: [&str; 4] =
    ["18446744073709551615", "9007199254740991", "1000000000000000", "99999999999999999999999"];

/// A branch with a module of these rules, whose table `t` is versioned or not.
async fn till(rules: &str, versioned: bool) -> Rest {
    let rest = Rest::new();
    let module = format!(
        r#"{{"id":"m",{rules},"schema":{{"tables":{{"t":{{"versioned":{versioned},"fields":{{
        "id":{{"type":"text","primaryKey":true}},"a":{{"type":"text"}},
        "version":{{"type":"integer"}}}}}}}}}}}}"#
    );
    let made = rest.post("/api/modules", &module).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    let made = rest.post("/api/branches", r#"{"id":"till","modules":["m"]}"#).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    rest
}

async fn strict() -> Rest {
    till(r#""validation":"strict""#, false).await
}

async fn version(rest: &Rest, key: &str) -> String {
    let read = rest.get(&format!("{T}/{key}")).await;
    at(&read.body, &["record", "version"]).to_json()
}

#[tokio::test]
async fn a_stale_writer_loses_against_a_replacement_and_a_restoration() {
    let rest = strict().await;
    rest.post(T, r#"{"id":"r"}"#).await;
    rest.patch(&format!("{T}/r"), r#"{"a":"1"}"#).await;
    rest.patch(&format!("{T}/r"), r#"{"a":"2"}"#).await;
    let snapshot = r#"{"snapshot":{"tables":{"t":[{"id":"r","a":"from till"}]}}}"#;
    assert_eq!(rest.post(SYNC, snapshot).await.status, 200);
    assert_eq!(version(&rest, "r").await, "4");
    let stale = rest.patch(&format!("{T}/r"), r#"{"a":"stale","version":1}"#).await;
    assert_eq!(stale.code(), (409, "version-conflict"), "{}", stale.raw);
    let purge = r#"{"branchId":"till","moduleId":"m","tables":["t"]}"#;
    let purged = rest.post("/api/manage/purge-live-data", purge).await;
    let entry = at(&purged.body, &["historyEntry", "id"]).as_str().unwrap().to_owned();
    rest.post(T, r#"{"id":"r","a":"anew"}"#).await;
    let back =
        format!(r#"{{"branchId":"till","moduleId":"m","entryId":"{entry}","mode":"replace"}}"#);
    let back = rest.post("/api/manage/purge-history", &back).await;
    assert_eq!(back.status, 200, "{}", back.raw);
    assert_eq!(version(&rest, "r").await, "4");
    let batch = r#"{"verbs":[{"action":"delete","table":"t","record":{"id":"r"}},
        {"action":"insert","table":"t","record":{"id":"r","a":"same"}}]}"#;
    assert_eq!(rest.post(&format!("{M}/batch"), batch).await.status, 200);
    assert_eq!(version(&rest, "r").await, "5");
}

#[tokio::test]
async fn an_unreadable_row_version_is_refused_by_table_and_key() {
    let rest = strict().await;
    for sent in ["\"abc\"", "-1", "1.5", "true", "{}"].iter().chain(&HUGE) {
        let body =
            format!(r#"{{"snapshot":{{"tables":{{"t":[{{"id":"r","version":{sent}}}]}}}}}}"#);
        let refused = rest.post(SYNC, &body).await;
        assert_eq!(refused.code(), (400, "module-event-failed"), "{sent}: {}", refused.raw);
        let named = ["code", "table", "key", "field"].map(|name| refused.detail(name).to_owned());
        assert_eq!(named, ["invalid-field", "t", "r", "version"]);
        assert_eq!(members(at(&refused.body, &["details"])), "code table key field rule value");
    }
}

#[tokio::test]
async fn an_absurd_version_is_refused_wherever_one_is_sent() {
    let next = r#""validation":"lenient","versionRule":"next""#;
    for (rules, versioned) in [(r#""validation":"strict""#, false), (next, true)] {
        let rest = till(rules, versioned).await;
        rest.post(T, r#"{"id":"r"}"#).await;
        let one = format!("{T}/r");
        for huge in HUGE {
            let record = format!(r#"{{"id":"r","a":"x","version":{huge}}}"#);
            let mutation = format!(
                r#"{{"verbs":[{{"action":"merge","table":"t","record":{{"id":"r"}},
                "expectedVersion":{huge}}}]}}"#
            );
            let save = format!(
                r#"{{"table":"t","record":{{"id":"r"}},"concurrency":{{"expectedVersion":{huge}}}}}"#
            );
            let event = format!(r#"{{"table":"t","record":{record}}}"#);
            let revision = format!(r#"{{"snapshot":{{"version":{huge},"tables":{{"t":[]}}}}}}"#);
            let new = format!(r#"{{"id":"new","version":{huge}}}"#);
            let etag = format!("\"{huge}\"");
            for (what, answer) in [
                ("insert", rest.post(T, &new).await),
                ("save", rest.put(T, &record).await),
                ("merge", rest.patch(&one, &record).await),
                ("remove", rest.delete(T, &record).await),
                ("parameter", rest.patch(&format!("{one}?version={huge}"), "{}").await),
                ("header", rest.send("PATCH", &one, "{}", &[("if-match", &etag)]).await),
                ("batch", rest.post(&format!("{M}/batch"), &mutation).await),
                ("condition", rest.post(&format!("{M}/save"), &save).await),
                ("event", rest.post(&format!("{M}/events"), &event).await),
                ("snapshot", rest.post(SYNC, &revision).await),
            ] {
                assert_eq!(answer.status, 400, "{what} {huge} {rules}: {}", answer.raw);
                assert!(answer.raw.contains("999999999999999"), "{what}: {}", answer.raw);
            }
        }
        assert_eq!(version(&rest, "r").await, "1");
    }
}

#[tokio::test]
async fn a_seed_with_an_absurd_version_is_refused_or_warned_of() {
    let rest = strict().await;
    let seeds = r#"{"branchId":"till","moduleId":"m","seeds":{"t":[{"id":"r","version":1e16}]}}"#;
    assert_eq!(rest.post("/api/seeds", seeds).await.code(), (400, "invalid-body"));
    let rest = till(r#""validation":"lenient""#, true).await;
    let kept = rest.post("/api/seeds", seeds).await;
    assert!(kept.raw.contains("1 rows of t have a version over 999999999999999"), "{}", kept.raw);
}

#[tokio::test]
async fn a_snapshots_version_may_not_leap_in_a_strict_module() {
    let rest = strict().await;
    let leap = r#"{"snapshot":{"version":1000003,"tables":{"t":[]}}}"#;
    let refused = rest.post(SYNC, leap).await;
    assert_eq!(refused.code(), (400, "module-event-failed"), "{}", refused.raw);
    assert!(refused.raw.contains("more than 1000000 over"), "{}", refused.raw);
    let step = r#"{"snapshot":{"version":1000,"tables":{"t":[]}}}"#;
    assert_eq!(rest.post(SYNC, step).await.status, 200);
}

#[tokio::test]
async fn a_word_under_a_sync_topic_with_an_absurd_version_is_refused() {
    let served = Served::new(|_| {}).await;
    let mut socket = served.enter("dar").await;
    socket
        .say(
            r#"{"type":"publish","topic":"pos:sync:dar","data":{"trans_id":"t",
            "snapshot":{"version":9007199254740991,"tables":{"tickets":[]}}}}"#,
        )
        .await;
    let frame = socket.expect("error").await;
    assert_eq!(at(&frame, &["code"]).as_str(), Some("invalid-body"), "{frame:?}");
}

#[tokio::test]
async fn a_list_that_is_being_read_goes_on_over_a_replacement() {
    for rules in [r#""validation":"strict""#, r#""validation":"lenient""#] {
        let rest = till(rules, false).await;
        let rows: Vec<String> = (0..10).map(|n| format!(r#"{{"id":"r{n}"}}"#)).collect();
        let sync = format!(r#"{{"snapshot":{{"tables":{{"t":[{}]}}}}}}"#, rows.join(","));
        for row in &rows {
            rest.post(T, row).await;
        }
        let first = rest.get(&format!("{T}?limit=3&order=desc")).await;
        let position = at(&first.body, &["cursor", "position"]).as_str().unwrap().to_owned();
        assert_eq!(rest.post(SYNC, &sync).await.status, 200);
        let more = rest.get(&format!("{T}?order=desc&afterKey=r7&afterPosition={position}")).await;
        assert_eq!(at(&more.body, &["count"]).to_json(), "7", "{rules}: {}", more.raw);
    }
}
