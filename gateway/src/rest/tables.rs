//! Tables: the records of one table, listed and changed one at a time.

mod record;

use std::sync::Arc;

use axum::extract::{self, FromRequest, FromRequestParts, State};
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use model::limits::VERSION_MAX;
use model::{
    Action, Answer, Command, CommandId, Incarnation, Object, Origin, Page, PageQuery, Read,
    RecordMutation, Request, RowPosition, Table, TableName, Timestamp, Transaction, Validation,
    Value, VersionRule,
};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members::{self, KnownMembers};
use crate::params::{Params, unreadable};
use crate::publish::{event_of, user_of};
use crate::render;
use crate::rest::decimals::Decimals;
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, path_part};
use crate::rest::reply::{json, json_bytes, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::unexpected_answer;
use crate::wire::{Ack, Members, Notice, RecordEvent, RecordRef, record_ref};

pub(crate) fn routes() -> Routes {
    const LIST: &str = "{branchId: text, moduleId: text, table: text, count: int, \
                        cursor: PageCursor?, rows: [Record], meta: {limit: int?, \
                        order: 'asc'|'desc', afterId: text?, afterKey: text?, \
                        afterCreatedAt: text?, updatedAfter: text?, cursorMatched?: flag}, \
                        warnings?: [text]}";
    const ONE: &str =
        "{branchId: text, moduleId: text, table: text, recordRef: RecordRef, record: Record}";
    const REFUSES: [Problem; 2] = [Problem::ModuleEventFailed, Problem::VersionConflict];
    let mut routes = Routes::of("Records");
    for end in ["", "/records"] {
        let listed = op("The records of a table")
            .query("limit", "int", "At most so many; 0 is all. Also `take`")
            .query("afterPosition", "text", "Those after this place: `cursor.position`")
            .query("afterKey", "text", "Those after the record of this key. Also `cursor`")
            .query("afterId", "text", "Those after the record of this id. Also `after`, `lastId`")
            .query("afterCreatedAt", "text", "Those created later. Also `since`")
            .query("updatedAfter", "text", "Those changed later")
            .query("order", "'asc'|'desc'", "Oldest or newest first; `after` is in it. Also `sort`")
            .answers(200, LIST)
            .reads()
            .shows_decimals();
        let writing = |summary| op(summary).body("Sent").writes().refuses(&REFUSES);
        let named = [Problem::RecordNotFound, Problem::MissingRecordKey];
        routes = routes
            .in_branches(&format!("/{{branch}}/modules/{{module}}/tables/{{table}}{end}"))
            .get(list, listed)
            .post(insert, writing("Insert a record").answers(201, "Changed"))
            .patch(
                merge,
                writing("Change the fields sent").answers(200, "Changed").refuses(&named[..1]),
            )
            .put(save, writing("Insert or change a record").answers(200, "Changed"))
            .delete(
                delete,
                writing("Remove a record")
                    .query("id", "text", "Which, where the body does not say")
                    .query("version", "int", "The version that was read: a strict module checks it")
                    .answers(200, "Deleted")
                    .refuses(&named),
            );
    }
    for end in ["", "/records"] {
        let path = format!("/{{branch}}/modules/{{module}}/tables/{{table}}{end}/{{key}}");
        let one = op("One record by its key")
            .about("The header `etag` is the record's version, where it has one.")
            .answers(200, ONE)
            .reads()
            .refuses(&[Problem::NoSuchRecord])
            .shows_decimals();
        let changing = |summary| {
            op(summary)
                .body("Sent")
                .query("version", "int", "The version that was read; `if-match` says the same")
                .writes()
                .refuses(&REFUSES)
                .refuses(&[Problem::RecordNotFound])
        };
        routes = routes
            .in_branches(&path)
            .get(record::read, one)
            .patch(
                record::merge,
                changing("Change the fields sent of one record").answers(200, "Changed"),
            )
            .delete(record::remove, changing("Remove one record").answers(200, "Deleted"))
            .in_branches(&format!("{path}/{{*deeper}}"))
            .nothing();
    }
    routes
}

/// A registered table of a module.
struct TableScope {
    scope: ModuleScope,
    table: Arc<Table>,
}

impl FromRequestParts<App> for TableScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let scope = ModuleScope::from_request_parts(parts, app).await?;
        let name = path_part(parts, app, "table").await?;
        let table = registered(&scope, &name)?;
        Ok(Self { scope, table })
    }
}

/// The table of exactly this name; the aliases of the socket are not taken here.
pub(crate) fn registered(scope: &ModuleScope, name: &str) -> Result<Arc<Table>, ApiError> {
    TableName::parse(name)?;
    scope.schema().table(name).cloned().ok_or_else(|| {
        let message = format!("Table {name:?} not registered in module {:?}", scope.key.module);
        ApiError::new(Problem::TableNotFound, message).details([("table", name.into())])
    })
}

async fn list(
    State(app): State<App>,
    TableScope { scope, table }: TableScope,
    decimals: Decimals,
    params: Params,
) -> Result<Response, ApiError> {
    let validation = scope.config.validation;
    let mut warnings = known_members::RECORDS.params(&params, validation)?;
    let query = page_query(&table, &params)?;
    warnings.extend(other_order(&params, validation)?);
    let read = Read::Page(query.clone());
    let answer = scope.store.read(scope.key.clone(), read, scope.level).await?;
    let Answer::Page(mut page) = answer else { return Err(unexpected_answer(&answer)) };
    decimals.rows(scope.schema(), table.name.as_str(), &mut page.rows);
    let (renderer, rows) = (app.renderer(&scope.store), page.rows.len() as u64);
    let write = move || {
        render::bytes(&PageAnswer {
            scope: &scope,
            query: &query,
            page: &page,
            warnings: &warnings,
        })
    };
    Ok(json_bytes(StatusCode::OK, renderer.rows(rows, write).await?))
}

fn page_query(table: &Table, params: &Params) -> Result<PageQuery, ApiError> {
    let text = |names: &[&str]| params.first(names).map(str::to_owned);
    Ok(PageQuery {
        table: table.name.to_string(),
        limit: params.number(&["limit", "take"])?.filter(|limit| *limit > 0),
        after_position: position_after(params)?,
        after_key: text(&["afterKey", "cursor"]),
        after_id: text(&["afterId", "after_id", "after", "lastId"]),
        created_after: params.time(known_members::CREATED_AFTER)?,
        updated_after: params.time(known_members::UPDATED_AFTER)?,
        descending: params.first(&["order", "sort"]).is_some_and(|order| {
            // Any other word is ascending, as it was for the clients that send one.
            order.eq_ignore_ascii_case("desc")
        }),
    })
}

/// `afterPosition`: where an earlier answer's `cursor.position` says it ended.
fn position_after(params: &Params) -> Result<Option<RowPosition>, ApiError> {
    const NAME: &str = "afterPosition";
    let Some(text) = params.first(&[NAME]) else { return Ok(None) };
    let position = text.split_once('.').and_then(|(incarnation, ordinal)| {
        let incarnation = Incarnation(incarnation.parse().ok()?);
        Some(RowPosition { incarnation, ordinal: ordinal.parse().ok()? })
    });
    let right = "the cursor.position of an earlier answer";
    position.map(Some).ok_or_else(|| unreadable(NAME, text, right))
}

/// A word for the order that is neither of the two: the clients that send one see what is stored.
fn other_order(params: &Params, validation: Validation) -> Result<Option<String>, ApiError> {
    let is_known =
        |word: &&str| ["asc", "desc"].iter().any(|known| word.eq_ignore_ascii_case(known));
    let Some(word) = params.first(&["order", "sort"]).filter(|word| !is_known(word)) else {
        return Ok(None);
    };
    let message = format!("order must be asc or desc, but was {word:?}");
    match validation {
        Validation::Lenient => Ok(Some(message)),
        Validation::Strict => Err(ApiError::new(Problem::InvalidParameter, message)
            .details([("parameter", "order".into())])),
    }
}

struct PageAnswer<'a> {
    scope: &'a ModuleScope,
    query: &'a PageQuery,
    page: &'a Page,
    warnings: &'a [String],
}

impl Serialize for PageAnswer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a, C, R> {
            branch_id: &'a str,
            module_id: &'a str,
            table: &'a str,
            count: usize,
            cursor: Option<C>,
            rows: R,
            meta: Meta<'a>,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            warnings: &'a [String],
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta<'a> {
            limit: Option<usize>,
            order: &'a str,
            after_id: Option<&'a str>,
            after_key: Option<&'a str>,
            after_created_at: Option<String>,
            updated_after: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor_matched: Option<bool>,
        }
        #[derive(Serialize)]
        struct Ended<'a> {
            #[serde(flatten)]
            row: RecordRef<'a>,
            position: String,
        }
        let Page { table, key_fields, rows, cursor, cursor_matched, translations } = self.page;
        let ended = rows.last().zip(cursor.as_ref()).map(|(row, cursor)| Ended {
            row: record_ref(table.as_str(), cursor.key.as_str(), key_fields, row),
            position: format!("{}.{}", cursor.position.incarnation, cursor.position.ordinal),
        });
        let translation = |n| translations.as_ref().and_then(|all| all.get(n));
        let key = &self.scope.key;
        Shape {
            branch_id: key.branch.as_str(),
            module_id: key.module.as_str(),
            table: table.as_str(),
            count: rows.len(),
            cursor: ended,
            rows: RowsWithTranslations(
                rows.iter().enumerate().map(|(n, row)| (row, translation(n))),
            ),
            meta: Meta {
                limit: self.query.limit,
                order: if self.query.descending { "desc" } else { "asc" },
                after_id: self.query.after_id.as_deref(),
                after_key: self.query.after_key.as_deref(),
                after_created_at: self.query.created_after.map(Timestamp::to_iso),
                updated_after: self.query.updated_after.map(Timestamp::to_iso),
                cursor_matched: *cursor_matched,
            },
            warnings: self.warnings,
        }
        .serialize(to)
    }
}

/// Rows, each with its translations as `i18n.lang` where it has some.
struct RowsWithTranslations<I>(I);

impl<'a, I> Serialize for RowsWithTranslations<I>
where
    I: Clone + Iterator<Item = (&'a Arc<Object>, Option<&'a Value>)>,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.clone().map(|(row, lang)| RowWithTranslation { row, lang }))
    }
}

struct RowWithTranslation<'a> {
    row: &'a Object,
    lang: Option<&'a Value>,
}

impl Serialize for RowWithTranslation<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Some(lang) = self.lang else { return self.row.serialize(to) };
        let mut map = to.serialize_map(Some(self.row.len() + 1))?;
        self.row.iter().try_for_each(|(name, value)| map.serialize_entry(&**name, value))?;
        map.serialize_entry("i18n", &Members([("lang", lang)]))?;
        map.end()
    }
}

/// A request that changes one record of a table.
struct RecordRequest {
    target: TableScope,
    key: IdempotencyKey,
    params: Params,
    headers: HeaderMap,
    body: Body,
}

impl FromRequest<App> for RecordRequest {
    type Rejection = ApiError;

    async fn from_request(request: extract::Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        // The table before the body: what is sent to a table that is not there is not read.
        let target = TableScope::from_request_parts(&mut parts, app).await?;
        let key = IdempotencyKey::from_request_parts(&mut parts, app).await?;
        let params = Params::from_request_parts(&mut parts, app).await?;
        let headers = parts.headers.clone();
        let request = extract::Request::from_parts(parts, body);
        let body = Body::from_request(request, app).await?;
        Ok(Self { target, key, params, headers, body })
    }
}

async fn insert(State(app): State<App>, request: RecordRequest) -> Result<Response, ApiError> {
    let RecordRequest { target, key, params, headers, body } = request;
    let sent = target.sent(body.object()?)?;
    known_members::INSERTING.params(&params, target.scope.config.validation)?;
    if if_match(&headers)?.is_some() {
        let message = "if-match names a stored version; an insert makes a record that is not there";
        return Err(ApiError::new(Problem::InvalidHeader, message));
    }
    change(&app, target, key, Action::Insert, sent).await
}

async fn merge(State(app): State<App>, request: RecordRequest) -> Result<Response, ApiError> {
    request.change(&app, Action::Merge, &known_members::WRITING, |_, _, _| Ok(())).await
}

async fn save(State(app): State<App>, request: RecordRequest) -> Result<Response, ApiError> {
    request.change(&app, Action::Save, &known_members::WRITING, |_, _, _| Ok(())).await
}

/// The record to delete is named by the body, else by a parameter that means the field `id`, or the
/// key where that is another.
async fn delete(State(app): State<App>, request: RecordRequest) -> Result<Response, ApiError> {
    let named = |target: &TableScope, params: &Params, record: &mut Object| match params.first(&[
        "id",
        "recordId",
        "record_id",
        "key",
    ]) {
        Some(id) => record::name(&target.table, id, record, target.scope.config.validation),
        None if record.is_empty() => {
            let message = "name the record in the body, or its id as ?id=";
            Err(ApiError::new(Problem::MissingRecordKey, message))
        }
        None => Ok(()),
    };
    request.change(&app, Action::Delete, &known_members::REMOVED, named).await
}

impl RecordRequest {
    /// Changes a stored record, whose version the request may name; `name` completes what was sent
    /// by what else names the record.
    async fn change(
        self,
        app: &App,
        action: Action,
        known: &KnownMembers,
        name: impl FnOnce(&TableScope, &Params, &mut Object) -> Result<(), ApiError>,
    ) -> Result<Response, ApiError> {
        let Self { target, key, params, headers, body } = self;
        let mut sent = target.sent(body.object()?)?;
        name(&target, &params, &mut sent.record)?;
        let sent = target.with_version(sent, action, known, &params, &headers)?;
        change(app, target, key, action, sent).await
    }
}

/// A record as sent: `{record, meta?}`, `{data, meta?}` or the bare record.
struct SentRecord {
    record: Object,
    meta: Option<Value>,
    user: Option<String>,
}

impl TableScope {
    /// Reads a record as sent.
    fn sent(&self, mut body: Object) -> Result<SentRecord, ApiError> {
        let Some(name) = self.wrapper(&body) else {
            return Ok(SentRecord { record: body, meta: None, user: None });
        };
        known_members::WRITTEN.members(&body, self.scope.config.validation)?;
        let record = match body.remove(name) {
            Some(Value::Object(record)) => record,
            Some(Value::Null) | None => Object::new(),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err(ApiError::new(Problem::InvalidBody, "record must be an object"));
            }
        };
        let meta = body.remove("meta").filter(|meta| !meta.is_null());
        let user = user_of(&body, meta.as_ref());
        Ok(SentRecord { record, meta, user })
    }

    /// The record with the version that `?version=` or `if-match` names beside it.
    fn with_version(
        &self,
        mut sent: SentRecord,
        action: Action,
        known: &KnownMembers,
        params: &Params,
        headers: &HeaderMap,
    ) -> Result<SentRecord, ApiError> {
        let (config, removes) = (&self.scope.config, action == Action::Delete);
        known.params(params, config.validation)?;
        // An empty one would be passed over, and the change made unchecked.
        if params.names().any(|name| name == "version") && params.first(&["version"]).is_none() {
            let message = "version must be the version that was read, but is empty";
            return Err(ApiError::new(Problem::InvalidParameter, message)
                .details([("parameter", "version".into())]));
        }
        let in_header = if_match(headers)?.map(|read| match config.version_rule {
            // Its clients say which version their change makes; a removal makes none.
            VersionRule::Next if !removes => read + 1,
            VersionRule::Next | VersionRule::Read => read,
        });
        let Some(version) =
            in_header.map(Value::from).or_else(|| Some(params.first(&["version"])?.into()))
        else {
            return Ok(sent);
        };
        if config.validation == Validation::Lenient && (removes || !self.table.versioned) {
            let message = "a version cannot be checked: a lenient module has versions in versioned \
                           tables only, and checks no removal";
            return Err(ApiError::new(Problem::InvalidParameter, message)
                .details([("parameter", "version".into())]));
        }
        // As texts: a version in the address has no type, and "3" and 3 mean the same.
        let own = sent.record.get("version").and_then(Value::key_text).map(str::to_owned);
        if own.is_some_and(|own| Some(&*own) != version.key_text()) {
            let message = "the record and the request name different versions; send one of them";
            return Err(ApiError::new(Problem::InvalidBody, message));
        }
        sent.record.insert("version", version);
        Ok(sent)
    }

    /// The member that holds the record; `None` where the body is the record. A table may have
    /// fields named so: they are meant where other fields of the table stand beside them, or where
    /// what they hold is no record.
    fn wrapper(&self, body: &Object) -> Option<&'static str> {
        let is_own = |name: &str| self.table.field(name).is_some();
        let beside = |name: &str| body.iter().any(|(other, _)| **other != *name && is_own(other));
        let is_object = |name: &str| body.get(name).is_some_and(|sent| sent.as_object().is_some());
        let wraps = |name: &str| !is_own(name) || (is_object(name) && !beside(name));
        if body.get("record").is_some() && wraps("record") {
            return Some("record");
        }
        (is_object("data") && wraps("data")).then_some("data")
    }
}

/// The version that `if-match` names, as an `etag` shows it; none for `*`, whatever it is.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(sent) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = sent.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')?.parse().ok());
    let wrong = || {
        let message = format!(
            "if-match must be the etag of a record, such as \"3\", and at most {VERSION_MAX}, not \
             {text}"
        );
        ApiError::new(Problem::InvalidHeader, message)
    };
    version.filter(|version| *version <= VERSION_MAX).map(Some).ok_or_else(wrong)
}

async fn change(
    app: &App,
    TableScope { scope, table }: TableScope,
    IdempotencyKey(id): IdempotencyKey,
    action: Action,
    sent: SentRecord,
) -> Result<Response, ApiError> {
    let origin = Origin {
        source: Some("rest-crud".to_owned()),
        client_meta: sent.meta,
        user: sent.user,
        include_record: action != Action::Delete,
        ..Origin::default()
    };
    let command = write(&scope, id, origin, mutation(&table, action, sent.record));
    let accepted = scope.store.commit(command).await?;
    let event = event_of(&accepted)?;
    let shown = RecordEvent::of(&app.server_id, &scope.key, event)?;
    let (status, word) = match action {
        Action::Insert => (StatusCode::CREATED, "created"),
        Action::Merge => (StatusCode::OK, "updated"),
        Action::Save if shown.created() => (StatusCode::OK, "created"),
        Action::Save => (StatusCode::OK, "saved"),
        Action::Delete => (StatusCode::OK, "deleted"),
    };
    let response = if action == Action::Delete {
        json(status, &DeleteAnswer::new(word, &scope, &table, &shown))?
    } else {
        json(status, &ChangeAnswer::new(word, &scope, &table, &shown))?
    };
    Ok(with_cursor(response, accepted.delta.incarnation, event.offset))
}

/// One mutation without conditions.
fn mutation(table: &Table, action: Action, record: Object) -> RecordMutation {
    RecordMutation::new(action, table.name.to_string(), record)
}

/// A command of one mutation.
pub(crate) fn write(
    scope: &ModuleScope,
    id: CommandId,
    origin: Origin,
    mutation: RecordMutation,
) -> Command {
    Command {
        id,
        key: scope.key.clone(),
        origin: Arc::new(origin),
        request: Request::Transaction(Transaction::of(vec![mutation])),
    }
}

/// The answer to insert, merge and save.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangeAnswer<'a, A, N> {
    status: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    table: &'a str,
    record: &'a Object,
    ack: A,
    notice: N,
}

impl<'a> ChangeAnswer<'a, Ack<'a>, Notice<'a>> {
    pub(crate) fn new(
        status: &'a str,
        scope: &'a ModuleScope,
        table: &'a Table,
        shown: &'a RecordEvent<'a>,
    ) -> Self {
        Self {
            status,
            branch_id: scope.key.branch.as_str(),
            module_id: scope.key.module.as_str(),
            table: table.name.as_str(),
            record: shown.record(),
            ack: shown.ack(),
            notice: shown.notice(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeleteAnswer<'a, R, N, A> {
    status: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    table: &'a str,
    record_ref: R,
    notice: N,
    ack: A,
}

impl<'a> DeleteAnswer<'a, RecordRef<'a>, Notice<'a>, Ack<'a>> {
    fn new(
        status: &'a str,
        scope: &'a ModuleScope,
        table: &'a Table,
        shown: &'a RecordEvent<'a>,
    ) -> Self {
        Self {
            status,
            branch_id: scope.key.branch.as_str(),
            module_id: scope.key.module.as_str(),
            table: table.name.as_str(),
            record_ref: shown.record_ref(),
            notice: shown.notice(),
            ack: shown.ack(),
        }
    }
}
