//! Session: what one socket means, as a value. A frame, an outcome or a delta goes in, actions
//! come out; it waits for nothing, asks no clock and touches no socket.
//!
//! Invariants:
//! - a module's events are sent only after a snapshot that holds all before them, or after the
//!   cursor the client came with: in order, without a gap, each once;
//! - a snapshot is of all modules of the branch: what is not followed yet is followed first, of
//!   what is followed a state is read that is at least as new as what was sent, and meanwhile
//!   nothing is pulled (`is_holding`);
//! - what cannot be continued without a gap is begun again: with a snapshot whose reason is
//!   `resync`;
//! - publishes are decided in the order they came (`publish_queue`), and acknowledged before their
//!   event;
//! - a topic tells of a branch only what may be followed of it, and one that names no branch only
//!   of the session's own.
//!
//! Not kept: other sockets of the branch are not told about a module outside the branch's list
//! before they publish to it themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actors::Post;
use model::{
    BranchId, BranchKey, Catalogue, Command, FullSyncFlag, ModuleId, Object, Read, ReadLevel,
    Timestamp, Validation, Value,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::{ID_BYTES_MAX, POSTS_WAITING_MAX, QUERIES_AT_ONCE};
use crate::metrics::FrameKind;
use crate::publish::{request_id, text, user_of};
use crate::rest::DEFAULT_BRANCH;
use crate::ws::dialect::{self, Dialect, LargeFrame, LogLevel, Request};
use crate::ws::publish_queue::PublishQueues;
use crate::ws::subscription::{CallId, FollowFrom, Subscription};

mod batch;
mod follow;
mod full_sync;
mod malformed;
mod posts;
mod publish;
mod reads;
mod resume;
mod snapshot;
#[cfg(test)]
mod tests;
mod topic_events;
mod topics;

use reads::PendingRead;
use resume::Resume;
use topics::SubscribedTopics;

/// What the socket must do, in order.
pub(crate) enum SessionAction {
    /// Queue a frame.
    Send(Utf8Bytes, FrameKind),
    /// Write a large frame and queue it; what comes after it waits until it is written.
    Write(LargeFrame),
    /// Follow, after waiting for so long, and report with `on_followed`.
    Follow { call: CallId, key: BranchKey, from: FollowFrom, wait: Duration },
    /// Begin to take what the follow gives.
    Open(CallId),
    /// Let go of the follow or the listener.
    Drop(CallId),
    /// Read, after waiting for so long, and report with `on_answer`.
    Read { call: CallId, key: BranchKey, read: Read, level: ReadLevel, wait: Duration },
    /// Have it decided, and report with `on_outcome`.
    Submit(Command),
    /// Listen to a topic: report what was said last, and each later post, with `on_post`.
    SubscribeTopic { call: CallId, topic: String },
    /// Say something, and report with `on_posted`.
    Post(Post),
}

/// What a session may know of the world when something comes in.
#[derive(Clone, Copy)]
pub(crate) struct SessionContext<'a> {
    /// The clock of the wall.
    pub(crate) now: Timestamp,
    pub(crate) catalogue: &'a Catalogue,
}

/// What one socket means.
pub(crate) struct Session {
    id: String,
    server_id: Arc<str>,
    dialect: &'static dyn Dialect,
    member: Option<Membership>,
    /// What is followed: the modules of snapshots, those published to, and those topics are fed
    /// from.
    subscriptions: BTreeMap<BranchKey, Subscription>,
    pending_snapshot: Option<PendingSnapshot>,
    publishes: PublishQueues,
    topics: SubscribedTopics,
    /// The first of them is being said.
    posts: VecDeque<Post>,
    pending_reads: BTreeMap<CallId, PendingRead>,
    flags: Vec<FullSyncFlag>,
    calls: CallId,
    unnamed_commands: u64,
}

/// The branch a hello entered, and what else it said.
struct Membership {
    branch: BranchId,
    lang: Option<Value>,
    user: Option<String>,
    client: Option<String>,
    /// Whether every event is to carry its record.
    records: bool,
}

/// A snapshot that waits for its modules.
struct PendingSnapshot {
    reason: &'static str,
    request_id: Option<Value>,
    /// Where the client goes on, if it said so.
    resume: Option<Resume>,
}

impl PendingSnapshot {
    fn new(reason: &'static str, request_id: Option<Value>) -> Self {
        Self { reason, request_id, resume: None }
    }
}

impl Session {
    /// A session before its hello, and what it says first.
    pub(crate) fn new(
        id: String,
        server_id: Arc<str>,
        at: Timestamp,
    ) -> (Self, Vec<SessionAction>) {
        let dialect = dialect::of_socket();
        let greeting = control(dialect.hello(&server_id, at));
        let session = Self {
            id,
            server_id,
            dialect,
            member: None,
            subscriptions: BTreeMap::new(),
            pending_snapshot: None,
            publishes: PublishQueues::default(),
            topics: SubscribedTopics::default(),
            posts: VecDeque::new(),
            pending_reads: BTreeMap::new(),
            flags: Vec::new(),
            calls: 0,
            unnamed_commands: 0,
        };
        (session, vec![greeting])
    }

    /// Whether the client should not be read now: what it asked first is not there yet, or it has
    /// asked for more than may wait.
    pub(crate) fn is_busy(&self) -> bool {
        let asks =
            self.pending_reads.values().filter(|pending_read| pending_read.is_query()).count();
        // What comes after a hello is about the branch it enters; frames are taken in their order.
        self.pending_reads.values().any(|pending_read| {
            matches!(pending_read, PendingRead::Hello(_) | PendingRead::Frame(..))
        }) || self.publishes.is_full()
            || self.subscriptions.values().any(Subscription::is_new)
            || self.posts.len() >= POSTS_WAITING_MAX
            || asks >= QUERIES_AT_ONCE
    }

    /// Whether no stream should be pulled now: a snapshot is on its way that must hold all that
    /// was sent before it.
    pub(crate) fn is_holding(&self) -> bool {
        self.subscriptions.values().any(Subscription::is_refreshing)
    }

    /// What its client is spoken to in.
    pub(crate) fn dialect(&self) -> &'static dyn Dialect {
        self.dialect
    }

    /// Whether every publish is decided.
    pub(crate) fn is_idle(&self) -> bool {
        self.publishes.is_idle()
    }

    /// A text or binary message.
    pub(crate) fn on_message(
        &mut self,
        message: &[u8],
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let frame = match Value::from_json(message) {
            Ok(Value::Object(frame)) => frame,
            Ok(_) => return vec![self.not_a_frame(message, cx.now)],
            Err(error) => return self.unreadable(message, error, cx.now),
        };
        if let Some(key) = self.unknown_module(&frame, cx) {
            // Only the cluster may deny it: it may have been made at another node a moment ago.
            let (pending_read, mut actions) =
                (PendingRead::Frame(Box::new(frame), message.len()), Vec::new());
            self.read_for(pending_read, key, Read::Head, ReadLevel::Stale, &mut actions);
            return actions;
        }
        self.on_frame(frame, message.len(), cx)
    }

    /// The module a frame works on, if it is not known here.
    fn unknown_module(&self, frame: &Object, cx: SessionContext<'_>) -> Option<BranchKey> {
        let request = self.dialect.request(frame.get("type").and_then(Value::as_str)?)?;
        let is_about_a_module =
            matches!(request, Request::Publish | Request::Batch | Request::Query);
        let member = self.member.as_ref().filter(|_| is_about_a_module)?;
        let module = ModuleId::parse(&text(frame, &["moduleId", "module"])?).ok()?;
        let is_known = cx.catalogue.module(&module).is_some();
        (!is_known).then(|| BranchKey::new(member.branch.clone(), module))
    }

    /// A frame of so many bytes.
    pub(super) fn on_frame(
        &mut self,
        frame: Object,
        bytes: usize,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let request = frame.get("type").and_then(Value::as_str);
        match request.and_then(|name| self.dialect.request(name)) {
            Some(Request::Hello) => self.hello(&frame, cx),
            Some(Request::Publish) => self.publish(frame, bytes, cx),
            Some(Request::Batch) => self.batch(frame, bytes, cx),
            Some(Request::Query) => self.query(&frame, cx),
            Some(Request::Snapshot(reason)) => self.snapshot(reason, &frame, cx),
            Some(Request::Subscribe) => self.subscribe(&frame, cx),
            Some(Request::Unsubscribe) => self.unsubscribe(&frame),
            Some(Request::Post) => self.post(frame, bytes, cx),
            Some(Request::Ping) => vec![control(self.dialect.pong())],
            Some(Request::Pong) => Vec::new(),
            Some(Request::Auth) => vec![control(self.dialect.auth_ack())],
            None => self.unknown(&frame, cx.now),
        }
    }

    fn hello(&mut self, frame: &Object, cx: SessionContext<'_>) -> Vec<SessionAction> {
        let request_id = request_id(frame);
        let branch = match named_branch(frame) {
            Ok(branch) => branch,
            Err(error) => return self.failed(request_id.as_ref(), &error, cx.now),
        };
        if !cx.catalogue.allows_branch(&branch) {
            // Only the cluster may deny it: the read asks what has been agreed on since.
            let module = cx.catalogue.modules.first().map(|module| module.id.clone());
            let module = module.or_else(|| ModuleId::parse("pos").ok());
            if let Some(module) = module {
                let (pending_read, key) =
                    (PendingRead::Hello(Box::new(frame.clone())), BranchKey::new(branch, module));
                let mut actions = Vec::new();
                self.read_for(pending_read, key, Read::Head, ReadLevel::Stale, &mut actions);
                return actions;
            }
        }
        self.enter(frame, cx)
    }

    /// Enters the branch of a hello that was not refused.
    fn enter(&mut self, frame: &Object, cx: SessionContext<'_>) -> Vec<SessionAction> {
        let request_id = request_id(frame);
        let named = frame.get("branchId").and_then(Value::as_str).filter(|name| !name.is_empty());
        let branch = match BranchId::parse(named.unwrap_or(DEFAULT_BRANCH)) {
            Ok(branch) => branch,
            Err(error) => return self.failed(request_id.as_ref(), &error.into(), cx.now),
        };
        let given = |name| frame.get(name).filter(|value| !value.is_null()).cloned();
        let role = given("role").unwrap_or_else(|| "unknown".into());
        let lang = given("lang");
        let context: Object = [("branchId", branch.as_str().into()), ("role", role)]
            .into_iter()
            .chain(lang.clone().map(|lang| ("lang", lang)))
            .collect::<Object>();
        let mut actions = Vec::new();
        self.leave(&branch, &mut actions);
        actions.push(self.log(LogLevel::Info, "Client registered", &context, cx.now));

        // Told, whatever the modules: a hello is never refused for what it says besides.
        let unknown = known_members::HELLO.members(frame, Validation::Lenient).unwrap_or_default();
        if let Some(first) = unknown.first() {
            actions.push(self.log(LogLevel::Warn, first, &Object::new(), cx.now));
        }
        let client = text(frame, &["clientId"]);
        if client.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            let message = format!("clientId is not used: it has more than {ID_BYTES_MAX} bytes");
            actions.push(self.log(LogLevel::Warn, &message, &Object::new(), cx.now));
        }
        let client = client.filter(|id| id.len() <= ID_BYTES_MAX);
        let records = given("records").unwrap_or(Value::Bool(false));
        if records.as_bool().is_none() {
            let message = "records is not used: it must be true or false";
            actions.push(self.log(LogLevel::Warn, message, &Object::new(), cx.now));
        }
        let records = records.as_bool() == Some(true);
        self.member =
            Some(Membership { branch, lang, user: user_of(frame, None), client, records });
        self.remember_flags(cx);
        let pending_snapshot = PendingSnapshot::new("initial-sync", request_id);
        let pending_snapshot = PendingSnapshot { resume: resume::read(frame), ..pending_snapshot };
        self.begin_snapshot(pending_snapshot, ReadLevel::Linearizable, cx, &mut actions);
        self.resolve_own_tables(cx, &mut actions);
        actions
    }

    fn snapshot(
        &mut self,
        reason: &'static str,
        frame: &Object,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let request_id = request_id(frame);
        if self.member.is_none() && request_id.is_some() {
            // The original says nothing here, also in its log.
            let message = "Client requested a snapshot before hello handshake";
            let error = ApiError::new(Problem::HelloRequired, message);
            return vec![control(self.dialect.error(request_id.as_ref(), &error))];
        }
        let pending_snapshot = PendingSnapshot::new(reason, request_id);
        self.begin_snapshot(pending_snapshot, ReadLevel::Linearizable, cx, &mut actions);
        actions
    }

    fn next_call(&mut self) -> CallId {
        self.calls += 1;
        self.calls
    }

    /// What the original only logs, and a frame the client can match to its request.
    fn failed(
        &self,
        request_id: Option<&Value>,
        error: &ApiError,
        at: Timestamp,
    ) -> Vec<SessionAction> {
        let context = request_id.map(|id| ("requestId", id.clone())).into_iter();
        let context = context.chain([("code", error.code().into())]).collect();
        vec![
            self.log(LogLevel::Error, error.message(), &context, at),
            control(self.dialect.error(request_id, error)),
        ]
    }

    fn log(
        &self,
        level: LogLevel,
        message: &str,
        context: &Object,
        at: Timestamp,
    ) -> SessionAction {
        control(self.dialect.log(&self.server_id, level, message, context, at))
    }
}

/// The branch a hello names: the default one where it names none.
fn named_branch(frame: &Object) -> Result<BranchId, ApiError> {
    let named = match frame.get("branchId") {
        None | Some(Value::Null) => DEFAULT_BRANCH,
        Some(Value::String(name)) if name.is_empty() => DEFAULT_BRANCH,
        Some(Value::String(name)) => name,
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(ApiError::new(Problem::InvalidBody, "branchId must be a text"));
        }
    };
    BranchId::parse(named).map_err(ApiError::from)
}

fn control(frame: Utf8Bytes) -> SessionAction {
    SessionAction::Send(frame, FrameKind::Control)
}
