//! Cluster: what an operator sees.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::auth::{Access, Intent, Principal, authorize};
use crate::error::ApiError;
use crate::gateway::App;
use crate::http::ask::Params;
use crate::http::openapi::op;
use crate::http::reply::json;
use crate::http::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::of("Node")
        .path("/api/cluster/status")
        .get(
            status,
            op("The cluster as this node sees it").answers(
                200,
                "{clusterId: text, answeredBy: int, placementEpoch: int, warnings: [text], \
                 files?: {fileLimit: int, reserved: int, connectionsMax: int}, \
                 nodes: [object], partitions: [object], branches: [object], *: any}",
            ),
        )
        .path("/api/cluster/replicas")
        .get(
            replicas,
            op("The replicas this node holds, each with a hash of its state")
                .about(
                    "Replicas of a partition that have applied the same have the same hash. It \
                     takes as long as reading all that this node holds.",
                )
                .query("verify", "flag", "Walk the logs too, from the oldest event held")
                .answers(
                    200,
                    "{node: int, replicas: [{partition: int, applied: int, stateHash: text, \
                     brokenChain?: {branch: text, module: text, sequence: int, reason: text}}]}",
                ),
        )
}

async fn status(State(app): State<App>, principal: Principal) -> Result<Response, ApiError> {
    authorize(&principal, &Access::cluster(Intent::Read))?;
    json(StatusCode::OK, &app.branches.status().await)
}

async fn replicas(
    State(app): State<App>,
    principal: Principal,
    params: Params,
) -> Result<Response, ApiError> {
    authorize(&principal, &Access::cluster(Intent::Read))?;
    json(StatusCode::OK, &app.branches.replicas(params.flag("verify")).await)
}
