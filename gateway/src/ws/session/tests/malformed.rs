//! Frames that cannot be read, of every type: their senders are answered.

use super::*;

fn error(sent: &[String]) -> Value {
    let last = sent.iter().find(|frame| frame.contains(r#""type":"server:error""#));
    Value::from_json(last.unwrap_or_else(|| panic!("{sent:?}")).as_bytes()).unwrap()
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
