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

use crate::auth::{Access, Intent, authorize};
use crate::error::{ApiError, Problem};
use crate::gateway::App;
use crate::http::ask::{Body, Named, branch_exists};
use crate::http::known;
use crate::http::manage::full_sync;
use crate::http::manage::history::Summary;
use crate::http::manage::{Manager, branch, entry_of, flag, names, words};
use crate::http::reply::json;
use crate::http::reset::command;
use crate::limits::RESETS_AT_ONCE;
use crate::publish::event_of;
use crate::wire::Flag;

/// Why a flag is raised for a module that began again.
const FLAG_REASON: &str = "post-reset";

/// `POST …/daily-reset`.
pub(super) async fn reset(
    State(app): State<App>,
    Manager(principal): Manager,
    Named(id): Named,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    let asked = Asked::read(&app, &body).await?;
    for module in &asked.modules {
        let key = BranchKey::new(asked.branch.clone(), module.clone());
        authorize(&principal, &Access::module(Intent::Write, &key))?;
    }
    let each = stream::iter(asked.modules.clone()).map(|module| one(&app, &asked, &id, module));
    let done: Vec<Done> = each.buffered(RESETS_AT_ONCE).collect().await;
    let flagged = asked.raise(&app, &id, &done).await;
    asked.answer(&app, &done, flagged)
}

/// Which modules, and who asks.
struct Asked {
    branch: BranchId,
    modules: Vec<ModuleId>,
    /// Those named that the branch does not have.
    unknown: Vec<String>,
    reason: String,
    requested_by: Option<String>,
    raises_flags: bool,
}

impl Asked {
    async fn read(app: &App, body: &Object) -> Result<Self, ApiError> {
        // Also of lenient modules: what is not named here means all.
        known::RESET.members(body, Validation::Strict)?;
        let branch = branch(body, None)?;
        branch_exists(app, &branch).await?;
        let listed = app.branches.catalogue().modules_of(&branch);
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
    async fn raise(&self, app: &App, id: &CommandId, done: &[Done]) -> Result<(), ApiError> {
        let flags: Vec<FullSyncFlag> = done
            .iter()
            .filter(|done| self.raises_flags && done.outcome.is_ok())
            .map(|done| {
                let (reason, by) = (Some(FLAG_REASON.to_owned()), self.requested_by.clone());
                full_sync::raised(&self.branch, done.module.as_str(), reason, by)
            })
            .collect();
        if flags.is_empty() {
            return Ok(());
        }
        full_sync::put(app, format!("daily-reset/{}/{}", self.branch, id.request), flags).await
    }

    fn answer(
        &self,
        app: &App,
        done: &[Done],
        flagged: Result<(), ApiError>,
    ) -> Result<Response, ApiError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            branch_id: &'a str,
            requested_by: Option<&'a str>,
            reason: &'a str,
            results: Vec<Shown<'a>>,
        }
        let catalogue = app.branches.catalogue();
        let (raised, failed) = match &flagged {
            Ok(()) => (self.raises_flags, None),
            Err(error) => (false, Some(format!("the flag was not set: {}", error.message()))),
        };
        let keys: Vec<BranchKey> = done
            .iter()
            .map(|done| BranchKey::new(self.branch.clone(), done.module.clone()))
            .collect();
        let flag = |done: &Done| {
            let key = (self.branch.clone(), done.module.to_string());
            catalogue.full_sync.get(&key).filter(|_| raised)
        };
        let shown = done.iter().zip(&keys).map(|(done, key)| match &done.outcome {
            Ok(reset) => Shown {
                version: Some(reset.version),
                reset_at: Some(reset.at.to_iso()),
                status: "ok",
                history_entry: reset.entry.as_ref().map(|entry| Summary::of(key, entry)),
                // The answer shows the asker's reason, the directive that is sent another.
                full_sync_flag: flag(done).map(|flag| Flag::of(flag).because(&self.reason)),
                error: failed.clone(),
                ..Shown::failed(done.module.as_str(), "")
            },
            Err(error) => Shown::failed(done.module.as_str(), error.message()),
        });
        let unknown = self.unknown.iter().map(|module| Shown::failed(module, "module-not-found"));
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
struct Done {
    module: ModuleId,
    outcome: Result<Begun, ApiError>,
}

/// A module that began again.
struct Begun {
    version: u64,
    at: Timestamp,
    entry: Option<Arc<ArchiveEntry>>,
}

async fn one(app: &App, asked: &Asked, id: &CommandId, module: ModuleId) -> Done {
    let key = BranchKey::new(asked.branch.clone(), module.clone());
    let why = (asked.reason.clone(), asked.requested_by.clone());
    let command = command(app, key.clone(), id.clone(), why, false);
    let outcome = async {
        let accepted = app.submit(command).await?;
        let event = event_of(&accepted)?;
        let entry = match &event.change {
            EventChange::Module(change) => entry_of(app, &key, change).await,
            EventChange::Record(_) => None,
        };
        Ok(Begun { version: event.revision.0, at: event.at, entry })
    };
    Done { outcome: outcome.await, module }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    module_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_at: Option<String>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_entry: Option<Summary<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_sync_flag: Option<Flag<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> Shown<'a> {
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
