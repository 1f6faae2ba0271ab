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

use actors::{Cursor, RouteError, SharedDelta};
use axum::extract::ws::Utf8Bytes;
use model::{
    BranchId, BranchKey, Catalogue, Command, CommandId, Event, ModuleId, ModuleSnapshot, Object,
    Outcome, Request, Timestamp, Value, Verb, Write,
};

use crate::auth::{Access, Intent, Principal, authorize};
use crate::error::{ApiError, Problem};
use crate::http::DEFAULT_BRANCH;
use crate::limits::{FOLLOW_AGAIN_AFTER, FOLLOW_AGAIN_AFTER_MAX, ID_BYTES_MAX, PREVIEW_CHARS};
use crate::metrics::Channel;
use crate::publish::{Publish, request_id, text, user_of};
use crate::wire::{Shown, SnapshotFrame, event_frames};
use crate::ws::frame::{self, Level};
use crate::ws::lane::{Lanes, Waiting};

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

    /// Follows all modules of the branch's list anew, for a snapshot of them all.
    fn load(&mut self, loading: Loading, moment: Moment<'_>, actions: &mut Vec<Action>) {
        let Some(member) = &self.member else { return };
        let branch = member.branch.clone();
        let listed = moment.catalogue.modules_of(&branch);
        self.followed.retain(|module, followed| {
            let keep = !followed.listed && !listed.contains(module);
            if !keep {
                actions.push(Action::Drop(followed.ticket));
            }
            keep
        });
        for module in listed {
            self.follow(BranchKey::new(branch.clone(), module), true, actions);
        }
        self.loading = Some(loading);
        self.finish_loading(actions);
    }

    fn follow(&mut self, key: BranchKey, listed: bool, actions: &mut Vec<Action>) {
        let ticket = self.ticket();
        let followed = Followed { ticket, listed, state: State::Opening, cursor: None, tries: 0 };
        self.followed.insert(key.module.clone(), followed);
        actions.push(Action::Follow { ticket, key, after: None, wait: Duration::ZERO });
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    /// A follow was answered: with the snapshot it begins with, if it does, or why there is none.
    pub(crate) fn on_followed(
        &mut self,
        ticket: Ticket,
        result: Result<Option<Arc<ModuleSnapshot>>, RouteError>,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(module) = self.module_of(ticket) else { return vec![Action::Drop(ticket)] };
        let Some(followed) = self.followed.get_mut(&module) else { return actions };
        match result {
            Ok(snapshot) => {
                followed.tries = 0;
                let resumed = followed.cursor.is_some();
                if let Some(snapshot) = &snapshot {
                    let head = &snapshot.head;
                    let (incarnation, offset) = (head.incarnation, head.offset);
                    followed.cursor = Some(Cursor { incarnation, offset });
                }
                match snapshot {
                    Some(_) if resumed && followed.listed => {
                        self.begin_again(moment, &mut actions);
                    }
                    Some(snapshot) if followed.listed => followed.state = State::Ready(snapshot),
                    Some(_) | None => {
                        followed.state = State::Open;
                        actions.push(Action::Open(ticket));
                    }
                }
            }
            Err(RouteError::UnknownModule(_)) if followed.listed => {
                self.followed.remove(&module);
            }
            Err(error) => self.not_followed(&module, error, moment, &mut actions),
        }
        self.finish_loading(&mut actions);
        self.start(&mut actions);
        actions
    }

    /// A module cannot be followed now: try again, and tell the client once.
    fn not_followed(
        &mut self,
        module: &ModuleId,
        error: RouteError,
        moment: Moment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(branch) = self.member.as_ref().map(|member| member.branch.clone()) else { return };
        let key = BranchKey::new(branch, module.clone());
        let Some(followed) = self.followed.get_mut(module) else { return };
        let error = ApiError::from(error);
        if !followed.listed && followed.cursor.is_none() {
            self.followed.remove(module);
            for waiting in self.lanes.give_up(&key) {
                actions.extend(self.failed(waiting.request_id.as_ref(), &error, moment.at));
            }
            return;
        }
        let first = followed.tries == 0;
        self.again(module, key, actions);
        if first {
            let request_id = self.loading.as_ref().and_then(|loading| loading.request_id.clone());
            actions.extend(self.failed(request_id.as_ref(), &error, moment.at));
        }
    }

    /// Follows a module again after a while, from where it is.
    fn again(&mut self, module: &ModuleId, key: BranchKey, actions: &mut Vec<Action>) {
        let ticket = self.ticket();
        let Some(followed) = self.followed.get_mut(module) else { return };
        let wait = FOLLOW_AGAIN_AFTER.saturating_mul(1 << followed.tries.min(16));
        followed.tries += 1;
        (followed.ticket, followed.state) = (ticket, State::Opening);
        let (after, wait) = (followed.cursor, wait.min(FOLLOW_AGAIN_AFTER_MAX));
        actions.push(Action::Follow { ticket, key, after, wait });
    }

    /// Sends the snapshot once every module of the list is there, and opens their streams.
    fn finish_loading(&mut self, actions: &mut Vec<Action>) {
        let Some(member) = &self.member else { return };
        let listed = || self.followed.values().filter(|followed| followed.listed);
        if self.loading.is_none() || listed().any(|f| matches!(f.state, State::Opening)) {
            return;
        }
        let Some(Loading { reason, request_id }) = self.loading.take() else { return };
        let (branch, lang) = (member.branch.clone(), member.lang.clone());
        let mut modules = Vec::new();
        let mut open = Vec::new();
        for followed in self.followed.values_mut() {
            if let State::Ready(snapshot) = &followed.state {
                modules.push(Arc::clone(snapshot));
                open.push(Action::Open(followed.ticket));
                followed.state = State::Open;
            }
        }
        let server_id = Arc::clone(&self.server_id);
        let frame = SnapshotFrame { branch, modules, reason, request_id, server_id, lang };
        actions.push(Action::Snapshot(frame));
        actions.append(&mut open);
    }

    /// A snapshot could not be written.
    pub(crate) fn on_snapshot_failed(&self, error: &ApiError, moment: Moment<'_>) -> Vec<Action> {
        self.failed(None, error, moment.at)
    }

    /// The stream cannot go on without a gap.
    fn begin_again(&mut self, moment: Moment<'_>, actions: &mut Vec<Action>) {
        if self.loading.is_none() {
            self.load(Loading { reason: "resync", request_id: None }, moment, actions);
        }
    }

    /// A follow fell too far behind and goes on from this state.
    pub(crate) fn on_resync(
        &mut self,
        ticket: Ticket,
        snapshot: &ModuleSnapshot,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(module) = self.module_of(ticket) else { return vec![Action::Drop(ticket)] };
        let Some(followed) = self.followed.get_mut(&module) else { return actions };
        if followed.listed {
            self.begin_again(moment, &mut actions);
        } else {
            // No snapshot shows this module, so its events simply go on.
            let (incarnation, offset) = (snapshot.head.incarnation, snapshot.head.offset);
            followed.cursor = Some(Cursor { incarnation, offset });
        }
        actions
    }

    /// A follow's source went away: follow elsewhere, from where it was.
    pub(crate) fn on_ended(&mut self, ticket: Ticket) -> Vec<Action> {
        let mut actions = vec![Action::Drop(ticket)];
        let branch = self.member.as_ref().map(|member| member.branch.clone());
        if let Some((module, branch)) = self.module_of(ticket).zip(branch) {
            let key = BranchKey::new(branch, module.clone());
            self.again(&module, key, &mut actions);
        }
        actions
    }

    /// The next change of a followed module.
    pub(crate) fn on_delta(
        &mut self,
        ticket: Ticket,
        shared: &SharedDelta,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let delta = &*shared.delta;
        let mut actions = Vec::new();
        let Some(module) = self.module_of(ticket) else { return vec![Action::Drop(ticket)] };
        let Some(followed) = self.followed.get_mut(&module) else { return actions };
        if authorize(&self.principal, &Access::module(Intent::Follow, &delta.key)).is_err() {
            self.followed.remove(&module);
            return vec![Action::Drop(ticket)];
        }
        let Some((first, last)) = delta.events.first().zip(delta.last()) else { return actions };
        let next = followed.cursor.map(|cursor| (cursor.incarnation, cursor.offset.next()));
        let gap = next.is_none_or(|(life, next)| life != delta.incarnation || first.offset > next);
        if gap {
            tracing::error!(branch = %delta.key.branch, module = %delta.key.module, "a gap in a feed");
            if followed.listed {
                self.begin_again(moment, &mut actions);
                return actions;
            }
        }
        let seen = followed.cursor.filter(|_| !gap).map_or(0, |cursor| cursor.offset.0);
        followed.cursor = Some(Cursor { incarnation: delta.incarnation, offset: last });
        let frames = shared.frames(|delta| event_frames(&self.server_id, delta, None));
        for (event, frame) in delta.events.iter().zip(frames) {
            if event.offset.0 <= seen {
                continue;
            }
            if self.lanes.owes(&delta.key, &event.command) {
                actions.push(self.ack(&delta.key, event));
            }
            if let Ok(frame) = Utf8Bytes::try_from(frame.clone()) {
                actions.push(Action::Send(frame, Channel::Event));
            }
        }
        actions
    }

    fn publish(&mut self, frame: Object, bytes: usize, moment: Moment<'_>) -> Vec<Action> {
        let named = request_id(&frame);
        let Some(member) = &self.member else {
            let message = "Client attempted publish before hello handshake";
            let error = ApiError::new(Problem::HelloRequired, message);
            return self.failed(named.as_ref(), &error, moment.at);
        };
        let (branch, user) = (member.branch.clone(), member.user.clone());
        let checked = Publish::read(frame, "ws-client").and_then(|publish| {
            let key = BranchKey::new(branch, publish.module.clone());
            if moment.catalogue.module(&key.module).is_none() {
                return Err(RouteError::UnknownModule(key.module.to_string()).into());
            }
            authorize(&self.principal, &Access::module(Intent::Write, &key))?;
            Ok((key, publish))
        });
        let (key, publish) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.failed(named.as_ref(), &error, moment.at),
        };
        let Publish { module: _, table, action, record, mut origin, request } = publish;
        let id = self.name(request);
        origin.client = Some(self.client().to_owned());
        origin.user = origin.user.or(user);
        let verb = Verb { action, table, record, guards: Vec::new() };
        let request = Request::Write(Write { verbs: vec![verb] });
        let command = Command { id, key: key.clone(), origin: Arc::new(origin), request };

        let mut actions = Vec::new();
        self.lanes.add(Waiting { command, request_id: named, bytes });
        if !self.followed.contains_key(&key.module) {
            self.follow(key, false, &mut actions);
        }
        self.start(&mut actions);
        actions
    }

    /// What a publish is called for ever. A client that names itself in its hello may repeat a
    /// request after a reload; else an id holds for this socket only.
    fn name(&mut self, request: Option<String>) -> CommandId {
        match request {
            Some(request) => CommandId { session: self.client().to_owned(), request },
            None => {
                self.unnamed += 1;
                let session = format!("{}/unnamed", self.id);
                CommandId { session, request: self.unnamed.to_string() }
            }
        }
    }

    fn client(&self) -> &str {
        let own = self.member.as_ref().and_then(|member| member.client.as_deref());
        own.unwrap_or(&self.id)
    }

    /// Submits what may be submitted: not before the module's events would be seen.
    fn start(&mut self, actions: &mut Vec<Action>) {
        let branch = self.member.as_ref().map(|member| &member.branch);
        let followed = &self.followed;
        let commands = self.lanes.start(|key| {
            let followed = followed.get(&key.module).filter(|_| branch == Some(&key.branch));
            followed.is_none_or(|followed| !followed.is_new())
        });
        actions.extend(commands.into_iter().map(Action::Submit));
    }

    /// A submitted command was decided, or not.
    pub(crate) fn on_outcome(
        &mut self,
        key: &BranchKey,
        result: Result<Outcome, RouteError>,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(own) = self.lanes.decided(key) else { return actions };
        let refused = match result {
            Ok(Outcome::Accepted(_)) if own.acknowledged => None,
            Ok(Outcome::Accepted(accepted)) => match crate::publish::event_of(&accepted) {
                Ok(event) => {
                    actions.push(self.ack(key, event));
                    None
                }
                Err(error) => Some(error),
            },
            Ok(Outcome::Rejected(reject)) => Some(reject.into()),
            // Its event has come, so it did happen.
            Err(_) if own.acknowledged => None,
            Err(error) => {
                if error == RouteError::Indeterminate {
                    self.lanes.unknown(own.id);
                }
                Some(error.into())
            }
        };
        if let Some(error) = refused {
            actions.extend(self.failed(own.request_id.as_ref(), &error, moment.at));
        }
        self.start(&mut actions);
        actions
    }

    fn ack(&self, key: &BranchKey, event: &Event) -> Action {
        let shown = Shown::new(&self.server_id, key, event);
        Action::Send(frame::text(&shown.ack()), Channel::Ack)
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

    fn module_of(&self, ticket: Ticket) -> Option<ModuleId> {
        let mut followed = self.followed.iter();
        followed.find(|(_, followed)| followed.ticket == ticket).map(|(module, _)| module.clone())
    }
}

impl Followed {
    /// Whether it was asked for and not answered yet.
    fn is_new(&self) -> bool {
        matches!(self.state, State::Opening) && self.tries == 0
    }
}

fn control(frame: Utf8Bytes) -> Action {
    Action::Send(frame, Channel::Control)
}

#[cfg(test)]
mod tests;
