//! Querying: rows a client asks for over its socket, and all else a session reads.

use std::sync::Arc;
use std::time::Duration;

use actors::RouteError;
use model::{
    Answer, BranchKey, Filter, ModuleId, Object, Operator, Query, Read, ReadLevel, Reject,
    Validation, Value,
};

use super::{Session, SessionAction, SessionContext};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::SMALL_BODY_BYTES_MAX;
use crate::publish::{request_id, text};
use crate::wire::QueryFrame;
use crate::ws::dialect::{ClientFrame, LargeFrame, ServerFrame};
use crate::ws::publish_queue::SyncPost;
use crate::ws::subscription::CallId;

/// What a read was for.
pub(super) enum PendingRead {
    /// `client:query`.
    Query { request_id: Option<Value>, table: String, single: bool, warnings: Vec<String> },
    /// Whether there is the branch of a hello: it may have been made at another node.
    Hello(Box<Object>),
    /// Whether there is the module of a frame.
    Frame(Box<ClientFrame>),
    /// What the topics fed from this module said last.
    Recall(BranchKey),
    /// The state a sync topic's words are shown with.
    State(String),
    /// What was said when a post's id was first used.
    Duplicate(Arc<SyncPost>),
    /// The state such a post is answered with.
    Repeat { topic: String, data: Object },
    /// Where the module stands that a channel is told of.
    Stand(BranchKey, Arc<SyncPost>),
}

impl PendingRead {
    /// Whether the client waits for it.
    pub(super) fn is_query(&self) -> bool {
        matches!(self, Self::Query { .. })
    }
}

impl Session {
    pub(super) fn query(
        &mut self,
        frame: &Object,
        bytes: usize,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let request_id = request_id(frame);
        if bytes > SMALL_BODY_BYTES_MAX {
            let message = format!("a query has at most {SMALL_BODY_BYTES_MAX} bytes");
            return vec![self.query_error(request_id.as_ref(), &message, cx)];
        }
        let Some(member) = &self.member else {
            let message = "Client attempted query before hello handshake";
            return self.before_hello(request_id.as_ref(), message, cx);
        };
        let Some(module) = text(frame, &["moduleId", "module"]) else {
            let problem = Problem::MissingModule;
            let error = ApiError::new(problem, "Module ID missing in query payload");
            return self.failed(request_id.as_ref(), &error, cx.now);
        };
        let key =
            ModuleId::parse(&module).map(|module| BranchKey::new(member.branch.clone(), module));
        let read = key.map_err(ApiError::from).and_then(|key| {
            let read = read_query(frame, &key, cx)?;
            Ok((key, read))
        });
        let (key, (query, single, warnings)) = match read {
            Ok(read) => read,
            Err(error) => {
                return vec![self.query_error(request_id.as_ref(), error.message(), cx)];
            }
        };
        let table = query.table.clone();
        // Linearizable: what the client was acknowledged before is in what it finds.
        let pending_read = PendingRead::Query { request_id, table, single, warnings };
        let mut actions = Vec::new();
        self.read_for(pending_read, key, Read::Query(query), ReadLevel::Linearizable, &mut actions);
        actions
    }

    fn query_error(
        &self,
        request_id: Option<&Value>,
        message: &str,
        cx: SessionContext<'_>,
    ) -> SessionAction {
        self.send(&ServerFrame::QueryError { request_id, message, at: cx.now })
    }

    /// Reads something, and remembers what for.
    pub(super) fn read_for(
        &mut self,
        pending_read: PendingRead,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
        actions: &mut Vec<SessionAction>,
    ) {
        let (call, wait) = (self.next_call(), Duration::ZERO);
        self.pending_reads.insert(call, pending_read);
        actions.push(SessionAction::Read { call, key, read, level, wait });
    }

    /// A read was answered.
    pub(crate) fn on_answer(
        &mut self,
        call: CallId,
        result: Result<Answer, RouteError>,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        match self.pending_reads.remove(&call) {
            Some(PendingRead::Query { request_id, table, single, warnings }) => {
                vec![match result {
                    Ok(Answer::Query(page)) => SessionAction::Write(LargeFrame::Rows(QueryFrame {
                        request_id,
                        table,
                        single,
                        rows: page.rows,
                        at: cx.now,
                        warnings,
                    })),
                    Ok(other) => {
                        let error = crate::scoped_store::unexpected_answer(&other);
                        self.query_error(request_id.as_ref(), error.message(), cx)
                    }
                    Err(error) => self.query_error(request_id.as_ref(), &error.to_string(), cx),
                }]
            }
            Some(PendingRead::Hello(frame)) => match without_branch(result) {
                Some(error)
                    if error.problem() == Problem::BranchNotFound
                        && text(&frame, &["branchId"]).is_none() =>
                {
                    let message = "this hello names no branch: say which as \"branchId\"";
                    let error = ApiError::new(Problem::BranchNotFound, message);
                    self.failed(request_id(&frame).as_ref(), &error, cx.now)
                }
                Some(error) => self.failed(request_id(&frame).as_ref(), &error, cx.now),
                None => self.enter(&frame, cx),
            },
            Some(PendingRead::Frame(frame)) => match without_branch(result) {
                Some(error) => self.failed(request_id(&frame.members).as_ref(), &error, cx.now),
                // Whether there is the module is known here now: the frame's own answer tells.
                None => self.on_frame(*frame, cx),
            },
            Some(PendingRead::Recall(key)) => match result {
                Ok(Answer::Events(found)) => self.on_last_messages(&key, found, cx),
                // What was said last is not known then; what is said next will be.
                Ok(_) | Err(_) => Vec::new(),
            },
            Some(PendingRead::State(topic)) => self.on_state(&topic, result),
            // A listener answers this one, never a read.
            Some(PendingRead::Duplicate(_)) => Vec::new(),
            Some(PendingRead::Repeat { topic, data }) => {
                vec![self.on_duplicate_state(topic, data, result)]
            }
            Some(PendingRead::Stand(key, posted)) => {
                let stand = match result {
                    Ok(Answer::Head(head)) => Some((head.revision, head.last_updated_at)),
                    // It is told without, then.
                    Ok(_) | Err(_) => None,
                };
                self.publish_to_channel(&key, &posted, stand, cx)
            }
            // The reads for snapshots are known to the subscriptions they refresh.
            None => self.on_refreshed(call, result, cx),
        }
    }
}

/// Why it is not known that the branch is there, which was asked about: it is not, or the cluster
/// could not say.
fn without_branch(result: Result<Answer, RouteError>) -> Option<ApiError> {
    match result.err()? {
        error @ (RouteError::UnknownBranch(_)
        | RouteError::Busy { .. }
        | RouteError::TopicsFull { .. }
        | RouteError::Unavailable { .. }
        | RouteError::MemoryFull(_)
        | RouteError::BranchQuota(_)
        | RouteError::Indeterminate) => Some(error.into()),
        // The branch itself refused what was asked of it.
        RouteError::UnknownModule(_) | RouteError::Rejected(_) => None,
    }
}

/// A record's key, as it is: one may begin or end with spaces.
fn key_of(frame: &Object, names: &[&str]) -> Option<String> {
    let mut texts = names.iter().filter_map(|name| frame.get(name)?.key_text());
    texts.find(|text| !text.is_empty()).map(str::to_owned)
}

/// What is wrong with a query: a strict module refuses it, a lenient one warns of it.
fn warned(
    message: String,
    validation: Validation,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    match validation {
        Validation::Lenient => warnings.push(message),
        Validation::Strict => return Err(ApiError::new(Problem::InvalidBody, message)),
    }
    Ok(())
}

/// Reads what a query asks for, and whether it asks for one record.
fn read_query(
    frame: &Object,
    key: &BranchKey,
    cx: SessionContext<'_>,
) -> Result<(Query, bool, Vec<String>), ApiError> {
    let config = cx.catalogue.module(&key.module);
    let config = config.ok_or_else(|| RouteError::UnknownModule(key.module.to_string()))?;
    let named = text(frame, known_members::TABLE).ok_or(Reject::MissingTable)?;
    let unknown = || Reject::UnknownTable { table: named.clone(), module: key.module.to_string() };
    let table = config.schema.resolve(&named).ok_or_else(unknown)?;
    let validation = config.validation;
    let mut warnings = known_members::SOCKET_QUERY.members(frame, validation)?;
    known_members::refuse_other_place(frame, key, validation)?;
    let kind = text(frame, &["queryType"]);
    let single = kind.as_deref() == Some("get");
    let is_list = matches!(kind.as_deref(), None | Some("list"));
    for message in [
        (!single && !is_list).then(|| {
            format!("queryType {:?} is not known; known are list, get", kind.unwrap_or_default())
        }),
        (single && frame.get("filter").is_some_and(|filter| !filter.is_null()))
            .then(|| "a get query names its record by id; its filter is not read".to_owned()),
        frame
            .get("populate")
            .filter(|populate| !populate.is_null() && populate.as_bool().is_none())
            .map(|_| "populate must be true or false".to_owned()),
    ]
    .into_iter()
    .flatten()
    {
        warned(message, validation, &mut warnings)?;
    }
    let mut query = Query {
        populate: frame.get("populate").and_then(Value::as_bool) != Some(false),
        ..Query::default()
    };
    if single {
        let id = key_of(frame, &["id", "recordId"]).ok_or_else(|| {
            let problem = Problem::MissingRecordKey;
            ApiError::new(problem, "Missing record ID for get query")
        })?;
        (query.key, query.limit) = (Some(id), Some(1));
    } else if let Some(filter) = frame.get("filter").and_then(Value::as_object) {
        let is = |(field, value): (&Arc<str>, &Value)| Filter {
            field: field.to_string(),
            operator: Operator::Is,
            value: value.clone(),
        };
        query.filters = filter.iter().map(is).collect();
        for filter in &query.filters {
            let name = &filter.field;
            let is_unknown = table.field(name).is_none() && name != "version";
            let message = match is_unknown {
                true => format!("{name:?} is no field of table \"{}\"", table.name),
                false => match filter.misread(table, validation) {
                    Some(message) => message,
                    None => continue,
                },
            };
            warned(message, validation, &mut warnings)?;
        }
    }
    query.table = named;
    Ok((query, single, warnings))
}
