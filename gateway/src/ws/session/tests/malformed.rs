//! Stories of frames that cannot be read: their senders are answered.

use super::*;

fn error(sent: &[String]) -> Value {
    let last = sent.iter().find(|frame| frame.contains(r#""type":"server:error""#));
    Value::from_json(last.unwrap_or_else(|| panic!("{sent:?}")).as_bytes()).unwrap()
}

#[test]
fn a_publish_with_half_a_surrogate_pair_is_answered() {
    let mut story = Story::live();
    let sent = story.says(
        r#"{"type":"client:publish","moduleId":"pos","table":"tickets","record":{"id":"a","note":"x\ud83d"},"requestId":"r-1"}"#,
    );
    assert!(sent[0].contains("Received invalid JSON payload"), "{sent:?}");
    let error = error(&sent);
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap();
    assert_eq!((text("requestId"), text("code")), ("r-1", "invalid-json"));
    assert!(text("message").contains("record.note"), "{sent:?}");
    let details = error.get("details").unwrap();
    assert_eq!(details.get("path").and_then(Value::as_str), Some("record.note"));
    assert_eq!(details.get("line").and_then(Value::as_u64), Some(1));
}

#[test]
fn every_frame_that_cannot_be_read_is_answered_by_its_id() {
    let bad = [
        r#""x\ud83d""#.to_owned(),
        "01".to_owned(),
        "tru".to_owned(),
        format!("{}{}", "[".repeat(80), "]".repeat(80)),
        "9".repeat(500),
    ];
    let kinds = [
        "client:publish",
        "client:batch",
        "client:query",
        "client:hello",
        "client:request:snapshot",
        "client:request:history",
        "no such type",
    ];
    for bad in &bad {
        for kind in kinds {
            for frame in [
                format!(r#"{{"type":"{kind}","requestId":"r-1","x":{bad}}}"#),
                format!(r#"{{"x":{bad},"type":"{kind}","meta":{{"requestId":"r-1"}}}}"#),
            ] {
                let mut story = Story::live();
                let sent = story.says(&frame);
                let error = error(&sent);
                assert_eq!(error.get("requestId").and_then(Value::as_str), Some("r-1"), "{frame}");
                let queried = sent.iter().any(|frame| frame.contains("server:query:error"));
                assert_eq!(queried, kind == "client:query", "{sent:?}");
            }
        }
        let mut story = Story::live();
        let sent = story.says(&format!(r#"{{"type":"publish","topic":"t","data":{{"x":{bad}}}}}"#));
        assert!(sent[1].contains(r#""type":"error","code":"invalid-json""#), "{sent:?}");
        assert!(sent[1].contains(r#""topic":"t""#) && sent.len() == 2, "{sent:?}");
        let sent = story.says(&format!(r#"{{"type":"client:publish","x":{bad}}}"#));
        assert_eq!(sent.len(), 1, "nobody can match an answer without an id: {sent:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_answered_too() {
    let mut story = Story::live();
    let mut message = br#"{"requestId":"r-1","type":"client:publish","record":{"a":""#.to_vec();
    message.extend([0xff, b'"', b'}', b'}']);
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let sent = in_words(&story.session.on_message(&message, cx));
    assert!(error(&sent).get("message").and_then(Value::as_str).unwrap().contains("record.a"));
}

#[test]
fn a_frame_with_an_id_and_an_odd_member_is_answered() {
    for (frame, code) in [
        (r#"{"type":"nope","requestId":"r-1"}"#, "unknown-message-type"),
        (r#"{"requestId":"r-1"}"#, "unknown-message-type"),
        (r#"{"type":7,"requestId":"r-1"}"#, "unknown-message-type"),
        (r#"{"type":"client:hello","branchId":7,"requestId":"r-1"}"#, "invalid-body"),
        (r#"{"type":"client:request:snapshot","requestId":"r-1"}"#, "hello-required"),
        (r#"{"type":"publish","topic":7,"requestId":"r-1"}"#, "invalid-body"),
        (r#"{"type":"publish","data":{},"requestId":"r-1"}"#, "invalid-body"),
        (r#"{"type":"client:publish","moduleId":"pos","requestId":"r-1"}"#, "hello-required"),
    ] {
        let mut story = Story::begin();
        let error = error(&story.says(frame));
        assert_eq!(error.get("code").and_then(Value::as_str), Some(code), "{frame}");
        assert_eq!(error.get("requestId").and_then(Value::as_str), Some("r-1"), "{frame}");
    }
}
