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
use crate::scoped_store::PolicyClass;
use crate::wire::SnapshotReason;
use crate::ws::dialect::{
    ClientFrame, ClientRequest, Dialect, LargeFrame, LogLevel, ServerFrame, UnreadableFrame,
};
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
    /// What of the data its principal sees.
    policy_class: PolicyClass,
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
    flags: Vec<Arc<FullSyncFlag>>,
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
    reason: SnapshotReason,
    request_id: Option<Value>,
    /// Where the client goes on, if it said so.
    resume: Option<Resume>,
}

impl PendingSnapshot {
    fn new(reason: SnapshotReason, request_id: Option<Value>) -> Self {
        Self { reason, request_id, resume: None }
    }
}

impl Session {
    /// A session before its hello, and what it says first.
    pub(crate) fn new(
        id: String,
        server_id: Arc<str>,
        dialect: &'static dyn Dialect,
        policy_class: PolicyClass,
        at: Timestamp,
    ) -> (Self, Vec<SessionAction>) {
        let hello = written(dialect, &ServerFrame::Hello { server_id: &server_id, at });
        let session = Self {
            id,
            server_id,
            dialect,
            policy_class,
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
        (session, vec![hello])
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
            || self.reads_snapshot()
            || self.posts.len() >= POSTS_WAITING_MAX
            || asks >= QUERIES_AT_ONCE
    }

    /// Whether the states of a snapshot that the client asked for are being read: the next one is
    /// asked for after it. Where that fails, the client may go on meanwhile.
    fn reads_snapshot(&self) -> bool {
        let asked = |pending: &PendingSnapshot| {
            matches!(pending.reason, SnapshotReason::Request | SnapshotReason::HistoryRequest)
        };
        let is_read = |module: &Subscription| !module.is_ready() && !module.has_failed();
        self.pending_snapshot.as_ref().is_some_and(asked)
            && self.subscriptions.values().any(is_read)
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

    /// What publishes took as they were sent that have no outcome yet, in bytes.
    pub(crate) fn publish_bytes(&self) -> usize {
        self.publishes.bytes()
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
        self.on_read(message, self.dialect.parse(message), cx)
    }

    /// A message that was read elsewhere.
    pub(crate) fn on_read(
        &mut self,
        message: &[u8],
        read: Result<ClientFrame, Box<UnreadableFrame>>,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let frame = match read {
            Ok(frame) => frame,
            Err(unreadable) => return self.unreadable(message, *unreadable, cx.now),
        };
        if let Some(key) = self.unknown_module(&frame, cx) {
            // Only the cluster may deny it: it may have been made at another node just now.
            let (pending_read, mut actions) = (PendingRead::Frame(Box::new(frame)), Vec::new());
            self.read_for(pending_read, key, Read::Head, ReadLevel::Stale, &mut actions);
            return actions;
        }
        self.on_frame(frame, cx)
    }

    /// The module a frame works on, if it is not known here.
    fn unknown_module(&self, frame: &ClientFrame, cx: SessionContext<'_>) -> Option<BranchKey> {
        let is_about_a_module = matches!(
            frame.request,
            ClientRequest::Publish | ClientRequest::Batch | ClientRequest::Query
        );
        let member = self.member.as_ref().filter(|_| is_about_a_module)?;
        let module = ModuleId::parse(&text(&frame.members, &["moduleId", "module"])?).ok()?;
        let is_known = cx.catalogue.module(&module).is_some();
        (!is_known).then(|| BranchKey::new(member.branch.clone(), module))
    }

    /// A frame whose module, if it names one, is known here or was asked for.
    pub(super) fn on_frame(
        &mut self,
        frame: ClientFrame,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let ClientFrame { request, members, bytes } = frame;
        match request {
            ClientRequest::Hello => self.hello(&members, cx),
            ClientRequest::Publish => self.publish(members, bytes, cx),
            ClientRequest::Batch => self.batch(members, bytes, cx),
            ClientRequest::Query => self.query(&members, bytes, cx),
            ClientRequest::Snapshot(reason) => self.snapshot(reason, &members, cx),
            ClientRequest::Subscribe => self.subscribe(&members, cx),
            ClientRequest::Unsubscribe => self.unsubscribe(&members),
            ClientRequest::Post => self.post(members, bytes, cx),
            ClientRequest::Ping => vec![self.send(&ServerFrame::Pong)],
            ClientRequest::Pong => Vec::new(),
            ClientRequest::Auth => vec![self.send(&ServerFrame::AuthAck)],
            ClientRequest::Unknown(named) => self.unknown(&members, named.as_ref(), cx.now),
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
        // What was followed for the branch before is let go of first, also where it is this one:
        // the client begins anew.
        self.leave(&branch, cx, &mut actions);
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
        // The snapshot shows the flags of now; only what changes after it is told.
        self.remember_flags(cx);
        let pending_snapshot = PendingSnapshot::new(SnapshotReason::Hello, request_id);
        let pending_snapshot = PendingSnapshot { resume: resume::read(frame), ..pending_snapshot };
        self.begin_snapshot(pending_snapshot, ReadLevel::Linearizable, cx, &mut actions);
        // After the snapshot was begun: a topic is fed by the follow of a listed module where there
        // is one.
        self.resolve_own_tables(cx, &mut actions);
        actions
    }

    fn snapshot(
        &mut self,
        reason: SnapshotReason,
        frame: &Object,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let request_id = request_id(frame);
        if self.member.is_none() && request_id.is_some() {
            // The original says nothing here, also in its log.
            let message = "Client requested a snapshot before hello handshake";
            let error = ApiError::new(Problem::HelloRequired, message);
            let request_id = request_id.as_ref();
            return vec![self.send(&ServerFrame::Error { request_id, error: &error })];
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
            self.send(&ServerFrame::Error { request_id, error }),
        ]
    }

    fn log(
        &self,
        level: LogLevel,
        message: &str,
        context: &Object,
        at: Timestamp,
    ) -> SessionAction {
        let server_id = &self.server_id;
        self.send(&ServerFrame::Log { server_id, level, message, context, at })
    }

    /// Has a frame sent.
    fn send(&self, frame: &ServerFrame<'_>) -> SessionAction {
        written(self.dialect, frame)
    }

    /// Has a frame about a topic refused.
    fn topic_error(&self, code: &str, message: &str, topic: Option<&str>) -> SessionAction {
        self.send(&ServerFrame::TopicError { code, message, topic, details: None })
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

/// A frame as this dialect writes it. What cannot be written is empty, and so is not sent; the
/// defect was logged where it was found.
fn written(dialect: &dyn Dialect, frame: &ServerFrame<'_>) -> SessionAction {
    let bytes = dialect.render(frame).unwrap_or_default();
    SessionAction::Send(Utf8Bytes::try_from(bytes).unwrap_or_default(), frame.kind())
}
