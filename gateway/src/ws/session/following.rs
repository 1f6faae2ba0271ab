//! Following: the modules a session sees, from the snapshot each begins with to its last event.

use std::sync::Arc;
use std::time::Duration;

use actors::{Cursor, RouteError, SharedDelta};
use axum::extract::ws::Utf8Bytes;
use model::{BranchKey, ModuleId, ModuleSnapshot};

use super::{Action, Followed, Loading, Moment, Session, State, Ticket};
use crate::auth::{Access, Intent, authorize};
use crate::error::ApiError;
use crate::limits::{FOLLOW_AGAIN_AFTER, FOLLOW_AGAIN_AFTER_MAX};
use crate::metrics::Channel;
use crate::wire::{SnapshotFrame, event_frames};

impl Session {
    /// Follows all modules of the branch's list anew, for a snapshot of them all.
    pub(super) fn load(&mut self, loading: Loading, moment: Moment<'_>, actions: &mut Vec<Action>) {
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

    pub(super) fn follow(&mut self, key: BranchKey, listed: bool, actions: &mut Vec<Action>) {
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
                actions.extend(self.ack(&delta.key, event));
            }
            if let Ok(frame) = Utf8Bytes::try_from(frame.clone()) {
                actions.push(Action::Send(frame, Channel::Event));
            }
        }
        actions
    }

    fn module_of(&self, ticket: Ticket) -> Option<ModuleId> {
        let mut followed = self.followed.iter();
        followed.find(|(_, followed)| followed.ticket == ticket).map(|(module, _)| module.clone())
    }
}

impl Followed {
    /// Whether it was asked for and not answered yet.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.state, State::Opening) && self.tries == 0
    }
}
