//! Daily reset: the modules of a branch begin again from their seeds, and their clients are told.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream;
use model::{
    ArchiveEntry, BranchId, BranchKey, CommandId, EventChange, FullSyncFlag, ModuleId, Object,
    Timestamp, Validation,
};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::RESETS_AT_ONCE;
use crate::publish::event_of;
use crate::rest::extractors::{Body, IdempotencyKey, branch_exists};
use crate::rest::manage::full_sync;
use crate::rest::manage::history::EntrySummary;
use crate::rest::manage::{branch, entry_of, flag, names, words};
use crate::rest::reply::json;
use crate::rest::reset::command;
use crate::scoped_store::ScopedStore;
use crate::wire::Flag;

/// Why a flag is raised for a module that began again.
const FLAG_REASON: &str = "post-reset";

/// `POST …/daily-reset`.
pub(super) async fn reset(
    State(app): State<App>,
    store: ScopedStore,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    let request = ResetRequest::read(&app, &body).await?;
    let each = stream::iter(request.modules.clone())
        .map(|module| one(&app, &store, &request, &id, module));
    let resets: Vec<ModuleReset> = each.buffered(RESETS_AT_ONCE).collect().await;
    // After the resets: a client that is told to begin again must find the new state.
    let flagged = request.raise(&store, &id, &resets).await;
    request.answer(&app, &resets, flagged)
}

/// Which modules, and who asks.
struct ResetRequest {
    branch: BranchId,
    modules: Vec<ModuleId>,
    /// Those named that the branch does not have.
    unknown: Vec<String>,
    reason: String,
    requested_by: Option<String>,
    raises_flags: bool,
}

impl ResetRequest {
    async fn read(app: &App, body: &Object) -> Result<Self, ApiError> {
        // Also of lenient modules: what is not named here means all.
        known_members::RESET.members(body, Validation::Strict)?;
        let branch = branch(body, None)?;
        branch_exists(app, &branch).await?;
        let listed = app.node().catalogue().modules_of(&branch);
        let named = names(body, &["modules", "moduleIds", "moduleId", "module"])?;
        let (mut modules, mut unknown) = (Vec::new(), Vec::new());
        match named.filter(|named| !named.is_empty()) {
            None => modules = listed,
            Some(named) => {
                for name in named {
                    match listed.iter().find(|module| module.as_str() == name) {
                        Some(module) => modules.push(module.clone()),
                        None => unknown.push(name),
                    }
                }
            }
        }
        if modules.is_empty() {
            let message = format!("branch {branch:?} has none of the modules asked for");
            return Err(
                ApiError::new(Problem::ModulesNotFound, message).with("branchId", branch.as_str())
            );
        }
        let reason = words(body, None, "reason")?;
        Ok(Self {
            branch,
            modules,
            unknown,
            reason: reason.unwrap_or_else(|| "daily-reset".to_owned()),
            requested_by: words(body, None, "requestedBy")?,
            raises_flags: flag(body, "flagFullSync")?.unwrap_or(true),
        })
    }

    /// Tells the clients of every module that began again. A module that did is not undone because
    /// this fails: the answer says so.
    async fn raise(
        &self,
        store: &ScopedStore,
        id: &CommandId,
        resets: &[ModuleReset],
    ) -> Result<(), ApiError> {
        let flags: Vec<FullSyncFlag> = resets
            .iter()
            .filter(|reset| self.raises_flags && reset.outcome.is_ok())
            .map(|reset| {
                let (reason, by) = (Some(FLAG_REASON.to_owned()), self.requested_by.clone());
                full_sync::raised(&self.branch, reset.module.as_str(), reason, by)
            })
            .collect();
        if flags.is_empty() {
            return Ok(());
        }
        full_sync::put(store, format!("daily-reset/{}/{}", self.branch, id.request), flags).await
    }

    fn answer(
        &self,
        app: &App,
        resets: &[ModuleReset],
        flagged: Result<(), ApiError>,
    ) -> Result<Response, ApiError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            branch_id: &'a str,
            requested_by: Option<&'a str>,
            reason: &'a str,
            results: Vec<ResetView<'a>>,
        }
        let catalogue = app.node().catalogue();
        let (raised, failed) = match &flagged {
            Ok(()) => (self.raises_flags, None),
            Err(error) => (false, Some(format!("the flag was not set: {}", error.message()))),
        };
        let keys: Vec<BranchKey> = resets
            .iter()
            .map(|reset| BranchKey::new(self.branch.clone(), reset.module.clone()))
            .collect();
        let flag = |reset: &ModuleReset| {
            let key = (self.branch.clone(), reset.module.to_string());
            catalogue.full_sync.get(&key).filter(|_| raised)
        };
        let shown = resets.iter().zip(&keys).map(|(reset, key)| match &reset.outcome {
            Ok(done) => ResetView {
                version: Some(done.version),
                reset_at: Some(done.at.to_iso()),
                status: "ok",
                history_entry: done.entry.as_ref().map(|entry| EntrySummary::of(key, entry)),
                // The answer shows the asker's reason, the directive that is sent another.
                full_sync_flag: flag(reset).map(|flag| Flag::of(flag).because(&self.reason)),
                error: failed.clone(),
                ..ResetView::failed(reset.module.as_str(), "")
            },
            Err(error) => ResetView::failed(reset.module.as_str(), error.message()),
        });
        let unknown =
            self.unknown.iter().map(|module| ResetView::failed(module, "module-not-found"));
        let shape = Shape {
            branch_id: self.branch.as_str(),
            requested_by: self.requested_by.as_deref(),
            reason: &self.reason,
            results: shown.chain(unknown).collect(),
        };
        json(StatusCode::OK, &shape)
    }
}

/// What became of one module.
struct ModuleReset {
    module: ModuleId,
    outcome: Result<ResetResult, ApiError>,
}

/// A module that began again.
struct ResetResult {
    version: u64,
    at: Timestamp,
    entry: Option<Arc<ArchiveEntry>>,
}

async fn one(
    app: &App,
    store: &ScopedStore,
    request: &ResetRequest,
    id: &CommandId,
    module: ModuleId,
) -> ModuleReset {
    let key = BranchKey::new(request.branch.clone(), module.clone());
    let why = (request.reason.clone(), request.requested_by.clone());
    // Every module takes the request's own id: ids are remembered by branch and module, so that a
    // repeated request finds each one's outcome.
    let command = command(app, key.clone(), id.clone(), why, false);
    let outcome = async {
        let accepted = store.commit(command).await?;
        let event = event_of(&accepted)?;
        let entry = match &event.change {
            EventChange::Module(change) => entry_of(store, &key, change).await,
            EventChange::Record(_) => None,
        };
        Ok(ResetResult { version: event.revision.0, at: event.at, entry })
    };
    ModuleReset { outcome: outcome.await, module }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResetView<'a> {
    module_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_at: Option<String>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_entry: Option<EntrySummary<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_sync_flag: Option<Flag<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> ResetView<'a> {
    fn failed(module_id: &'a str, error: &str) -> Self {
        Self {
            module_id,
            version: None,
            reset_at: None,
            status: "error",
            history_entry: None,
            full_sync_flag: None,
            error: Some(error.to_owned()),
        }
    }
}
