//! Stories of the event log over HTTP: a publish, a batch of inserts, the log itself.

use actors::Store as _;
use model::{CatalogueChange, Validation, Value};

use crate::client::{Answered, Rest, at, members};
use crate::fake;

const E: &str = "/api/branches/dar/modules/pos/events";

fn list<'a>(answer: &'a Answered, member: &str) -> &'a [Value] {
    at(&answer.body, &[member]).as_array().unwrap()
}

#[tokio::test]
async fn a_publish_is_answered_with_its_event() {
    let rest = Rest::new();
    let body = r#"{"action":"module:insert","table":"tickets","record":{"id":"t-1"},
        "meta":{"requestId":"x"},"eventId":"mine"}"#;
    let made = rest.post(E, body).await;
    assert_eq!(made.status, 200);
    assert_eq!(members(&made.body), "ack event logEntry recordRef notice record removed");
    let entry = at(&made.body, &["logEntry"]);
    assert_eq!(
        members(entry),
        "id sequence action branchId moduleId table record meta publishState createdAt recordedAt"
    );
    assert_eq!(
        members(at(entry, &["meta"])),
        "serverId branchId moduleId table timestamp source clientMeta recordKey recordId recordRef"
    );
    assert_eq!(at(entry, &["id"]).to_json(), r#""mine""#);
    assert_eq!(at(&made.body, &["ack", "meta", "source"]).to_json(), r#""rest""#);
    assert_eq!(
        members(at(&made.body, &["ack", "entry"])),
        "id table action recordRef meta created deleted",
        "no record unless it is asked for"
    );
    assert!(members(at(&made.body, &["event"])).ends_with("meta entry notice"));
    assert!(at(&made.body, &["removed"]).is_null());
    assert_eq!(members(at(&made.body, &["record"])), "id title data createdAt");
    assert_eq!(made.header("x-mishkah-cursor"), "1.1");

    let whole = r#"{"table":"tickets","record":{"id":"t-2"},"includeRecord":true,
        "includeSnapshot":true}"#;
    let whole = rest.post(E, whole).await;
    assert_eq!(at(&whole.body, &["event", "snapshot", "version"]).as_u64(), Some(3));
    assert_eq!(at(&whole.body, &["event", "entry", "record", "id"]).as_str(), Some("t-2"));
    let gone = rest.post(E, r#"{"action":"delete","table":"ticket","record":{"id":"t-2"}}"#).await;
    assert!(at(&gone.body, &["record"]).is_null());
    assert_eq!(at(&gone.body, &["removed", "id"]).as_str(), Some("t-2"));
    assert_eq!(at(&gone.body, &["event", "table"]).as_str(), Some("ticket"), "as it was sent");
}

#[tokio::test]
async fn a_publish_that_fails_says_so_in_the_originals_words() {
    let rest = Rest::new();
    for (body, message) in [
        (r#"{"action":"nope","table":"tickets"}"#, "Unsupported module action: nope"),
        ("{}", "Missing table name for module event"),
        ("", "Missing table name for module event"),
        (r#"{"table":"nope"}"#, r#"Table "nope" not registered in module "pos""#),
        (
            r#"{"action":"merge","table":"tickets","record":{"id":"x"}}"#,
            r#"Record not found in table "tickets"."#,
        ),
    ] {
        let refused = rest.post(E, body).await;
        assert_eq!(refused.code(), (400, "module-event-failed"), "{body}");
        assert_eq!(refused.text("message"), message);
    }
    assert_eq!(rest.post(E, r#"{"table":"nope"}"#).await.detail("code"), "table-not-found");
    rest.post(E, r#"{"table":"orders","record":{"id":"o-1","shiftId":"s"}}"#).await;
    let stale = r#"{"action":"merge","table":"order_header","record":{"id":"o-1","version":99}}"#;
    assert_eq!(rest.post(E, stale).await.code(), (409, "version-conflict"));
}

#[tokio::test]
async fn a_publish_under_the_same_key_is_made_once() {
    let rest = Rest::new();
    let key = [("idempotency-key", "k")];
    let first = rest.send("POST", E, r#"{"table":"tickets"}"#, &key).await;
    let again = rest.send("POST", E, r#"{"table":"tickets"}"#, &key).await;
    assert_eq!(first.raw, again.raw);
    let other = rest.send("POST", E, r#"{"table":"thing"}"#, &key).await;
    assert_eq!(other.code(), (422, "idempotency-key-reused"));
}

#[tokio::test]
async fn the_log_is_listed_page_by_page() {
    let rest = Rest::new();
    for id in ["a", "b", "c"] {
        let body = format!(r#"{{"table":"tickets","record":{{"id":"{id}"}}}}"#);
        rest.post(E, &body).await;
    }
    let two = rest.get(&format!("{E}?after=0&limit=2")).await;
    assert_eq!(members(&two.body), "branchId moduleId epoch after count last events");
    assert!(two.raw.starts_with(
        r#"{"branchId":"dar","moduleId":"pos","epoch":1,"after":0,"count":2,"last":3,"events":["#
    ));
    assert_eq!(two.header("x-mishkah-cursor"), "1.2", "go on from here");
    let event = &list(&two, "events")[1];
    assert_eq!(
        members(event),
        "sequence version id action table recordRef record createdAt meta created deleted previous"
    );
    assert_eq!(at(event, &["record", "id"]).as_str(), Some("b"));
    let rest_of_it = rest.get(&format!("{E}?after=2&epoch=1")).await;
    assert_eq!(at(&list(&rest_of_it, "events")[0], &["sequence"]).as_u64(), Some(3));
    for end in [3, 900] {
        let none = rest.get(&format!("{E}?after={end}")).await;
        assert_eq!((none.status, list(&none, "events").len()), (200, 0));
    }
    let gone = rest.get(&format!("{E}?after=0&epoch=7")).await;
    assert_eq!(gone.code(), (410, "events-gone"));
    assert_eq!(at(&gone.body, &["details"]).to_json(), r#"{"epoch":1,"last":3}"#);
    for bad in ["after=x", "after=-1", "after=0&limit=0", "limit=1001", "after=1&epoch=a"] {
        let refused = rest.get(&format!("{E}?{bad}")).await;
        assert_eq!(refused.code(), (400, "invalid-parameter"), "{bad}");
    }
}

#[tokio::test]
async fn a_page_of_the_log_ends_where_it_has_become_large() {
    let rest = Rest::new();
    let large = "x".repeat(900_000);
    for _ in 0..11 {
        let body = format!(r#"{{"table":"tickets","record":{{"title":"{large}"}}}}"#);
        assert_eq!(rest.post(E, &body).await.status, 200);
    }
    let page = rest.get(&format!("{E}?after=0")).await;
    assert_eq!((page.status, list(&page, "events").len()), (200, 10));
    assert_eq!(at(&page.body, &["last"]).as_u64(), Some(11));
}

#[tokio::test]
async fn events_of_one_write_say_so() {
    let rest = Rest::new();
    let mutations = r#"{"table":"tickets","record":{"id":"a"}},{"table":"tickets","record":{}}"#;
    let body = format!(r#"{{"verbs":[{mutations}]}}"#);
    let key = [("idempotency-key", "r-1")];
    rest.send("POST", "/api/branches/dar/modules/pos/batch", &body, &key).await;
    let page = rest.get(&format!("{E}?after=0")).await;
    let second = &list(&page, "events")[1];
    assert_eq!(at(second, &["batch"]).to_json(), r#"{"index":1,"count":2,"id":"r-1"}"#);
}

#[tokio::test]
async fn a_batch_of_inserts_is_numbered_in_order() {
    let rest = Rest::new();
    let body = r#"{"lastAckId":null,"events":[
        {"id":"evt-b1","table":"tickets","record":{"id":"a"},"meta":{"n":1}},
        {"eventId":"evt-b2","tableName":"orders","data":{"id":"o","shiftId":"s"}}]}"#;
    let made = rest.post(&format!("{E}/batch"), body).await;
    assert_eq!(made.status, 200, "{}", made.raw);
    assert_eq!(members(&made.body), "branchId moduleId ingested lastAckId lastEventId sequences");
    assert_eq!((made.text("lastAckId"), made.text("lastEventId")), ("evt-b2", "evt-b2"));
    let line = &list(&made, "sequences")[1];
    assert_eq!(members(line), "id sequence table createdAt");
    assert_eq!(
        (at(line, &["sequence"]).as_u64(), at(line, &["table"]).as_str()),
        (Some(2), Some("orders"))
    );
    let page = rest.get(&format!("{E}?after=0")).await;
    let meta = at(&list(&page, "events")[0], &["meta"]);
    assert_eq!(at(meta, &["source"]).as_str(), Some("rest-batch"));
    assert_eq!(at(meta, &["clientMeta"]).to_json(), r#"{"n":1}"#);
}

#[tokio::test]
async fn a_batch_of_inserts_that_is_refused_leaves_nothing_behind() {
    let rest = Rest::new();
    let path = format!("{E}/batch");
    let body = r#"{"lastAckId":null,"events":[{"table":"tickets","record":{"id":"a"}},
        {"table":"zzz","record":{}}]}"#;
    let refused = rest.post(&path, body).await;
    assert_eq!(refused.code(), (400, "module-event-failed"));
    assert_eq!(refused.text("message"), r#"Table "zzz" not registered in module "pos""#);
    assert_eq!(at(&refused.body, &["index"]).as_u64(), Some(1));
    assert_eq!(list(&rest.get(&format!("{E}?after=0")).await, "events").len(), 0);
    let alone = r#"{"lastAckId":null,"events":[{"table":"zzz"}]}"#;
    assert_eq!(at(&rest.post(&path, alone).await.body, &["index"]).as_u64(), Some(0));
    assert_eq!(rest.get(&path).await.code(), (405, "method-not-allowed"));
}

#[tokio::test]
async fn a_batch_of_inserts_is_read_whole_before_anything_happens() {
    let rest = Rest::new();
    let path = format!("{E}/batch");
    for (body, code) in [
        ("", "missing-last-ack-id"),
        (r#"{"events":[]}"#, "missing-last-ack-id"),
        (r#"{"lastAckId":5}"#, "invalid-last-ack-id"),
        (r#"{"lastAckId":null,"events":{}}"#, "invalid-body"),
        (r#"{"lastAckId":null,"events":[{"table":"tickets"},5]}"#, "invalid-event-payload"),
        (
            r#"{"lastAckId":null,"events":[{"table":"tickets"},{"table":"tickets","record":5}]}"#,
            "invalid-event-payload",
        ),
        (r#"{"lastAckId":null,"events":[{"table":"tickets"},{}]}"#, "missing-table-name"),
    ] {
        let refused = rest.post(&path, body).await;
        assert_eq!(refused.code(), (400, code), "{body}");
        if body.contains("[{") {
            assert_eq!(at(&refused.body, &["index"]).as_u64(), Some(1), "{body}");
        }
    }
    let merge = r#"{"lastAckId":null,"events":[{"action":"module:merge","table":"tickets"}]}"#;
    let refused = rest.post(&path, merge).await;
    assert_eq!(refused.code(), (400, "unsupported-event-action"));
    assert!(members(&refused.body).starts_with("error message action index"));
    assert_eq!(refused.text("action"), "module:merge");
    assert_eq!(list(&rest.get(&format!("{E}?after=0")).await, "events").len(), 0);
}

#[tokio::test]
async fn a_batch_of_inserts_follows_the_event_the_client_knows() {
    let rest = Rest::new();
    let path = format!("{E}/batch");
    let empty = rest.post(&path, r#"{"lastAckId":null,"events":[]}"#).await;
    assert_eq!(
        empty.raw,
        r#"{"branchId":"dar","moduleId":"pos","ingested":0,"lastAckId":null,"lastEventId":null,"sequences":[]}"#
    );
    rest.post(E, r#"{"table":"tickets","id":"evt-1"}"#).await;
    for events in ["[]", r#"[{"table":"tickets"}]"#] {
        let body = format!(r#"{{"lastAckId":"evt-x","events":{events}}}"#);
        let refused = rest.post(&path, &body).await;
        assert_eq!(refused.code(), (409, "last-ack-mismatch"), "{events}");
        assert_eq!((refused.text("expected"), refused.text("received")), ("evt-1", "evt-x"));
        let right = format!(r#"{{"lastAckId":"evt-1","events":{events}}}"#);
        assert_eq!(rest.post(&path, &right).await.status, 200);
    }
}

#[tokio::test]
async fn the_log_says_of_itself_what_the_originals_did() {
    let rest = Rest::new();
    let empty = rest.get(E).await;
    assert_eq!(
        members(&empty.body),
        "branchId moduleId version updatedAt serverId events eventLog snapshot"
    );
    let log = at(&empty.body, &["eventLog"]);
    assert_eq!(
        members(log),
        "branchId moduleId liveCreatedAt currentDay lastClosedDate lastEventId lastEventAt \
         lastAckId totalEvents updatedAt tableCursors lastServedTableIds lastClientTableIds \
         lastSnapshotMarker lastClientSnapshotMarker lastClientSyncAt"
    );
    assert!(at(log, &["lastEventId"]).is_null() && at(log, &["liveCreatedAt"]).is_null());
    assert_eq!(empty.header("x-mishkah-cursor"), "1.0");

    rest.post(E, r#"{"table":"tickets","record":{"id":"t"},"eventId":"e-1"}"#).await;
    rest.post(E, r#"{"table":"orders","record":{"id":"o","shiftId":"s"},"eventId":"e-2"}"#).await;
    let written = rest.get(E).await;
    let log = at(&written.body, &["eventLog"]);
    assert_eq!(at(log, &["lastEventId"]).as_str(), Some("e-2"));
    assert_eq!(at(log, &["lastAckId"]).as_str(), Some("e-2"));
    assert_eq!(at(log, &["totalEvents"]).as_u64(), Some(2));
    let cursor = at(log, &["tableCursors", "orders"]);
    assert_eq!(members(cursor), "key id eventId sequence updatedAt");
    assert_eq!(at(cursor, &["key"]).as_str(), Some("o"));
    assert_eq!(at(&written.body, &["snapshot", "version"]).as_u64(), Some(3));
    assert!(list(&written, "events").is_empty(), "this module has no pos_database");
}

#[tokio::test]
async fn what_the_original_calls_events_are_the_rows_of_one_table() {
    let rest = Rest::new();
    let doc = r#"{"tables":[{"name":"pos_database","fields":[
        {"name":"id","type":"string","primaryKey":true},{"name":"branchId","type":"string"},
        {"name":"note","type":"string","nullable":true},{"name":"payload","type":"json"}]}]}"#;
    let seed = r#"{"pos_database":[{"id":"db"}]}"#;
    let added = fake::module("books", doc, Validation::Lenient, Some(seed));
    let given = CatalogueChange::GiveModule {
        branch: fake::key("dar", "books").branch,
        module: added.id.clone(),
    };
    rest.fake.change("m".into(), CatalogueChange::AddModule(added)).await.unwrap();
    rest.fake.change("g".into(), given).await.unwrap();
    let shown = rest.get("/api/branches/dar/modules/books/events").await;
    assert_eq!(
        at(&shown.body, &["events"]).to_json(),
        r#"[{"id":"db","branchId":"dar","createdAt":null,"updatedAt":null,"payload":{}}]"#
    );
}
