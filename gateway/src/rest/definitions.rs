//! Definitions: what is stored by name, as the original keeps it in files: definitions of modules,
//! of the whole cluster or of one branch, and seeds. Group 0 holds them; no file is touched.
//!
//! Promise: a module follows the definition stored as `<its id>` or `<its id>_schema`. Refused:
//! a name that would be a path, and a definition of a module that cannot be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use model::limits::VERSION_MAX;
use model::{
    BranchId, Catalogue, CatalogueChange, ModuleConfig, ModuleId, Object, Seed, Validation, Value,
};
use serde::Serialize;

use crate::app::{App, now};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::SCHEMA_NAME_BYTES_MAX;
use crate::params::Params;
use crate::publish::{branch_name, text};
use crate::render;
use crate::rest::adoption::{self, Adoption};
use crate::rest::changes::CatalogueWriter;
use crate::rest::configure::with_definition;
use crate::rest::extractors::{Body, IdempotencyKey, NoClusterParams, branch_exists, path_part};
use crate::rest::reply::{json, json_bytes};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{ScopedStore, StoreCall, Target};

pub(crate) fn routes() -> Routes {
    const SHOWN: &str = "{success: flag, path: text, schema: any}";
    const STORED: &str = "{success: flag, path: text, message: text, changed: flag, \
                          warnings?: [text]}";
    const REFUSES: [Problem; 4] = [
        Problem::MissingSchema,
        Problem::InvalidDefinition,
        Problem::RecordsDoNotFit,
        Problem::CatalogueFull,
    ];
    let mut routes = Routes::of("Configuration").path("/api/schemas").get(
        list,
        op("The stored definitions")
            .calls(&[StoreCall::Catalogue])
            .answers(200, "{global: [text], branches: {*: [text]}}"),
    );
    // Only what the whole cluster has is followed by a module, whose branches are asked then.
    const FOLLOWED: &[StoreCall] = &[StoreCall::Administer, StoreCall::Status, StoreCall::Read];
    const KEPT: &[StoreCall] = &[StoreCall::Administer];
    for (path, calls) in
        [("/api/schemas/global/{name}", FOLLOWED), ("/api/schemas/branch/{branch}/{module}", KEPT)]
    {
        routes = routes
            .path(path)
            .large()
            .get(
                show,
                op("A stored definition")
                    .calls(&[StoreCall::Catalogue])
                    .answers(200, SHOWN)
                    .refuses(&[Problem::InvalidPath, Problem::SchemaNotFound]),
            )
            .post(
                store,
                op("Store a definition")
                    .calls(calls)
                    .about(
                        "A module follows what is stored for the whole cluster as `<id>` or \
                         `<id>_schema`. What is stored for a branch is only kept.",
                    )
                    .query("fill", "text", "`defaults`: stored records are brought up to it")
                    .body("{schema: any}")
                    .answers(200, STORED)
                    .writes()
                    .refuses(&[Problem::InvalidPath])
                    .refuses(&REFUSES),
            );
    }
    routes.path("/api/seeds").large().post(
        seed,
        op("Store rows to begin with")
            .calls(&[StoreCall::Administer])
            .about("The newest twenty are kept. Nothing loads them by itself.")
            .body("{branchId: text, moduleId: text, seeds: {*: [Record]}}")
            .answers(
                200,
                "{success: flag, file: text, message: text, tables: [text], recordCount: int, \
                 warnings?: [text]}",
            )
            .writes()
            .refuses(&[Problem::MissingBranch, Problem::MissingModule, Problem::InvalidName])
            .refuses(&[Problem::ModuleNotFound, Problem::TableNotFound]),
    )
}

/// One stored definition, named in the path, and who asks.
struct DefinitionPath {
    store: ScopedStore,
    /// As the catalogue has it.
    name: String,
    /// Where the original would keep it.
    file: String,
    /// Whose it is, where it is one branch's.
    branch: Option<BranchId>,
}

impl DefinitionPath {
    /// Whose data it is.
    fn target(&self) -> Target<'_> {
        self.branch.as_ref().map_or(Target::Cluster, Target::Branch)
    }
}

impl FromRequestParts<App> for DefinitionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Ok(store) = ScopedStore::from_request_parts(parts, app).await;
        let name = path_part(parts, app, "name").await?;
        if !name.is_empty() {
            check_name(&name)?;
            let file = format!("data/schemas/{name}.json");
            return Ok(Self { store, name: format!("global/{name}"), file, branch: None });
        }
        let branch = BranchId::parse(&path_part(parts, app, "branch").await?)?;
        branch_exists(app, &branch).await?;
        let module = ModuleId::parse(&path_part(parts, app, "module").await?)?;
        let name = format!("branch/{branch}/{module}");
        let file = format!("data/branches/{branch}/modules/{module}/schema/definition.json");
        Ok(Self { store, name, file, branch: Some(branch) })
    }
}

/// A name of a file, not a path.
fn check_name(name: &str) -> Result<(), ApiError> {
    let is_odd = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if name.len() <= SCHEMA_NAME_BYTES_MAX && !name.starts_with('.') && !name.contains(is_odd) {
        return Ok(());
    }
    let message = format!(
        "a definition's name has 1 to {SCHEMA_NAME_BYTES_MAX} bytes without control characters, \
         '/' or '\\', and does not begin with '.'"
    );
    Err(ApiError::new(Problem::InvalidPath, message))
}

async fn list(_: NoClusterParams, store: ScopedStore) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape<'a> {
        global: Vec<&'a str>,
        branches: BTreeMap<&'a str, Vec<&'a str>>,
    }
    let catalogue = store.catalogue(Target::Cluster)?;
    let mut shape = Shape { global: Vec::new(), branches: BTreeMap::new() };
    for name in catalogue.schemas.keys() {
        if let Some(name) = name.strip_prefix("global/") {
            shape.global.push(name);
        } else if let Some((branch, module)) =
            name.strip_prefix("branch/").and_then(|rest| rest.rsplit_once('/'))
        {
            shape.branches.entry(branch).or_default().push(module);
        }
    }
    json(StatusCode::OK, &shape)
}

async fn show(
    State(app): State<App>,
    _: NoClusterParams,
    path: DefinitionPath,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape<'a> {
        success: bool,
        path: &'a str,
        schema: &'a Value,
    }
    let catalogue = path.store.catalogue(path.target())?;
    let schema = catalogue.schemas.get(&path.name).cloned().ok_or_else(|| {
        let message = format!("no definition is stored as {:?}", path.name);
        ApiError::new(Problem::SchemaNotFound, message)
    })?;
    // A definition may be as large as many rows.
    let write = move || render::bytes(&Shape { success: true, path: &path.file, schema: &schema });
    Ok(json_bytes(StatusCode::OK, app.renderer(&path.store).rows(u64::MAX, write).await?))
}

async fn store(
    State(app): State<App>,
    path: DefinitionPath,
    named: IdempotencyKey,
    params: Params,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape<'a> {
        success: bool,
        path: &'a str,
        message: &'a str,
        changed: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    let body = body.object()?;
    let missing =
        || ApiError::new(Problem::MissingSchema, "send the definition as \"schema\", an object");
    let sent = body.get("schema").ok_or_else(missing)?;
    if !matches!(sent, Value::Object(_) | Value::Array(_)) {
        return Err(missing());
    }
    let source = Arc::new(sent.clone());
    // The module that follows it may have been made, or changed, at another node a moment ago.
    app.node().catch_up().await?;
    let catalogue = app.node().catalogue();
    let old = follower(&catalogue, &path.name);
    // What no module follows is only kept, for whoever asks for it: then nothing can be refused.
    let validation = old.as_ref().map_or(Validation::Lenient, |module| module.validation);
    let mut warnings = known_members::STORED_DEFINITION.members(&body, validation)?;
    warnings.extend(known_members::DEFINING.params(&params, validation)?);
    let module = match &old {
        None => None,
        Some(old) => {
            let made = with_definition((**old).clone(), Arc::clone(&source), false)?;
            warnings.extend(made.warnings);
            Some(Arc::new(made.config))
        }
    };
    let fill = adoption::fill(&params)?;
    let adoption = match &module {
        Some(module) => Some(Adoption::check(&app, &path.store, module, fill).await?),
        None => None,
    };
    let is_stored = catalogue.schemas.get(&path.name).is_some_and(|stored| *stored == source);
    let changed = !is_stored || module != old;
    let message = match &module {
        _ if !changed => "Nothing changed: this definition is stored already".to_owned(),
        Some(module) => format!("Schema saved; module {} follows it", module.id),
        None => "Schema saved; no module follows it, so nothing else changes".to_owned(),
    };
    let changes = CatalogueWriter::of(&app, &path.store, &named, &path.name, &body)?;
    let name = path.name.clone();
    changes.make("schema", CatalogueChange::PutSchema { name, source, module, fill }).await?;
    if let Some(adoption) = adoption {
        warnings.extend(adoption.wait_until_adopted(&path.store).await);
    }
    let (path, message) = (path.file.as_str(), message.as_str());
    json(StatusCode::OK, &Shape { success: true, path, message, changed, warnings })
}

/// The module that follows the definition of this name.
fn follower(catalogue: &Catalogue, name: &str) -> Option<Arc<ModuleConfig>> {
    let name = name.strip_prefix("global/")?;
    let of = |id: &str| catalogue.module(&ModuleId::parse(id).ok()?).cloned();
    of(name).or_else(|| of(name.strip_suffix("_schema")?))
}

async fn seed(
    State(app): State<App>,
    _: NoClusterParams,
    store: ScopedStore,
    named: IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        success: bool,
        file: &'a str,
        message: &'a str,
        tables: Vec<&'a str>,
        record_count: usize,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    let body = body.object()?;
    let need = |name: &'static str, problem| {
        let missing = move || ApiError::new(problem, format!("send \"{name}\""));
        text(&body, &[name]).ok_or_else(missing)
    };
    let missing = || ApiError::new(Problem::MissingBranch, "send \"branchId\"");
    let branch = BranchId::parse(&branch_name(&body, &["branchId"]).ok_or_else(missing)?)?;
    let module = ModuleId::parse(&need("moduleId", Problem::MissingModule)?)?;
    app.node().catch_up().await?;
    branch_exists(&app, &branch).await?;
    let catalogue = app.node().catalogue();
    let config = catalogue.module(&module).ok_or_else(|| {
        let message = format!("there is no module {module:?}");
        ApiError::new(Problem::ModuleNotFound, message).with("moduleId", module.as_str())
    })?;
    let unknown = known_members::SEEDS.members(&body, config.validation)?;
    let counts = rows_by_table(config, body.get("seeds"))?;
    let mut warnings = rows_left_out(config, body.get("seeds"))?;
    warnings.extend(unknown);
    warnings.extend(versions_beyond(config, body.get("seeds"))?);
    let sent = Arc::new(Value::from(body.clone()));
    let meaning = model::canonical_hash(&*sent);
    let mark = blake3::hash(format!("{}{meaning}", named.0).as_bytes()).to_hex();
    let mut file = format!("seeds/seeds-{}-{}.json", now().0, &mark[..8]);
    let changes = CatalogueWriter::of(&app, &store, &named, "/api/seeds", &body)?;
    let change = CatalogueChange::PutSeedFile { name: file.clone(), seed: Arc::clone(&sent) };
    changes.make("seed", change).await?;
    // A repeated request was stored before, under the name it had then.
    let catalogue = app.node().catalogue();
    if !catalogue.seed_files.contains_key(&file) {
        let same = catalogue
            .seed_files
            .iter()
            .rev()
            .find(|(_, stored)| model::canonical_hash(&***stored) == meaning);
        file = same.map_or(file, |(name, _)| name.clone());
    }
    let shape = Shape {
        success: true,
        file: &file,
        message: "Seeds saved",
        tables: counts.iter().map(|(name, _)| name.as_str()).collect(),
        record_count: counts.iter().map(|(_, rows)| rows).sum(),
        warnings,
    };
    json(StatusCode::OK, &shape)
}

/// Rows that no branch would be filled with: 400 where the module is strict, else a warning for
/// each table.
fn rows_left_out(module: &ModuleConfig, seeds: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let tables = seeds.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut warnings = Vec::new();
    for left_out in module.schema.skipped_seed_rows(&Seed { tables }) {
        let message = left_out.to_string();
        if module.validation == Validation::Strict {
            let details = [("member", "seeds".into()), ("table", left_out.table().into())];
            return Err(ApiError::new(Problem::InvalidBody, message).details(details));
        }
        warnings.push(format!("{message}: they are left out when a branch is filled"));
    }
    Ok(warnings)
}

/// Rows whose version no record can have: 400 where the module is strict, else a warning for each
/// table.
fn versions_beyond(module: &ModuleConfig, seeds: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let tables = seeds.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut warnings = Vec::new();
    let found = module.schema.seed_versions_beyond(&Seed { tables }, module.validation);
    for (table, count) in found {
        let message = format!("{count} rows of {table} have a version over {VERSION_MAX}");
        if module.validation == Validation::Strict {
            let details = [("member", "seeds".into()), ("table", table.as_str().into())];
            return Err(ApiError::new(Problem::InvalidBody, message).details(details));
        }
        warnings.push(format!("{message}: they begin at version 1 when a branch is filled"));
    }
    Ok(warnings)
}

/// The tables of a seed, and how many rows each has.
fn rows_by_table(
    module: &ModuleConfig,
    seeds: Option<&Value>,
) -> Result<Vec<(String, usize)>, ApiError> {
    let wrong = || {
        let message = "seeds must be an object with a list of records for each table";
        ApiError::new(Problem::InvalidBody, message).details([("member", "seeds".into())])
    };
    let tables: &Object = seeds.and_then(Value::as_object).ok_or_else(wrong)?;
    let mut counts = Vec::new();
    for (name, rows) in tables.iter() {
        let rows = rows.as_array().ok_or_else(wrong)?;
        if rows.iter().any(|row| row.as_object().is_none()) {
            return Err(wrong());
        }
        if module.schema.table(name).is_none() {
            let message = format!("Table {name:?} not registered in module {:?}", module.id);
            let unknown = ApiError::new(Problem::TableNotFound, message);
            return Err(unknown.details([("table", name.to_string().into())]));
        }
        counts.push((name.to_string(), rows.len()));
    }
    Ok(counts)
}
