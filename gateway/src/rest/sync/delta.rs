//! Delta: what a client lacks, by the rows it holds up to, and by the log
//! (docs/original/rules.md#deltas).
//!
//! A cursor of a table names the last row the client holds: the rows after it come back. What was
//! changed or removed before it is told only to a client that also sends the `cursor` of its last
//! answer: it gets every change since, or is told to begin again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{Answer, Event, EventChange, Read, ReadLevel, SyncDelta};

use crate::app::App;
use crate::error::ApiError;
use crate::known_members;
use crate::limits::DELTA_EVENTS_MAX;
use crate::render;
use crate::rest::extractors::Body;
use crate::rest::reply::{json_bytes, with_cursor};
use crate::rest::sync::SyncScope;
use crate::rest::sync::answer::{EventsSince, delta_answer};
use crate::rest::sync::request::{ClientCursor, DeltaRequest};
use crate::scoped_store::ScopedStore;
use crate::scoped_store::unexpected_answer;

/// `POST …/delta`.
pub(super) async fn delta(
    State(app): State<App>,
    scope: SyncScope,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    let validation = app.node().catalogue().validation_of(&scope.key.module);
    known_members::DELTA.members(&body, validation)?;
    known_members::refuse_other_place(&body, &scope.key, validation)?;
    let request = DeltaRequest::read(&body)?;
    let mut query = request.query.clone();
    if request.everything
        && let Some(config) = app.node().catalogue().module(&scope.key.module)
    {
        let names = config.schema.tables.iter().map(|table| table.name.to_string());
        query.tables = Some(names.collect());
    }
    let read = Read::Sync(query);
    let answer = scope.store.read(scope.key.clone(), read, scope.level).await?;
    let Answer::Sync(delta) = answer else { return Err(unexpected_answer(&answer)) };
    let since = match request.cursor {
        Some(cursor) => Some(since(&scope.store, &delta, cursor).await?),
        None => None,
    };
    let flagged = app
        .node()
        .catalogue()
        .flags_of(&scope.key.branch, Some(scope.key.module.as_str()))
        .any(|flag| flag.enabled);
    let (incarnation, offset) = (delta.head.incarnation, delta.head.offset);
    let rows = delta.tables.iter().map(|table| table.rows.len() as u64).sum::<u64>()
        + since.as_ref().map_or(0, |since| since.events.iter().map(records_in).sum());
    let server_id = Arc::clone(&app.server_id);
    let write = move || {
        let since = since.as_ref();
        render::bytes(&delta_answer(&server_id, &request, &delta, since, flagged))
    };
    let body = app.renderer(&scope.store).rows(rows, write).await?;
    Ok(with_cursor(json_bytes(StatusCode::OK, body), incarnation, offset))
}

/// How many records an event shows.
fn records_in(event: &Arc<Event>) -> u64 {
    match &event.change {
        EventChange::Record(_) => 1,
        EventChange::Module(change) => change.records.len() as u64,
    }
}

async fn since(
    store: &ScopedStore,
    delta: &SyncDelta,
    cursor: ClientCursor,
) -> Result<EventsSince, ApiError> {
    let head = &delta.head;
    let resync = |reason| {
        Ok(EventsSince {
            events: Vec::new(),
            reached: head.offset,
            more: false,
            resync: Some(reason),
        })
    };
    if cursor.epoch != head.incarnation {
        return resync("epoch-changed");
    }
    if cursor.sequence > head.offset {
        return resync("cursor-ahead");
    }
    let read = Read::Events { after: cursor.sequence, limit: DELTA_EVENTS_MAX };
    // Another replica may answer this read: it must have applied what the rows above show, or
    // events between them and the cursor would be missing.
    let level = ReadLevel::Session(head.offset);
    let answer = store.read(head.key.clone(), read, level).await?;
    let Answer::Events(found) = answer else { return Err(unexpected_answer(&answer)) };
    if found.incarnation != head.incarnation {
        return resync("epoch-changed");
    }
    let Some(mut events) = found.events else { return resync("cursor-too-old") };
    // And it may have applied more, which the rows do not show yet.
    events.retain(|event| event.offset <= head.offset);
    let reached = events.last().map_or(cursor.sequence, |event| event.offset);
    Ok(EventsSince { events, reached, more: reached < head.offset, resync: None })
}
