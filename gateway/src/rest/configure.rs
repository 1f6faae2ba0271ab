//! Configure: new modules, new branches, and which modules a branch has. Group 0 takes each change.
//!
//! Promise: names are made as the original makes them, then keep to our rules; a definition that
//! cannot be read is refused naming table and field; a request repeated under its
//! `Idempotency-Key` changes nothing twice and gets the same answer.
//! Refused: a path that leads out of `data/`. Paths are shown, and no file is read for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::limits::{DEDUP_BYTES_MAX, DEDUP_BYTES_MIN};
use model::{
    BadSchema, BranchConfig, BranchId, Catalogue, CatalogueChange, DedupLimits, ModuleConfig,
    ModuleId, Object, Schema, TableName, Validation, Value, VersionRule,
};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::{ID_BYTES_MAX, WORDS_BYTES_MAX};
use crate::publish::text;
use crate::rest::changes::CatalogueWriter;
use crate::rest::extractors::{Body, BranchScope, IdempotencyKey, NoClusterParams};
use crate::rest::reply::json;
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{ScopedStore, StoreCall};

/// Names under which clients send which module they mean.
const MODULE: [&str; 3] = ["id", "moduleId", "name"];
/// Names under which clients send which branch they mean.
const BRANCH: [&str; 3] = ["id", "branchId", "name"];

pub(crate) fn routes() -> Routes {
    const NEW_MODULE: &str = "{id: text, label?: text, description?: text, tables?: [text], \
                              schema?: any, schemaFallbackPath?: text, seedFallbackPath?: text, \
                              validation?: 'strict'|'lenient', versionRule?: 'read'|'next', \
                              dedupBytes?: int}";
    const MODULE_MADE: &str = "{moduleId: text, label: text, tables: [text], \
                               schemaFallbackPath: text, seedFallbackPath?: text, \
                               validation: 'strict'|'lenient', versionRule: 'read'|'next', \
                               warnings?: [text]}";
    const NEW_BRANCH: &str = "{id: text, label?: text, modules?: [text], schemas?: {*: any}}";
    const FULL: [Problem; 2] = [Problem::InvalidDefinition, Problem::CatalogueFull];
    Routes::of("Configuration")
        .path("/api/modules")
        .large()
        .post(
            add_module,
            op("Make a module")
                .calls(&[StoreCall::Administer])
                .about(
                    "`id` is written small, with `_` for spaces. Where `validation` and \
                     `versionRule` are not sent, the module is strict, and clients send the \
                     version they read. \
                     `dedupBytes` bounds what each branch remembers of its decisions, at 48 bytes \
                     a request: 64 KiB to 16 GiB, 192,000,000 where it is not sent.",
                )
                .body(NEW_MODULE)
                .answers(201, MODULE_MADE)
                .writes()
                .refuses(&[Problem::MissingModule, Problem::InvalidName])
                .refuses(&[Problem::InvalidSchemaPath, Problem::ModuleExists])
                .refuses(&FULL),
        )
        .in_branches("")
        .large()
        .post(
            add_branch,
            op("Make a branch")
                .calls(&[StoreCall::Administer])
                .body(NEW_BRANCH)
                .answers(201, "{branchId: text, label: text, modules: [text], warnings?: [text]}")
                .writes()
                .refuses(&[Problem::MissingBranch, Problem::InvalidName])
                .refuses(&[Problem::ModuleNotRegistered, Problem::BranchExists])
                .refuses(&FULL),
        )
        .in_branches("/{branch}/modules")
        .large()
        .post(
            give_module,
            op("Give a branch one more module")
                .calls(&[StoreCall::Administer])
                .body("{id: text, schema?: any}")
                .answers(200, "{branchId: text, modules: [text], warnings?: [text]}")
                .writes()
                .refuses(&[Problem::MissingModule, Problem::ModuleNotFound])
                .refuses(&FULL),
        )
}

async fn add_module(
    State(app): State<App>,
    _: NoClusterParams,
    store: ScopedStore,
    named: IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        module_id: &'a ModuleId,
        label: &'a str,
        tables: &'a [TableName],
        schema_fallback_path: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        seed_fallback_path: Option<String>,
        validation: Validation,
        version_rule: VersionRule,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    let body = body.object()?;
    let name = module_name(&body)?;
    let id = ModuleId::parse(&small(&name))?;
    let schema_path = path(&body, "schemaFallbackPath")?;
    let seed_path = path(&body, "seedFallbackPath")?;
    let schema_path = schema_path.unwrap_or_else(|| format!("data/schemas/{id}.json"));
    let stored = stored_name(&schema_path);
    let catalogue = app.node().catalogue();
    let sent = body.get("schema").filter(|schema| !schema.is_null());
    // Without one of its own the module follows what is stored under the name of its path.
    let source = match sent {
        Some(schema) => Arc::new(schema.clone()),
        None => catalogue.schemas.get(&stored).cloned().unwrap_or_default(),
    };
    let (validation, version_rule) = rules(&body)?;
    let validation = validation.unwrap_or_default();
    let mut warnings = known_members::NEW_MODULE.members(&body, validation)?;
    let made = with_definition(
        ModuleConfig {
            label: name_of(&body)?.unwrap_or_else(|| id.to_string()),
            description: description_of(&body)?.unwrap_or_default(),
            tables: table_names(body.get("tables"))?,
            source: Arc::default(),
            schema: Arc::default(),
            validation,
            version_rule: version_rule.unwrap_or_default(),
            seed: None,
            dedup: dedup_limits(&body)?.unwrap_or_default(),
            id,
        },
        source,
        true,
    )?;
    warnings.extend(made.warnings);
    let changes = CatalogueWriter::of(&app, &store, &named, "/api/modules", &body)?;
    let config = Arc::new(made.config);
    changes.make("module", CatalogueChange::AddModule(Arc::clone(&config))).await?;
    // The module first: where this node goes away between the two, the retry under the same key
    // makes the second, and a definition without its module would be followed by nobody.
    if sent.is_some() {
        changes.keep_schema("schema", stored, Arc::clone(&config.source)).await?;
    }
    let shape = Shape {
        module_id: &config.id,
        label: &config.label,
        tables: &config.tables,
        schema_fallback_path: schema_path,
        seed_fallback_path: seed_path,
        validation: config.validation,
        version_rule: config.version_rule,
        warnings,
    };
    json(StatusCode::CREATED, &shape)
}

async fn add_branch(
    State(app): State<App>,
    _: NoClusterParams,
    store: ScopedStore,
    named: IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a BranchId,
        label: &'a str,
        modules: &'a [ModuleId],
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    let body = body.object()?;
    let name = text(&body, &BRANCH)
        .ok_or_else(|| ApiError::new(Problem::MissingBranch, "name the branch as \"id\""))?;
    let id = BranchId::parse(&small(&name))?;
    // A module may have been made at another node a moment ago.
    app.node().catch_up().await?;
    let catalogue = app.node().catalogue();
    let mut modules: Vec<ModuleId> = Vec::new();
    for name in list_of_names("modules", body.get("modules"))? {
        let module = registered_module(&catalogue, &name)?;
        if !modules.contains(&module.id) {
            modules.push(module.id.clone());
        }
    }
    let mut warnings = known_members::NEW_BRANCH.members(&body, strictest(&catalogue, &modules))?;
    let schemas = own_schemas(&catalogue, &id, body.get("schemas"), &mut warnings)?;
    let label = name_of(&body)?.unwrap_or_else(|| id.to_string());
    let config = Arc::new(BranchConfig { id, label, modules, seeds: BTreeMap::new() });
    let changes = CatalogueWriter::of(&app, &store, &named, "/api/branches", &body)?;
    changes.make("branch", CatalogueChange::AddBranch(Arc::clone(&config))).await?;
    for (name, source) in schemas {
        changes.keep_schema(&format!("schema:{name}"), name, source).await?;
    }
    let BranchConfig { id, label, modules, .. } = &*config;
    json(StatusCode::CREATED, &Shape { branch_id: id, label, modules, warnings })
}

/// A branch is lenient where all its modules are: that is a branch of the original.
pub(crate) fn strictest(catalogue: &Catalogue, modules: &[ModuleId]) -> Validation {
    let mut configs = modules.iter().filter_map(|id| catalogue.module(id)).peekable();
    let lenient =
        configs.peek().is_some() && configs.all(|module| module.validation == Validation::Lenient);
    if lenient { Validation::Lenient } else { Validation::Strict }
}

async fn give_module(
    State(app): State<App>,
    _: NoClusterParams,
    scope: BranchScope,
    named: IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        branch_id: BranchId,
        modules: Vec<ModuleId>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    let body = body.object()?;
    let name = module_name(&body)?;
    app.node().catch_up().await?;
    let catalogue = app.node().catalogue();
    let branch = scope.branch;
    let module = ModuleId::parse(&name).ok().and_then(|id| catalogue.module(&id).cloned());
    let module = module.ok_or_else(|| {
        let message = format!("there is no module {name:?}");
        ApiError::new(Problem::ModuleNotFound, message).with("moduleId", name.as_str())
    })?;
    let mut warnings = known_members::GIVEN_MODULE.members(&body, module.validation)?;
    let own = body.get("schema").filter(|schema| !schema.is_null());
    let own = own.map(|schema| Arc::new(schema.clone()));
    if let Some(source) = &own {
        warnings.extend(with_definition((*module).clone(), Arc::clone(source), false)?.warnings);
    }
    let changes =
        CatalogueWriter::of(&app, &scope.store, &named, &format!("{branch}/modules"), &body)?;
    let change = CatalogueChange::GiveModule { branch: branch.clone(), module: module.id.clone() };
    changes.make("module", change).await?;
    if let Some(source) = own {
        let name = format!("branch/{branch}/{}", module.id);
        changes.keep_schema("schema", name, source).await?;
    }
    let modules = app.node().catalogue().modules_of(&branch);
    json(StatusCode::OK, &Shape { branch_id: branch, modules, warnings })
}

/// Which module a body names.
fn module_name(body: &Object) -> Result<String, ApiError> {
    text(body, &MODULE)
        .ok_or_else(|| ApiError::new(Problem::MissingModule, "name the module as \"id\""))
}

/// A name as the original makes it: small letters, `_` for spaces.
fn small(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join("_").to_lowercase()
}

/// What a body says of how much a module enforces, and of which version clients send.
pub(crate) fn rules(body: &Object) -> Result<(Option<Validation>, Option<VersionRule>), ApiError> {
    let one_of = |member: &'static str, known: [&'static str; 2]| match body.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let position = known.iter().position(|word| value.as_str() == Some(word));
            let right = || wrong(member, &format!("{:?} or {:?}", known[0], known[1]));
            position.map(Some).ok_or_else(right)
        }
    };
    let validation = one_of("validation", ["strict", "lenient"])?
        .map(|position| [Validation::Strict, Validation::Lenient][position]);
    let version_rule = one_of("versionRule", ["read", "next"])?
        .map(|position| [VersionRule::Read, VersionRule::Next][position]);
    Ok((validation, version_rule))
}

/// How much each branch remembers of its decisions, where the request says so.
pub(crate) fn dedup_limits(body: &Object) -> Result<Option<DedupLimits>, ApiError> {
    let sent = match body.get("dedupBytes") {
        None | Some(Value::Null) => return Ok(None),
        Some(sent) => sent,
    };
    let allowed = DEDUP_BYTES_MIN..=DEDUP_BYTES_MAX;
    let bytes_max = sent.as_u64().filter(|bytes| allowed.contains(bytes)).ok_or_else(|| {
        let right = format!("a number of bytes from {DEDUP_BYTES_MIN} to {DEDUP_BYTES_MAX}");
        wrong("dedupBytes", &right)
    })?;
    Ok(Some(DedupLimits { bytes_max, ..DedupLimits::default() }))
}

/// A module made of a definition, and what whoever sent it is warned of.
pub(crate) struct ModuleWithWarnings {
    pub(crate) config: ModuleConfig,
    pub(crate) warnings: Vec<String>,
}

/// A module made of this definition. `null` defines no tables: the definition is to follow. Where
/// the tables were named with it, each must be defined; else those that no longer are go.
///
/// # Errors
/// `invalid-definition`: there are no tables in it, or, in a strict module, anything is wrong with
/// it.
pub(crate) fn with_definition(
    mut module: ModuleConfig,
    source: Arc<Value>,
    must_define: bool,
) -> Result<ModuleWithWarnings, ApiError> {
    if source.is_null() {
        return Ok(ModuleWithWarnings { config: module, warnings: Vec::new() });
    }
    let refused = |message: String, table: Option<String>, field: Option<String>| {
        ApiError::new(Problem::InvalidDefinition, message).details([
            ("moduleId", module.id.as_str().into()),
            ("table", table.into()),
            ("field", field.into()),
        ])
    };
    let as_refused = |bad: BadSchema| refused(bad.to_string(), bad.table, bad.field);
    let read = Schema::read_under(module.id.as_str(), &source, &compat::conventions())
        .map_err(as_refused)?;
    let (schema, mut warnings) = match module.validation {
        Validation::Strict => {
            let notes = read.notes.iter().map(ToString::to_string).collect();
            let schema = read.strict().map_err(as_refused)?;
            schema.check_strict().map_err(|reject| refused(reject.to_string(), None, None))?;
            (schema, notes)
        }
        Validation::Lenient => {
            let warnings: Vec<String> = read.warnings().map(ToString::to_string).collect();
            (read.schema, warnings)
        }
    };
    for warning in &warnings {
        tracing::warn!(%warning, "a definition was taken as far as it can be");
    }
    if module.validation == Validation::Lenient {
        let id = module.id.as_str();
        warnings.extend(schema.unenforced(id).iter().map(ToString::to_string));
        // A line for each table would bury what else the log says.
        if let Some(warning) = schema.unenforced_in_short(id) {
            tracing::warn!("{warning}");
        }
    }
    let schema = schema.in_order(&module.tables);
    let absent = module.tables.iter().find(|table| schema.table(table.as_str()).is_none());
    if let Some(table) = absent.filter(|_| must_define) {
        let message = format!("table \"{table}\" is listed in \"tables\" but not defined");
        return Err(refused(message, Some(table.to_string()), None));
    }
    module.tables = schema.tables.iter().map(|table| table.name.clone()).collect();
    module.schema = Arc::new(schema);
    module.source = source;
    Ok(ModuleWithWarnings { config: module, warnings })
}

/// Definitions that a branch has of its own: stored by name, and each must be readable.
fn own_schemas(
    catalogue: &Catalogue,
    branch: &BranchId,
    sent: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Arc<Value>)>, ApiError> {
    let none = Object::new();
    let sent = match sent {
        None | Some(Value::Null) => &none,
        Some(value) => {
            value.as_object().ok_or_else(|| wrong("schemas", "an object of definitions"))?
        }
    };
    let mut stored = Vec::new();
    for (name, source) in sent.iter() {
        let module = registered_module(catalogue, name)?;
        let source = Arc::new(source.clone());
        warnings.extend(with_definition((**module).clone(), Arc::clone(&source), false)?.warnings);
        stored.push((format!("branch/{branch}/{}", module.id), source));
    }
    Ok(stored)
}

fn registered_module<'a>(
    catalogue: &'a Catalogue,
    name: &str,
) -> Result<&'a Arc<ModuleConfig>, ApiError> {
    let module = ModuleId::parse(name).ok().and_then(|id| catalogue.module(&id));
    module.ok_or_else(|| {
        let message = format!("there is no module {name:?}; make it first");
        ApiError::new(Problem::ModuleNotRegistered, message).with("moduleId", name)
    })
}

fn table_names(sent: Option<&Value>) -> Result<Vec<TableName>, ApiError> {
    let mut tables = Vec::new();
    for name in list_of_names("tables", sent)? {
        let table = TableName::parse(&name)?;
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// A list of names: an array, or text with commas.
fn list_of_names(member: &'static str, sent: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let right = || wrong(member, "a list of names");
    match sent {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(list)) => {
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            Ok(names.map(str::to_owned).collect())
        }
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(right)).collect()
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Err(right()),
    }
}

/// What people call it, as the body says.
///
/// # Errors
/// `invalid-body`: every node keeps it, so it must be short.
pub(crate) fn name_of(body: &Object) -> Result<Option<String>, ApiError> {
    kept(body, "label", ID_BYTES_MAX)
}

/// What it is for, as the body says.
///
/// # Errors
/// As [`name_of`].
pub(crate) fn description_of(body: &Object) -> Result<Option<String>, ApiError> {
    kept(body, "description", WORDS_BYTES_MAX)
}

fn kept(body: &Object, member: &'static str, max: usize) -> Result<Option<String>, ApiError> {
    let text = text(body, &[member]);
    if let Some(bytes) = text.as_ref().map(String::len).filter(|bytes| *bytes > max) {
        let message = format!("{member} has {bytes} bytes, at most {max} are taken");
        return Err(ApiError::new(Problem::InvalidBody, message));
    }
    Ok(text)
}

/// A path below `data/`, as the original's configuration has them.
fn path(body: &Object, member: &'static str) -> Result<Option<String>, ApiError> {
    let Some(path) = text(body, &[member]) else { return Ok(None) };
    let is_odd = |part: &str| {
        part.is_empty()
            || part.starts_with('.')
            || part.contains(|c: char| c.is_control() || c == '\\')
    };
    let inside = path.strip_prefix("data/").filter(|rest| !rest.split('/').any(is_odd));
    if inside.is_some() && path.len() <= ID_BYTES_MAX {
        return Ok(Some(path));
    }
    let message =
        format!("{member} is {path:?}; it must lie in data/, such as data/schemas/x.json");
    let refused = ApiError::new(Problem::InvalidSchemaPath, message);
    Err(refused.details([("member", member.into()), ("given", path.into())]))
}

/// Under which name a definition is stored that the original has in a file of this path.
fn stored_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    format!("global/{}", file.strip_suffix(".json").unwrap_or(file))
}

fn wrong(member: &'static str, right: &str) -> ApiError {
    let message = format!("{member} must be {right}");
    ApiError::new(Problem::InvalidBody, message).details([("member", member.into())])
}
