//! No lost acknowledgement: a write that was acknowledged is in the log, where and as it was said.
//!
//! Promise: every acknowledged write is judged, also one to a place whose log nobody read: without
//! its log it counts as lost. The cursor and version are compared where the answer told them.

use super::history_index::{HistoryIndex, told};
use super::{Verdict, fields};
use crate::history::{History, Operation, Response};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Every acknowledged write is in the log, at the cursor it was told.";
    let mut verdict = Verdict::new("no-lost-acknowledgement", promise);
    let book = HistoryIndex::of(evidence);
    for op in evidence.ops.iter().filter(|op| !op.intent.is_read()) {
        if let Some(reply) = op.outcome.reply() {
            verdict.check(wrong(&book, op, reply).map(|why| format!("{}: {why}", told(op))));
        }
    }
    verdict
}

fn wrong<'a>(book: &HistoryIndex<'a>, op: &'a Operation, reply: &Response) -> Option<String> {
    if book.log(&op.place).is_none() {
        return Some("acknowledged, but no log of its place was read".to_owned());
    }
    let found: Vec<_> = book.rows_of(op).collect();
    let (has, wants) = (found.len(), op.intent.events());
    if has != wants {
        return Some(format!("acknowledged, but the log has {has} of its {wants} events"));
    }
    let last = found.last()?;
    if let Some(cursor) = reply.cursor.filter(|cursor| *cursor != last.cursor) {
        return Some(format!("acknowledged at {cursor:?}, but it stands at {:?}", last.cursor));
    }
    let version = fields::version(last);
    let is_other = wants == 1 && reply.version.is_some() && version.is_some();
    (is_other && reply.version != version).then(|| {
        format!("acknowledged with version {:?}, but the log has {version:?}", reply.version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    #[test]
    fn acknowledged_writes_that_are_in_the_log_hold() {
        let ops = vec![
            op("a", put(7), 0, 5, done_as(1, 1)),
            op("b", append(&["x", "y"], 9), 5, 9, done(3)),
            op("c", put(8), 9, 10, unknown()),
            op("d", get(), 9, 10, saw_register(7, 1)),
        ];
        let log = vec![written(1, "a", 7, 1), element(2, "b", "x", 9), element(3, "b", "y", 9)];
        assert_holds(judge, &evidence(ops, log), 2);
    }

    #[test]
    fn a_write_that_is_not_in_the_log_is_lost() {
        let ops = vec![op("a", put(7), 0, 5, done(1))];
        assert_wrong(judge, &evidence(ops.clone(), vec![]), "0 of its 1 events");
        let unread = History { ops, ..History::default() };
        assert_wrong(judge, &unread, "no log of its place was read");
    }

    #[test]
    fn half_a_batch_is_lost_too() {
        let ops = vec![op("b", append(&["x", "y"], 9), 0, 9, done(1))];
        assert_wrong(judge, &evidence(ops, vec![element(1, "b", "x", 9)]), "1 of its 2 events");
    }

    #[test]
    fn a_write_that_stands_elsewhere_was_told_wrong() {
        let log = vec![written(1, "a", 7, 1)];
        let elsewhere = vec![op("a", put(7), 0, 5, done_as(2, 1))];
        assert_wrong(judge, &evidence(elsewhere, log.clone()), "but it stands at");
        let other = vec![op("a", put(7), 0, 5, done_as(1, 2))];
        assert_wrong(judge, &evidence(other, log), "with version Some(2)");
    }
}
