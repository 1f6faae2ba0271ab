//! Following: the modules a session sees, from where each begins to its last event.

use std::sync::Arc;
use std::time::Duration;

use actors::{Cursor, RouteError, SharedDelta};
use bytes::Bytes;
use model::{
    BranchId, BranchKey, BulkOperation, Event, EventChange, ModuleSnapshot, Offset, ReadLevel,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::snapshot::{cursor_of, pause};
use super::{
    CallId, FollowFrom, FollowStart, Followed, PendingSnapshot, Session, SessionAction,
    SessionContext, State,
};
use crate::error::ApiError;
use crate::metrics::FrameKind;
use crate::wire::{EventRenderer, event_frames, frame_key};

impl Session {
    /// Follows a module anew. `listed` ones are part of snapshots.
    pub(super) fn follow(
        &mut self,
        key: BranchKey,
        begin: FollowFrom,
        listed: bool,
        actions: &mut Vec<SessionAction>,
    ) {
        let call = self.next_call();
        let cursor = match begin {
            FollowFrom::Resume(cursor) | FollowFrom::After(cursor) => Some(cursor),
            FollowFrom::Now | FollowFrom::Tail => None,
        };
        let followed = Followed {
            call,
            listed,
            sends_events: begin != FollowFrom::Tail,
            state: State::Opening,
            cursor,
            seen: Offset(0),
            tries: 0,
        };
        if let Some(before) = self.followed.insert(key.clone(), followed) {
            actions.push(SessionAction::Drop(before.call));
        }
        actions.push(SessionAction::Follow { call, key, begin, wait: Duration::ZERO });
    }

    /// Lets go of the branch the session was in, for the next; topics keep what they need.
    pub(super) fn leave(&mut self, next: &BranchId, actions: &mut Vec<SessionAction>) {
        self.pending_snapshot = None;
        if self.member.as_ref().is_some_and(|member| member.branch != *next) {
            self.topics.leave_own_branch();
        }
        let keys: Vec<BranchKey> = self.followed.keys().cloned().collect();
        keys.iter().for_each(|key| self.release(key, actions));
    }

    /// Lets go of a module, unless a topic is fed from it.
    pub(super) fn release(&mut self, key: &BranchKey, actions: &mut Vec<SessionAction>) {
        let Some(followed) = self.followed.get_mut(key) else { return };
        (followed.listed, followed.sends_events) = (false, false);
        if !self.topics.read_from(key) {
            actions.push(SessionAction::Drop(followed.call));
            self.followed.remove(key);
            return;
        }
        match followed.state {
            State::Refreshing(_) | State::Refreshed(_) => followed.state = State::Open,
            State::Waits(_) | State::Resumes(_) => {
                followed.state = State::Open;
                actions.push(SessionAction::Open(followed.call));
            }
            State::Opening | State::Open => {}
        }
    }

    /// A follow was answered: with what it begins with, or why it does not.
    pub(crate) fn on_followed(
        &mut self,
        call: CallId,
        result: Result<FollowStart, RouteError>,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let Some(key) = self.key_of(call) else { return vec![SessionAction::Drop(call)] };
        let listed = self.followed.get(&key).is_some_and(|followed| followed.listed);
        match result {
            Ok(on_follow_started) => {
                self.on_follow_started(&key, on_follow_started, cx, &mut actions)
            }
            Err(RouteError::UnknownModule(_) | RouteError::UnknownBranch(_)) if listed => {
                drop(self.followed.remove(&key))
            }
            Err(error) => self.follow_failed(&key, error, cx, &mut actions),
        }
        self.finish_snapshot(cx, &mut actions);
        self.submit_ready(&mut actions);
        actions
    }

    fn on_follow_started(
        &mut self,
        key: &BranchKey,
        on_follow_started: FollowStart,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(followed) = self.followed.get_mut(key) else { return };
        followed.tries = 0;
        if let Some(log) = on_follow_started.log {
            return self.on_log_end(key, log, actions);
        }
        if let Some(snapshot) = on_follow_started.snapshot {
            followed.cursor = Some(cursor_of(&snapshot));
            followed.seen = snapshot.head.offset;
            if followed.listed {
                followed.state = State::Waits(snapshot);
                return self.restart_snapshot(cx, actions);
            }
        }
        followed.state = State::Open;
        actions.push(SessionAction::Open(followed.call));
        self.read_last_messages(key, actions);
    }

    /// A module cannot be followed now: try again, and tell the client once.
    fn follow_failed(
        &mut self,
        key: &BranchKey,
        error: RouteError,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(followed) = self.followed.get(key) else { return };
        let error = ApiError::from(error);
        let (first, told) = (followed.tries == 0, followed.sends_events);
        if told && !followed.listed && followed.cursor.is_none() {
            self.followed.remove(key);
            for queued in self.publishes.drain(key) {
                actions.extend(self.failed(queued.pending.request_id.as_ref(), &error, cx.now));
            }
            return;
        }
        self.follow_again(key, actions);
        if first {
            let request_id = self
                .pending_snapshot
                .as_ref()
                .and_then(|pending_snapshot| pending_snapshot.request_id.clone());
            actions.extend(self.failed(request_id.as_ref(), &error, cx.now));
        }
    }

    /// Follows a module again after a while, from where it is.
    fn follow_again(&mut self, key: &BranchKey, actions: &mut Vec<SessionAction>) {
        let call = self.next_call();
        let resumes = self
            .pending_snapshot
            .as_ref()
            .is_some_and(|pending_snapshot| pending_snapshot.resume.is_some());
        let Some(followed) = self.followed.get_mut(key) else { return };
        let begin = match followed.cursor {
            Some(cursor) if resumes && followed.listed => FollowFrom::Resume(cursor),
            Some(cursor) => FollowFrom::After(cursor),
            None if followed.sends_events => FollowFrom::Now,
            None => FollowFrom::Tail,
        };
        let wait = pause(followed.tries);
        followed.tries += 1;
        (followed.call, followed.state) = (call, State::Opening);
        actions.push(SessionAction::Follow { call, key: key.clone(), begin, wait });
    }

    /// A follow fell too far behind and goes on from this state.
    pub(crate) fn on_resync(
        &mut self,
        call: CallId,
        snapshot: &ModuleSnapshot,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let Some(key) = self.key_of(call) else { return vec![SessionAction::Drop(call)] };
        let Some(followed) = self.followed.get_mut(&key) else { return actions };
        followed.cursor = Some(cursor_of(snapshot));
        followed.seen = snapshot.head.offset;
        let listed = followed.listed;
        self.read_last_messages(&key, &mut actions);
        // No snapshot shows a module that is not listed, so its events simply go on.
        if listed {
            self.restart_snapshot(cx, &mut actions);
        }
        actions
    }

    /// A follow's source went away: follow elsewhere, from where it was.
    pub(crate) fn on_ended(&mut self, call: CallId) -> Vec<SessionAction> {
        let mut actions = vec![SessionAction::Drop(call)];
        if let Some(key) = self.key_of(call) {
            self.follow_again(&key, &mut actions);
        }
        self.resubscribe_topic(call, &mut actions);
        actions
    }

    /// The next change of a followed module.
    pub(crate) fn on_delta(
        &mut self,
        call: CallId,
        shared: &SharedDelta,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let delta = &*shared.delta;
        let mut actions = Vec::new();
        let Some(key) = self.key_of(call) else { return vec![SessionAction::Drop(call)] };
        let Some((first, last)) = delta.events.first().zip(delta.last()) else { return actions };
        let Some(followed) = self.followed.get_mut(&key) else { return actions };
        let next = followed.cursor.map(|cursor| (cursor.incarnation, cursor.offset.next()));
        if next.is_none_or(|(incarnation, next)| {
            incarnation != delta.incarnation || first.offset > next
        }) {
            tracing::error!(branch = %key.branch, module = %key.module, "a gap in a feed");
            if followed.listed {
                followed.cursor = None;
                self.restart_snapshot(cx, &mut actions);
                return actions;
            }
            followed.seen = Offset(first.offset.0.saturating_sub(1));
        }
        let came = next.map_or(first.offset, |(_, next)| next).max(first.offset);
        followed.cursor = Some(Cursor { incarnation: delta.incarnation, offset: last });
        let (listed, told, seen) = (followed.listed, followed.sends_events, followed.seen);
        let with_records = self.member.as_ref().is_some_and(|member| member.records);
        let render =
            |delta: &model::Delta| event_frames(&self.server_id, delta, None, with_records);
        let frames = shared.frames(frame_key(with_records), render);

        let skip = delta.events.iter().take_while(|event| event.offset < came).count();
        let events = delta.events.get(skip..).unwrap_or_default();
        let mut frames = frames.get(skip..).unwrap_or_default();
        for events in events.chunk_by(|a, b| a.command == b.command) {
            let (own, rest) = frames.split_at(events.len().min(frames.len()));
            frames = rest;
            if let Some(pending) = self.publishes.take_reply(&key, events) {
                actions.extend(self.acknowledge(&pending, &key, delta.incarnation, events));
            }
            let tell = |actions: &mut Vec<SessionAction>| {
                if told {
                    actions.extend(
                        events.iter().zip(own).filter_map(|(e, f)| event_frame(seen, e, f)),
                    );
                }
            };
            // As the original: of a record all are told first, of a whole module topics are.
            let whole = events.iter().any(|event| event.record().is_none());
            if !whole {
                tell(&mut actions);
            }
            for event in events {
                let renderer = EventRenderer { server_id: &self.server_id, key: &key, event };
                self.topics.input(renderer, delta.incarnation, cx, &mut actions);
            }
            if whole {
                tell(&mut actions);
            }
        }
        self.read_for_topics(&key, &mut actions);
        let new = events.iter().filter(|event| event.offset > seen);
        if let Some(reason) = new.filter_map(|event| snapshot_reason(event)).next_back()
            && listed
            && self.pending_snapshot.is_none()
        {
            let level = ReadLevel::Session(last);
            self.begin_snapshot(PendingSnapshot::new(reason, None), level, cx, &mut actions);
        }
        actions
    }

    pub(super) fn key_of(&self, call: CallId) -> Option<BranchKey> {
        let mut followed = self.followed.iter();
        followed.find(|(_, followed)| followed.call == call).map(|(key, _)| key.clone())
    }
}

/// The frame of an event that no snapshot held; what is told by a snapshot alone has none.
fn event_frame(seen: Offset, event: &Arc<Event>, frame: &Bytes) -> Option<SessionAction> {
    let frame = Utf8Bytes::try_from(frame.clone()).ok().filter(|frame| !frame.is_empty())?;
    (event.offset > seen).then_some(SessionAction::Send(frame, FrameKind::Event))
}

/// Why a snapshot follows an event: it changed the module as a whole.
fn snapshot_reason(event: &Event) -> Option<&'static str> {
    match &event.change {
        EventChange::Record(_) => None,
        EventChange::Module(change) => match change.operation {
            BulkOperation::Purge => Some("module-purge"),
            BulkOperation::Restore => Some("module-restore"),
            BulkOperation::Reset => Some("module-reset"),
            BulkOperation::Replace => Some("module-replace"),
            // No record is another.
            BulkOperation::Sequence => None,
        },
    }
}

impl Followed {
    /// The last event the client has, by itself or in a snapshot, or that came for it.
    pub(super) fn known(&self) -> Offset {
        self.cursor.map_or(self.seen, |cursor| cursor.offset.max(self.seen))
    }

    /// Whether it was asked for and not answered yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.state, State::Opening) && self.tries == 0
    }
}
