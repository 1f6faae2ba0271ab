//! Cluster: what an operator sees.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::auth::{Access, Intent, Principal, authorize};
use crate::error::ApiError;
use crate::gateway::App;
use crate::http::openapi::op;
use crate::http::reply::json;
use crate::http::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::of("Node").path("/api/cluster/status").get(
        status,
        op("The cluster as this node sees it").answers(
            200,
            "{clusterId: text, answeredBy: int, placementEpoch: int, warnings: [text], \
             nodes: [object], partitions: [object], branches: [object], *: any}",
        ),
    )
}

async fn status(State(app): State<App>, principal: Principal) -> Result<Response, ApiError> {
    authorize(&principal, &Access::cluster(Intent::Read))?;
    json(StatusCode::OK, &app.branches.status().await)
}
