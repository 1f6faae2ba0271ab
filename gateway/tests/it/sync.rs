//! Stories about taking and giving whole tables, and about what is missing since.

use actors::Store as _;
use model::{Action, BranchId, CatalogueChange, FullSyncFlag, RecordMutation, Timestamp, Value};

use crate::client::{Answered, Rest, at, members};

const DELTA: &str = "/api/sync/dar/pos/delta";
const TICKETS: &str = "/api/branches/dar/modules/pos/tables/tickets";

async fn shop() -> Rest {
    let rest = Rest::with_till();
    for id in ["a", "b", "c"] {
        rest.post(TICKETS, &format!(r#"{{"id":"{id}","title":"{id}"}}"#)).await;
    }
    rest
}

fn json<'a>(answer: &'a Answered, path: &[&str]) -> std::borrow::Cow<'a, str> {
    at(&answer.body, path).to_json().into()
}

#[tokio::test]
async fn the_whole_state_is_shown_live_under_every_path() {
    let rest = shop().await;
    let whole = rest.get("/api/sync/dar/pos").await;
    assert_eq!(members(&whole.body), "branchId moduleId version updatedAt serverId snapshot");
    let snapshot = whole.body.get("snapshot").unwrap();
    assert_eq!(members(snapshot), "moduleId branchId version tables meta");
    assert_eq!(json(&whole, &["version"]), "4");
    assert_eq!(whole.header("x-mishkah-cursor"), "1.3");
    for path in ["/api/sync?branch=dar&module=pos", "/api/pos-sync/dar", "/api/sync/dar"] {
        assert_eq!(rest.get(path).await.raw, whole.raw, "{path}");
    }
    rest.post(TICKETS, r#"{"id":"d"}"#).await;
    assert_eq!(json(&rest.get("/api/sync/dar/pos").await, &["version"]), "5", "never stale");
    let nobody = rest.get("/api/sync").await;
    assert_eq!((nobody.text("branchId"), nobody.text("moduleId")), ("default", "pos"));
    assert!(!rest.get("/api/branches").await.raw.contains("default"), "looking makes no branch");
    assert_eq!(rest.put("/api/sync/dar/pos", "{}").await.code(), (405, "method-not-allowed"));
    assert_eq!(rest.get(DELTA).await.code(), (405, "method-not-allowed"));
}

#[tokio::test]
async fn a_module_that_does_not_exist_is_not_found() {
    let rest = Rest::with_till();
    for path in ["/api/sync/dar/zzz", "/api/sync?module=zzz"] {
        assert_eq!(rest.get(path).await.code(), (404, "module-not-found"), "{path}");
    }
    for path in ["/api/sync/dar/zzz", "/api/sync/dar/zzz/delta", "/api/sync/delta?module=zzz"] {
        assert_eq!(rest.post(path, "{}").await.code(), (404, "module-not-found"), "{path}");
    }
    assert_eq!(rest.get("/api/sync/a%2Fb/pos").await.code(), (400, "invalid-name"));
}

#[tokio::test]
async fn the_paths_of_another_sync_system_are_no_branches() {
    let rest = Rest::with_till();
    for (method, path) in [
        ("GET", "/api/sync/stats"),
        ("POST", "/api/sync/batch-push"),
        ("GET", "/api/sync/pull-changes?since=2025-01-01"),
        ("POST", "/api/sync/resolve-conflict"),
        ("GET", "/api/sync/%73tats"),
    ] {
        let answer = rest.send(method, path, "{}", &[]).await;
        assert_eq!(answer.code(), (404, "not-supported"), "{method} {path}");
    }
    for path in ["/api/pos-sync/stats", "/api/sync/stats/pos", "/api/sync?branch=batch-push"] {
        assert_eq!(rest.get(path).await.status, 200, "{path}: there it is a branch's name");
    }
    for path in ["/api/sync/stats/pos/delta", "/api/sync/delta?branch=stats"] {
        assert_eq!(rest.post(path, "{}").await.text("branchId"), "stats", "{path}");
    }
}

#[tokio::test]
async fn a_delta_has_the_rows_after_each_cursor() {
    let rest = shop().await;
    let body = r#"{"version":3,"lastTableIds":{"tickets":"a","thing":{"id":"ghost"}}}"#;
    let delta = rest.post(DELTA, body).await;
    assert_eq!(
        members(&delta.body),
        "branchId moduleId version updatedAt serverId snapshotMarker requiresFullSync \
         cursorMisses lastTableIds lastTableRefs deltas stats clientVersion cursor"
    );
    assert_eq!(delta.status, 200);
    let today = delta.text("snapshotMarker").to_owned();
    assert_eq!(json(&delta, &["requiresFullSync"]), "false");
    assert_eq!(json(&delta, &["lastTableIds"]), r#"{"tickets":"c","thing":null}"#);
    assert_eq!(
        json(&delta, &["lastTableRefs"]),
        r#"{"tickets":{"key":"c","id":"c","primaryKey":{"id":"c"}},"thing":null}"#
    );
    assert_eq!(
        json(&delta, &["deltas"]),
        r#"{"tickets":[{"id":"b","title":"b","n":null},{"id":"c","title":"c","n":null}],"thing":[]}"#
    );
    assert_eq!(
        json(&delta, &["stats"]),
        concat!(
            r#"{"tickets":{"total":3,"returned":2,"cursorMatched":true},"#,
            r#""thing":{"total":0,"returned":0,"cursorMatched":false}}"#,
        )
    );
    assert_eq!(json(&delta, &["clientVersion"]), "3");
    assert_eq!(json(&delta, &["cursor"]), r#"{"epoch":1,"sequence":3}"#);

    let missed = rest.post(DELTA, r#"{"lastTableIds":{"tickets":"ghost"}}"#).await;
    assert_eq!(json(&missed, &["requiresFullSync"]), "true");
    assert_eq!(json(&missed, &["cursorMisses"]), r#"["tickets"]"#);
    assert_eq!(at(&missed.body, &["deltas", "tickets"]).as_array().unwrap().len(), 3);

    for (marker, required) in [("2020-01-01", "true"), (today.as_str(), "false")] {
        let body = format!(r#"{{"tables":["tickets"],"dayMarker":"{marker}"}}"#);
        let delta = rest.post(DELTA, &body).await;
        assert_eq!(json(&delta, &["requiresFullSync"]), required);
        assert_eq!(delta.text("clientSnapshotMarker"), marker);
    }
    let all = rest.post("/api/pos-sync/dar/delta", "").await;
    assert_eq!(at(&all.body, &["deltas"]).as_object().unwrap().len(), 7, "every table");
    let documented = rest.post(DELTA, r#"{"tables":{"tickets":{"lastId":"b"},"thing":{}}}"#).await;
    let shown = at(&documented.body, &["deltas"]).as_object().unwrap().len();
    assert_eq!(shown, 7, "as ever, it chooses no tables");
    assert_eq!(at(&documented.body, &["deltas", "tickets"]).as_array().unwrap().len(), 1);
    let composite = "/api/branches/dar/modules/pos/tables/thing";
    rest.post(composite, r#"{"a":"x","b":2}"#).await;
    let thing = rest.post(DELTA, r#"{"tables":["thing"]}"#).await;
    assert_eq!(
        json(&thing, &["lastTableRefs", "thing"]),
        r#"{"key":"x::2","primaryKey":{"a":"x","b":"2"}}"#
    );
    assert_eq!(rest.post(DELTA, r#"{"tables":["zz"]}"#).await.code(), (404, "table-not-found"));
    for bad in [r#"{"tables":"x"}"#, r#"{"lastTableIds":5}"#, r#"{"resume":{"epoch":1}}"#, "[]"] {
        assert_eq!(rest.post(DELTA, bad).await.code(), (400, "invalid-body"), "{bad}");
    }
}

#[tokio::test]
async fn a_delta_after_a_cursor_has_every_later_change() {
    let rest = shop().await;
    rest.patch(TICKETS, r#"{"id":"a","title":"new"}"#).await;
    rest.delete(&format!("{TICKETS}?id=b"), "").await;
    let delta = rest.post(DELTA, r#"{"cursor":{"epoch":1,"sequence":3}}"#).await;
    assert!(members(&delta.body).ends_with("stats cursor events more"), "{}", delta.raw);
    assert_eq!(json(&delta, &["deltas"]), "{}", "the log tells everything");
    assert_eq!(json(&delta, &["cursor"]), r#"{"epoch":1,"sequence":5}"#);
    let events = at(&delta.body, &["events"]).as_array().unwrap();
    assert_eq!(
        members(&events[0]),
        "action eventId sequence version timestamp table recordRef record"
    );
    let shown = |event: &Value| {
        let member = |name| at(event, &[name]).to_json();
        format!("{} {} {}", member("sequence"), member("action"), member("record"))
    };
    assert_eq!(
        events.iter().map(shown).collect::<Vec<_>>(),
        [r#"4 "module:merge" {"id":"a","title":"new","n":null}"#, r#"5 "module:delete" null"#]
    );
    let other = r#"{"resume":{"epoch":1,"sequence":3},"tables":["thing"]}"#;
    let other = rest.post(DELTA, other).await;
    assert_eq!((json(&other, &["events"]), json(&other, &["more"])), ("[]".into(), "false".into()));

    for (cursor, reason) in [
        (r#"{"epoch":2,"sequence":3}"#, "epoch-changed"),
        (r#"{"epoch":1,"sequence":99}"#, "cursor-ahead"),
    ] {
        let answer = rest.post(DELTA, &format!(r#"{{"resume":{cursor}}}"#)).await;
        assert!(members(&answer.body).ends_with("cursor resync reason"), "{}", answer.raw);
        assert_eq!((json(&answer, &["resync"]), answer.text("reason")), ("true".into(), reason));
        assert_eq!(json(&answer, &["requiresFullSync"]), "true");
    }
}

#[tokio::test]
async fn a_client_far_behind_comes_to_the_end_step_by_step() {
    let rest = Rest::with_till();
    for n in 0..1_003_u64 {
        let record = [("id", n.to_string())].into_iter().collect();
        rest.fake.write("dar", "pos", RecordMutation::new(Action::Insert, "tickets", record));
    }
    for (after, shown, reached, more) in [(0, 1_000, 1_000, "true"), (1_000, 3, 1_003, "false")] {
        let body = format!(r#"{{"resume":{{"epoch":1,"sequence":{after}}}}}"#);
        let step = rest.post(DELTA, &body).await;
        assert_eq!(at(&step.body, &["events"]).as_array().unwrap().len(), shown);
        assert_eq!(at(&step.body, &["cursor", "sequence"]).as_u64(), Some(reached));
        assert_eq!(json(&step, &["more"]), more);
    }
}

#[tokio::test]
async fn a_full_sync_flag_is_shown_while_it_is_set() {
    let rest = shop().await;
    let flag = |enabled| FullSyncFlag {
        id: "fsync-1".into(),
        branch: BranchId::parse("dar").unwrap(),
        module: "*".into(),
        enabled,
        reason: None,
        requested_by: None,
        updated_at: Timestamp(0),
        meta: None,
        cleared_by: None,
    };
    for enabled in [true, false] {
        let change = CatalogueChange::FullSync(vec![flag(enabled)]);
        rest.fake.change(format!("flag-{enabled}"), change).await.unwrap();
        let delta = rest.post(DELTA, r#"{"tables":["tickets"]}"#).await;
        assert_eq!(json(&delta, &["requiresFullSync"]), enabled.to_string());
        let other = rest.post("/api/sync/two/pos/delta", "{}").await;
        assert_eq!(json(&other, &["requiresFullSync"]), "false");
    }
}

#[tokio::test]
async fn without_a_snapshot_nothing_changes() {
    let rest = shop().await;
    let same = rest.post("/api/sync/dar/pos", "{}").await;
    assert_eq!(members(&same.body), "status branchId moduleId version updatedAt");
    assert_eq!((same.status, json(&same, &["version"])), (200, "4".into()));
    let foo = rest.post("/api/sync/dar/pos", r#"{"snapshot":{"foo":1}}"#).await;
    assert_eq!(foo.code(), (409, "insert-only-violation"));
    assert_eq!(foo.text("message"), "Incoming snapshot violates insert-only policy.");
    assert_eq!(
        json(&foo, &["details"]),
        concat!(
            r#"{"ok":false,"reason":"missing-table","tableName":"tickets","currentCount":3,"#,
            r#""branchId":"dar","moduleId":"pos"}"#,
        )
    );
    let empty = rest.post("/api/sync/two/pos", r#"{"snapshot":{"foo":1}}"#).await;
    assert_eq!(empty.status, 200, "there is no table to miss");
    for bad in [
        r#"{"snapshot":5}"#,
        r#"{"snapshot":{"tables":[]}}"#,
        r#"{"snapshot":{"tables":{},"version":"x"}}"#,
    ] {
        assert_eq!(
            rest.post("/api/sync/dar/pos", bad).await.code(),
            (400, "invalid-body"),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_body_of_whole_tables_may_be_large() {
    let rest = shop().await;
    let large = |bytes| format!(r#"{{"padding":"{}"}}"#, "x".repeat(bytes));
    let taken = rest.post("/api/sync/dar/pos", &large(2 * 1024 * 1024)).await;
    assert_eq!(taken.status, 200);
    let refused = rest.post(DELTA, &large(32 * 1024 * 1024)).await;
    assert_eq!(refused.code(), (413, "body-too-large"));
}

#[tokio::test]
async fn a_snapshot_replaces_the_tables_it_names_once() {
    let rest = shop().await;
    let path = "/api/sync/dar/pos";
    let body = r#"{"snapshot":{"version":500,"tables":{"tickets":[{"id":"z","title":"Q"}]}},
        "action":"push","mutationId":"mm"}"#;
    let taken = rest.post(path, body).await;
    assert_eq!(members(&taken.body), "status branchId moduleId version updatedAt");
    assert_eq!((taken.status, json(&taken, &["version"])), (200, "500".into()));
    assert_eq!(rest.post(path, body).await.raw, taken.raw, "the same mutation is done once");
    let whole = rest.get(path).await;
    assert_eq!(json(&whole, &["version"]), "500");
    assert_eq!(at(&whole.body, &["snapshot", "tables", "tickets"]).as_array().unwrap().len(), 1);
    let since = rest.post(DELTA, r#"{"resume":{"epoch":1,"sequence":3}}"#).await;
    let events = at(&since.body, &["events"]).as_array().unwrap();
    assert!(members(&events[0]).ends_with("timestamp records"), "{}", since.raw);

    let refused = |reason: &str, more: &str| {
        format!(r#"{{"ok":false,"reason":"{reason}",{more},"branchId":"dar","moduleId":"pos"}}"#)
    };
    for (snapshot, details) in [
        (
            r#"{"version":2,"tables":{"tickets":[]}}"#,
            refused("version-regression", r#""currentVersion":500,"incomingVersion":2"#),
        ),
        (
            r#"{"version":900,"tables":{"tickets":[{"id":"a"},{"id":"a"}]}}"#,
            refused("duplicate-primary-key", r#""tableName":"tickets","key":"a""#),
        ),
        (
            r#"{"version":900,"tables":{"tickets":[{"x":1}]}}"#,
            refused("missing-primary-key", r#""tableName":"tickets","index":0"#),
        ),
    ] {
        let answer = rest.post(path, &format!(r#"{{"snapshot":{snapshot}}}"#)).await;
        assert_eq!(answer.code(), (409, "insert-only-violation"), "{snapshot}");
        assert_eq!(json(&answer, &["details"]), details);
    }
}
