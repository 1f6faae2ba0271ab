//! Stories over HTTP: every endpoint, its members in order, and its refusals.

use actors::RouteError;
use axum::http::StatusCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::{Answered, Rest, members};

const M: &str = "/api/branches/dar/modules/pos";

#[tokio::test]
async fn health_says_who_and_when() {
    let rest = Rest::new();
    let health = rest.get("/healthz").await;
    assert_eq!(members(&health.body), "status serverId now");
    assert_eq!(health.text("serverId"), "ws-n1");
    assert_eq!(rest.get("/api/healthz").await.code(), (404, "not-found"));
}

#[tokio::test]
async fn ready_is_no_while_a_leader_is_missing_or_the_node_drains() {
    let rest = Rest::new();
    assert_eq!(rest.get("/readyz").await.body.to_json(), r#"{"status":"ready"}"#);
    let verbose = rest.get("/readyz?verbose").await;
    assert_eq!(members(&verbose.body), "status serverId sockets modules memory unfit");
    let missing = actors::NotReady {
        reason: "no-majority",
        message: "3 partitions have no majority at work".to_owned(),
        without_leader: 3,
    };
    *rest.fake.orders().not_ready.lock() = Some(missing);
    let refused = rest.get("/readyz").await;
    assert_eq!(refused.code(), (503, "not-ready"));
    assert_eq!(refused.text("reason"), "no-majority");
    assert_eq!(refused.body.get("details").unwrap().to_json(), r#"{"partitionsWithoutLeader":3}"#);
    *rest.fake.orders().not_ready.lock() = None;
    rest.gateway.drain().await;
    assert_eq!(rest.get("/readyz").await.text("reason"), "draining");
}

#[tokio::test]
async fn a_node_without_a_catalogue_denies_nothing() {
    let rest = Rest::new();
    rest.fake.orders().has_no_catalogue.store(true, Ordering::SeqCst);
    for path in [M, "/api/branches", "/api/sync/dar/pos", "/api/branches/no/modules/such"] {
        let refused = rest.get(path).await;
        assert_eq!(refused.code(), (503, "not-ready"), "{path}");
        assert_eq!(refused.header("retry-after"), "1");
    }
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(rest.send("GET", "/ws", "", &upgrade).await.status, 503);
    for path in ["/healthz", "/api/cluster/status", "/metrics"] {
        assert_eq!(rest.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_another_node_made_a_moment_ago_is_not_denied() {
    for path in [M, "/api/sync/dar/pos"] {
        let rest = Rest::new();
        rest.fake.fall_behind();
        assert_eq!(rest.get(path).await.status, 200, "{path}");
    }
    let rest = Rest::new();
    let answer = rest.get("/api/branches/dar/modules/such").await;
    assert_eq!(answer.code(), (404, "module-not-found"));
}

#[tokio::test]
async fn metrics_are_text() {
    let metrics = Rest::new().send("GET", "/metrics", "", &[]).await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_there() {
    let rest = Rest::new();
    let nothing = rest.get("/api/nothing").await;
    assert_eq!(
        members(&nothing.body),
        "error message path details type title status detail instance"
    );
    assert_eq!(nothing.text("path"), "/api/nothing");
    assert_eq!(rest.get("/branches/dar").await.code(), (404, "not-found"));
    assert_eq!(rest.get("/api/branches/dar/foo/bar").await.code(), (404, "not-found"));
    assert_eq!(rest.put("/api/branches/dar", "").await.code(), (405, "method-not-allowed"));
    assert_eq!(rest.post("/api/schema", "{}").await.code(), (405, "method-not-allowed"));
    assert_eq!(rest.put(&format!("{M}/sequences"), "{}").await.code(), (405, "method-not-allowed"));
    assert_eq!(rest.put(&format!("{M}/save"), "{}").await.code(), (405, "method-not-allowed"));
    let head = rest.send("HEAD", &format!("{M}/tables/tickets"), "", &[]).await;
    assert_eq!((head.status, head.raw.as_str()), (405, ""));
}

#[tokio::test]
async fn branches_are_listed_configured_ones_first() {
    let rest = Rest::new();
    rest.post("/api/branches/new/modules/pos/tables/tickets", "{}").await;
    let list = rest.get("/api/branches").await;
    let branches = list.body.get("branches").and_then(|b| b.as_array()).unwrap();
    let ids: Vec<_> = branches.iter().map(|b| b.get("id").unwrap().to_json()).collect();
    assert_eq!(ids, [r#""dar""#, r#""two""#, r#""new""#]);
    assert_eq!(members(&branches[0]), "id label modules");
    let module = &branches[0].get("modules").and_then(|m| m.as_array()).unwrap()[0];
    assert_eq!(members(module), "moduleId version meta");
    assert_eq!(members(module.get("meta").unwrap()), "lastUpdatedAt counter labCounter");
    *rest.fake.orders().refuse_read.lock() = Some(RouteError::Indeterminate);
    let glance = rest.get("/api/branches").await;
    assert!(glance.raw.contains(r#"{"moduleId":"pos","version":null,"meta":null}"#));
}

#[tokio::test]
async fn a_branch_shows_its_modules_and_looking_makes_none() {
    let rest = Rest::new();
    let dar = rest.get("/api/branches/dar").await;
    assert_eq!(members(&dar.body), "branchId modules updatedAt serverId");
    let pos = dar.body.get("modules").and_then(|m| m.get("pos")).unwrap();
    assert_eq!(members(pos), "moduleId branchId version tables meta");
    assert_eq!(members(pos.get("tables").unwrap()), "order_header tickets thing");
    assert_eq!(rest.get("/api/branch/dar").await.status, 200);
    assert_eq!(rest.get("/api/state?branch=dar").await.text("branchId"), "dar");
    assert_eq!(rest.get("/api/state").await.text("branchId"), "lab:test-pad");
    let modules = rest.get("/api/branches/two/modules").await;
    assert_eq!(modules.raw, r#"{"branchId":"two","modules":["pos","kds"]}"#);
    assert_eq!(rest.get("/api/branches/any%20name").await.text("branchId"), "any name");
    assert!(!rest.get("/api/branches").await.raw.contains("any name"));
}

#[tokio::test]
async fn a_module_is_shown_whole_in_parts_and_beside_what_was_sent() {
    let rest = Rest::new();
    let whole = rest.get(M).await;
    assert_eq!(members(&whole.body), "moduleId branchId version tables meta");
    assert_eq!(whole.header("x-mishkah-cursor"), "1.0");
    assert_eq!(rest.get(&format!("{M}/version")).await.raw, "1");
    assert_eq!(rest.get(&format!("{M}/meta/counter")).await.raw, "1");
    assert_eq!(
        rest.get(&format!("{M}/tables")).await.raw,
        r#"{"order_header":[],"tickets":[],"thing":[{"a":"x","b":1,"n":5}]}"#
    );
    assert_eq!(rest.get(&format!("{M}/tables2")).await.code(), (404, "path-not-found"));
    let echo = rest.post(M, r#"{"hello":1.50}"#).await;
    assert_eq!(members(&echo.body), "received snapshot");
    assert!(echo.raw.starts_with(r#"{"received":{"hello":1.50},"snapshot":{"moduleId":"pos""#));
    let none = rest.get("/api/branches/dar/modules/kds").await;
    assert_eq!(none.code(), (404, "module-not-found"));
}

#[tokio::test]
async fn an_insert_answers_with_the_record_and_its_event() {
    let rest = Rest::new();
    let path = format!("{M}/tables/tickets");
    let body = r#"{"record":{"id":"t-1","title":"a","data":{"n":1.10},"unknown":1},
        "meta":{"source":"till","requestId":"r1"}}"#;
    let made = rest.post(&path, body).await;
    assert_eq!(made.status, 201);
    assert_eq!(members(&made.body), "status branchId moduleId table record ack notice");
    assert_eq!(made.text("status"), "created");
    assert_eq!(members(made.body.get("record").unwrap()), "id title data createdAt");
    assert!(made.raw.contains(r#""data":{"n":1.10}"#), "numbers stay as they are");
    assert_eq!(made.header("x-mishkah-cursor"), "1.1");

    let ack = made.body.get("ack").unwrap();
    assert_eq!(
        members(ack),
        "type action branchId moduleId version table recordRef eventId sequence publishState \
         meta entry created"
    );
    assert_eq!(members(ack.get("recordRef").unwrap()), "table key primaryKey id");
    assert_eq!(
        members(ack.get("publishState").and_then(|s| s.get("dar")).unwrap()),
        "status updatedAt attempts publishedAt"
    );
    assert_eq!(
        members(ack.get("meta").unwrap()),
        "serverId branchId moduleId table timestamp source clientMeta recordKey recordId eventId \
         sequence recordRef"
    );
    assert_eq!(
        members(ack.get("entry").unwrap()),
        "id table action recordRef meta created deleted record"
    );
    assert_eq!(
        members(made.body.get("notice").unwrap()),
        "action recordRef eventId sequence version timestamp created deleted meta"
    );
    assert_eq!(ack.get("meta").and_then(|m| m.get("source")).unwrap().to_json(), r#""rest-crud""#);
}

#[tokio::test]
async fn a_composite_key_has_no_id() {
    let rest = Rest::new();
    let made = rest.post(&format!("{M}/tables/thing"), r#"{"a":"y","b":2}"#).await;
    let ack = made.body.get("ack").unwrap();
    assert_eq!(
        ack.get("recordRef").unwrap().to_json(),
        r#"{"table":"thing","key":"y::2","primaryKey":{"a":"y","b":2}}"#
    );
    assert!(ack.get("meta").unwrap().get("recordId").is_none());
    assert_eq!(ack.get("entry").and_then(|e| e.get("id")).unwrap().to_json(), r#""y::2""#);
}

#[tokio::test]
async fn records_are_changed_saved_and_removed() {
    let rest = Rest::new();
    let path = format!("{M}/tables/tickets");
    rest.post(&path, r#"{"id":"t-1","title":"a"}"#).await;
    rest.post(&path, r#"{"data":{"id":"t-2"}}"#).await;
    let merged = rest.patch(&path, r#"{"record":{"id":"t-1","title":"b"}}"#).await;
    assert_eq!((merged.status, merged.text("status")), (200, "updated"));
    let saved = rest.put(&path, r#"{"record":{"id":"t-1","title":"c"}}"#).await;
    assert_eq!((saved.status, saved.text("status")), (200, "saved"));
    assert_eq!(rest.put(&path, r#"{"id":"t-3"}"#).await.text("status"), "created");

    let gone = rest.delete(&format!("{path}?id=t-3"), "").await;
    assert_eq!(members(&gone.body), "status branchId moduleId table recordRef notice ack");
    let ack = gone.body.get("ack").unwrap();
    assert!(members(ack).ends_with("meta entry created deleted"));
    assert_eq!(
        members(ack.get("entry").unwrap()),
        "id table action recordRef meta created deleted"
    );
    assert_eq!(rest.delete(&path, r#"{"record":{"id":"t-2"}}"#).await.text("status"), "deleted");
    let again = rest.delete(&format!("{path}?key=t-3"), "").await;
    assert_eq!(again.code(), (404, "module-event-failed"));
    assert_eq!(again.text("message"), r#"Record not found in table "tickets"."#);
    assert_eq!(rest.delete(&path, "").await.code(), (400, "missing-record-key"));
    let no_key = rest.patch(&path, r#"{"record":{"title":"x"}}"#).await;
    assert_eq!(no_key.code(), (400, "module-event-failed"));
    assert_eq!(no_key.text("message"), r#"Missing primary key field "id" for table "tickets""#);
    assert_eq!(no_key.detail("code"), "missing-record-key");
    assert_eq!(rest.post(&path, "").await.status, 201, "an empty body is an empty record");
}

#[tokio::test]
async fn a_version_conflict_says_what_was_expected_and_what_is() {
    let rest = Rest::new();
    let path = format!("{M}/tables/order_header");
    rest.post(&path, r#"{"id":"o-1","shiftId":"s"}"#).await;
    assert_eq!(rest.patch(&path, r#"{"id":"o-1","version":2}"#).await.status, 200);
    let stale = rest.patch(&path, r#"{"id":"o-1","version":2}"#).await;
    assert_eq!(stale.code(), (409, "version-conflict"));
    assert_eq!(
        stale.body.get("details").unwrap().to_json(),
        r#"{"table":"order_header","key":"o-1","expectedVersion":2,"currentVersion":2}"#
    );
    let missing = rest.patch(&path, r#"{"id":"o-1"}"#).await;
    assert!(missing.raw.contains(r#""expectedVersion":null,"currentVersion":2"#));
}

#[tokio::test]
async fn a_strict_module_says_which_rule_is_broken() {
    let rest = Rest::new();
    let path = "/api/branches/two/modules/kds/tables/screens";
    let long = rest.post(path, r#"{"id":"1","name":"too long"}"#).await;
    assert_eq!(long.code(), (400, "module-event-failed"));
    assert_eq!((long.detail("code"), long.detail("field")), ("invalid-field", "name"));
    rest.post(path, r#"{"id":"1","name":"a"}"#).await;
    let twice = rest.post(path, r#"{"id":"1","name":"b"}"#).await;
    assert_eq!(twice.code(), (409, "duplicate-key"));
}

#[tokio::test]
async fn a_table_is_listed_by_page() {
    let rest = Rest::new();
    let path = format!("{M}/tables/tickets");
    for id in ["a", "b", "c"] {
        rest.post(&path, &format!(r#"{{"id":"{id}"}}"#)).await;
    }
    let all = rest.get(&path).await;
    assert_eq!(members(&all.body), "branchId moduleId table count cursor rows meta");
    assert_eq!(
        all.body.get("meta").unwrap().to_json(),
        r#"{"limit":null,"order":"asc","afterId":null,"afterKey":null,"afterCreatedAt":null,"updatedAfter":null}"#
    );
    assert_eq!(
        all.body.get("cursor").unwrap().to_json(),
        r#"{"table":"tickets","key":"c","primaryKey":{"id":"c"},"id":"c","position":"1.2"}"#
    );
    let ids = |answer: &Answered| {
        let rows = answer.body.get("rows").and_then(|rows| rows.as_array()).unwrap().iter();
        rows.map(|row| row.get("id").unwrap().as_str().unwrap()).collect::<String>()
    };
    assert_eq!(ids(&rest.get(&format!("{path}/records?limit=2")).await), "ab");
    assert_eq!(ids(&rest.get(&format!("{path}?take=0&order=desc")).await), "cba");
    assert_eq!(ids(&rest.get(&format!("{path}?cursor=a&limit=1")).await), "b");
    assert_eq!(ids(&rest.get(&format!("{path}?lastId=b")).await), "c");
    assert_eq!(ids(&rest.get(&format!("{path}?afterId=zzz")).await), "abc");
    let later = rest.get(&format!("{path}?since=2099-01-01")).await;
    assert_eq!(later.body.get("cursor").unwrap().to_json(), "null");
    assert!(later.raw.contains(r#""afterCreatedAt":"2099-01-01T00:00:00.000Z""#));
    assert_eq!(ids(&rest.get(&format!("{path}?since=1700000000000&limit=1")).await), "a");

    assert_eq!(rest.get(&format!("{M}/tables/nope")).await.code(), (404, "table-not-found"));
    assert_eq!(rest.get(&format!("{M}/tables/orders")).await.code(), (404, "table-not-found"));
    assert_eq!(rest.get(&format!("{path}/xyz")).await.code(), (404, "record-not-found"));
    for bad in ["limit=x", "limit=-1", "since=soon", "updatedAfter=12"] {
        let refused = rest.get(&format!("{path}?{bad}")).await;
        assert_eq!(refused.code(), (400, "invalid-parameter"), "{bad}");
    }
}

#[tokio::test]
async fn a_save_keeps_its_conditions() {
    let rest = Rest::new();
    let path = format!("{M}/save");
    let body = |more: &str| format!(r#"{{"table":"order_header","record":{{"id":"o-1"{more}"#);
    let saved = rest.post(&path, &body(r#"},"dayMarker":"2026-11-21"}"#)).await;
    assert_eq!(
        members(&saved.body),
        "status branchId moduleId table record ack notice snapshotMarker clientSnapshotMarker"
    );
    assert_eq!((saved.status, saved.text("status")), (200, "created"));
    assert_eq!(saved.text("clientSnapshotMarker"), "2026-11-21");
    let quiet = rest.post(&path, &body(r#","version":2},"includeRecord":false}"#)).await;
    assert!(quiet.body.get("record").is_some());
    assert!(quiet.body.get("ack").and_then(|a| a.get("entry")).unwrap().get("record").is_none());

    let ghost =
        r#"{"table":"tickets","record":{"id":"ghost"},"concurrency":{"requireExisting":true}}"#;
    let refused = rest.post(&path, ghost).await;
    assert_eq!(refused.code(), (409, "full-sync-required"));
    assert_eq!(
        members(&refused.body),
        "error message branchId moduleId table details snapshotMarker clientSnapshotMarker \
         type title status detail instance"
    );
    assert_eq!(refused.detail("code"), "record-not-found");
    let old =
        r#"{"table":"tickets","record":{"id":"x"},"concurrency":{"requireSnapshotMarker":"old"}}"#;
    let refused = rest.post(&path, old).await;
    assert_eq!(
        (refused.code(), refused.detail("code")),
        ((409, "full-sync-required"), "snapshot-mismatch")
    );
    let since = body(r#","version":3},"guard":{"ifNotModifiedSince":"2020-01-01"}}"#);
    let refused = rest.post(&path, &since).await;
    assert_eq!(
        (refused.code(), refused.detail("code")),
        ((409, "concurrency-conflict"), "concurrent-update")
    );

    assert_eq!(rest.post(&path, r#"{"record":{}}"#).await.code(), (400, "missing-table-name"));
    let unknown = rest.post(&path, r#"{"table":"zz","record":{}}"#).await;
    assert_eq!(unknown.code(), (404, "table-not-found"));
    let no_record = rest.post(&path, r#"{"table":"tickets"}"#).await;
    assert_eq!(no_record.code(), (400, "missing-record"));
    let conflict = rest.post(&path, &body(r#","version":9}}"#)).await;
    assert_eq!(conflict.code(), (409, "version-conflict"));
}

#[tokio::test]
async fn a_number_is_taken_without_a_record() {
    let rest = Rest::new();
    let path = format!("{M}/sequences");
    let taken = rest.post(&path, r#"{"table":"order_header","field":"id","record":{}}"#).await;
    assert_eq!(members(&taken.body), "branchId moduleId table field value id rule");
    assert_eq!((taken.status, taken.text("id")), (200, "DAR-001001"));
    let made = rest.post(&format!("{M}/tables/order_header"), r#"{"shiftId":"s"}"#).await;
    assert!(made.raw.contains(r#""record":{"id":"DAR-001002""#), "{}", made.raw);
    for bad in ["", r#"{"table":"order_header"}"#, r#"{"field":"id"}"#] {
        assert_eq!(rest.post(&path, bad).await.code(), (400, "missing-table-or-field"));
    }
}

#[tokio::test]
async fn sequences_are_shown_and_set() {
    let rest = Rest::new();
    let path = format!("{M}/sequences");
    let shown = rest.get(&path).await;
    assert_eq!(members(&shown.body), "branchId moduleId sequences");
    let line = &shown.body.get("sequences").and_then(|list| list.as_array()).unwrap()[0];
    assert_eq!(members(line), "table field rule source last next nextId ignored");
    assert!(shown.raw.contains(r#""source":"configuration","last":null,"next":1001"#));

    let own = r#"{"prefix":"INV","start":10000,"format":"{prefix}-{number:05d}"}"#;
    let key = [("idempotency-key", "seq-1")];
    let set = rest.send("PUT", &format!("{path}/order_header/id"), own, &key).await;
    assert_eq!(set.status, 200, "{}", set.raw);
    assert!(
        set.raw.contains(r#""source":"request","last":null,"next":10000,"nextId":"INV-10000""#)
    );
    let again = rest.send("PUT", &format!("{path}/order_header/id"), own, &key).await;
    assert_eq!((again.status, &again.raw), (200, &set.raw));
    assert!(rest.get(&path).await.raw.contains(r#""nextId":"INV-10000""#));
    let made = rest.post(&format!("{M}/tables/order_header"), r#"{"shiftId":"s"}"#).await;
    assert!(made.raw.contains(r#""record":{"id":"INV-10000""#), "{}", made.raw);

    let absurd = r#"{"id":"INV-18446744073709551615","shiftId":"s"}"#;
    assert_eq!(rest.post(&format!("{M}/tables/order_header"), absurd).await.status, 201);
    let shown = rest.get(&path).await;
    assert!(shown.raw.contains(r#""ignored":{"id":"INV-18446744073709551615","counter":10000"#));
    let mend = rest.put(&format!("{path}/order_header/id"), r#"{"last":10500}"#).await;
    assert!(mend.raw.contains(r#""nextId":"INV-10501","ignored":null"#), "{}", mend.raw);
    let lower = rest.put(&format!("{path}/order_header/id"), r#"{"next":10001}"#).await;
    assert_eq!(lower.code(), (409, "sequence-would-repeat"));
    assert!(lower.raw.contains(r#""highest":10500,"asked":10000"#), "{}", lower.raw);
    let lower = r#"{"next":10001,"allowReuse":true,"reason":"a slip","requestedBy":"me"}"#;
    assert_eq!(rest.put(&format!("{path}/order_header/id"), lower).await.status, 200);
    let log = rest.get(&format!("{M}/events?after=0")).await;
    assert!(log.raw.contains(r#""action":"module:sequence""#), "{}", log.raw);
    assert!(log.raw.contains(r#""reason":"a slip","requestedBy":"me""#), "{}", log.raw);

    let undone = rest.delete(&format!("{path}/order_header/id"), "").await;
    assert_eq!(members(&undone.body), "branchId moduleId sequences");
    assert!(
        undone.raw.contains(r#""source":"configuration","last":10000,"next":10001"#),
        "{}",
        undone.raw
    );
    let again = rest.delete(&format!("{path}/order_header/id"), "").await;
    assert_eq!((again.status, &again.raw), (200, &undone.raw));
    let unknown = rest.delete(&format!("{path}/order_header/nothing"), "").await;
    assert_eq!(unknown.code(), (400, "invalid-sequence"));
    let gone = rest.delete(&format!("{path}/nothing/id"), "").await;
    assert_eq!(gone.code(), (404, "table-not-found"));
}

#[tokio::test]
async fn a_sequence_that_cannot_be_is_refused_in_words() {
    let rest = Rest::new();
    let (path, long) = (format!("{M}/sequences"), "x".repeat(65));
    for (field, body, word) in [
        ("id", r#"{"prefx":"A"}"#, "known are prefix"),
        ("id", r#"{"format":"{year}-{number}"}"#, "{year}"),
        ("id", r#"{"pattern":"none"}"#, "0 numbers"),
        ("id", r#"{"padding":16}"#, "15 digits"),
        ("id", r#"{"last":1000000000000000}"#, "15 digits"),
        ("id", r#"{"last":-1}"#, "whole number"),
        ("id", r#"{"last":1,"next":2}"#, "one of them"),
        ("id", r#"{"allowReuse":"yes","last":1}"#, "true or false"),
        ("id", "{}", "send a rule"),
        ("id", r#"{"prefix":"A","counterField":"nobody"}"#, "nobody"),
        ("id", &format!(r#"{{"prefix":"{long}"}}"#), "its prefix has 65 bytes; at most 64"),
        ("id", &format!(r#"{{"format":"{long}{{number}}"}}"#), "its format has 73 bytes"),
    ] {
        let refused = rest.put(&format!("{path}/order_header/{field}"), body).await;
        assert_eq!(refused.code(), (400, "invalid-sequence"), "{body}: {}", refused.raw);
        assert!(refused.text("message").contains(word), "{}", refused.raw);
    }
    let unknown = rest.put(&format!("{path}/nothing/id"), r#"{"prefix":"A"}"#).await;
    assert_eq!(unknown.code(), (404, "table-not-found"));
}

#[tokio::test]
async fn a_sequence_of_a_definition_numbers_empty_fields() {
    let rest = Rest::new();
    let of = |no: &str| {
        format!(
            r#"{{"id":"shop","schema":{{"tables":{{"bills":{{"fields":{{
                "id":{{"type":"text","primaryKey":true,
                    "sequence":{{"prefix":"INV","start":1001,"counterField":"copy"}}}},
                "copy":{{"type":"integer"}},"no":{no}}}}}}}}}}}"#
        )
    };
    for (no, word) in [
        (r#"{"type":"integer","sequence":{"prefix":"N"}}"#, "it holds numbers"),
        (r#"{"type":"integer","sequence":true,"default":7}"#, "a sequence and a default"),
        (r#"{"type":"date","sequence":true}"#, "only a field of text or of numbers"),
        (r#"{"type":"varchar(3)","sequence":{"prefix":"ABC"}}"#, "it holds 3 characters"),
    ] {
        let refused = rest.post("/api/modules", &of(no)).await;
        assert_eq!(refused.code(), (400, "invalid-definition"), "{no}");
        assert_eq!((refused.detail("table"), refused.detail("field")), ("bills", "no"));
        assert!(refused.text("message").contains(word), "{}", refused.raw);
    }
    let made = rest.post("/api/modules", &of(r#"{"type":"integer","sequence":true}"#)).await;
    assert_eq!(made.status, 201, "{}", made.raw);
    rest.post("/api/branches/dar/modules", r#"{"id":"shop"}"#).await;
    let module = "/api/branches/dar/modules/shop";
    for (sent, stored) in [
        ("{}", r#""record":{"id":"INV-1001","copy":1001,"no":1"#),
        (r#"{"no":5}"#, r#""record":{"id":"INV-1002","copy":1002,"no":5"#),
        (r#"{"id":"INV-1010"}"#, r#""record":{"id":"INV-1010","copy":null,"no":6"#),
        ("{}", r#""record":{"id":"INV-1011","copy":1011,"no":7"#),
    ] {
        let made = rest.post(&format!("{module}/tables/bills"), sent).await;
        assert!(made.status == 201 && made.raw.contains(stored), "{sent}: {}", made.raw);
    }
    let shown = rest.get(&format!("{module}/sequences")).await;
    assert_eq!(shown.raw.matches(r#""source":"definition""#).count(), 2, "{}", shown.raw);
}

#[tokio::test]
async fn modules_and_their_schemas() {
    let rest = Rest::new();
    let modules = rest.get("/api/modules").await;
    assert!(modules.raw.starts_with(
        r#"{"modules":[{"id":"pos","label":"POS","description":"the pos module","tables":["order_header","tickets","thing"]}"#
    ));
    let schema = rest.get("/api/schema?branch=dar&module=pos").await;
    assert_eq!(members(&schema.body), "branchId modules");
    let pos = schema.body.get("modules").and_then(|m| m.get("pos")).unwrap();
    assert_eq!(
        members(pos),
        "moduleId branchId label description tables config schema schemaSource"
    );
    let both = rest.get("/api/schema?branch=dar&module=pos,kds&include=seed,live").await;
    let pos = both.body.get("modules").and_then(|m| m.get("pos")).unwrap();
    assert_eq!(
        members(pos),
        "moduleId branchId label description tables seed seedSource live liveSource"
    );
    assert!(members(pos.get("live").unwrap()).ends_with("meta savedAt"));
    assert!(both.raw.contains(r#""seed":null,"seedSource":null"#), "kds has none");
    assert!(both.raw.contains(r#""warnings":[{"moduleId":"kds","warning":"seed-not-found"}]"#));
    let all = rest.get("/api/schema?branch=dar&seed=1").await;
    assert_eq!(members(all.body.get("modules").unwrap()), "pos kds spare");
    let unknown = rest.get("/api/schema?branch=dar&module=zzz").await;
    assert_eq!(
        unknown.raw,
        r#"{"branchId":"dar","modules":{},"warnings":[{"moduleId":"zzz","warning":"module-not-defined"}]}"#
    );
}

#[tokio::test]
async fn the_cluster_shows_itself() {
    let status = Rest::new().get("/api/cluster/status").await;
    assert_eq!(
        members(&status.body),
        "clusterId answeredBy placementEpoch warnings level catalogue nodes partitions branches"
    );
}

#[tokio::test]
async fn a_node_shows_the_state_of_its_own_replicas() {
    let rest = Rest::new();
    let replica = async |path: &str| {
        let answer = rest.get(path).await;
        assert_eq!((answer.status, members(&answer.body)), (200, "node replicas".to_owned()));
        answer.body.get("replicas").unwrap().as_array().unwrap()[0].clone()
    };
    let before = replica("/api/cluster/replicas").await;
    assert_eq!(members(&before), "partition applied stateHash");
    let hash = before.get("stateHash").unwrap().as_str().unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    let path = format!("{M}/tables/tickets");
    assert_eq!(rest.send("POST", &path, r#"{"title":"a"}"#, &[]).await.status, 201);
    let after = replica("/api/cluster/replicas?verify=true").await;
    assert_ne!(after.get("stateHash"), before.get("stateHash"));
    assert_eq!(members(after.get("brokenChain").unwrap()), "branch module sequence reason");
}

#[tokio::test]
async fn the_same_key_is_the_same_request() {
    let rest = Rest::new();
    let path = format!("{M}/tables/tickets");
    let key = [("idempotency-key", "k-1")];
    let first = rest.send("POST", &path, r#"{"title":"a"}"#, &key).await;
    let again = rest.send("POST", &path, r#"{"title":"a"}"#, &key).await;
    assert_eq!(first.raw, again.raw);
    let other = rest.send("POST", &path, r#"{"title":"b"}"#, &key).await;
    assert_eq!(other.code(), (422, "idempotency-key-reused"));
    let long = "x".repeat(257);
    for bad in ["", long.as_str()] {
        let refused = rest.send("POST", &path, "{}", &[("idempotency-key", bad)]).await;
        assert_eq!(refused.code(), (400, "invalid-header"));
    }
}

#[tokio::test]
async fn reads_may_be_as_fresh_as_asked() {
    let rest = Rest::new();
    for level in ["linearizable", "stale", "session=3", "session=1.3"] {
        assert_eq!(rest.send("GET", M, "", &[("x-mishkah-read", level)]).await.status, 200);
    }
    for bad in ["", "fresh", "session=", "session=x"] {
        let refused = rest.send("GET", M, "", &[("x-mishkah-read", bad)]).await;
        assert_eq!(refused.code(), (400, "invalid-header"), "{bad}");
    }
}

#[tokio::test]
async fn decimals_are_texts_for_those_who_ask() {
    let rest = Rest::new();
    rest.post(&format!("{M}/tables/order_header"), r#"{"id":"l","total":10.50}"#).await;
    let asked = r#"{"branchId":"dar","moduleId":"pos","table":"order_header"}"#;
    for (method, path, body, place) in [
        ("GET", format!("{M}/tables/order_header"), "", "/rows/0"),
        ("GET", M.to_owned(), "", "/tables/order_header/0"),
        ("GET", format!("{M}/tables"), "", "/order_header/0"),
        ("POST", "/api/query/module".to_owned(), asked, "/rows/0"),
    ] {
        let read = async |as_what| {
            let answer = rest.send(method, &path, body, &[("x-mishkah-decimals", as_what)]).await;
            let row = place.split('/').skip(1).fold(&answer.body, |value, step| {
                let place = step.parse().ok();
                let item = place.and_then(|place: usize| value.as_array()?.get(place));
                item.or_else(|| value.get(step)).expect("a row was asked for")
            });
            row.get("total").map(model::Value::to_json)
        };
        assert_eq!(read("number").await.as_deref(), Some("10.50"), "{path}");
        assert_eq!(read("text").await.as_deref(), Some("\"10.50\""), "{path}");
    }
    let refused = rest.send("GET", M, "", &[("x-mishkah-decimals", "float")]).await;
    assert_eq!(refused.code(), (400, "invalid-header"));
}

#[tokio::test]
async fn what_the_cluster_cannot_do_now_says_when_to_come_again() {
    let rest = Rest::new();
    let path = format!("{M}/tables/tickets");
    let (retry_after, what) = (Duration::from_millis(1500), "this branch");
    let refuse = |error| *rest.fake.orders().refuse_submit.lock() = Some(error);
    refuse(RouteError::Busy { what, retry_after });
    let busy = rest.post(&path, "{}").await;
    assert_eq!((busy.code(), busy.header("retry-after")), ((429, "busy"), "2"));
    refuse(RouteError::Unavailable { reason: "no leader".into(), retry_after });
    let away = rest.post(&path, "{}").await;
    assert_eq!((away.code(), away.header("retry-after")), ((503, "unavailable"), "2"));
    refuse(RouteError::Indeterminate);
    let unknown = rest.post(&path, "{}").await;
    assert_eq!((unknown.code(), unknown.detail("outcome")), ((504, "outcome-unknown"), "unknown"));
    assert_eq!(unknown.status, StatusCode::GATEWAY_TIMEOUT);
}
