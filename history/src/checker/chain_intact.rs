//! EventChain intact: no replica is missing, and the hash chain of its events is intact.
//!
//! Promise: every replica is checked. Every partition, from the lowest to the highest number, has
//! as many replicas as the others, each on another node.
//! Refused: a history without replicas counts as a violation.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::{History, NodeId};

/// Checks `chain-intact`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every replica of every partition is there, and its chain of events holds.";
    let mut verdict = Verdict::new("chain-intact", promise);
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
