//! Stories of rows asked for over a socket.

use model::{QueryPage, TableName};

use super::*;

fn page(rows: &[&str]) -> Result<Answer, RouteError> {
    let row = |json: &&str| {
        Arc::new(Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone())
    };
    let table = TableName::parse("tickets").unwrap();
    Ok(Answer::Query(QueryPage { table, rows: rows.iter().map(row).collect() }))
}

fn query(more: &str) -> String {
    format!(r#"{{"type":"client:query","moduleId":"pos","requestId":"q",{more}}}"#)
}

#[test]
fn a_list_is_asked_for_by_strict_conditions_and_shown_as_found() {
    let mut story = Story::live();
    let sent = story.says(&query(r#""table":"tickets","filter":{"n":1},"populate":false"#));
    assert_eq!(
        sent,
        [
            r#"read Query(Query { table: "tickets", key: None, filters: [Filter { field: "n", operator: Is, value: Number(Number("1")) }], order_by: [], offset: 0, limit: None, populate: false }) of pos now as 3"#
        ]
    );
    assert_eq!(
        story.answers(3, page(&[r#"{"id":"a"}"#])),
        [
            r#"{"type":"server:query:result","requestId":"q","table":"tickets","queryType":"list","result":[{"id":"a"}],"timestamp":"2026-11-21T00:19:37.740Z"}"#
        ]
    );
}

#[test]
fn one_record_is_asked_for_by_its_key() {
    let mut story = Story::live();
    let sent = story.says(&query(r#""table":"tickets","queryType":"get","id":"a""#));
    assert!(sent[0].contains(r#"key: Some("a"), filters: []"#), "{sent:?}");
    assert!(sent[0].contains("limit: Some(1), populate: true"), "{sent:?}");
    let sent = story.answers(3, page(&[]));
    assert!(sent[0].contains(r#""queryType":"get","result":null"#), "{sent:?}");
}

#[test]
fn what_cannot_be_asked_is_said_in_the_originals_words() {
    let mut story = Story::live();
    let error = |story: &mut Story, more: &str| {
        let sent = story.says(&query(more));
        let frame = Value::from_json(sent[0].as_bytes()).unwrap();
        assert_eq!(frame.get("type").and_then(Value::as_str), Some("server:query:error"));
        frame.get("error").and_then(Value::as_str).unwrap().to_owned()
    };
    assert_eq!(
        error(&mut story, r#""table":"tickets","queryType":"get""#),
        "Missing record ID for get query"
    );
    assert_eq!(
        error(&mut story, r#""table":"zzz""#),
        r#"Table "zzz" not registered in module "pos""#
    );
    let sent = Story::begin().says(&query(r#""table":"tickets""#));
    assert!(sent[0].contains("Client attempted query before hello handshake"), "{sent:?}");
    let sent = story.says(r#"{"type":"client:query","table":"tickets"}"#);
    assert!(sent[0].contains("Module ID missing in query payload"), "{sent:?}");
}

#[test]
fn a_query_that_fails_is_answered_and_too_many_at_once_are_not_read() {
    let mut story = Story::live();
    for _ in 0..crate::limits::QUERIES_AT_ONCE {
        assert!(!story.session.is_busy());
        story.says(&query(r#""table":"tickets""#));
    }
    assert!(story.session.is_busy());
    let sent = story.answers(3, Err(RouteError::Indeterminate));
    assert!(sent[0].contains("server:query:error"), "{sent:?}");
    assert!(!story.session.is_busy());
}
