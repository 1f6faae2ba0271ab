//! Stories of `docs/definitions.md`: every example in it is read, by the store and by the JSON
//! Schema that editors get, and both say the same.

use model::{Schema, Value};

use crate::client::Rest;

const DOCUMENT: &str = include_str!("../../../docs/definitions.md");

/// The examples of the document that are marked so.
fn examples(mark: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    for block in DOCUMENT.split("\n```json ").skip(1) {
        let (first, rest) = block.split_once('\n').unwrap();
        if first == mark {
            found.push(rest.split_once("\n```").unwrap().0);
        }
    }
    assert!(!found.is_empty(), "no example is marked {mark}");
    found
}

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// As much of JSON Schema as the schema served uses.
fn valid(schema: &Value, value: &Value, root: &Value) -> bool {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.strip_prefix("#/$defs/").unwrap();
        return valid(root.get("$defs").unwrap().get(name).unwrap(), value, root);
    }
    let holds = |word: &str, rule: &Value| match (word, value) {
        ("anyOf", _) => rule.as_array().unwrap().iter().any(|one| valid(one, value, root)),
        ("enum", _) => rule.as_array().unwrap().contains(value),
        ("type", _) => match rule.as_str().unwrap() {
            "object" => value.as_object().is_some(),
            "array" => value.as_array().is_some(),
            "string" => value.as_str().is_some(),
            "boolean" => value.as_bool().is_some(),
            "integer" => value.as_u64().is_some(),
            other => panic!("{other}"),
        },
        ("pattern", Value::String(text)) => {
            regex_lite::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)
        }
        ("minItems", Value::Array(items)) => items.len() as u64 >= rule.as_u64().unwrap(),
        ("minProperties", Value::Object(members)) => members.len() as u64 >= rule.as_u64().unwrap(),
        ("items", Value::Array(items)) => items.iter().all(|item| valid(rule, item, root)),
        ("required", Value::Object(members)) => {
            let mut names = rule.as_array().unwrap().iter();
            names.all(|name| members.get(name.as_str().unwrap()).is_some())
        }
        ("propertyNames", Value::Object(members)) => {
            members.iter().all(|(name, _)| valid(rule, &Value::from(&**name), root))
        }
        ("properties", Value::Object(members)) => members
            .iter()
            .all(|(name, member)| rule.get(name).is_none_or(|rule| valid(rule, member, root))),
        ("additionalProperties", Value::Object(members)) => {
            let named = |name: &str| schema.get("properties").and_then(|of| of.get(name)).is_some();
            let mut others = members.iter().filter(|(name, _)| !named(name));
            match rule.as_bool() {
                Some(allowed) => allowed || others.next().is_none(),
                None => others.all(|(_, member)| valid(rule, member, root)),
            }
        }
        _ => true,
    };
    schema.as_object().is_none_or(|rules| rules.iter().all(|(word, rule)| holds(word, rule)))
}

#[tokio::test]
async fn every_example_of_a_definition_does_what_is_said_of_it() {
    let rest = Rest::new();
    let served = rest.get("/api/definition-schema").await;
    assert_eq!(served.status, 200, "{}", served.raw);
    let schema = served.body;
    let strict = |doc: &Value| Schema::read("m", doc).and_then(model::schema::ParsedSchema::strict);
    for text in examples("definition") {
        let doc = json(text);
        strict(&doc).unwrap_or_else(|error| panic!("{error}"));
        assert!(valid(&schema, &doc, &schema), "{text}");
        let body = format!(r#"{{"id":"m{}","schema":{text}}}"#, text.len());
        assert_eq!(rest.post("/api/modules", &body).await.status, 201, "{text}");
    }
    for text in examples("definition-other") {
        strict(&json(text)).unwrap_or_else(|error| panic!("{error}"));
    }
    let mut expressible = 0;
    for text in examples("refused-strict") {
        let doc = json(text);
        assert!(strict(&doc).is_err(), "{text}");
        assert!(Schema::read("m", &doc).unwrap().warnings().next().is_some(), "{text}");
        expressible += usize::from(!valid(&schema, &doc, &schema));
        let body = format!(r#"{{"id":"refused","schema":{text}}}"#);
        assert_eq!(rest.post("/api/modules", &body).await.code(), (400, "invalid-definition"));
    }
    assert_eq!(expressible, 3, "unknown members and an unknown type; what is missing is not");
    for text in examples("refused") {
        let doc = json(text);
        assert!(Schema::read("m", &doc).is_err() && !valid(&schema, &doc, &schema), "{text}");
    }
}
