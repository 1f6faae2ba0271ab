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
use model::{Answer, Event, EventChange, Offset, Read, ReadLevel, SyncDelta};

use crate::auth::Intent;
use crate::error::ApiError;
use crate::gateway::{App, unasked};
use crate::http::ask::LargeBody;
use crate::http::known;
use crate::http::reply::{at, written};
use crate::http::sync::InSync;
use crate::http::sync::asked::{Asked, Cursor};
use crate::http::sync::shown::shown;
use crate::limits::DELTA_EVENTS_MAX;
use crate::render;

/// `POST …/delta`.
pub(super) async fn delta(
    State(app): State<App>,
    place: InSync,
    LargeBody(body, _permit): LargeBody,
) -> Result<Response, ApiError> {
    place.authorize(Intent::Read)?;
    let body = body.object()?;
    let validation = app.branches.catalogue().validation_of(&place.key.module);
    known::DELTA.members(&body, validation)?;
    known::refuse_other_place(&body, &place.key, validation)?;
    let asked = Asked::read(&body)?;
    let mut query = asked.query.clone();
    if asked.everything
        && let Some(config) = app.branches.catalogue().module(&place.key.module)
    {
        let names = config.schema.tables.iter().map(|table| table.name.to_string());
        query.tables = Some(names.collect());
    }
    let read = Read::Sync(query);
    let answer = app.branches.read(place.key.clone(), read, place.level).await?;
    let Answer::Sync(delta) = answer else { return Err(unasked(&answer)) };
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
        + since.as_ref().map_or(0, |since| since.events.iter().map(records_in).sum());
    let server_id = Arc::clone(&app.server_id);
    let write = move || {
        let since = since.as_ref();
        render::bytes(&shown(&server_id, &asked, &delta, since, flagged))
    };
    let body = render::rows(&app.renders, rows, write).await?;
    Ok(at(written(StatusCode::OK, body), incarnation, offset))
}

/// What happened after a cursor, up to the moment the rows were read.
pub(super) struct Since {
    pub(super) events: Vec<Arc<Event>>,
    /// Where the client stands after it has taken them.
    pub(super) reached: Offset,
    /// There is more than one answer holds.
    pub(super) more: bool,
    /// Why the client must begin again instead.
    pub(super) resync: Option<&'static str>,
}

/// How many records an event shows.
fn records_in(event: &Arc<Event>) -> u64 {
    match &event.change {
        EventChange::Record(_) => 1,
        EventChange::Module(change) => change.records.len() as u64,
    }
}

async fn since(app: &App, delta: &SyncDelta, cursor: Cursor) -> Result<Since, ApiError> {
    let head = &delta.head;
    let resync = |reason| {
        Ok(Since { events: Vec::new(), reached: head.offset, more: false, resync: Some(reason) })
    };
    if cursor.epoch != head.incarnation {
        return resync("epoch-changed");
    }
    if cursor.sequence > head.offset {
        return resync("cursor-ahead");
    }
    let read = Read::Events { after: cursor.sequence, limit: DELTA_EVENTS_MAX };
    let level = ReadLevel::Session(head.offset);
    let answer = app.branches.read(head.key.clone(), read, level).await?;
    let Answer::Events(found) = answer else { return Err(unasked(&answer)) };
    if found.incarnation != head.incarnation {
        return resync("epoch-changed");
    }
    let Some(mut events) = found.events else { return resync("cursor-too-old") };
    events.retain(|event| event.offset <= head.offset);
    let reached = events.last().map_or(cursor.sequence, |event| event.offset);
    Ok(Since { events, reached, more: reached < head.offset, resync: None })
}
