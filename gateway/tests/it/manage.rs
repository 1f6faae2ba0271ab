//! Stories of what an operator does to whole modules.

use model::Value;

use crate::client::{Answered, Rest, at, members};

const M: &str = "/api/branches/dar/modules/pos";
const FLAGS: &str = "/api/manage/full-sync";
const PURGE: &str = "/api/manage/purge-live-data";
const HISTORY: &str = "/api/manage/purge-history";

fn list<'a>(answer: &'a Answered, member: &str) -> &'a [Value] {
    at(&answer.body, &[member]).as_array().unwrap_or_else(|| panic!("{}", answer.raw))
}

/// A shop with two orders and a ticket.
async fn shop() -> Rest {
    let rest = Rest::new();
    for id in ["o-1", "o-2"] {
        let body = format!(r#"{{"id":"{id}","shiftId":"s"}}"#);
        rest.post(&format!("{M}/tables/order_header"), &body).await;
    }
    rest.post(&format!("{M}/tables/tickets"), r#"{"id":"t"}"#).await;
    rest
}

async fn rows(rest: &Rest, table: &str) -> Option<u64> {
    at(&rest.get(&format!("{M}/tables/{table}")).await.body, &["count"]).as_u64()
}

#[tokio::test]
async fn what_is_not_managed_is_not_there() {
    let rest = Rest::new();
    for path in ["/api/manage/zzz", "/api/manage", "/api/manage/full-sync/deeper"] {
        let nothing = rest.get(path).await;
        assert_eq!(nothing.code(), (404, "management-endpoint-not-found"), "{path}");
        assert_eq!(nothing.text("path"), path);
    }
    assert_eq!(rest.put(FLAGS, "{}").await.code(), (405, "method-not-allowed"));
    for path in [PURGE, "/api/manage/daily-reset", "/api/manage/reset", "/api/manage/reset-live"] {
        assert_eq!(rest.get(path).await.code(), (405, "method-not-allowed"), "{path}");
        assert_eq!(rest.post(path, "").await.code(), (400, "missing-branch-id"), "{path}");
    }
    assert_eq!(rest.put(HISTORY, "{}").await.code(), (405, "method-not-allowed"));
    assert_eq!(rest.get(HISTORY).await.code(), (400, "missing-branch-id"));
    let other = rest.post(PURGE, r#"{"branchId":"dar","moduleId":"kds"}"#).await;
    assert_eq!(other.code(), (404, "module-not-found"));
}

#[tokio::test]
async fn flags_are_set_listed_and_cleared() {
    let rest = Rest::new();
    assert_eq!(rest.get(FLAGS).await.raw, r#"{"branchId":null,"moduleId":null,"flags":[]}"#);
    for empty in ["", "{}"] {
        assert_eq!(rest.post(FLAGS, empty).await.code(), (400, "missing-branch-id"));
        assert_eq!(rest.delete(FLAGS, empty).await.code(), (400, "missing-branch-id"));
    }
    let body = r#"{"branchId":"dar","modules":["pos","kds"],"reason":"why","requestedBy":"me",
        "meta":{"z":1}}"#;
    let set = rest.post(FLAGS, body).await;
    assert_eq!((set.status, members(&set.body)), (200, "branchId flags enabled".into()));
    let flag = &list(&set, "flags")[0];
    assert_eq!(
        members(flag),
        "id branchId moduleId enabled reason requestedBy updatedAt meta clearedBy"
    );
    let id = at(flag, &["id"]).as_str().unwrap().to_owned();
    assert!(id.starts_with("fsync-"));
    assert_eq!(at(flag, &["meta"]).to_json(), r#"{"z":1}"#);
    assert_eq!(list(&set, "flags").len(), 2);
    rest.patch(FLAGS, r#"{"branch":"two"}"#).await;
    let all = rest.get(FLAGS).await;
    assert_eq!(list(&all, "flags").len(), 3);
    let two = rest.get(&format!("{FLAGS}?branch=two&module=pos")).await;
    assert_eq!(two.text("moduleId"), "pos");
    assert_eq!(at(&list(&two, "flags")[0], &["moduleId"]).as_str(), Some("*"));

    let cleared = rest.delete(&format!("{FLAGS}?branch=dar&module=pos&requestedBy=you"), "").await;
    let flag = &list(&cleared, "flags")[0];
    assert_eq!(at(flag, &["id"]).as_str(), Some(id.as_str()), "the same flag");
    assert_eq!(at(flag, &["enabled"]).as_bool(), Some(false));
    assert_eq!(at(flag, &["requestedBy"]).as_str(), Some("me"));
    assert_eq!(at(flag, &["clearedBy"]).as_str(), Some("you"));
    assert_eq!(at(&cleared.body, &["enabled"]).as_bool(), Some(false));
    let off = r#"{"branchId":"dar","module":"kds","enabled":false}"#;
    assert_eq!(at(&rest.post(FLAGS, off).await.body, &["enabled"]).as_bool(), Some(false));
    let none = rest.delete(FLAGS, r#"{"branchId":"dar","module":"zzz"}"#).await;
    assert_eq!(none.raw, r#"{"branchId":"dar","flags":[],"enabled":false}"#);
}

#[tokio::test]
async fn a_flag_under_the_same_key_is_set_once() {
    let rest = Rest::new();
    let key = [("idempotency-key", "k")];
    let first = rest.send("POST", FLAGS, r#"{"branchId":"dar"}"#, &key).await;
    assert_eq!(first.raw, rest.send("POST", FLAGS, r#"{"branchId":"dar"}"#, &key).await.raw);
    assert_ne!(first.raw, rest.post(FLAGS, r#"{"branchId":"dar"}"#).await.raw);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let rest = Rest::new();
    let long = format!(r#"{{"branchId":"dar","reason":"{}"}}"#, "x".repeat(1025));
    let large = format!(r#"{{"branchId":"dar","meta":"{}"}}"#, "x".repeat(4096));
    let many: Vec<String> = (0..257).map(|n| format!(r#""m{n}""#)).collect();
    let many = format!(r#"{{"branchId":"dar","modules":[{}]}}"#, many.join(","));
    for (path, body) in [
        (FLAGS, long.as_str()),
        (FLAGS, large.as_str()),
        (FLAGS, many.as_str()),
        (FLAGS, r#"{"branchId":"dar","modules":5}"#),
        (FLAGS, r#"{"branchId":"dar","enabled":"no"}"#),
        (PURGE, r#"{"branchId":"dar","tables":[1]}"#),
        (PURGE, r#"{"branchId":"dar","broadcast":1}"#),
        (HISTORY, r#"{"branchId":"dar","entryId":"x","mode":"maybe"}"#),
        ("/api/manage/daily-reset", r#"{"branchId":"dar","flagFullSync":"x"}"#),
    ] {
        assert_eq!(rest.post(path, body).await.code(), (400, "invalid-body"), "{path}");
    }
    let name = rest.post(FLAGS, r#"{"branchId":"dar","module":"POS"}"#).await;
    assert_eq!(name.code(), (400, "invalid-name"));
    let none = rest.post(PURGE, r#"{"branchId":"dar","tables":[]}"#).await;
    assert_eq!(none.code(), (400, "no-tables-resolved"));
    assert_eq!(none.text("message"), "No tables matched the purge criteria.");
    let entry = rest.post(HISTORY, r#"{"branchId":"dar"}"#).await;
    assert_eq!(entry.code(), (400, "missing-entry-id"));
    let modules =
        rest.post("/api/manage/daily-reset", r#"{"branchId":"dar","modules":"zz"}"#).await;
    assert_eq!(modules.code(), (404, "modules-not-found"));
}

#[tokio::test]
async fn tables_are_emptied_into_the_history() {
    let rest = shop().await;
    let body = r#"{"branchId":"dar","requestedBy":"me","reason":"test"}"#;
    let purged = rest.post(PURGE, body).await;
    assert_eq!(purged.status, 200, "{}", purged.raw);
    assert_eq!(
        members(&purged.body),
        "status branchId moduleId requestedBy reason resetEvents broadcast version totalRemoved \
         changed tables eventMeta historyEntry"
    );
    assert_eq!(at(&purged.body, &["totalRemoved"]).as_u64(), Some(2));
    let shown: Vec<String> = list(&purged, "tables").iter().map(Value::to_json).collect();
    let skipped = |table| {
        format!(r#"{{"table":"{table}","status":"skipped","reason":"table-not-registered"}}"#)
    };
    assert_eq!(
        shown,
        [
            r#"{"table":"order_header","status":"cleared","removed":2}"#.to_owned(),
            skipped("order_line"),
            skipped("order_payment"),
            skipped("pos_shift"),
        ]
    );
    let meta = at(&purged.body, &["eventMeta"]);
    assert_eq!(
        members(meta),
        "lastEventId lastEventAt lastAckId totalEvents tableCursors lastServedTableIds \
         lastClientTableIds lastSnapshotMarker lastClientSnapshotMarker lastClientSyncAt \
         liveCreatedAt updatedAt purgeState"
    );
    assert_eq!(at(meta, &["totalEvents"]).as_u64(), Some(4), "the log goes on");
    assert_eq!(members(at(meta, &["purgeState"])), "at reason requestedBy tables");
    let cursors = members(at(meta, &["tableCursors"]));
    assert_eq!(cursors, "tickets", "the tables emptied have no last record");
    let entry = at(&purged.body, &["historyEntry"]);
    assert_eq!(
        members(entry),
        "id branchId moduleId createdAt reason requestedBy totalRecords tables"
    );
    assert_eq!(rows(&rest, "order_header").await, Some(0));
    assert_eq!(rows(&rest, "tickets").await, Some(1));

    let again = rest.post(PURGE, r#"{"branchId":"dar","tables":"orders; tickets, zz"}"#).await;
    let statuses: Vec<_> =
        list(&again, "tables").iter().map(|table| at(table, &["status"]).to_json()).collect();
    assert_eq!(statuses, [r#""empty""#, r#""cleared""#, r#""skipped""#]);
    let empty = rest.post(PURGE, r#"{"branchId":"dar","tables":["*"],"resetEvents":false}"#).await;
    assert_eq!(at(&empty.body, &["changed"]).as_bool(), Some(false));
    assert_eq!(at(&empty.body, &["version"]), at(&again.body, &["version"]));
    assert!(at(&empty.body, &["historyEntry"]).is_null());
    assert!(at(&empty.body, &["eventMeta"]).is_null());
}

#[tokio::test]
async fn what_was_purged_is_listed_shown_and_comes_back() {
    let rest = shop().await;
    let purged = rest.post(PURGE, r#"{"branchId":"dar","requestedBy":"me"}"#).await;
    let id = at(&purged.body, &["historyEntry", "id"]).as_str().unwrap().to_owned();
    let all = rest.get(&format!("{HISTORY}?branch=dar&module=pos")).await;
    assert_eq!(members(&all.body), "branchId moduleId entries");
    assert_eq!(list(&all, "entries")[0], *at(&purged.body, &["historyEntry"]));
    let count = at(&list(&all, "entries")[0], &["tables"]).as_array().unwrap()[0].clone();
    assert_eq!(members(&count), "name count sample");
    assert_eq!(
        at(&count, &["sample"]).as_array().unwrap()[0].to_json(),
        r#"{"table":"order_header","key":"o-1","primaryKey":{"id":"o-1"},"id":"o-1"}"#
    );
    let one = rest.get(&format!("{HISTORY}?branch=dar&entryId={id}")).await;
    assert_eq!(members(&one.body), "branchId moduleId entryId entry summary");
    assert_eq!(
        members(at(&one.body, &["entry"])),
        "id type branchId moduleId createdAt reason requestedBy clearedTables originalVersion \
         totalRecords tables summary"
    );
    let table = &at(&one.body, &["entry", "tables"]).as_array().unwrap()[0];
    assert_eq!(members(table), "name count records primaryKeyFields sample");
    let none = rest.get(&format!("{HISTORY}?branch=dar&entryId=zzz")).await;
    assert_eq!((none.code(), none.text("entryId")), ((404, "history-entry-not-found"), "zzz"));

    let body = format!(r#"{{"branchId":"dar","entryId":"{id}"}}"#);
    let back = rest.post(HISTORY, &body).await;
    assert_eq!(
        members(&back.body),
        "branchId moduleId entryId restored totalRestored changed historyEntry mode"
    );
    assert_eq!(at(&back.body, &["totalRestored"]).as_u64(), Some(2));
    assert_eq!(
        list(&back, "restored")[0].to_json(),
        r#"{"table":"order_header","mode":"append","restored":2,"duplicates":0,"skipped":0}"#
    );
    assert_eq!(rows(&rest, "order_header").await, Some(2));
    let again = rest.post(HISTORY, &body).await;
    assert_eq!(at(&again.body, &["changed"]).as_bool(), Some(false));
    let replace = format!(r#"{{"branchId":"dar","id":"{id}","mode":"replace"}}"#);
    assert_eq!(rest.post(HISTORY, &replace).await.text("mode"), "replace");
    let none = rest.post(HISTORY, r#"{"branchId":"dar","entryId":"zzz"}"#).await;
    assert_eq!((none.code(), none.text("entryId")), ((404, "history-restore-failed"), "zzz"));
    assert_eq!(none.text("message"), "History entry not found");
}

#[tokio::test]
async fn a_daily_reset_flags_clients_to_begin_again() {
    let rest = shop().await;
    let body = r#"{"branchId":"dar","requestedBy":"me"}"#;
    let key = [("idempotency-key", "night")];
    let done = rest.send("POST", "/api/manage/daily-reset", body, &key).await;
    assert_eq!(done.status, 200, "{}", done.raw);
    assert_eq!(members(&done.body), "branchId requestedBy reason results");
    let result = &list(&done, "results")[0];
    assert_eq!(members(result), "moduleId version resetAt status historyEntry fullSyncFlag");
    assert_eq!(at(result, &["fullSyncFlag", "reason"]).as_str(), Some("daily-reset"));
    assert_eq!(at(result, &["historyEntry", "totalRecords"]).as_u64(), Some(4));
    assert_eq!(rest.get(&format!("{M}/meta/counter")).await.raw, "1", "the seed is there");
    let again = rest.send("POST", "/api/manage/daily-reset", body, &key).await;
    assert_eq!(done.raw, again.raw);
    let quiet = r#"{"branchId":"two","modules":"pos, zz","flagFullSync":false}"#;
    let quiet = rest.post("/api/manage/reset", quiet).await;
    assert_eq!(
        members(&list(&quiet, "results")[0]),
        "moduleId version resetAt status historyEntry"
    );
    assert_eq!(
        list(&quiet, "results")[1].to_json(),
        r#"{"moduleId":"zz","status":"error","error":"module-not-found"}"#
    );
}

#[tokio::test]
async fn a_module_begins_again_from_its_seed_numbers_and_all() {
    let rest = shop().await;
    let orders = format!("{M}/tables/order_header");
    let number = |made: &Answered| at(&made.body, &["record", "id"]).to_json();
    assert_eq!(number(&rest.post(&orders, r#"{"shiftId":"s"}"#).await), r#""DAR-001001""#);
    let reset = rest.post(&format!("{M}/reset"), "").await;
    assert_eq!(reset.status, 200, "{}", reset.raw);
    assert_eq!(members(&reset.body), "success message branchId modules updatedAt serverId");
    assert_eq!(reset.text("message"), "Module reset to initial data and sequence counter reset");
    assert_eq!(at(&reset.body, &["modules", "pos", "version"]).as_u64(), Some(1));
    assert_eq!(number(&rest.post(&orders, r#"{"shiftId":"s"}"#).await), r#""DAR-001001""#);
    let by_get = rest.get(&format!("{M}/reset")).await;
    assert_eq!(by_get.code(), (405, "method-not-allowed"), "any image of any page sends a GET");
    assert_eq!(by_get.header("allow"), "POST");
    assert_eq!(rest.put(&format!("{M}/reset"), "").await.code(), (405, "method-not-allowed"));
}

#[tokio::test]
async fn only_what_there_is_can_be_flagged() {
    let rest = Rest::new();
    let module = rest.post(FLAGS, r#"{"branchId":"dar","modules":["pos","zzz"]}"#).await;
    assert_eq!(module.code(), (404, "module-not-found"), "also where the modules are lenient");
    assert_eq!(list(&rest.get(FLAGS).await, "flags").len(), 0, "nor is the one that exists");
    let anything = r#"{"branchId":"anything"}"#;
    assert_eq!(rest.post(FLAGS, anything).await.code(), (404, "branch-not-found"));
    let cleared = rest.delete(FLAGS, anything).await;
    assert_eq!((cleared.status, list(&cleared, "flags").len()), (200, 0));
    rest.post("/api/branches/anything/modules/pos/tables/tickets", r#"{"id":"t"}"#).await;
    assert_eq!(rest.post(FLAGS, anything).await.status, 200, "once somebody has written to it");
}
