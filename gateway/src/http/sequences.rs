//! Sequences: one number taken without a record. It is logged, so that a gap can be explained.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{Command, Origin, Request, Reserve, Value};
use serde::Serialize;

use crate::auth::Intent;
use crate::error::{ApiError, Problem};
use crate::gateway::App;
use crate::http::ask::{Body, InModule, Named};
use crate::http::openapi::op;
use crate::http::reply::json;
use crate::http::routes::Routes;
use crate::publish::{text, user_of};

pub(crate) fn routes() -> Routes {
    const ANSWER: &str = "{branchId: text, moduleId: text, table: text, field: text, \
                          value: int, id: text, rule: object}";
    Routes::of("Records").in_branches("/{branch}/modules/{module}/sequences").post(
        reserve,
        op("Take a number without a record")
            .about("A number that belongs to a record is taken with it: leave its field empty.")
            .body("{table: text, field: text, record?: Record, *: any}")
            .answers(200, ANSWER)
            .writes()
            .refuses(&[Problem::MissingTableOrField, Problem::SequenceFailed]),
    )
}

async fn reserve(
    State(app): State<App>,
    place: InModule,
    Named(id): Named,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        table: &'a str,
        field: &'a str,
        value: u64,
        id: &'a str,
        rule: &'a Value,
    }
    place.authorize(Intent::Write)?;
    let body = body.object()?;
    let table = text(&body, &["table", "tableName"]);
    let Some((table, field)) = table.zip(text(&body, &["field", "fieldName"])) else {
        let message = "name the sequence by \"table\" and \"field\"";
        return Err(ApiError::new(Problem::MissingTableOrField, message));
    };
    let origin = Origin {
        source: Some("rest".to_owned()),
        user: user_of(&body, body.get("meta")),
        ..Origin::default()
    };
    let command = Command {
        id,
        key: place.key.clone(),
        origin: Arc::new(origin),
        request: Request::Reserve(Reserve { table, field }),
    };
    let accepted = app.submit(command).await?;
    let reserved = accepted.reserved.ok_or_else(|| {
        tracing::error!("an accepted reservation came without its number");
        ApiError::new(Problem::Defect, "the number was taken, but is missing from the answer")
    })?;
    json(
        StatusCode::OK,
        &Shape {
            branch_id: place.key.branch.as_str(),
            module_id: place.key.module.as_str(),
            table: reserved.table.as_str(),
            field: &reserved.field,
            value: reserved.value,
            id: &reserved.text,
            rule: &reserved.rule.shown,
        },
    )
}
