//! Events: one change as a publish over HTTP, and the event log: what it says of itself, and its
//! events after an offset.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    Answer, Command, Events, Incarnation, LogHead, ModuleSnapshot, Object, Offset, Read, ReadLevel,
    RecordMutation, Request, Transaction, Value,
};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::app::{App, now};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::{EVENTS_PAGE, EVENTS_PAGE_BYTES, EVENTS_PAGE_MAX};
use crate::params::Params;
use crate::publish::{Publish, event_of};
use crate::render;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, NoParams};
use crate::rest::reply::{json_bytes, rendered, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{StoreCall, unexpected_answer};
use crate::wire::{EventLogShape, LogLine, ModuleShape, RecordEvent};

mod ingest;

pub(crate) fn routes() -> Routes {
    const PUBLISH: &str = "{action?: text, table: text, record: Record, meta?: any, source?: text, \
                           eventId?: text, includeRecord?: flag, includeSnapshot?: flag, *: any}";
    const PUBLISHED: &str = "{ack: Ack, event: object, logEntry: object, recordRef: RecordRef, \
                             notice: Notice, record: Record?, removed: Record?}";
    const BATCH: &str = "{lastAckId: text?, events: [object]}";
    const INGESTED: &str = "{branchId: text, moduleId: text, ingested: int, lastAckId: text?, \
                            lastEventId: text?, sequences: [{id: text, sequence: int, table: text, \
                            createdAt: text}]}";
    Routes::of("Events")
        .in_branches("/{branch}/modules/{module}/events")
        .get(
            head,
            op("What the event log says of itself; with `after` or `limit`, its events")
                .query("after", "int", "only events after this sequence")
                .query("limit", "int", "at most so many events; 100 by default, at most 1000")
                .query("epoch", "int", "the life of the log that `after` belongs to")
                .answers(200, "object")
                .reads()
                .refuses(&[Problem::EventsGone]),
        )
        .post(
            publish,
            op("One change, as a socket publishes it")
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .body(PUBLISH)
                .answers(200, PUBLISHED)
                .writes()
                .refuses(&[Problem::ModuleEventFailed, Problem::VersionConflict]),
        )
        .in_branches("/{branch}/modules/{module}/events/batch")
        .post(
            ingest::ingest,
            op("Many inserts after a known event, all or none")
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .body(BATCH)
                .answers(200, INGESTED)
                .writes()
                .refuses(&[
                    Problem::MissingLastAckId,
                    Problem::InvalidLastAckId,
                    Problem::LastAckMismatch,
                    Problem::InvalidEventPayload,
                    Problem::UnsupportedEventAction,
                    Problem::MissingTableName,
                    Problem::ModuleEventFailed,
                    Problem::VersionConflict,
                ]),
        )
}

/// `GET`: the log's head and the module; with `after` or `limit`, the events themselves.
async fn head(
    State(app): State<App>,
    scope: ModuleScope,
    params: Params,
) -> Result<Response, ApiError> {
    let warnings = known_members::EVENTS.params(&params, scope.config.validation)?;
    if params.first(&["after", "limit"]).is_some() {
        return list(&app, &scope, &params, warnings).await;
    }
    let log = log_head(&scope, scope.level).await?;
    // The module is never older than its log: who goes on from the log misses nothing.
    let level = match scope.level {
        ReadLevel::Stale => ReadLevel::Session(log.head.offset),
        ReadLevel::Linearizable | ReadLevel::Session(_) => scope.level,
    };
    let snapshot = scope.store.snapshot(scope.key.clone(), level).await?;
    let (incarnation, offset) = (snapshot.head.incarnation, snapshot.head.offset);
    let server_id = app.server_id.clone();
    let events = databases(&snapshot);
    let write = move |outline: Vec<Arc<ModuleSnapshot>>| {
        let snapshot = Arc::clone(&outline[0]);
        render::bytes(&LogAnswer { server_id: &server_id, log: &log, events, snapshot, warnings })
    };
    let answer = app.renderer(&scope.store).modules(vec![snapshot], write).await?;
    Ok(with_cursor(rendered(StatusCode::OK, answer), incarnation, offset))
}

/// What the log says of itself.
pub(crate) async fn log_head(scope: &ModuleScope, level: ReadLevel) -> Result<LogHead, ApiError> {
    let answer = scope.store.read(scope.key.clone(), Read::Log, level).await?;
    let Answer::Log(log) = answer else { return Err(unexpected_answer(&answer)) };
    Ok(log)
}

struct LogAnswer<'a> {
    server_id: &'a str,
    log: &'a LogHead,
    events: Vec<Object>,
    snapshot: Arc<ModuleSnapshot>,
    warnings: Vec<String>,
}

impl Serialize for LogAnswer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            branch_id: &'a str,
            module_id: &'a str,
            version: u64,
            updated_at: String,
            server_id: &'a str,
            events: &'a [Object],
            event_log: EventLogShape<'a>,
            snapshot: ModuleShape<'a>,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            warnings: &'a [String],
        }
        let head = &self.snapshot.head;
        Shape {
            branch_id: head.key.branch.as_str(),
            module_id: head.key.module.as_str(),
            version: head.revision.0,
            updated_at: head.last_updated_at.to_iso(),
            server_id: self.server_id,
            events: &self.events,
            event_log: EventLogShape::of(self.log, now()),
            snapshot: ModuleShape(&self.snapshot),
            warnings: &self.warnings,
        }
        .serialize(to)
    }
}

/// What the original lists as `events`: the rows of one table, where a module has it.
fn databases(snapshot: &ModuleSnapshot) -> Vec<Object> {
    const SHOWN: [&str; 5] = ["id", "branchId", "createdAt", "updatedAt", "payload"];
    let table = snapshot.tables.iter().find(|(name, _)| name.as_str() == "pos_database");
    let shown = |row: &Arc<Object>| {
        SHOWN.map(|name| (name, row.get(name).cloned().unwrap_or_default())).into_iter().collect()
    };
    table.map(|(_, rows)| rows.iter().map(shown).collect()).unwrap_or_default()
}

/// The events after an offset.
async fn list(
    app: &App,
    scope: &ModuleScope,
    params: &Params,
    warnings: Vec<String>,
) -> Result<Response, ApiError> {
    let after = params.number(&["after"])?.and_then(|after| u64::try_from(after).ok());
    let after = Offset(after.unwrap_or_default());
    let limit = params.number(&["limit"])?.unwrap_or(EVENTS_PAGE);
    if !(1..=EVENTS_PAGE_MAX).contains(&limit) {
        let message = format!("limit must be 1 to {EVENTS_PAGE_MAX}, but was {limit}");
        return Err(ApiError::new(Problem::InvalidParameter, message)
            .details([("parameter", "limit".into())]));
    }
    let epoch = params.number(&["epoch"])?.and_then(|epoch| u64::try_from(epoch).ok());
    let read = Read::Events { after, limit: u32::try_from(limit).unwrap_or(u32::MAX) };
    let answer = scope.store.read(scope.key.clone(), read, scope.level).await?;
    let Answer::Events(page) = answer else { return Err(unexpected_answer(&answer)) };
    // The offset is of the log that the client names: in another it stands for other events.
    let other_incarnation = epoch.is_some_and(|epoch| epoch != page.incarnation.0);
    if page.events.is_none() || other_incarnation {
        let message = "these events are no longer held: take a snapshot, and go on from there";
        return Err(ApiError::new(Problem::EventsGone, message)
            .details([("epoch", page.incarnation.0.into()), ("last", page.last.0.into())]));
    }
    let (server_id, key) = (app.server_id.clone(), scope.key.clone());
    let rows = page.events.as_ref().map_or(0, Vec::len) as u64;
    let write = move || {
        let Events { incarnation, last, events } = page;
        let line = |event| LogLine { server_id: &server_id, key: &key, event };
        let (mut lines, mut seen, mut bytes) = (Vec::new(), after, 0);
        for event in events.iter().flatten() {
            let line = to_raw_value(&line(event)).map_err(|error| {
                tracing::error!(%error, "an event could not be written");
                ApiError::new(Problem::Defect, "the answer could not be written")
            })?;
            bytes += line.get().len();
            lines.push(line);
            seen = event.offset;
            // After the event and not before it: a page of one is how a larger one than the bound
            // gets out.
            if bytes >= EVENTS_PAGE_BYTES {
                break;
            }
        }
        let page = EventsPage {
            branch_id: key.branch.as_str(),
            module_id: key.module.as_str(),
            epoch: incarnation,
            after,
            count: lines.len(),
            last,
            events: lines,
            warnings,
        };
        Ok((render::bytes(&page)?, incarnation, seen))
    };
    let (json, incarnation, seen) = app.renderer(&scope.store).rows(rows, write).await?;
    Ok(with_cursor(json_bytes(StatusCode::OK, json), incarnation, seen))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventsPage<'a> {
    branch_id: &'a str,
    module_id: &'a str,
    epoch: Incarnation,
    after: Offset,
    count: usize,
    last: Offset,
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// `POST`: one publish, as a socket takes it.
async fn publish(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    let mut frame = body.object()?;
    known_members::refuse_other_place(&frame, &scope.key, scope.config.validation)?;
    // The path names the module: the frame is read as if it had said the same.
    frame.insert("moduleId", scope.key.module.as_str().into());
    let Publish { table, action, record, origin, .. } =
        Publish::read(frame, "rest", |_| scope.config.validation)?;
    let wants_snapshot = origin.include_snapshot;
    let command = Command {
        id,
        key: scope.key.clone(),
        origin: Arc::new(origin),
        request: Request::Transaction(Transaction::of(vec![RecordMutation::new(
            action, table, record,
        )])),
    };
    let accepted = scope.store.commit(command).await.map_err(as_event_failed)?;
    let event = event_of(&accepted)?;
    let (incarnation, offset) = (accepted.delta.incarnation, event.offset);
    let snapshot = match wants_snapshot {
        // The change is made: an answer without the snapshot is better than none.
        true => scope.store.snapshot(scope.key.clone(), ReadLevel::Session(offset)).await.ok(),
        false => None,
    };
    let (server_id, key, event) = (app.server_id.clone(), scope.key, Arc::clone(event));
    let write = move |outline: Vec<Arc<ModuleSnapshot>>| {
        let shown = RecordEvent::of(&server_id, &key, &event)?;
        let snapshot = outline.first().map(|snapshot| &**snapshot);
        render::bytes(&PublishAnswer { shown: &shown, snapshot })
    };
    let (renderer, modules) = (app.renderer(&scope.store), Vec::from_iter(snapshot));
    let answer = match renderer.modules(modules, write.clone()).await {
        // The same here: it is larger than may be sent.
        Err(error) if error.problem() == Problem::SnapshotTooLarge => {
            renderer.modules(Vec::new(), write).await?
        }
        answer => answer?,
    };
    Ok(with_cursor(rendered(StatusCode::OK, answer), incarnation, offset))
}

struct PublishAnswer<'a> {
    shown: &'a RecordEvent<'a>,
    snapshot: Option<&'a ModuleSnapshot>,
}

impl Serialize for PublishAnswer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<A, E, L, R, N, O> {
            ack: A,
            event: E,
            log_entry: L,
            record_ref: R,
            notice: N,
            record: Option<O>,
            removed: Option<O>,
        }
        let shown = self.shown;
        let gone = shown.deleted();
        Shape {
            ack: shown.ack(),
            event: shown.event(self.snapshot),
            log_entry: shown.log_entry(),
            record_ref: shown.record_ref(),
            notice: shown.notice(),
            record: (!gone).then_some(shown.record()),
            removed: gone.then_some(shown.record()),
        }
        .serialize(to)
    }
}

/// Here an unknown table or record is a failed event, as it was for the clients that send them.
fn as_event_failed(error: ApiError) -> ApiError {
    let problem = error.problem();
    if problem == Problem::RecordNotFound {
        return error.with_problem(Problem::ModuleEventFailed);
    }
    if problem != Problem::TableNotFound {
        return error;
    }
    let code = std::iter::once((Arc::from("code"), Value::from(problem.code())));
    let shown = error.shown_details();
    let members = shown.iter().map(|(name, value)| (Arc::clone(name), value.clone()));
    let details: Object = code.chain(members).collect();
    error.with_problem(Problem::ModuleEventFailed).with("details", details)
}
