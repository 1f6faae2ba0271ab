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

use crate::app::{App, now};
use crate::error::{ApiError, Problem};
use crate::limits::HEADS_AT_ONCE;
use crate::params::Params;
use crate::render::{self, RenderedJson, Renderer};
use crate::rest::extractors::{BranchScope, NoClusterParams, branch_exists};
use crate::rest::reply::{json, rendered};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{ScopedStore, StoreCall, Target};
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
                .calls(&[StoreCall::Read])
                .query("branch", "text", "Which; `lab:test-pad` where none is named")
                .answers(200, "BranchSnapshot")
                .refuses(&[Problem::InvalidName, Problem::BranchNotFound])
                .refuses(&[Problem::SnapshotTooLarge, Problem::Unavailable]),
        )
        .in_branches("")
        .get(
            list,
            op("The branches: those configured, then those written to")
                .calls(&[StoreCall::Catalogue, StoreCall::Status, StoreCall::Read])
                .answers(200, LIST),
        )
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
            op("The modules of a branch")
                .calls(&[StoreCall::Catalogue])
                .answers(200, "{branchId: text, modules: [text]}"),
        )
}

#[derive(Serialize)]
struct BranchSummary {
    id: BranchId,
    label: String,
    modules: Vec<ModuleSummary>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModuleSummary {
    module_id: ModuleId,
    version: Option<u64>,
    meta: Option<ModuleMeta>,
}

/// The configured branches in their order, then those that came into being by being written to.
async fn list(_: NoClusterParams, store: ScopedStore) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape {
        branches: Vec<BranchSummary>,
    }
    let catalogue = store.catalogue(Target::Cluster)?;
    let mut branches: Vec<(BranchId, String)> =
        catalogue.branches.iter().map(|b| (b.id.clone(), b.label.clone())).collect();
    let configured: BTreeSet<BranchId> = branches.iter().map(|(id, _)| id.clone()).collect();
    let written: BTreeSet<BranchId> = store
        .status()
        .await?
        .branches
        .iter()
        .filter(|status| status.revision.is_some())
        .filter_map(|status| BranchId::parse(&status.branch).ok())
        .filter(|id| !configured.contains(id))
        .collect();
    branches.extend(written.into_iter().map(|id| (id.clone(), id.to_string())));

    let summaries = branches.into_iter().map(|(id, label)| {
        let (store, modules) = (store.clone(), catalogue.modules_of(&id));
        async move {
            let mut shown = Vec::with_capacity(modules.len());
            for module in modules {
                let head = head(&store, BranchKey::new(id.clone(), module.clone())).await;
                shown.push(ModuleSummary {
                    module_id: module,
                    version: head.as_ref().map(|head| head.revision.0),
                    meta: head.as_ref().map(ModuleMeta::of),
                });
            }
            BranchSummary { id, label, modules: shown }
        }
    });
    let branches = stream::iter(summaries).buffered(HEADS_AT_ONCE).collect().await;
    json(StatusCode::OK, &Shape { branches })
}

/// A module's counters as the nearest replica has them: a list is a glance, and must not fail
/// because one partition has no leader.
async fn head(store: &ScopedStore, key: BranchKey) -> Option<Head> {
    match store.read(key, Read::Head, ReadLevel::Stale).await {
        Ok(Answer::Head(head)) => Some(head),
        Ok(_) | Err(_) => None,
    }
}

async fn snapshot(
    State(app): State<App>,
    _: NoClusterParams,
    scope: BranchScope,
) -> Result<Response, ApiError> {
    of_branch(app, scope.store, scope.branch, scope.level).await
}

/// `GET /api/state?branch=`: a branch as before there were paths for it.
async fn state(
    State(app): State<App>,
    store: ScopedStore,
    params: Params,
) -> Result<Response, ApiError> {
    let branch = BranchId::parse(params.first(&["branch", "branchId"]).unwrap_or(DEFAULT_BRANCH))?;
    branch_exists(&app, &branch).await?;
    of_branch(app, store, branch, ReadLevel::default()).await
}

async fn of_branch(
    app: App,
    store: ScopedStore,
    branch: BranchId,
    level: ReadLevel,
) -> Result<Response, ApiError> {
    let server_id = app.server_id.clone();
    let snapshot = BranchSnapshot::read(&app, &store, branch, level).await?;
    let write = move |snapshot: &BranchSnapshot| render::bytes(&snapshot.shape(&server_id));
    let answer = snapshot.written(&app.renderer(&store), write).await?;
    Ok(rendered(StatusCode::OK, answer))
}

/// A branch with everything in it.
pub(crate) struct BranchSnapshot {
    branch: BranchId,
    modules: Vec<Arc<ModuleSnapshot>>,
}

impl BranchSnapshot {
    /// Every module of the branch's list.
    pub(crate) async fn read(
        app: &App,
        store: &ScopedStore,
        branch: BranchId,
        level: ReadLevel,
    ) -> Result<Self, ApiError> {
        let mut modules = Vec::new();
        for module in app.node().catalogue().modules_of(&branch) {
            modules.push(store.snapshot(BranchKey::new(branch.clone(), module), level).await?);
        }
        Ok(Self { branch, modules })
    }

    /// Writes an answer that shows it.
    pub(crate) async fn written(
        self,
        renderer: &Renderer,
        write: impl FnOnce(&Self) -> Result<Bytes, ApiError> + Send + 'static,
    ) -> Result<RenderedJson, ApiError> {
        let Self { branch, modules } = self;
        renderer.modules(modules, move |modules| write(&Self { branch, modules })).await
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

async fn modules(_: NoClusterParams, scope: BranchScope) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        branch_id: BranchId,
        modules: Vec<ModuleId>,
    }
    let catalogue = scope.store.catalogue(Target::Branch(&scope.branch))?;
    let modules = catalogue.modules_of(&scope.branch);
    json(StatusCode::OK, &Shape { branch_id: scope.branch, modules })
}
