//! Cluster: what an operator sees.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use crate::auth::{Access, Intent, Principal, authorize};
use crate::error::ApiError;
use crate::gateway::App;
use crate::http::reply::json;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/api/cluster/status", get(status))
}

async fn status(State(app): State<App>, principal: Principal) -> Result<Response, ApiError> {
    authorize(&principal, &Access::cluster(Intent::Read))?;
    json(StatusCode::OK, &app.branches.status().await)
}
