//! Request: what a client says it holds, under any of the names in use
//! (docs/original/rest.md#sync).
//!
//! Refused: what is there and cannot be read. A `cursor` that is no place in a log is somebody
//! else's and is passed over.

use model::{Incarnation, Object, Offset, SyncQuery, Value};
use serde::Serialize;

use crate::business_day;
use crate::error::{ApiError, Problem};
use crate::known_members::{CURSORS, TABLES, VERSIONS};

/// A place in a module's log, as a client sends and is told it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ClientCursor {
    pub(super) epoch: Incarnation,
    pub(super) sequence: Offset,
}

/// What a client says it holds.
#[derive(Debug, PartialEq)]
pub(super) struct DeltaRequest {
    pub(super) query: SyncQuery,
    /// Whether it chose tables: only their changes are told then.
    pub(super) chosen: bool,
    /// Whether all tables are asked for, beside those with a cursor.
    pub(super) everything: bool,
    pub(super) marker: Option<String>,
    pub(super) version: Option<Value>,
    pub(super) cursor: Option<ClientCursor>,
}

impl DeltaRequest {
    pub(super) fn read(body: &Object) -> Result<Self, ApiError> {
        let first = |names: &[&'static str]| {
            let said = |name: &&'static str| {
                Some((*name, body.get(name).filter(|value| !value.is_null())?))
            };
            names.iter().find_map(said)
        };
        let mut cursors = match first(&CURSORS) {
            None => Vec::new(),
            Some((name, value)) => by_table(name, value)?,
        };
        let (mut tables, mut everything) = (None, false);
        if let Some((name, value)) = first(&TABLES) {
            if let Value::Object(_) = value {
                // As documented; it never chose tables, so its clients expect all of them.
                cursors.extend(by_table(name, value)?);
                everything = true;
            } else {
                tables = Some(names(name, value)?).filter(|names: &Vec<String>| !names.is_empty());
            }
        }
        let cursor = cursor(body)?;
        let chosen = tables.is_some();
        if cursor.is_some() && tables.is_none() && cursors.is_empty() {
            tables = Some(Vec::new()); // The log tells everything.
        }
        Ok(Self {
            query: SyncQuery { tables, cursors },
            chosen,
            // Where the log is asked, it tells everything.
            everything: everything && cursor.is_none(),
            marker: business_day::sent(body),
            version: first(&VERSIONS).map(|(_, version)| version.clone()),
            cursor,
        })
    }
}

/// A list of tables.
fn names(name: &str, value: &Value) -> Result<Vec<String>, ApiError> {
    let texts = value.as_array().map(|items| items.iter().map(Value::as_str));
    let texts = texts.and_then(Iterator::collect::<Option<Vec<&str>>>);
    let texts = texts.ok_or_else(|| wrong(name, "an array of table names"))?;
    Ok(texts.into_iter().map(str::to_owned).collect())
}

/// By table, everything that may name the last row the client holds.
fn by_table(name: &str, value: &Value) -> Result<Vec<(String, Vec<Value>)>, ApiError> {
    let tables = value.as_object().ok_or_else(|| wrong(name, "an object by table"))?;
    Ok(tables.iter().map(|(table, value)| (table.to_string(), names_of_row(value))).collect())
}

/// Everything by which a cursor may name its row: keys and ids, and the values of a key of several
/// fields, as a list or, as `recordRef.primaryKey` shows them, an object.
fn names_of_row(value: &Value) -> Vec<Value> {
    const NAMES: [&str; 9] =
        ["lastId", "key", "id", "uuid", "uid", "primaryKey", "primary", "value", "cursor"];
    let mut names: Vec<Value> = match value {
        Value::Object(members) => {
            let named = NAMES.iter().filter_map(|name| members.get(name));
            let mut found: Vec<Value> = named.flat_map(names_within).collect();
            let key = members.get("primaryKey").filter(|key| key.as_object().is_some());
            found.extend(key.cloned());
            found
        }
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            vec![value.clone()]
        }
    };
    names.retain(|name| name.as_str() != Some(""));
    names
}

/// A member of a cursor: a name, or once more an object.
fn names_within(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(members) => {
            let ids = ["key", "id", "uuid", "uid"].iter().filter_map(|name| members.get(name));
            ids.filter(|id| id.key_text().is_some()).cloned().collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            names_of_row(value)
        }
    }
}

/// The place in the log the client has come to: `resume`, or a `cursor` that looks like one.
fn cursor(body: &Object) -> Result<Option<ClientCursor>, ApiError> {
    let looks = |value: &&Value| value.get("epoch").is_some() || value.get("sequence").is_some();
    let resume = body.get("resume").filter(|value| !value.is_null());
    let Some(value) = resume.or_else(|| body.get("cursor").filter(looks)) else { return Ok(None) };
    let number = |name| value.get(name).and_then(Value::as_u64);
    match (number("epoch"), number("sequence")) {
        (Some(epoch), Some(sequence)) => {
            Ok(Some(ClientCursor { epoch: Incarnation(epoch), sequence: Offset(sequence) }))
        }
        _ => Err(wrong("cursor", "{epoch, sequence}, as an earlier answer told it")),
    }
}

fn wrong(name: &str, right: &str) -> ApiError {
    ApiError::new(Problem::InvalidBody, format!("{name} must be {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<DeltaRequest, ApiError> {
        DeltaRequest::read(Value::from_json(json.as_bytes()).unwrap().as_object().unwrap())
    }

    fn cursors(json: &str) -> String {
        let shown = |(table, names): &(String, Vec<Value>)| {
            let names: Vec<String> = names.iter().filter_map(Value::name_text).collect();
            format!("{table}={}", names.join(","))
        };
        read(json).unwrap().query.cursors.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_cursor_names_its_row_in_any_of_many_ways() {
        assert_eq!(cursors(r#"{"lastTableIds":{"a":"x","b":7,"c":null,"d":""}}"#), "a=x b=7 c= d=");
        assert_eq!(cursors(r#"{"lastIds":{"a":{"id":"x","uuid":"y","other":"z"}}}"#), "a=x,y");
        let composite = r#"{"tableCursors":{"a":{"primaryKey":{"k":"x","n":1}},"b":["x",1]}}"#;
        assert_eq!(cursors(composite), r#"a={"k":"x","n":1} b=["x",1]"#);
        let documented =
            r#"{"tables":{"a":{"lastId":"x","cursor":{"updatedAt":"2025-01-07"}},"b":{}}}"#;
        assert_eq!(cursors(documented), "a=x b=");
        let request = read(documented).unwrap();
        assert_eq!((request.query.tables, request.chosen), (None, false));
        assert!(request.everything, "all tables come");
        let with_log = r#"{"tables":{"a":{"lastId":"x"}},"resume":{"epoch":1,"sequence":5}}"#;
        assert!(!read(with_log).unwrap().everything);
    }

    #[test]
    fn tables_are_a_list_and_an_empty_one_is_none() {
        let tables = |json: &str| read(json).unwrap().query.tables;
        assert_eq!(tables(r#"{"requestTables":["a","b"]}"#).unwrap(), ["a", "b"]);
        assert_eq!(tables(r#"{"tables":[]}"#), None);
        assert_eq!(tables("{}"), None);
    }

    #[test]
    fn a_place_in_the_log_is_read_where_it_is_one() {
        let cursor = |json: &str| read(json).unwrap().cursor.map(|c| (c.epoch.0, c.sequence.0));
        assert_eq!(cursor(r#"{"cursor":{"epoch":1,"sequence":5}}"#), Some((1, 5)));
        assert_eq!(cursor(r#"{"resume":{"epoch":2,"sequence":0}}"#), Some((2, 0)));
        assert_eq!(cursor(r#"{"cursor":"x"}"#), None, "whatever it is, it is not ours");
        let log_only = read(r#"{"resume":{"epoch":1,"sequence":5}}"#).unwrap();
        assert_eq!((log_only.query.tables, log_only.chosen), (Some(Vec::new()), false));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            r#"{"tables":"a"}"#,
            r#"{"tables":[1]}"#,
            r#"{"lastTableIds":["a"]}"#,
            r#"{"resume":5}"#,
            r#"{"cursor":{"epoch":1}}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().problem(), Problem::InvalidBody, "{bad}");
        }
    }
}
