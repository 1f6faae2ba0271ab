//! Save: one record, stored if what the client believes about it still holds.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{Action, Guard, Object, Origin, Timestamp, Value, Verb};
use serde::Serialize;

use crate::auth::Intent;
use crate::error::{ApiError, Problem};
use crate::gateway::{App, now};
use crate::http::ask::{Body, InModule, Named};
use crate::http::marker::{self, business_day};
use crate::http::openapi::op;
use crate::http::reply::{at, json};
use crate::http::routes::Routes;
use crate::http::tables::{Changed, registered, write};
use crate::publish::{event_of, record, text, user_of};
use crate::wire::Shown;

pub(crate) fn routes() -> Routes {
    const BODY: &str = "{table: text, record: Record, meta?: any, source?: text, \
                        includeRecord?: flag, snapshotMarker?: text, concurrency?: object, *: any}";
    const ANSWER: &str = "{status: 'created'|'saved', branchId: text, moduleId: text, \
                          table: text, record: Record, ack: Ack, notice: Notice, \
                          snapshotMarker: text, clientSnapshotMarker: text?}";
    const REFUSES: [Problem; 7] = [
        Problem::MissingTableName,
        Problem::MissingRecord,
        Problem::TableNotFound,
        Problem::ModuleEventFailed,
        Problem::VersionConflict,
        Problem::FullSyncRequired,
        Problem::ConcurrencyConflict,
    ];
    Routes::of("Records").in_branches("/{branch}/modules/{module}/save").post(
        save,
        op("Save a record if what the client believes of it still holds")
            .body(BODY)
            .answers(200, ANSWER)
            .writes()
            .refuses(&REFUSES),
    )
}

async fn save(
    State(app): State<App>,
    place: InModule,
    Named(id): Named,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Saved<C> {
        #[serde(flatten)]
        changed: C,
        snapshot_marker: String,
        client_snapshot_marker: Option<String>,
    }
    place.authorize(Intent::Write)?;
    let mut body = body.object()?;
    let name = text(&body, &["table", "tableName", "targetTable"])
        .ok_or_else(|| ApiError::new(Problem::MissingTableName, "name the table as \"table\""))?;
    let table = registered(&place, &name)?;
    let record = record(&mut body)?.ok_or_else(|| {
        ApiError::new(Problem::MissingRecord, "send the record as \"record\", an object")
    })?;
    let marker = marker::sent(&body);
    let guards = guards(&body, marker.as_deref())?;
    let verb = Verb { guards, ..Verb::new(Action::Save, table.name.to_string(), record) };
    let refused = |error| in_context(error, &place, table.name.as_str(), marker.as_deref());
    let command = write(&place, id, origin(&mut body), verb);
    let accepted = app.submit(command).await.map_err(refused)?;

    let event = event_of(&accepted)?;
    let shown = Shown::of(&app.server_id, &place.key, event)?;
    let status = if shown.created() { "created" } else { "saved" };
    let saved = Saved {
        changed: Changed::new(status, &place, &table, &shown),
        snapshot_marker: business_day(event.at),
        client_snapshot_marker: marker,
    };
    let response = json(StatusCode::OK, &saved)?;
    Ok(at(response, accepted.delta.incarnation, event.offset))
}

fn origin(body: &mut Object) -> Origin {
    let client_meta = body.remove("meta").filter(|meta| !meta.is_null());
    Origin {
        source: Some(text(body, &["source"]).unwrap_or_else(|| "rest-save".to_owned())),
        user: user_of(body, client_meta.as_ref()),
        include_record: body.get("includeRecord").and_then(Value::as_bool) != Some(false),
        client_meta,
        ..Origin::default()
    }
}

/// The conditions of `concurrency`, in the order in which the first that fails is told.
fn guards(body: &Object, marker: Option<&str>) -> Result<Vec<Guard>, ApiError> {
    let mut guards = Vec::new();
    let given = ["concurrency", "expected", "guard"].iter().find_map(|name| body.get(name));
    let none = Object::new();
    let given = match given {
        None | Some(Value::Null) => &none,
        Some(value) => value.as_object().ok_or_else(|| wrong("concurrency", "an object"))?,
    };
    let says = |name| given.get(name).and_then(Value::as_bool) == Some(true);
    if says("requireExisting") || says("disallowCreate") {
        guards.push(Guard::MustExist);
    }
    if let Some(day) = text(given, &["requireSnapshotMarker"]) {
        guards.push(Guard::SnapshotMarker { expected: Some(day) });
    }
    if says("enforceSnapshot") {
        guards.push(Guard::SnapshotMarker { expected: marker.map(str::to_owned) });
    }
    if let Some((name, value)) = first(given, &["expectedPaymentState", "paymentState"]) {
        guards.push(Guard::PaymentStateIs(words(name, value)?));
    }
    if let Some((name, value)) = first(given, &["rejectPaymentStates"]) {
        guards.push(Guard::PaymentStateIsNot(words(name, value)?));
    }
    if let Some((name, value)) = first(given, &["allowedPaymentStates"]) {
        guards.push(Guard::PaymentStateAllowed(words(name, value)?));
    }
    const SINCE: [&str; 3] = ["ifNotModifiedSince", "ifModifiedBefore", "expectedUpdatedAt"];
    if let Some((name, value)) = first(given, &SINCE) {
        let since = time(value).ok_or_else(|| wrong(name, "a time"))?;
        guards.push(Guard::UnmodifiedSince(since));
    }
    let known = first(given, &["lastKnownId"]).or_else(|| first(body, &["lastKnownId"]));
    if let Some((_, value)) = known {
        guards.push(Guard::LastKnown(value.clone()));
    }
    if let Some((name, value)) = first(given, &["expectedVersion"]) {
        let version = value.as_u64().ok_or_else(|| wrong(name, "a whole number"))?;
        guards.push(Guard::VersionIs(version));
    }
    Ok(guards)
}

/// The first of these members that says something.
fn first<'a>(object: &'a Object, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    let said = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    names.iter().find_map(|name| Some((*name, object.get(name).filter(said)?)))
}

fn words(name: &'static str, value: &Value) -> Result<Vec<String>, ApiError> {
    let one = |value: &Value| value.key_text().map(str::to_owned);
    let words = match value.as_array() {
        Some(items) => items.iter().map(one).collect(),
        None => one(value).map(|word| vec![word]),
    };
    words.ok_or_else(|| wrong(name, "a text or a list of texts"))
}

fn time(value: &Value) -> Option<Timestamp> {
    let millis = value.key_text()?.parse().ok().map(Timestamp);
    millis.or_else(|| Timestamp::parse(value.as_str()?))
}

fn wrong(name: &str, right: &str) -> ApiError {
    ApiError::new(Problem::InvalidBody, format!("{name} must be {right}"))
}

/// A condition that does not hold, with what the client needs to decide what to do.
fn in_context(error: ApiError, place: &InModule, table: &str, marker: Option<&str>) -> ApiError {
    let problem = error.problem();
    if !matches!(problem, Problem::FullSyncRequired | Problem::ConcurrencyConflict) {
        return error;
    }
    ApiError::new(problem, error.message())
        .with("branchId", place.key.branch.as_str())
        .with("moduleId", place.key.module.as_str())
        .with("table", table)
        .with("details", error.shown_details())
        .with("snapshotMarker", business_day(now()))
        .with("clientSnapshotMarker", marker.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Guard>, ApiError> {
        let body = Value::from_json(json.as_bytes()).unwrap();
        guards(body.as_object().unwrap(), Some("2026-11-21"))
    }

    #[test]
    fn every_condition_has_its_guard_in_the_order_they_are_told() {
        let all = read(
            r#"{"concurrency":{"lastKnownId":"a","ifModifiedBefore":"2020-01-01",
            "allowedPaymentStates":["open"],"rejectPaymentStates":"paid","paymentState":"x",
            "enforceSnapshot":true,"requireSnapshotMarker":"2026-11-20","disallowCreate":true,
            "expectedVersion":3}}"#,
        );
        let marker = |day: &str| Guard::SnapshotMarker { expected: Some(day.into()) };
        assert_eq!(
            all.unwrap(),
            [
                Guard::MustExist,
                marker("2026-11-20"),
                marker("2026-11-21"),
                Guard::PaymentStateIs(vec!["x".into()]),
                Guard::PaymentStateIsNot(vec!["paid".into()]),
                Guard::PaymentStateAllowed(vec!["open".into()]),
                Guard::UnmodifiedSince(Timestamp::parse("2020-01-01").unwrap()),
                Guard::LastKnown("a".into()),
                Guard::VersionIs(3),
            ]
        );
        assert_eq!(read("{}").unwrap(), []);
        assert_eq!(read(r#"{"guard":{"requireExisting":true}}"#).unwrap(), [Guard::MustExist]);
    }

    #[test]
    fn a_condition_that_cannot_be_read_is_refused_rather_than_ignored() {
        for bad in [
            r#"{"concurrency":5}"#,
            r#"{"concurrency":{"paymentState":{}}}"#,
            r#"{"concurrency":{"expectedUpdatedAt":"soon"}}"#,
            r#"{"concurrency":{"expectedVersion":-1}}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().problem(), Problem::InvalidBody, "{bad}");
        }
    }
}
