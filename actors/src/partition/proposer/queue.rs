//! Queue: what waits for the proposer, and what of it goes into the next entry.
//!
//! Promises:
//! - the small commands of one requester for one branch come out in the order in which they went
//!   in, and behind its large ones that went in before; a large one may pass small ones before it;
//! - while the last piece of a large command is decided, no other command of its branch comes out:
//!   in the log behind it, it would hold up all that are in its entry;
//! - what comes in behind a definition that it needs comes out behind it; what came in before a
//!   definition of a large branch waits for one before it at most, however many are made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::{BranchKey, Command};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::own_queue::{OwnCommands, OwnQueue, OwnRank};
use super::{OutcomeSender, Submission};
use crate::fair_queue::FairQueue;
use crate::limits::{BATCH_BYTES_MAX, BATCH_CHANGES_MAX, BATCH_COMMANDS_MAX, LEADER_BRANCHES_MAX};
use crate::message::{BusyScope, Refusal};
use crate::partition::weight::CommandCost;
use crate::shares::Requester;

/// A client's command that waits.
struct WaitingSubmission {
    /// How many came in before it.
    count: u64,
    /// Whether it was set aside and has its turn now.
    is_released: bool,
    submission: Submission,
}

/// The commands that wait for their entry.
#[derive(Default)]
struct Waiting {
    /// The leader's own.
    own: OwnQueue,
    /// Those of clients.
    submissions: FairQueue<WaitingSubmission>,
    /// Those that take long, which go into the log one by one beside the others: the leader's own,
    /// and those of clients.
    own_long: OwnQueue,
    long: FairQueue<WaitingSubmission>,
    /// Whether the last one that went was the leader's own, so that a client's is next.
    owned_last_long: bool,
    /// How many of each requester for each branch wait there or are under way: what it sends behind
    /// them goes there, too.
    long_of: HashMap<(Requester, BranchKey), usize>,
    /// The branch of which nothing comes out now.
    held: Option<BranchKey>,
    /// Commands of branches of which nothing came out when it was their turn.
    set_aside: Vec<WaitingSubmission>,
    /// How many of those have their turn now, and did not come out yet.
    released: usize,
    /// Whether some of them, or of the leader's own, are on their way into the log: nothing that
    /// takes long goes before them.
    awaited_under_way: bool,
    /// The branches of the leader's own that are.
    own_under_way: HashSet<BranchKey>,
    /// Whether the last entry had some of the leader's own, so that clients are first in the next.
    owned_last: bool,
    /// How many came in.
    count: u64,
    /// Of the newest catalogue that the leader's own commands follow.
    revision: u64,
    /// Whether the task has ended, and nothing is proposed any more.
    ended: bool,
}

/// A command that takes long.
#[expect(clippy::large_enum_variant, reason = "one at a time, and it is taken apart at once")]
pub(super) enum LongSubmission {
    /// A client's. [`Queue::finish_long`] follows.
    Client(Submission),
    /// What the leader asks of a branch, which is held from now on.
    Own(Vec<Command>),
}

/// The queue before the log. What waits in it is bounded by the shares of those who wait, and of
/// the leader's own by `LEADER_BRANCHES_MAX`.
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
        let count = waiting.next_count();
        let (requester, weight) = (submission.requester, submission.cost.weight);
        if is_long || waiting.has_long_of(&submission) {
            let key = submission.command.key.clone();
            *waiting.long_of.entry((requester, key)).or_default() += 1;
            waiting.long.push(requester, weight, WaitingSubmission::new(count, submission));
            drop(waiting);
            self.long_added.notify_one();
        } else {
            waiting.submissions.push(requester, weight, WaitingSubmission::new(count, submission));
            drop(waiting);
            self.added.notify_one();
        }
        Ok(())
    }

    /// Adds what the leader asks of a branch by a catalogue of this revision, in place of what it
    /// asked before.
    ///
    /// # Errors
    /// That it was not taken: there is no room, or a newer catalogue was followed already.
    pub(super) fn push_own(
        &self,
        branch: BranchKey,
        revision: u64,
        commands: Vec<Command>,
        (rank, is_long): (OwnRank, bool),
    ) -> Result<(), Refusal> {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return Err(Refusal::NotLeader { hint: None });
        }
        let is_full = waiting.own.len() + waiting.own_long.len() >= LEADER_BRANCHES_MAX;
        // What a client needs is bounded by the clients.
        if revision < waiting.revision || (is_full && rank == OwnRank::Usual) {
            return Err(Refusal::Busy { what: BusyScope::Node });
        }
        waiting.revision = revision;
        let mut asked = OwnCommands { commands, rank, since: waiting.next_count() };
        // Once among what takes long it stays there: commands behind it were set aside.
        let is_long = is_long || waiting.own_long.since(&branch).is_some();
        let Waiting { own, own_long, .. } = &mut *waiting;
        if !is_long {
            own.push(branch, asked);
        } else {
            // The branch may have become large since it was asked before.
            if let Some(before) = own.remove(&branch) {
                (asked.rank, asked.since) = (rank.min(before.rank), before.since);
            }
            own_long.push(branch, asked);
        }
        drop(waiting);
        self.added.notify_one();
        self.long_added.notify_one();
        Ok(())
    }

    /// Takes back what the leader asked of a branch: by a catalogue of this revision nothing of it
    /// is missing. `true`: something of it is on its way into the log, and may be wrong.
    pub(super) fn withdraw_own(&self, branch: &BranchKey, revision: u64) -> bool {
        let mut waiting = self.waiting.lock();
        if revision >= waiting.revision {
            waiting.revision = revision;
            waiting.own.remove(branch);
            if waiting.own_long.remove(branch).is_some() {
                // What waited behind it alone waits no more.
                waiting.put_back();
                self.added.notify_one();
            }
        }
        waiting.own_under_way.contains(branch)
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
        let mut waiting = self.waiting.lock();
        // Nearly always there was nothing, and nobody is woken.
        if std::mem::take(&mut waiting.awaited_under_way) {
            let Waiting { own_under_way, held, .. } = &mut *waiting;
            own_under_way.retain(|branch| held.as_ref() == Some(branch));
            self.long_added.notify_one();
        }
    }

    /// Nothing of this branch comes out from now on; `None`: what waited for the one that was held
    /// does, but for what a definition goes before.
    pub(super) fn hold(&self, branch: Option<BranchKey>) {
        let mut waiting = self.waiting.lock();
        match branch {
            Some(branch) => waiting.held = Some(branch),
            None => {
                waiting.release();
                drop(waiting);
                self.added.notify_one();
            }
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
            let (builder, has_released_all) = {
                let mut waiting = self.0.waiting.lock();
                let released = waiting.released;
                let builder = waiting.next_batch(&mut abandoned);
                (builder, released > 0 && waiting.released == 0)
            };
            // Without the lock, as they give their shares back.
            drop(abandoned);
            if !builder.commands.is_empty() {
                return builder;
            }
            if has_released_all {
                // Nobody waits any more for what a large command was to come behind.
                self.0.long_added.notify_one();
            }
            // A note that was left meanwhile is not lost: it ends this at once.
            self.0.added.notified().await;
        }
    }
}

impl Waiting {
    fn next_count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// What goes into one entry: what clients' commands need; then the leader's own commands and
    /// those of clients whose turn it is, as many as may be in one; a large one alone. Where
    /// clients wait, they and the leader are first in turns, or thousands of definitions would hold
    /// up all of them.
    fn next_batch(&mut self, abandoned: &mut Vec<Submission>) -> BatchBuilder {
        let mut builder = BatchBuilder::default();
        while self.add_own(&mut builder, OwnRank::Needed) {}
        if self.owned_last {
            self.add_submissions(&mut builder, abandoned);
        }
        let before = builder.commands.len();
        while self.add_own(&mut builder, OwnRank::Usual) {}
        self.owned_last = builder.commands.len() > before;
        self.add_submissions(&mut builder, abandoned);
        builder
    }

    /// Adds what is asked of the next branch of this rank, if there is one and the entry has room.
    fn add_own(&mut self, builder: &mut BatchBuilder, rank: OwnRank) -> bool {
        if !builder.takes(1) {
            return false;
        }
        let Some((branch, asked)) = self.own.pop(rank, self.held.as_ref()) else { return false };
        asked.commands.into_iter().for_each(|command| builder.add_own(command));
        self.own_under_way.insert(branch);
        self.awaited_under_way = true;
        true
    }

    /// Whether a command of this branch that came in as the so-manyth must not come out now.
    fn is_held(&self, count: u64, branch: &BranchKey) -> bool {
        let definition = self.own_long.since(branch);
        self.held.as_ref() == Some(branch) || definition.is_some_and(|since| since < count)
    }

    /// Nothing is held any more.
    fn release(&mut self) {
        if let Some(branch) = self.held.take() {
            self.own_under_way.remove(&branch);
            if let Some(asked) = self.own.remove(&branch) {
                // A branch of which one command took long is large.
                self.own_long.push(branch, asked);
            }
        }
        self.put_back();
    }

    /// What was set aside and is held no more has its turn, in its order and before what its
    /// requesters have sent since.
    fn put_back(&mut self) {
        let (held, released): (Vec<_>, Vec<_>) = std::mem::take(&mut self.set_aside)
            .into_iter()
            .partition(|it| self.is_held(it.count, &it.submission.command.key));
        self.set_aside = held;
        self.released += released.len();
        for waiting in released.into_iter().rev() {
            let (requester, weight) = waiting.place();
            let released = WaitingSubmission { is_released: true, ..waiting };
            self.submissions.push_front(requester, weight, released);
        }
    }

    /// Whether its requester has one that takes long for the same branch.
    fn has_long_of(&self, submission: &Submission) -> bool {
        !self.long_of.is_empty()
            && self.long_of.contains_key(&(submission.requester, submission.command.key.clone()))
    }

    /// The leader and clients take turns.
    fn next_long(&mut self, abandoned: &mut Vec<Submission>) -> Option<LongSubmission> {
        // Not before what commands need: this one may be among them, and it goes its own way. And
        // not before what waited for the last one, or it would wait for this one as well.
        if self.own.has_needed() || self.released > 0 || self.awaited_under_way {
            return None;
        }
        let usual = OwnRank::Usual;
        let mut own = if self.owned_last_long { None } else { self.own_long.pop(usual, None) };
        if own.is_none()
            && let Some(next) = self.next_long_of_clients(abandoned)
        {
            let key = &next.submission.command.key;
            if !self.is_held(next.count, key) {
                self.owned_last_long = false;
                return Some(LongSubmission::Client(next.submission));
            }
            own = self.own_long.remove(key).map(|asked| (key.clone(), asked));
            let (requester, weight) = next.place();
            self.long.push_front(requester, weight, next);
        }
        let (branch, asked) = own.or_else(|| self.own_long.pop(usual, None))?;
        self.owned_last_long = true;
        self.own_under_way.insert(branch.clone());
        self.held = Some(branch);
        Some(LongSubmission::Own(asked.commands))
    }

    fn next_long_of_clients(
        &mut self,
        abandoned: &mut Vec<Submission>,
    ) -> Option<WaitingSubmission> {
        let (weight, gone) = next_weight(&mut self.long);
        for WaitingSubmission { submission, .. } in gone {
            self.forget_long(submission.requester, submission.command.key.clone());
            abandoned.push(submission);
        }
        weight?;
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
        loop {
            let (weight, gone) = next_weight(&mut self.submissions);
            self.released -= gone.iter().filter(|gone| gone.is_released).count();
            abandoned.extend(gone.into_iter().map(|gone| gone.submission));
            if !weight.is_some_and(|weight| builder.takes(weight)) {
                return;
            }
            let Some(next) = self.submissions.pop() else { return };
            self.released -= usize::from(next.is_released);
            if self.is_held(next.count, &next.submission.command.key) {
                self.set_aside.push(WaitingSubmission { is_released: false, ..next });
                continue;
            }
            self.awaited_under_way |= next.is_released;
            let submission = next.submission;
            builder.add(submission.command, submission.cost);
            builder.replies.push((builder.commands.len() - 1, submission.reply));
        }
    }
}

impl WaitingSubmission {
    fn new(count: u64, submission: Submission) -> Self {
        Self { count, is_released: false, submission }
    }

    /// Whose it is and what it weighs.
    fn place(&self) -> (Requester, u64) {
        (self.submission.requester, self.submission.cost.weight)
    }
}

/// What the next command weighs, and those before it for which nobody waits any more.
fn next_weight(queue: &mut FairQueue<WaitingSubmission>) -> (Option<u64>, Vec<WaitingSubmission>) {
    let mut gone = Vec::new();
    let is_gone = |waiting: &WaitingSubmission| waiting.submission.reply.is_abandoned();
    let weight = queue.next_weight(is_gone, &mut gone);
    (weight, gone)
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
    use futures::FutureExt as _;
    use model::Outcome;
    use tokio::sync::oneshot;

    use super::*;
    use crate::shares::ShareLimiter;
    use crate::testing::{insert, key};

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

    /// Adds a small command of client `connection`.
    fn push(queue: &Queue, connection: u64, name: &str) -> oneshot::Receiver<Answer> {
        push_as(queue, connection, name, false)
    }

    fn push_as(
        queue: &Queue,
        connection: u64,
        name: &str,
        is_long: bool,
    ) -> oneshot::Receiver<Answer> {
        let (submission, outcome) = submission(connection, name);
        assert!(queue.push(submission, is_long).is_ok());
        outcome
    }

    /// What the leader asks of a branch.
    fn push_own(queue: &Queue, branch: &str, name: &str, rank: OwnRank, is_long: bool) {
        let asked = vec![insert(branch, name, "x")];
        queue.push_own(key(branch), 1, asked, (rank, is_long)).unwrap();
    }

    /// What the next large one is, where there is one.
    fn next_long(queue: &Queue) -> Option<String> {
        match queue.waiting.lock().next_long(&mut Vec::new())? {
            LongSubmission::Client(next) => Some(next.command.id.request),
            LongSubmission::Own(asked) => Some(asked[0].id.request.clone()),
        }
    }

    #[test]
    fn what_a_command_needs_is_packed_before_everything() {
        let queue = Queue::default();
        let _outcome = push(&queue, 1, "client");
        push_own(&queue, "else", "own", OwnRank::Usual, false);
        push_own(&queue, "dar", "needed", OwnRank::Needed, false);
        assert_eq!(
            packed(&mut queue.waiting.lock()),
            ["insert-needed", "insert-own", "insert-client"]
        );
    }

    #[test]
    fn many_commands_of_the_leader_take_turns_with_clients() {
        let queue = Queue::default();
        for n in 0..5_000 {
            push_own(&queue, &format!("branch-{n}"), "own", OwnRank::Usual, false);
        }
        let _outcome = push(&queue, 1, "client");
        let mut waiting = queue.waiting.lock();
        assert!(packed(&mut waiting).iter().all(|name| name.contains("own")));
        assert_eq!(packed(&mut waiting)[0], "insert-client", "it is first in the next entry");
        assert!(!packed(&mut waiting).is_empty(), "and the leader goes on");
    }

    #[test]
    fn what_a_leader_asks_is_bounded() {
        let queue = Queue::default();
        let push = |n| {
            let asked = vec![insert("dar", "own", "x")];
            queue.push_own(key(&format!("branch-{n}")), 1, asked, (OwnRank::Usual, n % 2 == 0))
        };
        (0..LEADER_BRANCHES_MAX).for_each(|n| push(n).unwrap());
        assert_eq!(push(LEADER_BRANCHES_MAX), Err(Refusal::Busy { what: BusyScope::Node }));
        push_own(&queue, "dar", "a client waits", OwnRank::Needed, false);
    }

    #[test]
    fn commands_of_a_branch_wait_while_its_large_one_is_decided() {
        let queue = Queue::default();
        queue.hold(Some(key("dar")));
        let _first = push(&queue, 1, "first");
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        let _second = push(&queue, 1, "second");
        queue.hold(None);
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-first", "insert-second"]);
    }

    #[tokio::test]
    async fn what_a_client_sends_behind_a_large_command_stays_behind_it() {
        let queue = Queue::default();
        let outcomes = [
            push_as(&queue, 1, "large", true),
            push(&queue, 1, "behind"),
            push(&queue, 2, "other"),
        ];
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-other"]);
        for expected in ["insert-large", "insert-behind"] {
            let next = of_client(queue.next_long().await);
            assert_eq!(next.command.id.request, expected);
            queue.finish_long(next.requester, next.command.key);
        }
        let _outcome = push(&queue, 1, "later");
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-later"]);
        drop(outcomes);
    }

    #[tokio::test]
    async fn large_commands_nobody_waits_for_hold_up_none_behind_them() {
        let queue = Queue::default();
        for name in ["left", "left too"] {
            drop(push_as(&queue, 1, name, true));
        }
        let _outcome = push_as(&queue, 1, "stays", true);
        let next = of_client(queue.next_long().await);
        assert_eq!(next.command.id.request, "insert-stays");
        queue.finish_long(next.requester, next.command.key);
        assert!(queue.waiting.lock().long_of.is_empty());
        drop(push_as(&queue, 1, "alone", true));
        assert_eq!(next_long(&queue), None);
        assert!(queue.waiting.lock().long_of.is_empty(), "also where none stays");
    }

    #[test]
    fn a_large_command_goes_behind_what_commands_need() {
        let queue = Queue::default();
        push_own(&queue, "dar", "needed", OwnRank::Needed, false);
        let _outcome = push_as(&queue, 1, "large", true);
        assert_eq!(next_long(&queue), None, "it is not in the log");
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-needed"]);
        assert_eq!(next_long(&queue), None, "it is on its way");
        queue.finish_batch();
        assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
    }

    #[test]
    fn what_the_leader_asks_of_a_held_branch_waits_too() {
        let queue = Queue::default();
        queue.hold(Some(key("dar")));
        push_own(&queue, "dar", "one", OwnRank::Usual, false);
        push_own(&queue, "else", "other", OwnRank::Usual, false);
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-other"]);
        queue.finish_batch();
        queue.hold(None);
        // By now it is a large one.
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        assert_eq!(next_long(&queue).as_deref(), Some("insert-one"));
    }

    #[test]
    fn a_newer_definition_is_never_followed_by_an_older_one() {
        let queue = Queue::default();
        push_own(&queue, "dar", "old", OwnRank::Needed, false);
        // The branch has become large.
        push_own(&queue, "dar", "new", OwnRank::Usual, true);
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        assert_eq!(next_long(&queue).as_deref(), Some("insert-new"));
        queue.hold(None);
        assert_eq!(next_long(&queue), None);
    }

    #[test]
    fn what_is_missing_no_more_is_not_asked() {
        let queue = Queue::default();
        push_own(&queue, "dar", "wrong", OwnRank::Usual, true);
        push_own(&queue, "else", "wrong too", OwnRank::Usual, false);
        let _outcome = push(&queue, 1, "small");
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-wrong too"]);
        assert!(queue.withdraw_own(&key("else"), 2), "it is on its way");
        queue.finish_batch();
        assert!(!queue.withdraw_own(&key("else"), 2));
        assert!(!queue.withdraw_own(&key("dar"), 2));
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-small"], "nothing is before it");
        queue.finish_batch();
        assert_eq!(next_long(&queue), None);
        let asked = vec![insert("dar", "older", "x")];
        let refused = queue.push_own(key("dar"), 1, asked, (OwnRank::Usual, false));
        assert_eq!(refused, Err(Refusal::Busy { what: BusyScope::Node }), "by an older catalogue");
    }

    #[test]
    fn a_branch_that_becomes_small_strands_nobody() {
        let queue = Queue::default();
        push_own(&queue, "dar", "first", OwnRank::Usual, true);
        let _outcomes = [push(&queue, 1, "a"), push(&queue, 1, "b")];
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        push_own(&queue, "dar", "second", OwnRank::Usual, false);
        let _outcome = push(&queue, 1, "c");
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        assert_eq!(next_long(&queue).as_deref(), Some("insert-second"));
        queue.hold(None);
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-a", "insert-b", "insert-c"]);
    }

    #[test]
    fn a_definition_of_a_large_branch_comes_before_what_needs_it() {
        let queue = Queue::default();
        let _before = push(&queue, 3, "before");
        push_own(&queue, "dar", "define", OwnRank::Needed, true);
        let _outcomes = [push_as(&queue, 1, "large", true), push(&queue, 2, "small")];
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-before"], "it needs no other");
        assert_eq!(next_long(&queue).as_deref(), Some("insert-define"));
        assert!(packed(&mut queue.waiting.lock()).is_empty(), "its branch is held");
        queue.hold(None);
        assert_eq!(next_long(&queue), None, "what waited for it is first");
        assert_eq!(packed(&mut queue.waiting.lock()), ["insert-small"]);
        queue.finish_batch();
        assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
    }

    #[test]
    fn definitions_without_end_hold_up_a_command_by_one() {
        let queue = Queue::default();
        push_own(&queue, "dar", "first", OwnRank::Usual, true);
        let _outcomes = [push_as(&queue, 1, "large", true), push(&queue, 2, "small")];
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        for n in 0..3 {
            assert!(next_long(&queue).is_some());
            // The next comes while one is applied.
            push_own(&queue, "dar", &format!("later-{n}"), OwnRank::Usual, true);
            queue.hold(None);
            let small = packed(&mut queue.waiting.lock());
            assert_eq!(small, if n == 0 { vec!["insert-small"] } else { vec![] });
            queue.finish_batch();
            if n == 0 {
                assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
            }
        }
    }

    #[test]
    fn definitions_of_large_branches_take_turns_with_clients() {
        let queue = Queue::default();
        for n in 0..4 {
            push_own(&queue, &format!("large-{n}"), &format!("own-{n}"), OwnRank::Usual, true);
        }
        let _outcomes = [1, 2].map(|n| push_as(&queue, n, &format!("client-{n}"), true));
        let turns: Vec<_> = std::iter::from_fn(|| {
            let next = next_long(&queue);
            queue.hold(None);
            next
        })
        .collect();
        let expected = ["own-0", "client-1", "own-1", "client-2", "own-2", "own-3"];
        assert_eq!(turns, expected.map(|name| format!("insert-{name}")));
    }

    #[test]
    fn what_has_its_turn_and_nobody_waits_for_holds_up_nothing() {
        let queue = Queue::default();
        push_own(&queue, "dar", "define", OwnRank::Usual, true);
        let outcome = push(&queue, 1, "small");
        assert!(packed(&mut queue.waiting.lock()).is_empty());
        assert_eq!(next_long(&queue).as_deref(), Some("insert-define"));
        drop(outcome);
        let _outcome = push_as(&queue, 2, "large", true);
        queue.hold(None);
        let queue = Arc::new(queue);
        let end = QueueEnd(Arc::clone(&queue));
        assert!(end.next().now_or_never().is_none(), "nothing is left for an entry");
        assert_eq!(next_long(&queue).as_deref(), Some("insert-large"));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_packed() {
        let queue = Queue::default();
        drop(push(&queue, 1, "left"));
        let _outcome = push(&queue, 1, "stays");
        let mut abandoned = Vec::new();
        let batch = queue.waiting.lock().next_batch(&mut abandoned);
        assert_eq!((batch.commands.len(), batch.has_own(), abandoned.len()), (1, false, 1));
    }
}
