//! Resume: a client that comes back with its cursors gets exactly the events it missed. What
//! cannot be continued is said (`server:resync`) and comes in a snapshot.

use std::collections::BTreeMap;

use actors::Cursor;
use model::{BranchId, ModuleId, Object, Value};

use super::{PendingSnapshot, Session, SessionAction};
use crate::wire::{SnapshotReason, WireCursor};
use crate::ws::dialect::{ResumedModule, ServerFrame};
use crate::ws::subscription::ResyncReason;

/// What the client wants of each module.
pub(super) type Wants = BTreeMap<ModuleId, ResumeFrom>;

/// What a hello said about where it goes on, and what became of it.
#[derive(Default)]
pub(super) struct Resume {
    named: BTreeMap<String, ResumeFrom>,
    /// Modules that begin again, and why.
    failed: Vec<(String, ResyncReason)>,
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
                None => self.failed.push((name, ResyncReason::NotInBranch)),
            }
        }
        wants
    }

    /// A module begins again.
    pub(super) fn fails(&mut self, module: &ModuleId, why: ResyncReason) {
        self.failed.push((module.to_string(), why));
    }
}

impl Session {
    /// Says which modules go on and which begin again. Returns the reason of the snapshot that
    /// follows, and whether there is one even without modules.
    pub(super) fn announce_resumed(
        &self,
        branch: &BranchId,
        pending_snapshot: &PendingSnapshot,
        modules: &[ResumedModule],
        actions: &mut Vec<SessionAction>,
    ) -> (SnapshotReason, bool) {
        let Some(resume) = &pending_snapshot.resume else { return (pending_snapshot.reason, true) };
        let request_id = pending_snapshot.request_id.as_ref();
        actions.push(self.send(&ServerFrame::Resumed { branch, modules, request_id }));
        for (module, reason) in &resume.failed {
            let reason = *reason;
            actions.push(self.send(&ServerFrame::Resync { branch, module, reason }));
        }
        let begins = resume.failed.iter().any(|(_, why)| *why != ResyncReason::NotInBranch);
        (if begins { SnapshotReason::Resync } else { pending_snapshot.reason }, false)
    }
}
