//! Replicas equal: replicas that have applied the same index have the same state.
//!
//! Promise: every two replicas of a partition with the same applied index are compared. Replicas
//! with different indexes cannot be compared and are not counted.

use std::collections::BTreeMap;

use super::Verdict;
use crate::{History, ReplicaReading};

/// Checks `replicas-equal`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Replicas at the same index hold the same state.";
    let mut verdict = Verdict::new("replicas-equal", promise);
    let mut by_index: BTreeMap<(u16, u64), Vec<&ReplicaReading>> = BTreeMap::new();
    for replica in &history.replicas {
        by_index.entry((replica.partition, replica.applied)).or_default().push(replica);
    }
    for ((partition, applied), replicas) in by_index {
        for (at, one) in replicas.iter().enumerate() {
            for other in &replicas[at + 1..] {
                // All pairs: of three replicas, the one that differs is in two violations.
                let is_violated = one.state_hash != other.state_hash;
                verdict.record(is_violated.then(|| {
                    let (here, there) = (one.node, other.node);
                    let (this, that) = (&one.state_hash, &other.state_hash);
                    format!(
                        "partition {partition} at {applied}: {this} on node {here}, \
                         {that} on {there}"
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

    fn history_with(replicas: &[(u64, u16, u64, &str)]) -> History {
        let replicas = replicas
            .iter()
            .map(|(node, partition, applied, hash)| replica(*node, *partition, *applied, hash));
        History { replicas: replicas.collect(), ..History::default() }
    }

    #[test]
    fn equal_states_hold_and_only_pairs_are_counted() {
        let three = history_with(&[(1, 1, 9, "x"), (2, 1, 9, "x"), (3, 1, 9, "x")]);
        assert_holds(check, &three, 3);
        let apart = history_with(&[(1, 1, 9, "x"), (2, 1, 8, "y"), (1, 2, 9, "z")]);
        assert_holds(check, &apart, 0);
    }

    #[test]
    fn a_different_state_at_the_same_index_is_a_violation() {
        let other = history_with(&[(1, 1, 9, "x"), (2, 1, 9, "y")]);
        assert_violation(check, &other, "partition 1 at 9: x on node 1, y on 2");
    }
}
