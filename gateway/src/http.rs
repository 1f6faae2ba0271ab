//! Http: the REST doors. One file for each resource; `door` is what every request walks through.

mod adoption;
mod ask;
mod batch;
mod branches;
mod changes;
mod cluster;
mod configure;
mod decimals;
mod definitions;
mod door;
mod events;
mod files;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod health;
mod home;
pub(crate) mod known;
mod manage;
pub(crate) mod marker;
mod module;
mod openapi;
mod orders;
mod query;
mod reply;
mod reset;
mod routes;
mod save;
mod schema;
mod sequences;
mod settings;
pub(crate) mod sync;
mod tables;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::{ApiError, Problem};
use crate::gateway::App;
use crate::http::routes::Routes;
use crate::limits::BODY_BYTES_MAX;
use crate::render;

/// Every route of this node.
pub(crate) fn routes(app: App) -> Router {
    let panicked = {
        let app = App::clone(&app);
        move |panic| door::panicked(&app, panic)
    };
    let (router, told) = resources().finish();
    app.document.get_or_init(|| render::bytes(&openapi::describe(&told)).unwrap_or_default());
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(App::clone(&app), door::walk_through))
        .with_state(app)
}

/// Every resource; each says beside its handlers what the document tells of them.
fn resources() -> Routes {
    Routes::of("Node")
        .merge(health::routes())
        .merge(home::routes())
        .merge(openapi::routes())
        .merge(cluster::routes())
        .merge(branches::routes())
        .merge(module::routes())
        .merge(tables::routes())
        .merge(save::routes())
        .merge(batch::routes())
        .merge(events::routes())
        .merge(reset::routes())
        .merge(manage::routes())
        .merge(sequences::routes())
        .merge(orders::routes())
        .merge(sync::routes())
        .merge(query::routes())
        .merge(schema::routes())
        .merge(configure::routes())
        .merge(settings::routes())
        .merge(definitions::routes())
}

pub(crate) use branches::DEFAULT_BRANCH;
pub use files::{File, Files};

/// The two names the original has for branches.
const BRANCHES: [&str; 2] = ["/api/branches", "/api/branch"];

/// Nothing under this path.
async fn nothing_here(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Problem::NotFound, format!("there is nothing under {path}")).with("path", path)
}

/// Something under this path, but not for this method.
async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Problem::MethodNotAllowed, format!("{path} does not take {method}"))
}
