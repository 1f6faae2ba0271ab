//! Tests of spellings: what each kind of value is named by.

use super::*;

fn name(kind: FieldType, json: &str) -> String {
    kind.name_text(&Value::from_json(json.as_bytes()).unwrap()).unwrap()
}

#[test]
fn an_instant_is_named_as_javascript_writes_it() {
    for sent in [
        r#""2026-01-01T10:00:00Z""#,
        r#""2026-01-01T10:00:00.000Z""#,
        r#""2026-01-01T12:00:00+02:00""#,
        r#""2026-01-01 10:00:00""#,
        r#""2026-01-01T10:00:00.0000000Z""#,
    ] {
        assert_eq!(name(FieldType::Timestamp, sent), "2026-01-01T10:00:00.000Z", "{sent}");
    }
    let exact = r#""2026-01-01T12:00:00.0001+02:00""#;
    assert_eq!(
        name(FieldType::Timestamp, exact),
        "2026-01-01T10:00:00.000100Z",
        "and is never rounded"
    );
    assert_eq!(name(FieldType::Timestamp, r#""soon""#), "soon");
    assert_eq!(name(FieldType::String, r#""2026-01-01T10:00:00Z""#), "2026-01-01T10:00:00Z");
}

#[test]
fn a_day_a_time_and_json_have_one_name() {
    for (kind, sent, named) in [
        (FieldType::Date, r#""2026-01-01""#, "2026-01-01"),
        (FieldType::Date, r#""2026-01-01T02:00:00+02:00""#, "2026-01-01"),
        (FieldType::Date, r#""2026-01-01T10:00:00Z""#, "2026-01-01T10:00:00.000Z"),
        (FieldType::Time, r#""18:30""#, "18:30:00"),
        (FieldType::Time, r#""18:30:00.50""#, "18:30:00.5"),
        (FieldType::Time, r#""late""#, "late"),
        (
            FieldType::Json,
            r#"{"b":[1.0,{"d":1,"c":"x"}],"a":null}"#,
            r#"{"a":null,"b":[1,{"c":"x","d":1}]}"#,
        ),
        (FieldType::Json, r#""{ \"b\": 1, \"a\": 2 }""#, r#"{"a":2,"b":1}"#),
        (FieldType::Json, r#""words""#, "words"),
        (FieldType::Boolean, "1.0", "true"),
        (FieldType::Number, r#""1.50""#, "1.5"),
    ] {
        assert_eq!(name(kind, sent), named, "{sent}");
    }
}

#[test]
fn null_has_no_name_and_an_empty_text_is_no_zero() {
    assert_eq!(FieldType::Timestamp.name_text(&Value::Null), None);
    assert_eq!(FieldType::Number.name_text(&"".into()).as_deref(), Some(""));
}
