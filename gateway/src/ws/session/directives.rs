//! Directives: full-sync flags of the session's branch, told when they change; and topics that
//! wait for what they tell of to exist.

use model::FullSyncFlag;

use super::{Action, Moment, Session, control};
use crate::wire::Directive;
use crate::ws::frame;

impl Session {
    /// Takes the flags of now as known: the snapshot shows them.
    pub(super) fn know_flags(&mut self, moment: Moment<'_>) {
        self.flags = self.flags_of(moment);
    }

    fn flags_of(&self, moment: Moment<'_>) -> Vec<FullSyncFlag> {
        let branch = self.member.as_ref().map(|member| &member.branch);
        branch.map_or_else(Vec::new, |branch| {
            moment.catalogue.flags_of(branch, None).cloned().collect()
        })
    }

    /// The catalogue changed.
    pub(crate) fn on_catalogue(&mut self, moment: Moment<'_>) -> Vec<Action> {
        let now = self.flags_of(moment);
        let new = now.iter().filter(|flag| !self.flags.contains(flag));
        let mut actions: Vec<_> =
            new.map(|flag| control(frame::text(&Directive::of(flag)))).collect();
        self.flags = now;
        self.find_missing_feeds(moment, &mut actions);
        actions
    }
}
