//! Tests of conditions: a value is found in any spelling, and what is none of its kind is refused.

use proptest::prelude::*;

use super::*;
use crate::schema::Schema;
use crate::testing::object;

fn value(json: &str) -> Value {
    Value::from_json(json.as_bytes()).unwrap()
}

/// A table with a field of this type, which may be its key.
fn table(kind: &str, key: bool) -> Table {
    let (id, f) = (r#"{"name":"id","type":"text"}"#, format!(r#""name":"f","type":"{kind}""#));
    let doc = format!(r#"[{{"name":"t","fields":[{id},{{{f},"primaryKey":{key}}}]}}]"#);
    (*Schema::from_definition("m", &value(&doc)).unwrap().tables[0]).clone()
}

fn filter(operator: Operator, value: &Value) -> Filter {
    Filter { field: "f".to_owned(), operator, value: value.clone() }
}

/// Whether a row that stores one value meets a condition with another.
fn asked(kind: FieldType, operator: Operator, stored: &Value, with: &Value) -> bool {
    let mut table = table("any", false);
    table.fields[1].kind = kind;
    let record = [("f", stored.clone())].into_iter().collect();
    Condition::new(&filter(operator, with), &table).holds(&record)
}

fn ask(operator: Operator, left: &str, right: &str) -> bool {
    asked(FieldType::Opaque, operator, &value(left), &value(right))
}

#[test]
fn the_same_is_stricter_than_equal() {
    use Operator::{Equal, Is, NotEqual};
    assert!(ask(Is, "1", "1.0") && !ask(Is, "1", r#""1""#) && ask(Is, "null", "null"));
    assert!(ask(Equal, "1", r#""1.00""#) && ask(Equal, r#"" 5 ""#, "5"));
    assert!(!ask(Equal, "1", "true") && !ask(Equal, "0", "null") && !ask(Equal, "0", r#""""#));
    assert!(ask(NotEqual, "1", "2") && !ask(NotEqual, r#""2""#, "2"));
    assert!(ask(Is, r#"{"a":[1]}"#, r#"{"a":[1.0]}"#) && !ask(Is, "[1]", "[1,2]"));
}

#[test]
fn numbers_are_ordered_by_value_and_texts_by_their_letters() {
    use Operator::{Greater, GreaterOrEqual, Less, LessOrEqual};
    assert!(ask(Greater, "10", "9") && ask(Greater, r#""10""#, "9") && ask(Less, "-2", "-1"));
    assert!(ask(Less, r#""10""#, r#""9""#), "two texts are texts");
    assert!(ask(Greater, r#""2026-11-22""#, r#""2026-11-21T00:00""#));
    assert!(ask(GreaterOrEqual, "1.0", "1") && ask(LessOrEqual, "1", "1.0"));
    assert!(ask(Greater, "1234567890123456789012345678901.5", "1234567890123456789012345678901"));
    assert!(!ask(Less, "null", "1") && !ask(Greater, "1", "null"));
}

#[test]
fn a_list_holds_what_is_equal_to_one_of_it() {
    use Operator::{In, NotIn};
    assert!(ask(In, "2", r#"["1","2"]"#) && !ask(In, "3", "[1,2]") && ask(In, "3", "3"));
    assert!(ask(NotIn, "3", "[1,2]") && !ask(NotIn, "null", "[null]") && !ask(In, "3", "[]"));
}

#[test]
fn a_value_is_found_in_any_spelling_of_its_field() {
    use Operator::{Equal, GreaterOrEqual, In, Is, Less, LessOrEqual, NotEqual, NotIn};
    for (kind, stored, sent) in [
        (
            FieldType::Boolean,
            "true",
            &[r#""true""#, r#""YES""#, "1", "1.0", r#""1""#, r#""on""#][..],
        ),
        (FieldType::Number, "1.50", &["1.5", r#""1.50""#, r#""15e-1""#, r#"" +1.5 ""#]),
        (FieldType::Integer, "7", &["7.0", r#""7""#, r#""7.0""#, r#""007""#]),
        (
            FieldType::Timestamp,
            r#""2026-01-01T10:00:00Z""#,
            &[
                r#""2026-01-01T10:00:00.000Z""#,
                r#""2026-01-01T12:00:00+02:00""#,
                r#""2026-01-01T10:00""#,
            ],
        ),
        (FieldType::Date, r#""2026-01-01""#, &[r#""2026-01-01T00:00:00.000Z""#, r#""20260101""#]),
        (FieldType::Time, r#""18:30""#, &[r#""18:30:00""#, r#""18:30:00.000""#]),
        (FieldType::Json, r#"{"a":1,"b":[2]}"#, &[r#""{\"b\": [2.0], \"a\":1}""#]),
    ] {
        for sent in sent {
            let list = format!("[null,{sent}]");
            let ask = |operator, with: &str| asked(kind, operator, &value(stored), &value(with));
            assert!(ask(Equal, sent) && ask(Is, sent) && ask(In, &list), "{stored} {sent}");
            assert!(!ask(NotEqual, sent) && !ask(NotIn, &list), "{stored} {sent}");
            if kind != FieldType::Json {
                assert!(ask(GreaterOrEqual, sent) && ask(LessOrEqual, sent), "{stored} {sent}");
                assert!(!ask(Less, sent), "{stored} {sent}");
            }
            assert!(asked(kind, Equal, &value(sent), &value(stored)), "as a seed stores it");
        }
    }
}

#[test]
fn instants_are_ordered_by_when_they_are() {
    let less = |a: &str, b: &str| asked(FieldType::Timestamp, Operator::Less, &a.into(), &b.into());
    assert!(less("2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00Z"));
    assert!(less("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.0001Z"));
    assert!(!less("2026-01-01T10:00:00.0001Z", "2026-01-01T10:00:00Z"));
    assert!(less("2026-01-01T10:00:00Z", "2026-02"), "a part of one is a text, as it always was");
    assert!(!asked(FieldType::Number, Operator::Less, &value("5"), &"abc".into()));
}

#[test]
fn a_reference_is_found_by_the_record_it_points_at() {
    let mut lines = crate::testing::table("lines", &["id", "orderId"]);
    lines.fields[1].references = Some(crate::testing::reference("orders", "id"));
    lines.fields[1].column = "order_id".into();
    let filter = Filter {
        field: "order_id".to_owned(),
        operator: Operator::Equal,
        value: value(r#"{"id":"o","name":"O"}"#),
    };
    let condition = Condition::new(&filter, &lines);
    assert!(condition.holds(&object(r#"{"orderId":"o"}"#)), "under the column's name too");
    assert!(condition.holds(&object(r#"{"orderId":{"id":"o"}}"#)));
    assert!(!condition.holds(&object(r#"{"orderId":"p"}"#)));
}

#[test]
fn what_cannot_be_of_the_fields_kind_is_told() {
    let misread = |kind: &str, validation, operator, sent: &str| {
        filter(operator, &value(sent)).misread(&table(kind, false), validation)
    };
    let strict = |kind, sent| misread(kind, Validation::Strict, Operator::Equal, sent);
    assert_eq!(
        strict("integer", r#""abc""#).as_deref(),
        Some(r#"t.f must be a whole number, but the condition says "abc""#)
    );
    for (kind, sent) in [
        ("decimal", "true"),
        ("decimal", r#""""#),
        ("bool", "5"),
        ("timestamp", r#""soon""#),
        ("timestamp", "1795220377740"),
        ("date", r#""soon""#),
        ("time", r#""25:00""#),
        ("text", "true"),
        ("text", "{}"),
    ] {
        assert!(strict(kind, sent).is_some(), "{kind} {sent}");
    }
    for (kind, sent) in [
        ("integer", "1.5"),
        ("decimal", r#""1.50""#),
        ("bool", r#""yes""#),
        ("text", "5"),
        ("json", "true"),
        ("uuid", "[]"),
        ("timestamp", "null"),
    ] {
        assert_eq!(strict(kind, sent), None, "{kind} {sent}");
    }
    assert!(misread("bool", Validation::Strict, Operator::In, r#"[1,"maybe"]"#).is_some());
    assert_eq!(misread("bool", Validation::Strict, Operator::Like, r#""maybe""#), None);
    assert!(misread("bool", Validation::Lenient, Operator::Equal, r#""maybe""#).is_some());
    assert_eq!(misread("timestamp", Validation::Lenient, Operator::Equal, r#""soon""#), None);
}

proptest! {
    #[test]
    fn a_list_holds_what_equals_one_of_its_values(
        kind in 0..KINDS.len(),
        stored in any_sent(),
        listed in prop::collection::vec(any_sent(), 0..6),
    ) {
        let kind = table(KINDS[kind], false).fields[1].kind;
        let list = Value::Array(listed.clone());
        let equals = |with| asked(kind, Operator::Equal, &stored, with);
        let expected = listed.iter().any(equals);
        prop_assert_eq!(asked(kind, Operator::In, &stored, &list), expected);
        prop_assert_eq!(asked(kind, Operator::NotIn, &stored, &list), !expected);
    }
}

/// A value as clients spell them: many of the same few, and whatever else.
pub(crate) fn any_sent() -> impl Strategy<Value = Value> {
    const SPELLED: [&str; 34] = [
        "1",
        "1.0",
        r#""1""#,
        r#""1.00""#,
        "1.5",
        r#""15e-1""#,
        "0",
        r#""-0""#,
        r#""007""#,
        "true",
        r#""true""#,
        r#""YES""#,
        "false",
        r#""off""#,
        r#""0""#,
        "20261121",
        r#""18""#,
        r#""2026-11-21""#,
        r#""2026-11-21T00:00:00Z""#,
        r#""2026-11-21T02:00:00.000+02:00""#,
        r#""2026-11-21T00:00:00.000000001Z""#,
        r#""20261121""#,
        r#""18:30""#,
        r#""18:30:00.0""#,
        r#""1969-12-31T23:59:59.9Z""#,
        r#""-000044-03-15T00:00:00Z""#,
        "1795220377740",
        r#"{"a":1,"b":2}"#,
        r#"{"b":2.0,"a":1}"#,
        r#""{ \"b\":2, \"a\":1 }""#,
        "[1]",
        "[1.0]",
        r#""[1]""#,
        r#"{"a":{"d":1,"c":null}}"#,
    ];
    prop_oneof![
        4 => (0..SPELLED.len()).prop_map(|place| value(SPELLED[place])),
        1 => "[0-9T:.Z+{}\\[\\]\"-]{1,12}".prop_map(Value::from),
        1 => "\\PC{1,5}".prop_map(Value::from),
    ]
}

const KINDS: [&str; 9] =
    ["text", "integer", "decimal", "bool", "date", "time", "timestamp", "uuid", "json"];

/// What a module stores of a value, unless that is not what was sent: an unreadable number or
/// boolean, and the text in a text of JSON.
fn stored(field: &Field, validation: Validation, sent: &Value) -> Option<Value> {
    match validation {
        Validation::Strict => field.validate("t", sent).ok(),
        Validation::Lenient => {
            let is_read = match field.kind {
                FieldType::Integer | FieldType::Number | FieldType::Boolean => {
                    field.kind.typed(sent).is_some()
                }
                FieldType::Json => field.kind.typed(sent).is_some() || sent.as_str().is_none(),
                FieldType::String
                | FieldType::Date
                | FieldType::Time
                | FieldType::Timestamp
                | FieldType::Opaque => true,
            };
            is_read.then(|| field.coerce(sent))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn a_condition_finds_what_a_write_of_the_same_spelling_names(
        (sent, other) in (any_sent(), any_sent()),
        kind in 0..KINDS.len(),
        strict in any::<bool>(),
    ) {
        let validation = if strict { Validation::Strict } else { Validation::Lenient };
        let table = table(KINDS[kind], true);
        let field = table.field("f").unwrap();
        let Some(value) = stored(field, validation, &sent) else { return Ok(()) };
        let key = |value: &Value| {
            table.key_of(&[("f", value.clone())].into_iter().collect()).unwrap()
        };
        prop_assert_eq!(key(&value), key(&sent), "stored and sent are one record");
        let is = |operator, with: &Value| asked(field.kind, operator, &value, with);
        prop_assert!(is(Operator::Is, &value));
        prop_assert!(is(Operator::Equal, &sent) && !is(Operator::NotEqual, &sent));
        prop_assert!(is(Operator::In, &vec![other.clone(), sent.clone()].into()));
        prop_assert_eq!(filter(Operator::Equal, &sent).misread(&table, validation), None);
        // Two names are two records; what is exactly the same has one name.
        if let Some(also) = stored(field, validation, &other) {
            prop_assert!(!is(Operator::Is, &also) || key(&also) == key(&value));
            let has_said = field.kind.typed(&value).is_some();
            prop_assert!(!has_said || is(Operator::Is, &also) == (key(&also) == key(&value)));
        }
    }

    #[test]
    fn a_key_of_any_kind_is_read_back_to_its_record(
        sent in prop::collection::vec((any_sent(), 0..KINDS.len()), 1..4),
    ) {
        let fields = sent.iter().enumerate().map(|(n, (_, kind))| {
            format!(r#"{{"name":"f{n}","type":"{}","primaryKey":true}}"#, KINDS[*kind])
        });
        let doc = format!(r#"[{{"name":"t","fields":[{}]}}]"#, fields.collect::<Vec<_>>().join(","));
        let table = Schema::from_definition("m", &value(&doc)).unwrap().tables.remove(0);
        let record: Object =
            sent.iter().enumerate().map(|(n, (sent, _))| (format!("f{n}"), sent.clone())).collect();
        let key = table.key_of(&record).unwrap();
        prop_assert_eq!(table.key_named(key.as_str()), Some(key.clone()));
        let shown = table.key_values(&record).unwrap();
        prop_assert_eq!(&table.key_of(&shown).unwrap(), &key);
        let named = table.fields_named(key.as_str()).unwrap();
        prop_assert_eq!(table.key_of(&named).unwrap(), key);
    }
}
