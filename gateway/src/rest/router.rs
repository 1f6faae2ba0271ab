//! Router: every route of a node, put together. Nothing but the gateway itself imports this file.

use axum::Router;
use axum::http::{Method, Uri};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::render;
use crate::rest::route_doc::RouteDoc;
use crate::rest::routes::{Routes, nothing_here};
use crate::rest::{
    batch, branches, clock, cluster, configure, definitions, events, health, home, manage,
    middleware, module, openapi, orders, query, reset, save, schema, sequences, settings, sync,
    tables,
};
use crate::scoped_store::StoreCall;

/// Every route of this node.
pub(crate) fn build(app: App) -> Router {
    let panicked = {
        let app = App::clone(&app);
        move |panic| middleware::panicked(&app, panic)
    };
    let (router, docs) = resources().finish();
    app.document.get_or_init(|| render::bytes(&openapi::describe(&docs)).unwrap_or_default());
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(App::clone(&app), middleware::answer))
        .with_state(app)
}

/// Every resource; each says beside its handlers what the document tells of them.
pub(crate) fn resources() -> Routes {
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
        .merge(clock::routes())
        .merge(sequences::routes())
        .merge(orders::routes())
        .merge(sync::routes())
        .merge(query::routes())
        .merge(schema::routes())
        .merge(configure::routes())
        .merge(settings::routes())
        .merge(definitions::routes())
}

/// A route, and the calls of the store that it may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCalls {
    /// In lower case.
    pub method: &'static str,
    /// With its variable parts in braces.
    pub path: String,
    /// None where it needs no principal: it shows nothing but the node itself.
    pub calls: &'static [StoreCall],
}

/// Every route with the calls of the store that it may make, each path under its first name.
pub fn route_calls() -> Vec<RouteCalls> {
    let (_, docs) = resources().finish();
    let first_names = docs.into_iter().filter(|doc| !doc.is_alias);
    let calls = |doc: RouteDoc| RouteCalls {
        calls: doc.op.store_calls(),
        method: doc.method,
        path: doc.path,
    };
    first_names.map(calls).collect()
}

/// Something under this path, but not for this method.
async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Problem::MethodNotAllowed, format!("{path} does not take {method}"))
}
