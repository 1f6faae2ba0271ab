//! Examples: a request and an answer for every route, so that none can be without: made out of its
//! shapes, with values that the store's own sample data has, or, where that says too little, one
//! that a node answered (`examples.json`).

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{notation, shapes};

/// Shapes within shapes that are shown; none of ours is deeper.
const DEPTH_MAX: usize = 12;

/// What nodes answered, by `METHOD path`: `{body?, answer}`.
static ANSWERED: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("examples.json")).expect("a test reads the file")
});

/// What is sent to a route.
pub(super) fn body(method: &str, path: &str, shape: &str) -> Value {
    kept(method, path, "body").unwrap_or_else(|| of(shape))
}

/// What a route answers when all is well.
pub(super) fn answer(method: &str, path: &str, shape: &str) -> Value {
    kept(method, path, "answer").unwrap_or_else(|| of(shape))
}

/// What an answer that is no JSON looks like.
pub(super) fn text(media: &str) -> Value {
    match media {
        "text/html" => json!("<!doctype html>\n<html lang=\"en\" dir=\"ltr\">…"),
        _ => json!("# TYPE mishkah_ws_sockets gauge\nmishkah_ws_sockets 3\n"),
    }
}

/// What may stand for a name in a path or after `?`.
pub(super) fn word(name: &str) -> Value {
    text_of(name)
}

fn kept(method: &str, path: &str, member: &str) -> Option<Value> {
    let path = path.replace("{*", "{").replacen("/api/branch/", "/api/branches/", 1);
    let path = if path == "/api/branch" { "/api/branches".to_owned() } else { path };
    let key = format!("{} {path}", method.to_uppercase());
    ANSWERED.get(&key)?.get(member).cloned()
}

/// A value of this shape.
fn of(shape: &str) -> Value {
    let schema = notation::read(shape).expect("shapes keep the notation: a test makes them all");
    let schema = serde_json::to_value(schema).unwrap_or_default();
    value("", &schema, 0)
}

fn value(name: &str, schema: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(named) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return shape(named, depth);
    }
    if let Some(word) = schema["enum"].get(0) {
        return word.clone();
    }
    // A value or null: the value tells more.
    if let Some(first) = schema["anyOf"].get(0) {
        return value(name, first, depth + 1);
    }
    match schema["type"].as_str() {
        Some("array") => json!([value(name, &schema["items"], depth + 1)]),
        Some("object") => object(name, schema, depth),
        Some("integer" | "number") => number_of(name),
        Some("boolean") => json!(!matches!(name, "deleted" | "repeated" | "unchanged")),
        Some("string") => text_of(name),
        _ => any_of(name),
    }
}

/// A shape that is called by name.
fn shape(named: &str, depth: usize) -> Value {
    match named {
        "Record" => record(),
        "RecordRef" => json!({ "table": "order_header", "key": "DAR-001001",
            "primaryKey": { "id": "DAR-001001" }, "id": "DAR-001001" }),
        // One of the two names of what is sent.
        "Sent" => json!({ "record": { "shiftId": "morning", "statusId": "open" } }),
        _ => shapes::NAMED
            .iter()
            .find(|(name, _)| *name == named)
            .and_then(|(_, shape)| serde_json::to_value(notation::read(shape).ok()?).ok())
            .map_or(Value::Null, |schema| value("", &schema, depth + 1)),
    }
}

fn object(name: &str, schema: &Value, depth: usize) -> Value {
    let members = schema["properties"].as_object().into_iter().flatten();
    let mut object: Map<String, Value> =
        members.map(|(name, schema)| (name.clone(), value(name, schema, depth + 1))).collect();
    let others = &schema["additionalProperties"];
    // `*: any` says nothing of what there is; any other shape does.
    let is_described = others["type"].is_string() || others["$ref"].is_string();
    if object.is_empty() && is_described {
        object.insert(member_of(name).to_owned(), value(name, others, depth + 1));
    } else if object.is_empty() && matches!(name, "where" | "primaryKey" | "recordRef") {
        object.insert("id".to_owned(), json!("DAR-001001"));
    }
    object.into()
}

/// Under which name something stands in an object whose names are data.
fn member_of(name: &str) -> &'static str {
    match name {
        "modules" => "pos",
        "branches" => "dar",
        _ => "order_header",
    }
}

fn record() -> Value {
    json!({ "id": "DAR-001001", "shiftId": "morning", "statusId": "open", "version": 1,
            "createdAt": "2026-11-21T08:00:00.000Z", "updatedAt": "2026-11-21T08:00:00.000Z" })
}

fn number_of(name: &str) -> Value {
    json!(match name {
        "version" => 7,
        "sequence" | "last" | "after" | "lastId" => 42,
        "limit" => 50,
        "offset" | "index" | "removed" => 0,
        "status" => 409,
        "value" => 1001,
        _ => 1,
    })
}

fn any_of(name: &str) -> Value {
    match name {
        "" | "schema" | "seed" | "received" => json!({}),
        "details" | "meta" | "clientMeta" | "concurrency" | "where" | "stats" => json!({}),
        "limit" | "offset" | "expectedVersion" => number_of(name),
        "branches" | "modules" | "tables" | "orderBy" | "lines" | "payments" => {
            json!([text_of(name)])
        }
        _ => text_of(name),
    }
}

fn text_of(name: &str) -> Value {
    if name == "now" || name == "timestamp" || name.ends_with("At") || name.ends_with("_at") {
        return json!("2026-11-21T08:00:00.000Z");
    }
    json!(match name {
        "branch" | "branchId" | "branches" => "dar",
        "module" | "moduleId" | "modules" => "pos",
        "table" | "tables" => "order_header",
        "field" | "orderBy" => "id",
        "key" | "id" | "order" | "orderId" | "recordKey" | "recordId" => "DAR-001001",
        "name" => "pos_schema",
        "label" => "Dar",
        "rest" => "version",
        "serverId" => "ws-node-1",
        "status" => "ok",
        "action" => "module:insert",
        "requestId" => "till-1-0042",
        "eventId" | "entryId" | "lastAckId" => "3f63abe3-434b-4361-b03a-9d93feec9719",
        "lang" => "en",
        "reason" => "end of day",
        "requestedBy" | "userId" => "manager",
        "source" => "rest",
        "position" | "afterPosition" => "1.12",
        "epoch" => "1",
        "error" => "version-conflict",
        "type" => "urn:mishkah:error:version-conflict",
        "title" => "The record was changed by someone else",
        "message" | "detail" => "done",
        "instance" | "path" => "/api/branches/dar/modules/pos",
        "snapshotMarker" | "clientSnapshotMarker" => "2026-11-21",
        _ => "text",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_an_example_of_its_own_kind() {
        assert_eq!(of("{id: text, n?: int, ok: flag}"), json!({"id":"DAR-001001","n":1,"ok":true}));
        assert_eq!(of("[text]"), json!(["text"]));
        assert_eq!(of("{tables: {*: [Record]}}")["tables"]["order_header"][0], record());
        assert_eq!(of("'a'|'b'"), "a");
        assert_eq!(of("{branchId: text?}"), json!({"branchId": "dar"}));
    }
}
