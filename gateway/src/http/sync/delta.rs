//! Delta: what a client lacks, by the rows it holds up to, and by the log (contract.md 5.6).
//!
//! A cursor of a table names the last row the client holds: the rows after it come back. What was
//! changed or removed before it is told only to a client that also sends the `cursor` of its last
//! answer: it gets every change since, or is told to begin again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    Answer, CursorFate, Effect, Event, EventChange, Incarnation, ModuleChange, Object, Offset,
    Read, ReadLevel, RecordChange, SyncDelta, SyncQuery, TableDelta, Value,
};
use serde::Serialize;

use crate::auth::Intent;
use crate::error::{ApiError, Problem};
use crate::gateway::{App, now, unasked};
use crate::http::ask::LargeBody;
use crate::http::marker::{self, business_day};
use crate::http::reply::{at, written};
use crate::http::sync::InSync;
use crate::http::tables::key_of;
use crate::limits::DELTA_EVENTS_MAX;
use crate::render;
use crate::wire::{Members, RecordRef, record_ref};

/// A place in a module's log, as a client sends and is told it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cursor {
    epoch: Incarnation,
    sequence: Offset,
}

/// What a client says it holds.
#[derive(Debug, PartialEq)]
struct Asked {
    query: SyncQuery,
    /// The tables whose changes are told; all, where none are chosen.
    chosen: bool,
    marker: Option<String>,
    version: Option<Value>,
    cursor: Option<Cursor>,
}

pub(super) async fn delta(
    State(app): State<App>,
    place: InSync,
    LargeBody(body, _permit): LargeBody,
) -> Result<Response, ApiError> {
    place.authorize(Intent::Read)?;
    let asked = Asked::read(&body.object()?)?;
    let read = Read::Sync(asked.query.clone());
    let delta = match app.branches.read(place.key.clone(), read, place.level).await? {
        Answer::Sync(delta) => delta,
        other => return Err(unasked(&other)),
    };
    let since = match asked.cursor {
        Some(cursor) => Some(since(&app, &delta, cursor).await?),
        None => None,
    };
    let flagged = app
        .branches
        .catalogue()
        .flags_of(&place.key.branch, Some(place.key.module.as_str()))
        .any(|flag| flag.enabled);
    let (incarnation, offset) = (delta.head.incarnation, delta.head.offset);
    let rows = delta.tables.iter().map(|table| table.rows.len() as u64).sum::<u64>()
        + since.as_ref().map_or(0, |since| since.events.len() as u64);
    let server_id = Arc::clone(&app.server_id);
    let write = move || {
        let since = since.as_ref();
        render::bytes(&shown(&server_id, &asked, &delta, since, flagged))
    };
    let body = render::rows(&app.renders, rows, write).await?;
    Ok(at(written(StatusCode::OK, body), incarnation, offset))
}

impl Asked {
    fn read(body: &Object) -> Result<Self, ApiError> {
        const CURSORS: [&str; 3] = ["lastTableIds", "lastIds", "tableCursors"];
        const TABLES: [&str; 5] =
            ["tables", "tableNames", "requestTables", "includeTables", "tablesRequested"];
        const VERSIONS: [&str; 3] = ["version", "clientVersion", "snapshotVersion"];
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
        let mut tables = None;
        if let Some((name, value)) = first(&TABLES) {
            if let Value::Object(_) = value {
                let named = by_table(name, value)?;
                tables = Some(named.iter().map(|(table, _)| table.clone()).collect());
                cursors.extend(named);
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
            marker: marker::sent(body),
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
fn by_table(name: &str, value: &Value) -> Result<Vec<(String, Vec<String>)>, ApiError> {
    let tables = value.as_object().ok_or_else(|| wrong(name, "an object by table"))?;
    Ok(tables.iter().map(|(table, value)| (table.to_string(), texts(value))).collect())
}

/// Every text by which a cursor may name its row.
fn texts(value: &Value) -> Vec<String> {
    const NAMES: [&str; 9] =
        ["lastId", "key", "id", "uuid", "uid", "primaryKey", "primary", "value", "cursor"];
    let joined = |parts: Vec<&Value>| {
        let parts: Option<Vec<&str>> = parts.into_iter().map(Value::key_text).collect();
        parts.map(|parts| parts.join(model::schema::KEY_SEPARATOR))
    };
    let mut texts: Vec<String> = match value {
        Value::Object(members) => {
            let named = NAMES.iter().filter_map(|name| members.get(name));
            let mut found: Vec<String> = named.flat_map(texts_within).collect();
            // The values of a key of several fields, as `recordRef.primaryKey` shows them.
            let key = members.get("primaryKey").and_then(Value::as_object);
            found.extend(key.and_then(|key| joined(key.iter().map(|(_, part)| part).collect())));
            found
        }
        Value::Array(parts) => joined(parts.iter().collect()).into_iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            value.key_text().map(str::to_owned).into_iter().collect()
        }
    };
    texts.retain(|text| !text.is_empty());
    texts
}

/// A member of a cursor: a text, the parts of a key, or once more an object.
fn texts_within(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let ids = ["key", "id", "uuid", "uid"].iter().filter_map(|name| members.get(name));
            ids.filter_map(Value::key_text).map(str::to_owned).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            texts(value)
        }
    }
}

/// The place in the log the client has come to: `resume`, or a `cursor` that looks like one.
fn cursor(body: &Object) -> Result<Option<Cursor>, ApiError> {
    let looks = |value: &&Value| value.get("epoch").is_some() || value.get("sequence").is_some();
    let resume = body.get("resume").filter(|value| !value.is_null());
    let Some(value) = resume.or_else(|| body.get("cursor").filter(looks)) else { return Ok(None) };
    let number = |name| value.get(name).and_then(Value::as_u64);
    match (number("epoch"), number("sequence")) {
        (Some(epoch), Some(sequence)) => {
            Ok(Some(Cursor { epoch: Incarnation(epoch), sequence: Offset(sequence) }))
        }
        _ => Err(wrong("cursor", "{epoch, sequence}, as an earlier answer told it")),
    }
}

fn wrong(name: &str, right: &str) -> ApiError {
    ApiError::new(Problem::InvalidBody, format!("{name} must be {right}"))
}

/// What happened after a cursor, up to the moment the rows were read.
struct Since {
    events: Vec<Arc<Event>>,
    /// There is more than one answer holds.
    more: bool,
    /// Why the client must begin again instead.
    resync: Option<&'static str>,
}

async fn since(app: &App, delta: &SyncDelta, cursor: Cursor) -> Result<Since, ApiError> {
    let head = &delta.head;
    let resync = |reason| Ok(Since { events: Vec::new(), more: false, resync: Some(reason) });
    if cursor.epoch != head.incarnation {
        return resync("epoch-changed");
    }
    if cursor.sequence > head.offset {
        return resync("cursor-ahead");
    }
    let read = Read::Events { after: cursor.sequence, limit: DELTA_EVENTS_MAX };
    let level = ReadLevel::Session(head.offset);
    let found = match app.branches.read(head.key.clone(), read, level).await? {
        Answer::Events(found) if found.incarnation == head.incarnation => found.events,
        Answer::Events(_) => return resync("epoch-changed"),
        other => return Err(unasked(&other)),
    };
    let Some(mut events) = found else { return resync("cursor-too-old") };
    events.retain(|event| event.offset <= head.offset);
    let reached = events.last().map_or(cursor.sequence, |event| event.offset);
    Ok(Since { events, more: reached < head.offset, resync: None })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a, I, R, D, S> {
    branch_id: &'a str,
    module_id: &'a str,
    version: u64,
    updated_at: String,
    server_id: &'a str,
    snapshot_marker: String,
    requires_full_sync: bool,
    cursor_misses: Vec<&'a str>,
    last_table_ids: I,
    last_table_refs: R,
    deltas: D,
    stats: S,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_version: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_snapshot_marker: Option<&'a str>,
    cursor: Cursor,
    #[serde(flatten)]
    since: Option<ShownSince<'a>>,
}

fn shown<'a>(
    server_id: &'a str,
    asked: &'a Asked,
    delta: &'a SyncDelta,
    since: Option<&'a Since>,
    flagged: bool,
) -> impl Serialize + 'a {
    let head = &delta.head;
    let tables = || delta.tables.iter();
    let missed = tables().filter(|table| table.cursor == CursorFate::Missed);
    let cursor_misses: Vec<&str> = missed.map(|table| table.table.as_str()).collect();
    let today = business_day(now().max(head.last_updated_at));
    let other_day = asked.marker.as_ref().is_some_and(|marker| *marker != today);
    let resync = since.is_some_and(|since| since.resync.is_some());
    Shape {
        branch_id: head.key.branch.as_str(),
        module_id: head.key.module.as_str(),
        version: head.revision.0,
        updated_at: head.last_updated_at.to_iso(),
        server_id,
        snapshot_marker: today,
        requires_full_sync: flagged || other_day || resync || !cursor_misses.is_empty(),
        cursor_misses,
        last_table_ids: Members(tables().map(|table| (&table.table, last_id(table)))),
        last_table_refs: Members(tables().map(|table| (&table.table, LastRef::of(table)))),
        deltas: Members(tables().map(|table| (&table.table, &table.rows))),
        stats: Members(tables().map(|table| (&table.table, Stats::of(table)))),
        client_version: asked.version.as_ref(),
        client_snapshot_marker: asked.marker.as_deref(),
        cursor: Cursor { epoch: head.incarnation, sequence: reached(head.offset, since) },
        since: since.map(|since| {
            let chosen: Vec<&str> = tables().map(|table| table.table.as_str()).collect();
            ShownSince::of(since, asked.chosen.then_some(&chosen[..]))
        }),
    }
}

/// Where the client stands after it has taken the answer.
fn reached(now: Offset, since: Option<&Since>) -> Offset {
    let last = since.filter(|since| since.more).and_then(|since| since.events.last());
    last.map_or(now, |event| event.offset)
}

fn last_id(table: &TableDelta) -> Option<String> {
    table.last.as_ref().map(|row| key_of(&table.key_fields, row))
}

/// A table's last row, named.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastRef<'a> {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    primary_key: Object,
}

impl<'a> LastRef<'a> {
    fn of(table: &'a TableDelta) -> Option<Self> {
        let row = table.last.as_ref()?;
        let part = |name: &Arc<str>| (Arc::clone(name), row.get(name).cloned().unwrap_or_default());
        Some(Self {
            key: key_of(&table.key_fields, row),
            id: row.get("id").filter(|id| !id.is_null()),
            primary_key: table.key_fields.iter().map(part).collect(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    total: usize,
    returned: usize,
    cursor_matched: bool,
}

impl Stats {
    fn of(table: &TableDelta) -> Self {
        Self {
            total: table.total,
            returned: table.rows.len(),
            cursor_matched: table.cursor == CursorFate::Matched,
        }
    }
}

/// What an answer adds for a client that sent a cursor.
#[derive(Serialize)]
#[serde(untagged)]
enum ShownSince<'a> {
    Resync { resync: bool, reason: &'static str },
    Events { events: Vec<ShownEvent<'a>>, more: bool },
}

impl<'a> ShownSince<'a> {
    fn of(since: &'a Since, chosen: Option<&[&str]>) -> Self {
        if let Some(reason) = since.resync {
            return Self::Resync { resync: true, reason };
        }
        let events = since.events.iter().filter_map(|event| ShownEvent::of(event, chosen));
        Self::Events { events: events.collect(), more: since.more }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownEvent<'a> {
    action: &'static str,
    event_id: &'a str,
    sequence: Offset,
    version: u64,
    timestamp: String,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    #[serde(rename_all = "camelCase")]
    One {
        table: &'a str,
        record_ref: RecordRef<'a>,
        record: Option<&'a Object>,
    },
    Many {
        records: Vec<OneOfMany<'a>>,
    },
}

#[derive(Serialize)]
struct OneOfMany<'a> {
    table: &'a str,
    key: &'a str,
    /// `null`: it is gone.
    record: Option<&'a Object>,
}

impl<'a> ShownEvent<'a> {
    /// An event, as far as it concerns these tables.
    fn of(event: &'a Event, chosen: Option<&[&str]>) -> Option<Self> {
        let concerns = |table: &str| chosen.is_none_or(|chosen| chosen.contains(&table));
        let (action, what) = match &event.change {
            EventChange::Record(change) if concerns(change.table.as_str()) => {
                (change.effect.wire_name(), What::one(change))
            }
            EventChange::Record(_) => return None,
            EventChange::Module(change) => (change.act.wire_name(), What::many(change, concerns)),
        };
        Some(Self {
            action,
            event_id: &event.id,
            sequence: event.offset,
            version: event.revision.0,
            timestamp: event.at.to_iso(),
            what,
        })
    }
}

impl<'a> What<'a> {
    fn one(change: &'a RecordChange) -> Self {
        let (table, record) = (change.table.as_str(), &*change.record);
        Self::One {
            table,
            record_ref: record_ref(table, change.key.as_str(), &change.key_fields, record),
            record: (change.effect != Effect::Delete).then_some(record),
        }
    }

    fn many(change: &'a ModuleChange, concerns: impl Fn(&str) -> bool) -> Self {
        let records = change.records.iter().filter(|(table, _, _)| concerns(table.as_str()));
        let records = records.map(|(table, key, record)| OneOfMany {
            table: table.as_str(),
            key: key.as_str(),
            record: record.as_deref(),
        });
        Self::Many { records: records.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Asked, ApiError> {
        Asked::read(Value::from_json(json.as_bytes()).unwrap().as_object().unwrap())
    }

    fn cursors(json: &str) -> String {
        let shown = |(table, texts): &(String, Vec<String>)| format!("{table}={}", texts.join(","));
        read(json).unwrap().query.cursors.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_cursor_names_its_row_in_any_of_many_ways() {
        assert_eq!(cursors(r#"{"lastTableIds":{"a":"x","b":7,"c":null,"d":""}}"#), "a=x b=7 c= d=");
        assert_eq!(cursors(r#"{"lastIds":{"a":{"id":"x","uuid":"y","other":"z"}}}"#), "a=x,y");
        let composite = r#"{"tableCursors":{"a":{"primaryKey":{"k":"x","n":1}},"b":["x",1]}}"#;
        assert_eq!(cursors(composite), "a=x::1 b=x::1");
        let documented =
            r#"{"tables":{"a":{"lastId":"x","cursor":{"updatedAt":"2025-01-07"}},"b":{}}}"#;
        assert_eq!(cursors(documented), "a=x b=");
        let tables = read(documented).unwrap().query.tables.unwrap();
        assert_eq!(tables, ["a", "b"], "one without a row is asked for whole");
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
