//! Following: the modules a session sees, from where each begins to its last event.

use std::sync::Arc;
use std::time::Duration;

use actors::{Cursor, RouteError, SharedDelta};
use bytes::Bytes;
use model::{
    BranchId, BranchKey, BulkOperation, Event, EventChange, ModuleSnapshot, Offset, ReadLevel,
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::loading::{Loading, cursor_of, pause};
use super::{Action, Begin, Begun, Followed, Moment, Session, State, Ticket};
use crate::auth::{Access, Intent, authorize};
use crate::error::ApiError;
use crate::metrics::Channel;
use crate::wire::{Teller, event_frames, frame_key};

impl Session {
    /// Follows a module anew. `listed` ones are part of snapshots.
    pub(super) fn follow(
        &mut self,
        key: BranchKey,
        begin: Begin,
        listed: bool,
        actions: &mut Vec<Action>,
    ) {
        let ticket = self.ticket();
        let cursor = match begin {
            Begin::Resume(cursor) | Begin::After(cursor) => Some(cursor),
            Begin::Now | Begin::Tail => None,
        };
        let followed = Followed {
            ticket,
            listed,
            told: begin != Begin::Tail,
            state: State::Opening,
            cursor,
            seen: Offset(0),
            tries: 0,
        };
        if let Some(before) = self.followed.insert(key.clone(), followed) {
            actions.push(Action::Drop(before.ticket));
        }
        actions.push(Action::Follow { ticket, key, begin, wait: Duration::ZERO });
    }

    /// Lets go of the branch the session was in, for the next; topics keep what they need.
    pub(super) fn leave(&mut self, next: &BranchId, actions: &mut Vec<Action>) {
        self.loading = None;
        if self.member.as_ref().is_some_and(|member| member.branch != *next) {
            self.topics.leave_own();
        }
        let keys: Vec<BranchKey> = self.followed.keys().cloned().collect();
        keys.iter().for_each(|key| self.release(key, actions));
    }

    /// Lets go of a module, unless a topic is fed from it.
    pub(super) fn release(&mut self, key: &BranchKey, actions: &mut Vec<Action>) {
        let Some(followed) = self.followed.get_mut(key) else { return };
        (followed.listed, followed.told) = (false, false);
        if !self.topics.are_fed_from(key) {
            actions.push(Action::Drop(followed.ticket));
            self.followed.remove(key);
            return;
        }
        match followed.state {
            State::Refreshing(_) | State::Refreshed(_) => followed.state = State::Open,
            State::Waits(_) | State::Resumes(_) => {
                followed.state = State::Open;
                actions.push(Action::Open(followed.ticket));
            }
            State::Opening | State::Open => {}
        }
    }

    /// A follow was answered: with what it begins with, or why it does not.
    pub(crate) fn on_followed(
        &mut self,
        ticket: Ticket,
        result: Result<Begun, RouteError>,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(key) = self.key_of(ticket) else { return vec![Action::Drop(ticket)] };
        let listed = self.followed.get(&key).is_some_and(|followed| followed.listed);
        match result {
            Ok(begun) => self.begun(&key, begun, moment, &mut actions),
            Err(RouteError::UnknownModule(_) | RouteError::UnknownBranch(_)) if listed => {
                drop(self.followed.remove(&key))
            }
            Err(error) => self.not_followed(&key, error, moment, &mut actions),
        }
        self.finish_loading(moment, &mut actions);
        self.start(&mut actions);
        actions
    }

    fn begun(
        &mut self,
        key: &BranchKey,
        begun: Begun,
        moment: Moment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(followed) = self.followed.get_mut(key) else { return };
        followed.tries = 0;
        if let Some(log) = begun.log {
            return self.goes_on(key, log, actions);
        }
        if let Some(snapshot) = begun.snapshot {
            followed.cursor = Some(cursor_of(&snapshot));
            followed.seen = snapshot.head.offset;
            if followed.listed {
                followed.state = State::Waits(snapshot);
                return self.begin_again(moment, actions);
            }
        }
        followed.state = State::Open;
        actions.push(Action::Open(followed.ticket));
        self.recall(key, actions);
    }

    /// A module cannot be followed now: try again, and tell the client once.
    fn not_followed(
        &mut self,
        key: &BranchKey,
        error: RouteError,
        moment: Moment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(followed) = self.followed.get(key) else { return };
        let error = ApiError::from(error);
        let (first, told) = (followed.tries == 0, followed.told);
        if told && !followed.listed && followed.cursor.is_none() {
            self.followed.remove(key);
            for waiting in self.lanes.give_up(key) {
                actions.extend(self.failed(waiting.owed.request_id.as_ref(), &error, moment.at));
            }
            return;
        }
        self.again(key, actions);
        if first {
            let request_id = self.loading.as_ref().and_then(|loading| loading.request_id.clone());
            actions.extend(self.failed(request_id.as_ref(), &error, moment.at));
        }
    }

    /// Follows a module again after a while, from where it is.
    fn again(&mut self, key: &BranchKey, actions: &mut Vec<Action>) {
        let ticket = self.ticket();
        let resumes = self.loading.as_ref().is_some_and(|loading| loading.resume.is_some());
        let Some(followed) = self.followed.get_mut(key) else { return };
        let begin = match followed.cursor {
            Some(cursor) if resumes && followed.listed => Begin::Resume(cursor),
            Some(cursor) => Begin::After(cursor),
            None if followed.told => Begin::Now,
            None => Begin::Tail,
        };
        let wait = pause(followed.tries);
        followed.tries += 1;
        (followed.ticket, followed.state) = (ticket, State::Opening);
        actions.push(Action::Follow { ticket, key: key.clone(), begin, wait });
    }

    /// A follow fell too far behind and goes on from this state.
    pub(crate) fn on_resync(
        &mut self,
        ticket: Ticket,
        snapshot: &ModuleSnapshot,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(key) = self.key_of(ticket) else { return vec![Action::Drop(ticket)] };
        let Some(followed) = self.followed.get_mut(&key) else { return actions };
        followed.cursor = Some(cursor_of(snapshot));
        followed.seen = snapshot.head.offset;
        let listed = followed.listed;
        self.recall(&key, &mut actions);
        // No snapshot shows a module that is not listed, so its events simply go on.
        if listed {
            self.begin_again(moment, &mut actions);
        }
        actions
    }

    /// A follow's source went away: follow elsewhere, from where it was.
    pub(crate) fn on_ended(&mut self, ticket: Ticket) -> Vec<Action> {
        let mut actions = vec![Action::Drop(ticket)];
        if let Some(key) = self.key_of(ticket) {
            self.again(&key, &mut actions);
        }
        self.listen_again(ticket, &mut actions);
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
        let Some(key) = self.key_of(ticket) else { return vec![Action::Drop(ticket)] };
        if authorize(&self.principal, &Access::module(Intent::Follow, &key)).is_err() {
            self.followed.remove(&key);
            return vec![Action::Drop(ticket)];
        }
        let Some((first, last)) = delta.events.first().zip(delta.last()) else { return actions };
        let Some(followed) = self.followed.get_mut(&key) else { return actions };
        let next = followed.cursor.map(|cursor| (cursor.incarnation, cursor.offset.next()));
        if next.is_none_or(|(life, next)| life != delta.incarnation || first.offset > next) {
            tracing::error!(branch = %key.branch, module = %key.module, "a gap in a feed");
            if followed.listed {
                followed.cursor = None;
                self.begin_again(moment, &mut actions);
                return actions;
            }
            followed.seen = Offset(first.offset.0.saturating_sub(1));
        }
        let came = next.map_or(first.offset, |(_, next)| next).max(first.offset);
        followed.cursor = Some(Cursor { incarnation: delta.incarnation, offset: last });
        let (listed, told, seen) = (followed.listed, followed.told, followed.seen);
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
            if let Some(owed) = self.lanes.owes(&key, events) {
                actions.extend(self.acknowledge(&owed, &key, delta.incarnation, events));
            }
            let tell = |actions: &mut Vec<Action>| {
                if told {
                    actions.extend(events.iter().zip(own).filter_map(|(e, f)| unseen(seen, e, f)));
                }
            };
            // As the original: of a record all are told first, of a whole module topics are.
            let whole = events.iter().any(|event| event.record().is_none());
            if !whole {
                tell(&mut actions);
            }
            for event in events {
                let teller = Teller { server_id: &self.server_id, key: &key, event };
                self.topics.feed(teller, delta.incarnation, moment, &mut actions);
            }
            if whole {
                tell(&mut actions);
            }
        }
        self.read_for_topics(&key, &mut actions);
        let new = events.iter().filter(|event| event.offset > seen);
        if let Some(reason) = new.filter_map(|event| begins_again(event)).next_back()
            && listed
            && self.loading.is_none()
        {
            let level = ReadLevel::Session(last);
            self.load(Loading::new(reason, None), level, moment, &mut actions);
        }
        actions
    }

    pub(super) fn key_of(&self, ticket: Ticket) -> Option<BranchKey> {
        let mut followed = self.followed.iter();
        followed.find(|(_, followed)| followed.ticket == ticket).map(|(key, _)| key.clone())
    }
}

/// The frame of an event that no snapshot held; what is told by a snapshot alone has none.
fn unseen(seen: Offset, event: &Arc<Event>, frame: &Bytes) -> Option<Action> {
    let frame = Utf8Bytes::try_from(frame.clone()).ok().filter(|frame| !frame.is_empty())?;
    (event.offset > seen).then_some(Action::Send(frame, Channel::Event))
}

/// Why a snapshot follows an event: it changed the module as a whole.
fn begins_again(event: &Event) -> Option<&'static str> {
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
