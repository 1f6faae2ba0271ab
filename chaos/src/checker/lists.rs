//! Lists: what is read of many lists at once is one moment of their common order.
//!
//! Promise: that order is the log's. Each list is a beginning of it, all lists are of one moment,
//! an append to several is seen in all or in none, what was acknowledged before is there, what was
//! asked for after is not, and no read is older than one that had been answered before it.

use std::collections::BTreeMap;

use super::history_index::{HistoryIndex, told};
use super::timeline::{Timeline, before, rising};
use super::{Verdict, fields};
use crate::history::{
    BranchKey, Completion, History, Invocation, LogEvent, MonotonicTime, Operation, ReturnValue,
};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Every reading of the lists is one moment of the log, and no stale one.";
    let mut verdict = Verdict::new("lists", promise);
    let book = HistoryIndex::of(evidence);
    let mut places: BTreeMap<&BranchKey, Vec<&Operation>> = BTreeMap::new();
    for op in evidence.ops.iter().filter(|op| op.intent == Invocation::ReadLists) {
        if matches!(op.outcome, Completion::Ok(_)) {
            places.entry(&op.place).or_default().push(op);
        }
    }
    for (place, reads) in places {
        let log = book.log(place).unwrap_or_default();
        let order = ListOrder::of(log);
        let timeline = Timeline::of(evidence, &book, place, log);
        let found: Vec<_> = reads.iter().map(|op| (*op, order.stands(op, &timeline))).collect();
        let seen = found
            .iter()
            .filter_map(|(op, stands)| Some((op.completed, stands.as_ref().ok()?.earliest)));
        let seen = rising(seen.collect());
        for (op, stands) in found {
            let wrong = match stands {
                Err(why) => Some(why),
                Ok(stands) => stands.wrong(op, &timeline, &seen),
            };
            verdict.check(wrong.map(|why| format!("{}: {why}", told(op))));
        }
    }
    verdict
}

/// The lists as the log orders them: elements, and where each stands.
#[derive(Default)]
struct ListOrder<'a> {
    lists: BTreeMap<&'a str, (Vec<u64>, Vec<u64>)>,
}

/// Between which events a read was made.
struct LogRange {
    earliest: u64,
    latest: u64,
}

impl<'a> ListOrder<'a> {
    fn of(log: &'a [LogEvent]) -> Self {
        let mut order = Self::default();
        for logged in log.iter().filter(|logged| logged.table == fields::ELEMENTS) {
            let element = fields::number(logged, fields::ELEMENT).and_then(|it| it.try_into().ok());
            if let (Some(list), Some(element)) = (fields::text(logged, fields::LIST), element) {
                let (elements, sequences) = order.lists.entry(list).or_default();
                elements.push(element);
                sequences.push(logged.cursor.sequence);
            }
        }
        order
    }

    /// Where a read stands by what it saw alone.
    fn stands(&self, op: &Operation, timeline: &Timeline) -> Result<LogRange, String> {
        let seen = op.outcome.reply().map(|reply| &reply.seen);
        let Some(ReturnValue::Lists(seen)) = seen else {
            return Err("answered without lists".to_owned());
        };
        let (mut low, mut high) = ((0, "the beginning"), (u64::MAX, "the end"));
        for (list, saw) in seen {
            let nothing = (Vec::new(), Vec::new());
            let (elements, sequences) = self.lists.get(list.as_str()).unwrap_or(&nothing);
            if let Some(at) = (0..saw.len()).find(|at| elements.get(*at) != saw.get(*at)) {
                let (saw, has) = (saw[at], elements.get(at));
                return Err(format!("element {at} of {list} is {saw}, in the log it is {has:?}"));
            }
            let last = saw.len().checked_sub(1).map_or(0, |at| sequences[at]);
            let next = sequences.get(saw.len()).map_or(u64::MAX, |next| next - 1);
            low = low.max((last, list));
            high = high.min((next, list));
        }
        let ((low, newest), (high, oldest)) = (low, high);
        let earliest = timeline.whole_from(low);
        if low > high {
            return Err(format!("{newest} is of event {low}, {oldest} at most of event {high}"));
        }
        if earliest > high {
            return Err(format!("an append is seen in {newest} and not in {oldest}: event {low}"));
        }
        Ok(LogRange { earliest, latest: high })
    }
}

impl LogRange {
    /// What is wrong with when it was read.
    fn wrong(
        &self,
        op: &Operation,
        timeline: &Timeline,
        seen: &[(MonotonicTime, u64)],
    ) -> Option<String> {
        let Self { earliest, latest } = *self;
        let (floor, ceiling) = (timeline.floor(op.invoked), timeline.ceiling(op.completed));
        let earlier = before(seen, op.invoked);
        if earliest > ceiling {
            return Some(format!("saw event {earliest}, only {ceiling} had been asked for"));
        }
        if floor > latest {
            return Some(format!("event {floor} had been acknowledged, it saw only {latest}"));
        }
        (earlier > latest)
            .then(|| format!("event {earlier} had been seen by another read, it saw only {latest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn lists(shown: &[(&str, &[u64])]) -> Completion {
        let lists = shown.iter().map(|(list, elements)| ((*list).to_owned(), elements.to_vec()));
        saw(ReturnValue::Lists(lists.collect()))
    }

    /// 1 to x and y, 2 to x, 3 to y, then 4 to x, of which nobody knows; and these reads.
    fn story(reads: Vec<(u64, u64, Completion)>) -> History {
        let mut ops = vec![
            op("a", append(&["x", "y"], 1), 0, 10, done(2)),
            op("b", append(&["x"], 2), 20, 30, done(3)),
            op("c", append(&["y"], 3), 40, 50, done(4)),
            op("d", append(&["x"], 4), 60, 70, unknown()),
        ];
        for (at, (from, to, outcome)) in reads.into_iter().enumerate() {
            ops.push(op(&format!("r{at}"), Invocation::ReadLists, from, to, outcome));
        }
        let log = vec![
            element(1, "a", "x", 1),
            element(2, "a", "y", 1),
            element(3, "b", "x", 2),
            element(4, "c", "y", 3),
            element(5, "d", "x", 4),
        ];
        evidence(ops, log)
    }

    #[test]
    fn one_moment_of_the_log_holds() {
        let reads = vec![
            (0, 5, lists(&[])),
            (0, 5, lists(&[("x", &[1]), ("y", &[1])])),
            (15, 25, lists(&[("x", &[1, 2]), ("y", &[1])])),
            (51, 55, lists(&[("x", &[1, 2]), ("y", &[1, 3])])),
            (61, 65, lists(&[("x", &[1, 2, 4]), ("y", &[1, 3])])),
            (61, 66, lists(&[("x", &[1, 2]), ("y", &[1, 3])])),
            (61, 66, unknown()),
        ];
        assert_holds(judge, &story(reads), 6);
    }

    #[test]
    fn what_meets_in_one_moment_may_have_been_in_either_order() {
        assert_holds(judge, &story(vec![(10, 15, lists(&[]))]), 1);
        let just_asked = lists(&[("x", &[1, 2]), ("y", &[1])]);
        assert_holds(judge, &story(vec![(11, 20, just_asked)]), 1);
    }

    #[test]
    fn a_list_in_another_order_is_wrong() {
        let other = vec![(51, 55, lists(&[("x", &[2, 1]), ("y", &[1, 3])]))];
        assert_wrong(judge, &story(other), "element 0 of x is 2");
        let phantom = vec![(51, 55, lists(&[("x", &[1, 2]), ("y", &[1, 3]), ("z", &[9])]))];
        assert_wrong(judge, &story(phantom), "element 0 of z is 9, in the log it is None");
    }

    #[test]
    fn lists_of_two_moments_are_wrong() {
        let reads = vec![(15, 55, lists(&[("x", &[1]), ("y", &[1, 3])]))];
        assert_wrong(judge, &story(reads), "y is of event 4, x at most of event 2");
    }

    #[test]
    fn an_append_to_two_lists_is_seen_in_both_or_in_none() {
        let reads = vec![(0, 5, lists(&[("x", &[1]), ("y", &[])]))];
        assert_wrong(judge, &story(reads), "seen in x and not in y");
    }

    #[test]
    fn what_was_acknowledged_before_is_there() {
        let reads = vec![(31, 35, lists(&[("x", &[1]), ("y", &[1])]))];
        assert_wrong(judge, &story(reads), "event 3 had been acknowledged");
    }

    #[test]
    fn what_is_asked_for_later_is_not_there() {
        let reads = vec![(11, 15, lists(&[("x", &[1, 2]), ("y", &[1])]))];
        assert_wrong(judge, &story(reads), "only 2 had been asked for");
    }

    #[test]
    fn no_read_is_older_than_one_answered_before_it() {
        let reads = vec![
            (61, 65, lists(&[("x", &[1, 2, 4]), ("y", &[1, 3])])),
            (66, 68, lists(&[("x", &[1, 2]), ("y", &[1, 3])])),
        ];
        assert_wrong(judge, &story(reads), "had been seen by another read");
    }

    #[test]
    fn an_answer_without_lists_is_wrong() {
        assert_wrong(judge, &story(vec![(1, 2, done(1))]), "answered without lists");
    }
}
