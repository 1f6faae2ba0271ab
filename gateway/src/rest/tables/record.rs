//! Record: one record, read, changed and removed by the key the wire shows it under.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use model::limits::VERSION_MAX;
use model::{Action, Answer, Object, Query, Read, RecordKey, Reject, Table, Validation, Value};
use serde::Serialize;

use super::{RecordRequest, TableScope};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::rest::decimals::Decimals;
use crate::rest::extractors::{NoParams, path_part};
use crate::rest::reply::json;
use crate::scoped_store::unexpected_answer;
use crate::wire::{RecordRef, record_ref};

/// A record's key, the last part of the path.
pub(super) struct KeyPart(String);

impl FromRequestParts<App> for KeyPart {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        path_part(parts, app, "key").await.map(Self)
    }
}

/// `GET …/tables/{table}/{key}`.
pub(super) async fn read(
    TableScope { scope, table }: TableScope,
    _: NoParams,
    KeyPart(sent): KeyPart,
    decimals: Decimals,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        table: &'a str,
        record_ref: RecordRef<'a>,
        record: &'a Object,
    }
    let name = table.name.as_str();
    let query = Query { table: name.to_owned(), key: Some(sent.clone()), ..Query::default() };
    let answer = scope.store.read(scope.key.clone(), Read::Query(query), scope.level).await?;
    let Answer::Query(mut page) = answer else { return Err(unexpected_answer(&answer)) };
    // As the table spells it, so that the same record has one `recordRef` whatever was sent.
    let key = table.key_named(&sent).unwrap_or_else(|| RecordKey(sent.into()));
    decimals.rows(scope.schema(), name, &mut page.rows);
    let Some(record) = page.rows.first() else {
        let message = format!("{name} has no record of the key {:?}", key.as_str());
        let details = [("table", name.into()), ("key", key.as_str().into())];
        return Err(ApiError::new(Problem::NoSuchRecord, message).details(details));
    };
    let mut response = json(
        StatusCode::OK,
        &Shape {
            branch_id: scope.key.branch.as_str(),
            module_id: scope.key.module.as_str(),
            table: name,
            record_ref: record_ref(name, key.as_str(), &table.key, record),
            record,
        },
    )?;
    // A record of before its module was strict has none yet, and counts as the first.
    let first = scope.config.validation == Validation::Strict && table.field("version").is_none();
    let stored = record.get("version");
    let version = stored.map_or_else(|| first.then_some(1), Value::as_u64);
    // One of before there was a limit counts as the first too: nobody could send it.
    let version = version.map(|version| if version > VERSION_MAX { 1 } else { version });
    if let Some(etag) = version.and_then(|v| HeaderValue::try_from(format!("\"{v}\"")).ok()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// `PATCH …/tables/{table}/{key}`.
pub(super) async fn merge(
    State(app): State<App>,
    key: KeyPart,
    request: RecordRequest,
) -> Result<Response, ApiError> {
    change(&app, Action::Merge, &key, request).await
}

/// `DELETE …/tables/{table}/{key}`.
pub(super) async fn remove(
    State(app): State<App>,
    key: KeyPart,
    request: RecordRequest,
) -> Result<Response, ApiError> {
    change(&app, Action::Delete, &key, request).await
}

/// Changes the record that the path names. Also a lenient module's request must not name another:
/// the original has no such path.
async fn change(
    app: &App,
    action: Action,
    KeyPart(key): &KeyPart,
    request: RecordRequest,
) -> Result<Response, ApiError> {
    let named = |target: &TableScope, _: &Params, record: &mut Object| {
        name(&target.table, key, record, Validation::Strict)
    };
    request.change(app, action, &known_members::WRITING, named).await
}

/// Gives a record the key that the path or a parameter names; what it says of its key itself must
/// agree, unless that is passed over as the original does: it acts on what the body says.
pub(super) fn name(
    table: &Table,
    key: &str,
    record: &mut Object,
    validation: Validation,
) -> Result<(), ApiError> {
    let unknown = || Reject::NotFound { table: table.name.to_string(), key: RecordKey(key.into()) };
    let fields = table.fields_named(key).ok_or_else(unknown)?;
    for (name, value) in fields.iter() {
        let sent = table.field(name).and_then(|field| table.sent_value(record, field));
        if sent.is_none_or(|sent| sent.is_null() || sent.as_str() == Some("")) {
            record.insert(name.clone(), value.clone());
        }
    }
    let (named, sent) = (table.key_of(&fields)?, table.key_of(record)?);
    if named == sent || validation == Validation::Lenient {
        return Ok(());
    }
    let message = format!("the request names the record {named}, but what was sent is {sent}");
    let details = [("key", named.as_str().into()), ("sent", sent.as_str().into())];
    Err(ApiError::new(Problem::InvalidBody, message).details(details))
}
