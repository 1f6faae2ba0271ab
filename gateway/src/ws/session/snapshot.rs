//! Loading: from a hello, a request or a module that began again to one `server:snapshot` of all
//! modules of the branch, or to the events that follow on the client's cursors.

use std::sync::Arc;
use std::time::Duration;

use actors::{Cursor, RouteError};
use model::{Answer, BranchKey, ModuleSnapshot, Read, ReadLevel, Value};

use super::resume::ResumeFrom;
use super::{
    CallId, FollowFrom, LargeFrame, PendingSnapshot, Session, SessionAction, SessionContext, State,
};
use crate::error::ApiError;
use crate::limits::{FOLLOW_AGAIN_AFTER, FOLLOW_AGAIN_AFTER_MAX};
use crate::wire::SnapshotFrame;

impl Session {
    /// Gets the state of all modules of the branch's list, for a snapshot of them all. `level` is
    /// how new it must be where the module is followed already.
    pub(super) fn begin_snapshot(
        &mut self,
        mut pending_snapshot: PendingSnapshot,
        level: ReadLevel,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(member) = &self.member else { return };
        let branch = member.branch.clone();
        let listed = cx.catalogue.modules_of(&branch);
        let gone = |key: &BranchKey| key.branch == branch && !listed.contains(&key.module);
        let gone: Vec<BranchKey> = self
            .followed
            .iter()
            .filter(|(key, followed)| followed.listed && gone(key))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| self.release(key, actions));
        let mut wanted = pending_snapshot.resume.as_mut().map(|resume| resume.take(&listed));
        for module in listed {
            let resumes = wanted.as_mut().and_then(|wanted| wanted.remove(&module));
            let key = BranchKey::new(branch.clone(), module);
            match resumes {
                Some(ResumeFrom::After(cursor)) => {
                    self.follow(key, FollowFrom::Resume(cursor), true, actions);
                }
                Some(ResumeFrom::Unreadable) => {
                    if let Some(resume) = &mut pending_snapshot.resume {
                        resume.fails(&key.module, "invalid-cursor");
                    }
                    self.refresh_or_follow(key, level, actions);
                }
                None => self.refresh_or_follow(key, level, actions),
            }
        }
        self.pending_snapshot = Some(pending_snapshot);
        self.finish_snapshot(cx, actions);
    }

    /// Has a listed module's state read, or the module followed from now on.
    fn refresh_or_follow(
        &mut self,
        key: BranchKey,
        level: ReadLevel,
        actions: &mut Vec<SessionAction>,
    ) {
        let next = self.calls + 1;
        let Some(followed) = self.followed.get_mut(&key) else {
            return self.follow(key, FollowFrom::Now, true, actions);
        };
        match (&followed.state, followed.cursor) {
            (State::Waits(_), _) => (followed.listed, followed.sends_events) = (true, true),
            (State::Open | State::Refreshing(_) | State::Refreshed(_), Some(_)) => {
                let level = match level {
                    ReadLevel::Linearizable => level,
                    ReadLevel::Session(_) | ReadLevel::Stale => {
                        ReadLevel::Session(followed.known())
                    }
                };
                (followed.listed, followed.sends_events) = (true, true);
                followed.state = State::Refreshing(next);
                let (call, read, wait) = (self.next_call(), Read::Snapshot, Duration::ZERO);
                actions.push(SessionAction::Read { call, key, read, level, wait });
            }
            _ => self.follow(key, FollowFrom::Now, true, actions),
        }
    }

    /// A module's state came for a snapshot.
    pub(super) fn on_refreshed(
        &mut self,
        call: CallId,
        result: Result<Answer, RouteError>,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let Some(key) = self.refreshing(call) else { return actions };
        match result {
            Ok(Answer::Snapshot(snapshot)) => self.refreshed(key, snapshot, &mut actions),
            Ok(other) => {
                let error = crate::scoped_store::unexpected_answer(&other);
                self.not_refreshed(key, &error, cx, &mut actions);
            }
            Err(error) => self.not_refreshed(key, &error.into(), cx, &mut actions),
        }
        self.finish_snapshot(cx, &mut actions);
        actions
    }

    fn refreshing(&self, call: CallId) -> Option<BranchKey> {
        let mut followed = self.followed.iter();
        let same = |state: &State| matches!(state, State::Refreshing(own) if *own == call);
        followed.find(|(_, followed)| same(&followed.state)).map(|(key, _)| key.clone())
    }

    fn refreshed(
        &mut self,
        key: BranchKey,
        snapshot: Arc<ModuleSnapshot>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(followed) = self.followed.get_mut(&key) else { return };
        followed.tries = 0;
        let head = &snapshot.head;
        let incarnation = followed.cursor.map(|cursor| cursor.incarnation);
        let follows_on = incarnation == Some(head.incarnation) && followed.known() <= head.offset;
        if follows_on {
            followed.state = State::Refreshed(snapshot);
        } else {
            // Another life of the log, or a replica that went back: begin with one picture.
            self.follow(key, FollowFrom::Now, true, actions);
        }
    }

    fn not_refreshed(
        &mut self,
        key: BranchKey,
        error: &ApiError,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let call = self.next_call();
        let Some(followed) = self.followed.get_mut(&key) else { return };
        let tries = followed.tries;
        followed.tries += 1;
        followed.state = State::Refreshing(call);
        let (read, level, wait) = (Read::Snapshot, ReadLevel::Linearizable, pause(tries));
        actions.push(SessionAction::Read { call, key, read, level, wait });
        if tries == 0 {
            let request_id = self
                .pending_snapshot
                .as_ref()
                .and_then(|pending_snapshot| pending_snapshot.request_id.clone());
            actions.extend(self.failed(request_id.as_ref(), error, cx.now));
        }
    }

    /// Sends the snapshot once every module of the list is there, and opens their streams.
    pub(super) fn finish_snapshot(
        &mut self,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(member) = &self.member else { return };
        let misses = |state: &State| matches!(state, State::Opening | State::Refreshing(_));
        let mut listed = self.followed.values().filter(|followed| followed.listed);
        if self.pending_snapshot.is_none() || listed.any(|followed| misses(&followed.state)) {
            return;
        }
        let Some(pending_snapshot) = self.pending_snapshot.take() else { return };
        let (branch, lang) = (member.branch.clone(), member.lang.clone());
        let (mut modules, mut resumed, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        for (key, followed) in &mut self.followed {
            let fresh = match std::mem::replace(&mut followed.state, State::Open) {
                State::Waits(snapshot) => {
                    opened.push((followed.call, key.clone()));
                    snapshot
                }
                State::Refreshed(snapshot) => snapshot,
                State::Resumes(last) => {
                    opened.push((followed.call, key.clone()));
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
        let (reason, some) = self.announce_resumed(&branch, &pending_snapshot, &resumed, actions);
        if some || !modules.is_empty() {
            let server_id = Arc::clone(&self.server_id);
            let flags = cx.catalogue.flags_of(&branch, None);
            let flags = flags.filter(|flag| flag.enabled).cloned().collect();
            let request_id = pending_snapshot.request_id;
            let frame =
                SnapshotFrame { branch, modules, reason, request_id, server_id, lang, flags };
            actions.push(SessionAction::Write(LargeFrame::Snapshot(frame)));
        }
        for (call, key) in opened {
            actions.push(SessionAction::Open(call));
            self.read_last_messages(&key, actions);
        }
    }

    /// A snapshot or another large frame could not be written.
    pub(crate) fn on_not_written(
        &self,
        request_id: Option<&Value>,
        error: &ApiError,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        self.failed(request_id, error, cx.now)
    }

    /// The stream cannot go on without a gap.
    pub(super) fn restart_snapshot(
        &mut self,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        if self.pending_snapshot.is_none() {
            let level = ReadLevel::Session(model::Offset(0));
            self.begin_snapshot(PendingSnapshot::new("resync", None), level, cx, actions);
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
