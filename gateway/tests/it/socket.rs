//! Stories over a WebSocket: what a client says, and what it and others are told.

use std::sync::atomic::Ordering;

use actors::RouteError;
use futures::SinkExt as _;
use model::{Action, RecordMutation, Value};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Served, Socket, at, members};

/// An insert into `tickets`.
fn insert(id: &str) -> String {
    format!(r#""table":"tickets","action":"module:insert","record":{{"id":"{id}"}}"#)
}

/// The same, by somebody else.
fn elsewhere(id: &str) -> RecordMutation {
    let record = [("id", id)].into_iter().collect();
    RecordMutation::new(Action::Insert, "tickets", record)
}

fn text<'a>(frame: &'a Value, path: &[&str]) -> &'a str {
    at(frame, path).key_text().unwrap()
}

#[tokio::test]
async fn any_path_becomes_a_socket_whose_hello_brings_the_branch() {
    let served = Served::new(|_| {}).await;
    for path in ["/ws", "/", "/any/path?x=1", "/api/branches"] {
        served.open(path).await;
    }
    let mut socket = served.open("/ws").await;
    socket
        .say(r#"{"type":"client:hello","branchId":"two","role":"kds","lang":"en","requestId":"h"}"#)
        .await;
    let log = socket.expect("server:log").await;
    assert_eq!(members(&log), "type level message context ts serverId");
    assert_eq!(text(&log, &["message"]), "Client registered");
    let snapshot = socket.expect("server:snapshot").await;
    assert_eq!(members(&snapshot), "type branchId modules fullSyncFlags meta cursors");
    assert_eq!(members(at(&snapshot, &["cursors"])), "kds pos");
    assert_eq!(members(at(&snapshot, &["modules"])), "kds pos");
    assert_eq!(
        members(at(&snapshot, &["modules", "pos"])),
        "moduleId branchId version tables meta"
    );
    assert_eq!(
        at(&snapshot, &["meta"]).to_json(),
        r#"{"reason":"initial-sync","requestId":"h","serverId":"ws-n1","branchId":"two","lang":"en"}"#
    );
}

#[tokio::test]
async fn a_publish_is_acknowledged_and_sent_to_all_of_the_branch() {
    let served = Served::new(|_| {}).await;
    let (mut till, mut kitchen) = (served.enter("dar").await, served.enter("dar").await);
    let mut other = served.enter("two").await;
    till.publish("r-1", &format!(r#"{},"includeRecord":true,"userId":"u""#, insert("a"))).await;

    let ack = till.expect("server:ack").await;
    assert_eq!(
        members(&ack),
        "type action branchId moduleId version table recordRef eventId sequence publishState meta \
         entry created cursor"
    );
    assert_eq!(at(&ack, &["cursor"]).to_json(), r#"{"epoch":1,"sequence":1}"#);
    assert_eq!(text(&ack, &["meta", "clientMeta", "requestId"]), "r-1");
    assert_eq!(text(&ack, &["meta", "source"]), "ws-client");
    let event = till.next_text().await;
    assert_eq!(kitchen.next_text().await, event, "the same bytes for everybody");
    let event = Value::from_json(event.as_bytes()).unwrap();
    assert_eq!(
        members(&event),
        "type action branchId moduleId version table recordRef eventId sequence publishState meta \
         entry notice cursor"
    );
    assert_eq!(text(&event, &["entry", "record", "id"]), "a");
    assert_eq!(text(&event, &["version"]), text(&ack, &["version"]));
    assert_eq!(text(&event, &["eventId"]), text(&ack, &["eventId"]));
    other.silent().await;
}

#[tokio::test]
async fn a_record_is_shown_only_where_it_was_asked_for() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    let more = r#","eventId":"evt-mine","source":"my-src",
        "publishState":{"dar":{"attempts":2,"x":1},"hq":"pending"}"#;
    till.publish("r-1", &format!("{}{more}", insert("a"))).await;
    let ack = till.expect("server:ack").await;
    assert!(at(&ack, &["entry"]).get("record").is_none());
    assert_eq!(text(&ack, &["eventId"]), "evt-mine");
    assert_eq!(text(&ack, &["meta", "source"]), "my-src");
    assert_eq!(members(at(&ack, &["publishState"])), "dar hq");
    assert_eq!(text(&ack, &["publishState", "dar", "status"]), "published");
    assert_eq!(text(&ack, &["publishState", "dar", "attempts"]), "2");
    assert_eq!(at(&ack, &["publishState", "hq"]).to_json(), r#"{"status":"pending"}"#);
}

#[tokio::test]
async fn every_mutation_is_acknowledged_with_what_it_did() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    for (n, (action, did)) in [
        ("module:save", "module:insert"),
        ("module:save", "module:merge"),
        ("module:merge", "module:merge"),
        ("module:update", "module:merge"),
        ("module:delete", "module:delete"),
    ]
    .into_iter()
    .enumerate()
    {
        let frame = format!(r#""table":"tickets","action":"{action}","record":{{"id":"a"}}"#);
        till.publish(&n.to_string(), &frame).await;
        let ack = till.expect("server:ack").await;
        assert_eq!(text(&ack, &["action"]), did);
        assert_eq!(ack.get("deleted").is_some(), did == "module:delete");
        assert_eq!(text(&till.expect("server:event").await, &["action"]), did);
    }
    till.publish("alias", r#""table":"orders","record":{"id":"o","shiftId":"s"}"#).await;
    let ack = till.expect("server:ack").await;
    assert_eq!(text(&ack, &["table"]), "orders", "the name sent is shown");
}

#[tokio::test]
async fn pipelined_publishes_come_back_in_order_without_a_gap() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    for n in 0..40 {
        till.publish(&format!("p{n}"), &insert(&format!("t-{n}"))).await;
    }
    let (mut acks, mut events) = (Vec::new(), Vec::new());
    while acks.len() + events.len() < 80 {
        let frame = till.next().await;
        let sequence: u64 = text(&frame, &["sequence"]).parse().unwrap();
        match text(&frame, &["type"]) {
            "server:ack" => {
                let request = text(&frame, &["meta", "clientMeta", "requestId"]);
                assert_eq!(request, format!("p{}", acks.len()));
                acks.push(sequence);
            }
            _ => {
                assert!(acks.contains(&sequence), "an event before its acknowledgement");
                events.push(sequence);
            }
        }
    }
    let wanted: Vec<u64> = (1..=40).collect();
    assert_eq!((acks, events), (wanted.clone(), wanted));
}

#[tokio::test]
async fn an_event_that_precedes_its_outcome_is_acknowledged_once() {
    let served = Served::new(|_| {}).await;
    let (mut till, mut kitchen) = (served.enter("dar").await, served.enter("dar").await);
    served.fake.orders().hold_outcomes.store(true, Ordering::SeqCst);
    till.publish("r", &insert("a")).await;
    kitchen.expect("server:event").await;
    till.expect("server:ack").await;
    till.expect("server:event").await;
    served.fake.release_outcome();
    till.silent().await;
}

#[tokio::test]
async fn a_repeated_request_is_answered_again_and_done_once() {
    let served = Served::new(|_| {}).await;
    let hello = r#"{"type":"client:hello","branchId":"dar","clientId":"till-7"}"#;
    let mut first = String::new();
    for round in 0..2 {
        let mut till = served.open("/ws").await;
        till.say(hello).await;
        till.expect("server:log").await;
        till.expect("server:snapshot").await;
        till.publish("r", r#""table":"tickets","record":{"title":"x"}"#).await;
        let ack = till.next_text().await;
        if round == 0 {
            till.expect("server:event").await;
            first = ack;
        } else {
            assert_eq!(ack, first);
            till.silent().await;
        }
    }
}

#[tokio::test]
async fn a_failed_publish_is_logged_and_answered() {
    let served = Served::new(|_| {}).await;
    let mut till = served.open("/ws").await;
    till.publish("early", &insert("a")).await;
    failed(&mut till, "early", "hello-required", "Client attempted publish before hello handshake")
        .await;
    till.say(r#"{"type":"client:hello","branchId":"dar"}"#).await;
    till.expect("server:log").await;
    till.expect("server:snapshot").await;
    let record = r#""record":{"id":"nope"}"#;
    for (n, (frame, code, message)) in [
        (
            format!(r#""table":"tickets","action":"module:merge",{record}"#),
            "record-not-found",
            r#"Record not found in table "tickets"."#,
        ),
        (
            format!(r#""table":"nope",{record}"#),
            "table-not-found",
            r#"Table "nope" not registered in module "pos""#,
        ),
        (record.to_owned(), "missing-table-name", "Missing table name for module event"),
        (
            format!(r#""action":"nope","table":"tickets",{record}"#),
            "unsupported-action",
            "Unsupported module action: nope",
        ),
        (
            r#""table":"tickets","action":"delete","record":{"foo":1}"#.to_owned(),
            "missing-record-key",
            r#"Missing primary key field "id" for table "tickets""#,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let request = n.to_string();
        till.publish(&request, &frame).await;
        failed(&mut till, &request, code, message).await;
    }
    till.say(r#"{"type":"client:publish","table":"tickets"}"#).await;
    let log = till.expect("server:log").await;
    assert_eq!(text(&log, &["message"]), "Module ID missing in publish payload");
    let error = till.expect("server:error").await;
    assert_eq!(at(&error, &["requestId"]).to_json(), "null");
    till.say(r#"{"type":"client:publish","moduleId":"no","table":"x","requestId":"t"}"#).await;
    failed(&mut till, "t", "module-not-found", r#"Module "no" not defined in modules.json"#).await;

    *served.fake.orders().refuse_submit.lock() = Some(RouteError::Indeterminate);
    till.publish("r", &insert("a")).await;
    let message = "the outcome is not known yet; retry with the same id";
    failed(&mut till, "r", "outcome-unknown", message).await;
}

async fn failed(socket: &mut Socket, request: &str, code: &str, message: &str) {
    let log = socket.expect("server:log").await;
    assert_eq!(text(&log, &["level"]), "error");
    assert_eq!(text(&log, &["message"]), message);
    let error = socket.expect("server:error").await;
    assert_eq!(members(&error), "type requestId code message details");
    assert_eq!(text(&error, &["requestId"]), request);
    assert_eq!((text(&error, &["code"]), text(&error, &["message"])), (code, message));
}

#[tokio::test]
async fn a_version_conflict_over_a_socket_says_what_is() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    till.publish("1", r#""table":"order_header","record":{"id":"o","shiftId":"s"}"#).await;
    till.expect("server:ack").await;
    till.expect("server:event").await;
    let stale = r#""table":"order_header","action":"merge","record":{"id":"o","version":9}"#;
    till.publish("2", stale).await;
    till.expect("server:log").await;
    let error = till.expect("server:error").await;
    assert_eq!(text(&error, &["code"]), "version-conflict");
    assert_eq!(
        at(&error, &["details"]).to_json(),
        r#"{"table":"order_header","key":"o","expectedVersion":9,"currentVersion":1}"#
    );
}

#[tokio::test]
async fn a_snapshot_asked_for_holds_all_events_before_it() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    for (n, (ask, reason)) in
        [("snapshot", "explicit-request"), ("history", "history-request")].iter().enumerate()
    {
        served.fake.write("dar", "pos", elsewhere(&format!("w{n}")));
        till.expect("server:event").await;
        till.say(&format!(r#"{{"type":"client:request:{ask}","requestId":"q{n}"}}"#)).await;
        let snapshot = till.expect("server:snapshot").await;
        assert_eq!(text(&snapshot, &["meta", "reason"]), *reason);
        assert_eq!(text(&snapshot, &["meta", "requestId"]), format!("q{n}"));
        let tickets = at(&snapshot, &["modules", "pos", "tables", "tickets"]).as_array().unwrap();
        assert_eq!(tickets.len(), n + 1);
    }
    served.fake.write("dar", "pos", elsewhere("last"));
    assert_eq!(text(&till.expect("server:event").await, &["sequence"]), "3");
}

#[tokio::test]
async fn who_fell_behind_or_lost_its_source_is_made_whole() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    served.fake.lag("dar", "pos");
    let snapshot = till.expect("server:snapshot").await;
    assert_eq!(text(&snapshot, &["meta", "reason"]), "resync");
    served.fake.write("dar", "pos", elsewhere("a"));
    till.expect("server:event").await;

    served.fake.orders().refuse_follow.lock().push(RouteError::Indeterminate);
    served.fake.end_follows("dar", "pos");
    served.fake.write("dar", "pos", elsewhere("b"));
    let event = loop {
        let frame = till.next().await;
        if text(&frame, &["type"]) == "server:event" {
            break frame;
        }
    };
    assert_eq!(text(&event, &["sequence"]), "2", "taken up where it was");
}

#[tokio::test]
async fn a_second_hello_moves_to_the_other_branch() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    till.say(r#"{"type":"client:hello","branchId":"two"}"#).await;
    till.expect("server:log").await;
    till.expect("server:snapshot").await;
    served.fake.write("dar", "pos", elsewhere("a"));
    till.silent().await;
    served.fake.write("two", "pos", elsewhere("b"));
    assert_eq!(text(&till.expect("server:event").await, &["branchId"]), "two");
}

#[tokio::test]
async fn a_module_outside_the_list_takes_publishes_too() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    let frame = r#"{"type":"client:publish","moduleId":"spare","table":"tickets","record":{}}"#;
    till.say(frame).await;
    till.expect("server:ack").await;
    assert_eq!(text(&till.expect("server:event").await, &["moduleId"]), "spare");
}

#[tokio::test]
async fn an_event_carries_the_snapshot_its_publish_asked_for() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    till.publish("r", &format!(r#"{},"includeSnapshot":true"#, insert("a"))).await;
    till.expect("server:ack").await;
    let event = till.expect("server:event").await;
    assert!(members(&event).ends_with("entry notice snapshot cursor"));
    assert_eq!(text(&event, &["snapshot", "moduleId"]), "pos");
}

#[tokio::test]
async fn binary_frames_are_read_and_what_is_not_json_is_logged() {
    let served = Served::new(|_| {}).await;
    let mut socket = served.open("/ws").await;
    socket.0.send(Message::binary(r#"{"type":"ping"}"#)).await.unwrap();
    assert_eq!(socket.next_text().await, r#"{"type":"pong"}"#);
    socket.0.send(Message::binary(vec![0xff, 0xfe])).await.unwrap();
    let log = socket.expect("server:log").await;
    assert_eq!(text(&log, &["message"]), "Received invalid JSON payload");
    socket.say(r#"{"type":"auth","token":"x"}"#).await;
    assert_eq!(socket.next_text().await, r#"{"type":"ack","event":"auth"}"#);
}

#[tokio::test]
async fn a_large_snapshot_arrives_whole_and_the_events_after_it() {
    let served = Served::new(|_| {}).await;
    let title = "x".repeat(300);
    for n in 0..3_000 {
        let record = [("id", format!("t-{n}")), ("title", title.clone())].into_iter().collect();
        let mutation = RecordMutation::new(Action::Insert, "tickets", record);
        served.fake.write("dar", "pos", mutation);
    }
    let mut till = served.open("/ws").await;
    till.say(r#"{"type":"client:hello","branchId":"dar"}"#).await;
    till.expect("server:log").await;
    served.fake.write("dar", "pos", elsewhere("meanwhile"));
    let snapshot = till.expect("server:snapshot").await;
    let tickets = at(&snapshot, &["modules", "pos", "tables", "tickets"]).as_array().unwrap();
    let known: u64 = tickets.len() as u64;
    served.fake.write("dar", "pos", elsewhere("last"));
    let event = till.expect("server:event").await;
    assert_eq!(text(&event, &["sequence"]), (known + 1).to_string());
}

#[tokio::test]
async fn a_hello_to_an_unknown_branch_is_refused_and_the_socket_stays() {
    let served = Served::new(|_| {}).await;
    served.fake.reconfigure(|catalogue| catalogue.default_modules.clear());
    let mut socket = served.open("/ws").await;
    socket.say(r#"{"type":"client:hello","branchId":"nowhere","requestId":"h"}"#).await;
    socket.expect("server:log").await;
    let error = socket.expect("server:error").await;
    assert_eq!(error.get("code").and_then(Value::as_str), Some("branch-not-found"));
    assert_eq!(error.get("requestId").and_then(Value::as_str), Some("h"));
    socket.say(r#"{"type":"client:hello","branchId":"dar"}"#).await;
    socket.expect("server:log").await;
    socket.expect("server:snapshot").await;
}

#[tokio::test]
async fn a_module_made_at_another_node_is_not_denied_to_a_socket() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    served.fake.fall_behind();
    till.publish("r-1", &insert("a")).await;
    let ack = till.expect("server:ack").await;
    assert_eq!(text(&ack, &["meta", "clientMeta", "requestId"]), "r-1");
    let unknown =
        r#"{"type":"client:publish","moduleId":"such","table":"t","record":{},"requestId":"r-2"}"#;
    till.expect("server:event").await;
    till.say(unknown).await;
    let message = r#"Module "such" not defined in modules.json"#;
    failed(&mut till, "r-2", "module-not-found", message).await;
}
