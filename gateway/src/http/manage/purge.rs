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

use crate::auth::Intent;
use crate::error::{ApiError, Problem};
use crate::gateway::App;
use crate::http::ask::{Body, InModule, Named};
use crate::http::events::log_head;
use crate::http::known;
use crate::http::manage::history::Summary;
use crate::http::manage::{Manager, entry_of, flag, names, words};
use crate::http::reply::{at, json};
use crate::wire::{EventMeta, Purged};

/// The names of the member that names the tables.
const TABLES: [&str; 6] =
    ["tables", "table", "tableNames", "targetTables", "transactionTables", "purgeTables"];
/// What is emptied where nothing is named, and for `*`.
const DEFAULTS: [&str; 4] = ["order_header", "order_line", "order_payment", "pos_shift"];

/// `POST …/purge-live-data`.
pub(super) async fn purge(
    State(app): State<App>,
    manager: Manager,
    Named(id): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    let place = manager.module(&app, &body, None).await?;
    place.authorize(Intent::Write)?;
    let asked = Asked::read(&body, place.schema())?;
    let command = Command {
        id,
        key: place.key.clone(),
        origin: Arc::new(Origin { user: asked.requested_by.clone(), ..Origin::default() }),
        request: Request::Purge(Purge {
            tables: asked.tables.iter().map(|table| table.shown.clone()).collect(),
            reason: asked.reason.clone(),
            requested_by: asked.requested_by.clone(),
            reset_events: asked.reset_events,
        }),
    };
    let accepted = app.submit(command).await?;
    let log = log_head(&app, &place, ReadLevel::default()).await;
    match accepted.delta.events.first().map(|event| (event, &event.change)) {
        Some((event, EventChange::Module(change))) => {
            asked.removed(&app, &place, event, change, log.ok()).await
        }
        Some((_, EventChange::Record(_))) => {
            tracing::error!("a purge was answered with a change of one record");
            Err(ApiError::new(Problem::Defect, "the purge was made, but its event is missing"))
        }
        None => asked.empty(&place, &log?),
    }
}

/// What is to be emptied, and who asks.
struct Asked {
    tables: Vec<Table>,
    reason: String,
    requested_by: Option<String>,
    reset_events: bool,
    broadcast: bool,
}

/// A table by its canonical name, or as it was named where it is none.
struct Table {
    shown: String,
    registered: bool,
}

impl Asked {
    fn read(body: &Object, schema: &Schema) -> Result<Self, ApiError> {
        // Also of a lenient module: what is not named here means all.
        known::PURGE.members(body, Validation::Strict)?;
        let defaults = DEFAULTS.map(str::to_owned);
        let named = names(body, &TABLES)?.unwrap_or_else(|| defaults.to_vec());
        let mut tables: Vec<Table> = Vec::new();
        for name in named {
            let several = if name == "*" { defaults.to_vec() } else { vec![name] };
            for name in several {
                let table = schema.purge_table(&name);
                let registered = table.is_some();
                let shown = table.map_or(name, |table| table.name.to_string());
                if !tables.iter().any(|known| known.shown == shown) {
                    tables.push(Table { shown, registered });
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
        app: &App,
        place: &InModule,
        event: &Event,
        change: &ModuleChange,
        log: Option<LogHead>,
    ) -> Result<Response, ApiError> {
        let entry = entry_of(app, &place.key, change).await;
        let purged = Purged {
            at: event.at.to_iso(),
            reason: &self.reason,
            requested_by: self.requested_by.as_deref(),
            tables: self.registered().collect(),
        };
        let removed =
            |name: &str| change.records.iter().filter(|(table, ..)| table.as_str() == name).count();
        let shape = Shape {
            version: event.revision.0,
            total_removed: change.records.len(),
            changed: true,
            tables: self.tables(removed),
            event_meta: log
                .as_ref()
                .filter(|_| self.reset_events)
                .map(|log| EventMeta::of(log, Some(purged))),
            history_entry: entry.as_ref().map(|entry| Summary::of(&place.key, entry)),
            ..self.shape(place)
        };
        let response = json(StatusCode::OK, &shape)?;
        Ok(match &log {
            Some(log) => at(response, log.head.incarnation, event.offset),
            None => response,
        })
    }

    /// There was nothing in these tables.
    fn empty(&self, place: &InModule, log: &LogHead) -> Result<Response, ApiError> {
        let shape = Shape {
            version: log.head.revision.0,
            tables: self.tables(|_| 0),
            event_meta: self.reset_events.then(|| EventMeta::of(log, None)),
            ..self.shape(place)
        };
        let response = json(StatusCode::OK, &shape)?;
        Ok(at(response, log.head.incarnation, log.head.offset))
    }

    fn registered(&self) -> impl Iterator<Item = &str> {
        let registered = self.tables.iter().filter(|table| table.registered);
        registered.map(|table| table.shown.as_str())
    }

    fn tables(&self, removed: impl Fn(&str) -> usize) -> Vec<Emptied<'_>> {
        let mut shown = Vec::with_capacity(self.tables.len());
        for Table { shown: table, registered } in &self.tables {
            let removed = registered.then(|| removed(table));
            let (status, reason) = match removed {
                None => ("skipped", Some("table-not-registered")),
                Some(0) => ("empty", None),
                Some(_) => ("cleared", None),
            };
            shown.push(Emptied { table, status, removed, reason });
        }
        shown
    }

    fn shape<'a>(&'a self, place: &'a InModule) -> Shape<'a> {
        Shape {
            status: "ok",
            branch_id: place.key.branch.as_str(),
            module_id: place.key.module.as_str(),
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
struct Shape<'a> {
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
    tables: Vec<Emptied<'a>>,
    event_meta: Option<EventMeta<'a>>,
    history_entry: Option<Summary<'a>>,
}

#[derive(Serialize)]
struct Emptied<'a> {
    table: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}
