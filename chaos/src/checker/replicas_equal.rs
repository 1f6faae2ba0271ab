//! Replicas equal: who has applied the same log holds the same state.
//!
//! Promise: every two replicas of a partition that stand at the same index are compared. Replicas
//! that stand nowhere together say nothing: what was not checked is not counted.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{History, ReplicaStatus};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Replicas at the same index hold the same state.";
    let mut verdict = Verdict::new("replicas-equal", promise);
    let mut stands: BTreeMap<(u16, u64), Vec<&ReplicaStatus>> = BTreeMap::new();
    for replica in &evidence.replicas {
        stands.entry((replica.partition, replica.applied)).or_default().push(replica);
    }
    for ((partition, applied), replicas) in stands {
        for (at, one) in replicas.iter().enumerate() {
            for other in &replicas[at + 1..] {
                let wrong = one.state_hash != other.state_hash;
                verdict.check(wrong.then(|| {
                    let (here, there) = (one.node, other.node);
                    let (this, that) = (&one.state_hash, &other.state_hash);
                    format!(
                        "partition {partition} at {applied}: {this} on node {here}, {that} on {there}"
                    )
                }));
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn story(replicas: &[(u64, u16, u64, &str)]) -> History {
        let replicas = replicas
            .iter()
            .map(|(node, partition, applied, hash)| replica(*node, *partition, *applied, hash));
        History { replicas: replicas.collect(), ..History::default() }
    }

    #[test]
    fn equal_states_hold_and_only_pairs_are_counted() {
        let three = story(&[(1, 1, 9, "x"), (2, 1, 9, "x"), (3, 1, 9, "x")]);
        assert_holds(judge, &three, 3);
        let apart = story(&[(1, 1, 9, "x"), (2, 1, 8, "y"), (1, 2, 9, "z")]);
        assert_holds(judge, &apart, 0);
    }

    #[test]
    fn one_state_that_is_another_is_wrong() {
        let other = story(&[(1, 1, 9, "x"), (2, 1, 9, "y")]);
        assert_wrong(judge, &other, "partition 1 at 9: x on node 1, y on 2");
    }
}
