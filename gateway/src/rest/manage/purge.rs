//! Purge: tables emptied into the history, from which they can come back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    Command, Event, EventChange, LogHead, ModuleChange, Object, Origin, Purge, ReadLevel, Request,
    Schema, Validation,
};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::rest::events::log_head;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope};
use crate::rest::manage::history::EntrySummary;
use crate::rest::manage::{entry_of, flag, module, names, words};
use crate::rest::reply::{json, with_cursor};
use crate::scoped_store::ScopedStore;
use crate::wire::{EventMeta, Purged};

/// The names of the member that names the tables.
const TABLES: [&str; 6] =
    ["tables", "table", "tableNames", "targetTables", "transactionTables", "purgeTables"];
/// What is emptied where nothing is named, and for `*`.
const DEFAULTS: [&str; 4] = ["order_header", "order_line", "order_payment", "pos_shift"];

/// `POST …/purge-live-data`.
pub(super) async fn purge(
    State(app): State<App>,
    store: ScopedStore,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    let scope = module(&app, store, &body, None).await?;
    let request = PurgeRequest::read(&body, scope.schema())?;
    let command = Command {
        id,
        key: scope.key.clone(),
        origin: Arc::new(Origin { user: request.requested_by.clone(), ..Origin::default() }),
        request: Request::Purge(Purge {
            tables: request.tables.iter().map(|table| table.shown.clone()).collect(),
            reason: request.reason.clone(),
            requested_by: request.requested_by.clone(),
            reset_events: request.reset_events,
        }),
    };
    let accepted = scope.store.commit(command).await?;
    // Not `?`: the tables are emptied by now, and the answer must say so also where the log cannot
    // be read.
    let log = log_head(&scope, ReadLevel::default()).await;
    match accepted.delta.events.first().map(|event| (event, &event.change)) {
        Some((event, EventChange::Module(change))) => {
            request.removed(&scope, event, change, log.ok()).await
        }
        Some((_, EventChange::Record(_))) => {
            tracing::error!("a purge was answered with a change of one record");
            Err(ApiError::new(Problem::Defect, "the purge was made, but its event is missing"))
        }
        None => request.empty(&scope, &log?),
    }
}

/// What is to be emptied, and who asks.
struct PurgeRequest {
    tables: Vec<PurgeTable>,
    reason: String,
    requested_by: Option<String>,
    reset_events: bool,
    broadcast: bool,
}

/// A table by its canonical name, or as it was named where it is none.
struct PurgeTable {
    shown: String,
    registered: bool,
}

impl PurgeRequest {
    fn read(body: &Object, schema: &Schema) -> Result<Self, ApiError> {
        // Also of a lenient module: what is not named here means all.
        known_members::PURGE.members(body, Validation::Strict)?;
        let defaults = DEFAULTS.map(str::to_owned);
        let named = names(body, &TABLES)?.unwrap_or_else(|| defaults.to_vec());
        let mut tables: Vec<PurgeTable> = Vec::new();
        for name in named {
            let several = if name == "*" { defaults.to_vec() } else { vec![name] };
            for name in several {
                let table = schema.purge_table(&name);
                let registered = table.is_some();
                let shown = table.map_or(name, |table| table.name.to_string());
                if !tables.iter().any(|known| known.shown == shown) {
                    tables.push(PurgeTable { shown, registered });
                }
            }
        }
        if tables.is_empty() {
            let message = "No tables matched the purge criteria.";
            return Err(ApiError::new(Problem::NoTables, message));
        }
        Ok(Self {
            tables,
            reason: words(body, None, "reason")?.unwrap_or_else(|| "purge-live-data".to_owned()),
            requested_by: words(body, None, "requestedBy")?,
            reset_events: flag(body, "resetEvents")?.unwrap_or(true),
            broadcast: flag(body, "broadcast")?.unwrap_or(true),
        })
    }

    /// What was removed, out of the event that tells of it.
    async fn removed(
        &self,
        scope: &ModuleScope,
        event: &Event,
        change: &ModuleChange,
        log: Option<LogHead>,
    ) -> Result<Response, ApiError> {
        let entry = entry_of(&scope.store, &scope.key, change).await;
        let purged = Purged {
            at: event.at.to_iso(),
            reason: &self.reason,
            requested_by: self.requested_by.as_deref(),
            tables: self.registered().collect(),
        };
        let removed =
            |name: &str| change.records.iter().filter(|(table, ..)| table.as_str() == name).count();
        let shape = PurgeAnswer {
            version: event.revision.0,
            total_removed: change.records.len(),
            changed: true,
            tables: self.tables(removed),
            event_meta: log
                .as_ref()
                .filter(|_| self.reset_events)
                .map(|log| EventMeta::of(log, Some(purged))),
            history_entry: entry.as_ref().map(|entry| EntrySummary::of(&scope.key, entry)),
            ..self.shape(scope)
        };
        let response = json(StatusCode::OK, &shape)?;
        Ok(match &log {
            Some(log) => with_cursor(response, log.head.incarnation, event.offset),
            None => response,
        })
    }

    /// There was nothing in these tables.
    fn empty(&self, scope: &ModuleScope, log: &LogHead) -> Result<Response, ApiError> {
        let shape = PurgeAnswer {
            version: log.head.revision.0,
            tables: self.tables(|_| 0),
            event_meta: self.reset_events.then(|| EventMeta::of(log, None)),
            ..self.shape(scope)
        };
        let response = json(StatusCode::OK, &shape)?;
        Ok(with_cursor(response, log.head.incarnation, log.head.offset))
    }

    fn registered(&self) -> impl Iterator<Item = &str> {
        let registered = self.tables.iter().filter(|table| table.registered);
        registered.map(|table| table.shown.as_str())
    }

    fn tables(&self, removed: impl Fn(&str) -> usize) -> Vec<TablePurge<'_>> {
        let mut shown = Vec::with_capacity(self.tables.len());
        for PurgeTable { shown: table, registered } in &self.tables {
            let removed = registered.then(|| removed(table));
            let (status, reason) = match removed {
                None => ("skipped", Some("table-not-registered")),
                Some(0) => ("empty", None),
                Some(_) => ("cleared", None),
            };
            shown.push(TablePurge { table, status, removed, reason });
        }
        shown
    }

    fn shape<'a>(&'a self, scope: &'a ModuleScope) -> PurgeAnswer<'a> {
        PurgeAnswer {
            status: "ok",
            branch_id: scope.key.branch.as_str(),
            module_id: scope.key.module.as_str(),
            requested_by: self.requested_by.as_deref(),
            reason: &self.reason,
            reset_events: self.reset_events,
            broadcast: self.broadcast,
            version: 0,
            total_removed: 0,
            changed: false,
            tables: Vec::new(),
            event_meta: None,
            history_entry: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PurgeAnswer<'a> {
    status: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    requested_by: Option<&'a str>,
    reason: &'a str,
    reset_events: bool,
    broadcast: bool,
    version: u64,
    total_removed: usize,
    changed: bool,
    tables: Vec<TablePurge<'a>>,
    event_meta: Option<EventMeta<'a>>,
    history_entry: Option<EntrySummary<'a>>,
}

#[derive(Serialize)]
struct TablePurge<'a> {
    table: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}
