//! Error: the only table from a refusal to its status, and, but for a topic's, to its code.
//!
//! Every refusal, of a request's shape, of the branch, of the way there, becomes a [`Problem`],
//! and the problem alone says status, code and title. The body keeps the original's members
//! `error`, `message`, `details` and adds those of RFC 9457.

use std::fmt::Write as _;
use std::time::Duration;

use actors::{ChangeError, MemoryFull, RouteError};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::{BadJson, BadName, CatalogueError, Object, Reject, Value};

macro_rules! problems {
    ($($name:ident $status:literal $code:literal $title:literal;)*) => {
        /// Everything that can be wrong, as a client sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Problem {
            $(#[doc = $title] $name,)*
        }

        impl Problem {
            /// All of them, by status.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn row(self) -> (u16, &'static str, &'static str) {
                match self {
                    $(Self::$name => ($status, $code, $title),)*
                }
            }
        }
    };
}

problems! {
    InvalidJson 400 "invalid-json" "The body is not JSON that is read";
    InvalidBody 400 "invalid-body" "The body, or a member of it, has the wrong type";
    InvalidName 400 "invalid-name" "A branch, module or table is named outside the rules";
    InvalidEncoding 400 "invalid-encoding" "The path or query is not properly percent-encoded";
    QueryTooLarge 400 "query-too-large" "A query asks for more than one query may";
    InvalidParameter 400 "invalid-parameter" "A query parameter cannot be read";
    InvalidHeader 400 "invalid-header" "A header cannot be read";
    InvalidUpgrade 400 "invalid-upgrade" "The request to become a WebSocket is not complete";
    InvalidRequestId 400 "invalid-request-id" "A request id is too long";
    UnknownMessage 400 "unknown-message-type" "A frame's type is none that is known";
    HelloRequired 400 "hello-required" "A frame came that must follow client:hello";
    MissingModule 400 "missing-module-id" "No module is named";
    MissingTableName 400 "missing-table-name" "The body names no table";
    MissingRecord 400 "missing-record" "The body has no record";
    MissingRecordKey 400 "missing-record-key" "A delete names no record";
    MissingTableOrField 400 "missing-table-or-field" "A sequence is named by table and field";
    MissingTable 400 "missing-table" "A query names no table";
    MissingOrder 400 "missing-order-payload" "The body has no order";
    MissingLastAckId 400 "missing-last-ack-id" "A batch of events must say after which event";
    InvalidLastAckId 400 "invalid-last-ack-id" "lastAckId must be an event's id or null";
    InvalidEventPayload 400 "invalid-event-payload" "An event of a batch has the wrong type";
    UnsupportedEventAction 400 "unsupported-event-action" "A batch of events only inserts";
    NoTables 400 "no-tables-resolved" "No table is named to be emptied";
    MissingEntryId 400 "missing-entry-id" "The request names no entry of the history";
    ModuleEventFailed 400 "module-event-failed" "The branch refused the change";
    InvalidSequence 400 "invalid-sequence" "A sequence cannot have this rule or counter";
    SequenceFailed 400 "sequence-allocation-failed" "No number can be taken";
    MissingBranch 400 "missing-branch-id" "The request names no branch";
    MissingSchema 400 "missing-schema" "The body has no definition";
    ModuleNotRegistered 400 "module-not-registered" "The module that a branch is to have does not exist";
    InvalidDefinition 400 "invalid-definition" "The definition of a module cannot be taken";
    InvalidSchemaPath 400 "invalid-schema-fallback-path" "The path leads out of data/";
    InvalidPath 400 "invalid-path" "A stored definition is named outside the rules";
    OriginNotAllowed 403 "origin-not-allowed" "A page of a foreign origin may not change anything here";
    HostNotAllowed 403 "host-not-allowed" "This node is not reached under this host name";
    NotFound 404 "not-found" "There is nothing under this path";
    PathNotFound 404 "path-not-found" "The module's snapshot has no such member";
    BranchNotFound 404 "branch-not-found" "There is no such branch";
    ModuleNotFound 404 "module-not-found" "The branch has no such module";
    TableNotFound 404 "table-not-found" "The module has no such table";
    RecordNotFound 404 "module-event-failed" "The record to change does not exist";
    NoSuchRecord 404 "record-not-found" "There is no record of this key";
    OrderNotFound 404 "order-not-found" "There is no such order";
    NotSupported 404 "not-supported" "The original has it under this path; this server does not";
    SchemaNotFound 404 "schema-not-found" "No definition is stored under this name";
    HistoryRestoreFailed 404 "history-restore-failed" "There is no such entry to bring back";
    HistoryEntryNotFound 404 "history-entry-not-found" "There is no such entry in the history";
    ModulesNotFound 404 "modules-not-found" "The branch has none of these modules";
    ManagementNotFound 404 "management-endpoint-not-found" "Nothing is managed under this path";
    MethodNotAllowed 405 "method-not-allowed" "The path does not take this method";
    RequestTimeout 408 "request-timeout" "The body took too long to arrive";
    VersionConflict 409 "version-conflict" "The record was changed by someone else";
    OrderVersionConflict 409 "order-version-conflict" "The order was changed by someone else";
    DuplicateKey 409 "duplicate-key" "A record with this key exists";
    PartOfAnother 409 "part-of-another-record" "A part that was sent belongs to another record";
    DuplicatePart 409 "duplicate-part" "Two parts were sent under one key";
    WouldRepeat 409 "sequence-would-repeat" "A lower counter would give numbers a second time";
    LastAckMismatch 409 "last-ack-mismatch" "The log has gone on since the event named as the last";
    InsertOnly 409 "insert-only-violation" "The tables sent cannot replace those that are there";
    FullSyncRequired 409 "full-sync-required" "The client's picture is too old: take a snapshot";
    ConcurrencyConflict 409 "concurrency-conflict" "A condition of the save does not hold";
    RecordsDoNotFit 409 "records-do-not-fit" "Stored records do not satisfy the definition";
    LevelTooLow 409 "level-too-low" "The build of a node does not know this level: upgrade it first";
    ModuleExists 409 "module-exists" "There is a module of this id";
    BranchExists 409 "branch-exists" "There is a branch of this id";
    SnapshotSuperseded 409 "snapshot-superseded" "A later request of the socket took this snapshot's place";
    CatalogueFull 409 "catalogue-full" "There is no room for more of these";
    EventsGone 410 "events-gone" "These events are no longer held: take a snapshot";
    BodyTooLarge 413 "body-too-large" "The body is too large";
    SnapshotTooLarge 413 "snapshot-too-large" "The snapshot is larger than this node sends: read it in pages";
    UriTooLong 414 "uri-too-long" "The path and query are too long";
    OrderRefused 422 "order-persist-failed" "The order cannot be saved as it is";
    KeyReused 422 "idempotency-key-reused" "The same id came with another request";
    Busy 429 "busy" "Too many requests wait; nothing was done";
    BranchQuota 429 "too-many-new-branches" "The branch does not exist, and this address has made as many as it may";
    DedupFull 429 "outcomes-full" "The module remembers as many outcomes as it may";
    HeadersTooLarge 431 "headers-too-large" "The headers are too large";
    Defect 500 "defect" "A defect of the store; nothing was changed by this request";
    NotReady 503 "not-ready" "This node does not serve now";
    MemoryFull 503 "memory-full" "This node holds as much memory of this kind as it may; nothing was done";
    Unavailable 503 "unavailable" "Nobody can take it now; nothing was done";
    ReadTimeout 503 "read-timeout" "The read took too long and was ended";
    TooManySockets 503 "too-many-sockets" "This node or address holds as many sockets as it may";
    TooManyConnections 503 "too-many-connections" "This node or address has as many connections as it may";
    OutcomeUnknown 504 "outcome-unknown" "It may or may not have happened: retry with the same id";
}

impl Problem {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().0).expect("the table holds valid statuses")
    }

    /// The public code: stable, kebab-case, JSON `error`.
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// What it means, in a few words.
    pub fn title(self) -> &'static str {
        self.row().2
    }
}

/// The table of problems as docs/protocol.md shows it.
pub fn markdown() -> String {
    let mut table = String::from("| Status | `error` | Meaning |\n|---|---|---|\n");
    for problem in Problem::ALL {
        let (status, code, title) = problem.row();
        writeln!(table, "| {status} | `{code}` | {title} |").expect("a String takes all");
    }
    table
}

/// A problem with its particulars.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    problem: Problem,
    message: String,
    members: Object,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// A problem in these words.
    pub fn new(problem: Problem, message: impl Into<String>) -> Self {
        Self { problem, message: message.into(), members: Object::new(), retry_after: None }
    }

    /// With one more member of the body, in the order they are added.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.insert(name, value.into());
        self
    }

    /// With these `details`.
    #[must_use]
    pub fn details<const N: usize>(self, details: [(&'static str, Value); N]) -> Self {
        self.with("details", details.into_iter().collect::<Object>())
    }

    /// The same particulars under another problem, where an endpoint has a code of its own.
    #[must_use]
    pub(crate) fn with_problem(mut self, problem: Problem) -> Self {
        self.problem = problem;
        self
    }

    #[must_use]
    pub(crate) fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.details([("retryAfterMs", millis.into())])
    }

    /// Whether the body has this member besides those of every error.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some()
    }

    /// Which mutation of several it is about.
    pub(crate) fn index(&self) -> Option<u64> {
        self.members.get("index").and_then(Value::as_u64)
    }

    /// What is wrong.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// In words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How many seconds to wait before a retry, for the header.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_millis().div_ceil(1000).max(1) as u64)
    }

    /// The most telling code: the branch's own where there is one, as frames show it.
    pub(crate) fn code(&self) -> &str {
        let own = self.members.get("details").and_then(|details| details.get("code"));
        own.and_then(Value::as_str).unwrap_or_else(|| self.problem.code())
    }

    /// The `details`, empty where there are none.
    pub(crate) fn shown_details(&self) -> Object {
        self.members.get("details").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// The body of the answer. `instance` is the path asked.
    pub(crate) fn body(&self, instance: &str) -> Object {
        let mut body = Object::new();
        body.insert("error", self.problem.code().into());
        body.insert("message", self.message.as_str().into());
        for (name, value) in self.members.iter() {
            body.insert(name.clone(), value.clone());
        }
        if body.get("details").is_none() {
            body.insert("details", Object::new().into());
        }
        body.insert("type", format!("urn:mishkah:error:{}", self.problem.code()).into());
        body.insert("title", self.problem.title().into());
        body.insert("status", u64::from(self.problem.row().0).into());
        body.insert("detail", self.message.as_str().into());
        body.insert("instance", instance.into());
        body
    }
}

impl IntoResponse for ApiError {
    /// The status, and the error itself for `rest/middleware` to write the body of.
    fn into_response(self) -> Response {
        let mut response = self.problem.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<BadJson> for ApiError {
    fn from(bad: BadJson) -> Self {
        let number = |n: usize| Value::from(u64::try_from(n).unwrap_or(u64::MAX));
        Self::new(Problem::InvalidJson, bad.to_string()).details([
            ("path", bad.path.into()),
            ("line", number(bad.line)),
            ("column", number(bad.column)),
            ("byte", number(bad.byte)),
        ])
    }
}

impl From<BadName> for ApiError {
    fn from(bad: BadName) -> Self {
        Self::new(Problem::InvalidName, bad.to_string()).details([
            ("kind", bad.kind.into()),
            ("given", bad.given.into()),
            ("rule", bad.rule.into()),
        ])
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let message = error.to_string();
        match error {
            RouteError::UnknownModule(module) => {
                Self::new(Problem::ModuleNotFound, message).details([("moduleId", module.into())])
            }
            RouteError::UnknownBranch(branch) => {
                Self::new(Problem::BranchNotFound, message).with("branchId", branch)
            }
            RouteError::Rejected(reject) => reject.into(),
            RouteError::Busy { retry_after, .. } | RouteError::TopicsFull { retry_after, .. } => {
                Self::new(Problem::Busy, message).retry(retry_after)
            }
            RouteError::Unavailable { retry_after, .. } => {
                Self::new(Problem::Unavailable, message).retry(retry_after)
            }
            RouteError::MemoryFull(full) => full.into(),
            RouteError::BranchQuota(reached) => {
                Self::new(Problem::BranchQuota, message).retry(reached.retry_after)
            }
            RouteError::Indeterminate => {
                Self::new(Problem::OutcomeUnknown, message).details([("outcome", "unknown".into())])
            }
        }
    }
}

impl From<MemoryFull> for ApiError {
    fn from(full: MemoryFull) -> Self {
        let after = full.retry_after();
        Self::new(Problem::MemoryFull, full.to_string()).retry(after).details([
            ("class", full.class.name().into()),
            ("held", full.held.into()),
            ("share", full.share.into()),
            ("retryAfterMs", u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into()),
        ])
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let message = error.to_string();
        let new = |problem| Self::new(problem, message.clone());
        match error {
            ChangeError::Refused(CatalogueError::ModuleExists(id)) => {
                new(Problem::ModuleExists).with("moduleId", id.as_str())
            }
            ChangeError::Refused(CatalogueError::BranchExists(id)) => {
                new(Problem::BranchExists).with("branchId", id.as_str())
            }
            ChangeError::Refused(CatalogueError::NoModule(id)) => {
                new(Problem::ModuleNotFound).with("moduleId", id.as_str())
            }
            ChangeError::Refused(CatalogueError::LevelTooLow { node, level }) => {
                let details = [("node", node.0.into()), ("level", u64::from(level).into())];
                new(Problem::LevelTooLow).details(details)
            }
            ChangeError::Refused(CatalogueError::Full { max, .. }) => {
                new(Problem::CatalogueFull).details([("max", u64::from(max).into())])
            }
            ChangeError::Refused(CatalogueError::TooManyBytes { kind, .. }) => {
                let details = [("kind", kind.name().into()), ("bytesMax", kind.bytes_max().into())];
                new(Problem::CatalogueFull).details(details)
            }
            ChangeError::Refused(CatalogueError::UnknownModule(id)) => {
                new(Problem::ModuleNotFound).with("moduleId", id.as_str())
            }
            ChangeError::Refused(
                CatalogueError::AlreadyFormed(_)
                | CatalogueError::NotFormed
                | CatalogueError::OtherData(_),
            ) => new(Problem::Unavailable).retry(Duration::from_secs(1)),
            ChangeError::Undecided(_) => {
                new(Problem::OutcomeUnknown).details([("outcome", "unknown".into())])
            }
        }
    }
}

impl From<Reject> for ApiError {
    fn from(reject: Reject) -> Self {
        let (code, message) = (Value::from(reject.code()), reject.to_string());
        let new = |problem| Self::new(problem, message.clone());
        let failed = || new(Problem::ModuleEventFailed);
        match reject {
            Reject::VersionConflict { table, key, expected, current, .. } => {
                new(Problem::VersionConflict).details([
                    ("table", table.into()),
                    ("key", key_text(&key)),
                    ("expectedVersion", expected.into()),
                    ("currentVersion", current.into()),
                ])
            }
            Reject::NotFound { table, key } => new(Problem::RecordNotFound).details([
                ("code", code),
                ("table", table.into()),
                ("key", key_text(&key)),
            ]),
            Reject::DuplicateKey { table, key } => new(Problem::DuplicateKey)
                .details([("table", table.into()), ("key", key_text(&key))]),
            Reject::PartOfAnother { .. }
            | Reject::DuplicatePart { .. }
            | Reject::BadVersion { .. }
            | Reject::Invalid { .. }
            | Reject::KeyTooLong { .. }
            | Reject::BadSequence { .. }
            | Reject::WouldRepeat { .. } => special(reject, &message),
            Reject::UnknownTable { table, .. } => {
                new(Problem::TableNotFound).details([("table", table.into())])
            }
            Reject::AtMutation { index, reject } => {
                Self::from(*reject).with("index", u64::from(index))
            }
            Reject::LastEvent { expected, received } => {
                new(Problem::LastAckMismatch).with("expected", expected).with("received", received)
            }
            Reject::Procedure { code, details, .. } => procedure(&message, &code, details),
            Reject::Replace { reason, details } => replacement(&message, reason, details),
            Reject::NoHistory { entry } => {
                new(Problem::HistoryRestoreFailed).with("entryId", entry)
            }
            Reject::KeyReused => new(Problem::KeyReused),
            Reject::Earlier { code } => earlier(&message, &code),
            Reject::DedupFull { max_bytes, retry_after_ms } => new(Problem::DedupFull)
                .retry(Duration::from_millis(retry_after_ms))
                .details([("maxBytes", max_bytes.into()), ("retryAfterMs", retry_after_ms.into())]),
            Reject::QueryTooLarge { .. } => new(Problem::QueryTooLarge),
            Reject::ReadTimeout { .. } => new(Problem::ReadTimeout).retry(Duration::from_secs(1)),
            // The caller has nothing to mend: the definition is on its way into the branch.
            Reject::Undefined => new(Problem::Unavailable).retry(Duration::from_secs(1)),
            Reject::Sequence { .. } => new(Problem::SequenceFailed),
            Reject::Defect => new(Problem::Defect),
            Reject::Precondition { details, .. } => precondition(&message, code, details),
            Reject::MissingKey { table, field }
            | Reject::MissingField { table, field }
            | Reject::ForeignKey { table, field, .. } => {
                failed().details([("code", code), ("table", table.into()), ("field", field.into())])
            }
            Reject::NotUnique { table, fields, key, .. } => failed().details([
                ("code", code),
                ("table", table.into()),
                ("fields", fields.into()),
                ("key", key_text(&key)),
            ]),
            Reject::BadDefinition { code, .. } => bad_definition(&message, &code),
            Reject::MissingTable | Reject::BadCommand { .. } | Reject::UnknownProcedure { .. } => {
                failed().details([("code", code)])
            }
        }
    }
}

fn key_text(key: &model::RecordKey) -> Value {
    Value::from(key.as_str())
}

/// What a stored procedure refuses.
fn procedure(message: &str, code: &str, details: Object) -> ApiError {
    match code {
        "order-persist-failed" => ApiError::new(Problem::OrderRefused, message),
        _ => precondition(message, code.into(), details),
    }
}

/// A definition that cannot be, or one that stored records do not satisfy.
fn bad_definition(message: &str, code: &str) -> ApiError {
    let problem = match code {
        "records-do-not-fit" => Problem::RecordsDoNotFit,
        _ => Problem::ModuleEventFailed,
    };
    ApiError::new(problem, message).details([("code", code.into())])
}

/// A refusal of which only the code is still known.
fn earlier(message: &str, code: &str) -> ApiError {
    let problem = match code {
        "version-conflict" => Problem::VersionConflict,
        "record-not-found" => Problem::RecordNotFound,
        "duplicate-key" => Problem::DuplicateKey,
        "table-not-found" => Problem::TableNotFound,
        "last-ack-mismatch" => Problem::LastAckMismatch,
        "part-of-another-record" => Problem::PartOfAnother,
        "records-do-not-fit" => Problem::RecordsDoNotFit,
        "duplicate-part" => Problem::DuplicatePart,
        "sequence-would-repeat" => Problem::WouldRepeat,
        "invalid-sequence" => Problem::InvalidSequence,
        "order-persist-failed" => Problem::OrderRefused,
        "insert-only-violation" => Problem::InsertOnly,
        "history-entry-not-found" => Problem::HistoryRestoreFailed,
        "sequence-allocation-failed" => Problem::SequenceFailed,
        "snapshot-mismatch" | "stale-cursor" => Problem::FullSyncRequired,
        "payment-state-conflict"
        | "payment-state-rejected"
        | "payment-state-not-allowed"
        | "concurrent-update" => Problem::ConcurrencyConflict,
        "defect" => Problem::Defect,
        // Also the code of a condition that is not listed: only the code is left, and nothing says
        // what it was the code of.
        _ => Problem::ModuleEventFailed,
    };
    ApiError::new(problem, message).details([("code", code.into())])
}

/// A part that cannot be saved with its record, a field, key or version that breaks its rule, or a
/// sequence that cannot be set.
fn special(reject: Reject, message: &str) -> ApiError {
    let new = |problem, details: Vec<(&'static str, Value)>| {
        let details: Object = details.into_iter().collect();
        ApiError::new(problem, message).with("details", details)
    };
    if let Reject::PartOfAnother { table, key, parent, holder } = reject {
        let key = Value::from(key.as_str());
        return new(
            Problem::PartOfAnother,
            vec![
                ("table", table.into()),
                ("key", key),
                ("holder", holder.into()),
                ("holderTable", parent.into()),
            ],
        );
    }
    if let Reject::DuplicatePart { table, key } = reject {
        let key = Value::from(key.as_str());
        return new(Problem::DuplicatePart, vec![("table", table.into()), ("key", key)]);
    }
    if let Reject::BadVersion { table, key, rule, value } = reject {
        return new(
            Problem::ModuleEventFailed,
            vec![
                ("code", "invalid-field".into()),
                ("table", table.into()),
                ("key", key.as_str().into()),
                ("field", "version".into()),
                ("rule", rule.into()),
                ("value", value.into()),
            ],
        );
    }
    if let Reject::Invalid { table, field, rule, value } = reject {
        return new(
            Problem::ModuleEventFailed,
            vec![
                ("code", "invalid-field".into()),
                ("table", table.into()),
                ("field", field.into()),
                ("rule", rule.into()),
                ("value", value.into()),
            ],
        );
    }
    if let Reject::KeyTooLong { table, bytes } = reject {
        let code = "key-too-long".into();
        let details = vec![("code", code), ("table", table.into()), ("bytes", bytes.into())];
        return new(Problem::ModuleEventFailed, details);
    }
    if let Reject::WouldRepeat { table, field, highest, asked } = reject {
        return new(
            Problem::WouldRepeat,
            vec![
                ("table", table.into()),
                ("field", field.into()),
                ("highest", highest.into()),
                ("asked", asked.into()),
            ],
        );
    }
    let Reject::BadSequence { table, field, problem } = reject else {
        // Its caller tells the others apart.
        return new(Problem::Defect, Vec::new());
    };
    new(
        Problem::InvalidSequence,
        vec![("table", table.into()), ("field", field.into()), ("problem", problem.into())],
    )
}

/// Tables that cannot replace those that are there.
fn replacement(message: &str, reason: String, details: Object) -> ApiError {
    let own = [("ok".into(), Value::from(false)), ("reason".into(), reason.into())];
    let shown: Object = own.into_iter().chain(details).collect();
    ApiError::new(Problem::InsertOnly, message).with("details", shown)
}

/// A condition that does not hold: some mean that the client's whole picture is too old.
fn precondition(message: &str, code: Value, details: Object) -> ApiError {
    let stale =
        matches!(code.as_str(), Some("record-not-found" | "snapshot-mismatch" | "stale-cursor"));
    let problem = if stale { Problem::FullSyncRequired } else { Problem::ConcurrencyConflict };
    let shown: Object = std::iter::once(("code".into(), code)).chain(details).collect();
    ApiError::new(problem, message).with("details", shown)
}

#[cfg(test)]
mod tests {
    use model::RecordKey;

    use super::*;

    #[test]
    fn the_documents_show_this_table() {
        let documents = include_str!("../../docs/protocol.md");
        assert!(documents.contains(&markdown()), "docs/protocol.md must contain:\n{}", markdown());
    }

    #[test]
    fn the_table_is_in_order_and_says_each_code_of_a_status_once() {
        let rows: Vec<_> = Problem::ALL.iter().map(|problem| problem.row()).collect();
        assert!(rows.is_sorted_by_key(|row| row.0));
        for row in &rows {
            let same = rows.iter().filter(|other| (other.0, other.1) == (row.0, row.1));
            assert_eq!(same.count(), 1, "{row:?}");
        }
    }

    #[test]
    fn a_body_has_the_originals_members_then_the_standards() {
        let conflict = Reject::VersionConflict {
            table: "orders".into(),
            key: RecordKey("o-1".into()),
            expected: None,
            current: 3,
            message: "changed".into(),
        };
        let body = Value::from(ApiError::from(conflict).body("/api/x"));
        assert_eq!(
            body.to_json(),
            concat!(
                r#"{"error":"version-conflict","message":"changed","details":{"table":"orders","#,
                r#""key":"o-1","expectedVersion":null,"currentVersion":3},"#,
                r#""type":"urn:mishkah:error:version-conflict","#,
                r#""title":"The record was changed by someone else","status":409,"#,
                r#""detail":"changed","instance":"/api/x"}"#,
            )
        );
    }

    #[test]
    fn refusals_have_their_status_and_say_the_branchs_own_code() {
        let precondition =
            |code: &str| Reject::Precondition { code: code.into(), details: Object::new() };
        let table = String::new;
        for (reject, status, code, own) in [
            (Reject::KeyReused, 422, "idempotency-key-reused", "idempotency-key-reused"),
            (
                Reject::DedupFull { max_bytes: 5, retry_after_ms: 1 },
                429,
                "outcomes-full",
                "outcomes-full",
            ),
            (Reject::Undefined, 503, "unavailable", "unavailable"),
            (Reject::Defect, 500, "defect", "defect"),
            (Reject::MissingTable, 400, "module-event-failed", "missing-table-name"),
            (precondition("stale-cursor"), 409, "full-sync-required", "stale-cursor"),
            (
                precondition("payment-state-rejected"),
                409,
                "concurrency-conflict",
                "payment-state-rejected",
            ),
            (
                Reject::DuplicateKey { table: table(), key: RecordKey("k".into()) },
                409,
                "duplicate-key",
                "duplicate-key",
            ),
            (
                Reject::NotFound { table: table(), key: RecordKey("k".into()) },
                404,
                "module-event-failed",
                "record-not-found",
            ),
        ] {
            let error = ApiError::from(reject);
            let problem = error.problem();
            let shown = (problem.status().as_u16(), problem.code(), error.code());
            assert_eq!(shown, (status, code, own));
        }
    }

    #[test]
    fn a_retry_is_never_asked_for_at_once() {
        let busy =
            |ms| RouteError::Busy { what: "this node", retry_after: Duration::from_millis(ms) };
        assert_eq!(ApiError::from(busy(10)).retry_after_seconds(), Some(1));
        assert_eq!(ApiError::from(busy(2001)).retry_after_seconds(), Some(3));
    }
}
