//! Own queue: what a leader asks of its branches by itself, definitions and seeds, by branch.
//!
//! Promises:
//! - what is asked of a branch takes the place of all that waited for it, as it says all that is
//!   missing: an older definition does not come behind a newer one;
//! - branches come out in the order in which they came in, those first whose clients wait.

use std::collections::{BTreeMap, HashMap};

use model::{BranchKey, Command};

/// Who waits for a command of the leader's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OwnRank {
    /// A client whose command needs it.
    Needed,
    /// Nobody.
    Usual,
}

/// What is asked of one branch.
pub(super) struct OwnCommands {
    pub(super) commands: Vec<Command>,
    pub(super) rank: OwnRank,
    /// When something began to wait for the branch, as the queue counts what comes in.
    pub(super) since: u64,
}

/// What is asked of all branches.
#[derive(Default)]
pub(super) struct OwnQueue {
    waiting: HashMap<BranchKey, OwnCommands>,
    order: BTreeMap<(OwnRank, u64), BranchKey>,
}

impl OwnQueue {
    /// Adds what is asked of a branch, in place of what was. Its place stays, or becomes better.
    pub(super) fn push(&mut self, branch: BranchKey, asked: OwnCommands) {
        let place = match self.waiting.get_mut(&branch) {
            Some(before) => {
                before.commands = asked.commands;
                if before.rank <= asked.rank {
                    return;
                }
                self.order.remove(&(before.rank, before.since));
                before.rank = asked.rank;
                (before.rank, before.since)
            }
            None => {
                let place = (asked.rank, asked.since);
                self.waiting.insert(branch.clone(), asked);
                place
            }
        };
        self.order.insert(place, branch);
    }

    /// What is asked of the first branch of this rank or a better one, but for one that is held;
    /// and whose it is.
    pub(super) fn pop(
        &mut self,
        rank: OwnRank,
        held: Option<&BranchKey>,
    ) -> Option<(BranchKey, OwnCommands)> {
        // One branch at most is passed over.
        let of_rank = self.order.iter().take_while(|((its, _), _)| *its <= rank);
        let first = of_rank.map(|(_, branch)| branch).find(|branch| held != Some(branch));
        let first = first.cloned()?;
        self.remove(&first).map(|asked| (first, asked))
    }

    /// What is asked of this branch, and no longer waits.
    pub(super) fn remove(&mut self, branch: &BranchKey) -> Option<OwnCommands> {
        let asked = self.waiting.remove(branch)?;
        self.order.remove(&(asked.rank, asked.since));
        Some(asked)
    }

    /// Since when something waits for this branch.
    pub(super) fn since(&self, branch: &BranchKey) -> Option<u64> {
        self.waiting.get(branch).map(|asked| asked.since)
    }

    /// Whether a client waits for something here.
    pub(super) fn has_needed(&self) -> bool {
        self.order.first_key_value().is_some_and(|((rank, _), _)| *rank == OwnRank::Needed)
    }

    /// Of how many branches something is asked.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{insert, key};

    fn asked(name: &str, rank: OwnRank, since: u64) -> OwnCommands {
        OwnCommands { commands: vec![insert("dar", name, "x")], rank, since }
    }

    fn popped(queue: &mut OwnQueue) -> Vec<(String, String)> {
        std::iter::from_fn(|| queue.pop(OwnRank::Usual, None))
            .map(|(branch, asked)| {
                (branch.branch.to_string(), asked.commands[0].id.request.clone())
            })
            .collect()
    }

    #[test]
    fn a_newer_definition_takes_the_place_of_an_older_one() {
        let mut queue = OwnQueue::default();
        queue.push(key("dar"), asked("old", OwnRank::Needed, 1));
        queue.push(key("remal"), asked("other", OwnRank::Needed, 2));
        queue.push(key("dar"), asked("new", OwnRank::Usual, 3));
        assert_eq!((queue.len(), queue.since(&key("dar"))), (2, Some(1)));
        let expected = [("dar", "insert-new"), ("remal", "insert-other")];
        let expected = expected.map(|(branch, name)| (branch.to_owned(), name.to_owned()));
        assert_eq!(popped(&mut queue), expected);
        assert!(queue.order.is_empty() && queue.waiting.is_empty());
    }

    #[test]
    fn what_a_client_needs_comes_first_and_a_held_branch_waits() {
        let mut queue = OwnQueue::default();
        for (since, branch) in (1..).zip(["a", "b", "c"]) {
            queue.push(key(branch), asked(branch, OwnRank::Usual, since));
        }
        assert!(!queue.has_needed());
        queue.push(key("c"), asked("c", OwnRank::Needed, 4));
        assert!(queue.has_needed());
        let next = |queue: &mut OwnQueue, held: &str| {
            queue.pop(OwnRank::Usual, Some(&key(held))).map(|(branch, _)| branch.branch.to_string())
        };
        assert!(queue.pop(OwnRank::Needed, Some(&key("c"))).is_none(), "nobody needs the others");
        assert_eq!(next(&mut queue, "c").as_deref(), Some("a"));
        assert_eq!(next(&mut queue, "b").as_deref(), Some("c"));
        assert_eq!(next(&mut queue, "b"), None);
        assert_eq!(next(&mut queue, "c").as_deref(), Some("b"));
    }
}
