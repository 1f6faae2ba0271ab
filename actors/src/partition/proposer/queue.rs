//! Queue: what waits for the proposer, and what of it goes into the next entry.
//!
//! Promises:
//! - the small commands of one requester for one branch come out in the order in which they went
//!   in, and behind its large ones that went in before; a large one may pass small ones before it;
//! - while the last piece of a large command is decided, no other command of its branch comes out:
//!   in the log behind it, it would hold up all that are in its entry;
//! - nor while a definition for a large branch waits: commands behind it may need it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::{BranchKey, Command};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{OutcomeSender, Submission};
use crate::fair_queue::FairQueue;
use crate::limits::{BATCH_BYTES_MAX, BATCH_CHANGES_MAX, BATCH_COMMANDS_MAX, LEADER_COMMANDS_MAX};
use crate::message::{BusyScope, Refusal};
use crate::partition::weight::CommandCost;
use crate::shares::Requester;

/// The commands that wait for their entry.
#[derive(Default)]
pub(super) struct Waiting {
    /// Definitions that a client's command needs.
    pub(super) needed: VecDeque<Command>,
    /// The leader's own, such as definitions that nobody waits for.
    pub(super) own: VecDeque<Command>,
    /// Those of clients.
    submissions: FairQueue<Submission>,
    /// Those that take long, which go into the log one by one beside the others.
    long: FairQueue<Submission>,
    /// The leader's own that take long, by branch: they go the same way.
    own_long: BTreeMap<BranchKey, VecDeque<Command>>,
    /// Whether the last one that went was the leader's own, so that a client's is next.
    owned_last_long: bool,
    /// How many of each requester for each branch wait there or are under way: what it sends behind
    /// them goes there, too.
    long_of: HashMap<(Requester, BranchKey), usize>,
    /// Whether what some command needs is on its way into the log.
    needed_under_way: bool,
    /// The branch of which nothing comes out now, and what would have: of clients, and of the
    /// leader's own.
    held: Option<BranchKey>,
    set_aside: Vec<Submission>,
    own_set_aside: Vec<Command>,
    /// Whether the last entry had some of the leader's own, so that clients are first in the next.
    owned_last: bool,
    /// Whether the task has ended, and nothing is proposed any more.
    ended: bool,
}

/// A command that takes long.
pub(super) enum LongSubmission {
    /// A client's. [`Queue::finish_long`] follows.
    Client(Submission),
    /// The leader's own.
    Own(Command),
}

/// The queue before the log. What waits in it is bounded by the shares of those who wait, and of
/// the leader's own by `LEADER_COMMANDS_MAX`.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    added: Notify,
    long_added: Notify,
    /// Whether commands of the leader's own were taken and did not come into the log.
    pub(super) own_lost: AtomicBool,
}

impl Queue {
    /// Adds a client's command.
    ///
    /// # Errors
    /// The command: nothing is taken out any more.
    #[expect(clippy::result_large_err, reason = "it is given back whole, to be answered")]
    pub(super) fn push(&self, submission: Submission, is_long: bool) -> Result<(), Submission> {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return Err(submission);
        }
        let (requester, weight) = (submission.requester, submission.cost.weight);
        if is_long || waiting.has_long_of(&submission) {
            let key = submission.command.key.clone();
            *waiting.long_of.entry((requester, key)).or_default() += 1;
            waiting.long.push(requester, weight, submission);
            drop(waiting);
            self.long_added.notify_one();
        } else {
            waiting.submissions.push(requester, weight, submission);
            drop(waiting);
            self.added.notify_one();
        }
        Ok(())
    }

    /// Adds commands of the leader's own to one of its two queues, or to those that take long; all
    /// or none.
    ///
    /// # Errors
    /// Why they were not taken.
    pub(super) fn push_own(
        &self,
        commands: Vec<Command>,
        is_long: impl Fn(&BranchKey) -> bool,
        queue: impl FnOnce(&mut Waiting) -> &mut VecDeque<Command>,
    ) -> Result<(), Refusal> {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return Err(Refusal::NotLeader { hint: None });
        }
        let (long, small): (Vec<_>, Vec<_>) =
            commands.into_iter().partition(|command| is_long(&command.key));
        let own_long: usize = waiting.own_long.values().map(VecDeque::len).sum();
        let queue = queue(&mut waiting);
        if (queue.len() + small.len()).max(own_long + long.len()) > LEADER_COMMANDS_MAX {
            return Err(Refusal::Busy { what: BusyScope::Node });
        }
        queue.extend(small);
        for command in long {
            waiting.own_long.entry(command.key.clone()).or_default().push_back(command);
        }
        drop(waiting);
        self.added.notify_one();
        self.long_added.notify_one();
        Ok(())
    }

    /// The next command that takes long, once there is one.
    pub(super) async fn next_long(&self) -> LongSubmission {
        loop {
            let mut abandoned = Vec::new();
            let next = self.waiting.lock().next_long(&mut abandoned);
            // Without the lock, as they give their shares back.
            drop(abandoned);
            match next {
                Some(next) => return next,
                None => self.long_added.notified().await,
            }
        }
    }

    /// A client's command that took long is decided, or was given up.
    pub(super) fn finish_long(&self, requester: Requester, key: BranchKey) {
        self.waiting.lock().forget_long(requester, key);
    }

    /// An entry is in the log, or was given up: what was needed in it is there, or asked for again.
    pub(super) fn finish_batch(&self) {
        // Nearly always there was nothing, and nobody is woken.
        if std::mem::take(&mut self.waiting.lock().needed_under_way) {
            self.long_added.notify_one();
        }
    }

    /// Nothing of this branch comes out from now on; `None`: all of them come.
    pub(super) fn hold(&self, branch: Option<BranchKey>) {
        let mut waiting = self.waiting.lock();
        waiting.held = branch;
        if waiting.held.is_none() {
            for command in std::mem::take(&mut waiting.own_set_aside).into_iter().rev() {
                // Before all else: a command that was set aside with it may need it.
                waiting.needed.push_front(command);
            }
            // In their order, before what their requesters have sent since.
            for submission in std::mem::take(&mut waiting.set_aside).into_iter().rev() {
                let (requester, weight) = (submission.requester, submission.cost.weight);
                waiting.submissions.push_front(requester, weight, submission);
            }
            drop(waiting);
            self.added.notify_one();
        }
    }
}

/// The end of the queue that the task takes from. Dropped, what still waits is dropped with it: its
/// callers are told that the outcome is unknown.
pub(super) struct QueueEnd(pub(super) Arc<Queue>);

impl Drop for QueueEnd {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        let left = std::mem::take(&mut *waiting);
        waiting.ended = true;
        // Without the lock: what is dropped gives its shares back.
        drop(waiting);
        drop(left);
    }
}

impl QueueEnd {
    /// The next entry's commands, once there are some.
    pub(super) async fn next(&self) -> BatchBuilder {
        loop {
            let mut abandoned = Vec::new();
            let builder = self.0.waiting.lock().next_batch(&mut abandoned);
            // Without the lock, as they give their shares back.
            drop(abandoned);
            if !builder.commands.is_empty() {
                return builder;
            }
            // A note that was left meanwhile is not lost: it ends this at once.
            self.0.added.notified().await;
        }
    }
}

impl Waiting {
    /// What goes into one entry: what clients' commands need; then the leader's own commands and
    /// those of clients whose turn it is, as many as may be in one; a large one alone. Where
    /// clients wait, they and the leader are first in turns, or thousands of definitions would hold
    /// up all of them.
    fn next_batch(&mut self, abandoned: &mut Vec<Submission>) -> BatchBuilder {
        let mut builder = BatchBuilder::default();
        while builder.takes(1)
            && let Some(command) = self.needed.pop_front()
        {
            self.add_own(&mut builder, command);
        }
        self.needed_under_way |= !builder.commands.is_empty();
        if self.owned_last {
            self.add_submissions(&mut builder, abandoned);
        }
        let before = builder.commands.len();
        while builder.takes(1)
            && let Some(command) = self.own.pop_front()
        {
            self.add_own(&mut builder, command);
        }
        self.owned_last = builder.commands.len() > before;
        self.add_submissions(&mut builder, abandoned);
        builder
    }

    /// Whether nothing of this branch comes out now.
    fn is_held(&self, branch: &BranchKey) -> bool {
        self.held.as_ref() == Some(branch) || self.own_long.contains_key(branch)
    }

    /// Adds a command of the leader's own, unless its branch is held.
    fn add_own(&mut self, builder: &mut BatchBuilder, command: Command) {
        if self.is_held(&command.key) {
            self.own_set_aside.push(command);
        } else {
            builder.add_own(command);
        }
    }

    /// Whether its requester has one that takes long for the same branch.
    fn has_long_of(&self, submission: &Submission) -> bool {
        !self.long_of.is_empty()
            && self.long_of.contains_key(&(submission.requester, submission.command.key.clone()))
    }

    /// The leader and clients take turns.
    fn next_long(&mut self, abandoned: &mut Vec<Submission>) -> Option<LongSubmission> {
        // Not before what commands need: this one may be among them, and it goes its own way.
        if !self.needed.is_empty() || self.needed_under_way {
            return None;
        }
        let first = self.own_long.keys().next().cloned();
        let mut branch = first.filter(|_| !self.owned_last_long);
        if branch.is_none()
            && let Some(submission) = self.next_long_of_clients(abandoned)
        {
            let key = &submission.command.key;
            if !self.own_long.contains_key(key) {
                self.owned_last_long = false;
                return Some(LongSubmission::Client(submission));
            }
            // Not before the definition that it may need.
            branch = Some(key.clone());
            let (requester, weight) = (submission.requester, submission.cost.weight);
            self.long.push_front(requester, weight, submission);
        }
        let branch = branch.or_else(|| self.own_long.keys().next().cloned())?;
        self.owned_last_long = true;
        self.next_own_long(branch).map(LongSubmission::Own)
    }

    /// The leader's own for this branch, which is held from now on.
    fn next_own_long(&mut self, branch: BranchKey) -> Option<Command> {
        let commands = self.own_long.get_mut(&branch)?;
        let command = commands.pop_front();
        if commands.is_empty() {
            self.own_long.remove(&branch);
        }
        self.held = Some(branch);
        command
    }

    fn next_long_of_clients(&mut self, abandoned: &mut Vec<Submission>) -> Option<Submission> {
        let is_gone = |submission: &Submission| submission.reply.is_abandoned();
        let next = self.long.next_weight(is_gone, abandoned);
        for gone in abandoned.iter() {
            self.forget_long(gone.requester, gone.command.key.clone());
        }
        next?;
        self.long.pop()
    }

    fn forget_long(&mut self, requester: Requester, key: BranchKey) {
        let place = (requester, key);
        if let Some(count) = self.long_of.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.long_of.remove(&place);
            }
        }
    }

    /// Adds clients' commands. Whatever its caller no longer waits for is left out: nothing of it
    /// was proposed, and a caller that tries again has sent it anew, behind it and in its place.
    fn add_submissions(&mut self, builder: &mut BatchBuilder, abandoned: &mut Vec<Submission>) {
        let is_gone = |submission: &Submission| submission.reply.is_abandoned();
        while let Some(weight) = self.submissions.next_weight(is_gone, abandoned)
            && builder.takes(weight)
            && let Some(submission) = self.submissions.pop()
        {
            if self.is_held(&submission.command.key) {
                self.set_aside.push(submission);
                continue;
            }
            builder.add(submission.command, submission.cost);
            builder.replies.push((builder.commands.len() - 1, submission.reply));
        }
    }
}

/// The commands of one entry and who waits for which of them.
#[derive(Default)]
pub(super) struct BatchBuilder {
    pub(super) commands: Vec<Command>,
    pub(super) replies: Vec<(usize, OutcomeSender)>,
    pub(super) bytes: usize,
    weight: u64,
}

impl BatchBuilder {
    fn add(&mut self, command: Command, cost: CommandCost) {
        self.bytes += cost.bytes;
        self.weight += cost.weight;
        self.commands.push(command);
    }

    /// A command that nobody waits for.
    fn add_own(&mut self, command: Command) {
        let cost = CommandCost::of(&command);
        self.add(command, cost);
    }

    /// Whether it has commands that nobody waits for.
    pub(super) fn has_own(&self) -> bool {
        self.commands.len() > self.replies.len()
    }

    /// Whether a command of this weight may be in it: the first one may, whatever its weight.
    fn takes(&self, weight: u64) -> bool {
        self.commands.is_empty()
            || self.commands.len() < BATCH_COMMANDS_MAX
                && self.bytes < BATCH_BYTES_MAX
                && self.weight + weight <= BATCH_CHANGES_MAX
    }
}

#[cfg(test)]
mod tests {
    use model::Outcome;
    use tokio::sync::oneshot;

    use super::*;
    use crate::shares::ShareLimiter;
    use crate::testing::insert;

    fn submission(connection: u64, name: &str) -> (Submission, oneshot::Receiver<Answer>) {
        let command = insert("dar", name, "x");
        let share = ShareLimiter::new(10, 50).acquire(Requester::default(), 1).unwrap();
        let (reply, outcome) = OutcomeSender::new(share);
        let requester = Requester { address: Some([10, 0, 0, 1].into()), connection };
        (Submission { requester, cost: CommandCost::of(&command), command, reply }, outcome)
    }

    type Answer = Result<Outcome, Refusal>;

    fn of_client(next: LongSubmission) -> Submission {
        let LongSubmission::Client(submission) = next else { panic!("it is the leader's own") };
        submission
    }

    fn packed(waiting: &mut Waiting) -> Vec<String> {
        let commands = waiting.next_batch(&mut Vec::new()).commands;
        commands.into_iter().map(|command| command.id.request).collect()
    }

    #[test]
    fn what_a_command_needs_is_packed_before_everything() {
        let mut waiting = Waiting::default();
        let (first, _outcome) = submission(1, "client");
        waiting.submissions.push(first.requester, first.cost.weight, first);
        waiting.own.push_back(insert("dar", "own", "x"));
        waiting.needed.push_back(insert("dar", "needed", "x"));
        assert_eq!(packed(&mut waiting), ["insert-needed", "insert-own", "insert-client"]);
    }

    #[test]
    fn many_commands_of_the_leader_take_turns_with_clients() {
        let mut waiting = Waiting::default();
        waiting.own.extend((0..5_000).map(|n| insert("dar", &format!("own-{n}"), "x")));
        let (client, _outcome) = submission(1, "client");
        waiting.submissions.push(client.requester, client.cost.weight, client);
        assert!(packed(&mut waiting).iter().all(|name| name.contains("own")));
        assert_eq!(packed(&mut waiting)[0], "insert-client", "it is first in the next entry");
        assert!(!packed(&mut waiting).is_empty(), "and the leader goes on");
    }

    #[test]
    fn commands_of_a_branch_wait_while_its_large_one_is_decided() {
        let queue = Queue::default();
        let push = |connection, name| {
            let (submission, outcome) = submission(connection, name);
            assert!(queue.push(submission, false).is_ok());
            outcome
        };
        queue.hold(Some(crate::testing::key("dar")));
        let _first = push(1, "first");
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        let _second = push(1, "second");
        queue.hold(None);
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-first", "insert-second"]);
    }

    #[tokio::test]
    async fn what_a_client_sends_behind_a_large_command_stays_behind_it() {
        let queue = Queue::default();
        let push = |connection, name, is_long| {
            let (submission, outcome) = submission(connection, name);
            assert!(queue.push(submission, is_long).is_ok());
            outcome
        };
        let outcomes = [push(1, "large", true), push(1, "behind", false), push(2, "other", false)];
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-other"]);
        for expected in ["insert-large", "insert-behind"] {
            let next = of_client(queue.next_long().await);
            assert_eq!(next.command.id.request, expected);
            queue.finish_long(next.requester, next.command.key);
        }
        let _outcome = push(1, "later", false);
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-later"]);
        drop(outcomes);
    }

    #[tokio::test]
    async fn large_commands_nobody_waits_for_hold_up_none_behind_them() {
        let queue = Queue::default();
        for name in ["left", "left too"] {
            assert!(queue.push(submission(1, name).0, true).is_ok());
        }
        let (stays, _outcome) = submission(1, "stays");
        assert!(queue.push(stays, true).is_ok());
        let next = of_client(queue.next_long().await);
        assert_eq!(next.command.id.request, "insert-stays");
        queue.finish_long(next.requester, next.command.key);
        assert!(queue.waiting.lock().long_of.is_empty());
        assert!(queue.push(submission(1, "alone").0, true).is_ok());
        assert!(queue.waiting.lock().next_long(&mut Vec::new()).is_none());
        assert!(queue.waiting.lock().long_of.is_empty(), "also where none stays");
    }

    #[test]
    fn a_large_command_goes_behind_what_commands_need() {
        let queue = Queue::default();
        let needed = vec![insert("dar", "needed", "x")];
        queue.push_own(needed, |_| false, |waiting| &mut waiting.needed).unwrap();
        let (large, _outcome) = submission(1, "large");
        assert!(queue.push(large, true).is_ok());
        let next = || queue.waiting.lock().next_long(&mut Vec::new());
        assert!(next().is_none(), "it is not in the log");
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-needed"]);
        assert!(next().is_none(), "it is on its way");
        queue.finish_batch();
        assert!(next().is_some());
    }

    #[test]
    fn what_the_leader_asks_of_a_held_branch_waits_too() {
        let queue = Queue::default();
        queue.hold(Some(crate::testing::key("dar")));
        for (name, branch) in [("one", "dar"), ("other", "else"), ("two", "dar")] {
            let command = vec![insert(branch, name, "x")];
            queue.push_own(command, |_| false, |waiting| &mut waiting.own).unwrap();
        }
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-other"]);
        queue.hold(None);
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-one", "insert-two"]);
    }

    #[tokio::test]
    async fn a_definition_of_a_large_branch_comes_before_what_needs_it() {
        let queue = Queue::default();
        let define = |name| {
            let command = vec![insert("dar", name, "x")];
            queue.push_own(command, |_| true, |waiting| &mut waiting.needed).unwrap();
        };
        let push = |connection, name, is_long| {
            let (submission, outcome) = submission(connection, name);
            assert!(queue.push(submission, is_long).is_ok());
            outcome
        };
        define("first");
        define("second");
        let _outcomes = [push(1, "large", true), push(2, "small", false)];
        for name in ["insert-first", "insert-second"] {
            assert!(packed(&mut queue.waiting.lock()).is_empty(), "its branch is held");
            let LongSubmission::Own(command) = queue.next_long().await else { panic!() };
            assert_eq!(command.id.request, name);
            queue.hold(None);
        }
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-small"]);
        assert_eq!(of_client(queue.next_long().await).command.id.request, "insert-large");
    }

    #[tokio::test]
    async fn definitions_of_large_branches_take_turns_with_clients() {
        let queue = Queue::default();
        for n in 0..4 {
            let command = vec![insert(&format!("large-{n}"), "own", "x")];
            queue.push_own(command, |_| true, |waiting| &mut waiting.own).unwrap();
        }
        let outcomes: Vec<_> = (0..2)
            .map(|n| {
                let (submission, outcome) = submission(n, "client");
                assert!(queue.push(submission, true).is_ok());
                outcome
            })
            .collect();
        let mut turns = String::new();
        for _ in 0..6 {
            match queue.next_long().await {
                LongSubmission::Client(next) => {
                    turns.push('c');
                    queue.finish_long(next.requester, next.command.key);
                }
                LongSubmission::Own(_) => turns.push('o'),
            }
            queue.hold(None);
        }
        assert_eq!(turns, "ococoo");
        drop(outcomes);
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_packed() {
        let mut waiting = Waiting::default();
        let (left, outcome) = submission(1, "left");
        let (stays, _outcome) = submission(1, "stays");
        drop(outcome);
        for submission in [left, stays] {
            waiting.submissions.push(submission.requester, submission.cost.weight, submission);
        }
        let mut abandoned = Vec::new();
        let batch = waiting.next_batch(&mut abandoned);
        assert_eq!((batch.commands.len(), batch.has_own(), abandoned.len()), (1, false, 1));
    }
}
