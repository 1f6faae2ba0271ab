//! Batch: many changes of any kind on any tables of a module, all or none.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{Acceptance, Command, Incarnation, Object, Offset, Origin, Request};
use serde::Serialize;

use crate::app::App;
use crate::batch;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::publish::user_of;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, NoParams};
use crate::rest::reply::{json, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::wire::{RecordEvent, RecordRef};

pub(crate) fn routes() -> Routes {
    const BODY: &str = "{requestId?: text, verbs: [{action: text, table: text, record: Record, expectedVersion?: int, \
                        includeRecord?: flag, eventId?: text, meta?: any, *: any}], meta?: any}";
    const ANSWER: &str = "{branchId: text, moduleId: text, version: int, results: [{index: int, \
                          status: 'created'|'updated'|'deleted', table: text, \
                          recordRef: RecordRef, record?: Record, eventId: text, sequence: int}], \
                          cursor: {epoch: int, sequence: int}}";
    Routes::of("Records").in_branches("/{branch}/modules/{module}/batch").post(
        change,
        op("Up to 500 changes of any kind, all or none")
            .body(BODY)
            .answers(200, ANSWER)
            .writes()
            .refuses(&[
                Problem::ModuleEventFailed,
                Problem::VersionConflict,
                Problem::TableNotFound,
                Problem::FullSyncRequired,
                Problem::ConcurrencyConflict,
            ]),
    )
}

async fn change(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    known_members::refuse_other_place(&body, &scope.key, scope.config.validation)?;
    let origin = Origin {
        source: Some("rest-batch".to_owned()),
        user: user_of(&body, None),
        include_record: true,
        ..Origin::default()
    };
    let write = batch::read(body, &origin, scope.config.validation)?;
    let count = write.mutations.len();
    let command = Command {
        id,
        key: scope.key.clone(),
        origin: Arc::new(origin),
        request: Request::Transaction(write),
    };
    let accepted = scope.store.commit(command).await.map_err(|error| with_index(error, count))?;
    answer(&app, &scope, count, &accepted)
}

/// A refusal names the change it is about; the only one there is need not be named by the branch.
pub(crate) fn with_index(error: ApiError, count: usize) -> ApiError {
    if count == 1 && !error.has("index") { error.with("index", 0_u64) } else { error }
}

fn answer(
    app: &App,
    scope: &ModuleScope,
    count: usize,
    accepted: &Acceptance,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        version: u64,
        results: Vec<BatchResult<'a>>,
        cursor: Cursor,
    }
    #[derive(Serialize)]
    struct Cursor {
        epoch: Incarnation,
        sequence: Offset,
    }
    // One event a change, in their order: `results` pairs them by place, so another count is a
    // defect and not a shorter answer.
    let events = &accepted.delta.events;
    let last = events.last().filter(|_| events.len() == count).ok_or_else(|| {
        tracing::error!(count, events = events.len(), "a batch was answered with other events");
        ApiError::new(Problem::Defect, "the batch was accepted, but some of its events are missing")
    })?;
    let shown = |event| RecordEvent::of(&app.server_id, &scope.key, event);
    let shown: Vec<RecordEvent<'_>> = events.iter().map(|e| shown(e)).collect::<Result<_, _>>()?;
    let (incarnation, offset) = (accepted.delta.incarnation, last.offset);
    let shape = Shape {
        branch_id: scope.key.branch.as_str(),
        module_id: scope.key.module.as_str(),
        version: last.revision.0,
        results: shown
            .iter()
            .zip(0..)
            .map(|(shown, index)| BatchResult::of(index, shown))
            .collect(),
        cursor: Cursor { epoch: incarnation, sequence: offset },
    };
    Ok(with_cursor(json(StatusCode::OK, &shape)?, incarnation, offset))
}

/// One change that happened.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchResult<'a> {
    index: u64,
    status: &'a str,
    table: &'a str,
    record_ref: RecordRef<'a>,
    record: &'a Object,
    event_id: &'a str,
    sequence: Offset,
}

impl<'a> BatchResult<'a> {
    fn of(index: u64, shown: &'a RecordEvent<'a>) -> Self {
        let status = match (shown.created(), shown.deleted()) {
            (true, _) => "created",
            (false, true) => "deleted",
            (false, false) => "updated",
        };
        Self {
            index,
            status,
            table: shown.table(),
            record_ref: shown.record_ref(),
            record: shown.record(),
            event_id: shown.event_id(),
            sequence: shown.offset(),
        }
    }
}
