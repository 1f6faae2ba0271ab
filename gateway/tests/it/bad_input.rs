//! Whatever is sent, the answer is a 4xx that says what is wrong; nothing panics.

use std::sync::atomic::Ordering;

use model::Value;

use crate::client::{Rest, members};

const M: &str = "/api/branches/dar/modules/pos";

/// Every refusal has the members clients rely on.
async fn refused(rest: &Rest, method: &str, path: &str, body: Vec<u8>) -> (u16, String) {
    let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    let answer = rest.send_bytes(method, path, body, &[]).await;
    assert!((400..500).contains(&answer.status), "{method} {path} {shown}: {}", answer.raw);
    let shape = members(&answer.body);
    assert!(shape.starts_with("error message "), "{shape}");
    assert!(shape.ends_with("type title status detail instance"), "{shape}");
    assert!(shape.contains(" details "), "{shape}");
    assert_eq!(answer.header("content-type"), "application/json");
    (answer.status, answer.text("error").to_owned())
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_everywhere() {
    let rest = Rest::new();
    let deep = format!("{}{}", r#"{"a":"#.repeat(65), "}".repeat(65));
    let bad: [&[u8]; 10] = [
        b"{bad",
        b"{\"a\":}",
        b"\xff\xfe",
        b"\"\\ud800\"",
        b"{\"a\":01}",
        b"{} {}",
        b"[]",
        b"5",
        b"\"text\"",
        deep.as_bytes(),
    ];
    for body in bad {
        for (method, path) in [
            ("POST", format!("{M}/tables/tickets")),
            ("PATCH", format!("{M}/tables/tickets")),
            ("PUT", format!("{M}/tables/tickets/records")),
            ("DELETE", format!("{M}/tables/tickets")),
            ("POST", format!("{M}/save")),
            ("POST", format!("{M}/sequences")),
            ("POST", format!("{M}/orders")),
            ("POST", "/api/sync/dar/pos".to_owned()),
            ("POST", "/api/sync/dar/pos/delta".to_owned()),
            ("POST", "/api/query/module".to_owned()),
            ("POST", format!("{M}/events")),
            ("POST", format!("{M}/events/batch")),
            ("POST", format!("{M}/batch")),
            ("POST", format!("{M}/reset")),
            ("POST", "/api/manage/full-sync".to_owned()),
            ("DELETE", "/api/manage/full-sync".to_owned()),
            ("POST", "/api/manage/daily-reset".to_owned()),
            ("POST", "/api/manage/purge-live-data".to_owned()),
            ("POST", "/api/manage/purge-history".to_owned()),
        ] {
            let (status, code) = refused(&rest, method, &path, body.to_vec()).await;
            assert_eq!(status, 400);
            assert!(matches!(code.as_str(), "invalid-json" | "invalid-body"), "{code}");
        }
    }
    let (_, code) = refused(&rest, "POST", M, deep.into_bytes()).await;
    assert_eq!(code, "invalid-json");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_names_member_and_position() {
    let rest = Rest::new();
    let body = "{\"record\":{\"id\":\"a\",\n\"note\":\"x\\ud83d\"}}";
    let answer = rest.post(&format!("{M}/tables/tickets"), body).await;
    assert_eq!(answer.code(), (400, "invalid-json"));
    assert!(answer.text("message").contains("record.note, at line 2 column"), "{}", answer.raw);
    assert_eq!(answer.detail("path"), "record.note");
    let details = answer.body.get("details").unwrap();
    assert_eq!(details.get("line").and_then(Value::as_u64), Some(2));
    assert_eq!(details.get("byte").and_then(Value::as_u64), Some(36));
}

#[tokio::test]
async fn members_of_the_wrong_type_are_refused() {
    let rest = Rest::new();
    for (path, body) in [
        ("tables/tickets", r#"{"record":5}"#),
        ("tables/tickets", r#"{"record":[]}"#),
        ("save", r#"{"table":"tickets","record":"x"}"#),
        ("save", r#"{"table":"tickets","record":{},"concurrency":1}"#),
        ("save", r#"{"table":{},"record":{}}"#),
        ("save", r#"{"table":"Bad Name","record":{}}"#),
        ("sequences", r#"{"table":[],"field":"id"}"#),
    ] {
        let body = body.as_bytes().to_vec();
        assert_eq!(refused(&rest, "POST", &format!("{M}/{path}"), body).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn names_outside_the_rules_say_the_rule() {
    let rest = Rest::new();
    let long = "x".repeat(129);
    for path in [
        "/api/branches/a%2Fb".to_owned(),
        "/api/branches/a%5Cb/modules".to_owned(),
        "/api/branches/%2E%2E".to_owned(),
        "/api/branches/a%00b".to_owned(),
        format!("/api/branches/{long}"),
        "/api/branches/dar/modules/POS".to_owned(),
        "/api/branches/dar/modules/p%20s/tables/tickets".to_owned(),
        format!("{M}/tables/1st"),
        format!("{M}/tables/a-b"),
        "/api/schema?branch=a/b".to_owned(),
        "/api/state?branch=..".to_owned(),
    ] {
        let (status, code) = refused(&rest, "GET", &path, Vec::new()).await;
        assert_eq!((status, code.as_str()), (400, "invalid-name"), "{path}");
    }
    let answer = rest.get("/api/branches/dar/modules/POS").await;
    assert_eq!(answer.detail("rule"), "1 to 63 characters out of a-z, 0-9, '_' and '-'");
}

#[tokio::test]
async fn bad_percent_encoding_is_refused_wherever_it_stands() {
    let rest = Rest::new();
    for path in [
        "/%E0%A4%A",
        "/api/branches/%FF",
        "/api/branches/%zz",
        "/api/branches/dar%",
        "/api/branches/dar/modules/pos/tables/tickets?limit=%F",
        "/api/schema?branch=%C3%28",
    ] {
        let (status, code) = refused(&rest, "GET", path, Vec::new()).await;
        assert_eq!((status, code.as_str()), (400, "invalid-encoding"), "{path}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let rest = Rest::new();
    let path = format!("{M}/tables/tickets");
    let large = format!(r#"{{"title":"{}"}}"#, "x".repeat(1024 * 1024));
    let (status, code) = refused(&rest, "POST", &path, large.into_bytes()).await;
    assert_eq!((status, code.as_str()), (413, "body-too-large"));
    let long = format!("{path}?after={}", "x".repeat(8 * 1024));
    let (status, code) = refused(&rest, "GET", &long, Vec::new()).await;
    assert_eq!((status, code.as_str()), (414, "uri-too-long"));
    let header = "x".repeat(16 * 1024);
    let answer = rest.send("GET", &path, "", &[("x-large", header.as_str())]).await;
    assert_eq!(answer.code(), (431, "headers-too-large"));
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused() {
    let rest = Rest::new();
    let headers = [("upgrade", "websocket"), ("connection", "upgrade")];
    let answer = rest.send("GET", "/ws", "", &headers).await;
    assert_eq!(answer.code(), (400, "invalid-upgrade"));
}

#[tokio::test]
async fn a_defect_is_answered_in_the_same_shape() {
    let rest = Rest::new();
    rest.fake.orders().panic.store(true, Ordering::SeqCst);
    let answer = rest.get(M).await;
    assert_eq!(answer.code(), (500, "defect"));
    assert!(members(&answer.body).ends_with("type title status detail instance"));
    assert!(!answer.raw.contains("as ordered"), "what panicked is for the log");
    rest.fake.orders().panic.store(false, Ordering::SeqCst);
    assert_eq!(rest.get(M).await.status, 200);
}

/// What is kept or repeated in every event is short, whatever way it comes in.
#[tokio::test]
async fn long_texts_beside_records_are_refused() {
    let rest = Rest::new();
    let long = "x".repeat(257);
    let large = "x".repeat(17 * 1024);
    let record = r#""record":{"id":"a"}"#;
    for body in [
        format!(r#"{{"table":"tickets",{record},"source":"{long}"}}"#),
        format!(r#"{{"table":"tickets",{record},"userId":"{long}"}}"#),
        format!(r#"{{"table":"tickets",{record},"eventId":"{long}"}}"#),
        format!(r#"{{"table":"tickets",{record},"meta":{{"note":"{large}"}}}}"#),
        format!(r#"{{"table":"{long}",{record}}}"#),
    ] {
        let event = rest.post(&format!("{M}/events"), &body).await;
        assert_eq!(event.status, 400, "{}", event.raw);
        let batch = rest.post(&format!("{M}/batch"), &format!(r#"{{"verbs":[{body}]}}"#)).await;
        assert_eq!(batch.status, 400, "{}", batch.raw);
        // An answer has no more than what was sent, and as much again.
        assert!(batch.raw.len() < 2 * body.len() + 1024, "{} bytes", batch.raw.len());
    }
    let labels = format!(r#"{{"id":"b","label":"{long}"}}"#);
    assert_eq!(rest.post("/api/branches", &labels).await.code(), (400, "invalid-body"));
    let module = format!(r#"{{"id":"m","tables":["t"],"description":"{}"}}"#, "x".repeat(1025));
    assert_eq!(rest.post("/api/modules", &module).await.code(), (400, "invalid-body"));
}
