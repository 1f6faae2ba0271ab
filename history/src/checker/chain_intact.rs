//! EventChain intact: no replica is missing, and the hash chain of its events is intact.
//!
//! Promise: every replica is checked, and every log event by event, where the hashes were read:
//! each event carries the hash of the one before it, the first carries zeros. Every partition, from
//! the lowest to the highest number, has as many replicas as the others, each on another node.
//! Refused: a history without replicas counts as a violation.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::{History, LogEvent, NodeId};

/// Checks `chain-intact`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every replica of every partition is there, and its chain of events holds.";
    let mut verdict = Verdict::new("chain-intact", promise);
    for (node, branch_key, log) in &history.logs {
        let previous_hashes = std::iter::once(None).chain(log.iter().map(Some));
        for (before, event) in previous_hashes.zip(log) {
            let Some(is_linked) = is_linked(before, event) else { continue };
            verdict.record((!is_linked).then(|| {
                let (branch_key, at) = (branch_key.name(), event.cursor);
                format!("{branch_key} on node {node}: {at:?} does not name the event before it")
            }));
        }
    }
    let mut partitions: BTreeMap<u16, Vec<NodeId>> = BTreeMap::new();
    for replica in &history.replicas {
        let (partition, node) = (replica.partition, replica.node);
        partitions.entry(partition).or_default().push(node);
        let broken_chain = replica.broken_chain.as_ref();
        verdict.record(
            broken_chain.map(|broken_chain| {
                format!("partition {partition} on node {node}: {broken_chain}")
            }),
        );
    }
    let (Some(first), Some(last)) = (partitions.keys().next(), partitions.keys().next_back())
    else {
        verdict.record(Some("no replica was read".to_owned()));
        return verdict;
    };
    let replica_count = partitions.values().map(Vec::len).max().unwrap_or_default();
    // By number, not by key: a partition that lost all its replicas has no key.
    for partition in *first..=*last {
        let nodes = partitions.get(&partition).map_or(&[][..], Vec::as_slice);
        let distinct: BTreeSet<_> = nodes.iter().collect();
        let is_violated = nodes.len() != replica_count || distinct.len() != nodes.len();
        verdict.record(is_violated.then(|| {
            format!("partition {partition} has replicas on {nodes:?}, others have {replica_count}")
        }));
    }
    verdict
}

/// Whether an event carries the hash of the one before it; `None` if one of the two was not read.
fn is_linked(before: Option<&LogEvent>, event: &LogEvent) -> Option<bool> {
    let previous = event.previous.as_ref()?;
    match before {
        Some(before) => Some(before.hash.as_ref()? == previous),
        None => Some(previous.bytes().all(|digit| digit == b'0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn history_with(replicas: &[(NodeId, u16)]) -> History {
        let all = replicas.iter().map(|(node, partition)| replica(*node, *partition, 9, "x"));
        History { replicas: all.collect(), ..History::default() }
    }

    #[test]
    fn equal_replica_counts_with_intact_chains_hold() {
        assert_holds(check, &history_with(&[(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]), 8);
    }

    #[test]
    fn a_broken_chain_is_a_violation() {
        let mut broken = history_with(&[(1, 1), (2, 1)]);
        broken.replicas[1].broken_chain = Some("event 7 does not follow".to_owned());
        assert_violation(check, &broken, "partition 1 on node 2: event 7 does not follow");
    }

    #[test]
    fn an_event_with_another_hash_before_it_is_a_violation() {
        let log = |links: [(&str, &str); 3]| {
            let linked = |(sequence, (previous, hash)): (u64, (&str, &str))| LogEvent {
                previous: Some(previous.to_owned()),
                hash: Some(hash.to_owned()),
                ..register_event(sequence, "a", 7, sequence)
            };
            let log = (1..).zip(links).map(linked).collect();
            let logs = vec![(1, branch_key(), log)];
            History { logs, ..history_with(&[(1, 1)]) }
        };
        assert_holds(check, &log([("00", "0a"), ("0a", "0b"), ("0b", "0c")]), 5);
        let other = log([("00", "0a"), ("0a", "0b"), ("0a", "0c")]);
        assert_violation(check, &other, "sequence: 3 } does not name the event before it");
        let cut = log([("0f", "0a"), ("0a", "0b"), ("0b", "0c")]);
        assert_violation(check, &cut, "sequence: 1 } does not name the event before it");
    }

    #[test]
    fn a_missing_replica_is_a_violation() {
        assert_violation(
            check,
            &history_with(&[(1, 1), (2, 1), (1, 2)]),
            "partition 2 has replicas on [1]",
        );
        let skipped = history_with(&[(1, 1), (2, 1), (1, 3), (2, 3)]);
        assert_violation(check, &skipped, "partition 2 has replicas on []");
        let same = history_with(&[(1, 1), (1, 1), (1, 2), (2, 2)]);
        assert_violation(check, &same, "partition 1 has replicas on [1, 1]");
        assert_violation(check, &history_with(&[]), "no replica was read");
    }
}
