//! Clock: the event of a commit time that was brought back to the present.

use crate::command::MendClock;
use crate::delta::BulkOperation;
use crate::ids::Timestamp;
use crate::module::Plan;
use crate::value::Value;

impl Plan<'_> {
    /// `before`: the commit time so far. Where it is not ahead there is nothing to tell.
    pub(crate) fn mend_clock(&mut self, mend: &MendClock, before: Timestamp) {
        let now = self.at();
        if now >= before {
            return;
        }
        let details = [
            ("before", Value::from(before.to_iso())),
            ("now", now.to_iso().into()),
            ("reason", mend.reason.clone().into()),
            ("requestedBy", mend.requested_by.clone().into()),
        ];
        let (details, revision) = (details.into_iter().collect(), self.revision());
        self.draft_operation(BulkOperation::Clock, details, Vec::new(), revision);
    }
}
