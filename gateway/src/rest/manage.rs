//! Manage: what an operator does to whole modules: empty tables, bring records back, begin again,
//! and tell clients to begin again. One file for each.
//!
//! Promise: every act goes through the branch's log like any other change, and is told to everybody
//! who follows the module; what is answered about a log is read from it, never made up.

use std::sync::Arc;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::limits::{NAMES_MAX, WORDS_BYTES_MAX};
use crate::params::Params;
use crate::publish::{branch_name, text};
use crate::rest::extractors::{ModuleScope, branch_exists};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::ScopedStore;
use crate::scoped_store::{StoreCall, unexpected_answer};
use actors::RouteError;
use axum::extract::State;
use axum::http::Uri;
use model::{
    Answer, ArchiveEntry, BranchId, BranchKey, ModuleId, Object, Read, ReadLevel, Reject, Value,
};

mod daily_reset;
mod full_sync;
mod history;
mod purge;

/// The module that is meant where none is named.
const DEFAULT_MODULE: &str = "pos";

pub(crate) fn routes() -> Routes {
    const FLAGS: &str = "{branchId: text, modules?: [text], reason?: text, requestedBy?: text, \
                         enabled?: flag, meta?: any, *: any}";
    const SETS: &[StoreCall] = &[StoreCall::Administer, StoreCall::Read];
    const CLEARS: &[StoreCall] = &[StoreCall::Administer];
    const FLAGGED: &str = "{branchId: text, flags: [object], enabled: flag}";
    const RESTORE: &str = "{branchId: text, moduleId?: text, entryId: text, \
                           mode?: 'append'|'replace', fill?: 'defaults', reason?: text, requestedBy?: text, *: any}";
    let set = |calls| {
        op("Tell clients to begin again from a snapshot, or no longer")
            .calls(calls)
            .about("A branch that is not configured can be flagged once it was written to.")
            .body(FLAGS)
            .answers(200, FLAGGED)
            .writes()
            .refuses(&[Problem::MissingBranch, Problem::CatalogueFull])
            .refuses(&[Problem::BranchNotFound, Problem::ModuleNotFound])
    };
    let routes = Routes::of("Management")
        .path("/api/manage/full-sync")
        .get(
            full_sync::list,
            op("Which clients are told to begin again")
                .calls(&[StoreCall::Catalogue])
                .query("branch", "text", "only of this branch")
                .query("module", "text", "only of this module")
                .answers(200, "{branchId: text?, moduleId: text?, flags: [object]}"),
        )
        .post(full_sync::set, set(SETS))
        .patch(full_sync::set, set(SETS))
        .delete(full_sync::clear, set(CLEARS))
        .path("/api/manage/purge-history")
        .get(
            history::list,
            op("What purges and resets took out, newest first; or one entry with its records")
                .query("branch", "text", "the branch")
                .query("module", "text", "the module; `pos` by default")
                .query("entryId", "text", "one entry's id")
                .answers(200, "object")
                .reads()
                .refuses(&[Problem::MissingBranch, Problem::HistoryEntryNotFound]),
        )
        .post(
            history::restore,
            op("Bring records back out of the history")
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .body(RESTORE)
                .answers(200, "object")
                .writes()
                .refuses(&[
                    Problem::MissingBranch,
                    Problem::MissingEntryId,
                    Problem::HistoryRestoreFailed,
                ]),
        );
    others(routes)
}

/// What may be emptied and begun again, under the several names the original has.
fn others(mut routes: Routes) -> Routes {
    const RESET: &str = "{branchId: text, modules?: [text], reason?: text, requestedBy?: text, \
                         flagFullSync?: flag, *: any}";
    const PURGE: &str = "{branchId: text, moduleId?: text, tables?: any, reason?: text, \
                         requestedBy?: text, *: any}";
    for name in ["daily-reset", "reset"] {
        routes = routes.path(&format!("/api/manage/{name}")).post(
            daily_reset::reset,
            op("Begin a branch's modules again from their seeds")
                .calls(&[StoreCall::Submit, StoreCall::Read, StoreCall::Administer])
                .body(RESET)
                .answers(200, "object")
                .writes()
                .refuses(&[Problem::MissingBranch, Problem::ModulesNotFound]),
        );
    }
    for name in ["purge-live-data", "purge-transactions", "reset-live"] {
        routes = routes.path(&format!("/api/manage/{name}")).post(
            purge::purge,
            op("Empty tables into the history")
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .body(PURGE)
                .answers(200, "object")
                .writes()
                .refuses(&[Problem::MissingBranch, Problem::NoTables]),
        );
    }
    for path in ["/api/manage", "/api/manage/{*rest}"] {
        routes = routes.path(path).nothing_but(nothing_here);
    }
    routes
}

async fn nothing_here(State(_): State<App>, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Problem::ManagementNotFound, format!("nothing is managed under {path}"))
        .with("path", path)
}

/// The module a body, or else the parameters, name.
async fn module(
    app: &App,
    store: ScopedStore,
    body: &Object,
    params: Option<&Params>,
) -> Result<ModuleScope, ApiError> {
    const NAMES: [&str; 3] = ["moduleId", "module", "targetModule"];
    let branch = branch(body, params)?;
    branch_exists(app, &branch).await?;
    let name = text(body, &NAMES).or_else(|| param(params, &NAMES));
    let module = ModuleId::parse(name.as_deref().unwrap_or(DEFAULT_MODULE))?;
    if app.node().catalogue().module(&module).is_none() {
        app.node().catch_up().await?;
    }
    ModuleScope::find(app, store, BranchKey::new(branch, module), ReadLevel::default())
}

/// The branch a body, or else the parameters, name.
fn branch(body: &Object, params: Option<&Params>) -> Result<BranchId, ApiError> {
    const NAMES: [&str; 2] = ["branchId", "branch"];
    let name = branch_name(body, &NAMES).or_else(|| param(params, &NAMES));
    let name = name
        .ok_or_else(|| ApiError::new(Problem::MissingBranch, "name the branch as \"branchId\""))?;
    Ok(BranchId::parse(&name)?)
}

fn param(params: Option<&Params>, names: &[&str]) -> Option<String> {
    params?.first(names).map(str::to_owned)
}

/// Something in the asker's own words. They are kept, so they must be short.
pub(crate) fn words(
    body: &Object,
    params: Option<&Params>,
    name: &'static str,
) -> Result<Option<String>, ApiError> {
    let words = text(body, &[name]).or_else(|| param(params, &[name]));
    match words {
        Some(words) if words.len() > WORDS_BYTES_MAX => {
            let long = words.len();
            let message = format!("{name} has {long} bytes, at most {WORDS_BYTES_MAX} are taken");
            Err(ApiError::new(Problem::InvalidBody, message))
        }
        words => Ok(words),
    }
}

/// A member that says yes or no.
fn flag(body: &Object, name: &'static str) -> Result<Option<bool>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_bool().map(Some).ok_or_else(|| {
            ApiError::new(Problem::InvalidBody, format!("{name} must be true or false"))
        }),
    }
}

/// The names in the first of these members that is there: a list, or one text of several.
fn names(body: &Object, members: &[&'static str]) -> Result<Option<Vec<String>>, ApiError> {
    let given = members.iter().find_map(|member| {
        let value = body.get(member).filter(|value| !value.is_null())?;
        Some((*member, value))
    });
    let Some((member, value)) = given else { return Ok(None) };
    let texts = match value {
        Value::String(text) => Some(vec![text.as_str()]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    let texts = texts.ok_or_else(|| {
        let message = format!("{member} must be a text or a list of texts");
        ApiError::new(Problem::InvalidBody, message)
    })?;
    let mut names = Vec::new();
    let parts = texts
        .iter()
        .flat_map(|text| text.split(|at: char| matches!(at, ',' | ';') || at.is_whitespace()));
    for name in parts.filter(|name| !name.is_empty()) {
        if names.iter().any(|known| known == name) {
            continue;
        }
        if names.len() == NAMES_MAX {
            let message = format!("{member} names more than {NAMES_MAX}, the limit");
            return Err(ApiError::new(Problem::InvalidBody, message));
        }
        names.push(name.to_owned());
    }
    Ok(Some(names))
}

/// The entries of a module's history, or the one of this id; none where there is no such entry.
async fn entries(
    store: &ScopedStore,
    key: &BranchKey,
    entry: Option<String>,
) -> Result<Vec<Arc<ArchiveEntry>>, ApiError> {
    let read = Read::Archive { entry };
    match store.read(key.clone(), read, ReadLevel::default()).await {
        Ok(Answer::Archive(entries)) => Ok(entries),
        Ok(other) => Err(unexpected_answer(&other)),
        // A list that does not have the entry is an answer; whoever needs it says that it is
        // missing.
        Err(RouteError::Rejected(Reject::NoHistory { .. })) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The entry an act on a module has left in its history. The act is done: where its entry cannot
/// be read now, the answer goes without.
async fn entry_of(
    store: &ScopedStore,
    key: &BranchKey,
    change: &model::ModuleChange,
) -> Option<Arc<ArchiveEntry>> {
    let meta = change.details.get("meta").and_then(Value::as_object)?;
    let id = meta.get("historyEntryId")?.as_str()?.to_owned();
    entries(store, key, Some(id)).await.ok()?.pop()
}
