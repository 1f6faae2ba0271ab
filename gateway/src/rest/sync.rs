//! Sync: a module's whole state to take and to give, and what is missing since
//! (docs/original/rest.md#sync).
//!
//! Promise: what is shown is the live state; a snapshot given twice under one `mutationId` or
//! `requestId` is taken once. Refused: a module that does not exist, and the four paths right under
//! `/api/sync` that belong to another sync system. A branch that has one of their names is reached
//! with its module in the path, and by `?branch=`.

mod answer;
mod delta;
mod request;

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use model::limits::VERSION_MAX;
use model::{
    Answer, BranchId, BranchKey, Command, CommandId, ModuleId, ModuleSnapshot, Object, Offset,
    Origin, Read, ReadLevel, Reject, Replace, Request, Timestamp, Validation, Value,
};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::publish::{short, user_of};
use crate::render;
use crate::rest::extractors::{Body, IdempotencyKey, ReadLevelHeader, branch_exists, path_part};
use crate::rest::reply::{json, rendered, with_cursor};
use crate::rest::route_doc::{Op, op};
use crate::rest::routes::Routes;
use crate::scoped_store::ScopedStore;
use crate::scoped_store::{StoreCall, unexpected_answer};
use crate::wire::ModuleShape;

/// What another sync system has under `/api/sync`.
const RESERVED: [&str; 4] = ["stats", "batch-push", "pull-changes", "resolve-conflict"];
/// The older path, for the module [`POS`] alone.
const POS_SYNC: &str = "/api/pos-sync";
/// The branch that is meant where none is named.
const BRANCH: &str = "default";
/// The module that is meant where none is named.
const POS: &str = "pos";

pub(crate) fn routes() -> Routes {
    const PATHS: [&str; 4] = [
        "/api/sync",
        "/api/sync/{branch}",
        "/api/sync/{branch}/{module}",
        "/api/pos-sync/{branch}",
    ];
    let routes = PATHS.into_iter().fold(Routes::of("Whole tables"), sync_at);
    RESERVED.into_iter().fold(routes, |routes, name| {
        let none = || op("The second sync system: not here").gone();
        let routes = routes.path(&format!("/api/sync/{name}"));
        let routes = routes.get(reserved, none()).post(reserved, none());
        routes.put(reserved, none()).patch(reserved, none()).delete(reserved, none())
    })
}

/// A module as a int, and what a client lacks of it, under one of its names.
fn sync_at(routes: Routes, path: &'static str) -> Routes {
    const BODY: &str = "{snapshot?: {tables: object, version?: int, *: any}, mutationId?: text, \
                        requestId?: text, meta?: object}";
    const DELTA: &str = "{version?: int, tables?: any, lastTableIds?: object, \
                         snapshotMarker?: text, cursor?: object, *: any}";
    let named = |op: Op| match path {
        "/api/sync" => op.query("branch", "text", "the branch; `default` by default").query(
            "module",
            "text",
            "the module; `pos` by default",
        ),
        _ => op,
    };
    let routes = routes
        .path(path)
        .large()
        .get(
            whole,
            named(op("The module, whole"))
                .answers(200, "object")
                .reads()
                .refuses(&[Problem::SnapshotTooLarge]),
        )
        .post(
            replace,
            named(op("Replace whole tables"))
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .body(BODY)
                .answers(200, "object")
                .writes()
                .refuses(&[Problem::InsertOnly]),
        );
    if path == "/api/sync/{branch}" {
        return routes;
    }
    let delta_op = named(op("What a client lacks")).body(DELTA).answers(200, "object").reads();
    routes
        .path(&format!("{path}/delta"))
        .large()
        .post(delta::delta, delta_op.refuses(&[Problem::TableNotFound]))
}

/// Reads any body, for the fuzzers.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_any(body: &Object) {
    let _ = request::DeltaRequest::read(body);
}

/// A module named by the path, by parameters, or not at all, and who asks.
struct SyncScope {
    store: ScopedStore,
    key: BranchKey,
    level: ReadLevel,
}

impl FromRequestParts<App> for SyncScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Ok(store) = ScopedStore::from_request_parts(parts, app).await;
        let params = Params::from_request_parts(parts, app).await?;
        let (branch, module) =
            (path_part(parts, app, "branch").await?, path_part(parts, app, "module").await?);
        let named_or = |part: String, names: &[&str], otherwise: &str| match part.as_str() {
            "" => params.first(names).unwrap_or(otherwise).to_owned(),
            _ => part,
        };
        let is_pos_sync = parts.uri.path().starts_with(POS_SYNC);
        // The same path written with escapes is the same path.
        if !is_pos_sync && module.is_empty() && RESERVED.contains(&branch.as_str()) {
            return Err(not_served());
        }
        let branch = named_or(branch, &["branch", "branchId"], BRANCH);
        let module = if is_pos_sync {
            POS.to_owned()
        } else {
            named_or(module, &["module", "moduleId"], POS)
        };
        let key = BranchKey::new(BranchId::parse(&branch)?, ModuleId::parse(&module)?);
        branch_exists(app, &key.branch).await?;
        // Any module may be used by any branch, as by a publish.
        let is_known = || app.node().catalogue().module(&key.module).is_some();
        if !is_known() {
            app.node().catch_up().await?;
        }
        if !is_known() {
            let message = format!("there is no module {:?}", key.module);
            return Err(ApiError::new(Problem::ModuleNotFound, message)
                .details([("moduleId", key.module.as_str().into())]));
        }
        let validation = app.node().catalogue().validation_of(&key.module);
        known_members::WHOLE.params(&params, validation)?;
        for (names, here) in [
            (["branch", "branchId"], key.branch.as_str()),
            (["module", "moduleId"], key.module.as_str()),
        ] {
            let other = params.first(&names).filter(|other| *other != here);
            if let (Validation::Strict, Some(other)) = (validation, other) {
                let message = format!("?{}= is {other:?}, but the path says {here:?}", names[0]);
                return Err(ApiError::new(Problem::InvalidParameter, message)
                    .details([("parameter", names[0].into())]));
            }
        }
        let ReadLevelHeader(level) = ReadLevelHeader::from_request_parts(parts, app).await?;
        Ok(Self { store, key, level })
    }
}

async fn reserved() -> Result<(), ApiError> {
    Err(not_served())
}

fn not_served() -> ApiError {
    let message = "this belongs to another sync system, which is not served here; \
                   use /api/sync/<branch>/<module>, and /delta below it";
    ApiError::new(Problem::NotSupported, message)
}

/// `GET`: the whole state.
async fn whole(State(app): State<App>, scope: SyncScope) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        version: u64,
        updated_at: String,
        server_id: &'a str,
        snapshot: ModuleShape<'a>,
    }
    let snapshot = scope.store.snapshot(scope.key, scope.level).await?;
    let (incarnation, offset) = (snapshot.head.incarnation, snapshot.head.offset);
    let server_id = Arc::clone(&app.server_id);
    let write = move |outline: Vec<Arc<ModuleSnapshot>>| {
        let head = &outline[0].head;
        render::bytes(&Shape {
            branch_id: head.key.branch.as_str(),
            module_id: head.key.module.as_str(),
            version: head.revision.0,
            updated_at: head.last_updated_at.to_iso(),
            server_id: &server_id,
            snapshot: ModuleShape(&outline[0]),
        })
    };
    let answer = app.renderer(&scope.store).modules(vec![snapshot], write).await?;
    Ok(with_cursor(rendered(StatusCode::OK, answer), incarnation, offset))
}

/// `POST`: tables that replace those of the same name. Without a snapshot nothing changes.
async fn replace(
    State(app): State<App>,
    scope: SyncScope,
    named: IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    let mut body = body.object()?;
    let validation = app.node().catalogue().validation_of(&scope.key.module);
    if validation == Validation::Strict && body.get("tables").is_some() {
        let right = "send the tables as \"snapshot\": {\"tables\": …}; they replace what is \
                     stored of these tables (to add records, POST M/batch)";
        return Err(ApiError::new(Problem::InvalidBody, right));
    }
    known_members::REPLACE.members(&body, validation)?;
    known_members::refuse_other_place(&body, &scope.key, validation)?;
    let mut snapshot = match body.remove("snapshot") {
        None | Some(Value::Null) => {
            // A client that only asks where it is sends no snapshot; the original answers it so.
            return unchanged(&scope).await;
        }
        Some(Value::Object(snapshot)) => snapshot,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            return Err(ApiError::new(Problem::InvalidBody, "snapshot must be an object"));
        }
    };
    known_members::REPLACED.members(&snapshot, validation)?;
    known_members::refuse_other_place(&snapshot, &scope.key, validation)?;
    let Some(tables) = tables(&mut snapshot)? else {
        // A snapshot without tables would replace nothing; where there are records it is taken for
        // a mistake.
        return match missing_table(&scope).await? {
            Some(refused) => Err(refused),
            None => unchanged(&scope).await,
        };
    };
    let revision = revision(&snapshot)?;
    let command = Command {
        id: command_id(&body, &scope.key, named)?,
        key: scope.key.clone(),
        origin: Arc::new(origin(&mut body)),
        request: Request::Replace(Replace { tables: Arc::new(tables), revision }),
    };
    let in_context = |error| in_context(error, &scope.key);
    let accepted = scope.store.commit(command).await.map_err(in_context)?;
    match accepted.delta.events.last() {
        // The branch found the same rows in every table that was sent: no event, no new version.
        None => unchanged(&scope).await,
        Some(event) => {
            let result = SyncResult::new(&scope.key, event.revision.0, event.at);
            let response = json(StatusCode::OK, &result)?;
            Ok(with_cursor(response, accepted.delta.incarnation, event.offset))
        }
    }
}

/// The module's version that a snapshot names.
pub(crate) fn revision(snapshot: &Object) -> Result<Option<u64>, ApiError> {
    let Some(version) = snapshot.get("version").filter(|version| !version.is_null()) else {
        return Ok(None);
    };
    let known = version.as_u64().filter(|version| *version <= VERSION_MAX);
    known.map(Some).ok_or_else(|| {
        let right = format!("snapshot.version must be a whole number from 0 to {VERSION_MAX}");
        ApiError::new(Problem::InvalidBody, right)
    })
}

/// The tables of a snapshot; `None` where it has none.
fn tables(snapshot: &mut Object) -> Result<Option<Object>, ApiError> {
    match snapshot.remove("tables") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(tables)) => Ok(Some(tables)),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            let right = "snapshot.tables must be an object of tables, each an array of records";
            Err(ApiError::new(Problem::InvalidBody, right))
        }
    }
}

/// A snapshot is known by its `mutationId` or `requestId`, else as every request is.
fn command_id(
    body: &Object,
    key: &BranchKey,
    IdempotencyKey(otherwise): IdempotencyKey,
) -> Result<CommandId, ApiError> {
    let request = short(body, &["mutationId", "requestId"])?;
    // Shared by all clients: under one id a snapshot is taken once, whoever brings it.
    let session = || format!("sync/{}/{}", key.branch, key.module);
    Ok(request.map_or(otherwise, |request| CommandId { session: session(), request }))
}

fn origin(body: &mut Object) -> Origin {
    let client_meta = body.remove("meta").filter(|meta| !meta.is_null());
    Origin {
        source: Some("sync".to_owned()),
        user: user_of(body, client_meta.as_ref()),
        client_meta,
        ..Origin::default()
    }
}

/// The answer to a snapshot.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SyncResult<'a> {
    status: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    version: u64,
    updated_at: String,
}

impl<'a> SyncResult<'a> {
    fn new(key: &'a BranchKey, version: u64, at: Timestamp) -> Self {
        Self {
            status: "ok",
            branch_id: key.branch.as_str(),
            module_id: key.module.as_str(),
            version,
            updated_at: at.to_iso(),
        }
    }
}

/// Nothing was given, so nothing changed.
async fn unchanged(scope: &SyncScope) -> Result<Response, ApiError> {
    let answer = scope.store.read(scope.key.clone(), Read::Head, scope.level).await?;
    let Answer::Head(head) = answer else { return Err(unexpected_answer(&answer)) };
    let result = SyncResult::new(&scope.key, head.revision.0, head.last_updated_at);
    let (incarnation, offset): (_, Offset) = (head.incarnation, head.offset);
    Ok(with_cursor(json(StatusCode::OK, &result)?, incarnation, offset))
}

/// What is wrong with a snapshot without tables: the first of ours that has records is missing.
async fn missing_table(scope: &SyncScope) -> Result<Option<ApiError>, ApiError> {
    let snapshot = scope.store.snapshot(scope.key.clone(), scope.level).await?;
    let first = snapshot.tables.iter().find(|(_, rows)| !rows.is_empty());
    Ok(first.map(|(name, rows)| {
        let details = [
            ("tableName", Value::from(name.as_str())),
            ("currentCount", Value::from(rows.len() as u64)),
        ];
        let details = details.into_iter().collect();
        let reject = Reject::Replace { reason: "missing-table".to_owned(), details };
        in_context(reject.into(), &scope.key)
    }))
}

/// A refused snapshot, with whose it was.
fn in_context(error: ApiError, key: &BranchKey) -> ApiError {
    if error.problem() != Problem::InsertOnly {
        return error;
    }
    let mut details = error.shown_details();
    details.insert("branchId", key.branch.as_str().into());
    details.insert("moduleId", key.module.as_str().into());
    error.with("details", details)
}
