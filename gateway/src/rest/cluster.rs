//! Cluster: what an operator sees.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{CatalogueChange, Validation, Value};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::rest::changes::CatalogueWriter;
use crate::rest::extractors::{Body, IdempotencyKey};
use crate::rest::reply::json;
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{ScopedStore, StoreCall};

pub(crate) fn routes() -> Routes {
    Routes::of("Node")
        .path("/api/cluster/status")
        .get(
            status,
            op("The cluster as this node sees it")
                .calls(&[StoreCall::Status]).answers(
                200,
                "{clusterId: text, answeredBy: int, placementEpoch: int, warnings: [text], level: int, \
                 files?: {fileLimit: int, reserved: int, connectionsMax: int}, memory?: object, \
                 catalogue: [{kind: text, bytes: int, bytesMax: int}], \
                 nodes: [object], partitions: [object], branches: [object], *: any}",
            ),
        )
        .path("/api/cluster/level")
        .put(
            raise_level,
            op("Let the cluster agree on a level")
                .calls(&[StoreCall::Administer])
                .about(
                    "After every node runs a newer build: from then on it may write what the older \
                     build cannot read, and the older build is refused. Levels never fall.",
                )
                .body("{level: int}")
                .answers(200, "{level: int}")
                .writes()
                .refuses(&[Problem::LevelTooLow]),
        )
        .path("/api/cluster/replicas")
        .get(
            replicas,
            op("The replicas this node holds, each with a hash of its state")
                .calls(&[StoreCall::Status])
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

async fn status(store: ScopedStore) -> Result<Response, ApiError> {
    json(StatusCode::OK, &store.status().await?)
}

async fn replicas(store: ScopedStore, params: Params) -> Result<Response, ApiError> {
    json(StatusCode::OK, &store.replicas(params.flag("verify")).await?)
}

async fn raise_level(
    State(app): State<App>,
    store: ScopedStore,
    named: IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape {
        level: u16,
    }
    let body = body.object()?;
    known_members::LEVEL.members(&body, Validation::Strict)?;
    let level = body.get("level").and_then(Value::as_u64);
    let level = level.and_then(|level| u16::try_from(level).ok()).filter(|level| *level > 0);
    let level = level.ok_or_else(|| {
        let now = app.node().catalogue().level;
        let right = format!("level must be a whole number from 1; the cluster is at {now}");
        ApiError::new(Problem::InvalidBody, right)
    })?;
    let changes = CatalogueWriter::of(&app, &store, &named, "/api/cluster/level", &body)?;
    changes.make("level", CatalogueChange::RaiseLevel(level)).await?;
    json(StatusCode::OK, &Shape { level: app.node().catalogue().level })
}
