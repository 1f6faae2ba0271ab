//! History: what purges and resets took out of a module, and how it comes back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    ArchiveEntry, ArchivedTable, BranchKey, Command, EventChange, Object, Origin, Request, Restore,
    RestoreMode, Value,
};
use serde::{Serialize, Serializer};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::publish::text;
use crate::render;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope};
use crate::rest::manage::{entries, flag, module, words};
use crate::rest::reply::{json, json_bytes, with_cursor};
use crate::scoped_store::ScopedStore;
use crate::wire::record_ref;

/// `GET …/purge-history`: every entry in short, or one with its records.
pub(super) async fn list(
    State(app): State<App>,
    store: ScopedStore,
    params: Params,
) -> Result<Response, ApiError> {
    let scope = module(&app, store, &Object::new(), Some(&params)).await?;
    known_members::HISTORY.params(&params, scope.config.validation)?;
    match params.first(&["entryId", "id"]) {
        Some(id) => one(&app, &scope, id).await,
        None => all(&scope).await,
    }
}

async fn all(scope: &ModuleScope) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        entries: Vec<EntrySummary<'a>>,
    }
    let entries = entries(&scope.store, &scope.key, None).await?;
    let shape = Shape {
        branch_id: scope.key.branch.as_str(),
        module_id: scope.key.module.as_str(),
        entries: entries.iter().map(|entry| EntrySummary::of(&scope.key, entry)).collect(),
    };
    json(StatusCode::OK, &shape)
}

async fn one(app: &App, scope: &ModuleScope, id: &str) -> Result<Response, ApiError> {
    let entry =
        entries(&scope.store, &scope.key, Some(id.to_owned())).await?.pop().ok_or_else(|| {
            ApiError::new(Problem::HistoryEntryNotFound, format!("the history has no entry {id:?}"))
                .with("entryId", id)
        })?;
    let key = scope.key.clone();
    let rows = total(&entry) as u64;
    let write = move || render::bytes(&EntryView { key: &key, entry: &entry });
    Ok(json_bytes(StatusCode::OK, app.renderer(&scope.store).rows(rows, write).await?))
}

fn total(entry: &ArchiveEntry) -> usize {
    entry.tables.iter().map(|table| table.records.len()).sum()
}

/// One entry with its records.
struct EntryView<'a> {
    key: &'a BranchKey,
    entry: &'a ArchiveEntry,
}

impl Serialize for EntryView<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            branch_id: &'a str,
            module_id: &'a str,
            entry_id: &'a str,
            entry: Entry<'a>,
            summary: EntrySummary<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry<'a> {
            id: &'a str,
            r#type: &'a str,
            branch_id: &'a str,
            module_id: &'a str,
            created_at: String,
            reason: &'a str,
            requested_by: Option<&'a str>,
            cleared_tables: Vec<&'a str>,
            original_version: u64,
            total_records: usize,
            tables: Vec<Table<'a>>,
            summary: Vec<TableCount<'a>>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Table<'a> {
            name: &'a str,
            count: usize,
            records: &'a [Arc<Object>],
            primary_key_fields: &'a [Arc<str>],
            sample: KeySample<'a>,
        }
        let Self { key, entry } = *self;
        Shape {
            branch_id: key.branch.as_str(),
            module_id: key.module.as_str(),
            entry_id: &entry.id,
            entry: Entry {
                id: &entry.id,
                r#type: "purge",
                branch_id: key.branch.as_str(),
                module_id: key.module.as_str(),
                created_at: entry.at.to_iso(),
                reason: &entry.reason,
                requested_by: entry.requested_by.as_deref(),
                cleared_tables: entry.tables.iter().map(|table| table.table.as_str()).collect(),
                original_version: entry.revision.0,
                total_records: total(entry),
                tables: entry
                    .tables
                    .iter()
                    .map(|table| Table {
                        name: table.table.as_str(),
                        count: table.records.len(),
                        records: &table.records,
                        primary_key_fields: &table.key_fields,
                        sample: KeySample(table),
                    })
                    .collect(),
                summary: counts(entry),
            },
            summary: EntrySummary::of(key, entry),
        }
        .serialize(to)
    }
}

/// One entry in short.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntrySummary<'a> {
    id: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    created_at: String,
    reason: &'a str,
    requested_by: Option<&'a str>,
    total_records: usize,
    tables: Vec<TableCount<'a>>,
}

impl<'a> EntrySummary<'a> {
    pub(super) fn of(key: &'a BranchKey, entry: &'a ArchiveEntry) -> Self {
        Self {
            id: &entry.id,
            branch_id: key.branch.as_str(),
            module_id: key.module.as_str(),
            created_at: entry.at.to_iso(),
            reason: &entry.reason,
            requested_by: entry.requested_by.as_deref(),
            total_records: total(entry),
            tables: counts(entry),
        }
    }
}

#[derive(Serialize)]
struct TableCount<'a> {
    name: &'a str,
    count: usize,
    sample: KeySample<'a>,
}

fn counts(entry: &ArchiveEntry) -> Vec<TableCount<'_>> {
    let count = |table| TableCount::of(table);
    entry.tables.iter().map(count).collect()
}

impl<'a> TableCount<'a> {
    fn of(table: &'a ArchivedTable) -> Self {
        let (name, count) = (table.table.as_str(), table.records.len());
        Self { name, count, sample: KeySample(table) }
    }
}

/// The first records of a table, by name.
struct KeySample<'a>(&'a ArchivedTable);

impl Serialize for KeySample<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let ArchivedTable { table, key_fields, first_keys, records } = self.0;
        let named = first_keys.iter().zip(records);
        to.collect_seq(
            named.map(|(key, record)| record_ref(table.as_str(), key.as_str(), key_fields, record)),
        )
    }
}

/// `POST …/purge-history`: brings the records of one entry back.
pub(super) async fn restore(
    State(app): State<App>,
    store: ScopedStore,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        entry_id: &'a str,
        restored: &'a [Value],
        total_restored: usize,
        changed: bool,
        history_entry: Option<EntrySummary<'a>>,
        mode: &'a str,
    }
    let body = body.object()?;
    let scope = module(&app, store, &body, None).await?;
    known_members::RESTORE.members(&body, scope.config.validation)?;
    let RestoreRequest { entry: entry_id, mode, fill, reason, requested_by } =
        RestoreRequest::read(&body)?;
    // As it is before: a record that comes back leaves it.
    let entry = entries(&scope.store, &scope.key, Some(entry_id.clone())).await?.pop();
    let command = Command {
        id,
        key: scope.key.clone(),
        origin: Arc::new(Origin { user: requested_by.clone(), ..Origin::default() }),
        request: Request::Restore(Restore {
            entry: entry_id.clone(),
            mode,
            fill,
            reason: Some(reason),
            requested_by,
        }),
    };
    let accepted = scope.store.commit(command).await?;
    let event = accepted.delta.events.first();
    let change = event.and_then(|event| match &event.change {
        EventChange::Module(change) => Some(change),
        EventChange::Record(_) => None,
    });
    let detail = |name: &str| change.and_then(|change| change.details.get(name));
    let back = |change: &model::ModuleChange| {
        change.records.iter().filter(|(_, _, record)| record.is_some()).count()
    };
    let counted = detail("totalRestored").and_then(Value::as_u64).map(|total| total as usize);
    let response = json(
        StatusCode::OK,
        &Shape {
            branch_id: scope.key.branch.as_str(),
            module_id: scope.key.module.as_str(),
            entry_id: &entry_id,
            restored: detail("restored").and_then(Value::as_array).unwrap_or_default(),
            total_restored: counted.or_else(|| change.map(back)).unwrap_or(0),
            changed: change.is_some_and(|change| !change.records.is_empty()),
            history_entry: entry.as_ref().map(|entry| EntrySummary::of(&scope.key, entry)),
            mode: mode.wire_name(),
        },
    )?;
    Ok(match event {
        Some(event) => with_cursor(response, accepted.delta.incarnation, event.offset),
        None => response,
    })
}

/// What is to come back, and how.
struct RestoreRequest {
    entry: String,
    mode: RestoreMode,
    fill: bool,
    reason: String,
    requested_by: Option<String>,
}

impl RestoreRequest {
    fn read(body: &Object) -> Result<Self, ApiError> {
        let entry = text(body, &["entryId", "id", "historyId", "historyEntryId"]);
        let entry = entry.ok_or_else(|| {
            ApiError::new(Problem::MissingEntryId, "name the entry as \"entryId\"")
        })?;
        let mode = match text(body, &["mode"]).as_deref() {
            None | Some("append") => RestoreMode::Append,
            Some("replace") => RestoreMode::Replace,
            Some(other) => {
                let message = format!("mode must be append or replace, but was {other:?}");
                return Err(ApiError::new(Problem::InvalidBody, message));
            }
        };
        let fill = match text(body, &["fill"]).as_deref() {
            None => false,
            Some("defaults") => true,
            Some(other) => {
                let message = format!("fill must be defaults, but was {other:?}");
                return Err(ApiError::new(Problem::InvalidBody, message));
            }
        };
        flag(body, "broadcast")?;
        let reason = words(body, None, "reason")?;
        Ok(Self {
            entry,
            mode,
            fill,
            reason: reason.unwrap_or_else(|| "restore-purge-history".to_owned()),
            requested_by: words(body, None, "requestedBy")?,
        })
    }
}
