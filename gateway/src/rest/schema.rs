//! Schema: what modules there are, and what their tables are made of.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    BadSchema, BranchId, BranchKey, ModuleConfig, ModuleId, ModuleSnapshot, Object, ReadLevel,
    Schema, TableName, Validation, Value, VersionRule,
};
use serde::{Serialize, Serializer};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::render;
use crate::rest::adoption;
use crate::rest::branches::DEFAULT_BRANCH;
use crate::rest::configure::strictest;
use crate::rest::extractors::{NoClusterParams, branch_exists};
use crate::rest::reply::{json, json_bytes, rendered};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{ScopedStore, StoreCall, Target};
use crate::wire::{Members, ModuleShape};

pub(crate) fn routes() -> Routes {
    const SCHEMA: &str = "{branchId: text, modules: {*: {moduleId: text, branchId: text, \
                          label: text, description: text, tables: [text], config?: object, \
                          schema?: any, schemaSource?: text?, seed?: object?, seedSource?: text?, \
                          live?: object?, liveSource?: text?}}, \
                          warnings?: [{moduleId?: text, warning: text, table?: text, field?: text}]}";
    Routes::of("Configuration")
        .path("/api/modules")
        .get(
            modules,
            op("The modules").calls(&[StoreCall::Catalogue]).answers(
                200,
                "{modules: [{id: text, label: text, description: text, tables: [text]}]}",
            ),
        )
        .path("/api/definition-schema")
        .get(
            definition_schema,
            op("The JSON Schema of definitions in the native format").answers(200, "object"),
        )
        .path("/api/schema")
        .get(
            schema,
            op("What the tables of modules are made of")
                .calls(&[StoreCall::Catalogue, StoreCall::Read])
                .query("branch", "text", "For which; `lab:test-pad` where none is named")
                .query("module", "text", "Which, with commas; all where none is named")
                .query("include", "text", "Of config, schema, seed, live, with commas")
                .answers(200, SCHEMA)
                .refuses(&[Problem::InvalidName, Problem::BranchNotFound]),
        )
}

async fn modules(_: NoClusterParams, store: ScopedStore) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape<'a> {
        modules: Vec<ModuleRow<'a>>,
    }
    #[derive(Serialize)]
    struct ModuleRow<'a> {
        id: &'a ModuleId,
        label: &'a str,
        description: &'a str,
        tables: &'a [TableName],
    }
    let catalogue = store.catalogue(Target::Cluster)?;
    let modules = catalogue.modules.iter().map(|module| ModuleRow {
        id: &module.id,
        label: &module.label,
        description: &module.description,
        tables: &module.tables,
    });
    json(StatusCode::OK, &Shape { modules: modules.collect() })
}

/// For editors, and for whoever writes definitions by program.
async fn definition_schema() -> Result<Response, ApiError> {
    let schema: &'static [u8] = include_bytes!("definition_schema.json");
    Ok(json_bytes(StatusCode::OK, schema.into()))
}

/// The parameters that name parts.
const INCLUDE: [&str; 3] = ["include", "include[]", "with"];

/// What is asked of each module.
#[derive(Clone, Copy)]
struct Include {
    config: bool,
    schema: bool,
    seed: bool,
    live: bool,
}

impl Include {
    fn read(params: &Params) -> Self {
        let asked = |what: &str| params.list(&INCLUDE).any(|item| item == what);
        let seed = asked("seed") || params.flag("seed");
        let live = asked("live") || params.flag("live");
        let (config, schema) = (asked("config"), asked("schema"));
        let nothing = !(seed || live || config || schema);
        Self { config: config || nothing, schema: schema || nothing, seed, live }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SchemaAnswer {
    branch_id: BranchId,
    #[serde(serialize_with = "by_id")]
    modules: Vec<ModuleView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    /// Empty where it is about the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    module_id: String,
    warning: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Warning {
    fn new(module_id: String, warning: impl Into<Cow<'static, str>>) -> Self {
        Self { module_id, warning: warning.into(), table: None, field: None }
    }

    /// What of a module's definition could not be taken.
    fn of(note: &BadSchema) -> Self {
        let (table, field) = (note.table.clone(), note.field.clone());
        Self { table, field, ..Self::new(note.module.clone(), note.to_string()) }
    }
}

/// What whoever reads a definition is warned of. It is read again: the catalogue keeps it as sent.
fn of_definition(config: &ModuleConfig) -> Vec<Warning> {
    if config.source.is_null() {
        return Vec::new();
    }
    match Schema::read_under(config.id.as_str(), &config.source, &compat::conventions()) {
        Err(bad) => vec![Warning::of(&bad)],
        Ok(read) => match config.validation {
            Validation::Strict => read.notes.iter().map(Warning::of).collect(),
            Validation::Lenient => {
                let unenforced = read.schema.unenforced(config.id.as_str());
                read.warnings().chain(&unenforced).map(Warning::of).collect()
            }
        },
    }
}

/// One module, as far as it was asked for.
struct ModuleView {
    branch: BranchId,
    config: Arc<ModuleConfig>,
    include: Include,
    live: Option<Arc<ModuleSnapshot>>,
}

fn by_id<S: Serializer>(modules: &[ModuleView], to: S) -> Result<S::Ok, S::Error> {
    Members(modules.iter().map(|shown| (&shown.config.id, shown))).serialize(to)
}

async fn schema(
    State(app): State<App>,
    store: ScopedStore,
    params: Params,
) -> Result<Response, ApiError> {
    let named = params.first(&["branch", "branchId"]);
    let branch_id = BranchId::parse(named.unwrap_or(DEFAULT_BRANCH))?;
    // The default branch need not be there: nobody asked for it.
    if named.is_some() {
        branch_exists(&app, &branch_id).await?;
    }
    let catalogue = store.catalogue(Target::Branch(&branch_id))?;
    let include = Include::read(&params);
    let mut asked: Vec<String> =
        params.list(&["module", "moduleId", "modules"]).map(str::to_owned).collect();
    if asked.is_empty() {
        asked = catalogue.modules.iter().map(|module| module.id.to_string()).collect();
    }
    let ids: Vec<ModuleId> = asked.iter().filter_map(|id| ModuleId::parse(id).ok()).collect();
    let validation = strictest(&catalogue, &ids);
    let mut unknown = known_members::SCHEMA.params(&params, validation)?;
    const PARTS: [&str; 4] = ["config", "schema", "seed", "live"];
    if let Some(part) = params.list(&INCLUDE).find(|part| !PARTS.contains(part)) {
        let message = format!("include {part:?} is not known; known are {}", PARTS.join(", "));
        match validation {
            Validation::Lenient => unknown.push(message),
            Validation::Strict => {
                return Err(ApiError::new(Problem::InvalidParameter, message)
                    .details([("parameter", "include".into())]));
            }
        }
    }
    let warnings = unknown.into_iter().map(|said| Warning::new(String::new(), said)).collect();
    let mut shape = SchemaAnswer { branch_id, modules: Vec::new(), warnings };
    for module_id in asked {
        let known = ModuleId::parse(&module_id).ok();
        let Some(config) = known.and_then(|id| catalogue.module(&id).cloned()) else {
            shape.warnings.push(Warning::new(module_id, "module-not-defined"));
            continue;
        };
        let mut live = None;
        if include.live {
            let key = BranchKey::new(shape.branch_id.clone(), config.id.clone());
            // What cannot be read now is left out, with a warning below: the definitions are shown
            // all the same.
            live = store.snapshot(key, ReadLevel::default()).await.ok();
        }
        for (asked, found, warning) in [
            (include.schema, !config.source.is_null(), "schema-not-found"),
            (include.seed, config.seed.is_some(), "seed-not-found"),
            (include.live, live.is_some(), "live-not-found"),
        ] {
            if asked && !found {
                shape.warnings.push(Warning::new(module_id.clone(), warning));
            }
        }
        if include.schema {
            shape.warnings.extend(of_definition(&config));
        }
        // Only where one branch is asked about: whether it follows is found by looking at its
        // records.
        if named.is_some() && catalogue.modules_of(&shape.branch_id).contains(&config.id) {
            let key = BranchKey::new(shape.branch_id.clone(), config.id.clone());
            let said = adoption::unadopted_warning(&app, &store, &key).await;
            shape.warnings.extend(said.map(|said| Warning::new(module_id.clone(), said)));
        }
        shape.modules.push(ModuleView { branch: shape.branch_id.clone(), config, include, live });
    }
    let live = shape.modules.iter().filter_map(|shown| shown.live.clone()).collect();
    let write = move |outlines: Vec<Arc<ModuleSnapshot>>| {
        let mut outlines = outlines.into_iter();
        for shown in shape.modules.iter_mut().filter(|shown| shown.live.is_some()) {
            // Outlines come in the order in which the snapshots were taken out of the modules.
            shown.live = outlines.next();
        }
        render::bytes(&shape)
    };
    Ok(rendered(StatusCode::OK, app.renderer(&store).modules(live, write).await?))
}

impl Serialize for ModuleView {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            module_id: &'a ModuleId,
            branch_id: &'a BranchId,
            label: &'a str,
            description: &'a str,
            tables: &'a [TableName],
            #[serde(skip_serializing_if = "Option::is_none")]
            config: Option<ConfigView<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            schema: Option<Option<&'a Value>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            schema_source: Option<Option<&'static str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            seed: Option<Option<SeedView<'a>>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            seed_source: Option<Option<&'static str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            live: Option<Option<LiveSnapshot<'a>>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            live_source: Option<Option<&'static str>>,
        }
        let Self { branch, config, include, live } = self;
        let seed = config.seed.as_ref().map(|seed| SeedView { tables: &seed.tables });
        let live = live.as_deref().map(LiveSnapshot);
        let source = Some(&*config.source).filter(|source| !source.is_null());
        Shape {
            module_id: &config.id,
            branch_id: branch,
            label: &config.label,
            description: &config.description,
            tables: &config.tables,
            config: include.config.then(|| ConfigView::of(config)),
            schema: include.schema.then_some(source),
            schema_source: include.schema.then(|| source.map(|_| "central")),
            seed_source: include.seed.then(|| seed.as_ref().map(|_| "central")),
            seed: include.seed.then_some(seed),
            live_source: include.live.then(|| live.as_ref().map(|_| "branch")),
            live: include.live.then_some(live),
        }
        .serialize(to)
    }
}

/// How a module is set up here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigView<'a> {
    label: &'a str,
    tables: &'a [TableName],
    description: &'a str,
    validation: Validation,
    version_rule: VersionRule,
}

impl<'a> ConfigView<'a> {
    fn of(config: &'a ModuleConfig) -> Self {
        Self {
            label: &config.label,
            tables: &config.tables,
            description: &config.description,
            validation: config.validation,
            version_rule: config.version_rule,
        }
    }
}

#[derive(Serialize)]
struct SeedView<'a> {
    tables: &'a Object,
}

/// A snapshot, and when it was last changed.
struct LiveSnapshot<'a>(&'a ModuleSnapshot);

impl Serialize for LiveSnapshot<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            #[serde(flatten)]
            module: ModuleShape<'a>,
            saved_at: String,
        }
        let saved_at = self.0.head.last_updated_at.to_iso();
        Shape { module: ModuleShape(self.0), saved_at }.serialize(to)
    }
}
