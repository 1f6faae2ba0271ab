//! Directives: full-sync flags of the session's branch, told when they change; and topics that
//! wait for what they tell of to exist.

use std::sync::Arc;

use model::FullSyncFlag;

use super::{Session, SessionAction, SessionContext};
use crate::ws::dialect::ServerFrame;

impl Session {
    /// Takes the flags of now as known: the snapshot shows them.
    pub(super) fn remember_flags(&mut self, cx: SessionContext<'_>) {
        self.flags = self.flags_of(cx);
    }

    fn flags_of(&self, cx: SessionContext<'_>) -> Vec<Arc<FullSyncFlag>> {
        let branch = self.member.as_ref().map(|member| &member.branch);
        branch
            .map_or_else(Vec::new, |branch| cx.catalogue.flags_of(branch, None).cloned().collect())
    }

    /// The catalogue changed.
    pub(crate) fn on_catalogue(&mut self, cx: SessionContext<'_>) -> Vec<SessionAction> {
        let now = self.flags_of(cx);
        // A flag that did not change is the same one: it is not compared word by word.
        let is_known = |flag: &&Arc<FullSyncFlag>| {
            self.flags.iter().any(|known| Arc::ptr_eq(known, flag) || known == *flag)
        };
        let new = now.iter().filter(|flag| !is_known(flag));
        let mut actions: Vec<_> =
            new.map(|flag| self.send(&ServerFrame::FullSyncFlag(flag))).collect();
        self.flags = now;
        self.resolve_missing_inputs(cx, &mut actions);
        actions
    }
}
