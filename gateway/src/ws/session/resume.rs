//! Resume: a client that comes back with its cursors gets exactly the events it missed. What
//! cannot be continued is said (`server:resync`) and comes in a snapshot.

use std::collections::BTreeMap;

use actors::Cursor;
use model::{BranchId, BranchKey, ModuleId, Object, Offset, Value};

use super::{FollowFrom, LogEnd, PendingSnapshot, Session, SessionAction, State, control};
use crate::wire::WireCursor;
use crate::ws::frame;

/// What the client wants of each module.
pub(super) type Wants = BTreeMap<ModuleId, ResumeFrom>;

/// What a hello said about where it goes on, and what became of it.
#[derive(Default)]
pub(super) struct Resume {
    named: BTreeMap<String, ResumeFrom>,
    /// Modules that begin again, and why.
    failed: Vec<(String, &'static str)>,
}

/// What the client wants of one module.
pub(super) enum ResumeFrom {
    /// The events after this one.
    After(Cursor),
    /// What it said is no cursor.
    Unreadable,
}

/// Reads `resume: {<module>: {epoch, sequence}}`.
pub(super) fn read(frame: &Object) -> Option<Resume> {
    let named = match frame.get("resume")? {
        Value::Null => return None,
        Value::Object(modules) => modules,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Some(Resume::default());
        }
    };
    let wanted = |cursor: &Value| {
        let cursor = cursor.as_object().and_then(WireCursor::read);
        cursor.map_or(ResumeFrom::Unreadable, ResumeFrom::After)
    };
    let named = named.iter().map(|(module, cursor)| (module.to_string(), wanted(cursor)));
    Some(Resume { named: named.collect(), failed: Vec::new() })
}

impl Resume {
    /// What is wanted of the modules of a list; the others cannot be continued here.
    pub(super) fn take(&mut self, listed: &[ModuleId]) -> Wants {
        let mut wants = Wants::new();
        for (name, wanted) in std::mem::take(&mut self.named) {
            match listed.iter().find(|module| module.as_str() == name) {
                Some(module) => drop(wants.insert(module.clone(), wanted)),
                None => self.failed.push((name, "not-in-branch")),
            }
        }
        wants
    }

    /// A module begins again.
    pub(super) fn fails(&mut self, module: &ModuleId, why: &'static str) {
        self.failed.push((module.to_string(), why));
    }
}

impl Session {
    /// The log was asked whether it goes on from where a follow is to begin.
    pub(super) fn on_log_end(
        &mut self,
        key: &BranchKey,
        log: LogEnd,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(followed) = self.followed.get_mut(key) else { return };
        let Some(from) = followed.cursor else {
            // Only topics are fed from it: what happens from now on is enough.
            followed.cursor = Some(Cursor { incarnation: log.incarnation, offset: log.last });
            followed.seen = log.last;
            followed.state = State::Open;
            actions.push(SessionAction::Open(followed.call));
            return self.read_last_messages(key, actions);
        };
        let Some(why) = why_not_resumable(from, log) else {
            followed.seen = from.offset;
            followed.state = State::Resumes(log.last);
            return;
        };
        if let Some(resume) = self
            .pending_snapshot
            .as_mut()
            .and_then(|pending_snapshot| pending_snapshot.resume.as_mut())
        {
            resume.fails(&key.module, why);
        }
        self.follow(key.clone(), FollowFrom::Now, true, actions);
    }

    /// Says which modules go on and which begin again. Returns the reason of the snapshot that
    /// follows, and whether there is one even without modules.
    pub(super) fn announce_resumed(
        &self,
        branch: &BranchId,
        pending_snapshot: &PendingSnapshot,
        resumed: &[(ModuleId, Cursor, Offset)],
        actions: &mut Vec<SessionAction>,
    ) -> (&'static str, bool) {
        let Some(resume) = &pending_snapshot.resume else { return (pending_snapshot.reason, true) };
        let stretch = |(module, from, last): &(ModuleId, Cursor, Offset)| {
            (module.clone(), WireCursor::from(*from), WireCursor::new(from.incarnation, *last))
        };
        let modules: Vec<_> = resumed.iter().map(stretch).collect();
        actions.push(control(frame::resumed(
            branch,
            &modules,
            pending_snapshot.request_id.as_ref(),
        )));
        for (module, why) in &resume.failed {
            actions.push(control(frame::resync(branch, module, why)));
        }
        let begins = resume.failed.iter().any(|(_, why)| *why != "not-in-branch");
        (if begins { "resync" } else { pending_snapshot.reason }, false)
    }
}

/// Why a log does not go on from a cursor, if it does not.
fn why_not_resumable(from: Cursor, log: LogEnd) -> Option<&'static str> {
    if from.incarnation != log.incarnation {
        return Some("other-epoch");
    }
    if from.offset > log.last {
        return Some("ahead");
    }
    (!log.is_retained).then_some("too-old")
}
