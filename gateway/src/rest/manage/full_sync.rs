//! Full sync: flags that tell the clients of a branch to begin again from a snapshot. They stand in
//! the catalogue, so that every node knows them and none is forgotten by a restart.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    Answer, BranchId, BranchKey, Catalogue, CatalogueChange, FullSyncFlag, ModuleId, Object,
    Offset, Read, ReadLevel, Value,
};
use serde::Serialize;

use crate::app::{App, now};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::FLAG_META_BYTES_MAX;
use crate::params::Params;
use crate::publish::text;
use crate::render;
use crate::rest::configure::strictest;
use crate::rest::extractors::{Body, IdempotencyKey, branch_exists};
use crate::rest::manage::{branch, flag, names, words};
use crate::rest::reply::{json, json_bytes};
use crate::scoped_store::{ScopedStore, Target};
use crate::wire::Flag;

/// Means every module of a branch.
const ALL: &str = "*";
/// Every name under which modules are named.
const MODULES: [&str; 4] = ["modules", "moduleIds", "moduleId", "module"];

/// `GET`: the flags there are, set or cleared.
pub(super) async fn list(
    State(app): State<App>,
    store: ScopedStore,
    params: Params,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: Option<&'a str>,
        module_id: Option<&'a str>,
        flags: Vec<Flag<'a>>,
    }
    let branch = params.first(&["branchId", "branch"]).map(BranchId::parse).transpose()?;
    let module = params.first(&["moduleId", "module"]).map(str::to_owned);
    if let Some(branch) = &branch {
        branch_exists(&app, branch).await?;
    }
    let catalogue = store.catalogue(branch.as_ref().map_or(Target::Cluster, Target::Branch))?;
    let rows = catalogue.full_sync.len() as u64;
    let write = move || {
        let module = module.as_deref();
        let flags = match &branch {
            Some(branch) => catalogue.flags_of(branch, module).map(|flag| Flag::of(flag)).collect(),
            None => {
                let wanted = |flag: &&Arc<FullSyncFlag>| {
                    module.is_none_or(|module| flag.module == ALL || flag.module == module)
                };
                catalogue.full_sync.values().filter(wanted).map(|flag| Flag::of(flag)).collect()
            }
        };
        let branch_id = branch.as_ref().map(BranchId::as_str);
        render::bytes(&Shape { branch_id, module_id: module, flags })
    };
    Ok(json_bytes(StatusCode::OK, app.renderer(&store).rows(rows, write).await?))
}

/// `POST` and `PATCH`: sets flags, or clears them where the body says so.
pub(super) async fn set(
    State(app): State<App>,
    store: ScopedStore,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    let request = FlagRequest::read(&app, &body, None)?;
    let disable = text(&body, &["status", "action"]).is_some_and(|word| word == "disable");
    if disable || flag(&body, "enabled")? == Some(false) {
        return request.clear(&app, &store, &id.request).await;
    }
    let meta = body.get("meta").filter(|meta| !meta.is_null()).cloned();
    if meta.as_ref().is_some_and(|meta| meta.to_json().len() > FLAG_META_BYTES_MAX) {
        let message = format!("meta may have at most {FLAG_META_BYTES_MAX} bytes as JSON");
        return Err(ApiError::new(Problem::InvalidBody, message));
    }
    request.raise(&app, &store, &id.request, meta).await
}

/// `DELETE`: clears flags. What the body does not say, the parameters may.
pub(super) async fn clear(
    State(app): State<App>,
    store: ScopedStore,
    IdempotencyKey(id): IdempotencyKey,
    params: Params,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body.object()?;
    FlagRequest::read(&app, &body, Some(&params))?.clear(&app, &store, &id.request).await
}

/// Whose flags, and who asks.
struct FlagRequest {
    branch: BranchId,
    modules: Vec<String>,
    reason: Option<String>,
    requested_by: Option<String>,
}

impl FlagRequest {
    fn read(app: &App, body: &Object, params: Option<&Params>) -> Result<Self, ApiError> {
        let branch = branch(body, params)?;
        let catalogue = app.node().catalogue();
        let validation = strictest(&catalogue, &catalogue.modules_of(&branch));
        known_members::FULL_SYNC.members(body, validation)?;
        if let Some(params) = params {
            known_members::FULL_SYNC.params(params, validation)?;
        }
        let of_params =
            || params.map(|params| params.list(&MODULES).map(str::to_owned).collect::<Vec<_>>());
        let mut modules = names(body, &MODULES)?.or_else(of_params).unwrap_or_default();
        if modules.is_empty() {
            modules.push(ALL.to_owned());
        }
        for module in modules.iter().filter(|module| *module != ALL) {
            ModuleId::parse(module)?;
        }
        Ok(Self {
            branch,
            modules,
            reason: words(body, params, "reason")?,
            requested_by: words(body, params, "requestedBy")?,
        })
    }

    async fn raise(
        self,
        app: &App,
        store: &ScopedStore,
        request: &str,
        meta: Option<Value>,
    ) -> Result<Response, ApiError> {
        branch_exists(app, &self.branch).await?;
        let catalogue = app.node().catalogue();
        let is_known =
            |id: &str| ModuleId::parse(id).is_ok_and(|id| catalogue.module(&id).is_some());
        // Also of a lenient branch: every node keeps a flag for ever, and nobody would look at it.
        if let Some(id) = self.modules.iter().find(|id| *id != ALL && !is_known(id)) {
            return Err(ApiError::new(
                Problem::ModuleNotFound,
                format!("there is no module {id:?}"),
            )
            .details([("moduleId", id.as_str().into())]));
        }
        self.refuse_unused(app, store).await?;
        // All flags are one change of the catalogue: no client sees half of them.
        let flags = self.modules.iter().map(|module| FullSyncFlag {
            meta: meta.clone(),
            ..raised(&self.branch, module, self.reason.clone(), self.requested_by.clone())
        });
        put(store, format!("full-sync-set/{}/{request}", self.branch), flags.collect()).await?;
        // Read back instead of answered from `flags`: under a repeated key those of the first
        // request stand.
        self.answer(&app.node().catalogue(), true)
    }

    /// A branch that no list names is flagged once it has been written to: any id would do, and
    /// flags could be made without end.
    async fn refuse_unused(&self, app: &App, store: &ScopedStore) -> Result<(), ApiError> {
        let catalogue = app.node().catalogue();
        if catalogue.branch(&self.branch).is_some() {
            return Ok(());
        }
        let named = self.modules.iter().filter_map(|id| ModuleId::parse(id).ok());
        let mut modules: BTreeSet<ModuleId> = named.collect();
        if modules.is_empty() {
            modules.extend(catalogue.modules_of(&self.branch));
        }
        for module in modules {
            let key = BranchKey::new(self.branch.clone(), module);
            let answer = store.read(key, Read::Head, ReadLevel::default()).await?;
            // One that was never written to reads as its seed, before any event.
            if matches!(answer, Answer::Head(head) if head.offset > Offset(0)) {
                return Ok(());
            }
        }
        let message = format!("nobody has written to branch {:?} yet", self.branch.as_str());
        let refused = ApiError::new(Problem::BranchNotFound, message);
        Err(refused.with("branchId", self.branch.as_str()))
    }

    async fn clear(
        self,
        app: &App,
        store: &ScopedStore,
        request: &str,
    ) -> Result<Response, ApiError> {
        branch_exists(app, &self.branch).await?;
        let at = now();
        let cleared: Vec<FullSyncFlag> = self
            .flags(&app.node().catalogue())
            .map(|flag| FullSyncFlag {
                enabled: false,
                updated_at: at,
                cleared_by: self.requested_by.clone(),
                ..(**flag).clone()
            })
            .collect();
        if !cleared.is_empty() {
            put(store, format!("full-sync-clear/{}/{request}", self.branch), cleared).await?;
        }
        self.answer(&app.node().catalogue(), false)
    }

    /// The flags asked for that there are.
    fn flags<'a>(
        &'a self,
        catalogue: &'a Catalogue,
    ) -> impl Iterator<Item = &'a Arc<FullSyncFlag>> {
        let flag =
            |module: &String| catalogue.full_sync.get(&(self.branch.clone(), module.clone()));
        self.modules.iter().filter_map(flag)
    }

    /// What stands now: for a repeated request, what the first one made.
    fn answer(&self, catalogue: &Arc<Catalogue>, enabled: bool) -> Result<Response, ApiError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            branch_id: &'a str,
            flags: Vec<Flag<'a>>,
            enabled: bool,
        }
        let flags = self.flags(catalogue).map(|flag| Flag::of(flag)).collect();
        json(StatusCode::OK, &Shape { branch_id: self.branch.as_str(), flags, enabled })
    }
}

/// A flag set just now.
pub(super) fn raised(
    branch: &BranchId,
    module: &str,
    reason: Option<String>,
    requested_by: Option<String>,
) -> FullSyncFlag {
    FullSyncFlag {
        id: format!("fsync-{}", uuid::Uuid::new_v4()),
        branch: branch.clone(),
        module: module.to_owned(),
        enabled: true,
        reason,
        requested_by,
        updated_at: now(),
        meta: None,
        cleared_by: None,
    }
}

/// Has the catalogue take flags, once under this name.
pub(super) async fn put(
    store: &ScopedStore,
    name: String,
    flags: Vec<FullSyncFlag>,
) -> Result<(), ApiError> {
    Ok(store.administer(name, CatalogueChange::FullSync(flags)).await?)
}
