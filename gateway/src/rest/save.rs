//! Save: one record, stored if what the client believes about it still holds.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use model::{Action, Object, Origin, Precondition, RecordMutation, Value};
use serde::Serialize;

use crate::app::{App, now};
use crate::business_day;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::preconditions;
use crate::publish::{event_of, record, text, user_of};
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope};
use crate::rest::reply::{json, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::rest::tables::{ChangeAnswer, if_match, registered, write};
use crate::wire::RecordEvent;

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
    scope: ModuleScope,
    params: Params,
    headers: HeaderMap,
    IdempotencyKey(id): IdempotencyKey,
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
    let mut body = body.object()?;
    known_members::SAVED.members(&body, scope.config.validation)?;
    let name = text(&body, known_members::TABLE)
        .ok_or_else(|| ApiError::new(Problem::MissingTableName, "name the table as \"table\""))?;
    let table = registered(&scope, &name)?;
    let record = record(&mut body)?.ok_or_else(|| {
        ApiError::new(Problem::MissingRecord, "send the record as \"record\", an object")
    })?;
    let marker = business_day::sent(&body);
    known_members::NONE.params(&params, scope.config.validation)?;
    let mut preconditions = preconditions::read(&body, marker.as_deref())?;
    // The same condition as `concurrency.expectedVersion`.
    preconditions.extend(if_match(&headers)?.map(Precondition::VersionIs));
    let mutation = RecordMutation {
        preconditions,
        ..RecordMutation::new(Action::Save, table.name.to_string(), record)
    };
    let refused = |error| in_context(error, &scope, table.name.as_str(), marker.as_deref());
    let command = write(&scope, id, origin(&mut body), mutation);
    let accepted = scope.store.commit(command).await.map_err(refused)?;

    let event = event_of(&accepted)?;
    let shown = RecordEvent::of(&app.server_id, &scope.key, event)?;
    let status = if shown.created() { "created" } else { "saved" };
    let saved = Saved {
        changed: ChangeAnswer::new(status, &scope, &table, &shown),
        snapshot_marker: business_day::of(event.at),
        client_snapshot_marker: marker,
    };
    let response = json(StatusCode::OK, &saved)?;
    Ok(with_cursor(response, accepted.delta.incarnation, event.offset))
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

/// A condition that does not hold, with what the client needs to decide what to do.
fn in_context(error: ApiError, scope: &ModuleScope, table: &str, marker: Option<&str>) -> ApiError {
    let problem = error.problem();
    if !matches!(problem, Problem::FullSyncRequired | Problem::ConcurrencyConflict) {
        return error;
    }
    ApiError::new(problem, error.message())
        .with("branchId", scope.key.branch.as_str())
        .with("moduleId", scope.key.module.as_str())
        .with("table", table)
        .with("details", error.shown_details())
        .with("snapshotMarker", business_day::of(now()))
        .with("clientSnapshotMarker", marker.map(str::to_owned))
}
