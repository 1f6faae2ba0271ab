//! Ingest: many inserts after a known event, as one. Unlike the original's, a batch that is refused
//! leaves nothing behind.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use model::{
    Action, BranchKey, Command, Event, Object, Origin, Precondition, ReadLevel, RecordMutation,
    Request, Transaction, Validation, Value,
};
use serde::Serialize;

use crate::batch;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::publish::{record, short, text, user_of};
use crate::rest::batch::with_index;
use crate::rest::events::{as_event_failed, log_head};
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, NoParams};
use crate::rest::reply::{json, with_cursor};

/// Where the original's answers say an event came from.
const SOURCE: &str = "rest-batch";

/// `POST …/events/batch`.
pub(super) async fn ingest(
    scope: ModuleScope,
    _: NoParams,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    let mut body = body.object()?;
    let validation = scope.config.validation;
    known_members::INGESTED.members(&body, validation)?;
    known_members::refuse_other_place(&body, &scope.key, validation)?;
    let last_ack = last_ack(&body)?;
    let mutations = mutations(&mut body, &scope.key, validation)?;
    if mutations.is_empty() {
        return nothing(&scope, last_ack).await;
    }
    let count = mutations.len();
    let origin = Origin { source: Some(SOURCE.to_owned()), ..Origin::default() };
    let mut transaction = Transaction::of(mutations);
    transaction.preconditions.push(Precondition::LastEvent(last_ack));
    let command = Command {
        id,
        key: scope.key.clone(),
        origin: Arc::new(origin),
        request: Request::Transaction(transaction),
    };
    let refused = |error: ApiError| match error.problem() == Problem::LastAckMismatch {
        true => error,
        false => as_event_failed(with_index(error, count)),
    };
    let accepted = scope.store.commit(command).await.map_err(refused)?;
    let events = &accepted.delta.events;
    let last = events.last().ok_or_else(|| {
        tracing::error!("an accepted batch came without its events");
        ApiError::new(Problem::Defect, "the batch was accepted, but its events are missing")
    })?;
    let response = json(StatusCode::OK, &IngestAnswer::of(&scope, events, Some(&last.id)))?;
    Ok(with_cursor(response, accepted.delta.incarnation, last.offset))
}

/// The event after which the client goes on; `None` for an empty log.
fn last_ack(body: &Object) -> Result<Option<String>, ApiError> {
    match body.get("lastAckId") {
        None => {
            let message = "name the last event you know as \"lastAckId\", null before the first";
            Err(ApiError::new(Problem::MissingLastAckId, message))
        }
        Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.clone())),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            let message = "lastAckId must be an event's id, or null before the first event";
            Err(ApiError::new(Problem::InvalidLastAckId, message))
        }
    }
}

fn mutations(
    body: &mut Object,
    key: &BranchKey,
    validation: Validation,
) -> Result<Vec<RecordMutation>, ApiError> {
    let events = match body.remove("events") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(events)) => events,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(ApiError::new(Problem::InvalidBody, "events must be a list of events"));
        }
    };
    let read = events.into_iter().zip(0_u64..).map(|(event, index)| {
        let mutation = match event {
            Value::Object(event) => known_members::refuse_other_place(&event, key, validation)
                .and_then(|()| mutation(event, validation)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                Err(ApiError::new(Problem::InvalidEventPayload, "an event must be an object"))
            }
        };
        mutation.map_err(|error| error.with("index", index))
    });
    read.collect()
}

fn mutation(mut event: Object, validation: Validation) -> Result<RecordMutation, ApiError> {
    known_members::INGESTED_EVENT.members(&event, validation)?;
    let word = text(&event, &["action"]);
    if !matches!(batch::action(&event), Ok(Action::Insert)) {
        let message = "a batch of events only inserts: action must be module:insert";
        return Err(ApiError::new(Problem::UnsupportedEventAction, message)
            .with("action", word.unwrap_or_default()));
    }
    let table = text(&event, known_members::TABLE)
        .ok_or_else(|| ApiError::new(Problem::MissingTableName, "name the table as \"table\""))?;
    let record = record(&mut event)
        .map_err(|error| error.with_problem(Problem::InvalidEventPayload))?
        .unwrap_or_default();
    let client_meta = event.remove("meta").filter(|meta| !meta.is_null());
    let origin = Origin {
        source: Some(text(&event, &["source"]).unwrap_or_else(|| SOURCE.to_owned())),
        event_id: short(&event, &["eventId", "id"])?,
        user: user_of(&event, client_meta.as_ref()),
        include_record: event.get("includeRecord").and_then(Value::as_bool) == Some(true),
        publish_state: event.get("publishState").filter(|state| !state.is_null()).cloned(),
        client_meta,
        ..Origin::default()
    };
    Ok(RecordMutation {
        origin: Some(Arc::new(origin)),
        ..RecordMutation::new(Action::Insert, table, record)
    })
}

/// No events: only whether the client knows the last one.
async fn nothing(scope: &ModuleScope, received: Option<String>) -> Result<Response, ApiError> {
    let log = log_head(scope, ReadLevel::Linearizable).await?;
    // No command is submitted that would check it: it is compared here, with the newest state.
    let expected = log.last.as_ref().map(|last| last.event_id.clone());
    if expected != received {
        return Err(model::Reject::LastEvent { expected, received }.into());
    }
    let response = json(StatusCode::OK, &IngestAnswer::of(scope, &[], expected.as_deref()))?;
    Ok(with_cursor(response, log.head.incarnation, log.head.offset))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IngestAnswer<'a> {
    branch_id: &'a str,
    module_id: &'a str,
    ingested: usize,
    last_ack_id: Option<&'a str>,
    last_event_id: Option<&'a str>,
    sequences: Vec<IngestedEvent<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IngestedEvent<'a> {
    id: &'a str,
    sequence: u64,
    table: &'a str,
    created_at: String,
}

impl<'a> IngestAnswer<'a> {
    fn of(scope: &'a ModuleScope, events: &'a [Arc<Event>], last: Option<&'a str>) -> Self {
        let line = |event: &'a Arc<Event>| {
            let change = event.record()?;
            let table = change.table_sent.as_deref().unwrap_or(change.table.as_str());
            let created_at = event.at.to_iso();
            Some(IngestedEvent { id: &event.id, sequence: event.offset.0, table, created_at })
        };
        Self {
            branch_id: scope.key.branch.as_str(),
            module_id: scope.key.module.as_str(),
            ingested: events.len(),
            last_ack_id: last,
            last_event_id: last,
            sequences: events.iter().filter_map(line).collect(),
        }
    }
}
