//! Follow: the modules of a session, from where each begins to its last event. What a follow's
//! answer, delta or end means is decided by the subscription; here it becomes calls and frames.

use std::sync::Arc;
use std::time::Duration;

use actors::{RouteError, SharedDelta};
use bytes::Bytes;
use model::{
    BranchId, BranchKey, BulkOperation, Delta, Event, EventChange, ModuleSnapshot, ReadLevel,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{PendingSnapshot, Session, SessionAction, SessionContext};
use crate::error::ApiError;
use crate::metrics::FrameKind;
use crate::wire::{EventRenderer, SnapshotReason};
use crate::ws::dialect::{event_frames, frame_key};
use crate::ws::subscription::{CallId, Delivery, FollowFrom, FollowStart, Start, Subscription};

impl Session {
    /// Follows a module anew. `listed` ones are part of snapshots.
    pub(super) fn follow(
        &mut self,
        key: BranchKey,
        from: FollowFrom,
        listed: bool,
        actions: &mut Vec<SessionAction>,
    ) {
        let call = self.next_call();
        let subscription = Subscription::new(call, from, listed);
        // Dropped before the new one is asked for: two streams of one module would send twice.
        if let Some(before) = self.subscriptions.insert(key.clone(), subscription) {
            actions.push(SessionAction::Drop(before.call()));
        }
        actions.push(SessionAction::Follow { call, key, from, wait: Duration::ZERO });
    }

    /// Lets go of the branch the session was in, for the next; topics keep what they need.
    pub(super) fn leave(
        &mut self,
        next: &BranchId,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        self.supersede(cx, actions);
        if self.member.as_ref().is_some_and(|member| member.branch != *next) {
            self.topics.leave_own_branch();
        }
        let keys: Vec<BranchKey> = self.subscriptions.keys().cloned().collect();
        keys.iter().for_each(|key| self.release(key, actions));
    }

    /// Lets go of a module, unless a topic is fed from it.
    pub(super) fn release(&mut self, key: &BranchKey, actions: &mut Vec<SessionAction>) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let call = subscription.call();
        let opens = subscription.release();
        // Its events are not sent any more, but a topic may still be fed from them.
        if !self.topics.read_from(key) {
            actions.push(SessionAction::Drop(call));
            self.subscriptions.remove(key);
        } else if opens {
            actions.push(SessionAction::Open(call));
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
        let listed = self.subscriptions.get(&key).is_some_and(Subscription::is_listed);
        match result {
            Ok(start) => self.on_follow_started(&key, start, cx, &mut actions),
            // The list named a module that is gone: the snapshot must not wait for it.
            Err(RouteError::UnknownModule(_) | RouteError::UnknownBranch(_)) if listed => {
                drop(self.subscriptions.remove(&key));
            }
            Err(error) => self.follow_failed(&key, error, cx, &mut actions),
        }
        // Whatever became of it, it may have been the last one that others waited for.
        self.finish_snapshot(cx, &mut actions);
        self.submit_ready(&mut actions);
        actions
    }

    fn on_follow_started(
        &mut self,
        key: &BranchKey,
        start: FollowStart,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        match subscription.on_started(start) {
            Start::Live => {
                actions.push(SessionAction::Open(subscription.call()));
                self.read_last_messages(key, actions);
            }
            // Also after a cursor whose events are gone from the log: then no snapshot is pending.
            Start::Snapshot => self.restart_snapshot(cx, actions),
            Start::Resumed => {}
            Start::Broken(reason) => {
                let pending = self.pending_snapshot.as_mut();
                if let Some(resume) = pending.and_then(|pending| pending.resume.as_mut()) {
                    resume.fails(&key.module, reason);
                }
                self.follow(key.clone(), FollowFrom::Snapshot, true, actions);
            }
        }
    }

    /// A module cannot be followed now: try again, and tell the client once.
    fn follow_failed(
        &mut self,
        key: &BranchKey,
        error: RouteError,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(subscription) = self.subscriptions.get(key) else { return };
        let error = ApiError::from(error);
        let first = !subscription.has_failed();
        if subscription.is_for_publishes_only() {
            // Nothing was submitted yet, so each publish is refused and the client may repeat it.
            self.subscriptions.remove(key);
            for queued in self.publishes.drain(key) {
                actions.extend(self.failed(queued.pending.request_id.as_ref(), &error, cx.now));
            }
            return;
        }
        self.follow_again(key, actions);
        if first {
            let pending = self.pending_snapshot.as_ref();
            let request_id = pending.and_then(|pending| pending.request_id.clone());
            actions.extend(self.failed(request_id.as_ref(), &error, cx.now));
        }
    }

    /// Follows a module again after a while, from where it is.
    fn follow_again(&mut self, key: &BranchKey, actions: &mut Vec<SessionAction>) {
        let call = self.next_call();
        let pending = self.pending_snapshot.as_ref();
        let resuming = pending.is_some_and(|pending| pending.resume.is_some());
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let (from, wait) = subscription.retry(call, resuming);
        actions.push(SessionAction::Follow { call, key: key.clone(), from, wait });
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
        let Some(subscription) = self.subscriptions.get_mut(&key) else { return actions };
        // The state itself is not shown: the snapshot of all modules reads one that is as new.
        subscription.on_resync(snapshot);
        let listed = subscription.is_listed();
        self.read_last_messages(&key, &mut actions);
        // No snapshot shows a module that is not listed, so its events simply go on.
        if listed {
            self.restart_snapshot(cx, &mut actions);
        }
        actions
    }

    /// A stream ended: follow, or listen, again from where it was.
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
        let Some(subscription) = self.subscriptions.get_mut(&key) else { return actions };
        let new = match subscription.on_delta(delta.incarnation, first.offset, last) {
            Delivery::From(new) => new,
            Delivery::AfterGap(new) => {
                tracing::error!(branch = %key.branch, module = %key.module, "a gap in a feed");
                new
            }
            Delivery::Restart => {
                tracing::error!(branch = %key.branch, module = %key.module, "a gap in a feed");
                self.restart_snapshot(cx, &mut actions);
                return actions;
            }
        };
        // A source may begin with a delta whose first events came before.
        let skip = delta.events.iter().take_while(|event| event.offset < new).count();
        self.deliver(&key, shared, skip, cx, &mut actions);
        self.read_for_topics(&key, &mut actions);
        self.snapshot_after(&key, delta.events.get(skip..).unwrap_or_default(), cx, &mut actions);
        actions
    }

    /// Sends the events of a delta but for the first ones, each command's after its reply.
    fn deliver(
        &mut self,
        key: &BranchKey,
        shared: &SharedDelta,
        skip: usize,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let delta = &*shared.delta;
        let with_records = self.member.as_ref().is_some_and(|member| member.records);
        let render =
            |delta: &Delta| event_frames(self.dialect, &self.server_id, delta, None, with_records);
        // Written by the first session of this node that gets here, and shared by all others of its
        // dialect and class.
        let shared_by = frame_key(self.dialect, self.policy_class, with_records);
        let frames = shared.frames(shared_by, render);
        let Some(subscription) = self.subscriptions.get(key) else { return };
        let send = |events: &[Arc<Event>], frames: &[Bytes], actions: &mut Vec<SessionAction>| {
            if subscription.sends_events() {
                let pairs = events.iter().zip(frames);
                let pairs = pairs.filter(|(event, _)| subscription.is_undelivered(event.offset));
                actions.extend(pairs.filter_map(|(_, frame)| event_frame(frame)));
            }
        };
        let mut frames = frames.get(skip..).unwrap_or_default();
        let events = delta.events.get(skip..).unwrap_or_default();
        for events in events.chunk_by(|a, b| a.command == b.command) {
            let (own, rest) = frames.split_at(events.len().min(frames.len()));
            frames = rest;
            // Also where a snapshot held the events: the client waits for its reply all the same.
            if let Some(pending) = self.publishes.take_reply(key, events) {
                actions.extend(self.acknowledge(&pending, key, delta.incarnation, events));
            }
            // As the original: of a record the event is sent first, of a whole module the topics'.
            let whole = events.iter().any(|event| event.record().is_none());
            if !whole {
                send(events, own, actions);
            }
            for event in events {
                let renderer = EventRenderer { server_id: &self.server_id, key, event };
                self.topics.on_event(renderer, delta.incarnation, self.dialect, cx, actions);
            }
            if whole {
                send(events, own, actions);
            }
        }
    }

    /// Has a snapshot follow these events if one of them changed the module as a whole.
    fn snapshot_after(
        &mut self,
        key: &BranchKey,
        events: &[Arc<Event>],
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(subscription) = self.subscriptions.get(key) else { return };
        let new = events.iter().filter(|event| subscription.is_undelivered(event.offset));
        let reason = new.filter_map(|event| snapshot_reason(event)).next_back();
        // One that is being put together already will be new enough: it is read after this.
        if let (Some(reason), true, None) =
            (reason, subscription.is_listed(), &self.pending_snapshot)
        {
            let level = ReadLevel::Session(subscription.known());
            self.begin_snapshot(PendingSnapshot::new(reason, None), level, cx, actions);
        }
    }

    pub(super) fn key_of(&self, call: CallId) -> Option<BranchKey> {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.find(|(_, module)| module.call() == call).map(|(key, _)| key.clone())
    }
}

/// What is shown by a snapshot alone has an empty frame, and no action.
fn event_frame(frame: &Bytes) -> Option<SessionAction> {
    let frame = Utf8Bytes::try_from(frame.clone()).ok().filter(|frame| !frame.is_empty())?;
    Some(SessionAction::Send(frame, FrameKind::Event))
}

/// Why a snapshot follows an event: it changed the module as a whole.
fn snapshot_reason(event: &Event) -> Option<SnapshotReason> {
    match &event.change {
        EventChange::Record(_) => None,
        EventChange::Module(change) => match change.operation {
            BulkOperation::Purge => Some(SnapshotReason::Purge),
            BulkOperation::Restore => Some(SnapshotReason::Restore),
            BulkOperation::Reset => Some(SnapshotReason::Reset),
            BulkOperation::Replace => Some(SnapshotReason::Replace),
            // No record is another.
            BulkOperation::Sequence | BulkOperation::Clock => None,
        },
    }
}
