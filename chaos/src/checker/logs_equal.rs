//! Logs equal: a place has one log, gapless from 1, whichever node is asked.
//!
//! Promise: every reading is judged by itself (gapless, one epoch, no id twice) and against the
//! first reading of its place, event by event, with row and all.

use std::collections::{BTreeMap, HashSet};

use super::Verdict;
use crate::history::{BranchKey, History, LogEvent, NodeId};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Every place has one gapless log, the same from every node.";
    let mut verdict = Verdict::new("logs-equal", promise);
    let mut firsts: BTreeMap<&BranchKey, (NodeId, &[LogEvent])> = BTreeMap::new();
    for (node, place, log) in &evidence.logs {
        let at = |why| format!("{} from node {node}: {why}", place.name());
        verdict.check(in_a_row(log).map(at));
        match firsts.get(place) {
            Some((other, first)) => verdict.check(differs(*other, first, log).map(at)),
            None => drop(firsts.insert(place, (*node, log))),
        }
    }
    verdict
}

fn in_a_row(log: &[LogEvent]) -> Option<String> {
    let epoch = log.first()?.cursor.epoch;
    let mut ids = HashSet::new();
    for (sequence, logged) in (1..).zip(log) {
        let cursor = logged.cursor;
        if cursor.epoch != epoch || cursor.sequence != sequence {
            return Some(format!("event {sequence} of the log stands at {cursor:?}"));
        }
        if !ids.insert(&logged.id) {
            return Some(format!("{cursor:?} has the id of another event: {}", logged.id));
        }
    }
    None
}

fn differs(node: NodeId, first: &[LogEvent], log: &[LogEvent]) -> Option<String> {
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
        vec![written(1, "a", 7, 1), written(2, "b", 8, 2)]
    }

    fn read(logs: Vec<(NodeId, Vec<LogEvent>)>) -> History {
        let logs = logs.into_iter().map(|(node, log)| (node, place(), log)).collect();
        History { logs, ..History::default() }
    }

    #[test]
    fn the_same_log_from_all_holds() {
        assert_holds(judge, &read(vec![(1, log()), (2, log()), (3, log())]), 5);
        assert_holds(judge, &read(vec![(1, vec![]), (2, vec![])]), 3);
    }

    #[test]
    fn a_log_has_no_gap_no_second_epoch_and_no_id_twice() {
        let late = read(vec![(1, log().split_off(1))]);
        assert_wrong(judge, &late, "event 1 of the log stands at");
        let mut gap = log();
        gap[1].cursor.sequence = 3;
        assert_wrong(judge, &read(vec![(1, gap)]), "event 2 of the log stands at");
        let mut epoch = log();
        epoch[1].cursor.epoch = 2;
        assert_wrong(judge, &read(vec![(1, epoch)]), "event 2 of the log stands at");
        let mut twice = log();
        twice[1].id = "e1".to_owned();
        assert_wrong(judge, &read(vec![(1, twice)]), "the id of another event: e1");
    }

    #[test]
    fn nodes_that_hold_other_logs_are_wrong() {
        let short = log()[..1].to_vec();
        assert_wrong(
            judge,
            &read(vec![(1, log()), (2, short)]),
            "1 events, from node 1 there are 2",
        );
        let mut other = log();
        other[1].row = Some(serde_json::json!({ "value": 9 }));
        assert_wrong(judge, &read(vec![(1, log()), (2, other)]), "from node 1 it is");
    }
}
