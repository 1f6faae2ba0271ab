//! Reset: a module begins again from its seed. What was there goes into its history.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{BranchKey, Command, CommandId, Origin, ReadLevel, Request, Reset, Validation};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::publish::text;
use crate::render;
use crate::rest::branches::BranchSnapshot;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, NoParams};
use crate::rest::reply::{rendered, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::StoreCall;

pub(crate) fn routes() -> Routes {
    let begin = op("Begin again from the seed; the records go into the history")
        .calls(&[StoreCall::Submit, StoreCall::Read])
        .body("{requestedBy?: text}")
        .answers(200, "{success: flag, message: text, *: any}")
        .writes();
    Routes::of("Management").in_branches("/{branch}/modules/{module}/reset").post(reset, begin)
}

/// Begins again, numbers and all. The original also takes `GET`, which any image of any page sends.
async fn reset(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shape<S> {
        success: bool,
        message: &'static str,
        #[serde(flatten)]
        branch: S,
    }
    let body = body.object()?;
    known_members::MODULE_RESET.members(&body, scope.config.validation)?;
    let requested_by = text(&body, &["requestedBy"]);
    let reason = "branch-api-reset".to_owned();
    let asked = command(&app, scope.key.clone(), id, (reason, requested_by), true);
    let accepted = scope.store.commit(asked).await?;
    // It is done: no answer may read as if it were not.
    let unshown = |error: ApiError| {
        let message = format!("the module began again, but cannot be shown: {}", error.message());
        ApiError::new(Problem::OutcomeUnknown, message)
    };
    let whole =
        BranchSnapshot::read(&app, &scope.store, scope.key.branch, ReadLevel::default()).await;
    let whole = whole.map_err(unshown)?;
    let server_id = app.server_id.clone();
    let message = match scope.config.validation {
        Validation::Lenient => "Module reset to initial data and sequence counter reset",
        Validation::Strict => "Module reset to initial data; its numbers go on",
    };
    let write = move |whole: &BranchSnapshot| {
        render::bytes(&Shape { success: true, message, branch: whole.shape(&server_id) })
    };
    let response = rendered(
        StatusCode::OK,
        whole.written(&app.renderer(&scope.store), write).await.map_err(unshown)?,
    );
    Ok(match accepted.delta.last() {
        Some(offset) => with_cursor(response, accepted.delta.incarnation, offset),
        None => response,
    })
}

/// A reset of a module, for a reason and perhaps by somebody, to the seed the catalogue has.
pub(crate) fn command(
    app: &App,
    key: BranchKey,
    id: CommandId,
    (reason, requested_by): (String, Option<String>),
    numbers: bool,
) -> Command {
    // The command carries the seed: a branch decides without the catalogue.
    let seed = app.node().catalogue().seed(&key);
    let origin = Origin { user: requested_by.clone(), ..Origin::default() };
    let request = Request::Reset(Reset { seed, reason, requested_by, numbers });
    Command { id, key, origin: Arc::new(origin), request }
}
