//! Lists: a read of many lists shows all of them at one position of the log.
//!
//! Promise: each list that is read is a prefix of the list in the log. All lists of a read have one
//! position in the log, which is not inside a batch. That position includes what was acknowledged
//! before the read, excludes what was invoked after it, and is not before that of a read that had
//! completed earlier.

use std::collections::BTreeMap;

use super::history_index::{HistoryIndex, describe};
use super::timeline::{Timeline, running_maximum, value_before};
use super::{Verdict, fields};
use crate::{
    BranchModule, Completion, History, Invocation, LogEvent, MonotonicTime, Operation, ReturnValue,
};

/// Checks `lists`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every read of the lists shows one position of the log, and no stale one.";
    let mut verdict = Verdict::new("lists", promise);
    let index = HistoryIndex::new(history);
    let mut reads_by_branch: BTreeMap<&BranchModule, Vec<&Operation>> = BTreeMap::new();
    for op in history.operations.iter().filter(|op| op.invocation == Invocation::ReadLists) {
        if matches!(op.completion, Completion::Ok(_)) {
            reads_by_branch.entry(&op.branch_key).or_default().push(op);
        }
    }
    for (branch_key, reads) in reads_by_branch {
        let log = index.log(branch_key).unwrap_or_default();
        let order = ListOrder::new(log);
        let timeline = Timeline::new(history, &index, branch_key, log);
        let located: Vec<_> = reads.iter().map(|op| (*op, order.locate(op, &timeline))).collect();
        // For each time, the latest position that a completed read is known to have shown.
        let seen = located
            .iter()
            .filter_map(|(op, range)| Some((op.completed, range.as_ref().ok()?.earliest)));
        let seen = running_maximum(seen.collect());
        for (op, range) in located {
            let violation = match range {
                Err(why) => Some(why),
                Ok(range) => range.violation(op, &timeline, &seen),
            };
            verdict.record(violation.map(|why| format!("{}: {why}", describe(op))));
        }
    }
    verdict
}

/// The lists in the order of the log: for each its elements and their sequence numbers.
#[derive(Default)]
struct ListOrder<'a> {
    lists: BTreeMap<&'a str, (Vec<u64>, Vec<u64>)>,
}

/// The range of log positions that a read may have shown.
struct LogRange {
    earliest: u64,
    latest: u64,
}

impl<'a> ListOrder<'a> {
    fn new(log: &'a [LogEvent]) -> Self {
        let mut order = Self::default();
        for event in log.iter().filter(|event| event.table == fields::ELEMENTS) {
            let element = fields::number(event, fields::ELEMENT).and_then(|it| it.try_into().ok());
            if let (Some(list), Some(element)) = (fields::text(event, fields::LIST), element) {
                let (elements, sequences) = order.lists.entry(list).or_default();
                elements.push(element);
                sequences.push(event.cursor.sequence);
            }
        }
        order
    }

    /// The range of a read by the elements that it returned, without regard to time.
    fn locate(&self, op: &Operation, timeline: &Timeline) -> Result<LogRange, String> {
        let returned = op.completion.response().map(|response| &response.return_value);
        let Some(ReturnValue::Lists(read_lists)) = returned else {
            return Err("completed without lists".to_owned());
        };
        let (mut lower, mut upper) = ((0, "the beginning"), (u64::MAX, "the end"));
        for (list, read) in read_lists {
            let empty = (Vec::new(), Vec::new());
            let (elements, sequences) = self.lists.get(list.as_str()).unwrap_or(&empty);
            // A read must be a prefix: a list only grows at its end.
            if let Some(at) = (0..read.len()).find(|at| elements.get(*at) != read.get(*at)) {
                let (read, logged) = (read[at], elements.get(at));
                return Err(format!(
                    "element {at} of {list} is {read}, in the log it is {logged:?}"
                ));
            }
            // At least the event of its last element, and before the event of the next one.
            let last = read.len().checked_sub(1).map_or(0, |at| sequences[at]);
            let next = sequences.get(read.len()).map_or(u64::MAX, |next| next - 1);
            // The list that decides goes along, for the description of a contradiction.
            lower = lower.max((last, list));
            upper = upper.min((next, list));
        }
        let ((lower, newest), (upper, oldest)) = (lower, upper);
        // Not inside a batch: the earliest possible position is the end of the batch.
        let earliest = timeline.batch_end_from(lower);
        if lower > upper {
            return Err(format!("{newest} shows event {lower}, {oldest} at most event {upper}"));
        }
        if earliest > upper {
            return Err(format!(
                "an append is shown in {newest} and not in {oldest}: event {lower}"
            ));
        }
        Ok(LogRange { earliest, latest: upper })
    }
}

impl LogRange {
    /// Whether the range contradicts the times of the read and of other operations.
    fn violation(
        &self,
        op: &Operation,
        timeline: &Timeline,
        seen: &[(MonotonicTime, u64)],
    ) -> Option<String> {
        let Self { earliest, latest } = *self;
        let (lower, upper) =
            (timeline.acknowledged_before(op.invoked), timeline.invoked_until(op.completed));
        let seen_before = value_before(seen, op.invoked);
        if earliest > upper {
            return Some(format!("read event {earliest}, only {upper} had been invoked"));
        }
        if lower > latest {
            return Some(format!("event {lower} had been acknowledged, it read only {latest}"));
        }
        (seen_before > latest)
            .then(|| format!("another read had shown event {seen_before}, it read only {latest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn lists(shown: &[(&str, &[u64])]) -> Completion {
        let lists = shown.iter().map(|(list, elements)| ((*list).to_owned(), elements.to_vec()));
        returned(ReturnValue::Lists(lists.collect()))
    }

    /// Appends of 1 to x and y, 2 to x, 3 to y, and 4 to x with an unknown result; and these reads.
    fn history_with(reads: Vec<(u64, u64, Completion)>) -> History {
        let mut operations = vec![
            operation("a", append(&["x", "y"], 1), 0, 10, ok(2)),
            operation("b", append(&["x"], 2), 20, 30, ok(3)),
            operation("c", append(&["y"], 3), 40, 50, ok(4)),
            operation("d", append(&["x"], 4), 60, 70, info()),
        ];
        for (at, (from, to, completion)) in reads.into_iter().enumerate() {
            operations.push(operation(
                &format!("r{at}"),
                Invocation::ReadLists,
                from,
                to,
                completion,
            ));
        }
        let log = vec![
            element_event(1, "a", "x", 1),
            element_event(2, "a", "y", 1),
            element_event(3, "b", "x", 2),
            element_event(4, "c", "y", 3),
            element_event(5, "d", "x", 4),
        ];
        history_of(operations, log)
    }

    #[test]
    fn reads_of_one_log_position_hold() {
        let reads = vec![
            (0, 5, lists(&[])),
            (0, 5, lists(&[("x", &[1]), ("y", &[1])])),
            (15, 25, lists(&[("x", &[1, 2]), ("y", &[1])])),
            (51, 55, lists(&[("x", &[1, 2]), ("y", &[1, 3])])),
            (61, 65, lists(&[("x", &[1, 2, 4]), ("y", &[1, 3])])),
            (61, 66, lists(&[("x", &[1, 2]), ("y", &[1, 3])])),
            (61, 66, info()),
        ];
        assert_holds(check, &history_with(reads), 6);
    }

    #[test]
    fn operations_that_touch_in_time_may_have_either_order() {
        assert_holds(check, &history_with(vec![(10, 15, lists(&[]))]), 1);
        let just_asked = lists(&[("x", &[1, 2]), ("y", &[1])]);
        assert_holds(check, &history_with(vec![(11, 20, just_asked)]), 1);
    }

    #[test]
    fn a_list_in_another_order_is_a_violation() {
        let other = vec![(51, 55, lists(&[("x", &[2, 1]), ("y", &[1, 3])]))];
        assert_violation(check, &history_with(other), "element 0 of x is 2");
        let phantom = vec![(51, 55, lists(&[("x", &[1, 2]), ("y", &[1, 3]), ("z", &[9])]))];
        assert_violation(
            check,
            &history_with(phantom),
            "element 0 of z is 9, in the log it is None",
        );
    }

    #[test]
    fn lists_of_two_log_positions_are_a_violation() {
        let reads = vec![(15, 55, lists(&[("x", &[1]), ("y", &[1, 3])]))];
        assert_violation(check, &history_with(reads), "y shows event 4, x at most event 2");
    }

    #[test]
    fn an_append_to_two_lists_is_read_in_both_or_neither() {
        let reads = vec![(0, 5, lists(&[("x", &[1]), ("y", &[])]))];
        assert_violation(check, &history_with(reads), "shown in x and not in y");
    }

    #[test]
    fn a_read_contains_what_was_acknowledged_before_it() {
        let reads = vec![(31, 35, lists(&[("x", &[1]), ("y", &[1])]))];
        assert_violation(check, &history_with(reads), "event 3 had been acknowledged");
    }

    #[test]
    fn a_read_contains_nothing_invoked_after_it() {
        let reads = vec![(11, 15, lists(&[("x", &[1, 2]), ("y", &[1])]))];
        assert_violation(check, &history_with(reads), "only 2 had been invoked");
    }

    #[test]
    fn no_read_is_older_than_one_completed_before_it() {
        let reads = vec![
            (61, 65, lists(&[("x", &[1, 2, 4]), ("y", &[1, 3])])),
            (66, 68, lists(&[("x", &[1, 2]), ("y", &[1, 3])])),
        ];
        assert_violation(check, &history_with(reads), "another read had shown");
    }

    #[test]
    fn a_response_without_lists_is_a_violation() {
        assert_violation(check, &history_with(vec![(1, 2, ok(1))]), "completed without lists");
    }
}
