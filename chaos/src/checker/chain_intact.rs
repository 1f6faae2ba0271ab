//! Chain intact: every replica is there, and the chain of its events holds.
//!
//! Promise: every replica is judged, and every partition by how many it has: as many as any other
//! partition, from the first number to the last, no two on one node.
//! Refusals: evidence without any replica counts as wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::history::{History, NodeId};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Every replica of every partition is there, and its chain of events holds.";
    let mut verdict = Verdict::new("chain-intact", promise);
    let mut partitions: BTreeMap<u16, Vec<NodeId>> = BTreeMap::new();
    for replica in &evidence.replicas {
        let (partition, node) = (replica.partition, replica.node);
        partitions.entry(partition).or_default().push(node);
        let why = replica.broken_chain.as_ref();
        verdict.check(why.map(|why| format!("partition {partition} on node {node}: {why}")));
    }
    let (Some(first), Some(last)) = (partitions.keys().next(), partitions.keys().next_back())
    else {
        verdict.check(Some("no replica was asked".to_owned()));
        return verdict;
    };
    let most = partitions.values().map(Vec::len).max().unwrap_or_default();
    for partition in *first..=*last {
        let nodes = partitions.get(&partition).map_or(&[][..], Vec::as_slice);
        let apart: BTreeSet<_> = nodes.iter().collect();
        let wrong = nodes.len() != most || apart.len() != nodes.len();
        verdict.check(wrong.then(|| {
            format!("partition {partition} has replicas on {nodes:?}, others have {most}")
        }));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn story(replicas: &[(NodeId, u16)]) -> History {
        let all = replicas.iter().map(|(node, partition)| replica(*node, *partition, 9, "x"));
        History { replicas: all.collect(), ..History::default() }
    }

    #[test]
    fn all_replicas_with_whole_chains_hold() {
        assert_holds(judge, &story(&[(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]), 8);
    }

    #[test]
    fn a_broken_chain_is_wrong() {
        let mut broken = story(&[(1, 1), (2, 1)]);
        broken.replicas[1].broken_chain = Some("event 7 does not follow".to_owned());
        assert_wrong(judge, &broken, "partition 1 on node 2: event 7 does not follow");
    }

    #[test]
    fn a_replica_that_is_not_there_is_wrong() {
        assert_wrong(judge, &story(&[(1, 1), (2, 1), (1, 2)]), "partition 2 has replicas on [1]");
        let skipped = story(&[(1, 1), (2, 1), (1, 3), (2, 3)]);
        assert_wrong(judge, &skipped, "partition 2 has replicas on []");
        let same = story(&[(1, 1), (1, 1), (1, 2), (2, 2)]);
        assert_wrong(judge, &same, "partition 1 has replicas on [1, 1]");
        assert_wrong(judge, &story(&[]), "no replica was asked");
    }
}
