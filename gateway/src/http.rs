//! Http: the REST doors. One file for each resource; `door` is what every request walks through.

mod ask;
mod batch;
mod branches;
mod cluster;
mod door;
mod events;
mod health;
mod manage;
mod module;
mod reply;
mod reset;
mod save;
mod schema;
mod sequences;
mod tables;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::{ApiError, Problem};
use crate::gateway::App;
use crate::limits::BODY_BYTES_MAX;

/// Every route of this node.
pub(crate) fn routes(app: App) -> Router {
    let panicked = {
        let app = App::clone(&app);
        move |panic| door::panicked(&app, panic)
    };
    Router::new()
        .merge(health::routes())
        .merge(branches::routes())
        .merge(module::routes())
        .merge(tables::routes())
        .merge(save::routes())
        .merge(batch::routes())
        .merge(events::routes())
        .merge(reset::routes())
        .merge(manage::routes())
        .merge(sequences::routes())
        .merge(schema::routes())
        .merge(cluster::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(App::clone(&app), door::walk_through))
        .with_state(app)
}

pub(crate) use branches::DEFAULT_BRANCH;

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
