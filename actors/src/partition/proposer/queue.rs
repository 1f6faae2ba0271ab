//! Queue: what waits for the proposer, and what of it goes into the next entry.
//!
//! A large command goes into the log in pieces (`long.rs`). Small ones go into entries whole; of
//! them, those that weigh much, such as batches, are for the background: they wait while the store
//! is busy, or what they change would fill its queue, and those who type would wait with them.
//!
//! Promises:
//! - the commands of one requester for one branch come out in the order in which they went in;
//! - where some wait that are for the background and some that are not, the latter have every
//!   second entry at least for themselves;
//! - while the last piece of a large command is decided, no other command of its branch comes out:
//!   in the log behind it, it would hold up all that are in its entry;
//! - what comes in behind a definition that it needs comes out behind it; what came in before a
//!   definition of a large branch waits for one before it at most, however many are made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::{BranchKey, Command};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::own_queue::{OwnCommands, OwnQueue, OwnRank};
use super::{OutcomeSender, Submission};
use crate::fair_queue::{FairQueue, Pick};
use crate::limits::{
    BACKGROUND_PERIOD, BACKGROUND_WEIGHT, BATCH_BYTES_MAX, BATCH_CHANGES_MAX, BATCH_COMMANDS_MAX,
    LEADER_BRANCHES_MAX,
};
use crate::message::{BusyScope, Refusal};
use crate::partition::weight::CommandCost;
use crate::shares::Requester;

/// How often it is looked whether the store is still busy, while commands wait for that alone:
/// about as long as an entry takes.
const STORE_CHECK_PERIOD: Duration = Duration::from_millis(5);

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
    /// When one for the background went last.
    background_went: Option<Instant>,
    /// Whether none found a place in the last entry.
    background_missed: bool,
    /// Whether a large one waits for those that its requester handed in before it.
    long_is_behind: bool,
    /// Of the requesters that have commands in the entry on its way, how many came in before the
    /// first of them.
    under_way: HashMap<Requester, u64>,
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
    /// The branches of the leader's own in the entry on its way.
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
    /// is missing. `true`: it has to be looked at again, as something of the branch is on its way
    /// into the log, or a newer catalogue was followed already.
    pub(super) fn withdraw_own(&self, branch: &BranchKey, revision: u64) -> bool {
        let mut waiting = self.waiting.lock();
        if revision < waiting.revision {
            return true;
        }
        waiting.revision = revision;
        let was_small = waiting.own.remove(branch).is_some();
        let was_long = waiting.own_long.remove(branch).is_some();
        if was_long {
            // What waited behind it alone waits no more.
            waiting.put_back();
        }
        let is_under_way = waiting.is_under_way(branch);
        drop(waiting);
        if was_small || was_long {
            self.added.notify_one();
            self.long_added.notify_one();
        }
        is_under_way
    }

    /// Whether something that may change this branch's definition is on its way into the log.
    pub(super) fn is_own_under_way(&self, branch: &BranchKey) -> bool {
        self.waiting.lock().is_under_way(branch)
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

    /// An entry is in the log, or was given up: what was needed in it is there, or asked for again,
    /// and so is what was before a large command.
    pub(super) fn finish_batch(&self) {
        let mut waiting = self.waiting.lock();
        waiting.under_way.clear();
        let is_awaited = std::mem::take(&mut waiting.awaited_under_way);
        if is_awaited {
            waiting.own_under_way.clear();
        }
        // Nearly always there was nothing, and nobody is woken.
        if is_awaited || waiting.long_is_behind {
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
    /// The next entry's commands, once there are some. While the store is busy, few come that
    /// weigh much.
    pub(super) async fn next(&self, is_store_busy: impl Fn() -> bool) -> BatchBuilder {
        loop {
            let mut abandoned = Vec::new();
            let (builder, frees_long, has_background) = {
                let mut waiting = self.0.waiting.lock();
                let released = waiting.released;
                let builder = waiting.next_batch(&is_store_busy, &mut abandoned);
                let was_behind = builder.commands.is_empty() && waiting.long_is_behind;
                let frees_long = was_behind || released > 0 && waiting.released == 0;
                (builder, frees_long, waiting.submissions.has_background())
            };
            // Without the lock, as they give their shares back.
            drop(abandoned);
            if frees_long {
                // A large command was to come behind them; some may be gone, and nobody says so.
                self.0.long_added.notify_one();
            }
            if !builder.commands.is_empty() {
                return builder;
            }
            // A note that was left meanwhile is not lost: it ends this at once.
            let added = self.0.added.notified();
            if has_background {
                let _ = tokio::time::timeout(STORE_CHECK_PERIOD, added).await;
            } else {
                added.await;
            }
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
    fn next_batch(
        &mut self,
        is_store_busy: impl Fn() -> bool,
        abandoned: &mut Vec<Submission>,
    ) -> BatchBuilder {
        let mut builder = BatchBuilder::default();
        while self.add_own(&mut builder, OwnRank::Needed) {}
        let takes_background = self.takes_background(is_store_busy);
        // Whoever waits for one that weighs much does not wait for a second one beside itself.
        let pick = match takes_background && self.background_missed {
            true => Pick::Any,
            false => Pick::Interactive,
        };
        if self.owned_last {
            self.add_submissions(pick, &mut builder, abandoned);
        }
        let before = builder.commands.len();
        while self.add_own(&mut builder, OwnRank::Usual) {}
        self.owned_last = builder.commands.len() > before;
        self.add_submissions(pick, &mut builder, abandoned);
        if takes_background {
            if builder.replies.is_empty() {
                self.add_submissions(Pick::Any, &mut builder, abandoned);
            }
            self.background_missed = !builder.has_background;
        }
        if builder.has_background {
            self.background_went = Some(Instant::now());
        }
        builder
    }

    /// Whether commands that weigh much may come out. Also of what has its turn: large ones wait
    /// for it.
    fn takes_background(&self, is_store_busy: impl Fn() -> bool) -> bool {
        let is_due = || self.background_went.is_none_or(|it| it.elapsed() >= BACKGROUND_PERIOD);
        self.submissions.has_background() && (self.released > 0 || is_due() || !is_store_busy())
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

    /// Also one that is held: its large command may be a definition.
    fn is_under_way(&self, branch: &BranchKey) -> bool {
        self.own_under_way.contains(branch) || self.held.as_ref() == Some(branch)
    }

    /// Nothing is held any more.
    fn release(&mut self) {
        if let Some(branch) = self.held.take()
            && let Some(asked) = self.own.remove(&branch)
        {
            // A branch of which one command took long is large.
            self.own_long.push(branch, asked);
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
        self.long_is_behind = false;
        // Not before what commands need: this one may be among them, and it goes its own way. And
        // not before what waited for the last one, or it would wait for this one as well.
        if self.own.has_needed() || self.released > 0 || self.awaited_under_way {
            return None;
        }
        let usual = OwnRank::Usual;
        let mut own = if self.owned_last_long { None } else { self.own_long.pop(usual, None) };
        if own.is_none()
            && let Some((requester, count, key)) = self.first_long_of_clients(abandoned)
        {
            if self.is_held(count, &key) {
                own = self.own_long.remove(&key).map(|asked| (key, asked));
            } else {
                self.owned_last_long = false;
                let next = self.long.pop_of(requester);
                return next.map(|next| LongSubmission::Client(next.submission));
            }
        }
        let (branch, asked) = own.or_else(|| self.own_long.pop(usual, None))?;
        self.owned_last_long = true;
        self.held = Some(branch);
        Some(LongSubmission::Own(asked.commands))
    }

    /// Whose the next large command is, how many came in before it, and its branch. One that is
    /// behind others of its requester is not next.
    fn first_long_of_clients(
        &mut self,
        abandoned: &mut Vec<Submission>,
    ) -> Option<(Requester, u64, BranchKey)> {
        let (weight, gone) = next_weight(&mut self.long, Pick::Any);
        for WaitingSubmission { submission, .. } in gone {
            self.forget_long(submission.requester, submission.command.key.clone());
            abandoned.push(submission);
        }
        let next = self.long.first_ready(|it| !self.is_behind(it));
        let next = next.map(|WaitingSubmission { count, submission, .. }| {
            (submission.requester, *count, submission.command.key.clone())
        });
        self.long_is_behind = next.is_none() && weight.is_some();
        next
    }

    /// Whether commands that its requester handed in before it wait, or are on their way.
    fn is_behind(&self, waiting: &WaitingSubmission) -> bool {
        let requester = &waiting.submission.requester;
        let first = self.submissions.first_of(requester).map(|first| &first.count);
        first.into_iter().chain(self.under_way.get(requester)).any(|count| *count < waiting.count)
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
    fn add_submissions(
        &mut self,
        pick: Pick,
        builder: &mut BatchBuilder,
        abandoned: &mut Vec<Submission>,
    ) {
        loop {
            let (weight, gone) = next_weight(&mut self.submissions, pick);
            self.released -= gone.iter().filter(|gone| gone.is_released).count();
            abandoned.extend(gone.into_iter().map(|gone| gone.submission));
            if !weight.is_some_and(|weight| builder.takes(weight)) {
                return;
            }
            let Some(next) = self.submissions.pop(pick) else { return };
            self.released -= usize::from(next.is_released);
            if self.is_held(next.count, &next.submission.command.key) {
                self.set_aside.push(WaitingSubmission { is_released: false, ..next });
                continue;
            }
            self.awaited_under_way |= next.is_released;
            let submission = next.submission;
            self.under_way.entry(submission.requester).or_insert(next.count);
            builder.has_background |= submission.cost.weight >= BACKGROUND_WEIGHT;
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
fn next_weight(
    queue: &mut FairQueue<WaitingSubmission>,
    pick: Pick,
) -> (Option<u64>, Vec<WaitingSubmission>) {
    let mut gone = Vec::new();
    let is_gone = |waiting: &WaitingSubmission| waiting.submission.reply.is_abandoned();
    let weight = queue.next_weight(pick, is_gone, &mut gone);
    (weight, gone)
}

/// The commands of one entry and who waits for which of them.
#[derive(Default)]
pub(super) struct BatchBuilder {
    pub(super) commands: Vec<Command>,
    pub(super) replies: Vec<(usize, OutcomeSender)>,
    pub(super) bytes: usize,
    weight: u64,
    /// Whether one of them is for the background.
    has_background: bool,
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
mod tests;
