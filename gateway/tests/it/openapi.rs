//! Stories of the document: it has every route, no other, and answers are as it says.

use serde_json::Value;

use crate::client::Rest;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

async fn document(rest: &Rest) -> Value {
    let answer = rest.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    serde_json::from_str(&answer.raw).unwrap()
}

/// A path with something that is there for every name in it.
fn filled(path: &str) -> String {
    [
        ("{branch}", "dar"),
        ("{module}", "pos"),
        ("{table}", "tickets"),
        ("{field}", "id"),
        ("{rest}", "version"),
        ("{name}", "kept"),
        ("{id}", "1"),
        ("{order}", "1"),
        ("{key}", "t-1"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let rest = Rest::new();
    let document = document(&rest).await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{}", paths.len());
    for (path, item) in paths {
        for method in METHODS {
            let answer = rest.send(&method.to_uppercase(), &filled(path), "{}", &[]).await;
            let error = answer.body.get("error").and_then(model::Value::as_str).unwrap_or("");
            let is_routed = !matches!(error, "not-found" | "method-not-allowed");
            let is_described = item.get(method).is_some();
            assert_eq!(is_routed, is_described, "{method} {path}: {} {error}", answer.status);
        }
    }
}

/// Whether a value has this shape; else where it has not.
fn matches(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let named = document.pointer(name.trim_start_matches('#')).unwrap();
        return matches(document, named, value, at);
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        let some = any.iter().any(|one| matches(document, one, value, at).is_ok());
        return if some { Ok(()) } else { Err(format!("{at}: {value}")) };
    }
    let words = schema.get("enum").and_then(Value::as_array);
    let fits = match schema.get("type").and_then(Value::as_str) {
        None => true,
        Some("string") => value.is_string() && words.is_none_or(|words| words.contains(value)),
        Some("integer" | "number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{other}"),
    };
    if !fits {
        return Err(format!("{at}: {value} is not {schema}"));
    }
    for item in value.as_array().into_iter().flatten() {
        if let Some(items) = schema.get("items") {
            matches(document, items, item, &format!("{at}[]"))?;
        }
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at}.{name} is missing"));
        }
    }
    for (name, member) in object {
        let at = format!("{at}.{name}");
        match (schema.pointer(&format!("/properties/{name}")), schema.get("additionalProperties")) {
            (Some(known), _) | (None, Some(known)) => matches(document, known, member, &at)?,
            (None, None) if schema.get("properties").is_some() => {
                return Err(format!("{at} is not told of"));
            }
            (None, None) => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn answers_have_the_shapes_that_the_document_shows() {
    let rest = Rest::new();
    let document = document(&rest).await;
    let tickets = "/api/branches/{branch}/modules/{module}/tables/{table}";
    let small = r#"{"tables":[{"name":"t","fields":[{"name":"id","type":"text"}]}]}"#;
    let module = format!(r#"{{"id":"m","schema":{small}}}"#);
    let schema = format!(r#"{{"schema":{small}}}"#);
    for (status, method, path, body) in [
        (201, "post", tickets, r#"{"record":{"id":"t-1","title":"a"},"meta":{"requestId":"r"}}"#),
        (201, "post", "/api/modules", &*module),
        (201, "post", "/api/branches", r#"{"id":"b","modules":["m"]}"#),
        (200, "post", "/api/branches/{branch}/modules", r#"{"id":"m"}"#),
        (200, "post", "/api/schemas/global/{name}", &*schema),
        (200, "post", "/api/schemas/branch/{branch}/{module}", &*schema),
        (
            200,
            "post",
            "/api/seeds",
            r#"{"branchId":"dar","moduleId":"pos","seeds":{"tickets":[]}}"#,
        ),
        (200, "patch", tickets, r#"{"id":"t-1","title":"b"}"#),
        (200, "put", tickets, r#"{"id":"t-2"}"#),
        (200, "delete", tickets, r#"{"id":"t-2"}"#),
        (404, "delete", tickets, r#"{"id":"t-2"}"#),
        (400, "delete", tickets, ""),
        (
            200,
            "post",
            "/api/branches/{branch}/modules/{module}/save",
            r#"{"table":"tickets","record":{"id":"t-3"}}"#,
        ),
        (
            200,
            "post",
            "/api/branches/{branch}/modules/{module}/sequences",
            r#"{"table":"order_header","field":"id"}"#,
        ),
        (
            200,
            "put",
            "/api/branches/{branch}/modules/{module}/sequences/{table}/{field}",
            r#"{"prefix":"A"}"#,
        ),
        (200, "post", "/api/branches/{branch}/modules/{module}", "{}"),
        (400, "post", "/api/modules", "{}"),
    ] {
        follows(&rest, &document, status, method, path, body).await;
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        let json = "/get/responses/200/content/application~1json";
        // There is no order to show: its shape is told by the stories about orders.
        if item.pointer(json).is_some() && !path.ends_with("/{order}") {
            // The one record that is read: a reset may have taken it.
            rest.put(&filled(tickets), r#"{"id":"t-1"}"#).await;
            follows(&rest, &document, 200, "get", path, "").await;
        }
    }
}

async fn follows(rest: &Rest, document: &Value, status: u16, method: &str, path: &str, body: &str) {
    let include = match path {
        "/api/schema" => "?include=seed,live,config,schema",
        "/api/manage/purge-history" if method == "get" => "?branch=dar",
        _ => "",
    };
    let asked = format!("{}{include}", filled(path));
    let answer = rest.send(&method.to_uppercase(), &asked, body, &[]).await;
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.raw);
    let operation = &document["paths"][path][method];
    let content = &operation["responses"][answer.status.to_string()]["content"];
    let schema = &content["application/json"]["schema"];
    assert!(
        schema.is_object(),
        "{method} {path} does not tell of {}: {}",
        answer.status,
        answer.raw
    );
    let value = serde_json::from_str(&answer.raw).unwrap();
    matches(document, schema, &value, &format!("{method} {path}")).unwrap();
}

/// Asserts that a content has an example of its own shape.
fn has_example(document: &Value, content: &Value, at: &str) {
    let example = content.get("example").unwrap_or_else(|| panic!("{at} has no example"));
    matches(document, &content["schema"], example, at).unwrap();
}

#[tokio::test]
async fn every_route_has_an_example_of_its_shape() {
    let document = document(&Rest::new()).await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("{method} {path}");
            let body = &operation["requestBody"]["content"]["application/json"];
            if body.is_object() {
                has_example(&document, body, &format!("the body of {at}"));
            }
            for (status, answer) in operation["responses"].as_object().unwrap() {
                for content in answer["content"].as_object().into_iter().flatten() {
                    if status.starts_with('2') {
                        has_example(&document, content.1, &format!("{status} of {at}"));
                    }
                }
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let is_named = parameter["in"] != "path" || parameter["example"].is_string();
                assert!(is_named, "{at}: {parameter}");
            }
        }
    }
}

#[test]
fn every_kept_example_belongs_to_a_route() {
    let kept = include_str!("../../src/rest/openapi/examples.json");
    let kept: Value = serde_json::from_str(kept).unwrap();
    let rest = Rest::new();
    let document = futures::executor::block_on(document(&rest));
    for which in kept.as_object().unwrap().keys() {
        let (method, path) = which.split_once(' ').unwrap();
        let operation = &document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{which} is no route");
    }
}

#[tokio::test]
async fn the_page_for_people_is_one_file() {
    let page = Rest::new().get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert!(page.raw.contains("/openapi.json"));
}

#[tokio::test]
async fn the_first_page_is_in_arabic_or_english_and_loads_nothing() {
    let rest = Rest::new();
    for (path, accepted, begins) in [
        ("/", "en", "<html lang=\"en\" dir=\"ltr\">"),
        ("/", "ar-EG,en;q=0.5", "<html lang=\"ar\" dir=\"rtl\">"),
        ("/?lang=ar", "en", "<html lang=\"ar\" dir=\"rtl\">"),
    ] {
        let page = rest.send("GET", path, "", &[("accept-language", accepted)]).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(page.raw.contains(begins), "{path} {accepted}");
        for (outside, text) in [("src=", "files"), ("@import", "styles"), ("url(", "images")] {
            assert!(!page.raw.contains(outside), "{text}");
        }
        assert!(page.raw.contains("href=\"/docs\"") && page.raw.contains("/readyz"));
        // Scripts and styles run by a nonce that no other answer has.
        let policy = page.header("content-security-policy");
        let nonce =
            policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        assert_eq!(page.raw.matches(nonce).count(), 2);
        assert!(!policy.contains("unsafe"), "{policy}");
        let again = rest.get(path).await;
        assert!(!again.header("content-security-policy").contains(nonce));
    }
}
