//! Stories of keys: what is one record, and how it is found by the text its key is shown as.

use model::Value;

use crate::client::{Answered, Rest, Served, at};

const M: &str = "/api/branches/dar/modules/pos";

pub(crate) fn key(answer: &Answered) -> String {
    at(&answer.body, &["ack", "recordRef", "key"]).as_str().unwrap().to_owned()
}

/// A text as a part of a path or a parameter.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

pub(crate) fn seen(answer: &Answered, field: &str) -> Vec<String> {
    let rows = answer.body.get("rows").and_then(Value::as_array).unwrap();
    rows.iter().map(|row| row.get(field).and_then(Value::key_text).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn two_values_are_two_records_whatever_they_hold() {
    let rest = Rest::new();
    let path = format!("{M}/tables/thing");
    // One text when simply joined, two values each.
    for (a, key_shown) in [("A:", "A~:::1"), ("A", "A::1"), ("~A", "~A::1"), ("A~", "A~~::1")] {
        let sent = format!(r#"{{"a":"{a}","b":1.0,"n":1}}"#);
        let made = rest.post(&path, &sent).await;
        assert_eq!((made.status, key(&made)), (201, key_shown.to_owned()), "{}", made.raw);
        let changed = rest.patch(&path, &format!(r#"{{"a":"{a}","b":"1","n":2}}"#)).await;
        assert_eq!((changed.status, key(&changed)), (200, key_shown.to_owned()));
        let read = rest.get(&format!("{path}/{}", encoded(key_shown))).await;
        assert_eq!(at(&read.body, &["record", "a"]).as_str(), Some(a), "{}", read.raw);
        assert_eq!(at(&read.body, &["recordRef", "key"]).as_str(), Some(key_shown));
    }
    let gone = rest.delete(&format!("{path}?id={}", encoded("A~:::1.0")), "").await;
    assert_eq!(gone.status, 200, "{}", gone.raw);
    assert_eq!(rest.get(&format!("{path}/A~:::1")).await.code(), (404, "record-not-found"));
    assert_eq!(rest.get(&format!("{path}/A::1")).await.status, 200);
}

#[tokio::test]
async fn a_record_is_read_by_its_key_and_its_version_is_its_etag() {
    let rest = Rest::new();
    let orders = format!("{M}/tables/order_header");
    let made = rest.post(&orders, r#"{"shiftId":"s","statusId":"open"}"#).await;
    let id = key(&made);
    for path in [format!("{orders}/{id}"), format!("{orders}/records/{id}")] {
        let read = rest.get(&path).await;
        assert_eq!((read.status, read.header("etag")), (200, "\"1\""), "{}", read.raw);
        assert_eq!(at(&read.body, &["record", "id"]).as_str(), Some(id.as_str()));
        assert_eq!(at(&read.body, &["table"]).as_str(), Some("order_header"));
    }
    rest.patch(&orders, &format!(r#"{{"id":"{id}","version":2,"statusId":"closed"}}"#)).await;
    assert_eq!(rest.get(&format!("{orders}/{id}")).await.header("etag"), "\"2\"");
    let tickets = format!("{M}/tables/tickets");
    for id in ["a/b", "50%", "ن::ا", "records", "a b"] {
        rest.post(&tickets, &format!(r#"{{"id":"{id}"}}"#)).await;
        let read = rest.get(&format!("{tickets}/records/{}", encoded(id))).await;
        assert_eq!(at(&read.body, &["record", "id"]).as_str(), Some(id), "{}", read.raw);
    }
    assert_eq!(rest.get(&format!("{tickets}/nobody")).await.code(), (404, "record-not-found"));
    assert_eq!(rest.get(&format!("{M}/tables/no/a")).await.code(), (404, "table-not-found"));
    assert_eq!(rest.get(&format!("{tickets}/a/b")).await.code(), (404, "not-found"));
}

#[tokio::test]
async fn a_record_is_changed_and_removed_by_its_key() {
    let rest = Rest::new();
    let tickets = format!("{M}/tables/tickets");
    for id in ["a", "b::c", "50%"] {
        rest.post(&tickets, &format!(r#"{{"id":"{id}","title":"x"}}"#)).await;
        let one = format!("{tickets}/{}", encoded(id));
        let changed = rest.patch(&one, r#"{"title":"y"}"#).await;
        assert_eq!(changed.status, 200, "{}", changed.raw);
        assert_eq!(at(&rest.get(&one).await.body, &["record", "title"]).as_str(), Some("y"));
        let wrapped =
            rest.patch(&one, &format!(r#"{{"record":{{"id":"{id}","title":"z"}}}}"#)).await;
        assert_eq!(at(&wrapped.body, &["record", "title"]).as_str(), Some("z"));
        let other = rest.patch(&one, r#"{"id":"other","title":"w"}"#).await;
        assert_eq!(other.code(), (400, "invalid-body"));
        assert!(other.text("message").contains("what was sent is other"), "{}", other.raw);
        assert_eq!(rest.delete(&one, "").await.status, 200);
        assert_eq!(rest.get(&one).await.code(), (404, "record-not-found"));
        assert_eq!(rest.delete(&one, "").await.status, 404);
    }
}

#[tokio::test]
async fn newest_first_is_read_page_by_page() {
    let rest = Rest::new();
    let path = format!("{M}/tables/tickets");
    for n in 1..=12 {
        rest.post(&path, &format!(r#"{{"id":"t{n:02}"}}"#)).await;
    }
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("{path}?limit=5&order=desc{after}")).await;
        let rows = seen(&page, "id");
        if rows.is_empty() {
            break;
        }
        let cursor = at(&page.body, &["cursor", "key"]).as_str().unwrap().to_owned();
        all.extend(rows);
        // The row the page ended with goes, and a newer one comes.
        rest.delete(&path, &format!(r#"{{"id":"{cursor}"}}"#)).await;
        rest.post(&path, &format!(r#"{{"id":"new-{cursor}"}}"#)).await;
        after = format!("&afterKey={cursor}");
    }
    let expected: Vec<String> = (1..=12).rev().map(|n| format!("t{n:02}")).collect();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn a_cursor_says_where_it_stands_and_whether_it_was_known() {
    let rest = Rest::new();
    let path = format!("{M}/tables/thing");
    for b in ["6221031490017.0", "1.50", "1e3"] {
        rest.post(&path, &format!(r#"{{"a":"x","b":{b}}}"#)).await;
    }
    let page = rest.get(&format!("{path}?limit=2")).await;
    assert!(page.body.get("meta").unwrap().get("cursorMatched").is_none());
    let first = seen(&page, "b");
    let key = at(&page.body, &["cursor", "key"]).as_str().unwrap().to_owned();
    assert_eq!(key, "x::6221031490017", "the seed's row came first: {first:?}");
    for after in [
        "afterKey=x::6221031490017",
        "afterKey=x::6221031490017.0",
        "cursor=x%3A%3A6.221031490017e12",
        "afterId=x::6221031490017.00",
        "afterPosition=1.1",
    ] {
        let next = rest.get(&format!("{path}?{after}")).await;
        assert_eq!(seen(&next, "b"), ["1.50", "1e3"], "{after}");
        assert_eq!(at(&next.body, &["meta", "cursorMatched"]).to_json(), "true", "{after}");
        assert_eq!(at(&next.body, &["cursor", "key"]).as_str(), Some("x::1000"));
        assert_eq!(at(&next.body, &["cursor", "position"]).as_str(), Some("1.3"));
    }
    for after in ["afterKey=x::7", "afterPosition=9.1", "afterPosition=1.99"] {
        let all = rest.get(&format!("{path}?{after}")).await;
        assert_eq!(seen(&all, "b").len(), 4, "{after}");
        assert_eq!(at(&all.body, &["meta", "cursorMatched"]).to_json(), "false", "{after}");
    }
    let refused = rest.get(&format!("{path}?afterPosition=x")).await;
    assert_eq!(refused.code(), (400, "invalid-parameter"));
}

#[tokio::test]
async fn a_delta_finds_a_key_in_any_spelling_and_form() {
    let rest = Rest::new();
    for sent in [r#"{"a":"A:","b":1.50}"#, r#"{"a":"z","b":2.0}"#] {
        rest.post(&format!("{M}/tables/thing"), sent).await;
    }
    let ask = async |cursor: &str| {
        let body = format!(r#"{{"lastTableIds":{{"thing":{cursor}}}}}"#);
        rest.post("/api/sync/dar/pos/delta", &body).await
    };
    let whole = ask("null").await;
    assert_eq!(at(&whole.body, &["lastTableIds", "thing"]).as_str(), Some("z::2"));
    for cursor in [
        r#""A~:::1.5""#,
        r#""A~:::1.500""#,
        r#"["A:",1.5]"#,
        r#"{"primaryKey":{"b":"1.50","a":"A:"}}"#,
        r#"{"key":"A~:::1.5"}"#,
    ] {
        let delta = ask(cursor).await;
        let rows = at(&delta.body, &["deltas", "thing"]).as_array().unwrap();
        assert_eq!(rows.len(), 1, "{cursor}: {}", delta.raw);
        assert_eq!(at(&delta.body, &["requiresFullSync"]).to_json(), "false", "{cursor}");
    }
    for cursor in [r#""A:::1.5""#, r#"["A",1.5]"#] {
        let delta = ask(cursor).await;
        assert_eq!(at(&delta.body, &["requiresFullSync"]).to_json(), "true", "{cursor}");
    }
}

#[tokio::test]
async fn a_query_finds_a_record_by_the_text_of_its_key() {
    let served = Served::new(|_| ()).await;
    let mut socket = served.enter("dar").await;
    socket.publish("r", r#""table":"thing","record":{"a":"A:","b":1.50,"n":3}"#).await;
    assert_eq!(
        at(&socket.expect("server:ack").await, &["recordRef", "key"]).as_str(),
        Some("A~:::1.5")
    );
    socket.expect("server:event").await;
    for (id, found) in [("A~:::1.5", "3"), ("A~:::1.50", "3"), ("A:::1.5", "null")] {
        socket
            .say(&format!(
                r#"{{"type":"client:query","moduleId":"pos","table":"thing","queryType":"get","id":"{id}"}}"#
            ))
            .await;
        let answer = socket.expect("server:query:result").await;
        let result = answer.get("result").unwrap();
        assert_eq!(result.get("n").unwrap_or(&Value::Null).to_json(), found, "{id}");
    }
}

#[tokio::test]
async fn records_asked_for_in_the_hello_come_with_every_event() {
    let served = Served::new(|_| ()).await;
    let mut plain = served.enter("dar").await;
    let mut asking = served.open("/ws").await;
    asking.say(r#"{"type":"client:hello","branchId":"dar","records":true}"#).await;
    asking.expect("server:log").await;
    asking.expect("server:snapshot").await;
    for (action, record) in [
        ("module:insert", r#"{"id":"t","title":"one"}"#),
        ("module:merge", r#"{"id":"t","title":"two"}"#),
        ("module:delete", r#"{"id":"t"}"#),
    ] {
        plain
            .publish(action, &format!(r#""action":"{action}","table":"tickets","record":{record}"#))
            .await;
        plain.expect("server:ack").await;
        let event = plain.expect("server:event").await;
        assert!(at(&event, &["entry"]).get("record").is_none(), "nobody asked");
        let event = asking.expect("server:event").await;
        let title = at(&event, &["entry", "record", "title"]).as_str().unwrap();
        assert_eq!(title, if action == "module:insert" { "one" } else { "two" }, "{action}");
    }
    asking.say(r#"{"type":"client:hello","branchId":"dar","records":7}"#).await;
    let log = asking.expect("server:log").await;
    assert_eq!(at(&log, &["message"]).as_str(), Some("Client registered"));
    let log = asking.expect("server:log").await;
    assert!(at(&log, &["message"]).as_str().unwrap().contains("records is not used"));
}
