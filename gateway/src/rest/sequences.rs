//! Sequences: the rules and counters of a module's numbers, shown and set; and one number taken
//! without a record. What is set or taken is logged, so that a gap can be explained.
//!
//! Promise: nothing of a rule that was sent is passed over, and what was set is seen by the next
//! reader on any node: it is a command of the module's own log.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use model::{
    Acceptance, Answer, Command, CommandId, CounterAt, IgnoredLeap, Object, Origin, Read,
    ReadLevel, Request, Reserve, RuleChange, RuleSource, SequenceRule, SequenceState, SetSequence,
    Value,
};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::publish::{text, user_of};
use crate::rest::extractors::{Body, IdempotencyKey, ModuleScope, NoParams, path_part};
use crate::rest::reply::{json, with_cursor};
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::scoped_store::{StoreCall, unexpected_answer};

/// Members of a request that say where the counter is, and who asks.
const COUNTER_MEMBERS: [&str; 3] = ["last", "next", "allowReuse"];
const ASKER_MEMBERS: [&str; 3] = ["reason", "requestedBy", "userId"];

pub(crate) fn routes() -> Routes {
    const ANSWER: &str = "{branchId: text, moduleId: text, table: text, field: text, \
                          value: int, id: text, rule: object}";
    const SEQUENCE: &str = "{branchId: text, moduleId: text, table: text, field: text, \
                            rule: object, source: text, last: int?, next: int?, \
                            nextId: text?, ignored: object?}";
    const RULE: &str = "{prefix?: text, suffix?: text, delimiter?: text, start?: int, \
                        increment?: int, padding?: int, padChar?: text, format?: text, \
                        pattern?: text, counterField?: text, description?: text, last?: int, \
                        next?: int, allowReuse?: flag, reason?: text, requestedBy?: text}";
    Routes::of("Records")
        .in_branches("/{branch}/modules/{module}/sequences")
        .get(
            list,
            op("The sequences, their rules and counters")
                .about(
                    "`source` is `request`, `definition`, `configuration` or `reservation`. \
                     `ignored` is a number among the records that is more than a million over the \
                     counter, and is not followed.",
                )
                .answers(200, "{branchId: text, moduleId: text, sequences: [object]}")
                .reads(),
        )
        .post(
            reserve,
            op("Take a number without a record")
                .about("A number that belongs to a record is taken with it: leave its field empty.")
                .body("{table: text, field: text, record?: Record, *: any}")
                .answers(200, ANSWER)
                .writes()
                .refuses(&[Problem::MissingTableOrField, Problem::SequenceFailed]),
        )
        .in_branches("/{branch}/modules/{module}/sequences/{table}/{field}")
        .put(
            set,
            op("Set a sequence's rule, its counter, or both")
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .about(
                    "The rule holds instead of the definition's. `last` is the last number taken, \
                     `next` the next one; a lower counter than the present needs `allowReuse`.",
                )
                .body(RULE)
                .answers(200, SEQUENCE)
                .writes()
                .refuses(&[Problem::InvalidSequence, Problem::TableNotFound])
                .refuses(&[Problem::WouldRepeat]),
        )
        .delete(
            remove,
            op("Let the definition's rule hold again")
                .calls(&[StoreCall::Submit, StoreCall::Read])
                .about(
                    "Removes the rule that a request set; the counter stays. The answer has the \
                     sequence as it is now, and none where nothing else gives the field a rule.",
                )
                .answers(200, "{branchId: text, moduleId: text, sequences: [object]}")
                .writes()
                .refuses(&[Problem::InvalidSequence, Problem::TableNotFound]),
        )
}

/// A sequence named in the path.
struct SequencePath {
    table: String,
    field: String,
}

impl FromRequestParts<App> for SequencePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let table = path_part(parts, app, "table").await?;
        Ok(Self { table, field: path_part(parts, app, "field").await? })
    }
}

impl SequencePath {
    /// Whether this is the sequence named, in any of the names of its table and field.
    fn is(&self, scope: &ModuleScope, state: &SequenceState) -> bool {
        let table = scope.schema().resolve(&self.table);
        let field = table.and_then(|table| table.field(&self.field));
        let field = field.map_or(&*self.field, |field| &*field.name);
        table.is_some_and(|table| state.table == table.name) && state.field == field
    }
}

/// Sequences as they are shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sequences<'a> {
    branch_id: &'a str,
    module_id: &'a str,
    sequences: Vec<SequenceView<'a>>,
}

/// One sequence as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SequenceView<'a> {
    table: &'a str,
    field: &'a str,
    rule: &'a Value,
    source: &'static str,
    last: Option<u64>,
    next: Option<u64>,
    next_id: Option<String>,
    ignored: Option<IgnoredNumber<'a>>,
}

/// A number that is not followed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IgnoredNumber<'a> {
    id: &'a str,
    counter: u64,
    at: String,
}

impl<'a> SequenceView<'a> {
    fn of(scope: &ModuleScope, state: &'a SequenceState) -> Self {
        let field = scope.schema().table(state.table.as_str());
        let field = field.and_then(|table| table.field(&state.field));
        let defined = field.and_then(|field| field.sequence.as_ref());
        let source = match state.source {
            RuleSource::Set => "request",
            RuleSource::Made => "reservation",
            RuleSource::Defined if defined.is_some_and(|own| own.source == state.rule.source) => {
                "definition"
            }
            RuleSource::Defined => "configuration",
        };
        let ignored = |leap: &'a IgnoredLeap| IgnoredNumber {
            id: &leap.text,
            counter: leap.counter,
            at: leap.at.to_iso(),
        };
        Self {
            table: state.table.as_str(),
            field: &state.field,
            rule: &state.rule.source,
            source,
            last: state.last,
            next: state.next,
            next_id: state.next.map(|next| state.rule.render(next)),
            ignored: state.ignored.as_ref().map(ignored),
        }
    }
}

async fn read(scope: &ModuleScope, level: ReadLevel) -> Result<Vec<SequenceState>, ApiError> {
    let answer = scope.store.read(scope.key.clone(), Read::Sequences, level).await?;
    let Answer::Sequences(states) = answer else { return Err(unexpected_answer(&answer)) };
    Ok(states)
}

async fn list(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
) -> Result<Response, ApiError> {
    let mut states = read(&scope, scope.level).await?;
    // The module's log takes a new definition with its next command: until then it is shown here.
    let defined = app.node().catalogue().definition(&scope.key);
    for (table, fields) in defined.into_iter().flat_map(|definition| definition.sequences) {
        for (field, rule) in fields {
            let known = states.iter_mut().find(|s| s.table == table && s.field == field);
            match known {
                // A rule that somebody set outlives every definition.
                Some(state) if state.source == RuleSource::Set || state.rule == rule => {}
                Some(state) => {
                    state.next = state.last.map(|last| last.saturating_add(rule.increment));
                    state.next = Some(state.next.unwrap_or(0).max(rule.start));
                    (state.rule, state.source) = (rule, RuleSource::Defined);
                }
                None => states.push(SequenceState {
                    table: table.clone(),
                    field,
                    source: RuleSource::Defined,
                    last: None,
                    next: Some(rule.start),
                    ignored: None,
                    rule,
                }),
            }
        }
    }
    states.sort_by(|a, b| (&a.table, &a.field).cmp(&(&b.table, &b.field)));
    let shape = Sequences {
        branch_id: scope.key.branch.as_str(),
        module_id: scope.key.module.as_str(),
        sequences: states.iter().map(|state| SequenceView::of(&scope, state)).collect(),
    };
    json(StatusCode::OK, &shape)
}

async fn set(
    State(app): State<App>,
    scope: ModuleScope,
    _: NoParams,
    path: SequencePath,
    IdempotencyKey(id): IdempotencyKey,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        branch_id: &'a str,
        module_id: &'a str,
        #[serde(flatten)]
        sequence: SequenceView<'a>,
    }
    let body = body.object()?;
    let mut set_sequence = set_sequence(&path, &body)?;
    // Worked out before it is submitted: a branch decides without the catalogue.
    let prefix = app.node().catalogue().sequences.prefix(&scope.key.branch);
    if let RuleChange::Set(rule) = set_sequence.rule {
        set_sequence.rule = RuleChange::Set(rule.for_branch(&prefix));
    }
    let accepted = command(&scope, id, user_of(&body, None), set_sequence).await?;
    // Read at the change's own offset: a replica that lags would show the rule of before.
    let states = read(&scope, accepted.level()).await?;
    let state = states.iter().find(|state| path.is(&scope, state)).ok_or_else(|| {
        tracing::error!("a sequence that was set is not there");
        ApiError::new(Problem::Defect, "the sequence was set, but is missing from the answer")
    })?;
    let shape = Shape {
        branch_id: scope.key.branch.as_str(),
        module_id: scope.key.module.as_str(),
        sequence: SequenceView::of(&scope, state),
    };
    Ok(accepted.mark(json(StatusCode::OK, &shape)?))
}

async fn remove(
    scope: ModuleScope,
    _: NoParams,
    path: SequencePath,
    IdempotencyKey(id): IdempotencyKey,
) -> Result<Response, ApiError> {
    let set_sequence = SetSequence {
        table: path.table.clone(),
        field: path.field.clone(),
        rule: RuleChange::Remove,
        counter: None,
        allow_reuse: false,
        reason: None,
        requested_by: None,
    };
    let accepted = command(&scope, id, None, set_sequence).await?;
    // At the change's own offset, as above.
    let states = read(&scope, accepted.level()).await?;
    let holds = states.iter().filter(|state| path.is(&scope, state));
    let shape = Sequences {
        branch_id: scope.key.branch.as_str(),
        module_id: scope.key.module.as_str(),
        sequences: holds.map(|state| SequenceView::of(&scope, state)).collect(),
    };
    Ok(accepted.mark(json(StatusCode::OK, &shape)?))
}

/// What became of a request that sets or removes.
struct AcceptedChange(Acceptance);

impl AcceptedChange {
    /// What a reader needs to see it.
    fn level(&self) -> ReadLevel {
        self.0.delta.last().map_or(ReadLevel::Linearizable, ReadLevel::Session)
    }

    fn mark(&self, response: Response) -> Response {
        match self.0.delta.last() {
            Some(reached) => with_cursor(response, self.0.delta.incarnation, reached),
            None => response,
        }
    }
}

async fn command(
    scope: &ModuleScope,
    id: CommandId,
    user: Option<String>,
    set_sequence: SetSequence,
) -> Result<AcceptedChange, ApiError> {
    let origin = Origin { source: Some("rest".to_owned()), user, ..Origin::default() };
    let request = Request::SetSequence(Box::new(set_sequence));
    let command = Command { id, key: scope.key.clone(), origin: Arc::new(origin), request };
    Ok(AcceptedChange(scope.store.commit(command).await?))
}

/// What a request asks of a sequence: a rule, a place of its counter, or both.
fn set_sequence(path: &SequencePath, body: &Object) -> Result<SetSequence, ApiError> {
    let wrong = |problem: String| {
        let (table, field) = (&path.table, &path.field);
        let message = format!("the sequence of {table}.{field}: {problem}");
        ApiError::new(Problem::InvalidSequence, message).details([
            ("table", table.as_str().into()),
            ("field", field.as_str().into()),
            ("problem", problem.into()),
        ])
    };
    let of_rule = |name: &str| !COUNTER_MEMBERS.contains(&name) && !ASKER_MEMBERS.contains(&name);
    let rule: Object = body
        .iter()
        .filter(|(name, _)| of_rule(name))
        .map(|(name, value)| (Arc::clone(name), value.clone()))
        .collect();
    let number = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let shown = value.to_json();
            let wrong = || wrong(format!("{name} is {shown}; it is a whole number from 0"));
            value.as_u64().map(Some).ok_or_else(wrong)
        }
    };
    let counter = match (number("last")?, number("next")?) {
        (Some(_), Some(_)) => {
            return Err(wrong("it has last and next; one of them is right".to_owned()));
        }
        (Some(last), None) => Some(CounterAt::Last(last)),
        (None, Some(next)) => Some(CounterAt::Next(next)),
        (None, None) => None,
    };
    if rule.is_empty() && counter.is_none() {
        let right = "send a rule, such as {\"prefix\": \"INV\", \"start\": 1000}, or where its \
                     counter is, as \"last\" or \"next\"";
        return Err(wrong(right.to_owned()));
    }
    let allow_reuse = match body.get("allowReuse") {
        None | Some(Value::Null) => false,
        Some(value) => value.as_bool().ok_or_else(|| {
            wrong(format!("allowReuse is {}; it is true or false", value.to_json()))
        })?,
    };
    let rule = if rule.is_empty() {
        RuleChange::Keep
    } else {
        let rule = SequenceRule::from_request(&Value::from(rule));
        RuleChange::Set(rule.map_err(|bad| wrong(bad.problem))?)
    };
    Ok(SetSequence {
        table: path.table.clone(),
        field: path.field.clone(),
        rule,
        counter,
        allow_reuse,
        reason: text(body, &["reason"]),
        requested_by: text(body, &["requestedBy", "userId"]),
    })
}

async fn reserve(
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
        table: &'a str,
        field: &'a str,
        value: u64,
        id: &'a str,
        rule: &'a Value,
    }
    let body = body.object()?;
    known_members::RESERVE.members(&body, scope.config.validation)?;
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
        key: scope.key.clone(),
        origin: Arc::new(origin),
        request: Request::Reserve(Reserve { table, field }),
    };
    // A number that is taken is never given back, also where this answer does not arrive: the key
    // gets it again.
    let accepted = scope.store.commit(command).await?;
    let reserved = accepted.reserved.ok_or_else(|| {
        tracing::error!("an accepted reservation came without its number");
        ApiError::new(Problem::Defect, "the number was taken, but is missing from the answer")
    })?;
    json(
        StatusCode::OK,
        &Shape {
            branch_id: scope.key.branch.as_str(),
            module_id: scope.key.module.as_str(),
            table: reserved.table.as_str(),
            field: &reserved.field,
            value: reserved.value,
            id: &reserved.text,
            rule: &reserved.rule.source,
        },
    )
}
