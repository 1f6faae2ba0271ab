//! Session: what one socket means, as a value. A frame, an outcome or a delta goes in, actions
//! come out; it waits for nothing, asks no clock and touches no socket.
//!
//! Invariants:
//! - a module's events are sent only after a snapshot that holds all before them, in order,
//!   without a gap: every module of the branch is followed first, then one `server:snapshot` is
//!   made of what the follows began with, and only then are the streams opened;
//! - what cannot be continued without a gap is begun again: with a snapshot whose reason is
//!   `resync`;
//! - publishes are decided in the order they came (`lane`), and acknowledged before their event.
//!
//! Not kept: other sockets of the branch are not told about a module outside the branch's list
//! before they publish to it themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::Cursor;
use axum::extract::ws::Utf8Bytes;
use model::{
    BranchId, BranchKey, Catalogue, Command, ModuleId, ModuleSnapshot, Object, Timestamp, Value,
};

use crate::auth::{Access, Intent, Principal, authorize};
use crate::error::ApiError;
use crate::http::DEFAULT_BRANCH;
use crate::limits::{ID_BYTES_MAX, PREVIEW_CHARS};
use crate::metrics::Channel;
use crate::publish::{request_id, text, user_of};
use crate::wire::SnapshotFrame;
use crate::ws::frame::{self, Level};
use crate::ws::lane::Lanes;

mod following;
mod publishing;
#[cfg(test)]
mod tests;

/// Names one follow of one session.
pub(crate) type Ticket = u64;

/// What the shell must do, in order.
pub(crate) enum Action {
    /// Queue a frame.
    Send(Utf8Bytes, Channel),
    /// Write a snapshot and queue it; what comes after it waits until it is written.
    Snapshot(SnapshotFrame),
    /// Follow, after waiting for so long, and report with `on_followed`.
    Follow { ticket: Ticket, key: BranchKey, after: Option<Cursor>, wait: Duration },
    /// Begin to take what the follow gives.
    Open(Ticket),
    /// Let go of the follow.
    Drop(Ticket),
    /// Have it decided, and report with `on_outcome`.
    Submit(Command),
}

/// What a session is told about the world when something comes in.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) at: Timestamp,
    pub(crate) catalogue: &'a Catalogue,
}

/// What one socket means.
pub(crate) struct Session {
    id: String,
    server_id: Arc<str>,
    principal: Principal,
    member: Option<Member>,
    followed: BTreeMap<ModuleId, Followed>,
    loading: Option<Loading>,
    lanes: Lanes,
    tickets: Ticket,
    unnamed: u64,
}

/// What the hello said.
struct Member {
    branch: BranchId,
    lang: Option<Value>,
    user: Option<String>,
    client: Option<String>,
}

/// A module this session follows.
struct Followed {
    ticket: Ticket,
    /// Whether it is of the branch's list, and so part of every snapshot.
    listed: bool,
    state: State,
    /// The last event sent, or the snapshot's.
    cursor: Option<Cursor>,
    /// How often in a row it could not be followed.
    tries: u32,
}

enum State {
    /// Asked for.
    Opening,
    /// Waits for the other modules of a snapshot.
    Ready(Arc<ModuleSnapshot>),
    /// Its events are sent.
    Open,
}

/// A snapshot that waits for its modules.
struct Loading {
    reason: &'static str,
    request_id: Option<Value>,
}

impl Session {
    /// A session before its hello, and what it says first.
    pub(crate) fn new(
        id: String,
        server_id: Arc<str>,
        principal: Principal,
        at: Timestamp,
    ) -> (Self, Vec<Action>) {
        let greeting = control(frame::hello(&server_id, at));
        let session = Self {
            id,
            server_id,
            principal,
            member: None,
            followed: BTreeMap::new(),
            loading: None,
            lanes: Lanes::default(),
            tickets: 0,
            unnamed: 0,
        };
        (session, vec![greeting])
    }

    /// Whether the client should not be read now: what it asked first is not there yet, or it has
    /// asked for more than may wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.lanes.is_full() || self.followed.values().any(Followed::is_new)
    }

    /// Whether every publish is decided.
    pub(crate) fn is_idle(&self) -> bool {
        self.lanes.is_idle()
    }

    /// A text or binary message.
    pub(crate) fn on_message(&mut self, message: &[u8], moment: Moment<'_>) -> Vec<Action> {
        let frame = match Value::from_json(message) {
            Ok(Value::Object(frame)) => frame,
            Ok(_) | Err(_) => return vec![self.unreadable(message, moment.at)],
        };
        match frame.get("type").and_then(Value::as_str) {
            Some("client:hello") => self.hello(&frame, moment),
            Some("client:publish") => self.publish(frame, message.len(), moment),
            Some("client:request:snapshot") => self.snapshot("explicit-request", &frame, moment),
            Some("client:request:history") => self.snapshot("history-request", &frame, moment),
            Some("ping") => vec![control(frame::pong())],
            Some("pong") => Vec::new(),
            Some("auth") => vec![control(frame::auth_ack())],
            Some(_) | None => {
                let context = frame.get("type").map(|word| ("type", word.clone()));
                let context = context.into_iter().collect();
                vec![self.log(Level::Warn, "Unknown message type", &context, moment.at)]
            }
        }
    }

    fn unreadable(&self, message: &[u8], at: Timestamp) -> Action {
        let preview: String =
            String::from_utf8_lossy(message).chars().take(PREVIEW_CHARS).collect();
        let context = [("preview", preview)].into_iter().collect();
        self.log(Level::Warn, "Received invalid JSON payload", &context, at)
    }

    fn hello(&mut self, frame: &Object, moment: Moment<'_>) -> Vec<Action> {
        let request_id = request_id(frame);
        let named = frame.get("branchId").and_then(Value::as_str).filter(|name| !name.is_empty());
        let branch = BranchId::parse(named.unwrap_or(DEFAULT_BRANCH)).map_err(ApiError::from);
        let branch = branch.and_then(|branch| {
            authorize(&self.principal, &Access::branch(Intent::Follow, &branch))?;
            Ok(branch)
        });
        let branch = match branch {
            Ok(branch) => branch,
            Err(error) => return self.failed(request_id.as_ref(), &error, moment.at),
        };
        let given = |name| frame.get(name).filter(|value| !value.is_null()).cloned();
        let role = given("role").unwrap_or_else(|| "unknown".into());
        let lang = given("lang");
        let context: Object = [("branchId", branch.as_str().into()), ("role", role)]
            .into_iter()
            .chain(lang.clone().map(|lang| ("lang", lang)))
            .collect::<Object>();
        let mut actions = self.leave();
        actions.push(self.log(Level::Info, "Client registered", &context, moment.at));

        let client = text(frame, &["clientId"]);
        if client.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            let message = format!("clientId is not used: it has more than {ID_BYTES_MAX} bytes");
            actions.push(self.log(Level::Warn, &message, &Object::new(), moment.at));
        }
        let client = client.filter(|id| id.len() <= ID_BYTES_MAX);
        self.member = Some(Member { branch, lang, user: user_of(frame, None), client });
        self.load(Loading { reason: "initial-sync", request_id }, moment, &mut actions);
        actions
    }

    /// Lets go of the branch the session was in.
    fn leave(&mut self) -> Vec<Action> {
        let followed = std::mem::take(&mut self.followed);
        self.loading = None;
        followed.into_values().map(|followed| Action::Drop(followed.ticket)).collect()
    }

    fn snapshot(
        &mut self,
        reason: &'static str,
        frame: &Object,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.load(Loading { reason, request_id: request_id(frame) }, moment, &mut actions);
        actions
    }

    /// What the original only logs, and a frame the client can match to its request.
    fn failed(&self, request_id: Option<&Value>, error: &ApiError, at: Timestamp) -> Vec<Action> {
        let context = request_id.map(|id| ("requestId", id.clone())).into_iter();
        let context = context.chain([("code", error.code().into())]).collect();
        vec![
            self.log(Level::Error, error.message(), &context, at),
            control(frame::error(request_id, error)),
        ]
    }

    fn log(&self, level: Level, message: &str, context: &Object, at: Timestamp) -> Action {
        control(frame::log(&self.server_id, level, message, context, at))
    }
}

fn control(frame: Utf8Bytes) -> Action {
    Action::Send(frame, Channel::Control)
}
