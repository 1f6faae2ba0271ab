//! Snapshot: from a hello, a request or a module that began again to one snapshot of all modules
//! of the branch, or to the events that follow on the client's cursors. Which modules it waits for
//! is known by their subscriptions.

use std::sync::Arc;
use std::time::Duration;

use actors::RouteError;
use model::{Answer, BranchKey, Read, ReadLevel, Value};

use super::resume::ResumeFrom;
use super::{PendingSnapshot, Session, SessionAction, SessionContext};
use crate::error::{ApiError, Problem};
use crate::wire::{SnapshotFrame, SnapshotReason};
use crate::ws::dialect::LargeFrame;
use crate::ws::subscription::{CallId, FollowFrom, Passage, Refresh, ResyncReason, Subscription};

impl Session {
    /// Gets the state of all modules of the branch's list, for a snapshot of them all. `level` is
    /// how new it must be where the module is followed already.
    pub(super) fn begin_snapshot(
        &mut self,
        mut pending: PendingSnapshot,
        level: ReadLevel,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(member) = &self.member else { return };
        let branch = member.branch.clone();
        let listed = cx.catalogue.modules_of(&branch);
        let gone = |key: &BranchKey| key.branch == branch && !listed.contains(&key.module);
        let gone: Vec<BranchKey> = self
            .subscriptions
            .iter()
            .filter(|(key, module)| module.is_listed() && gone(key))
            .map(|(key, _)| key.clone())
            .collect();
        // A branch that lost a module since shows it no more, and must not wait for it.
        gone.iter().for_each(|key| self.release(key, actions));
        let mut wanted = pending.resume.as_mut().map(|resume| resume.take(&listed));
        for module in listed {
            let resumes = wanted.as_mut().and_then(|wanted| wanted.remove(&module));
            let key = BranchKey::new(branch.clone(), module);
            match resumes {
                Some(ResumeFrom::After(cursor)) => {
                    self.follow(key, FollowFrom::Resume(cursor), true, actions);
                }
                Some(ResumeFrom::Unreadable) => {
                    if let Some(resume) = &mut pending.resume {
                        resume.fails(&key.module, ResyncReason::InvalidCursor);
                    }
                    self.refresh_or_follow(key, level, actions);
                }
                None => self.refresh_or_follow(key, level, actions),
            }
        }
        // A later snapshot takes the place of one that was not sent: it shows at least as much.
        if pending.request_id.is_none() {
            let before = self.pending_snapshot.as_mut();
            pending.request_id = before.and_then(|before| before.request_id.take());
        }
        self.supersede(cx, actions);
        self.pending_snapshot = Some(pending);
        self.finish_snapshot(cx, actions);
    }

    /// Gives up the snapshot that was not sent yet, and tells whoever asked for it.
    pub(super) fn supersede(&mut self, cx: SessionContext<'_>, actions: &mut Vec<SessionAction>) {
        let before = self.pending_snapshot.take().and_then(|before| before.request_id);
        if let Some(request_id) = before {
            let message = "a later request is answered in place of this one";
            let error = ApiError::new(Problem::SnapshotSuperseded, message);
            actions.extend(self.failed(Some(&request_id), &error, cx.now));
        }
    }

    /// Has a listed module's state read, or the module followed from now on.
    fn refresh_or_follow(
        &mut self,
        key: BranchKey,
        level: ReadLevel,
        actions: &mut Vec<SessionAction>,
    ) {
        // Taken below, and only if there is something to read.
        let next = self.calls + 1;
        let refresh = self.subscriptions.get_mut(&key).map(|module| module.refresh(next, level));
        match refresh {
            Some(Refresh::Waits) => {}
            Some(Refresh::Read(level)) => {
                let (call, read, wait) = (self.next_call(), Read::Snapshot, Duration::ZERO);
                actions.push(SessionAction::Read { call, key, read, level, wait });
            }
            Some(Refresh::Follow) | None => {
                self.follow(key, FollowFrom::Snapshot, true, actions);
            }
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
        let mut subscriptions = self.subscriptions.iter_mut();
        let Some((key, subscription)) =
            subscriptions.find(|(_, module)| module.is_refreshed_by(call))
        else {
            // The module was let go of, or is refreshed by a later call.
            return actions;
        };
        let key = key.clone();
        match result {
            Ok(Answer::Snapshot(snapshot)) => {
                if !subscription.on_state(snapshot) {
                    // Another incarnation, or a replica that went back: begin with one picture.
                    self.follow(key, FollowFrom::Snapshot, true, &mut actions);
                }
            }
            Ok(other) => {
                let error = crate::scoped_store::unexpected_answer(&other);
                self.refresh_failed(key, &error, cx, &mut actions);
            }
            Err(error) => self.refresh_failed(key, &error.into(), cx, &mut actions),
        }
        self.finish_snapshot(cx, &mut actions);
        actions
    }

    fn refresh_failed(
        &mut self,
        key: BranchKey,
        error: &ApiError,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let call = self.next_call();
        let Some(subscription) = self.subscriptions.get_mut(&key) else { return };
        let first = !subscription.has_failed();
        let wait = subscription.on_state_failed(call);
        let (read, level) = (Read::Snapshot, ReadLevel::Linearizable);
        actions.push(SessionAction::Read { call, key, read, level, wait });
        if first {
            let pending = self.pending_snapshot.as_ref();
            let request_id = pending.and_then(|pending| pending.request_id.clone());
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
        let mut listed = self.subscriptions.values().filter(|module| module.is_listed());
        if !listed.all(Subscription::is_ready) {
            return;
        }
        let Some(pending) = self.pending_snapshot.take() else { return };
        let (branch, lang) = (member.branch.clone(), member.lang.clone());
        let (mut modules, mut resumed, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        for (key, subscription) in &mut self.subscriptions {
            match subscription.pass_barrier() {
                Passage::Snapshot(snapshot, opens) => {
                    opened.extend(opens.then(|| (subscription.call(), key.clone())));
                    modules.push(snapshot);
                }
                Passage::Resumed(from, to) => {
                    opened.push((subscription.call(), key.clone()));
                    resumed.push((key.module.clone(), from, to));
                }
                Passage::Nothing => {}
            }
        }
        let (reason, some) = self.announce_resumed(&branch, &pending, &resumed, actions);
        // A client whose modules all go on has asked for no snapshot.
        if some || !modules.is_empty() {
            let server_id = Arc::clone(&self.server_id);
            let flags = cx.catalogue.flags_of(&branch, None);
            let flags = flags.filter(|flag| flag.enabled).cloned().collect();
            let request_id = pending.request_id;
            let frame =
                SnapshotFrame { branch, modules, reason, request_id, server_id, lang, flags };
            actions.push(SessionAction::Write(LargeFrame::Snapshot(frame)));
        }
        // Opened after the snapshot is queued: no event may come before the state it follows.
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

    /// A stream cannot go on without a gap: a snapshot of all modules follows, unless one is being
    /// put together, which will show this one too.
    pub(super) fn restart_snapshot(
        &mut self,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        if self.pending_snapshot.is_none() {
            let level = ReadLevel::Session(model::Offset(0));
            self.begin_snapshot(
                PendingSnapshot::new(SnapshotReason::Resync, None),
                level,
                cx,
                actions,
            );
        }
    }
}
