//! Logs equal: a branch has one log without gaps, the same from every node.
//!
//! Promise: every reading is checked by itself (no gap from 1 on, one epoch, no id twice) and
//! compared with the first reading of its branch, event by event, with the records.

use std::collections::{BTreeMap, HashSet};

use super::Verdict;
use crate::{BranchModule, History, LogEvent, NodeId};

/// Checks `logs-equal`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every branch has one log without gaps, the same from every node.";
    let mut verdict = Verdict::new("logs-equal", promise);
    let mut firsts: BTreeMap<&BranchModule, (NodeId, &[LogEvent])> = BTreeMap::new();
    for (node, branch_key, log) in &history.logs {
        let at = |why| format!("{} from node {node}: {why}", branch_key.name());
        verdict.record(continuity_violation(log).map(at));
        // Compared with the first reading only: equality is transitive.
        match firsts.get(branch_key) {
            Some((other, first)) => verdict.record(difference(*other, first, log).map(at)),
            None => drop(firsts.insert(branch_key, (*node, log))),
        }
    }
    verdict
}

/// The first gap, second epoch or repeated id of a reading.
fn continuity_violation(log: &[LogEvent]) -> Option<String> {
    let epoch = log.first()?.cursor.epoch;
    let mut ids = HashSet::new();
    for (sequence, event) in (1..).zip(log) {
        let cursor = event.cursor;
        if cursor.epoch != epoch || cursor.sequence != sequence {
            return Some(format!("event {sequence} of the log has {cursor:?}"));
        }
        if !ids.insert(&event.id) {
            return Some(format!("{cursor:?} has the id of another event: {}", event.id));
        }
    }
    None
}

/// The first difference of a reading from the first reading.
fn difference(node: NodeId, first: &[LogEvent], log: &[LogEvent]) -> Option<String> {
    let pairs = first.iter().zip(log);
    for (one, other) in pairs {
        if one != other {
            return Some(format!("{other:?}, from node {node} it is {one:?}"));
        }
    }
    let (here, there) = (log.len(), first.len());
    (here != there).then(|| format!("{here} events, from node {node} there are {there}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn log() -> Vec<LogEvent> {
        vec![register_event(1, "a", 7, 1), register_event(2, "b", 8, 2)]
    }

    fn read(logs: Vec<(NodeId, Vec<LogEvent>)>) -> History {
        let logs = logs.into_iter().map(|(node, log)| (node, branch_key(), log)).collect();
        History { logs, ..History::default() }
    }

    #[test]
    fn the_same_log_from_every_node_holds() {
        assert_holds(check, &read(vec![(1, log()), (2, log()), (3, log())]), 5);
        assert_holds(check, &read(vec![(1, vec![]), (2, vec![])]), 3);
    }

    #[test]
    fn a_gap_second_epoch_or_repeated_id_is_a_violation() {
        let late = read(vec![(1, log().split_off(1))]);
        assert_violation(check, &late, "event 1 of the log has");
        let mut gap = log();
        gap[1].cursor.sequence = 3;
        assert_violation(check, &read(vec![(1, gap)]), "event 2 of the log has");
        let mut epoch = log();
        epoch[1].cursor.epoch = 2;
        assert_violation(check, &read(vec![(1, epoch)]), "event 2 of the log has");
        let mut twice = log();
        twice[1].id = "e1".to_owned();
        assert_violation(check, &read(vec![(1, twice)]), "the id of another event: e1");
    }

    #[test]
    fn nodes_with_different_logs_are_a_violation() {
        let short = log()[..1].to_vec();
        assert_violation(
            check,
            &read(vec![(1, log()), (2, short)]),
            "1 events, from node 1 there are 2",
        );
        let mut other = log();
        other[1].row = Some(serde_json::json!({ "value": 9 }));
        assert_violation(check, &read(vec![(1, log()), (2, other)]), "from node 1 it is");
    }
}
