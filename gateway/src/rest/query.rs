//! Query: rows of one table that meet conditions; and what the original had besides, with the
//! place to go instead.

use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    Answer, BranchId, BranchKey, Field, FieldType, Filter, ModuleConfig, ModuleId, Object,
    Operator, OrderBy, Query, Read, Validation, Value,
};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::params::Params;
use crate::publish::{branch_name, text};
use crate::render;
use crate::rest::decimals::Decimals;
use crate::rest::extractors::{Body, ReadLevelHeader, branch_exists};
use crate::rest::reply::json_bytes;
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::ScopedStore;
use crate::scoped_store::unexpected_answer;

/// The language that is meant where none is named, as in the original.
const FALLBACK_LANG: &str = "ar";
const OPERATORS: [(Operator, &[&str]); 9] = [
    (Operator::Equal, &["=", "==", "eq"]),
    (Operator::NotEqual, &["!=", "<>", "ne"]),
    (Operator::Greater, &[">", "gt"]),
    (Operator::GreaterOrEqual, &[">=", "gte"]),
    (Operator::Less, &["<", "lt"]),
    (Operator::LessOrEqual, &["<=", "lte"]),
    (Operator::In, &["in"]),
    (Operator::NotIn, &["not in", "nin"]),
    (Operator::Like, &["like"]),
];

pub(crate) fn routes() -> Routes {
    const BODY: &str = "{branchId: text, moduleId: text, table: text, where?: any, orderBy?: any, \
                        limit?: int, offset?: int}";
    const ANSWER: &str = "{branchId: text, moduleId: text, table: text, count: int, \
                          rows: [Record], meta: object, warnings?: [text]}";
    let sql = || op("The original's SQL: not here").gone();
    Routes::of("Queries")
        .path("/api/query/module")
        .small()
        .post(
            query,
            op("Rows of one table that meet conditions")
                .body(BODY)
                .answers(200, ANSWER)
                .reads()
                .shows_decimals()
                .refuses(&[
                    Problem::MissingTable,
                    Problem::TableNotFound,
                    Problem::BranchNotFound,
                    Problem::ModuleNotFound,
                    Problem::InvalidName,
                    Problem::QueryTooLarge,
                ]),
        )
        .path("/api/query")
        .post(not_supported, sql())
        .path("/api/query/raw")
        .post(not_supported, sql())
        .path("/api/schema/database")
        .get(no_database, sql())
}

/// Reads any body, for the fuzzers.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_any(body: &Object) {
    let _ = read(body, "t".to_owned());
}

/// The original looked into its SQLite file here.
async fn not_supported() -> Result<(), ApiError> {
    let message = "there is no SQL here; use POST /api/query/module";
    Err(ApiError::new(Problem::NotSupported, message))
}

async fn no_database() -> Result<(), ApiError> {
    let message = "there is no SQL database here; use GET /api/schema";
    Err(ApiError::new(Problem::NotSupported, message))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueryAnswer<'a, R> {
    branch_id: &'a str,
    module_id: &'a str,
    table: &'a str,
    count: usize,
    rows: R,
    meta: QueryMeta,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueryMeta {
    /// Milliseconds.
    query_time: u64,
    limit: Option<usize>,
    offset: Option<usize>,
    lang: Option<String>,
    fallback_lang: String,
}

/// What of a query the answer repeats, and what its sender is warned of.
struct QueryEcho {
    meta: QueryMeta,
    warnings: Vec<String>,
}

async fn query(
    State(app): State<App>,
    store: ScopedStore,
    ReadLevelHeader(level): ReadLevelHeader,
    decimals: Decimals,
    params: Params,
    body: Body,
) -> Result<Response, ApiError> {
    let began = Instant::now();
    let body = body.object()?;
    let table = text(&body, known_members::TABLE)
        .ok_or_else(|| ApiError::new(Problem::MissingTable, "name the table as \"table\""))?;
    let named = |name: &str| text(&body, &[name]).ok_or_else(|| wrong(name, "given"));
    let branch = branch_name(&body, &["branchId"]).ok_or_else(|| wrong("branchId", "given"))?;
    let branch = BranchId::parse(&branch)?;
    let key = BranchKey::new(branch, ModuleId::parse(&named("moduleId")?)?);
    branch_exists(&app, &key.branch).await?;
    let (query, mut echo) = read(&body, table)?;
    // A module that this node has not heard of yet is not denied here: then only the read can say
    // what is unknown.
    if let Some(config) = app.node().catalogue().module(&key.module) {
        let said = known_members::QUERY_PARAMS.params(&params, config.validation)?;
        echo.warnings = unknown(&body, &query, config)?;
        echo.warnings.extend(said);
    }
    let answer = store.read(key.clone(), Read::Query(query), level).await?;
    let Answer::Query(mut page) = answer else { return Err(unexpected_answer(&answer)) };
    if let Some(config) = app.node().catalogue().module(&key.module) {
        decimals.rows(&config.schema, page.table.as_str(), &mut page.rows);
    }
    let rows = page.rows.len() as u64;
    let write = move || {
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        render::bytes(&QueryAnswer {
            branch_id: key.branch.as_str(),
            module_id: key.module.as_str(),
            table: page.table.as_str(),
            count: page.rows.len(),
            rows: &page.rows,
            meta: QueryMeta { query_time: took, ..echo.meta },
            warnings: echo.warnings,
        })
    };
    Ok(json_bytes(StatusCode::OK, app.renderer(&store).rows(rows, write).await?))
}

/// The query a body asks, and what of it the answer repeats.
fn read(body: &Object, table: String) -> Result<(Query, QueryEcho), ApiError> {
    let given = |names: &[&str]| names.iter().find_map(|name| body.get(name));
    let (limit, offset) = (number(body, "limit")?, number(body, "offset")?);
    let query = Query {
        table,
        key: None,
        filters: given(&["where", "filter"]).map_or(Ok(Vec::new()), filters)?,
        order_by: given(&["orderBy", "sortBy"]).map_or(Ok(Vec::new()), order_by)?,
        offset: offset.unwrap_or(0),
        limit,
        populate: false,
    };
    let meta = QueryMeta {
        query_time: 0,
        limit,
        offset,
        lang: text(body, &["lang"]),
        fallback_lang: text(body, &["fallbackLang"]).unwrap_or_else(|| FALLBACK_LANG.to_owned()),
    };
    Ok((query, QueryEcho { meta, warnings: Vec::new() }))
}

/// What a query says that nothing knows: members, fields its table does not have, and values that
/// cannot be of their type. A strict module refuses the first of them, a lenient one warns of all.
fn unknown(body: &Object, query: &Query, config: &ModuleConfig) -> Result<Vec<String>, ApiError> {
    let validation = config.validation;
    let mut warnings = known_members::QUERY.members(body, validation)?;
    let given = |names: &[&str]| names.iter().find_map(|name| body.get(name));
    for value in each_condition(given(&["where", "filter"])) {
        if let Some(condition) = value.as_object().filter(|of| of.get("operator").is_some()) {
            warnings.extend(known_members::CONDITION.members(condition, validation)?);
        }
    }
    if let Some(by) = given(&["orderBy", "sortBy"]) {
        let one = std::slice::from_ref(by);
        for by in by.as_array().unwrap_or(one).iter().filter_map(Value::as_object) {
            warnings.extend(known_members::ORDER_BY.members(by, validation)?);
        }
    }
    // Which table is missing is said by whoever looks for it.
    let Some(table) = config.schema.resolve(&query.table) else { return Ok(warnings) };
    let fields = query.filters.iter().map(|filter| (&filter.field, Some(filter)));
    let fields = fields.chain(query.order_by.iter().map(|by| (&by.field, None)));
    for (name, filter) in fields {
        let field = table.field(name);
        let message = match (field, filter) {
            (None, _) if name != "version" => {
                let known: Vec<&str> = table.fields.iter().map(|field| &*field.name).collect();
                let (table, known) = (&table.name, known.join(", "));
                format!("{name:?} is no field of table \"{table}\"; known are {known}")
            }
            // Only a condition of another form is meant by an object: it could equal nothing.
            (Some(field), Some(Filter { operator: Operator::Equal, value, .. }))
                if is_unknown_form(field, value) =>
            {
                let shown = value.to_json();
                format!(
                    "the condition {shown} on {name:?} is not known; known is {{operator, value}}"
                )
            }
            (_, Some(filter)) => match filter.misread(table, validation) {
                Some(message) => message,
                None => continue,
            },
            _ => continue,
        };
        match validation {
            Validation::Lenient => warnings.push(message),
            Validation::Strict => {
                let refused = ApiError::new(Problem::InvalidBody, message);
                return Err(refused.details([("field", name.as_str().into())]));
            }
        }
    }
    Ok(warnings)
}

/// Whether a condition is an object that no value of the field can be: neither JSON nor a record
/// that a reference stands for.
fn is_unknown_form(field: &Field, value: &Value) -> bool {
    let is_record = field.references.is_some() && value.get("id").is_some();
    field.kind != FieldType::Json && value.as_object().is_some() && !is_record
}

/// The conditions of a query, one by one.
fn each_condition(conditions: Option<&Value>) -> Vec<&Value> {
    match conditions {
        Some(Value::Object(fields)) => fields.iter().map(|(_, value)| value).collect(),
        Some(Value::Array(items)) => {
            items.iter().flat_map(|item| each_condition(Some(item))).collect()
        }
        _ => Vec::new(),
    }
}

fn number(body: &Object, name: &str) -> Result<Option<usize>, ApiError> {
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.map(Some).ok_or_else(|| wrong(name, "a whole number from 0"))
}

/// `{field: value | {operator, value}}`, or a list of such.
fn filters(value: &Value) -> Result<Vec<Filter>, ApiError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(fields) => fields.iter().map(|(field, value)| filter(field, value)).collect(),
        Value::Array(items) => {
            let each = items.iter().map(|item| match item {
                Value::Object(_) => filters(item),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => Err(wrong_where()),
            });
            each.collect::<Result<Vec<_>, _>>().map(|filters| filters.concat())
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(wrong_where()),
    }
}

fn wrong_where() -> ApiError {
    wrong("where", "an object {field: value | {operator, value}}, or an array of such")
}

fn filter(field: &str, value: &Value) -> Result<Filter, ApiError> {
    let field = field.to_owned();
    let Some(word) = value.get("operator") else {
        return Ok(Filter { field, operator: Operator::Equal, value: value.clone() });
    };
    let word = word.as_str().unwrap_or_default().trim().to_lowercase();
    let known = OPERATORS.iter().find(|(_, words)| words.contains(&word.as_str()));
    let (operator, _) = known.ok_or_else(|| {
        let words: Vec<&str> = OPERATORS.iter().map(|(_, words)| words[0]).collect();
        wrong("operator", &format!("one of {}", words.join(", ")))
    })?;
    let value = value.get("value").cloned().unwrap_or_default();
    if matches!(operator, Operator::In | Operator::NotIn) && value.as_array().is_none() {
        return Err(wrong("value", "an array for in and not in"));
    }
    Ok(Filter { field, operator: *operator, value })
}

/// `"f"`, `["f", "desc"]`, `{field, direction}` or a list of such.
fn order_by(value: &Value) -> Result<Vec<OrderBy>, ApiError> {
    let direction = |word: &Value| word.as_str().and_then(direction);
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => match items.as_slice() {
            // A pair is one rule only where its second part is a direction; else it is two fields.
            [Value::String(field), word] if direction(word).is_some() => {
                Ok(vec![by(field, direction(word))])
            }
            _ => {
                let each = items.iter().map(one_order);
                each.collect()
            }
        },
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            one_order(value).map(|one| vec![one])
        }
    }
}

fn one_order(value: &Value) -> Result<OrderBy, ApiError> {
    let wrong_order =
        || wrong("orderBy", r#""field", ["field", "desc"], or an array of {field, direction}"#);
    if let Some(field) = value.as_str() {
        return Ok(by(field, None));
    }
    let fields = value.as_object().ok_or_else(wrong_order)?;
    let field = fields.get("field").and_then(Value::as_str).ok_or_else(wrong_order)?;
    match text(fields, &["direction", "dir"]) {
        None => Ok(by(field, None)),
        Some(word) => direction(&word).map(|way| by(field, Some(way))).ok_or_else(wrong_order),
    }
}

fn by(field: &str, descending: Option<bool>) -> OrderBy {
    OrderBy { field: field.to_owned(), descending: descending.unwrap_or(false) }
}

/// Whether a word means largest first.
fn direction(word: &str) -> Option<bool> {
    match word.to_lowercase().as_str() {
        "asc" => Some(false),
        "desc" => Some(true),
        _ => None,
    }
}

fn wrong(name: &str, right: &str) -> ApiError {
    ApiError::new(Problem::InvalidBody, format!("{name} must be {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(json: &str) -> Result<Query, ApiError> {
        let body = Value::from_json(json.as_bytes()).unwrap();
        read(body.as_object().unwrap(), "t".to_owned()).map(|(query, _)| query)
    }

    #[test]
    fn conditions_are_read_in_every_form() {
        let shown = |json: &str| {
            let one = |filter: Filter| {
                format!("{} {:?} {}", filter.field, filter.operator, filter.value.to_json())
            };
            ask(json).unwrap().filters.into_iter().map(one).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(shown(r#"{"where":{"a":1,"b":null}}"#), "a Equal 1; b Equal null");
        assert_eq!(
            shown(
                r#"{"filter":[{"a":{"operator":"NOT IN","value":[1]}},{"a":{"operator":"<>"}}]}"#
            ),
            "a NotIn [1]; a NotEqual null"
        );
        assert_eq!(shown(r#"{"where":{"a":{"x":1}}}"#), r#"a Equal {"x":1}"#);
        for (_, words) in OPERATORS {
            for word in words {
                let json = format!(r#"{{"where":{{"a":{{"operator":"{word}","value":[]}}}}}}"#);
                assert_eq!(ask(&json).unwrap().filters.len(), 1, "{word}");
            }
        }
    }

    #[test]
    fn an_order_is_read_in_every_form() {
        let shown = |json: &str| {
            let one = |by: OrderBy| format!("{}{}", by.field, if by.descending { "-" } else { "" });
            let json = format!(r#"{{"orderBy":{json}}}"#);
            ask(&json).unwrap().order_by.into_iter().map(one).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(r#""a""#), "a");
        assert_eq!(shown(r#"["a","DESC"]"#), "a-");
        assert_eq!(shown(r#"["a","b"]"#), "a b");
        assert_eq!(shown(r#"[{"field":"a","dir":"desc"},{"field":"b"}]"#), "a- b");
        assert_eq!(shown(r#"{"field":"a","direction":"asc"}"#), "a");
        assert_eq!(shown("null"), "");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            r#"{"where":5}"#,
            r#"{"where":["a"]}"#,
            r#"{"where":{"a":{"operator":"between","value":1}}}"#,
            r#"{"where":{"a":{"operator":"in","value":1}}}"#,
            r#"{"orderBy":5}"#,
            r#"{"orderBy":[{"dir":"asc"}]}"#,
            r#"{"orderBy":{"field":"a","dir":"up"}}"#,
            r#"{"limit":-1}"#,
            r#"{"offset":"x"}"#,
        ] {
            assert_eq!(ask(bad).unwrap_err().problem(), Problem::InvalidBody, "{bad}");
        }
    }
}
