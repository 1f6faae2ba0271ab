//! Branches: which there are, and what each holds. A branch is never made by looking at it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use model::{Answer, BranchId, BranchKey, Head, ModuleId, ModuleSnapshot, Read, ReadLevel};
use serde::Serialize;

use crate::auth::{Access, Intent, Principal, authorize};
use crate::error::{ApiError, Problem};
use crate::gateway::{App, now};
use crate::http::ask::{InBranch, NoClusterParams, Params, branch_exists};
use crate::http::openapi::op;
use crate::http::reply::{json, shown};
use crate::http::routes::Routes;
use crate::limits::HEADS_AT_ONCE;
use crate::render::{self, RenderedJson};
use crate::wire::{ModuleMeta, by_id};

/// The branch that is meant where none is named.
pub(crate) const DEFAULT_BRANCH: &str = "lab:test-pad";

pub(crate) fn routes() -> Routes {
    const LIST: &str = "{branches: [{id: text, label: text, \
                        modules: [{moduleId: text, version: int?, meta: ModuleMeta?}]}]}";
    Routes::of("Branches")
        .path("/api/state")
        .get(
            state,
            op("One branch whole, as before there were paths for it")
                .query("branch", "text", "Which; `lab:test-pad` where none is named")
                .answers(200, "BranchSnapshot")
                .refuses(&[Problem::InvalidName, Problem::BranchNotFound])
                .refuses(&[Problem::SnapshotTooLarge, Problem::Unavailable]),
        )
        .in_branches("")
        .get(list, op("The branches: those configured, then those written to").answers(200, LIST))
        .in_branches("/{branch}")
        .get(
            snapshot,
            op("One branch whole")
                .answers(200, "BranchSnapshot")
                .reads()
                .refuses(&[Problem::SnapshotTooLarge]),
        )
        .in_branches("/{branch}/modules")
        .get(
            modules,
            op("The modules of a branch").answers(200, "{branchId: text, modules: [text]}"),
        )
}

#[derive(Serialize)]
struct Listed {
    id: BranchId,
    label: String,
    modules: Vec<ListedModule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedModule {
    module_id: ModuleId,
    version: Option<u64>,
    meta: Option<ModuleMeta>,
}

/// The configured branches in their order, then those that came into being by being written to.
async fn list(
    State(app): State<App>,
    _: NoClusterParams,
    principal: Principal,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape {
        branches: Vec<Listed>,
    }
    authorize(&principal, &Access::cluster(Intent::Read))?;
    let catalogue = app.branches.catalogue();
    let mut branches: Vec<(BranchId, String)> =
        catalogue.branches.iter().map(|b| (b.id.clone(), b.label.clone())).collect();
    let configured: BTreeSet<BranchId> = branches.iter().map(|(id, _)| id.clone()).collect();
    let written: BTreeSet<BranchId> = app
        .branches
        .status()
        .await
        .branches
        .iter()
        .filter(|status| status.revision.is_some())
        .filter_map(|status| BranchId::parse(&status.branch).ok())
        .filter(|id| !configured.contains(id))
        .collect();
    branches.extend(written.into_iter().map(|id| (id.clone(), id.to_string())));

    let listed = branches.into_iter().map(|(id, label)| {
        let (app, modules) = (App::clone(&app), catalogue.modules_of(&id));
        async move {
            let mut shown = Vec::with_capacity(modules.len());
            for module in modules {
                let head = head(&app, BranchKey::new(id.clone(), module.clone())).await;
                shown.push(ListedModule {
                    module_id: module,
                    version: head.as_ref().map(|head| head.revision.0),
                    meta: head.as_ref().map(ModuleMeta::of),
                });
            }
            Listed { id, label, modules: shown }
        }
    });
    let branches = stream::iter(listed).buffered(HEADS_AT_ONCE).collect().await;
    json(StatusCode::OK, &Shape { branches })
}

/// A module's counters as the nearest replica has them: a list is a glance, and must not fail
/// because one partition has no leader.
async fn head(app: &App, key: BranchKey) -> Option<Head> {
    match app.branches.read(key, Read::Head, ReadLevel::Stale).await {
        Ok(Answer::Head(head)) => Some(head),
        Ok(_) | Err(_) => None,
    }
}

async fn snapshot(
    State(app): State<App>,
    _: NoClusterParams,
    place: InBranch,
) -> Result<Response, ApiError> {
    place.authorize(Intent::Read)?;
    of_branch(app, place.branch, place.level).await
}

/// `GET /api/state?branch=`: a branch as before there were paths for it.
async fn state(
    State(app): State<App>,
    principal: Principal,
    params: Params,
) -> Result<Response, ApiError> {
    let branch = BranchId::parse(params.first(&["branch", "branchId"]).unwrap_or(DEFAULT_BRANCH))?;
    authorize(&principal, &Access::branch(Intent::Read, &branch))?;
    branch_exists(&app, &branch).await?;
    of_branch(app, branch, ReadLevel::default()).await
}

async fn of_branch(app: App, branch: BranchId, level: ReadLevel) -> Result<Response, ApiError> {
    let server_id = app.server_id.clone();
    let whole = Whole::read(&app, branch, level).await?;
    let answer = whole.written(&app, move |whole| render::bytes(&whole.shape(&server_id))).await?;
    Ok(shown(StatusCode::OK, answer))
}

/// A branch with everything in it.
pub(crate) struct Whole {
    branch: BranchId,
    modules: Vec<Arc<ModuleSnapshot>>,
}

impl Whole {
    /// Every module of the branch's list.
    pub(crate) async fn read(
        app: &App,
        branch: BranchId,
        level: ReadLevel,
    ) -> Result<Self, ApiError> {
        let mut modules = Vec::new();
        for module in app.branches.catalogue().modules_of(&branch) {
            modules.push(app.snapshot(BranchKey::new(branch.clone(), module), level).await?);
        }
        Ok(Self { branch, modules })
    }

    /// Writes an answer that shows it.
    pub(crate) async fn written(
        self,
        app: &App,
        write: impl FnOnce(&Self) -> Result<Bytes, ApiError> + Send + 'static,
    ) -> Result<RenderedJson, ApiError> {
        let Self { branch, modules } = self;
        render::modules(app, modules, move |modules| write(&Self { branch, modules })).await
    }

    /// branchSnapshot.
    pub(crate) fn shape<'a>(&'a self, server_id: &'a str) -> impl Serialize + 'a {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a, M> {
            branch_id: &'a BranchId,
            modules: M,
            updated_at: String,
            server_id: &'a str,
        }
        Shape {
            branch_id: &self.branch,
            modules: by_id(&self.modules),
            updated_at: now().to_iso(),
            server_id,
        }
    }
}

async fn modules(
    State(app): State<App>,
    _: NoClusterParams,
    place: InBranch,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        branch_id: BranchId,
        modules: Vec<ModuleId>,
    }
    place.authorize(Intent::Read)?;
    let modules = app.branches.catalogue().modules_of(&place.branch);
    json(StatusCode::OK, &Shape { branch_id: place.branch, modules })
}
