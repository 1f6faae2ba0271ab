//! Settings: what a module is called and how much it enforces, changed after it was made.
//!
//! Promise: what is not sent stays; under an `Idempotency-Key` a request is done once.
//! Refused: what the module's kind does not know, and `strict` where its definition has what a
//! strict module refuses.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use model::{
    CatalogueChange, ModuleConfig, ModuleId, ModuleSettings, TableName, Validation, VersionRule,
};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::rest::adoption::{self, Adoption};
use crate::rest::changes::CatalogueWriter;
use crate::rest::configure::{dedup_limits, description_of, name_of, rules, with_definition};
use crate::rest::extractors::{Body, IdempotencyKey, path_part};
use crate::rest::reply::json;
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{ScopedStore, StoreCall};

pub(crate) fn routes() -> Routes {
    const SETTINGS: &str = "{label?: text, description?: text, \
                            validation?: 'strict'|'lenient', versionRule?: 'read'|'next', \
                            dedupBytes?: int}";
    const MODULE: &str = "{moduleId: text, label: text, description: text, tables: [text], \
                          validation: 'strict'|'lenient', versionRule: 'read'|'next', \
                          dedupBytes: int, warnings?: [text]}";
    Routes::of("Configuration").path("/api/modules/{module}").patch(
        change,
        op("Change what a module is called and enforces")
            .calls(&[StoreCall::Administer, StoreCall::Status, StoreCall::Read])
            .about("What is not sent stays. All branches of the module follow.")
            .query("fill", "text", "`defaults`: records are brought up to what is enforced then")
            .body(SETTINGS)
            .answers(200, MODULE)
            .writes()
            .refuses(&[Problem::InvalidName, Problem::ModuleNotFound])
            .refuses(&[Problem::InvalidDefinition, Problem::RecordsDoNotFit]),
    )
}

/// A module of the cluster, named in the path, and who asks.
struct ModuleOfCluster {
    store: ScopedStore,
    config: Arc<ModuleConfig>,
}

impl FromRequestParts<App> for ModuleOfCluster {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Ok(store) = ScopedStore::from_request_parts(parts, app).await;
        let id = ModuleId::parse(&path_part(parts, app, "module").await?)?;
        if let Some(config) = app.node().catalogue().module(&id).cloned() {
            return Ok(Self { store, config });
        }
        // It may have been made at another node a moment ago.
        app.node().catch_up().await?;
        let config = app.node().catalogue().module(&id).cloned().ok_or_else(|| {
            let message = format!("there is no module {:?}", id.as_str());
            ApiError::new(Problem::ModuleNotFound, message).with("moduleId", id.as_str())
        })?;
        Ok(Self { store, config })
    }
}

async fn change(
    State(app): State<App>,
    ModuleOfCluster { store, config }: ModuleOfCluster,
    named: IdempotencyKey,
    params: Params,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        module_id: &'a ModuleId,
        label: &'a str,
        description: &'a str,
        tables: &'a [TableName],
        validation: Validation,
        version_rule: VersionRule,
        dedup_bytes: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    let body = body.object()?;
    let (validation, version_rule) = rules(&body)?;
    known_members::DEFINING.params(&params, Validation::Strict)?;
    let fill = adoption::fill(&params)?;
    let settings = ModuleSettings {
        fill,
        label: name_of(&body)?,
        description: description_of(&body)?,
        validation,
        version_rule,
        dedup: dedup_limits(&body)?,
    };
    let wanted = settings.of(&config);
    // As strictly as it is to be from now on.
    let mut warnings = known_members::MODULE_SETTINGS.members(&body, wanted.validation)?;
    // Its definition was read leniently, perhaps: a strict module is asked more of.
    let source = Arc::clone(&wanted.source);
    let made = with_definition(wanted, source, false)?;
    warnings.extend(made.warnings);
    let adoption = Adoption::check(&app, &store, &Arc::new(made.config), fill).await?;
    let path = format!("/api/modules/{}", config.id);
    let changes = CatalogueWriter::of(&app, &store, &named, &path, &body)?;
    let change = CatalogueChange::SetModule { module: config.id.clone(), settings };
    changes.make("settings", change).await?;
    warnings.extend(adoption.wait_until_adopted(&store).await);
    let catalogue = app.node().catalogue();
    // As it stands now: for a repeated request, what the first one made.
    let config = catalogue.module(&config.id).unwrap_or(&config);
    let shape = Shape {
        module_id: &config.id,
        label: &config.label,
        description: &config.description,
        tables: &config.tables,
        validation: config.validation,
        version_rule: config.version_rule,
        dedup_bytes: config.dedup.bytes_max,
        warnings,
    };
    json(StatusCode::OK, &shape)
}
