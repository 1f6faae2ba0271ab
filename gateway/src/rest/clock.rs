//! Clock: brings a module's commit time back to the present, where a wrong clock once set it ahead.
//! It is a command of the module's own log: its event says who asked, why, and what it was.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use model::{Command, EventChange, MendClock, Origin, Request, Validation, Value};
use serde::Serialize;

use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::publish::user_of;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, NoParams};
use crate::rest::manage::words;
use crate::rest::reply::{json, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::StoreCall;

pub(crate) fn routes() -> Routes {
    Routes::of("Management").in_branches("/{branch}/modules/{module}/clock").post(
        mend,
        op("Bring the commit time back to the present")
            .calls(&[StoreCall::Submit])
            .about(
                "Commit times never go back, so that a clock that was wrong once stamps all that \
                 follows. Where they are more than a minute ahead of now, they begin again from \
                 now, with an event that says who asked and why; the status warns of such modules. \
                 Otherwise nothing happens, and `mended` is false.",
            )
            .body("{reason: text, requestedBy?: text}")
            .answers(
                200,
                "{branchId: text, moduleId: text, mended: flag, before?: text, now?: text}",
            )
            .writes(),
    )
}

async fn mend(
    scope: ModuleScope,
    _: NoParams,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        mended: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        now: Option<&'a str>,
    }
    let body = body.object()?;
    known_members::CLOCK.members(&body, Validation::Strict)?;
    let reason = words(&body, None, "reason")?.filter(|reason| !reason.is_empty());
    let missing = || ApiError::new(Problem::InvalidBody, "reason is missing: it is kept for ever");
    let mend = MendClock {
        reason: reason.ok_or_else(missing)?,
        requested_by: words(&body, None, "requestedBy")?,
    };
    let user = user_of(&body, None);
    let origin = Origin { source: Some("rest".to_owned()), user, ..Origin::default() };
    let request = Request::MendClock(mend);
    let command = Command { id, key: scope.key.clone(), origin: Arc::new(origin), request };
    let accepted = scope.store.commit(command).await?;
    let details = accepted.delta.events.first().and_then(|event| match &event.change {
        EventChange::Module(change) => Some(&change.details),
        EventChange::Record(_) => None,
    });
    let member = |name: &str| details?.get(name).and_then(Value::as_str);
    let shape = Shape {
        branch_id: scope.key.branch.as_str(),
        module_id: scope.key.module.as_str(),
        mended: details.is_some(),
        before: member("before"),
        now: member("now"),
    };
    let response = json(StatusCode::OK, &shape)?;
    Ok(match accepted.delta.last() {
        Some(reached) => with_cursor(response, accepted.delta.incarnation, reached),
        None => response,
    })
}
