//! Loading: from a hello, a request or a module that began again to one `server:snapshot` of all
//! modules of the branch, or to the events that follow on the client's cursors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::{Cursor, RouteError};
use model::{Answer, BranchKey, ModuleId, ModuleSnapshot, Read, ReadLevel, Value};

use super::resume::{Resume, Wanted};
use super::{Action, Begin, Large, Moment, Session, State, Ticket};
use crate::error::ApiError;
use crate::limits::{FOLLOW_AGAIN_AFTER, FOLLOW_AGAIN_AFTER_MAX};
use crate::wire::SnapshotFrame;

/// A snapshot that waits for its modules.
pub(super) struct Loading {
    pub(super) reason: &'static str,
    pub(super) request_id: Option<Value>,
    /// Where the client goes on, if it said so.
    pub(super) resume: Option<Resume>,
}

impl Loading {
    pub(super) fn new(reason: &'static str, request_id: Option<Value>) -> Self {
        Self { reason, request_id, resume: None }
    }
}

impl Session {
    /// Gets the state of all modules of the branch's list, for a snapshot of them all. `level` is
    /// how new it must be where the module is followed already.
    pub(super) fn load(
        &mut self,
        mut loading: Loading,
        level: ReadLevel,
        moment: Moment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(member) = &self.member else { return };
        let branch = member.branch.clone();
        let listed = moment.catalogue.modules_of(&branch);
        let gone = |key: &BranchKey| key.branch == branch && !listed.contains(&key.module);
        let gone: Vec<BranchKey> = self
            .followed
            .iter()
            .filter(|(key, followed)| followed.listed && gone(key))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| self.release(key, actions));
        let mut wanted = loading.resume.as_mut().map(|resume| resume.take(&listed));
        for module in listed {
            let resumes = wanted.as_mut().and_then(|wanted| wanted.remove(&module));
            let key = BranchKey::new(branch.clone(), module);
            match resumes {
                Some(Wanted::After(cursor)) => {
                    self.follow(key, Begin::Resume(cursor), true, actions);
                }
                Some(Wanted::Unreadable) => {
                    if let Some(resume) = &mut loading.resume {
                        resume.fails(&key.module, "invalid-cursor");
                    }
                    self.have(key, level, actions);
                }
                None => self.have(key, level, actions),
            }
        }
        self.loading = Some(loading);
        self.finish_loading(moment, actions);
    }

    /// Has a listed module's state read, or the module followed from now on.
    fn have(&mut self, key: BranchKey, level: ReadLevel, actions: &mut Vec<Action>) {
        let next = self.tickets + 1;
        let Some(followed) = self.followed.get_mut(&key) else {
            return self.follow(key, Begin::Now, true, actions);
        };
        match (&followed.state, followed.cursor) {
            (State::Waits(_), _) => (followed.listed, followed.told) = (true, true),
            (State::Open | State::Refreshing(_) | State::Refreshed(_), Some(_)) => {
                let level = match level {
                    ReadLevel::Linearizable => level,
                    ReadLevel::Session(_) | ReadLevel::Stale => {
                        ReadLevel::Session(followed.known())
                    }
                };
                (followed.listed, followed.told) = (true, true);
                followed.state = State::Refreshing(next);
                let (ticket, read, wait) = (self.ticket(), Read::Snapshot, Duration::ZERO);
                actions.push(Action::Read { ticket, key, read, level, wait });
            }
            _ => self.follow(key, Begin::Now, true, actions),
        }
    }

    /// A module's state came for a snapshot.
    pub(super) fn on_refreshed(
        &mut self,
        ticket: Ticket,
        result: Result<Answer, RouteError>,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(key) = self.refreshing(ticket) else { return actions };
        match result {
            Ok(Answer::Snapshot(snapshot)) => self.refreshed(key, snapshot, &mut actions),
            Ok(other) => {
                let error = crate::scoped_store::unexpected_answer(&other);
                self.not_refreshed(key, &error, moment, &mut actions);
            }
            Err(error) => self.not_refreshed(key, &error.into(), moment, &mut actions),
        }
        self.finish_loading(moment, &mut actions);
        actions
    }

    fn refreshing(&self, ticket: Ticket) -> Option<BranchKey> {
        let mut followed = self.followed.iter();
        let same = |state: &State| matches!(state, State::Refreshing(own) if *own == ticket);
        followed.find(|(_, followed)| same(&followed.state)).map(|(key, _)| key.clone())
    }

    fn refreshed(
        &mut self,
        key: BranchKey,
        snapshot: Arc<ModuleSnapshot>,
        actions: &mut Vec<Action>,
    ) {
        let Some(followed) = self.followed.get_mut(&key) else { return };
        followed.tries = 0;
        let head = &snapshot.head;
        let life = followed.cursor.map(|cursor| cursor.incarnation);
        let follows_on = life == Some(head.incarnation) && followed.known() <= head.offset;
        if follows_on {
            followed.state = State::Refreshed(snapshot);
        } else {
            // Another life of the log, or a replica that went back: begin with one picture.
            self.follow(key, Begin::Now, true, actions);
        }
    }

    fn not_refreshed(
        &mut self,
        key: BranchKey,
        error: &ApiError,
        moment: Moment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let ticket = self.ticket();
        let Some(followed) = self.followed.get_mut(&key) else { return };
        let tries = followed.tries;
        followed.tries += 1;
        followed.state = State::Refreshing(ticket);
        let (read, level, wait) = (Read::Snapshot, ReadLevel::Linearizable, pause(tries));
        actions.push(Action::Read { ticket, key, read, level, wait });
        if tries == 0 {
            let request_id = self.loading.as_ref().and_then(|loading| loading.request_id.clone());
            actions.extend(self.failed(request_id.as_ref(), error, moment.at));
        }
    }

    /// Sends the snapshot once every module of the list is there, and opens their streams.
    pub(super) fn finish_loading(&mut self, moment: Moment<'_>, actions: &mut Vec<Action>) {
        let Some(member) = &self.member else { return };
        let misses = |state: &State| matches!(state, State::Opening | State::Refreshing(_));
        let mut listed = self.followed.values().filter(|followed| followed.listed);
        if self.loading.is_none() || listed.any(|followed| misses(&followed.state)) {
            return;
        }
        let Some(loading) = self.loading.take() else { return };
        let (branch, lang) = (member.branch.clone(), member.lang.clone());
        let (mut modules, mut resumed, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        for (key, followed) in &mut self.followed {
            let fresh = match std::mem::replace(&mut followed.state, State::Open) {
                State::Waits(snapshot) => {
                    opened.push((followed.ticket, key.clone()));
                    snapshot
                }
                State::Refreshed(snapshot) => snapshot,
                State::Resumes(last) => {
                    opened.push((followed.ticket, key.clone()));
                    resumed.extend(followed.cursor.map(|from| (key.module.clone(), from, last)));
                    continue;
                }
                state @ (State::Opening | State::Refreshing(_) | State::Open) => {
                    followed.state = state;
                    continue;
                }
            };
            followed.seen = fresh.head.offset;
            modules.push(fresh);
        }
        let (reason, some) = self.tell_resumed(&branch, &loading, &resumed, actions);
        if some || !modules.is_empty() {
            let server_id = Arc::clone(&self.server_id);
            let flags = moment.catalogue.flags_of(&branch, None);
            let flags = flags.filter(|flag| flag.enabled).cloned().collect();
            let request_id = loading.request_id;
            let frame =
                SnapshotFrame { branch, modules, reason, request_id, server_id, lang, flags };
            actions.push(Action::Write(Large::Snapshot(frame)));
        }
        for (ticket, key) in opened {
            actions.push(Action::Open(ticket));
            self.recall(&key, actions);
        }
    }

    /// A snapshot or another large frame could not be written.
    pub(crate) fn on_not_written(
        &self,
        request_id: Option<&Value>,
        error: &ApiError,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        self.failed(request_id, error, moment.at)
    }

    /// The stream cannot go on without a gap.
    pub(super) fn begin_again(&mut self, moment: Moment<'_>, actions: &mut Vec<Action>) {
        if self.loading.is_none() {
            let level = ReadLevel::Session(model::Offset(0));
            self.load(Loading::new("resync", None), level, moment, actions);
        }
    }
}

/// How long to wait before the next try.
pub(super) fn pause(tries: u32) -> Duration {
    let wait = FOLLOW_AGAIN_AFTER.saturating_mul(1 << tries.min(16));
    wait.min(FOLLOW_AGAIN_AFTER_MAX)
}

/// Where a snapshot stands.
pub(super) fn cursor_of(snapshot: &ModuleSnapshot) -> Cursor {
    Cursor { incarnation: snapshot.head.incarnation, offset: snapshot.head.offset }
}

/// What the client wants of each module.
pub(super) type Wants = BTreeMap<ModuleId, Wanted>;
