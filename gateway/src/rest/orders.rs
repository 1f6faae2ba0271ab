//! Orders: point-of-sale orders with all that belongs to them, listed, shown and saved
//! (docs/original/rest.md#orders). Only the module `pos` has them.
//!
//! An order is sent as the till knows it and stored in the schema's names; `payload` translates,
//! `echo` shows what was understood. The branch decides whether it can be saved.

mod echo;
mod payload;

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use compat::{Orders, OrdersQuery};
use model::{Acceptance, Answer, Command, Object, Offset, Origin, ReadLevel, Validation, Value};
use serde::Serialize;

use crate::app::{App, now};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::render;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, NoParams, path_part};
use crate::rest::orders::echo::{SavedOrder, normalized};
use crate::rest::orders::payload::Payload;
use crate::rest::reply::{json, json_bytes, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{StoreCall, unexpected_answer};

/// The module that has orders.
const POS: &str = "pos";
/// The parameters that name parts.
const INCLUDE: [&str; 2] = ["include", "include[]"];
/// The names of the parts, as `include` and `meta.include` have them.
const PARTS: [&str; 4] = ["lines", "payments", "statuslogs", "linestatuslogs"];

pub(crate) fn routes() -> Routes {
    const BODY: &str = "{order: {id?: text, shiftId: text, version?: int, lines: [object], \
                        payments?: [object], *: any}, actorId?: text, userId?: text}";
    const SAVED: &str = "{branchId: text, moduleId: text, orderId: text, order: Record, \
                         normalized: object}";
    Routes::of("Orders")
        .in_branches("/{branch}/modules/{module}/orders")
        .get(
            list,
            op("The orders, newest first")
                .about("Only the module `pos` has orders.")
                .query("onlyActive", "flag", "leave out orders that have ended; true by default")
                .query("status", "text", "only these states, with commas")
                .query("stage", "text", "only these stages, with commas")
                .query("type", "text", "only these types, with commas")
                .query("shiftId", "text", "only of these shifts, with commas")
                .query("updatedAfter", "text", "only those updated at this time or later")
                .query("savedAfter", "text", "only those saved at this time or later")
                .query("limit", "int", "at most this many; 0 is all")
                .query("include", "text", "lines, payments, statuslogs, linestatuslogs")
                .answers(200, "{branchId: text, moduleId: text, orders: [Record], meta: object}")
                .reads(),
        )
        .post(
            save,
            op("Save an order with all that belongs to it, whole or not at all")
                .body(BODY)
                .answers(201, SAVED)
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .writes()
                .refuses(&[
                    Problem::MissingOrder,
                    Problem::OrderVersionConflict,
                    Problem::PartOfAnother,
                    Problem::DuplicatePart,
                    Problem::OrderRefused,
                ]),
        )
        .in_branches("/{branch}/modules/{module}/orders/{order}")
        .get(
            one,
            op("One order with all that belongs to it")
                .answers(200, "{branchId: text, moduleId: text, orderId: text, order: Record}")
                .reads()
                .refuses(&[Problem::OrderNotFound]),
        )
}

/// Reads any body, for the fuzzers.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_any(body: Object) {
    let _ = Payload::read(body);
}

/// Another module has nothing under this path, as before.
fn only_pos(place: &ModuleScope, problem: Problem) -> Result<(), ApiError> {
    if place.key.module.as_str() == POS {
        return Ok(());
    }
    let message = format!("only the module {POS:?} has orders, not {:?}", place.key.module);
    Err(ApiError::new(problem, message))
}

/// An order named in the path.
struct OrderId(String);

impl FromRequestParts<App> for OrderId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        path_part(parts, app, "order").await.map(Self)
    }
}

async fn list(
    State(app): State<App>,
    place: ModuleScope,
    params: Params,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        orders: &'a [Object],
        meta: Meta<'a>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta<'a> {
        count: usize,
        total: usize,
        only_active: bool,
        include: Vec<&'a str>,
        limit: Option<usize>,
    }
    only_pos(&place, Problem::PathNotFound)?;
    let warnings = known_members::ORDERS.params(&params, place.config.validation)?;
    let query = orders_query(&params)?;
    let unknown = params.list(&INCLUDE).find(|part| !PARTS.contains(&&*plain(part)));
    if let (Validation::Strict, Some(part)) = (place.config.validation, unknown) {
        let message = format!("include {part:?} is not known; known are {}", PARTS.join(", "));
        return Err(ApiError::new(Problem::InvalidParameter, message)
            .details([("parameter", "include".into())]));
    }
    let found = read(&place, query.clone(), place.level).await?;
    let renderer = app.renderer(&place.store);
    let rows = found.orders.iter().map(records_in).sum();
    let write = move || {
        let included = [query.lines, query.payments, query.status_logs, query.line_status_logs];
        let include = PARTS.into_iter().zip(included).filter(|(_, included)| *included);
        render::bytes(&Shape {
            branch_id: place.key.branch.as_str(),
            module_id: place.key.module.as_str(),
            orders: &found.orders,
            meta: Meta {
                count: found.orders.len(),
                total: found.total,
                only_active: query.only_active,
                include: include.map(|(part, _)| part).collect(),
                limit: query.limit,
            },
            warnings,
        })
    };
    Ok(json_bytes(StatusCode::OK, renderer.rows(rows, write).await?))
}

/// How many records an order shows: how much work it is to write.
fn records_in(order: &Object) -> u64 {
    let parts = ["lines", "payments", "statusLogs"].iter().filter_map(|part| order.get(part));
    1 + parts.filter_map(Value::as_array).map(|records| records.len() as u64).sum::<u64>()
}

/// A part's name as it is compared.
fn plain(part: &str) -> String {
    part.to_lowercase().replace(['_', '-'], "")
}

fn orders_query(params: &Params) -> Result<OrdersQuery, ApiError> {
    let words = |name: &str| params.list(&[name]).map(str::to_owned).collect();
    let listed: Vec<String> = params.list(&INCLUDE).map(plain).collect();
    let included = |part: &str, flags: &[&str]| {
        let flag = params.yes_or_no(flags)?;
        Ok::<_, ApiError>(flag.unwrap_or_else(|| listed.iter().any(|listed| listed == part)))
    };
    let [lines, payments, logs, line_logs] = PARTS;
    Ok(OrdersQuery {
        id: None,
        only_active: params.yes_or_no(&["onlyActive"])?.unwrap_or(true),
        statuses: words("status"),
        stages: words("stage"),
        types: words("type"),
        shifts: words("shiftId"),
        updated_from: params.time(known_members::UPDATED_AFTER)?,
        saved_from: params.time(&["savedAfter", "saved_after"])?,
        limit: params.number(&["limit", "take"])?.filter(|limit| *limit > 0),
        lines: included(lines, &["includeLines"])?,
        payments: included(payments, &["includePayments"])?,
        status_logs: included(logs, &["includeStatusLogs"])?,
        line_status_logs: included(line_logs, &["includeLineStatusLogs", "includeLineStatus"])?,
    })
}

async fn read(
    place: &ModuleScope,
    query: OrdersQuery,
    level: ReadLevel,
) -> Result<Orders, ApiError> {
    let answer = place.store.read(place.key.clone(), query.read(), level).await?;
    let Answer::Call(orders) = answer else { return Err(unexpected_answer(&answer)) };
    Orders::decode(&orders).map_err(|error| {
        tracing::error!(%error, "orders were answered that cannot be read");
        ApiError::new(Problem::Defect, "the read was answered with something else")
    })
}

/// One order with all that belongs to it.
async fn whole(
    place: &ModuleScope,
    id: &str,
    level: ReadLevel,
) -> Result<Option<Object>, ApiError> {
    let query = OrdersQuery {
        id: Some(id.to_owned()),
        lines: true,
        payments: true,
        status_logs: true,
        line_status_logs: true,
        ..OrdersQuery::default()
    };
    Ok(read(place, query, level).await?.orders.pop())
}

/// The answer to one order, shown or saved.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    branch_id: &'a str,
    module_id: &'a str,
    order_id: &'a str,
    order: &'a Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    normalized: Option<Object>,
}

impl<'a> One<'a> {
    fn new(place: &'a ModuleScope, order_id: &'a str, order: &'a Object) -> Self {
        Self {
            branch_id: place.key.branch.as_str(),
            module_id: place.key.module.as_str(),
            order_id,
            order,
            normalized: None,
        }
    }
}

async fn one(place: ModuleScope, _: NoParams, OrderId(id): OrderId) -> Result<Response, ApiError> {
    only_pos(&place, Problem::PathNotFound)?;
    let order = whole(&place, &id, place.level).await?.ok_or_else(|| {
        let message = format!("there is no order {id:?}");
        ApiError::new(Problem::OrderNotFound, message).with("orderId", id.as_str())
    })?;
    json(StatusCode::OK, &One::new(&place, &id, &order))
}

async fn save(
    place: ModuleScope,
    _: NoParams,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    only_pos(&place, Problem::NotFound)?;
    let body = body.object()?;
    known_members::SAVED_ORDER.members(&body, place.config.validation)?;
    let payload = Payload::read(body)?;
    let origin = Origin {
        source: Some("pos-order-api".to_owned()),
        user: payload.actor.clone(),
        include_record: true,
        ..Origin::default()
    };
    let order = payload.save_order(place.schema(), place.config.validation)?;
    let command =
        Command { id, key: place.key.clone(), origin: Arc::new(origin), request: order.request() };
    let accepted = place.store.commit(command).await.map_err(as_of_an_order)?;
    answer(&place, &payload, &accepted).await
}

/// Tills look for a conflict under a code of this endpoint's own.
fn as_of_an_order(error: ApiError) -> ApiError {
    if error.problem() == Problem::VersionConflict {
        return error.with_problem(Problem::OrderVersionConflict);
    }
    error
}

async fn answer(
    place: &ModuleScope,
    payload: &Payload,
    accepted: &Acceptance,
) -> Result<Response, ApiError> {
    let lost = || {
        tracing::error!("an accepted order is not there");
        ApiError::new(Problem::Defect, "the order was saved, but is missing from the answer")
    };
    let saved = saved(payload, accepted).ok_or_else(lost)?;
    let reached = accepted.delta.last().unwrap_or(Offset(0));
    // At the offset of the change: a replica that lags would show the order of before, or none.
    let order = whole(place, &saved.id, ReadLevel::Session(reached)).await?;
    let order = order.ok_or_else(lost)?;
    let lines = place.schema().table("order_line").map(|table| &**table);
    let normalized = Some(normalized(payload, &saved, lines));
    let shown = One { normalized, ..One::new(place, &saved.id, &order) };
    Ok(with_cursor(json(StatusCode::CREATED, &shown)?, accepted.delta.incarnation, reached))
}

/// What the branch made of it: its id, when, and the metadata stored.
fn saved(payload: &Payload, accepted: &Acceptance) -> Option<SavedOrder> {
    let events = &accepted.delta.events;
    // The branch may have given the id: then only the event of the header has it.
    let header = events.iter().find_map(|event| {
        let change = event.record().filter(|change| change.table.as_str() == "order_header")?;
        Some((event.at, change))
    });
    match header {
        Some((at, change)) => Some(SavedOrder {
            id: change.key.to_string(),
            at,
            metadata: change.record.get("metadata").and_then(Value::as_object).cloned(),
        }),
        // Nothing of the header changed: it is the one that was sent.
        None => {
            let at = events.last().map_or_else(now, |event| event.at);
            Some(SavedOrder { id: payload.id()?, at, metadata: None })
        }
    }
}
