//! Module: one module's snapshot, whole or a part of it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use model::{ModuleSnapshot, Value};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::render::{self, Renderer};
use crate::rest::decimals::Decimals;
use crate::rest::extractors::{Body, ModuleScope, NoParams, path_part};
use crate::rest::reply::{rendered, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::wire::ModuleShape;

pub(crate) fn routes() -> Routes {
    Routes::of("Modules")
        .in_branches("/{branch}/modules/{module}")
        .get(
            whole,
            op("A module whole")
                .answers(200, "ModuleSnapshot")
                .reads()
                .shows_decimals()
                .refuses(&[Problem::SnapshotTooLarge]),
        )
        .post(
            echo,
            op("What was sent, and the module")
                .about("Changes nothing.")
                .body("any")
                .answers(200, "{received: any, snapshot: ModuleSnapshot}")
                .reads()
                .shows_decimals(),
        )
        .in_branches("/{branch}/modules/{module}/{*rest}")
        .get(
            part,
            op("A part of a module")
                .answers(200, "any")
                .reads()
                .shows_decimals()
                .refuses(&[Problem::PathNotFound, Problem::SnapshotTooLarge]),
        )
        .nothing_else()
}

async fn whole(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
    decimals: Decimals,
) -> Result<Response, ApiError> {
    let (renderer, snapshot) = (app.renderer(&scope.store), read(scope, decimals).await?);
    answer(&renderer, snapshot, |snapshot| render::bytes(&ModuleShape(snapshot))).await
}

/// `POST`: what was sent, and the state. Changes nothing.
async fn echo(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
    decimals: Decimals,
    Body(received): Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape<'a> {
        received: &'a Value,
        snapshot: ModuleShape<'a>,
    }
    let (renderer, snapshot) = (app.renderer(&scope.store), read(scope, decimals).await?);
    let write = move |snapshot: &ModuleSnapshot| {
        render::bytes(&Shape { received: &received, snapshot: ModuleShape(snapshot) })
    };
    answer(&renderer, snapshot, write).await
}

/// The path below a module.
struct Rest(String);

impl FromRequestParts<App> for Rest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        path_part(parts, app, "rest").await.map(Self)
    }
}

/// A member of the snapshot: `version`, `meta/counter`, `tables`, …
async fn part(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
    decimals: Decimals,
    Rest(rest): Rest,
) -> Result<Response, ApiError> {
    let (renderer, snapshot) = (app.renderer(&scope.store), read(scope, decimals).await?);
    answer(&renderer, snapshot, move |snapshot| member(ModuleShape(snapshot), &rest)).await
}

fn member(module: ModuleShape<'_>, path: &str) -> Result<bytes::Bytes, ApiError> {
    let head = &module.0.head;
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments[..] {
        ["moduleId"] => render::bytes(&head.key.module),
        ["branchId"] => render::bytes(&head.key.branch),
        ["version"] => render::bytes(&head.revision),
        ["tables"] => render::bytes(&module.tables()),
        ["meta"] => render::bytes(&module.meta()),
        ["meta", "lastUpdatedAt"] => render::bytes(&head.last_updated_at.to_iso()),
        ["meta", "counter" | "labCounter"] => render::bytes(&head.rows),
        _ => {
            let message = format!("a module's snapshot has no {path:?}");
            Err(ApiError::new(Problem::PathNotFound, message))
        }
    }
}

async fn read(scope: ModuleScope, decimals: Decimals) -> Result<Arc<ModuleSnapshot>, ApiError> {
    let snapshot = scope.store.snapshot(scope.key.clone(), scope.level).await?;
    Ok(decimals.module(scope.schema(), snapshot))
}

async fn answer<F>(
    renderer: &Renderer,
    snapshot: Arc<ModuleSnapshot>,
    write: F,
) -> Result<Response, ApiError>
where
    F: FnOnce(&ModuleSnapshot) -> Result<bytes::Bytes, ApiError> + Send + 'static,
{
    let (incarnation, offset) = (snapshot.head.incarnation, snapshot.head.offset);
    let answer = renderer.modules(vec![snapshot], move |outline| write(&outline[0])).await?;
    Ok(with_cursor(rendered(StatusCode::OK, answer), incarnation, offset))
}
